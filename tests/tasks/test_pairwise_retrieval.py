"""DPSR's objective against plain-Python loops over every (positive, negative) pair."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
from hypothesis import given
from hypothesis import strategies as st

from tfebr.tasks.candidates import Candidates
from tfebr.tasks.pairwise_retrieval import PairwiseRetrieval

DIM = 3


def score(heads, item, beta) -> float:
    z = [sum(a * b for a, b in zip(head, item, strict=True)) for head in heads]
    top = max(z)
    weights = [math.exp((v - top) / beta) for v in z]
    return sum(w * v for w, v in zip(weights, z, strict=True)) / sum(weights)


def plain(queries, items, rows, known, margin, beta, in_batch, reduction, explicit=None, explicit_weight=1.0) -> float:
    batch, losses = len(queries), []
    for i in range(batch):
        positive = score(queries[i], items[i], beta)
        pairs = []
        for j in range(len(items)):
            if rows[j] == 0 or rows[j] in known[i] or (j < batch and not in_batch):
                continue
            pairs.append((max(0.0, margin - positive + score(queries[i], items[j], beta)), 1.0))
        for vector, row, owner in explicit or []:
            if owner == i and row and row not in known[i]:
                pairs.append((max(0.0, margin - positive + score(queries[i], vector, beta)), explicit_weight))
        total = sum(p * w for p, w in pairs)
        over = {"sum": 1.0, "mean": sum(w for _, w in pairs), "mean_active": sum(w for p, w in pairs if p > 0)}[reduction]
        losses.append(total / over if over else 0.0)
    return sum(losses) / batch


def candidates(vectors: np.ndarray, rows: list[int]) -> Candidates:
    return Candidates(tf.constant(vectors), tf.constant(rows, tf.int32), tf.zeros(len(rows)))


@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 4),
    heads=st.integers(1, 3),
    random=st.integers(0, 5),
    in_batch=st.booleans(),
    reduction=st.sampled_from(["sum", "mean", "mean_active"]),
    explicit=st.integers(0, 3),
)
def test_equals_plain_loops(seed, batch, heads, random, in_batch, reduction, explicit):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: (rng.normal(size=shape) / 2).astype(np.float32)  # noqa: E731
    queries, items, extra = draw(batch, heads, DIM), draw(batch + random, DIM), draw(explicit, DIM)
    # Few items, so that accidental hits are common.
    rows = [*rng.integers(1, 6, batch).tolist(), *rng.integers(0, 6, random).tolist()]
    known = [[rows[i], *rng.integers(0, 6, 2).tolist()] for i in range(batch)]
    extra_rows, owners = rng.integers(0, 6, explicit).tolist(), rng.integers(0, batch, explicit)
    task = PairwiseRetrieval(margin=0.3, beta=0.2, in_batch=in_batch, reduction=reduction)
    pool = candidates(np.concatenate([items, extra]), rows + extra_rows)
    # Labelled negatives are candidates of their row alone.
    own = np.arange(batch)[:, None] == owners
    score_mask = np.concatenate([np.ones((batch, len(rows)), bool), own], axis=1)
    weights = np.concatenate([np.ones((batch, len(rows)), np.float32), np.full(own.shape, 2.5, np.float32)], axis=1)
    more = {"score_mask": tf.constant(score_mask), "negative_weights": tf.constant(weights)} if explicit else {}
    found = task(tf.constant(queries), **pool.arguments(), known_positives=tf.constant(known, tf.int32), **more)
    owned = list(zip(extra.tolist(), extra_rows, owners.tolist(), strict=True))
    expected = plain(queries.tolist(), items.tolist(), rows, known, 0.3, 0.2, in_batch, reduction, owned, 2.5)
    assert float(found) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_known_positives_and_no_item_get_no_gradient():
    rng = np.random.default_rng(0)
    items = tf.constant(rng.normal(size=(5, DIM)), tf.float32)
    queries = tf.constant(rng.normal(size=(2, 1, DIM)), tf.float32)
    known = tf.constant([[1, 3], [2, 3]])
    with tf.GradientTape() as tape:
        tape.watch(items)
        pool = Candidates(items, tf.constant([1, 2, 3, 0, 4]))
        loss = PairwiseRetrieval(margin=10.0, beta=0.1)(queries, **pool.arguments(), known_positives=known)
    by_item = np.abs(tape.gradient(loss, items).numpy()).sum(axis=1)
    assert (by_item[[2, 3]] == 0).all()
    assert (by_item[[0, 1, 4]] > 0).all()


def test_stop_weights_changes_the_gradient_only():
    rng = np.random.default_rng(1)
    queries, items = (tf.constant(rng.normal(size=shape), tf.float32) for shape in ((2, 3, DIM), (4, DIM)))
    losses, gradients = [], []
    for stop in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(queries)
            task = PairwiseRetrieval(margin=5.0, beta=0.5, stop_weights=stop)
            losses.append(task(queries, items, candidate_ids=tf.constant([1, 2, 3, 4]), known_positives=tf.constant([[1], [2]])))
        gradients.append(tape.gradient(losses[-1], queries).numpy())
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-6)
    assert not np.allclose(*gradients)


def test_it_is_a_tfrs_retrieval_task():
    assert isinstance(PairwiseRetrieval(margin=0.1, beta=0.1), tfrs.tasks.Retrieval)
