import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rankings import assert_best

from tfebr.errors import ConfigError, DataError
from tfebr.evaluation.ranking import Ranking, ordering_keys, rank_exact


def plain_ranking(queries: np.ndarray, items: np.ndarray, k: int) -> tuple[list[list[int]], list[list[float]]]:
    """Scores every item in plain Python and sorts: best score first, then lower row."""
    all_rows, all_scores = [], []
    for heads in queries.tolist():
        scores = [max(sum(x * y for x, y in zip(head, item, strict=True)) for head in heads) for item in items.tolist()]
        rows = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:k]
        missing = k - len(rows)
        all_rows.append(rows + [-1] * missing)
        all_scores.append([scores[row] for row in rows] + [0.0] * missing)
    return all_rows, all_scores


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 4),
    heads=st.integers(1, 3),
    items=st.integers(1, 30),
    k=st.integers(1, 35),
    block=st.integers(1, 40),
    seed=st.integers(0),
)
def test_equals_a_plain_sort_with_ties_for_any_block(n, heads, items, k, block, seed):
    random = np.random.default_rng(seed)
    # Small whole numbers: float32 sums are exact, and equal scores are frequent.
    queries, table = random.integers(-2, 3, (n, heads, 2)), random.integers(-2, 3, (items, 2))
    ranking = rank_exact(queries, table, k, block=block)
    rows, scores = plain_ranking(queries, table, k)
    assert ranking.item_rows.tolist() == rows
    assert ranking.scores.tolist() == scores
    assert ranking.item_rows.dtype == np.int64
    assert ranking.scores.dtype == np.float32


def test_negative_zero_ties_with_zero():
    ranking = rank_exact(np.zeros((1, 1, 1)), np.array([[-1.0], [1.0], [-1.0]]), k=3)
    assert ranking.item_rows.tolist() == [[0, 1, 2]]


def test_queries_as_an_iterator_of_blocks_and_as_one_array_agree():
    random = np.random.default_rng(0)
    queries, items = random.integers(-3, 4, (600, 2, 4)), random.integers(-3, 4, (500, 4))
    whole = rank_exact(queries, items, k=20)
    blocks = rank_exact((part for part in np.split(queries, [1, 7, 7, 320])), items, k=20, block=64)
    assert np.array_equal(whole.item_rows, blocks.item_rows)
    assert np.array_equal(whole.scores, blocks.scores)


@pytest.mark.parametrize("seed", range(3))
def test_ties_are_in_the_order_of_the_catalogue_whatever_the_last_bits(seed):
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(12, 8))[np.arange(60) % 12]
    noise = 1 + 6e-8 * random.integers(-1, 2, vectors.shape)
    queries = random.normal(size=(40, 2, 8))
    ranking = rank_exact(queries, (vectors * noise).astype(np.float32), k=60, block=int(random.integers(5, 70)))
    for rows, query in zip(ranking.item_rows.tolist(), queries.tolist(), strict=True):
        scores = [max(sum(q * v for q, v in zip(head, vector, strict=True)) for head in query) for vector in vectors.tolist()]
        assert rows == sorted(range(60), key=lambda row: (-scores[row], row))


def test_permuting_the_items_permutes_the_rows_only():
    random = np.random.default_rng(1)
    queries, items = random.normal(size=(5, 2, 8)), random.normal(size=(300, 8))
    order = random.permutation(300)
    ranking, permuted = rank_exact(queries, items, k=10), rank_exact(queries, items[order], k=10)
    assert_best(order[permuted.item_rows], (queries @ items.T).max(axis=1))
    assert_best(ranking.item_rows, (queries @ items.T).max(axis=1))
    assert np.allclose(permuted.scores, ranking.scores, atol=1e-5)


def test_a_memory_map_is_ranked_in_memory_far_below_the_score_matrix(tmp_path):
    random = np.random.default_rng(2)
    items = np.lib.format.open_memmap(tmp_path / "items.npy", mode="w+", dtype=np.float32, shape=(100_000, 8))
    items[:] = random.normal(size=items.shape)
    queries = random.normal(size=(300, 2, 8)).astype(np.float32)
    tracemalloc.start()
    ranking = rank_exact(queries, items, k=50, block=2048)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (4 * 2 + 70) * 256 * 2048 < 300 * 2 * 100_000 * 4 / 4
    best = (queries @ items.T).max(axis=1)
    assert np.allclose(ranking.scores, -np.sort(-best, axis=1)[:, :50], atol=1e-5)


def test_no_queries_give_an_empty_ranking():
    assert rank_exact(np.empty((0, 1, 3)), np.ones((4, 3)), k=2).item_rows.shape == (0, 2)
    assert rank_exact(iter([]), np.ones((4, 3)), k=2).scores.shape == (0, 2)


@pytest.mark.parametrize(
    ("queries", "items", "k", "error", "message"),
    [
        (np.ones((1, 1, 2)), np.ones((3, 2)), 0, ConfigError, "`k` must be a whole number of at least 1"),
        (np.ones((1, 2)), np.ones((3, 2)), 1, DataError, r"shape \(1, 2\).*heads = 1"),
        (np.ones((1, 1, 3)), np.ones((3, 2)), 1, DataError, "dim = 2"),
        (np.ones((1, 1, 2)), np.ones(3), 1, DataError, r"\[items, dim\]"),
        (
            np.ones((1, 1, 2)),
            np.where(np.arange(10_000)[:, None] == 9_000, np.nan, 1.0) * np.ones(2),
            1,
            DataError,
            "`item_embeddings`: row 9000",
        ),
        (iter([np.ones((4, 1, 2)), np.full((1, 1, 2), np.inf)]), np.ones((3, 2)), 1, DataError, "`query_embeddings`: row 4"),
    ],
    ids=["k", "query rank", "query dim", "item rank", "NaN item", "infinite query"],
)
def test_impossible_input_is_named(queries, items, k, error, message):
    with pytest.raises(error, match=message):
        rank_exact(queries, items, k)


def test_an_impossible_block_is_named():
    with pytest.raises(ConfigError, match="`block` must be a whole number of at least 1"):
        rank_exact(np.ones((1, 1, 2)), np.ones((3, 2)), 1, block=0)


@pytest.mark.parametrize(
    ("rows", "scores", "message"),
    [
        ([[1, 2]], [[1.0]], "shapes"),
        ([[1, 2], [3, 3]], [[2.0, 1.0], [2.0, 1.0]], "row 1 holds an item twice"),
        ([[1, -1, 2]], [[3.0, 0.0, 1.0]], "after its padding"),
        ([[1, 2]], [[1.0, 2.0]], "not sorted"),
        ([[1, 2]], [[1.0, np.nan]], "not finite"),
    ],
)
def test_a_ranking_keeps_its_contract(rows, scores, message):
    with pytest.raises(DataError, match=message):
        Ranking(np.array(rows), np.array(scores))


def test_a_ranking_normalises_what_is_behind_its_results():
    ranking = Ranking(np.array([[4, -7]]), np.array([[-1.0, np.nan]]))
    assert ranking.item_rows.tolist() == [[4, -1]]
    assert ranking.scores.tolist() == [[-1.0, 0.0]]


@given(st.lists(st.tuples(st.floats(width=32, allow_nan=False), st.integers(0, 2**32 - 1)), min_size=2, max_size=20))
def test_ordering_keys_sort_by_score_then_lower_row(pairs):
    scores, rows = np.array([p[0] for p in pairs], np.float32), np.array([p[1] for p in pairs], np.int64)
    by_key = sorted(range(len(pairs)), key=lambda i: -ordering_keys(scores, rows)[i])
    plainly = sorted(range(len(pairs)), key=lambda i: (-pairs[i][0], pairs[i][1]))
    assert [pairs[i] for i in by_key] == [pairs[i] for i in plainly]
