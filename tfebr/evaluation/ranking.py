"""Rankings: the best items of every request, and the exact full-corpus search that makes one from embeddings."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from tfebr.errors import DataError
from tfebr.infrastructure.checks import check_number
from tfebr.infrastructure.ties import tie_width

_ROW_MASK = np.int64(0xFFFFFFFF)
_NO_ITEM = np.iinfo(np.int64).min
# Bounds the block of scores to [256 * heads, block] floats, whatever the number of queries.
_QUERIES_AT_ONCE = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """The best items of each request, best first.

    Attributes:
        item_rows: int64 `[requests, k]` catalogue rows; a request with fewer than k results is padded at its end with -1.
        scores: float32 `[requests, k]`, not increasing; 0 where padded.

    Raises:
        DataError: the shapes differ, a row repeats an item, padding is not at the end, a score is not finite or scores increase.
    """

    item_rows: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        rows, scores = np.asarray(self.item_rows, np.int64), np.asarray(self.scores, np.float32)
        if rows.ndim != 2 or rows.shape != scores.shape:
            raise DataError(f"`item_rows` and `scores` should both be [requests, k]. Received: shapes {rows.shape} and {scores.shape}.")
        padded = rows < 0
        _refuse(padded[:, :-1] & ~padded[:, 1:], "has an item after its padding; put the -1s at the end")
        _refuse(~padded & ~np.isfinite(scores), "has a score that is not finite")
        _refuse(~padded[:, 1:] & (scores[:, 1:] > scores[:, :-1]), "is not sorted: a score is higher than the one before it")
        in_order = np.sort(rows, axis=1)
        _refuse((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0), "holds an item twice; keep its best score only")
        object.__setattr__(self, "item_rows", np.where(padded, -1, rows))
        object.__setattr__(self, "scores", np.where(padded, np.float32(0), scores))

    def __len__(self) -> int:
        return len(self.item_rows)

    @property
    def k(self) -> int:
        """The depth of the ranking."""
        return self.item_rows.shape[1]

    @classmethod
    def from_keys(cls, keys: np.ndarray, k: int) -> "Ranking":
        """The k largest of the ordering keys int64 `[requests, candidates]` of `ordering_keys`, padded where there are fewer."""
        missing = k - keys.shape[1]
        if missing > 0:
            keys = np.pad(keys, ((0, 0), (0, missing)), constant_values=_NO_ITEM)
        keys = np.sort(_largest(keys, k), axis=1)[:, ::-1]
        empty = keys == _NO_ITEM
        return cls(np.where(empty, -1, _ROW_MASK - (keys & _ROW_MASK)), np.where(empty, np.float32(0), _scores_in(keys)))


def rank_exact(query_embeddings: np.ndarray | Iterable[np.ndarray], item_embeddings: np.ndarray, k: int, block: int = 4096) -> Ranking:
    """Full-corpus exact search by inner product, in memory bounded by `block`.

    An item's score is its best over the query's heads, `max_h <q_h, item>`; every item is ranked at most once. Scores that are
    equal up to `tfebr.infrastructure.ties.TIE_TOLERANCE` rank the lower item row first; a tie may be cut at depth k.

    Args:
        query_embeddings: `[n, heads, dim]`, or an iterable of such blocks in request order.
        item_embeddings: `[items, dim]`, also as a memory map.
        k: depth of the ranking; with fewer items the rows are padded.
        block: items scored at once for up to 256 queries; memory is at most about `(4 * heads + 70) * 256 * block` bytes.

    Raises:
        ConfigError: `k` or `block` is not positive.
        DataError: a shape does not fit, or an embedding is not finite.
    """
    for name, value in (("k", k), ("block", block)):
        check_number(name, value, "[1, inf)", whole=True)
    if item_embeddings.ndim != 2:
        raise DataError(f"`item_embeddings` should be [items, dim]. Received: shape {item_embeddings.shape}.")
    for start in range(0, len(item_embeddings), block):
        _check_finite(item_embeddings[start : start + block], "item_embeddings", start)
    found = [_best_keys(q, item_embeddings, k, block) for q in _query_blocks(query_embeddings, item_embeddings.shape[1])]
    return _ties_in_order(Ranking.from_keys(np.concatenate([np.empty((0, k), np.int64), *found]), k))


def _ties_in_order(ranking: Ranking) -> Ranking:
    """A product's last bits depend on the block that an item is in and on the processor."""
    rows, scores = ranking.item_rows, ranking.scores
    apart = (-np.diff(scores, axis=1, prepend=scores[:, :1]) > tie_width(scores)) | (rows < 0)
    order = np.lexsort((rows, np.cumsum(apart, axis=1)))
    return Ranking(np.take_along_axis(rows, order, axis=1), scores)


def ordering_keys(scores: np.ndarray, item_rows: np.ndarray) -> np.ndarray:
    """One int64 per (score, item) that is larger for the better score and, at equal scores, for the lower item row.

    A single integer lets a plain partition find the top k with ties broken the same way in every block size.
    """
    # Adding zero turns -0.0 into 0.0, which compares equal but has other bits.
    bits = (np.asarray(scores, np.float32) + np.float32(0)).view(np.int32)
    return (_monotone(bits).astype(np.int64) << 32) | (_ROW_MASK - item_rows)


def _scores_in(keys: np.ndarray) -> np.ndarray:
    return _monotone((keys >> 32).astype(np.int32)).view(np.float32)


def _monotone(bits: np.ndarray) -> np.ndarray:
    """float32 bits to int32 in the same order; its own inverse."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _largest(keys: np.ndarray, k: int) -> np.ndarray:
    """The k largest of each row, the k-th largest first."""
    first = keys.shape[1] - k
    return np.partition(keys, first, axis=1)[:, first:]


def _best_keys(queries: np.ndarray, item_embeddings: np.ndarray, k: int, block: int) -> np.ndarray:
    n, heads, dim = queries.shape
    vectors = queries.reshape(n * heads, dim)
    best = np.full((n, k), _NO_ITEM)
    for start in range(0, len(item_embeddings), block):
        items = np.asarray(item_embeddings[start : start + block], np.float32)
        scores = (vectors @ items.T).reshape(n, heads, len(items)).max(axis=1)
        # Later items lose ties, so only a strictly better score than the k-th can enter; after a few blocks that is almost none.
        bar = np.where(best[:, 0] == _NO_ITEM, -np.inf, _scores_in(best[:, 0]))
        query, column = np.nonzero(scores > bar[:, None])
        counts = np.bincount(query, minlength=n)
        entering = np.full((n, counts.max(initial=0)), _NO_ITEM)
        place = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        entering[query, place] = ordering_keys(scores[query, column], start + column)
        best = _largest(np.concatenate([best, entering], axis=1), k)
    return best


def _query_blocks(query_embeddings: np.ndarray | Iterable[np.ndarray], dim: int) -> Iterator[np.ndarray]:
    done = 0
    for queries in [query_embeddings] if isinstance(query_embeddings, np.ndarray) else query_embeddings:
        queries = np.asarray(queries, np.float32)
        if queries.ndim != 3 or queries.shape[1] < 1 or queries.shape[2] != dim:
            raise DataError(
                f"`query_embeddings` should be [n, heads, {dim}] like the items' dim = {dim}. Received: shape {queries.shape}. "
                "A single vector per query has heads = 1."
            )
        _check_finite(queries, "query_embeddings", done)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            yield queries[start : start + _QUERIES_AT_ONCE]
        done += len(queries)


def _check_finite(embeddings: np.ndarray, name: str, first_row: int) -> None:
    finite = np.isfinite(embeddings)
    if not finite.all():
        row = int(np.argmin(finite.reshape(len(embeddings), -1).all(axis=1)))
        raise DataError(f"`{name}`: row {first_row + row} is not finite. Check the tower that made it before ranking.")


def _refuse(bad: np.ndarray, what: str) -> None:
    if bad.any():
        raise DataError(f"ranking: request row {int(np.argmax(bad.any(axis=1)))} {what}.")
