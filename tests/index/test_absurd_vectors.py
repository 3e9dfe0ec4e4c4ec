"""Vectors that no sound model gives are searched, or refused by row: never an end of the process, which would take a whole export along."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tfebr.errors import ConfigError, DataError
from tfebr.index.base import NO_SCORE
from tfebr.index.kinds import index_of
from tfebr.index.recall import build
from tfebr.index.recipe import Recipe

ITEMS, DIM, K = 120, 6, 8
UNIT = np.random.default_rng(3).normal(size=(ITEMS, DIM)).astype(np.float32)
UNIT /= np.linalg.norm(UNIT, axis=1, keepdims=True)
RECIPES = {
    "exact": Recipe("exact"),
    "hash": Recipe("hash", reorder=ITEMS),
    "wide": Recipe("hash", reorder=ITEMS, dims_per_block=50),
    "tree": Recipe("tree", leaves=6, leaves_to_search=6, reorder=ITEMS),
    "int8": Recipe("tree", leaves=6, leaves_to_search=6, reorder=ITEMS, vectors="int8"),
    "an item a leaf": Recipe("tree", leaves=ITEMS, leaves_to_search=ITEMS, reorder=ITEMS),
    "ivf": Recipe("ivf", leaves=6, leaves_to_search=6),
}


def _one_long(length):
    vectors = UNIT.copy()
    vectors[7] *= np.float32(length)
    return vectors


# A squared norm of 3.4e38 is the end of float32: distances between vectors of 1e19 are beyond it.
VECTORS = {
    "long": UNIT * np.float32(1.7e19),
    "one long": _one_long(1e19),
    "short": UNIT * np.float32(1e-25),
    "denormal": UNIT * np.float32(1e-41),
    "zero": np.zeros_like(UNIT),
    "half zero": np.where(np.arange(ITEMS)[:, None] % 2, UNIT, 0),
    "equal": np.repeat(UNIT[:1], ITEMS, axis=0),
    "five": UNIT[np.arange(ITEMS) % 5],
    "one number": UNIT[:, :1],
}
QUERIES = {
    "unit": UNIT[:3],
    "long": UNIT[:3] * np.float32(3e38),
    "longest": np.full((2, DIM), 3.4e38, np.float32),
    "denormal": UNIT[:3] * np.float32(1e-41),
    "zero": np.zeros((1, DIM), np.float32),
    "not finite": np.array([[np.nan] * DIM, [np.inf] * DIM], np.float32),
}


def main():
    """The fresh process: what every index finds for every query, one JSON line for each case, so that the last one names the culprit."""
    for name, vectors in VECTORS.items():
        for kind, recipe in RECIPES.items():
            print(json.dumps([name, kind]), flush=True)
            index = index_of(recipe, vectors)
            # All in one call, without a trace: a graph of each of so many indexes would take longer than everything else.
            queries = np.concatenate(list(QUERIES.values()))
            answers = index.search(tf.constant(np.stack([queries, -queries], axis=1)[..., : index.dim]), K)
            ends = np.cumsum([len(asked) for asked in QUERIES.values()])[:-1]
            scores, rows = ([part.tolist() for part in np.split(answer.numpy(), ends)] for answer in answers)
            found = dict(zip(QUERIES, zip(scores, rows, strict=True), strict=True))
            print(json.dumps([name, kind, found]), flush=True)


@pytest.fixture(scope="module")
def found():
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, (lines[-1:], done.stderr[-2000:])
    return {(name, kind): answers for name, kind, *answers in map(json.loads, lines) if answers}


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("kind", RECIPES)
def test_the_best_are_found_or_what_is_as_good(found, name, kind):
    vectors = VECTORS[name].astype(np.float64)
    assert set(found[name, kind][0]) == set(QUERIES)
    for asked, (scores, rows) in found[name, kind][0].items():
        scores, rows = np.array(scores, np.float32), np.array(rows)
        assert np.isfinite(scores).all()
        if asked == "not finite":
            assert (rows == -1).all()
            assert (scores == np.float32(NO_SCORE)).all()
            continue
        assert all(len(set(row)) == K for row in rows.tolist())
        assert ((rows >= 0) & (rows < ITEMS)).all()
        if asked == "unit" and name != "denormal":
            exact = np.abs(vectors @ UNIT[:3, : vectors.shape[1]].T.astype(np.float64)).T
            # Everything is looked at: what is found is the best, up to the rounding of what is kept.
            tolerance = (0.02 if kind == "int8" else 1e-5) * exact.max()
            np.testing.assert_allclose(np.take_along_axis(exact, rows, 1), -np.sort(-exact, axis=1)[:, :K], rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("length", [1e20, 3e38])
def test_a_row_whose_squared_norm_overflows_is_refused_by_its_number(kind, length):
    with pytest.raises(DataError, match=r"row 7 holds numbers up to .*, so that its squared norm is beyond float32"):
        index_of(RECIPES[kind], _one_long(length))
    with pytest.raises(DataError, match="row 7 holds NaN or infinity"):
        index_of(RECIPES[kind], _one_long(1).astype(np.float64) * np.where(np.arange(ITEMS) == 7, 1e300, 1)[:, None])


def test_queries_that_recall_cannot_be_measured_with_are_refused():
    with pytest.raises(DataError, match=r"Query 1 holds numbers up to 1e\+20"):
        build(UNIT, np.where(np.arange(3)[:, None, None] == 1, 1e20, 1) * np.ones((3, 2, DIM)), k=3, quiet=True)


def test_fewer_items_than_leaves_are_refused_before_anything_is_trained():
    for recipe in (Recipe("tree", leaves=ITEMS + 1, leaves_to_search=2), Recipe("ivf", leaves=ITEMS + 1, leaves_to_search=2)):
        with pytest.raises(ConfigError, match=f"at least {ITEMS + 1} items. Received {ITEMS}"):
            index_of(recipe, UNIT)


if __name__ == "__main__":
    main()
