"""MGDSPR's objective against plain Python over pools with duplicates and known positives; each option by its effect."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
from hypothesis import given
from hypothesis import strategies as st

from tfebr.errors import ConfigError
from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.losses.sampled_softmax import sampled_softmax
from tfebr.tasks.candidates import Candidates
from tfebr.tasks.mixing import mixed_negatives
from tfebr.tasks.softmax_retrieval import SoftmaxRetrieval

DIM, SEED = 3, tf.constant([5, 6])


def loss_of(task, queries, pool, known, seed=SEED, teacher_scores=None, sample_weight=None) -> tf.Tensor:
    more = {"seed": seed, "teacher_scores": teacher_scores, "sample_weight": sample_weight}
    return task(queries, **pool.arguments(), known_positives=known, **more)


def plain(queries, items, rows, known, log_probability, alpha, temperature, hard, in_batch) -> float:
    batch, losses = len(queries), []
    dot = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))  # noqa: E731
    for i in range(batch):
        negatives = [j for j in range(len(items)) if rows[j] > 0 and rows[j] not in known[i] and (in_batch or j >= batch)]
        terms = [dot(queries[i], items[j]) / temperature - log_probability[j] for j in negatives]
        if alpha is not None:
            ranked = sorted(negatives, key=lambda j: -dot(queries[i], items[j]))
            for j in ranked:
                if dot(queries[i], items[j]) >= dot(queries[i], items[ranked[min(hard, len(ranked)) - 1]]):
                    vector = [alpha[i][j] * p + (1 - alpha[i][j]) * n for p, n in zip(items[i], items[j], strict=True)]
                    terms.append(dot(queries[i], vector) / temperature - log_probability[j])
        own = dot(queries[i], items[i]) / temperature - log_probability[i]
        losses.append(math.log(sum(math.exp(t - own) for t in terms) + 1))
    return sum(losses) / batch


def shares(batch: int, columns: int, mix: tuple[float, float]) -> list[list[float]]:
    mask = tf.ones([batch, columns], tf.bool)
    return mixed_negatives(tf.zeros([batch, columns]), tf.ones([batch]), mask, 1, *mix, SEED)[0].numpy().tolist()


@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 4),
    random=st.integers(0, 6),
    mix=st.sampled_from([None, (0.4, 0.6), (0.0, 1.0)]),
    hard=st.integers(1, 8),
    logq=st.booleans(),
    in_batch=st.booleans(),
    temperature=st.sampled_from([0.5, 2.0]),
)
def test_equals_plain_loops(seed, batch, random, mix, hard, logq, in_batch, temperature):
    rng = np.random.default_rng(seed)
    # Quarters: products are exact in float32, so that ties are ties. Few items, so that copies and accidental hits are common.
    table = (rng.integers(-6, 7, (7, DIM)) / 4).astype(np.float32)
    queries = (rng.integers(-6, 7, (batch, DIM)) / 4).astype(np.float32)
    rows = [*rng.integers(1, 7, batch).tolist(), *rng.integers(0, 7, random).tolist()]
    known = [[rows[i], *rng.integers(0, 7, 2).tolist()] for i in range(batch)]
    log_probability = rng.normal(size=len(rows)).astype(np.float32)
    task = SoftmaxRetrieval(temperature, mix, hard, logq=logq, in_batch=in_batch)
    pool = Candidates(tf.constant(table[rows]), tf.constant(rows, tf.int32), tf.constant(log_probability))
    found = loss_of(task, tf.constant(queries)[:, None], pool, tf.constant(known, tf.int32), SEED)
    assert found.shape == ()
    corrections = log_probability.tolist() if logq else [0.0] * len(rows)
    alpha = None if mix is None else shares(batch, len(rows), mix)
    expected = plain(queries.tolist(), table[rows].tolist(), rows, known, corrections, alpha, temperature, hard, in_batch)
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def plain_smoothed(queries, items, teacher, rows, known, log_probability, alpha, temperature, hard, logq, smoothing, weights) -> float:
    """Cross-entropy with the smoothed targets over the positive, the negatives and their mixes, in loops."""
    dot, losses = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True)), []
    for i in range(len(queries)):
        negatives = [j for j in range(len(items)) if rows[j] > 0 and rows[j] not in known[i]]
        # (column, share of the positive in it); the positive comes first.
        terms = [(i, 0.0), *((j, 0.0) for j in negatives)]
        if alpha is not None and negatives:
            ranked = sorted((dot(queries[i], items[j]) for j in negatives), reverse=True)
            terms += [(j, alpha[i][j]) for j in negatives if dot(queries[i], items[j]) >= ranked[min(hard, len(ranked)) - 1]]

        def softmax(values):
            total = sum(math.exp(v) for v in values)
            return [math.exp(v) / total for v in values]

        def logits(scores, row=i, chosen=terms):
            mixed = [a * scores[row] + (1 - a) * scores[j] for j, a in chosen]
            return [m / temperature - log_probability[j] * logq for m, (j, _) in zip(mixed, chosen, strict=True)]

        own = logits([dot(queries[i], item) for item in items])
        parts = [
            (1 - smoothing.total, [1.0, *[0.0] * (len(terms) - 1)]),
            (smoothing.uniform, softmax([0.0] * len(terms))),
            (smoothing.sampling, softmax([log_probability[j] for j, _ in terms])),
            (smoothing.bootstrap, softmax(own if teacher is None else logits(teacher[i]))),
        ]
        predicted = softmax(own)
        losses.append(-weights[i] * sum(share * t * math.log(p) for share, part in parts for t, p in zip(part, predicted, strict=True)))
    return sum(losses) / len(losses)


@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 4),
    random=st.integers(0, 6),
    mix=st.sampled_from([None, (0.4, 0.6)]),
    hard=st.integers(1, 8),
    logq=st.booleans(),
    taught=st.booleans(),
    shares_of=st.sampled_from([(0.3, 0, 0), (0, 0.3, 0), (0, 0, 0.3), (0.1, 0.2, 0.3), (0, 0, 0)]),
)
def test_smoothing_equals_plain_loops(seed, batch, random, mix, hard, logq, taught, shares_of):
    rng = np.random.default_rng(seed)
    table = (rng.integers(-6, 7, (7, DIM)) / 4).astype(np.float32)
    queries = (rng.integers(-6, 7, (batch, DIM)) / 4).astype(np.float32)
    rows = [*rng.integers(1, 7, batch).tolist(), *rng.integers(0, 7, random).tolist()]
    known = [[rows[i], *rng.integers(0, 7, 2).tolist()] for i in range(batch)]
    log_probability, weights = rng.normal(size=len(rows)).astype(np.float32), rng.uniform(0, 3, batch).astype(np.float32)
    teacher = rng.normal(size=(batch, len(rows))).astype(np.float32) if taught else None
    smoothing = LabelSmoothing(*shares_of)
    pool = Candidates(tf.constant(table[rows]), tf.constant(rows, tf.int32), tf.constant(log_probability))
    found = loss_of(
        SoftmaxRetrieval(1.5, mix, hard, logq=logq, smoothing=smoothing),
        tf.constant(queries)[:, None],
        pool,
        tf.constant(known, tf.int32),
        SEED,
        teacher,
        weights,
    )
    alpha = None if mix is None else shares(batch, len(rows), mix)
    lists = queries.tolist(), table[rows].tolist(), None if teacher is None else teacher.tolist()
    expected = plain_smoothed(*lists, rows, known, log_probability.tolist(), alpha, 1.5, hard, logq, smoothing, weights.tolist())
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def example(batch: int = 4, random: int = 6, seed: int = 0) -> tuple[tf.Tensor, Candidates, tf.Tensor]:
    rng = np.random.default_rng(seed)
    queries, items = (tf.constant(rng.normal(size=(n, DIM)), tf.float32) for n in (batch, batch + random))
    rows = tf.range(1, batch + random + 1)
    return queries[:, None], Candidates(items, rows, tf.constant(rng.normal(size=batch + random), tf.float32)), rows[:batch, None]


def loss_and_gradients(task: SoftmaxRetrieval, queries, pool, known, *more) -> tuple[float, np.ndarray, np.ndarray]:
    with tf.GradientTape() as tape:
        tape.watch([queries, pool.embeddings])
        loss = loss_of(task, queries, pool, known, SEED, *more)
    return float(loss), *(g.numpy() for g in tape.gradient(loss, [queries, pool.embeddings]))


@pytest.mark.parametrize("stop", [False, True])
def test_gradients_are_those_of_mixed_embeddings(stop):
    queries, pool, known = example()
    found = loss_and_gradients(SoftmaxRetrieval(1.5, (0.3, 0.8), hard=100, stop_gradient=stop), queries, pool, known)
    alpha = tf.constant(shares(4, 10, (0.3, 0.8)))[..., None]
    items = pool.embeddings
    with tf.GradientTape() as tape:
        tape.watch([queries, items])
        mixed = alpha * items[:4, None] + (1 - alpha) * items[None]
        mixed = tf.stop_gradient(mixed) if stop else mixed
        scores = tf.einsum("bhd,cd->bc", queries, items)
        both = tf.concat([scores, tf.einsum("bhd,bcd->bc", queries, mixed)], axis=1)
        negative = tf.tile(tf.eye(4, 10) == 0, [1, 2])
        loss = sampled_softmax(both, tf.linalg.diag_part(scores[:, :4]), negative, 1.5)
    for a, b in zip(found, [loss, *tape.gradient(loss, [queries, items])], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_stop_gradient_changes_the_items_gradient_only():
    free, stopped = (loss_and_gradients(SoftmaxRetrieval(stop_gradient=stop), *example()) for stop in (False, True))
    assert free[0] == stopped[0]
    np.testing.assert_allclose(free[1], stopped[1], rtol=1e-5, atol=1e-7)
    assert not np.allclose(free[2], stopped[2], rtol=0.05)


def test_known_positives_and_no_item_get_no_gradient():
    queries, pool, _ = example(2, 3)
    pool, known = pool._replace(rows=tf.constant([1, 2, 3, 0, 4])), tf.constant([[1, 3], [2, 3]])
    by_item = np.abs(loss_and_gradients(SoftmaxRetrieval(), queries, pool, known)[2]).sum(axis=1)
    assert (by_item[[2, 3]] == 0).all()
    assert (by_item[[0, 1, 4]] > 0).all()


def test_an_accidental_hit_takes_no_place_among_the_hardest():
    """The row's other positive scores highest: with N = 1, the next one is mixed all the same."""
    queries, items = tf.constant([[[1.0]]]), tf.constant([[2.0], [9.0], [1.0], [0.0]])
    pool = Candidates(items, tf.constant([1, 2, 3, 4]), tf.zeros(4))
    found = loss_of(SoftmaxRetrieval(1.0, (0.4, 0.6), hard=1), queries, pool, tf.constant([[1, 2]]), SEED)
    mixed = 1.0 + shares(1, 4, (0.4, 0.6))[0][2]
    assert float(found) == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + math.exp(1) + 1 + math.exp(mixed))), rel=1e-5)


def test_mixed_negatives_add_to_the_loss_and_n_counts():
    losses = [
        float(loss_of(SoftmaxRetrieval(mix=mix, hard=n), *example(), SEED)) for mix, n in ((None, 9), ((0.4, 0.6), 1), ((0.4, 0.6), 4))
    ]
    losses += [float(loss_of(SoftmaxRetrieval(hard=n), *example(), SEED)) for n in (9, 10, 684)]
    assert losses[0] < losses[1] < losses[2] < losses[3]
    assert losses[4:] == pytest.approx([losses[3]] * 2, rel=1e-6)


def test_the_seed_moves_the_shares():
    task, arguments = SoftmaxRetrieval(), example()
    values = [float(loss_of(task, *arguments, tf.constant(seed))) for seed in ([1, 2], [1, 2], [1, 3])]
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    assert values[2] != pytest.approx(values[0], rel=1e-6)


def test_temperature_smooths():
    """Higher: the hardest negative's share of the gradient falls towards that of the others."""
    items = tf.constant([[1.0], [3.0], [-1.0], [-3.0]])
    pool, shares_of_hardest = Candidates(items, tf.range(1, 5), tf.zeros(4)), []
    for temperature in (0.3, 2.0, 50.0):
        by_item = loss_and_gradients(SoftmaxRetrieval(temperature, None), tf.constant([[[1.0]]]), pool, tf.constant([[1]]))[2][1:, 0]
        shares_of_hardest.append(by_item[0] / by_item.sum())
    assert shares_of_hardest[0] > 0.99
    assert shares_of_hardest[0] > shares_of_hardest[1] > shares_of_hardest[2]
    assert shares_of_hardest[2] == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize("mix", [None, (0.4, 0.6)])
def test_logq_changes_nothing_where_nothing_is_known_or_all_is_equal(mix):
    queries, pool, known = example()
    without = float(loss_of(SoftmaxRetrieval(mix=mix, hard=3), queries, pool, known, SEED))
    for value in (0.0, -2.5):
        equal = pool._replace(log_probability=tf.fill([10], value))
        assert float(loss_of(SoftmaxRetrieval(mix=mix, hard=3, logq=True), queries, equal, known, SEED)) == pytest.approx(without, rel=1e-5)
    assert float(loss_of(SoftmaxRetrieval(mix=mix, hard=3, logq=True), queries, pool, known, SEED)) != pytest.approx(without, rel=1e-3)


def test_logq_makes_a_skewed_pool_count_like_the_whole_corpus():
    rng, corpus, draws, temperature = np.random.default_rng(0), 40, 8000, 2.0
    probabilities = np.arange(1.0, corpus + 1) ** -1
    probabilities /= probabilities.sum()
    items, query = (rng.normal(size=shape).astype(np.float32) for shape in ((corpus, DIM), (1, 1, DIM)))
    pool_rows = np.array([7, *rng.choice(corpus, draws, p=probabilities) + 1])
    log_probability = np.log(draws * probabilities)[pool_rows - 1]
    pool = Candidates(tf.constant(items[pool_rows - 1]), tf.constant(pool_rows, tf.int32), tf.constant(log_probability, tf.float32))
    found = float(loss_of(SoftmaxRetrieval(temperature, None, logq=True), tf.constant(query), pool, tf.constant([[7]]), SEED))
    logits = np.exp(items @ query[0, 0] / temperature)
    own = logits[6] / (draws * probabilities[6])
    assert found == pytest.approx(-math.log(own / (own + np.delete(logits, 6).sum())), rel=0.005)


def test_unknown_batch_sizes_in_a_graph():
    task = SoftmaxRetrieval(hard=3, logq=True)
    specs = [tf.TensorSpec([None, 1, DIM]), tf.TensorSpec([None, DIM]), tf.TensorSpec([None], tf.int32), tf.TensorSpec([None])]
    graph = tf.function(
        lambda q, e, r, p, k: loss_of(task, q, Candidates(e, r, p), k), input_signature=[*specs, tf.TensorSpec([None, None], tf.int32)]
    )
    for batch in (1, 4):
        queries, pool, known = example(batch)
        np.testing.assert_allclose(graph(queries, *pool, known), loss_of(task, queries, pool, known), rtol=1e-5)


ALL_PARTS = LabelSmoothing(uniform=0.1, sampling=0.1, bootstrap=0.2)


@pytest.mark.parametrize("mix", [None, (0.4, 0.6)])
@pytest.mark.parametrize("weights", [None, tf.constant([0.5, 2.0, 1.0, 0.0])])
def test_nothing_smoothed_is_the_plain_loss(mix, weights):
    plain_loss, zero = (SoftmaxRetrieval(mix=mix, hard=3, logq=True, smoothing=s) for s in (None, LabelSmoothing()))
    for a, b in zip(*(loss_and_gradients(task, *example(), None, weights) for task in (plain_loss, zero)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_a_little_smoothing_is_nearly_the_plain_loss():
    plain_loss, little = (SoftmaxRetrieval(hard=3, smoothing=s) for s in (None, LabelSmoothing(1e-5, 1e-5, 1e-5)))
    for a, b in zip(*(loss_and_gradients(task, *example()) for task in (plain_loss, little)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_weights_multiply_the_loss_of_their_row():
    queries, pool, known = example(2)
    task = SoftmaxRetrieval(mix=None)
    first, second, both = (
        float(loss_of(task, queries, pool, known, SEED, None, tf.constant(w))) for w in ([1.0, 0.0], [0.0, 1.0], [3.0, 0.5])
    )
    assert first + second == pytest.approx(float(loss_of(task, queries, pool, known)), rel=1e-5)
    assert both == pytest.approx(3 * first + 0.5 * second, rel=1e-5)


@pytest.mark.parametrize("mix", [None, (0.4, 0.6)])
@pytest.mark.parametrize("logq", [False, True])
def test_a_teacher_that_thinks_the_same_changes_nothing(mix, logq):
    queries, pool, known = example()
    same = tf.matmul(queries[:, 0], pool.embeddings, transpose_b=True)
    task = SoftmaxRetrieval(mix=mix, hard=3, logq=logq, smoothing=LabelSmoothing(bootstrap=0.4))
    own, taught, other = (loss_and_gradients(task, queries, pool, known, t) for t in (None, same, same[:, ::-1]))
    for a, b in zip(own, taught, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert own[0] != pytest.approx(other[0], rel=1e-3)


def test_smoothing_gives_masked_candidates_nothing():
    """Neither probability nor gradient: the loss is that of the pool without them."""
    queries, pool, _ = example(2, 3)
    hidden = pool._replace(rows=tf.constant([1, 2, 3, 0, 4]))
    known, seen = tf.constant([[1, 3], [2, 3]]), [0, 1, 4]
    task = SoftmaxRetrieval(mix=None, smoothing=ALL_PARTS)
    loss, by_query, by_item = loss_and_gradients(task, queries, hidden, known)
    expected = loss_and_gradients(task, queries, Candidates(*(tf.gather(t, seen) for t in hidden)), known)
    assert loss == pytest.approx(expected[0], rel=1e-5)
    np.testing.assert_allclose(by_query, expected[1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(by_item[seen], expected[2], rtol=1e-5, atol=1e-7)
    assert not by_item[[2, 3]].any()


@pytest.mark.parametrize("smoothing", [None, ALL_PARTS])
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
@pytest.mark.parametrize("rows", [[1, 1, 1, 0], [1, 2, 0, 0], [1, 2, 3, 4]])
def test_finite_under_every_mask(dtype, rows, smoothing):
    rng = np.random.default_rng(3)
    queries, items, teacher = (tf.constant(rng.normal(size=s) * 30, dtype) for s in ((2, 1, DIM), (4, DIM), (2, 4)))
    pool, weights = Candidates(items, tf.constant(rows), tf.constant([0.5, -9.0, 0.0, 2.0])), tf.constant([0.0, 10.0])
    task = SoftmaxRetrieval(hard=2, logq=True, smoothing=smoothing)
    found = loss_and_gradients(task, queries, pool, tf.constant(rows[:2])[:, None], teacher, weights)
    assert all(np.isfinite(np.asarray(part, np.float32)).all() for part in found)


@pytest.mark.parametrize("settings", [{"logq": True}, {"smoothing": LabelSmoothing(sampling=0.1)}])
def test_unknown_sampling_probability_is_refused_where_it_is_read(settings):
    queries, pool, known = example()
    unknown = pool._replace(log_probability=None)
    with pytest.raises(ConfigError, match=r"`(candidate_sampling_probability|log_probability)`.* for `(logq|sampling)`"):
        loss_of(SoftmaxRetrieval(**settings), queries, unknown, known)
    without = SoftmaxRetrieval(smoothing=LabelSmoothing(uniform=0.1))
    assert float(loss_of(without, queries, unknown, known)) == pytest.approx(float(loss_of(without, queries, pool, known)), rel=1e-6)


def test_several_heads_are_refused():
    _, pool, known = example(2)
    with pytest.raises(ConfigError, match=r"`query_embeddings` must be .*\[batch, 1, dim\].*\(2, 3, 3\)"):
        loss_of(SoftmaxRetrieval(), tf.zeros([2, 3, DIM]), pool, known)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"temperature": 0.0}, "`temperature`.*0.0"),
        ({"mix": (0.6, 0.4)}, r"`mix`.*\(0.6, 0.4\)"),
        ({"mix": (-0.1, 0.5)}, "`mix`"),
        ({"mix": (0.5, 1.1)}, "`mix`"),
        ({"hard": 0}, "`hard`.*Received: 0"),
    ],
)
def test_impossible_arguments_are_named(arguments, named):
    with pytest.raises(ConfigError, match=named):
        SoftmaxRetrieval(**arguments)


def test_it_is_a_tfrs_retrieval_task():
    assert isinstance(SoftmaxRetrieval(), tfrs.tasks.Retrieval)
