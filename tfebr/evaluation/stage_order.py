"""Within-request order: do the shown items that got further score higher than those that got less far?"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tfebr.data.stage import Stage
from tfebr.errors import DataError
from tfebr.evaluation.report import Report
from tfebr.infrastructure.ties import tie_width

METRICS = ("order_over_click", "click_over_unclicked", "all_pairs", "shown_mrr")
# Bounds the blocks of pairs of shown items and of gathered item embeddings, whatever the size of a batch.
_VALUES_AT_ONCE = 1 << 22


class ShownItems(NamedTuple):
    """What a batch of requests was shown, beside the requests' embeddings.

    Attributes:
        request_ids: `[batch]`.
        queries: float `[batch, heads, dim]`.
        items: int `[batch, shown]` item rows from 1, as the batches of `tfebr.data.batches` have them, padded with 0.
        stages: int `[batch, shown]` numbers of `Stage`.
        positions: int `[batch, shown]` from 0 at the top of the list.
    """

    request_ids: list[str]
    queries: np.ndarray
    items: np.ndarray
    stages: np.ndarray
    positions: np.ndarray


def stage_order(batches: Iterable[ShownItems], item_embeddings: np.ndarray) -> Report:
    """A model's `order_metrics` of every request, as a stream; an item's score is its best over the query's heads, `max_h <q_h, item>`.

    Args:
        batches: the requests, each once.
        item_embeddings: `[items, dim]` in catalogue order: the item in row r is `item_embeddings[r - 1]`; also as a memory map.

    Raises:
        DataError: shapes do not fit, an item row is beyond the embeddings, or a score is not finite.
    """
    return _report((batch, shown_scores(batch.queries, batch.items, item_embeddings)) for batch in batches)


def shown_order(batches: Iterable[ShownItems]) -> Report:
    """The same of the order in which the items were shown: what a model has to beat. The queries are not read."""
    return _report((batch, -batch.positions.astype(np.float32)) for batch in batches)


def shown_scores(queries: np.ndarray, items: np.ndarray, item_embeddings: np.ndarray) -> np.ndarray:
    """float32 `[batch, shown]` scores of the item rows `items` `[batch, shown]` for `queries` `[batch, heads, dim]`; 0 where padded."""
    if queries.ndim != 3 or len(queries) != len(items) or queries.shape[2] != item_embeddings.shape[1]:
        raise DataError(
            f"`queries` should be [batch, heads, dim] for items [batch, shown] and embeddings [items, dim]. Received: shapes "
            f"{queries.shape}, {items.shape} and {item_embeddings.shape}."
        )
    if items.max(initial=0) > len(item_embeddings):
        raise DataError(
            f"`items` holds row {items.max()}, but there are embeddings of {len(item_embeddings)} items. Embed the whole catalogue."
        )
    scores = np.zeros(items.shape, np.float32)
    for part in _blocks(len(items), items.shape[1] * queries.shape[2]):
        vectors = np.asarray(item_embeddings[np.maximum(items[part] - 1, 0)], np.float32)
        # Not a matrix product: that adds in an order that depends on the place, so that equal items would not have equal scores.
        scores[part] = np.einsum("qhd,qsd->qhs", np.asarray(queries[part], np.float32), vectors).max(axis=1)
    return np.where(items > 0, scores, 0.0)


def order_metrics(scores: np.ndarray, items: np.ndarray, stages: np.ndarray) -> dict[str, np.ndarray]:
    """How scores order the shown items of each request, float64 `[batch]` each; NaN where a request has nothing to compare.

    Three are shares of pairs (a, b) of the request's items whose higher stage scores higher, `P(score(a) > score(b))`, a tie counting one
    half: `order_over_click` (a ordered, b clicked or carted), `click_over_unclicked` (a clicked or later, b unclicked) and `all_pairs`
    (a at any later stage than b). Scores that are equal up to `TIE_TOLERANCE` are tied. `shown_mrr` is one over the rank of the
    first clicked item when the shown items are sorted by score; of tied items every order is equally likely, and the expected value is
    taken. So constant scores have one half, and the mrr of a random order: neither ties nor their place in the list give an advantage.

    A request counts once in the mean over requests, however many pairs its page makes: long pages with many clicks do not outweigh the
    others. An item that was shown twice counts once, with its later stage.

    Args:
        scores: float `[batch, shown]`.
        items: int `[batch, shown]` item rows, 0 where padded.
        stages: int `[batch, shown]` numbers of `Stage`.

    Raises:
        DataError: the shapes differ, or the score of an item is not finite.
    """
    if not scores.shape == items.shape == stages.shape or scores.ndim != 2:
        raise DataError(
            f"`scores`, `items` and `stages` should all be [batch, shown]. Received: {scores.shape}, {items.shape} and {stages.shape}."
        )
    broken = (items > 0) & ~np.isfinite(scores)
    if broken.any():
        row = int(np.argmax(broken.any(axis=1)))
        raise DataError(f"`scores`: row {row} has the score of a shown item that is not finite. Check the towers that made it.")
    parts = [_of_block(scores[part], items[part], stages[part]) for part in _blocks(len(items), items.shape[1] ** 2)]
    return {name: np.concatenate([np.empty(0), *(part[name] for part in parts)]) for name in METRICS}


def _report(scored: Iterable[tuple[ShownItems, np.ndarray]]) -> Report:
    ids: list[str] = []
    found: dict[str, list[np.ndarray]] = {name: [np.empty(0)] for name in METRICS}
    for batch, scores in scored:
        ids += batch.request_ids
        for name, values in order_metrics(scores, batch.items, batch.stages).items():
            found[name].append(values)
    return Report(ids, {name: np.concatenate(parts) for name, parts in found.items()})


def _blocks(rows: int, values_of_row: int) -> list[slice]:
    step = max(1, _VALUES_AT_ONCE // max(values_of_row, 1))
    return [slice(start, start + step) for start in range(0, rows, step)]


def _of_block(scores: np.ndarray, items: np.ndarray, stages: np.ndarray) -> dict[str, np.ndarray]:
    scores, there = np.where(items > 0, scores, 0.0), _once(items, stages)
    clicked, unclicked = there & (stages >= Stage.CLICKED), there & (stages == Stage.UNCLICKED)
    ordered = there & (stages == Stage.ORDERED)
    width = tie_width(scores)
    difference = scores[:, :, None] - scores[:, None, :]
    credit = (difference > width[:, None]) + np.float32(0.5) * (np.abs(difference) <= width[:, None])
    later = (stages[:, :, None] > stages[:, None, :]) & there[:, :, None] & there[:, None, :]
    return {
        "order_over_click": _share(credit, later & ordered[:, :, None] & clicked[:, None, :]),
        "click_over_unclicked": _share(credit, later & unclicked[:, None, :]),
        "all_pairs": _share(credit, later),
        "shown_mrr": _reciprocal_rank(scores, there, clicked, width),
    }


def _once(items: np.ndarray, stages: np.ndarray) -> np.ndarray:
    """bool `[batch, shown]`: one place of every item, that of its latest stage."""
    column = np.arange(items.shape[1])
    goes_first = stages[:, None, :] > stages[:, :, None]
    goes_first |= (stages[:, None, :] == stages[:, :, None]) & (column[None, :] < column[:, None])
    return (items > 0) & ~((items[:, :, None] == items[:, None, :]) & goes_first).any(axis=2)


def _share(credit: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Mean credit of the chosen pairs of each request: both `[batch, shown, shown]` -> `[batch]`."""
    count = pairs.sum(axis=(1, 2))
    total = np.where(pairs, credit, 0.0).sum(axis=(1, 2), dtype=np.float64)
    return np.divide(total, count, out=np.full(len(pairs), np.nan), where=count > 0)


def _reciprocal_rank(scores: np.ndarray, there: np.ndarray, clicked: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Expected reciprocal rank of the first clicked item when ties are broken at random; NaN without a click.

    With g items above the best clicked score, t at it and c of these clicked, the first clicked one is the j-th of the t with
    `P(j) = C(t - j, c - 1) / C(t, c)`, and its rank is g + j.
    """
    best = np.where(clicked, scores, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    near = np.abs(scores - best) <= width
    above = (there & (scores > best) & ~near).sum(axis=1)
    tied, tied_clicks = (there & near).sum(axis=1), (clicked & near).sum(axis=1)
    value = np.zeros(len(scores))
    chance = np.divide(tied_clicks, tied, out=np.zeros(len(scores)), where=tied > 0)
    for j in range(1, int(tied.max(initial=0)) + 1):
        value += chance / (above + j)
        chance = chance * np.maximum(tied - j - tied_clicks + 1, 0) / np.maximum(tied - j, 1)
    return np.where(tied_clicks > 0, value, np.nan)
