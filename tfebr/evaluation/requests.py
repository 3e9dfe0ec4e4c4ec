"""Held-out requests: the last part of a search log, and how well a ranking finds what its users clicked and ordered."""

import collections
import dataclasses
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfebr.data.catalogue import Catalogue
from tfebr.data.log import SearchLog, shown_items
from tfebr.data.stage import Stage
from tfebr.errors import ConfigError, DataError
from tfebr.evaluation import metrics
from tfebr.evaluation.ranking import Ranking
from tfebr.evaluation.report import BANDS, Report, check_depth, places_of
from tfebr.infrastructure.checks import check_number

_REQUESTS_AT_ONCE = 65536
_ORACLE_QUERIES_AT_ONCE = 1024


class Oracle(Protocol):
    """Knows what is relevant, as a simulated shop does."""

    def good(self, queries: list[str], item_rows: np.ndarray) -> np.ndarray:
        """bool `[n, k]`: whether the item at each of item_rows int `[n, k]` (all are rows of the catalogue) is relevant to its query."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """Requests with at least one click, in order of time; what to find is what was clicked.

    Attributes:
        request_ids, queries, user_ids: `[requests]` as logged.
        times: int64 `[requests]` seconds since 1970; a request's history is what came before.
        clicked: per request, the distinct catalogue rows with stage CLICKED or later, ascending.
        stages: per request, the highest `Stage` of each of `clicked`.
        bands: `[requests]` "head", "torso" or "tail": how frequent the query was before the held-out part.
    """

    request_ids: list[str]
    queries: list[str]
    user_ids: list[str]
    times: np.ndarray
    clicked: list[np.ndarray]
    stages: list[np.ndarray]
    bands: list[str]

    def __post_init__(self) -> None:
        lengths = {field.name: len(getattr(self, field.name)) for field in dataclasses.fields(self)}
        if len(set(lengths.values())) > 1:
            raise DataError(f"held-out requests: the fields differ in length: {lengths}.")
        places_of(self.request_ids, "held-out requests: request_id")

    def __len__(self) -> int:
        return len(self.request_ids)

    @property
    def ordered(self) -> list[np.ndarray]:
        """Per request, the catalogue rows with stage ORDERED, ascending; often empty."""
        return [rows[stages == Stage.ORDERED] for rows, stages in zip(self.clicked, self.stages, strict=True)]


def held_out(
    log: SearchLog, catalogue: Catalogue, start_time: int, end_time: int | None = None, max_requests: int | None = None, seed: int = 0
) -> HeldOut:
    """Streams the log once and keeps the requests with a click at `start_time <= time < end_time`.

    Before `start_time` only the frequency of queries, as they are written, is taken. Head: the most frequent queries that make the first
    third of that traffic; torso: the second third; tail: the rest, and queries not seen before. Clicked items that the catalogue does
    not hold are left out, because no ranking of it can find them.

    Args:
        max_requests: when there are more requests, a uniform sample of this size, the same for the same `seed`.

    Raises:
        ConfigError: `end_time` or `max_requests` is impossible.
        DataError: a bad row in the log, or no request with a click is left.
    """
    if end_time is not None and end_time <= start_time:
        raise ConfigError(f"`end_time` must be after `start_time` = {start_time}. Received: {end_time}.")
    if max_requests is not None:
        check_number("max_requests", max_requests, "[1, inf)", whole=True)
    random = np.random.default_rng(seed)
    traffic: collections.Counter[str] = collections.Counter()
    kept: list[tuple] = []
    priorities = np.empty(0)
    for batch in log.batches(_REQUESTS_AT_ONCE):
        times = batch["time"].to_numpy()
        first = int(np.searchsorted(times, start_time))
        last = batch.num_rows if end_time is None else int(np.searchsorted(times, end_time))
        for entry in pc.value_counts(batch["query"].slice(0, first)).to_pylist():
            traffic[entry["values"]] += entry["counts"]
        found = _with_clicks(batch.slice(first, max(last - first, 0)), catalogue)
        kept += found
        priorities = np.concatenate([priorities, random.random(len(found))])
        if max_requests is not None and len(kept) > max_requests:
            chosen = np.sort(np.argpartition(priorities, max_requests)[:max_requests])
            kept, priorities = [kept[i] for i in chosen], priorities[chosen]
        if last < batch.num_rows:
            break
    if not kept:
        raise DataError(
            f"{log.path}: no request at or after time {start_time} has a click on an item of the catalogue. "
            "Check that the log and the catalogue belong together, or hold out a larger share."
        )
    request_ids, times, user_ids, queries, clicked, stages = (list(column) for column in zip(*kept, strict=True))
    bands = _bands(traffic)
    return HeldOut(
        request_ids, queries, user_ids, np.array(times, np.int64), clicked, stages, [bands.get(query, "tail") for query in queries]
    )


def evaluate_requests(
    ranking: Ranking,
    held_out: HeldOut,
    k: tuple[int, ...] = (10, 50, 100),
    item_popularity: np.ndarray | None = None,
    oracle: Oracle | None = None,
) -> Report:
    """Metrics of a ranking whose rows are the held-out requests, in order.

    For each k: `clicked_recall@k`, `ordered_recall@k` (NaN without an order), `ndcg@k` (gain = stage: click 1, cart 2, order 3). `mrr`: one
    over the rank of the first clicked item in the top max(k), or 0. With `item_popularity` (`[items]`, such as training clicks):
    `popularity@k`, its mean over the top k, NaN without results. With an oracle: `p_good@k = 1/k * |good items in the top k|` (MGDSPR,
    Li et al. 2021).

    Raises:
        ConfigError: the ranking is not as deep as the largest k.
        DataError: the ranking does not have one row per request, or holds a row beyond `item_popularity`.
    """
    check_depth(ranking, len(held_out), k)
    rows = ranking.item_rows[:, : max(k)]
    ordered = held_out.ordered
    found = metrics.target_gains(rows, held_out.clicked, held_out.stages)
    found_orders = metrics.target_gains(rows, ordered, [np.ones(len(o)) for o in ordered]) > 0
    clicks, orders = (np.array([len(items) for items in targets]) for targets in (held_out.clicked, ordered))
    values = {}
    for at in k:
        values[f"clicked_recall@{at}"] = metrics.recall(found > 0, clicks, at)
        values[f"ordered_recall@{at}"] = metrics.recall(found_orders, orders, at)
        values[f"ndcg@{at}"] = metrics.ndcg(found, held_out.stages, at)
    values["mrr"] = metrics.reciprocal_rank(found > 0, max(k))
    if item_popularity is not None:
        values |= _popularity(rows, np.asarray(item_popularity, np.float64), k)
    if oracle is not None:
        good = _good(oracle, held_out.queries, rows)
        values |= {f"p_good@{at}": metrics.precision(good, at) for at in k}
    return Report(held_out.request_ids, values, held_out.bands)


def _with_clicks(batch: pa.RecordBatch, catalogue: Catalogue) -> list[tuple]:
    """(request id, time, user id, query, clicked rows, their stages) of each request of the batch with a click on a known item."""
    request, item_ids, stages, _ = shown_items(batch)
    clicked = stages >= Stage.CLICKED
    rows = catalogue.rows_of(item_ids.filter(pa.array(clicked)))
    known = rows >= 0
    request, rows, stages = request[clicked][known], rows[known], stages[clicked][known]
    # An item that was shown twice counts once, with its later stage.
    order = np.lexsort((-stages, rows, request))
    request, rows, stages = request[order], rows[order], stages[order]
    first = np.ones(len(rows), bool)
    first[1:] = (request[1:] != request[:-1]) | (rows[1:] != rows[:-1])
    request, rows, stages = request[first], rows[first], stages[first]
    with_click, starts = np.unique(request, return_index=True)
    if not len(with_click):
        return []
    columns = [batch[name].take(pa.array(with_click)).to_pylist() for name in ("request_id", "time", "user_id", "query")]
    return list(zip(*columns, np.split(rows, starts[1:]), np.split(stages, starts[1:]), strict=True))


def _bands(traffic: collections.Counter[str]) -> dict[str, str]:
    """Band of every query seen; equal frequencies are ordered by the query itself, so that the same log gives the same bands."""
    queries = sorted(traffic, key=lambda query: (-traffic[query], query))
    counts = np.array([traffic[query] for query in queries], np.int64)
    before = np.cumsum(counts) - counts
    third = np.minimum(3 * before // max(int(counts.sum()), 1), 2)
    return {query: BANDS[t] for query, t in zip(queries, third.tolist(), strict=True)}


def _popularity(rows: np.ndarray, popularity: np.ndarray, k: tuple[int, ...]) -> dict[str, np.ndarray]:
    if rows.max(initial=-1) >= len(popularity):
        raise DataError(f"`item_popularity` has {len(popularity)} items, but the ranking holds row {rows.max()}. Give one value per item.")
    real = rows >= 0
    each = np.where(real, popularity[rows], 0.0)
    return {
        f"popularity@{at}": np.divide(
            each[:, :at].sum(axis=1), real[:, :at].sum(axis=1), out=np.full(len(rows), np.nan), where=real[:, :at].any(axis=1)
        )
        for at in k
    }


def _good(oracle: Oracle, queries: list[str], rows: np.ndarray) -> np.ndarray:
    good = np.zeros(rows.shape, bool)
    for start in range(0, len(rows), _ORACLE_QUERIES_AT_ONCE):
        part = slice(start, start + _ORACLE_QUERIES_AT_ONCE)
        # The oracle is asked about real rows only; the answer for padding is discarded.
        good[part] = np.asarray(oracle.good(queries[part], np.maximum(rows[part], 0)), bool) & (rows[part] >= 0)
    return good
