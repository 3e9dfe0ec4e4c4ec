"""Recipes by catalogue size, and impossible ones refused."""

import pytest

from tfebr.errors import ConfigError
from tfebr.index.recipe import Recipe, recipe_for


@pytest.mark.parametrize(
    ("items", "kind"), [(1, "exact"), (19_999, "exact"), (20_000, "hash"), (99_999, "hash"), (100_000, "tree"), (5_000_000, "tree")]
)
def test_kind_follows_the_number_of_items(items, kind):
    assert recipe_for(items).kind == kind


def test_tree_has_about_sqrt_leaves_and_searches_a_tenth():
    recipe = recipe_for(1_000_000)
    assert (recipe.leaves, recipe.leaves_to_search) == (1000, 100)


@pytest.mark.parametrize(("k", "reorder"), [(10, 300), (100, 300), (500, 1500)])
def test_at_least_three_times_k_are_reordered(k, reorder):
    assert recipe_for(50_000, k=k).reorder == reorder


def test_vectors_are_passed_on():
    assert recipe_for(50_000, vectors="int8").vectors == "int8"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "forest"}, "`kind` should be one of exact, hash, tree. Received: kind = 'forest'"),
        ({"kind": "hash", "vectors": "float16"}, "`vectors`"),
        ({"kind": "hash", "reorder": 0}, "`reorder`"),
        ({"kind": "hash", "dims_per_block": 0}, "`dims_per_block`"),
        ({"kind": "hash", "anisotropic_threshold": 1.0}, "`anisotropic_threshold`"),
        ({"kind": "hash", "leaves": 3}, "`leaves` should be 0"),
        ({"kind": "exact", "leaves_to_search": 3}, "`leaves_to_search` should be 0"),
        ({"kind": "tree", "leaves": 1, "leaves_to_search": 1}, "`leaves` should be at least 2"),
        ({"kind": "tree", "leaves": 10, "leaves_to_search": 11}, "`leaves_to_search`"),
    ],
)
def test_impossible_recipes_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Recipe(**fields)


@pytest.mark.parametrize("arguments", [{"items": 0}, {"items": 10, "k": 0}])
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ConfigError, match="at least 1"):
        recipe_for(**arguments)
