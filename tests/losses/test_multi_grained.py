"""The multi-grained objective against plain loops over positives, negatives and pairs, for every mask; what each part moves."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf
from harness import run_loss_test
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from loss_checks import SCORES, check_against_finite_differences, check_finite, scores_and_labels, value_and_gradients

from tfebr.data.stage import Stage
from tfebr.errors import ConfigError
from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.losses.multi_grained import FORMS, multi_grained, ranking_loss, retrieval_loss

RNG = np.random.default_rng(0)
SHOWN = RNG.normal(size=(3, 5)).astype(np.float32) * 0.3
NEGATIVES = RNG.normal(size=(3, 4)).astype(np.float32) * 0.3
STAGES = np.int32([[0, 1, 3, -1, -1], [0, 0, 1, 2, 1], [0, 0, 0, -1, -1]])
MASK = np.bool_([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]])
STEPS = [0.05, 0.03, 0.02]


def plain_retrieval(
    shown, stages, negatives, mask, temperature, weights, reduction="sum", confidence=None, unclicked_negatives=False
) -> float:
    rows = []
    for i, row in enumerate(shown):
        below = [math.exp(s / temperature) for s, m in zip(negatives[i], mask[i], strict=True) if m]
        if unclicked_negatives:
            below += [math.exp(s / temperature) for s, stage in zip(row, stages[i], strict=True) if stage == Stage.UNCLICKED]
        total = over = 0.0
        for j, (score, stage) in enumerate(zip(row, stages[i], strict=True)):
            if stage >= Stage.CLICKED and below:
                weight, sure = weights[stage - 1], confidence[i][j] if confidence else 1.0
                own = math.exp(score / temperature)
                total -= weight * sure * math.log(own / (own + sum(below)))
                over += weight
        rows.append(total if reduction == "sum" else total / over if over else 0.0)
    return sum(rows) / len(rows)


def plain_ranking(shown, stages, form, margin, temperature, confidence=None) -> float:
    rows = []
    for i, row in enumerate(shown):
        terms = []
        for a, stage in enumerate(stages[i]):
            sure = confidence[i][a] if confidence else 1.0
            earlier = [b for b, other in enumerate(stages[i]) if 0 <= other < stage]
            if form == "listwise" and earlier:
                terms.append(sure * math.log(1 + sum(math.exp((row[b] - row[a]) / temperature) for b in earlier)))
                continue
            for b in earlier:
                delta = sum(margin[stages[i][b] : stage]) if isinstance(margin, list) else margin
                hinge, logistic = max(0.0, delta - row[a] + row[b]), math.log(1 + math.exp((row[b] - row[a]) / temperature))
                terms.append(sure * (hinge if form == "hinge" else logistic))
        rows.append(sum(terms) / len(terms) if terms else 0.0)
    return sum(rows) / len(rows)


def test_contract_of_the_retrieval_loss():
    def loss(scores, positives, mask):
        return retrieval_loss(positives[:, None], tf.fill([tf.shape(scores)[0], 1], int(Stage.CARTED)), scores, mask, 0.7, (1.0, 2.0, 3.0))

    def oracle(scores, positives, mask):
        return plain_retrieval([[p] for p in positives], [[2]] * len(positives), scores, mask, 0.7, [1.0, 2.0, 3.0])

    run_loss_test(loss, oracle)


@pytest.mark.parametrize("form", ["hinge", "logistic"])
def test_contract_of_the_ranking_loss(form):
    """One clicked item, and unclicked ones in place of negatives."""
    options = {"form": form, "margin": 0.5, "temperature": 0.7}

    def loss(scores, positives, mask):
        stages = tf.concat([tf.ones_like(mask[:, :1], tf.int32), tf.where(mask, 0, -1)], axis=1)
        return ranking_loss(tf.concat([positives[:, None], scores], axis=1), stages, **options)

    def oracle(scores, positives, mask):
        rows = [[p, *row] for p, row in zip(positives, scores, strict=True)]
        return plain_ranking(rows, [[1, *(0 if m else -1 for m in row)] for row in mask], **options)

    run_loss_test(loss, oracle)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@given(scores_and_labels(-1, 3), st.data(), st.booleans(), st.booleans())
def test_retrieval_equals_plain_loops(reduction, drawn, data, confident, unclicked):
    shown, stages = drawn
    negatives, mask = (data.draw(hnp.arrays(t, (len(shown), 3), elements=e)) for t, e in ((np.float32, SCORES), (bool, st.booleans())))
    confidence = np.abs(shown) + 0.25 if confident else None
    more = {"unclicked_negatives": unclicked}
    found = retrieval_loss(shown, stages, negatives, mask, 0.5, (1.0, 0.5, 4.0), reduction, confidence, **more)
    known = None if confidence is None else confidence.tolist()
    expected = plain_retrieval(shown.tolist(), stages.tolist(), negatives.tolist(), mask, 0.5, [1.0, 0.5, 4.0], reduction, known, **more)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@given(scores_and_labels(-1, 3), st.sampled_from([0.1, 1.5, [0.5, 0.3, 0.2]]), st.booleans())
def test_ranking_equals_plain_loops(form, drawn, margin, confident):
    shown, stages = drawn
    confidence = np.abs(shown) + 0.25 if confident else None
    found = ranking_loss(shown, stages, form, margin, 0.5, confidence)
    known = None if confidence is None else confidence.tolist()
    expected = plain_ranking(shown.tolist(), stages.tolist(), form, margin, 0.5, known)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=25)
@given(scores_and_labels(-1, 3), st.sampled_from([50.0, np.inf, -np.inf]))
def test_padding_counts_for_nothing(drawn, extreme):
    shown, stages = drawn
    hidden = np.where(stages < 0, np.float32(extreme), shown)
    unsure = np.where(stages < 0, np.float32(np.inf), np.float32(0.5))
    negatives, mask = np.float32([[0.5, extreme]] * len(shown)), np.bool_([[True, False]] * len(shown))
    for form in FORMS:
        loss = lambda s, n: multi_grained(s, stages, n, mask, 0.3, form=form, confidence=unsure)  # noqa: E731, B023
        value, (by_shown, by_negative) = value_and_gradients(loss, hidden, negatives)
        plain, (plain_by_shown, _) = value_and_gradients(loss, shown, np.where(mask, negatives, np.float32(0)))
        np.testing.assert_allclose(value, plain, rtol=1e-6)
        np.testing.assert_allclose(by_shown, plain_by_shown, rtol=1e-6, atol=1e-7)
        assert not by_shown[stages < 0].any()
        assert not by_negative[:, 1].any()


@settings(max_examples=25)
@given(scores_and_labels(-1, 3), st.data())
def test_finite_for_every_mask_in_float32_and_bfloat16(drawn, data):
    shown, stages = drawn
    mask = data.draw(hnp.arrays(bool, (len(shown), 3)))
    for form in FORMS:
        loss = lambda s, n: multi_grained(s, stages, n, mask, 0.5, 0.5, form=form, ranking_temperature=0.5)  # noqa: E731, B023
        check_finite(loss, shown, np.zeros(mask.shape))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("unclicked_negatives", [False, True])
def test_gradients_are_slopes(form, unclicked_negatives):
    options = {"ranking_weight": 0.5, "temperature": 0.4, "weights": (1.0, 2.0, 5.0), "margin": STEPS, "ranking_temperature": 0.3}
    options |= {"unclicked_negatives": unclicked_negatives}
    check_against_finite_differences(lambda s, n: multi_grained(s, STAGES, n, MASK, form=form, **options), SHOWN, NEGATIVES)


def test_the_global_loss_leaves_unclicked_items_and_other_positives_alone():
    _, (by_shown, by_negative) = value_and_gradients(lambda s, n: retrieval_loss(s, STAGES, n, MASK, 0.4), SHOWN, NEGATIVES)
    assert (by_shown[STAGES >= 1] < 0).all()
    assert not by_shown[STAGES < 1].any()
    assert (by_negative[:2][MASK[:2]] > 0).all()
    assert not by_negative[2].any(), "a row without positives"
    _, (alone, _) = value_and_gradients(lambda s, n: retrieval_loss(s, STAGES, n, MASK, 0.4), SHOWN + np.float32(STAGES == 3), NEGATIVES)
    np.testing.assert_allclose(alone[STAGES != 3], by_shown[STAGES != 3], rtol=1e-6, atol=1e-7)


def test_unclicked_items_as_negatives_are_pushed_down_like_the_others():
    value, (by_shown,) = value_and_gradients(lambda s: retrieval_loss(s, STAGES, NEGATIVES, MASK, 0.4, unclicked_negatives=True), SHOWN)
    assert (by_shown[:2][STAGES[:2] == 0] > 0).all()
    assert (by_shown[STAGES >= 1] < 0).all()
    assert not by_shown[STAGES == -1].any()
    assert not by_shown[2].any(), "a row without positives"
    among_negatives = np.concatenate([NEGATIVES, SHOWN], axis=1), np.concatenate([MASK, STAGES == 0], axis=1)
    np.testing.assert_allclose(value, retrieval_loss(SHOWN, STAGES, *among_negatives, 0.4), rtol=1e-6)
    without_others = retrieval_loss(SHOWN, STAGES, NEGATIVES, np.zeros_like(MASK), 0.4, unclicked_negatives=True)
    assert 0 < float(without_others) < value


@pytest.mark.parametrize("form", FORMS)
def test_the_local_loss_orders_the_stages_of_a_request(form):
    scores = tf.Variable(tf.zeros([3, 5]))
    optimizer = tf.keras.optimizers.Adam(0.05)
    for _ in range(40):
        with tf.GradientTape() as tape:
            loss = ranking_loss(scores, STAGES, form, STEPS, 0.1)
        optimizer.apply_gradients([(tape.gradient(loss, scores), scores)])
    for row, stages in zip(scores.numpy(), STAGES, strict=True):
        pairs = [(a, b) for a in range(5) for b in range(5) if stages[a] > stages[b] >= 0]
        assert all(row[a] > row[b] for a, b in pairs)
    np.testing.assert_array_equal(scores[2], 0, err_msg="a row without pairs")


def test_the_sum_and_its_weight():
    arguments = SHOWN, STAGES, NEGATIVES, MASK
    parts = retrieval_loss(*arguments, 0.4, (1.0, 2.0, 5.0)), ranking_loss(SHOWN, STAGES, "logistic", temperature=0.2)
    for weight in (0.0, 0.1, 2.0):
        found = multi_grained(*arguments, weight, 0.4, (1.0, 2.0, 5.0), "logistic", ranking_temperature=0.2)
        np.testing.assert_allclose(found, parts[0] + weight * parts[1], rtol=1e-6)


def test_stages_that_are_not_told_apart_weigh_the_same_and_a_weight_of_0_leaves_a_stage_out():
    clicks_alone = retrieval_loss(SHOWN, np.where(STAGES == 1, 1, -1), NEGATIVES, MASK, 0.4)
    np.testing.assert_allclose(retrieval_loss(SHOWN, STAGES, NEGATIVES, MASK, 0.4, (1.0, 0.0, 0.0)), clicks_alone, rtol=1e-6)
    flat = retrieval_loss(SHOWN, np.minimum(STAGES, 1), NEGATIVES, MASK, 0.4)
    np.testing.assert_allclose(retrieval_loss(SHOWN, STAGES, NEGATIVES, MASK, 0.4), flat, rtol=1e-6)


def test_a_margin_for_each_pair():
    margins = np.abs(RNG.normal(size=(3, 5, 5))).astype(np.float32)
    margins[:, :, 3:] = np.where(STAGES[:, None, 3:] < 0, np.nan, margins[:, :, 3:])
    value, (gradient,) = value_and_gradients(lambda s: ranking_loss(s, STAGES, margin=tf.constant(margins)), SHOWN)
    rows = []
    for i, stages in enumerate(STAGES):
        pairs = [(a, b) for a in range(5) for b in range(5) if stages[a] > stages[b] >= 0]
        rows.append(np.mean([max(0.0, margins[i, a, b] - SHOWN[i, a] + SHOWN[i, b]) for a, b in pairs]) if pairs else 0.0)
    np.testing.assert_allclose(value, np.mean(rows), rtol=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("smoothing", [LabelSmoothing(), LabelSmoothing(0.1, 0.2, 0.3)])
def test_smoothing_is_that_of_each_positive_with_the_negatives(smoothing):
    log_probability, teacher = RNG.normal(size=9).astype(np.float32), RNG.normal(size=(3, 9)).astype(np.float32)
    found = retrieval_loss(
        SHOWN, STAGES, NEGATIVES, MASK, 0.4, smoothing=smoothing, log_probability=log_probability, teacher_scores=teacher
    )
    total = 0.0
    for i, j in np.argwhere(STAGES >= 1):
        kept = [j, *range(5, 9)]
        scores, mask = np.append(SHOWN[i, j], NEGATIVES[i])[None], np.append(True, MASK[i])[None]
        total += float(smoothing.row_losses(scores, [0], mask, 0.4, log_probability[kept], teacher[i, kept][None])[0])
    np.testing.assert_allclose(found, total / 3, rtol=1e-5)


def test_lost_weights_do_not_look_like_a_solved_problem():
    lost = np.where(np.arange(5) == 0, np.float32(np.nan), SHOWN)
    for form in FORMS:
        assert np.isnan(ranking_loss(lost, STAGES, form))
        # Vector instructions and the remainder of a row may treat NaN differently.
        assert np.isnan(ranking_loss(lost[:1, :2], STAGES[:1, :2], form))
    assert np.isnan(retrieval_loss(SHOWN, STAGES, NEGATIVES * np.float32(np.nan), MASK))
    assert np.isfinite(retrieval_loss(lost, STAGES, NEGATIVES, MASK)), "an unclicked item is no part of it"


def test_impossible_arguments_are_named():
    with pytest.raises(ConfigError, match=r"`form` must be one of hinge, logistic, listwise. Received: 'huber'"):
        ranking_loss(SHOWN, STAGES, "huber")
    with pytest.raises(
        ConfigError, match=r"`margin` must be one finite number of at least 0, or three for the steps between stages. Received: \[0.1\]"
    ):
        ranking_loss(SHOWN, STAGES, margin=[0.1])
    with pytest.raises(ConfigError, match="`weights` must be 3 finite numbers"):
        retrieval_loss(SHOWN, STAGES, NEGATIVES, MASK, weights=(1.0, 2.0))
    for form in ("logistic", "listwise"):
        with pytest.raises(ConfigError, match="`temperature` must be a finite number above 0"):
            ranking_loss(SHOWN, STAGES, form, temperature=-1.0)


def test_it_runs_in_a_graph_with_unknown_shapes():
    specs = [tf.TensorSpec([None, None], t) for t in (tf.float32, tf.int32, tf.float32, tf.bool)]
    for form in FORMS:
        loss = functools.partial(multi_grained, form=form)
        graph = tf.function(lambda *x: loss(*x), input_signature=specs)  # noqa: B023
        np.testing.assert_allclose(graph(SHOWN, STAGES, NEGATIVES, MASK), loss(SHOWN, STAGES, NEGATIVES, MASK), rtol=1e-5)
