"""Measured recall, and building until it is met."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from tfebr.errors import ConfigError, DataError
from tfebr.index import recall
from tfebr.index import recipe as recipe_module
from tfebr.index.exact import ExactIndex
from tfebr.index.portable import PortableIndex
from tfebr.index.recall import build, measure_recall, memory_mb
from tfebr.index.recipe import Recipe, reason_for
from tfebr.index.scann import ScannIndex

RNG = np.random.default_rng(7)
ITEMS = RNG.normal(size=(3000, 16)).astype(np.float32)
QUERIES = RNG.normal(size=(60, 2, 16)).astype(np.float32)
POOR = Recipe("tree", leaves=40, leaves_to_search=2, reorder=20)
# Uniform in 3 dimensions, so that a tenth of the leaves holds nearly everything.
EASY = RNG.normal(size=(3000, 3)).astype(np.float32)
EASY_QUERIES = RNG.normal(size=(60, 2, 3)).astype(np.float32)
IVF = Recipe("ivf", leaves=100, leaves_to_search=1)


def _rankings(k):
    return np.argsort(-np.einsum("bhd,nd->bhn", QUERIES, ITEMS).max(axis=1), axis=1)[:, :k]


class _Every(ExactIndex):
    """Finds every second of the best items."""

    is_exact = False

    def __init__(self):
        super().__init__(ITEMS)

    def search(self, queries, k, leaves=None):
        scores, rows = super().search(queries, k)
        missing = [[0, 0], [0, k // 2]]
        return tf.pad(scores[:, ::2], missing), tf.pad(rows[:, ::2], missing, constant_values=-1)


@pytest.mark.parametrize("exact", [ITEMS, _rankings(20)], ids=["embeddings", "rankings"])
def test_recall_is_the_share_of_the_best_that_is_found(exact):
    assert measure_recall(_Every(), exact, QUERIES, 20) == pytest.approx(0.5, abs=1e-3)
    assert measure_recall(ExactIndex(ITEMS), exact, QUERIES, 20) == pytest.approx(1.0, abs=1e-3)


def test_items_with_equal_scores_are_equally_right():
    twins = np.repeat(ITEMS[:40], 50, axis=0)
    index = ScannIndex(twins, Recipe("hash", reorder=500))
    assert measure_recall(index, twins, QUERIES, 20) > 0.99


def test_k_beyond_the_catalogue_counts_what_there_is():
    assert measure_recall(ExactIndex(ITEMS[:5]), ITEMS[:5], QUERIES, 100) == 1.0


def test_rankings_of_another_size_are_refused():
    with pytest.raises(DataError, match=r"shape \[60, at least 20\]"):
        measure_recall(ExactIndex(ITEMS), _rankings(5), QUERIES, 20)


def test_leaves_and_reordering_are_raised_until_the_target_is_met():
    target = 0.95
    index, report = build(ITEMS, QUERIES, k=20, target=target, recipe=POOR, quiet=True)
    assert isinstance(index, ScannIndex)
    assert report.fallback == ""
    assert report.curve[0].recall < target <= report.recall
    assert report.recipe.leaves_to_search > POOR.leaves_to_search
    assert report.recipe.reorder > POOR.reorder
    assert measure_recall(index, ITEMS, QUERIES, 20) == report.recall, "the index is left at the setting of the report"
    assert {"recall", "latency_ms", "curve", "recipe"} <= set(report.as_dict())
    assert all(point.latency_ms > 0 for point in report.curve)


def test_a_met_target_leaves_the_recipe_as_it_is():
    index, report = build(ITEMS, QUERIES, k=20, target=0.1, recipe=POOR, quiet=True)
    assert report.recipe == index.recipe == POOR
    assert [point.leaves_to_search for point in report.curve] == [2, 1]
    assert report.curve[1].recall < report.curve[0].recall == report.recall


def test_an_ivfs_leaves_are_raised_until_the_target_is_met():
    target = 0.95
    index, report = build(EASY, EASY_QUERIES, k=20, target=target, recipe=IVF, quiet=True)
    assert isinstance(index, PortableIndex)
    assert report.fallback == ""
    assert report.curve[0].recall < target <= report.recall
    assert 1 < report.recipe.leaves_to_search <= 25
    assert measure_recall(index, EASY, EASY_QUERIES, 20) == report.recall, "the index is left at the setting of the report"


@pytest.mark.parametrize("recipe", [dataclasses.replace(IVF, leaves_to_search=16), Recipe("tree", leaves=50, leaves_to_search=16)])
def test_the_curve_goes_down_to_a_sixteenth_of_the_leaves(recipe):
    index, report = build(EASY, EASY_QUERIES, k=20, target=0.9, recipe=recipe, quiet=True)
    assert isinstance(index, ScannIndex | PortableIndex)
    points = sorted(report.curve, key=lambda point: point.leaves_to_search)
    assert [point.leaves_to_search for point in points] == [1, 2, 4, 8, 16]
    recalls = [point.recall for point in points]
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.9 <= recalls[-1] == report.recall
    assert index.recipe.leaves_to_search == 16
    np.testing.assert_allclose(recalls[0], _recall_of_leaves(index, 1), atol=1e-6)


def _recall_of_leaves(index, leaves):
    """From the rows alone; no scores of these items are equal."""
    best = np.argsort(-np.einsum("bhd,nd->bhn", EASY_QUERIES, EASY).max(axis=1), axis=1)[:, :20]
    found = index.search(tf.constant(EASY_QUERIES), 20, leaves)[1].numpy()
    return np.mean([len(set(a) & set(b)) / 20 for a, b in zip(best, found, strict=True)])


def test_an_ivf_that_would_look_at_too_much_gives_way_to_exact_search(monkeypatch):
    monkeypatch.setattr(recall, "_LARGEST_IVF_SHARE", 0.02)
    index, report = build(ITEMS, QUERIES, k=20, target=0.99, recipe=IVF, quiet=True)
    assert isinstance(index, ExactIndex)
    assert f"Searching 2 of {_leaves(report)} partitions reaches recall@20" in report.fallback
    assert report.recall >= 0.99


def _leaves(report):
    return int(report.fallback.split(" of ")[1].split()[0])


def test_int8_partitions_give_way_to_float32(monkeypatch):
    monkeypatch.setattr(recall, "_LARGEST_IVF_SHARE", 1)
    recipe = dataclasses.replace(IVF, leaves_to_search=50, vectors="int8")
    index, report = build(EASY, EASY_QUERIES, k=20, target=0.9999, recipe=recipe, quiet=True)
    assert isinstance(index, PortableIndex)
    assert report.recipe.vectors == "float32"
    assert "int8 vectors reach" in report.fallback
    assert report.recall >= 0.9999
    sizes = {point.vectors: point.memory_mb for point in report.curve}
    assert sizes["int8"] < sizes["float32"] == report.memory_mb


@pytest.mark.parametrize(("server", "kind"), [("scann", "hash"), ("stock", "ivf")])
def test_the_server_decides_the_kind_and_the_report_says_why(monkeypatch, server, kind):
    monkeypatch.setattr(recipe_module, "_EXACT_BELOW", 1000)
    _, report = build(EASY, EASY_QUERIES, k=20, target=0.5, quiet=True, server=server)
    assert report.recipe.kind == kind
    assert report.reason == reason_for(3000, server)
    assert report.reason in json.dumps(report.as_dict())


def test_a_given_recipe_is_the_reason():
    _, report = build(EASY, EASY_QUERIES, k=20, target=0.5, recipe=IVF, quiet=True, server="stock")
    assert report.reason == "The recipe of kind 'ivf' was given."
    assert set(report.as_dict()["recipe"]) == {"kind", "leaves", "leaves_to_search", "vectors"}


def test_memory_is_that_of_variables_and_files():
    assert memory_mb(ExactIndex(ITEMS)) == ITEMS.nbytes / 2**20
    hashed = ScannIndex(ITEMS, Recipe("hash"))
    files = sum(file.stat().st_size for file in hashed._codes._folder.iterdir())
    assert files > 0
    assert memory_mb(hashed) == (ITEMS.nbytes + files) / 2**20


def test_an_unreachable_target_ends_in_exact_search_and_says_so(monkeypatch):
    monkeypatch.setattr(recall, "_LARGEST_REORDER", 1)
    recipe = Recipe("tree", leaves=4, leaves_to_search=3, reorder=20)
    index, report = build(ITEMS, QUERIES, k=20, target=0.999, recipe=recipe, quiet=True)
    assert isinstance(index, ExactIndex)
    assert report.recipe.kind == "exact"
    assert report.recall >= 0.999
    assert "Searching 4 leaves and reordering 20 reaches recall@20" in report.fallback
    assert "exact search is used" in report.fallback


def test_int8_gives_way_to_float32_before_exact():
    recipe = Recipe("hash", reorder=1000, vectors="int8")
    index, report = build(ITEMS, QUERIES, k=20, target=0.9999, recipe=recipe, quiet=True)
    assert isinstance(index, ScannIndex)
    assert report.recipe.vectors == "float32"
    assert "int8 vectors reach" in report.fallback
    assert report.recall >= 0.9999


def test_a_small_catalogue_is_searched_exactly():
    index, report = build(ITEMS, QUERIES, quiet=True)
    assert isinstance(index, ExactIndex)
    assert (report.recall, report.fallback, report.items, report.heads, report.queries) == (1.0, "", 3000, 2, 60)


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match="`target`"):
        build(ITEMS, QUERIES, target=1.5)
    with pytest.raises(DataError, match=r"\[queries, heads, 16\]"):
        build(ITEMS, QUERIES[:, 0])
    bad = QUERIES.copy()
    bad[3, 1, 0] = np.nan
    with pytest.raises(DataError, match="Query 3 holds NaN"):
        build(ITEMS, bad)
    with pytest.raises(ConfigError, match="Received 12"):
        build(ITEMS[:12], QUERIES, recipe=Recipe("hash"))
    with pytest.raises(ConfigError, match="needs ScaNN's operations"):
        build(ITEMS, QUERIES, recipe=Recipe("hash"), server="stock")
