"""Every index over k, batch, heads and dtype, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from rankings import assert_best

from tfebr.errors import ConfigError, DataError
from tfebr.index import exact, scann
from tfebr.index.base import NO_SCORE
from tfebr.index.exact import ExactIndex
from tfebr.index.recipe import Recipe
from tfebr.index.scann import ScannIndex

ITEMS, DIM = 400, 9
# Everything is looked at and reordered, so that the approximate index must give the exact result.
RECIPES = {
    "hash": Recipe("hash", reorder=ITEMS),
    "tree": Recipe("tree", leaves=8, leaves_to_search=8, reorder=ITEMS),
    "tree_int8": Recipe("tree", leaves=8, leaves_to_search=8, reorder=ITEMS, vectors="int8"),
}


def _unit(*shape):
    vectors = np.random.default_rng(shape[0]).normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def indexes():
    items = _unit(ITEMS, DIM)
    built = {"exact": ExactIndex(items), **{name: ScannIndex(items, recipe) for name, recipe in RECIPES.items()}}
    return items, built


def _scores(items, queries):
    """[batch, items] by plain products."""
    return np.einsum("bhd,nd->bhn", queries, items).max(axis=1)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("k", [1, 10, ITEMS, ITEMS + 7])
@pytest.mark.parametrize("name", ["exact", *RECIPES])
def test_results_are_those_of_numpy(indexes, name, k, batch, heads):
    items, built = indexes
    queries = _unit(6, heads, DIM)[:batch]
    scores, rows = built[name].search(tf.constant(queries), k)
    assert scores.shape == rows.shape == (batch, k)
    assert (scores.dtype, rows.dtype) == (tf.float32, tf.int32)
    scores, rows = scores.numpy(), rows.numpy()
    true, width = _scores(items, queries), min(k, ITEMS)
    np.testing.assert_allclose(scores[:, :width], -np.sort(-true, axis=1)[:, :k], atol=1e-5 if "int8" not in name else 0.02)
    if "int8" not in name:
        assert_best(rows[:, :width], true)
    assert (rows[:, width:] == -1).all()
    assert (scores[:, width:] == np.float32(NO_SCORE)).all()
    assert all(len(set(row[:width])) == width for row in rows), "one row per item"
    assert (np.diff(scores, axis=1) <= 0).all(), "best first"


@pytest.mark.parametrize("name", ["exact", "tree"])
def test_k_may_be_a_tensor_and_the_batch_unknown(indexes, name):
    items, built = indexes
    search = tf.function(
        lambda queries, k: built[name].search(queries, k),
        input_signature=[tf.TensorSpec([None, None, DIM], tf.float32), tf.TensorSpec([], tf.int32)],
    )
    for k, heads in ((3, 1), (450, 2)):
        queries = _unit(4, heads, DIM)
        rows = search(tf.constant(queries), k)[1].numpy()
        assert rows.shape == (4, k)
        assert_best(rows[:, : min(k, ITEMS)], _scores(items, queries))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["exact", "tree"])
def test_a_head_that_is_not_finite_is_ignored(indexes, name, bad):
    items, built = indexes
    queries = _unit(3, 2, DIM).copy()
    queries[0, 1, 4] = bad
    queries[1, :, 0] = bad
    scores, rows = (output.numpy() for output in built[name].search(tf.constant(queries), 12))
    assert_best(rows[0], _scores(items, queries[:1, :1])[0])
    assert (rows[1] == -1).all()
    assert_best(rows[2], _scores(items, queries[2:])[0])
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", ["exact", "hash", "tree"])
def test_zero_and_huge_queries_get_finite_scores(indexes, name):
    queries = np.stack([np.zeros((1, DIM)), np.full((1, DIM), 3e38)]).astype(np.float32)
    scores, rows = (output.numpy() for output in indexes[1][name].search(tf.constant(queries), 5))
    assert np.isfinite(scores).all()
    assert (rows[0] >= 0).all()


def test_a_large_catalogue_goes_by_in_blocks(monkeypatch):
    monkeypatch.setattr(exact, "_SCORES_AT_ONCE", 100)
    monkeypatch.setattr(exact, "_SMALLEST_BLOCK", 7)
    items, queries = _unit(50, DIM), _unit(3, 2, DIM)
    for k in (4, 20, 60):
        rows = ExactIndex(items).search(tf.constant(queries), k)[1].numpy()
        assert_best(rows[:, : min(k, 50)], _scores(items, queries))


def test_a_large_batch_goes_by_in_slices(indexes, monkeypatch):
    monkeypatch.setattr(scann, "_CANDIDATES_AT_ONCE", 2 * ITEMS)
    items, built = indexes
    queries = _unit(5, 1, DIM)
    assert_best(built["tree"].search(tf.constant(queries), 30)[1].numpy(), _scores(items, queries))


def test_fewer_leaves_find_fewer_items_and_more_reordering_finds_better_ones(indexes):
    items, built = indexes
    queries = _unit(20, 1, DIM)
    one_leaf = built["tree"].search(tf.constant(queries), ITEMS, leaves=1)[1].numpy()
    assert ((one_leaf >= 0).sum(axis=1) < ITEMS).all()
    truth = np.argsort(-_scores(items, queries), axis=1)[:, :10]
    recall = []
    for reorder in (10, 40):
        rows = built["hash"].search(tf.constant(queries), 10, reorder=reorder)[1].numpy()
        recall.append(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(truth, rows, strict=True)]))
    assert recall[0] < recall[1]


def test_short_results_are_never_filled_with_the_first_item(indexes):
    """ScaNN pads with index 0 and NaN."""
    items, built = indexes
    query = -items[:1, None, :]
    rows = built["tree"].search(tf.constant(query), ITEMS, leaves=1)[1].numpy()[0]
    assert (rows == 0).sum() <= 1
    found = int((rows >= 0).sum())
    assert (rows[found:] == -1).all()


def test_int8_vectors_can_give_way_to_float32_without_building_again():
    items = _unit(300, DIM)
    index = ScannIndex(items, Recipe("hash", reorder=300, vectors="int8"))
    query = _unit(2, 1, DIM)
    exact_scores = -np.sort(-_scores(items, query), axis=1)[:, :5]
    assert np.abs(index.search(tf.constant(query), 5)[0].numpy() - exact_scores).max() > 1e-6
    index.use(Recipe("hash", reorder=300), items)
    np.testing.assert_allclose(index.search(tf.constant(query), 5)[0].numpy(), exact_scores, atol=1e-6)
    with pytest.raises(ConfigError, match="without building again"):
        index.use(Recipe("hash", dims_per_block=3), items)


@pytest.mark.parametrize("make", [ExactIndex, lambda items: ScannIndex(items, Recipe("hash"))])
def test_bad_embeddings_are_refused(make):
    items = _unit(30, DIM).copy()
    items[17, 3] = np.nan
    with pytest.raises(DataError, match="row 17 holds NaN"):
        make(items)
    with pytest.raises(DataError, match=r"shape \[items, dim\].*\[30\]"):
        make(items[:, 0])
    with pytest.raises(DataError, match="at least one item"):
        make(items[:0])


def test_recipes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"at least 16 items\. Received 10"):
        ScannIndex(_unit(10, DIM), Recipe("hash"))
    with pytest.raises(ConfigError, match="at least 50 items"):
        ScannIndex(_unit(30, DIM), Recipe("tree", leaves=50, leaves_to_search=5))
    with pytest.raises(ConfigError, match="ExactIndex"):
        ScannIndex(_unit(30, DIM), Recipe("exact"))
