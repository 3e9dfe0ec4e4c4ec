"""MMSE's objective against plain Python over random pages and pools with duplicates and accidental hits; each option by its effect."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
from hypothesis import given, settings
from hypothesis import strategies as st
from multi_grained_oracle import DIM, full, plain_adaptive, plain_ranking, plain_softmax, step

from tfebr.errors import ConfigError
from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.losses.sampled_softmax import sampled_softmax
from tfebr.tasks.candidates import Candidates
from tfebr.tasks.multi_grained_retrieval import MultiGrainedRetrieval

STEPS = (0.2, 0.1, 0.3)
WEIGHTS = (1.0, 0.5, 4.0)


@settings(max_examples=80)
@given(
    seed=st.integers(0, 100_000),
    form=st.sampled_from(["hinge", "logistic", "listwise"]),
    margin=st.sampled_from([0.3, STEPS]),
    reduction=st.sampled_from(["sum", "mean"]),
    unclicked=st.booleans(),
    sure=st.booleans(),
    smoothing=st.sampled_from([None, LabelSmoothing(), LabelSmoothing(0.1, 0.2, 0.3)]),
    taught=st.booleans(),
)
def test_multi_grained_equals_plain_loops(seed, form, margin, reduction, unclicked, sure, smoothing, taught):
    s, unclicked_as = step(seed), "negatives" if unclicked else "left_out"
    task = MultiGrainedRetrieval("multi_grained", 0.6, WEIGHTS, reduction, 0.7, form, margin, 0.4, unclicked_as, smoothing=smoothing)
    expected = plain_softmax(s, 0.6, 2, (0, 1, *WEIGHTS), reduction, unclicked, False, sure, smoothing, taught)
    expected += 0.7 * plain_ranking(s, form, margin, 0.4, sure)
    assert float(s.loss(task, sure=sure, taught=taught)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 100_000),
    lowest=st.sampled_from([1, 2]),
    reduction=st.sampled_from(["sum", "mean"]),
    sure=st.booleans(),
    smoothing=st.sampled_from([None, LabelSmoothing(0.1, 0.2, 0.3)]),
    taught=st.booleans(),
)
def test_graded_equals_plain_loops(seed, lowest, reduction, sure, smoothing, taught):
    s = step(seed)
    task = MultiGrainedRetrieval("graded", 0.6, WEIGHTS, reduction, lowest_positive=lowest, smoothing=smoothing)
    expected = plain_softmax(s, 0.6, lowest, (0, 1, *WEIGHTS), reduction, True, True, sure, smoothing, taught)
    assert float(s.loss(task, sure=sure, taught=taught)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@given(
    seed=st.integers(0, 100_000),
    alpha=st.sampled_from([0.5, 2.0]),
    ranking_weight=st.sampled_from([0.0, 0.7]),
    anchor_weight=st.sampled_from([0.0, 0.5]),
    reduction=st.sampled_from(["sum", "mean"]),
    sure=st.booleans(),
)
def test_adaptive_equals_plain_loops(seed, alpha, ranking_weight, anchor_weight, reduction, sure):
    s = step(seed)
    settled = {"ranking_weight": ranking_weight, "margin": 0.05, "adaptive": alpha, "anchor_weight": anchor_weight}
    task = MultiGrainedRetrieval("multi_grained", 0.6, WEIGHTS, reduction, **settled)
    expected = plain_adaptive(s, 0.6, alpha, 0.05, ranking_weight, anchor_weight, WEIGHTS, reduction, sure)
    assert float(s.loss(task, sure=sure)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_whole_number_is_a_margin_too():
    none, zero = (full().loss(MultiGrainedRetrieval(ranking_weight=1.0, margin=margin, adaptive=0.5)) for margin in (0, 0.0))
    assert float(none) == pytest.approx(float(zero), rel=1e-6)
    assert float(full().loss(MultiGrainedRetrieval(ranking_weight=1.0, margin=1, adaptive=0.5))) > float(zero)


def test_no_gradient_flows_through_adaptive_temperatures_and_margins():
    """Where every score is the same, a query without direction, nothing but those could move an item."""
    s = step(7)
    s = s._replace(queries=np.zeros_like(s.queries))
    _, (_, by_shown, by_pool) = s.gradients(MultiGrainedRetrieval(ranking_weight=1.0, adaptive=0.5))
    assert not by_shown.any()
    assert not by_pool.any()


WAYS = {
    "hinge": {"ranking_weight": 1.0, "margin": STEPS},
    "logistic": {"ranking_weight": 1.0, "form": "logistic"},
    "listwise": {"ranking_weight": 1.0, "form": "listwise"},
    "negatives": {"ranking_weight": 1.0, "unclicked_as": "negatives"},
    "smoothed": {"smoothing": LabelSmoothing(0.1, 0.2, 0.3)},
    "graded": {"objective": "graded"},
    "graded, unclicked as positives": {"objective": "graded", "lowest_positive": 1},
    "graded, smoothed": {"objective": "graded", "smoothing": LabelSmoothing(0.1, 0.2, 0.3)},
    "adaptive": {"ranking_weight": 1.0, "adaptive": 0.5},
}


@pytest.mark.parametrize("way", WAYS)
def test_known_items_are_never_negatives(way):
    s, task = full(), MultiGrainedRetrieval(temperature=0.6, **WAYS[way])
    s = s._replace(known=np.concatenate([s.known, [[22, 0], [22, 23]]], axis=1).astype(np.int32))
    value, (_, _, by_pool) = s.gradients(task)
    np.testing.assert_array_equal(np.abs(by_pool).sum(axis=1) > 0, [True, True, True, False, True])
    for moved in (100.0, -100.0):
        elsewhere = s.pool.copy()
        elsewhere[3] = moved
        assert s._replace(pool=elsewhere).gradients(task)[0] == pytest.approx(value, rel=1e-6)
    by_own_positive = s.first(1).gradients(task)[1][2][0]
    assert not by_own_positive.any(), "a positive in the pool is a negative of the other request alone"


@pytest.mark.parametrize("way", WAYS)
def test_finite_for_every_kind_of_request(way):
    s, task = full(), MultiGrainedRetrieval(**WAYS[way])
    kinds = {
        "no order": np.minimum(s.stages, 2),
        "no click": np.minimum(s.stages, 0),
        "nothing unclicked": np.where(s.stages == 0, -1, s.stages),
        "one order": np.where(s.stages == 3, 3, -1),
        "nothing shown": np.full_like(s.stages, -1),
        "one of two with nothing shown": np.where([[True], [False]], s.stages, -1),
    }
    cases = {name: s._replace(stages=stages.astype(np.int32)) for name, stages in kinds.items()}
    cases["one request"] = s.first(1)
    cases["nothing left in the pool"] = s._replace(known=np.tile(s.pool_rows, [2, 1]))
    cases["a pool without items"] = s._replace(pool_rows=np.zeros_like(s.pool_rows))
    cases["vectors without a direction"] = s._replace(**{n: np.zeros_like(getattr(s, n)) for n in ("queries", "shown", "pool")})
    cases["scores far apart"] = s._replace(queries=s.queries * 1000)
    for name, case in cases.items():
        for sure in (True, False):
            value, gradients = case.gradients(task, sure=sure)
            assert np.isfinite(value), name
            assert all(np.isfinite(g).all() for g in gradients), name
        if name == "nothing shown" and way != "adaptive":
            assert value == 0
            assert not any(g.any() for g in gradients)


@pytest.mark.parametrize("objective", ["multi_grained", "graded"])
def test_one_clicked_item_a_request_is_the_sampled_softmax(objective):
    s = full()
    s = s._replace(stages=np.where(np.arange(5) == 0, 1, -1).repeat(2).reshape(5, 2).T.astype(np.int32))
    queries, items, positives = tf.constant(s.queries), tf.constant(s.pool), tf.constant(s.shown[:, 0])
    negative = tf.constant(np.bool_([[False, True, True, True, True], [True, False, True, True, True]]))
    with tf.GradientTape() as tape:
        tape.watch([queries, positives, items])
        own = tf.reduce_sum(queries * positives, axis=1)
        plain = sampled_softmax(tf.matmul(queries, items, transpose_b=True), own, negative, 0.6)
    expected = tape.gradient(plain, [queries, positives, items])
    for reduction in ("sum", "mean"):
        value, (by_query, by_shown, by_pool) = s.gradients(MultiGrainedRetrieval(objective, 0.6, row_reduction=reduction))
        assert value == pytest.approx(float(plain), rel=1e-5)
        for found, wanted in zip((by_query, by_shown[:, 0], by_pool), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
        assert not by_shown[:, 1:].any()


@pytest.mark.parametrize("objective", ["multi_grained", "graded"])
def test_smoothing_without_a_share_is_the_plain_loss(objective):
    found, plain = (full().gradients(MultiGrainedRetrieval(objective, 0.6, smoothing=how)) for how in (LabelSmoothing(), None))
    assert found[0] == pytest.approx(plain[0], rel=1e-5)
    for a, b in zip(found[1], plain[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_unclicked_items_are_left_out_or_pushed_down():
    """A step downhill along -gradient of an item's score: <gradient, query> is that score's slope."""
    s = full()
    for unclicked_as, pushed in (("left_out", False), ("negatives", True)):
        _, (_, by_shown, _) = s.gradients(MultiGrainedRetrieval(temperature=0.6, ranking_weight=0.0, unclicked_as=unclicked_as))
        slopes = np.einsum("bnd,bd->bn", by_shown, s.queries)
        assert (slopes[s.stages >= 1] < 0).all()
        assert ((slopes[s.stages == 0] > 0) == pushed).all()
        assert by_shown[s.stages == 0].any() == pushed
        assert not by_shown[s.stages == -1].any()


def test_graded_pushes_clicked_items_below_orders_and_above_unclicked_ones():
    s, slopes = full(), {}
    s = s._replace(stages=np.int32([[3, 0, 0, -1, -1], [3, 1, 0, -1, -1]]))
    for stages in (s.stages, np.where(s.stages == 1, 0, s.stages)):
        _, (_, by_shown, _) = s._replace(stages=stages).gradients(MultiGrainedRetrieval("graded", 0.6))
        slopes[int(stages[1, 1])] = np.einsum("bnd,bd->bn", by_shown, s.queries)[1]
    assert slopes[0][1] > 0
    assert slopes[1][1] < slopes[0][1]
    assert slopes[1][2] > slopes[0][2], "an unclicked item is now below two others"


@pytest.mark.parametrize("way", ["negatives", "smoothed", "adaptive"])
def test_a_request_whose_positives_are_doubtful_counts_for_less_in_a_mean_too(way):
    s, task = (
        full(),
        MultiGrainedRetrieval(**{"temperature": 0.6, "row_reduction": "mean"} | WAYS[way] | {"ranking_weight": 0.0, "anchor_weight": 0.0}),
    )
    believed = np.float32([[2.5] * 5, [0.5] * 5])
    first, second = (s._replace(confidence=np.float32([[row == 0] * 5, [row == 1] * 5])).loss(task, sure=False) for row in (0, 1))
    found = s._replace(confidence=believed).loss(task, sure=False)
    np.testing.assert_allclose(found, 2.5 * first + 0.5 * second, rtol=1e-5)
    assert float(first) > 0
    assert float(second) > 0


@pytest.mark.parametrize("way", ["smoothed", "adaptive"])
def test_unknown_batch_sizes_in_a_graph(way):
    task = MultiGrainedRetrieval(**WAYS[way])
    specs = [tf.TensorSpec([None, *values.shape[1:]], values.dtype) for values in full()[:9]]
    graph = tf.function(
        lambda q, e, r, g, t, f, p, h, k: task(
            q[:, None], **Candidates(f, p, h).arguments(), known_positives=k, shown=Candidates(e, r, g), stages=t
        ),
        input_signature=specs,
    )
    for rows in (2, 1):
        few = full().first(rows)
        np.testing.assert_allclose(graph(*few[:9]), few.loss(task), rtol=1e-5)


def test_it_is_a_tfrs_retrieval_task_for_one_head():
    task, s = MultiGrainedRetrieval(), full()
    assert isinstance(task, tfrs.tasks.Retrieval)
    with pytest.raises(ConfigError, match=r"`query_embeddings` must be .*\[batch, 1, dim\].*\(2, 4, 3\)"):
        task(tf.zeros([2, 4, DIM]), tf.constant(s.pool))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"objective": "softmax"}, "`objective` must be one of multi_grained, graded. Received: 'softmax'"),
        ({"unclicked_as": "noise"}, "`unclicked_as` must be one of left_out, negatives. Received: 'noise'"),
        ({"adaptive": 0.0}, "`adaptive` must be a finite number above 0. Received: 0.0"),
        ({"adaptive": 0.5, "unclicked_as": "negatives"}, "`adaptive` needs .*`unclicked_as` = left_out"),
        ({"adaptive": 0.5, "row_reduction": "max"}, "`row_reduction` must be one of sum, mean"),
        ({"adaptive": 0.5, "objective": "graded"}, "`adaptive` needs `objective` = multi_grained"),
        ({"adaptive": 0.5, "form": "logistic"}, "`adaptive` needs .*`form` = hinge"),
        ({"adaptive": 0.5, "margin": STEPS}, "`adaptive` needs .*one `margin`"),
        ({"adaptive": 0.5, "smoothing": LabelSmoothing(0.1)}, "`adaptive` and `smoothing` do not go together"),
        ({"form": "huber"}, "`form` must be one of"),
        ({"margin": (0.1, 0.2)}, "`margin` must be one finite number of at least 0, or three"),
        ({"weights": (1.0, 2.0)}, "`weights` must be 3 finite numbers"),
        ({"objective": "graded", "weights": (1.0, 2.0)}, r"`weights` must be 3 finite numbers.*Received: \(1.0, 2.0\)"),
        ({"row_reduction": "max"}, "`row_reduction` must be one of sum, mean"),
        ({"temperature": 0.0}, "`temperature` must be a finite number above 0. Received: 0.0"),
        ({"objective": "graded", "lowest_positive": 0}, "`lowest_positive` must be a whole number in"),
    ],
)
def test_impossible_arguments_are_named(arguments, named):
    with pytest.raises(ConfigError, match=named):
        full().loss(MultiGrainedRetrieval(**arguments))
