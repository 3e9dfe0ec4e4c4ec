"""IndexTopK in the places where TFRS's own layers stand."""

import numpy as np
import pytest
import tensorflow as tf
from harness import global_policy

import tfebr  # noqa: F401

import tensorflow_recommenders as tfrs  # isort: skip
from tfebr.errors import ConfigError, DataError
from tfebr.index.recipe import Recipe
from tfebr.index.top_k import IndexTopK

RNG = np.random.default_rng(3)
ITEMS = RNG.normal(size=(200, 8)).astype(np.float32)
QUERIES = RNG.normal(size=(4, 8)).astype(np.float32)
NAMES = np.array([f"item{i}" for i in range(200)])
RECIPES = {
    "exact": Recipe("exact"),
    "hash": Recipe("hash", reorder=200),
    "tree": Recipe("tree", leaves=5, leaves_to_search=5, reorder=200),
    "ivf": Recipe("ivf", leaves=5, leaves_to_search=5),
}


@pytest.mark.parametrize("identifiers", [None, NAMES, np.arange(200) * 10], ids=["rows", "strings", "integers"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_gives_what_tfrs_brute_force_gives(recipe, identifiers):
    ours = IndexTopK(k=7, recipe=recipe).index(tf.constant(ITEMS), identifiers)
    theirs = tfrs.layers.factorized_top_k.BruteForce(k=7).index(tf.constant(ITEMS), identifiers)
    assert isinstance(ours, tfrs.layers.factorized_top_k.TopK)
    assert ours.is_exact() == (recipe.kind == "exact")
    for k in (None, 3):
        scores, found = ours(tf.constant(QUERIES), k=k)
        their_scores, their_found = theirs(tf.constant(QUERIES), k=k)
        np.testing.assert_allclose(scores, their_scores, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found, their_found)


def test_index_from_dataset_and_query_model():
    dataset = tf.data.Dataset.from_tensor_slices((NAMES, ITEMS)).batch(64)
    layer = IndexTopK(k=5, query_model=tf.keras.layers.Lambda(lambda x: -x)).index_from_dataset(dataset)
    expected = NAMES[np.argsort(QUERIES @ ITEMS.T, axis=1)[:, :5]]
    np.testing.assert_array_equal(layer(tf.constant(QUERIES))[1].numpy().astype(str), expected)


def test_takes_several_heads():
    layer = IndexTopK(k=5).index(ITEMS, NAMES)
    both = np.stack([QUERIES, -QUERIES], axis=1)
    expected = NAMES[np.argsort(-np.abs(QUERIES @ ITEMS.T), axis=1)[:, :5]]
    np.testing.assert_array_equal(layer(tf.constant(both))[1].numpy().astype(str), expected)


def test_exclusions_leave_the_others_in_order():
    layer = IndexTopK(k=5).index(ITEMS, NAMES)
    ranked = NAMES[np.argsort(-(QUERIES @ ITEMS.T), axis=1)]
    found = layer.query_with_exclusions(tf.constant(QUERIES), tf.constant(ranked[:, [0, 2]]))[1]
    np.testing.assert_array_equal(found.numpy().astype(str), ranked[:, [1, 3, 4, 5, 6]])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_works_inside_the_factorized_metric(recipe):
    """The third best items are the true ones: no query has one in the first place, every query among the first three."""
    layer = IndexTopK(k=100, recipe=recipe).index(ITEMS, NAMES)
    metric = tfrs.metrics.FactorizedTopK(candidates=layer, ks=(1, 3, 100))
    third = np.argsort(-(QUERIES @ ITEMS.T), axis=1)[:, 2]
    metric.update_state(tf.constant(QUERIES), tf.constant(ITEMS[third]), true_candidate_ids=tf.constant(NAMES[third]))
    assert [float(m) for m in metric.result()] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(("identifiers", "empty"), [(NAMES[:4], b""), (np.arange(4), -1)])
def test_more_results_than_candidates_are_padded(identifiers, empty):
    scores, found = IndexTopK().index(ITEMS[:4], identifiers)(tf.constant(QUERIES), k=6)
    assert found.shape == (4, 6)
    assert (found.numpy()[:, 4:] == empty).all()
    assert np.isfinite(scores).all()


def test_a_second_index_replaces_the_first():
    layer = IndexTopK(k=1).index(ITEMS, NAMES)
    layer.index(ITEMS[:50] * -1, NAMES[:50])
    expected = NAMES[np.argmin(QUERIES @ ITEMS[:50].T, axis=1)]
    np.testing.assert_array_equal(layer(tf.constant(QUERIES))[1].numpy()[:, 0].astype(str), expected)


def test_misuse_is_refused():
    with pytest.raises(ConfigError, match="`index` method must be called first"):
        IndexTopK()(tf.constant(QUERIES))
    with pytest.raises(DataError, match="Received 3 and 200"):
        IndexTopK().index(ITEMS, NAMES[:3])


@pytest.mark.parametrize("k", [0, -1, 2.5, "3", True])
def test_an_impossible_k_is_named(k):
    with pytest.raises(ConfigError, match="`k` must be a whole number of at least 1"):
        IndexTopK(k=k)
    with pytest.raises(ConfigError, match="`k` must be a whole number of at least 1"):
        IndexTopK(k=3).index(ITEMS)(tf.constant(QUERIES), k=k)


@pytest.mark.parametrize("queries", [QUERIES[0], QUERIES[:, :4], QUERIES[:, None, None], QUERIES[:, :1]])
def test_queries_of_another_shape_are_named(queries):
    with pytest.raises(ConfigError, match=r"`queries` must have shape \[batch, 8\] or \[batch, heads, 8\].*Received: shape"):
        IndexTopK(k=3).index(ITEMS)(tf.constant(queries))


def test_a_global_policy_does_not_round_what_is_searched():
    plain = IndexTopK(k=50).index(ITEMS, NAMES)(tf.constant(QUERIES))
    with global_policy("mixed_bfloat16"):
        mixed = IndexTopK(k=50).index(ITEMS, NAMES)(tf.constant(QUERIES))
    np.testing.assert_array_equal(mixed[0], plain[0])
    np.testing.assert_array_equal(mixed[1], plain[1])
