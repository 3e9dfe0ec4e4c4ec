"""The portable index against NumPy, whatever the items, the queries and the leaves."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from rankings import assert_best

from tfebr.errors import ConfigError, DataError
from tfebr.index import portable
from tfebr.index.base import NO_SCORE
from tfebr.index.partitions import train_partitions
from tfebr.index.portable import PortableIndex
from tfebr.index.recipe import Recipe

ITEMS, DIM, LEAVES = 500, 8, 20
RNG = np.random.default_rng(11)
VECTORS = (RNG.normal(size=(25, DIM))[RNG.integers(0, 25, ITEMS)] + 0.4 * RNG.normal(size=(ITEMS, DIM))).astype(np.float32)
QUERIES = RNG.normal(size=(8, 3, DIM)).astype(np.float32)


def _index(vectors=VECTORS, leaves=LEAVES, to_search=3, storage="float32"):
    return PortableIndex(vectors, Recipe("ivf", leaves=leaves, leaves_to_search=to_search, vectors=storage))


@pytest.fixture(scope="module")
def indexes():
    return {storage: _index(storage=storage) for storage in ("float32", "int8")}


def _compiled(index):
    """The search as a servable has it: batch, heads, k and leaves are known at the call only."""
    spec = [tf.TensorSpec([None, None, index.dim], tf.float32), tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int32)]
    function = tf.function(lambda queries, k, leaves: index.search(queries, k, leaves), input_signature=spec)
    return lambda queries, k, leaves: [output.numpy() for output in function(tf.constant(queries), k, leaves)]


@pytest.fixture(scope="module")
def searches(indexes):
    return {storage: _compiled(index) for storage, index in indexes.items()}


def _scores(query, vectors=VECTORS):
    """[items] of one [heads, dim] query; -inf without a finite head."""
    heads = query[np.isfinite(query).all(axis=1)]
    return (heads @ vectors.T).max(axis=0) if len(heads) else np.full(len(vectors), -np.inf, np.float32)


def _check(scores, rows, query, tolerance=1e-5, vectors=VECTORS):
    """Every item at most once, its own score, best first, nothing but padding after the last."""
    true, found = _scores(query, vectors), int((rows >= 0).sum())
    assert (rows[found:] == -1).all()
    assert (scores[found:] == np.float32(NO_SCORE)).all()
    assert len(set(rows[:found])) == found
    np.testing.assert_allclose(scores[:found], true[rows[:found]], rtol=tolerance, atol=tolerance)
    assert (np.diff(scores[:found]) <= 0).all()
    return found


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("k", [1, 10, ITEMS, ITEMS + 7])
def test_all_leaves_give_the_exact_result(indexes, searches, k, batch, heads):
    leaves, queries = indexes["float32"].recipe.leaves, QUERIES[:batch, :heads]
    for scores, rows in (searches["float32"](queries, k, leaves), [t.numpy() for t in indexes["float32"].search(queries, k, leaves)]):
        assert scores.shape == rows.shape == (batch, k)
        assert (scores.dtype, rows.dtype) == (np.float32, np.int32)
        for query, found_scores, found in zip(queries, scores, rows, strict=True):
            assert _check(found_scores, found, query) == min(k, ITEMS)
            # Scores, not rows: nearly equal ones may change places by rounding.
            np.testing.assert_allclose(found_scores[:ITEMS], -np.sort(-_scores(query))[:k], rtol=1e-5, atol=1e-5)


@given(
    picks=st.lists(st.integers(0, 7), max_size=5),
    heads=st.integers(1, 3),
    k=st.integers(1, ITEMS + 20),
    leaves=st.integers(-1, LEAVES + 10),
    storage=st.sampled_from(["float32", "int8"]),
    bad=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=4),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_any_search_finds_k_different_items_with_their_scores(searches, picks, heads, k, leaves, storage, bad, value):
    queries = QUERIES[picks, :heads].copy()
    for row, head in bad:
        queries[row : row + 1, head : head + 1, 2] = value
    scores, rows = searches[storage](queries, k, leaves)
    assert np.isfinite(scores).all()
    for query, found_scores, found in zip(queries, scores, rows, strict=True):
        any_head = np.isfinite(query).all(axis=1).any()
        assert _check(found_scores, found, query, 1e-5 if storage == "float32" else 0.05) == (min(k, ITEMS) if any_head else 0)


def test_a_mixed_batch_equals_single_requests(searches):
    together = searches["float32"](QUERIES, 30, 2)
    for row in range(len(QUERIES)):
        alone = searches["float32"](QUERIES[row : row + 1], 30, 2)
        true = _scores(QUERIES[row])
        np.testing.assert_allclose(true[together[1][row]], true[alone[1][0]], rtol=1e-5, atol=1e-5)
        assert_best(together[1][row], np.where(np.isin(np.arange(ITEMS), together[1][row]), true, -1e9))


def _partition_of(vectors, leaves):
    partitions = train_partitions(vectors, leaves)
    return partitions, np.repeat(np.arange(len(partitions.centroids)), np.diff(partitions.offsets))[np.argsort(partitions.order)]


def test_only_the_leaves_of_the_best_centroids_are_looked_into(searches):
    """An oracle in NumPy that masks all items of other partitions."""
    partitions, label = _partition_of(VECTORS, LEAVES)
    for leaves in (1, 2, 5):
        _, rows = searches["float32"](QUERIES, 8, leaves)
        for query, found in zip(QUERIES, rows, strict=True):
            nearest = np.argsort(-_scores(query, partitions.centroids), kind="stable")
            # Of small partitions as many more as hold the 8 results.
            enough = int(np.searchsorted(np.cumsum(np.bincount(label)[nearest]), 8)) + 1
            allowed = np.isin(label, nearest[: max(leaves, enough)])
            assert_best(found, np.where(allowed, _scores(query), -1e9))


def test_recall_grows_with_the_leaves(searches):
    truth = [set(np.argsort(-_scores(query))[:20]) for query in QUERIES]
    recall = [
        np.mean([len(best & set(rows)) / 20 for best, rows in zip(truth, searches["float32"](QUERIES, 20, leaves)[1], strict=True)])
        for leaves in (1, 3, 8, LEAVES + 5)
    ]
    assert recall == sorted(recall)
    assert recall[0] < 0.9
    assert recall[-1] == 1


def test_the_recipes_leaves_are_searched_by_default(indexes, searches):
    for storage, index in indexes.items():
        rows = index.search(tf.constant(QUERIES), 20)[1].numpy()
        np.testing.assert_array_equal(rows, searches[storage](QUERIES, 20, 3)[1])
        assert (rows != searches[storage](QUERIES, 20, 1)[1]).any()


def test_a_query_without_finite_heads_finds_nothing(searches):
    scores, rows = searches["float32"](np.full((2, 2, DIM), np.nan, np.float32), 5, 2)
    assert (rows == -1).all()
    assert (scores == np.float32(NO_SCORE)).all()


def test_zero_and_huge_queries_get_finite_scores(searches):
    queries = np.stack([np.zeros((1, DIM)), np.full((1, DIM), 3e38)]).astype(np.float32)
    for search in searches.values():
        scores, rows = search(queries, 5, 3)
        assert np.isfinite(scores).all()
        assert (rows >= 0).all()


@pytest.mark.parametrize("shape", [(), (7,), (2, 3)])
def test_vectors_of_catalogue_rows(indexes, shape):
    rows = RNG.integers(0, ITEMS, shape)
    np.testing.assert_array_equal(indexes["float32"].vectors(tf.constant(rows)), VECTORS[rows])
    found = indexes["int8"].vectors(tf.constant(rows)).numpy()
    assert np.abs(found - VECTORS[rows]).max() <= np.abs(VECTORS).max() / 127


def test_int8_scores_are_right_to_half_a_percent():
    vectors = RNG.normal(size=(2000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:50, None]
    index = _index(vectors, 40, 40, "int8")
    scores, rows = (output.numpy() for output in index.search(tf.constant(queries), 10))
    true = np.take_along_axis(queries[:, 0] @ vectors.T, rows, 1)
    assert np.abs(scores - true).max() < 0.005
    assert (np.abs(scores - true) > 1e-6).any()


def test_int8_takes_about_a_quarter_of_the_memory(indexes):
    vectors = RNG.normal(size=(2000, 64)).astype(np.float32)
    size = {s: sum(v.numpy().nbytes for v in _index(vectors, 20, 2, s).variables) for s in ("float32", "int8")}
    assert size["float32"] < 1.1 * vectors.nbytes
    assert size["int8"] < 0.25 * size["float32"] + 15 * len(vectors)


def test_many_candidates_go_by_in_blocks(indexes, monkeypatch):
    monkeypatch.setattr(portable, "_ITEMS_AT_ONCE", 37)
    for k in (3, 60, ITEMS + 1):
        scores, rows = (output.numpy() for output in indexes["float32"].search(tf.constant(QUERIES), k, LEAVES + 5))
        for query, found_scores, found in zip(QUERIES, scores, rows, strict=True):
            _check(found_scores, found, query)
            np.testing.assert_allclose(found_scores[:ITEMS], -np.sort(-_scores(query))[:k], rtol=1e-5, atol=1e-5)


def test_use_changes_leaves_and_storage_without_training(indexes):
    index = _index(storage="int8")
    one = Recipe("ivf", leaves=index.recipe.leaves, leaves_to_search=1)
    index.use(one, VECTORS)
    assert index.recipe == one
    np.testing.assert_array_equal(index.search(QUERIES, 9)[1], indexes["float32"].search(QUERIES, 9, 1)[1])
    with pytest.raises(ConfigError, match="without building again"):
        index.use(Recipe("ivf", leaves=index.recipe.leaves + 1, leaves_to_search=1), VECTORS)


def test_runs_on_the_stock_server(indexes, tmp_path):
    """A saved search has operations of TensorFlow's own only, and finds the same after loading."""
    module = tf.Module()
    module.index = indexes["int8"]
    spec = [tf.TensorSpec([None, None, DIM], tf.float32, "queries"), tf.TensorSpec([], tf.int32, "k")]
    module.search = tf.function(lambda queries, k: dict(zip(("scores", "rows"), module.index.search(queries, k), strict=True)), spec)
    tf.saved_model.save(module, str(tmp_path), {"serving_default": module.search}, tf.saved_model.SaveOptions(namespace_whitelist=[]))
    loaded = tf.saved_model.load(str(tmp_path))
    found = loaded.search(tf.constant(QUERIES), 12)
    scores, rows = indexes["int8"].search(tf.constant(QUERIES), 12)
    np.testing.assert_array_equal(found["rows"], rows)
    np.testing.assert_allclose(found["scores"], scores, rtol=1e-6)


@settings(max_examples=25)
@given(
    items=st.integers(1, 60), share=st.floats(0, 1), distinct=st.integers(1, 60), scale=st.sampled_from([0.0, 1e-30, 1.0, 1e10]),
)  # fmt: skip
def test_every_item_is_in_one_partition_of_bounded_size(items, share, distinct, scale):
    leaves = max(1, round(share * items))
    vectors = scale * np.random.default_rng(items).normal(size=(distinct, 3))[np.arange(items) % distinct]
    partitions = train_partitions(vectors.astype(np.float32), leaves)
    assert sorted(partitions.order) == list(range(items))
    sizes = np.diff(partitions.offsets)
    assert (partitions.offsets[0], partitions.offsets[-1]) == (0, items)
    assert 1 <= sizes.min() <= sizes.max() <= max(4 * items // leaves, 1)
    for number, (start, stop) in enumerate(zip(partitions.offsets[:-1], partitions.offsets[1:], strict=True)):
        members = partitions.order[start:stop]
        assert (np.diff(members) > 0).all()
        np.testing.assert_allclose(partitions.centroids[number], vectors[members].mean(axis=0), rtol=1e-4, atol=1e-5 * scale)


def test_clear_clusters_become_partitions():
    centres = 10 * np.eye(6)
    labels = RNG.integers(0, 6, 600)
    vectors = (centres[labels] + 0.1 * RNG.normal(size=(600, 6))).astype(np.float32)
    _, found = _partition_of(vectors, 12)
    for partition in range(found.max() + 1):
        assert len(set(labels[found == partition])) == 1, "no partition spans two clusters"


def test_training_is_repeatable_and_leaves_the_vectors_alone():
    before = VECTORS.copy()
    first, second = train_partitions(VECTORS, 30), train_partitions(VECTORS, 30)
    np.testing.assert_array_equal(first.order, second.order)
    np.testing.assert_array_equal(first.centroids, second.centroids)
    np.testing.assert_array_equal(VECTORS, before)


@pytest.mark.parametrize("items", [1, 3])
def test_a_tiny_or_uniform_catalogue_works(items):
    vectors = np.ones((items, DIM), np.float32)
    index = _index(vectors, items, items)
    rows = index.search(tf.constant(QUERIES), 5)[1].numpy()
    assert [sorted(row[:items]) for row in rows] == [list(range(items))] * len(QUERIES)
    assert (rows[:, items:] == -1).all()


def test_bad_input_is_refused():
    bad = VECTORS.copy()
    bad[17, 3] = np.nan
    with pytest.raises(DataError, match="row 17 holds NaN"):
        _index(bad)
    with pytest.raises(ConfigError, match=r"needs at least 20 items\. Received 10"):
        _index(VECTORS[:10])
    with pytest.raises(ConfigError, match=r"kind 'ivf'\. Received: kind = 'exact'"):
        PortableIndex(VECTORS, Recipe("exact"))
