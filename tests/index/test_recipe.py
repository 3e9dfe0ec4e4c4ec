"""Recipes by catalogue size and server, and impossible ones refused."""

import pytest

from tfebr.errors import ConfigError
from tfebr.index.recipe import SCANN_KINDS, Recipe, reason_for, recipe_for


@pytest.mark.parametrize(
    ("items", "kind"), [(1, "exact"), (19_999, "exact"), (20_000, "hash"), (99_999, "hash"), (100_000, "tree"), (5_000_000, "tree")]
)
def test_kind_follows_the_number_of_items(items, kind):
    assert recipe_for(items).kind == kind


@pytest.mark.parametrize(("items", "kind"), [(1, "exact"), (19_999, "exact"), (20_000, "ivf"), (5_000_000, "ivf")])
def test_the_stock_server_gets_core_operations_only(items, kind):
    recipe = recipe_for(items, server="stock")
    assert recipe.kind == kind
    recipe.check_server("stock")


def test_ivf_has_four_times_sqrt_leaves_and_searches_a_hundredth():
    recipe = recipe_for(1_000_000, vectors="int8", server="stock")
    assert (recipe.leaves, recipe.leaves_to_search, recipe.vectors) == (4000, 40, "int8")


@pytest.mark.parametrize("server", ["scann", "stock"])
@pytest.mark.parametrize("items", [5_000, 50_000, 1_000_000])
def test_the_reason_names_size_and_server_in_one_sentence(items, server):
    reason = reason_for(items, server)
    assert f"{items:,}" in reason
    assert reason.endswith(".")
    assert reason.count(". ") == 0
    assert {"scann": "ScaNN", "stock": "stock"}[server] in reason or items == 5_000


def test_scann_kinds_are_refused_for_the_stock_server():
    for kind, leaves in (("hash", 0), ("tree", 4), ("ivf", 4), ("exact", 0)):
        recipe = Recipe(kind, leaves=leaves, leaves_to_search=leaves)
        recipe.check_server("scann")
        if kind in SCANN_KINDS:
            with pytest.raises(ConfigError, match=f"kind '{kind}' needs ScaNN's operations"):
                recipe.check_server("stock")
        else:
            recipe.check_server("stock")
        with pytest.raises(ConfigError, match="`server` must be one of scann, stock"):
            recipe.check_server("cloud")
    with pytest.raises(ConfigError, match="`server` must be one of scann, stock"):
        recipe_for(10, server="cloud")


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        (Recipe("exact"), {"kind"}),
        (Recipe("ivf", leaves=4, leaves_to_search=2, vectors="int8"), {"kind", "leaves", "leaves_to_search", "vectors"}),
        (Recipe("hash"), set(Recipe.__dataclass_fields__)),
        (Recipe("tree", leaves=4, leaves_to_search=2, dims_per_block=3), set(Recipe.__dataclass_fields__)),
    ],
)
def test_as_dict_holds_what_matters_and_gives_the_recipe_back(recipe, names):
    assert set(recipe.as_dict()) == names
    assert Recipe(**recipe.as_dict()) == recipe


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
        ({"kind": "forest"}, "`kind` must be one of exact, hash, tree, ivf. Received: 'forest'"),
        ({"kind": "hash", "vectors": "float16"}, "`vectors`"),
        ({"kind": "hash", "reorder": 0}, "`reorder`"),
        ({"kind": "hash", "dims_per_block": 0}, "`dims_per_block`"),
        ({"kind": "hash", "anisotropic_threshold": 1.0}, "`anisotropic_threshold`"),
        ({"kind": "hash", "leaves": 3}, "`leaves` must be 0"),
        ({"kind": "exact", "leaves_to_search": 3}, "`leaves_to_search` must be 0"),
        ({"kind": "tree", "leaves": 1, "leaves_to_search": 1}, "`leaves` must be at least 2"),
        ({"kind": "tree", "leaves": 10, "leaves_to_search": 11}, "`leaves_to_search`"),
        ({"kind": "ivf"}, "`leaves` must be at least 1"),
        ({"kind": "ivf", "leaves": 3}, "`leaves_to_search`"),
    ],
)
def test_impossible_recipes_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Recipe(**fields)


@pytest.mark.parametrize("items", [10, 50_000])
def test_unknown_vectors_are_refused_whatever_the_kind(items):
    with pytest.raises(ConfigError, match=r"`vectors` must be one of float32, int8\. Received: 'float16'"):
        recipe_for(items, vectors="float16")


@pytest.mark.parametrize("arguments", [{"items": 0}, {"items": 10, "k": 0}])
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ConfigError, match="a whole number of at least 1"):
        recipe_for(**arguments)
