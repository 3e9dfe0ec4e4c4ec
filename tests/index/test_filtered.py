"""Filtered search against brute force, whichever way it takes."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from rankings import assert_best

from tfebr.index import filtered
from tfebr.index.attributes import ItemAttributes
from tfebr.index.base import NO_SCORE
from tfebr.index.exact import ExactIndex
from tfebr.index.filtered import filtered_search
from tfebr.index.portable import PortableIndex
from tfebr.index.recipe import Recipe
from tfebr.index.scann import ScannIndex

ITEMS, DIM, K = 600, 8, 10
RNG = np.random.default_rng(3)
VECTORS = RNG.normal(size=(ITEMS, DIM)).astype(np.float32)
QUERIES = RNG.normal(size=(6, 2, DIM)).astype(np.float32)
GROUP = np.array([f"g{i % 3}" for i in range(ITEMS)], object)
GROUP[:4] = "rare"
FIRST = VECTORS[:, 0]
TABLE = pa.table({"group": GROUP, "first": FIRST})
FULL = Recipe("tree", leaves=6, leaves_to_search=6, reorder=ITEMS)
MASKS = {
    "": np.ones(ITEMS, bool),
    "group=g0": GROUP == "g0",
    "group=g0|group=g1": (GROUP == "g0") | (GROUP == "g1"),
    "group=rare": GROUP == "rare",
    "first=0.5..": np.float32(0.5) <= FIRST,
    "first=..-1": np.float32(-1) >= FIRST,
    "group=none": np.zeros(ITEMS, bool),
    "nonsense": np.zeros(ITEMS, bool),
}
KINDS = ["exact", "hash", "tree", "int8"]


@pytest.fixture(scope="module", params=KINDS)
def search(request):
    """A compiled filtered search; of ScaNN's, nothing is scored exactly for being little, so that the approximate way is taken."""
    recipes = {"hash": Recipe("hash", reorder=ITEMS), "tree": FULL, "int8": Recipe("hash", reorder=ITEMS, vectors="int8")}
    index = ExactIndex(VECTORS) if request.param == "exact" else ScannIndex(VECTORS, recipes[request.param])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filtered, "_EXACT_VALUES", 0)
        return _compiled(index), request.param


def _compiled(index, k=K):
    attributes = ItemAttributes(TABLE)
    spec = [tf.TensorSpec([None, None, DIM], tf.float32), tf.TensorSpec([None, None], tf.string)]
    function = tf.function(lambda queries, clauses: filtered_search(index, attributes, queries, k, clauses), input_signature=spec)
    function.get_concrete_function()
    return lambda queries, clauses: [output.numpy() for output in function(tf.constant(queries), tf.constant(clauses))]


def _oracle(query, mask, k=K):
    scores = np.where(mask, (query @ VECTORS.T).max(axis=0), -np.inf)
    rows = np.argsort(-scores, kind="stable")[: min(k, mask.sum())]
    return scores[rows], rows


def _check(scores, rows, query, mask, kind="exact"):
    expected_scores, expected = _oracle(query, mask)
    found = len(expected)
    np.testing.assert_allclose(scores[:found], expected_scores, atol=1e-5 if kind != "int8" else 0.2)
    if kind != "int8":
        assert_best(rows[:found], np.where(mask, (query @ VECTORS.T).max(axis=0), -1e9))
    assert mask[rows[:found]].all()
    assert (rows[found:] == -1).all()
    assert (scores[found:] == np.float32(NO_SCORE)).all()


@settings(max_examples=25)
@given(picks=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(sorted(MASKS)), st.sampled_from(sorted(MASKS))), min_size=1, max_size=6))
def test_any_mix_of_filters_gives_what_brute_force_gives(search, picks):
    run, kind = search
    queries, clauses = QUERIES[[pick[0] for pick in picks]], [list(pick[1:]) for pick in picks]
    scores, rows = run(queries, clauses)
    assert scores.shape == rows.shape == (len(picks), K)
    for row, (number, first, second) in enumerate(picks):
        _check(scores[row], rows[row], QUERIES[number], MASKS[first] & MASKS[second], kind)


def test_a_mixed_batch_equals_single_requests(search):
    clauses = [["", "first=0.5.."], ["", ""], ["group=rare", ""], ["nonsense", ""], ["", ""], ["group=g0", "first=..-1"]]
    together = search[0](QUERIES, clauses)
    for row in range(6):
        alone = search[0](QUERIES[row : row + 1], clauses[row : row + 1])
        np.testing.assert_allclose(together[0][row], alone[0][0], atol=1e-5)
        np.testing.assert_array_equal(together[1][row] < 0, alone[1][0] < 0)


def test_empty_batches_and_no_clauses(search):
    assert search[0](QUERIES[:0], np.zeros([0, 2], object).astype(bytes))[0].shape == (0, K)
    scores, rows = search[0](QUERIES, np.zeros([6, 0], bytes))
    for row in range(6):
        _check(scores[row], rows[row], QUERIES[row], MASKS[""], search[1])


def test_heads_that_are_not_finite(search):
    queries = QUERIES[:2].copy()
    queries[0, 1, 3] = np.nan
    queries[1] = np.inf
    scores, rows = search[0](queries, [["group=g0"], ["group=g0"]])
    _check(scores[0], rows[0], queries[0, :1], MASKS["group=g0"], search[1])
    assert (rows[1] == -1).all()
    assert np.isfinite(scores).all()


def _tree(reorder):
    # Leaves that hold the neighbourhood of the query only.
    return ScannIndex(VECTORS, Recipe("tree", leaves=40, leaves_to_search=1, reorder=reorder))


def test_matching_items_far_from_the_query_are_all_found(monkeypatch):
    """The candidates are the items of the other side; exact scoring has to step in."""
    monkeypatch.setattr(filtered, "_EXACT_VALUES", 0)
    query = np.zeros((1, 1, DIM), np.float32)
    query[0, 0, 0] = 1
    scores, rows = _compiled(_tree(K))(query, [["first=..-1"]])
    _check(scores[0], rows[0], query[0], MASKS["first=..-1"])


def test_few_matching_items_are_scored_exactly():
    """An index of one leaf and one candidate would miss nearly all of them."""
    run = _compiled(_tree(K))
    for text in ("group=g0", "group=rare", "first=0.5.."):
        scores, rows = run(QUERIES[:1], [[text]])
        _check(scores[0], rows[0], QUERIES[0], MASKS[text])


def test_many_matching_items_are_looked_for_in_the_index(monkeypatch):
    monkeypatch.setattr(filtered, "_EXACT_VALUES", 0)
    scored = []
    real = ScannIndex.vectors
    monkeypatch.setattr(
        ScannIndex, "vectors", lambda self, rows: tf.py_function(lambda n: scored.append(int(n)), [tf.size(rows)], []) and real(self, rows)
    )
    scores, rows = _compiled(ScannIndex(VECTORS, Recipe("hash", reorder=30)), 5)(QUERIES[:1], [["group=g0|group=g1"]])
    assert 30 <= scored[0] < 150, "of 400 matching items only candidates are scored"
    expected = _oracle(QUERIES[0], MASKS["group=g0|group=g1"], 5)
    np.testing.assert_allclose(scores[0], expected[0], atol=1e-5)
    assert_best(rows[0], np.where(MASKS["group=g0|group=g1"], (QUERIES[0] @ VECTORS.T).max(axis=0), -1e9))


def test_matching_items_go_by_in_blocks(monkeypatch):
    monkeypatch.setattr(filtered, "_VALUES_AT_ONCE", DIM)
    monkeypatch.setattr(filtered, "_SMALLEST_BLOCK", 7)
    scores, rows = _compiled(ExactIndex(VECTORS))(QUERIES, [["group=g0"]] * 6)
    for row in range(6):
        _check(scores[row], rows[row], QUERIES[row], MASKS["group=g0"])


@pytest.mark.parametrize("k", [1, 250, ITEMS + 5])
def test_every_k(k):
    scores, rows = _compiled(ExactIndex(VECTORS), k)(QUERIES[:1], [["group=g0"]])
    expected = _oracle(QUERIES[0], MASKS["group=g0"], k)[1]
    assert_best(rows[0][: len(expected)], np.where(MASKS["group=g0"], (QUERIES[0] @ VECTORS.T).max(axis=0), -1e9))
    assert (rows[0][len(expected) :] == -1).all()
    assert scores.shape == (1, k)


INDEXES = {
    "exact": lambda: ExactIndex(VECTORS),
    "hash": lambda: ScannIndex(VECTORS, Recipe("hash", reorder=ITEMS)),
    "tree": lambda: ScannIndex(VECTORS, FULL),
    "ivf": lambda: PortableIndex(VECTORS, Recipe("ivf", leaves=6, leaves_to_search=6)),
}
ROW = st.tuples(
    st.integers(0, 5),
    st.sampled_from([1, 3, K, ITEMS - 2, ITEMS]),
    st.one_of(st.lists(st.integers(-3, ITEMS - 1), max_size=20), st.just([*range(ITEMS - 1), *range(5)]), st.just(list(range(ITEMS)))),
    st.sampled_from(["", "", "group=g0", "first=0.5..", "nonsense"]),
)


@pytest.fixture(scope="module", params=INDEXES)
def per_row(request):
    """A compiled search with everything that a row may ask for; partitions are all looked into, so that results are the true ones."""
    index, attributes = INDEXES[request.param](), ItemAttributes(TABLE)
    spec = [
        tf.TensorSpec([None, None, DIM], tf.float32),
        tf.TensorSpec([None], tf.int32),
        tf.TensorSpec([None, None], tf.string),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None], tf.int32),
    ]
    function = tf.function(lambda *given: filtered_search(index, attributes, *given), input_signature=spec)
    return lambda *given: [output.numpy() for output in function(*given)]


@settings(max_examples=25)
@given(asked=st.lists(ROW, min_size=1, max_size=5))
def test_any_mix_of_k_exclusions_and_filters_gives_what_brute_force_gives(per_row, asked):
    numbers, ks, excluded, clauses = zip(*asked, strict=True)
    dense = tf.ragged.constant(excluded, tf.int32, ragged_rank=1).to_tensor(-1)
    scores, rows = per_row(QUERIES[list(numbers)], list(ks), [[clause] for clause in clauses], dense, [0] * len(asked))
    assert scores.shape == rows.shape == (len(asked), max(ks))
    for row, (number, k, without, clause) in enumerate(asked):
        mask = MASKS[clause].copy()
        mask[[item for item in without if item >= 0]] = False
        expected_scores, expected = _oracle(QUERIES[number], mask, k)
        assert_best(rows[row, : len(expected)], np.where(mask, (QUERIES[number] @ VECTORS.T).max(axis=0), -1e9))
        np.testing.assert_allclose(scores[row, : len(expected)], expected_scores, atol=1e-5)
        assert (rows[row, len(expected) :] == -1).all()
        assert (scores[row, len(expected) :] == np.float32(NO_SCORE)).all()


def test_leaves_are_taken_on_for_each_row():
    index = _tree(K)
    alone = [index.search(tf.constant(QUERIES[:1]), K, leaves=leaves)[1].numpy()[0] for leaves in (1, 3, 40)]
    assert len({tuple(rows) for rows in alone}) > 1
    asked = tf.constant([1, 40, 3, 0, 99])
    _, rows = filtered_search(index, None, tf.repeat(tf.constant(QUERIES[:1]), 5, axis=0), K, leaves=asked)
    for row, expected in zip(rows.numpy(), [alone[0], alone[2], alone[1], alone[0], alone[2]], strict=True):
        if (expected >= 0).all():
            np.testing.assert_array_equal(row, expected)
        assert (row >= 0).all(), "partitions that hold too few are not the last word"


@pytest.mark.parametrize(("asked", "looked_into"), [(0, 1), (-5, 1), (1, 1), (7, 7), (10**6, 40)])
def test_leaves_of_a_search_are_the_nearest_that_there_are(asked, looked_into):
    index = _tree(ITEMS)
    found, expected = (index.search(tf.constant(QUERIES), ITEMS, leaves=leaves)[1].numpy() for leaves in (tf.constant(asked), looked_into))
    np.testing.assert_array_equal(found, expected)
