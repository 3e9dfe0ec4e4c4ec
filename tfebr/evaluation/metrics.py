"""Ranking metrics per request, on NumPy arrays: recall@k, precision@k, reciprocal rank and nDCG@k."""

import numpy as np


def target_gains(item_rows: np.ndarray, targets: list[np.ndarray], gains: list[np.ndarray]) -> np.ndarray:
    """Gain of each ranked item: float64 `[requests, k]`, 0 where it is not among the request's targets or is padding.

    Args:
        item_rows: int `[requests, k]`, -1 padded.
        targets: per request, the distinct catalogue rows that should be found.
        gains: per request, the positive gain of each target.
    """
    lengths = [len(t) for t in targets]
    if not sum(lengths):
        return np.zeros(item_rows.shape)
    rows = np.concatenate(targets).astype(np.int64)
    stride = max(int(rows.max()), int(item_rows.max(initial=0))) + 1
    keys = np.repeat(np.arange(len(targets), dtype=np.int64), lengths) * stride + rows
    order = np.argsort(keys)
    keys, values = keys[order], np.concatenate(gains).astype(np.float64)[order]
    wanted = np.arange(len(item_rows), dtype=np.int64)[:, None] * stride + item_rows
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((item_rows >= 0) & (keys[at] == wanted), values[at], 0.0)


def recall(hits: np.ndarray, totals: np.ndarray, k: int) -> np.ndarray:
    """`|top k with a hit| / total` per request, from hits bool `[requests, depth]`; NaN where there is nothing to find."""
    return np.divide(hits[:, :k].sum(axis=1), totals, out=np.full(len(hits), np.nan), where=totals > 0)


def precision(hits: np.ndarray, k: int) -> np.ndarray:
    """`|top k with a hit| / k` per request; a missing result counts as a miss."""
    return hits[:, :k].sum(axis=1) / k


def reciprocal_rank(hits: np.ndarray, k: int) -> np.ndarray:
    """`1 / rank` of the first hit within the top k, 0 where there is none."""
    top = hits[:, :k]
    return np.where(top.any(axis=1), 1.0 / (top.argmax(axis=1) + 1), 0.0)


def ndcg(found: np.ndarray, gains: list[np.ndarray], k: int) -> np.ndarray:
    """`DCG@k / ideal DCG@k` with linear gain and discount `log2(rank + 1)`, as trec_eval's ndcg_cut; NaN where no target has a gain.

    Args:
        found: `[requests, depth]` gain of each ranked item, from `target_gains`.
        gains: per request, the gains of all its targets.
    """
    discount = 1.0 / np.log2(np.arange(k) + 2)
    ideal = np.array([np.sort(g)[::-1][:k] @ discount[: len(g)] for g in gains])
    top = found[:, :k]
    return np.divide(top @ discount[: top.shape[1]], ideal, out=np.full(len(found), np.nan), where=ideal > 0)
