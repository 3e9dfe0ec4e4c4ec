"""Building an index and measuring, on held-out queries, how much of the exact result it finds."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfebr.errors import DataError
from tfebr.index.base import Index, checked_embeddings, first_unusable, what_is_wrong
from tfebr.index.exact import ExactIndex
from tfebr.index.index_report import IndexReport, RecallPoint
from tfebr.index.kinds import index_of
from tfebr.index.portable import PortableIndex
from tfebr.index.recipe import Recipe, reason_for, recipe_for
from tfebr.index.scann import ScannIndex
from tfebr.infrastructure.checks import check_number
from tfebr.infrastructure.progress import progress

_BATCH = 128
_TIMED_QUERIES = 50
# More candidates than this many times k, or items of more than this share of an IVF's leaves, cost about what exact search costs.
_LARGEST_REORDER = 50
_LARGEST_IVF_SHARE = 0.25
_GROWTH = 1.5
# Shares of the chosen leaves that are measured besides, so that the curve shows what fewer leaves would give.
_BELOW = (1 / 16, 1 / 8, 1 / 4, 1 / 2)

_Approximate = ScannIndex | PortableIndex
_Search = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class _Probe:
    """Held-out queries with the score of each one's k-th best item."""

    def __init__(self, item_embeddings: np.ndarray, queries: np.ndarray, k: int):
        self.embeddings, self.queries, self.k = item_embeddings, queries, min(k, len(item_embeddings))
        exact = tf.function(ExactIndex(item_embeddings).search)
        parts = [exact(tf.constant(queries[i : i + _BATCH]), tf.constant(self.k))[0][:, -1].numpy() for i in range(0, len(queries), _BATCH)]
        lowest = np.concatenate(parts)
        self.enough = lowest - 1e-5 * np.abs(lowest) - 1e-7

        self._traced: tuple[Index, str, int] | None = None

    def search(self, index: Index, recipe: Recipe) -> _Search:
        """The search with the leaves of a recipe that the index uses; traced once for all leaves."""
        traced = (index, recipe.vectors, recipe.reorder)
        if traced != self._traced:
            self._traced, self._function = traced, _compiled(index, self.queries.shape[1], tf.TensorSpec([], tf.int32))
        function, leaves = self._function, tf.constant(max(recipe.leaves_to_search, 1))
        return lambda queries, k: function(queries, k, leaves)

    def recall(self, search: _Search) -> float:
        """Share of the k results that are as good as the exact k-th: items with equal scores are equally right."""
        hits = 0
        for i in range(0, len(self.queries), _BATCH):
            queries = self.queries[i : i + _BATCH]
            rows = search(tf.constant(queries), tf.constant(self.k))[1].numpy()
            scores = np.einsum("bhd,bkd->bhk", queries, self.embeddings[np.maximum(rows, 0)], optimize=True).max(axis=1)
            hits += int(((rows >= 0) & (scores >= self.enough[i : i + _BATCH, None])).sum())
        return hits / (len(self.queries) * self.k)

    def latencies_ms(self, searches: Sequence[_Search]) -> list[float]:
        """The median time of a single query by each search, in turn, so that a busy moment of the machine meets them all."""
        singles = [tf.constant(self.queries[i : i + 1]) for i in range(min(len(self.queries), _TIMED_QUERIES))]
        k = tf.constant(self.k)

        def seconds(search: _Search, query: tf.Tensor) -> float:
            start = time.perf_counter()
            search(query, k)
            return time.perf_counter() - start

        for search in searches:
            search(singles[0], k)
        # Not the same query by one after the other: the later would find its items in the processor's cache.
        apart = math.ceil(len(singles) / len(searches))
        times = [[seconds(s, singles[(i + j * apart) % len(singles)]) for j, s in enumerate(searches)] for i in range(len(singles))]
        return [1000 * float(median) for median in np.median(times, axis=0)]

    def measure(self, index: Index, recipe: Recipe) -> RecallPoint:
        search = self.search(index, recipe)
        recall, latency = self.recall(search), self.latencies_ms([search])[0]
        return RecallPoint(recipe.leaves_to_search, recipe.reorder, recipe.vectors, recall, latency, memory_mb(index))

    def timed_together(self, index: _Approximate, curve: Sequence[RecallPoint]) -> list[RecallPoint]:
        """The points that differ from the index's setting in the leaves only get latencies that can be compared; the others stay."""
        final = index.recipe
        same = [i for i, point in enumerate(curve) if (point.vectors, point.reorder) == (final.vectors, final.reorder)]
        recipes = [dataclasses.replace(final, leaves_to_search=curve[i].leaves_to_search) for i in same]
        points = list(curve)
        for i, latency in zip(same, self.latencies_ms([self.search(index, recipe) for recipe in recipes]), strict=True):
            points[i] = dataclasses.replace(curve[i], latency_ms=latency)
        return points


def memory_mb(index: Index) -> float:
    """MiB of the index's variables and asset files: about what it holds in memory when it is loaded."""
    parts = tf.train.TrackableView(index).descendants()
    held = sum(part.shape.num_elements() * part.dtype.size for part in parts if isinstance(part, tf.Variable))
    files = sum(tf.io.gfile.stat(part.asset_path.numpy()).length for part in parts if isinstance(part, tf.saved_model.Asset))
    return (held + files) / 2**20


def _compiled(index: Index, heads: int, *more: tf.TensorSpec) -> Any:
    spec = [tf.TensorSpec([None, heads, index.dim], tf.float32), tf.TensorSpec([], tf.int32), *more]
    return tf.function(lambda *given: index.search(*given), input_signature=spec)


def measure_recall(index: Index, exact: np.ndarray, queries: np.ndarray, k: int) -> float:
    """recall@k of an index against exact search: the mean share of the k best items that it finds.

    Args:
        index: any index.
        exact: either the exact rankings, [queries, at least k] integer rows, or the item embeddings, [items, dim] floats. With embeddings,
            items whose score equals the k-th best count as found in each other's place.
        queries: [queries, heads, dim] float32.
        k: depth; at most the number of items counts.
    """
    queries = _checked_queries(queries, index.dim)
    if not np.issubdtype(exact.dtype, np.integer):
        return _Probe(checked_embeddings(exact), queries, k).recall(_compiled(index, queries.shape[1]))
    k = min(k, index.items)
    if exact.ndim != 2 or len(exact) != len(queries) or exact.shape[1] < k:
        raise DataError(f"`exact` must have shape [{len(queries)}, at least {k}]. Received {list(exact.shape)}.")
    search, found = _compiled(index, queries.shape[1]), 0
    for i in range(0, len(queries), _BATCH):
        rows = search(tf.constant(queries[i : i + _BATCH]), tf.constant(k))[1].numpy()
        found += sum(len(np.intersect1d(a, b)) for a, b in zip(rows, exact[i : i + _BATCH, :k], strict=True))
    return found / (len(queries) * k)


def build(
    item_embeddings: np.ndarray,
    heldout_queries: np.ndarray,
    k: int = 100,
    target: float = 0.98,
    recipe: Recipe | None = None,
    quiet: bool = False,
    server: str = "scann",
) -> tuple[Index, IndexReport]:
    """Builds an index whose measured recall@k is at least `target`.

    The leaves to search and the candidates to reorder are raised until the target is met. When even the largest do not meet it,
    int8 vectors give way to float32 ones, and at last the index to an exact one; the report's `fallback` then says so. Fewer leaves than
    the chosen ones are measured too, for the report's curve.

    Args:
        item_embeddings: [items, dim] float32.
        heldout_queries: [queries, heads, dim] float32; some hundreds of queries like those to come. All of them are searched.
        k: depth at which recall is measured.
        target: recall@k in (0, 1].
        recipe: where to start; `recipe_for` the number of items and the server when not given.
        quiet: no progress display.
        server: what the index will run on, "scann" or "stock"; see `recipe_for`.

    Raises:
        ConfigError: the target is not a share, `k` is not positive, or the recipe does not fit the number of items or the server.
        DataError: embeddings or queries have another shape, or are not finite or too long.
    """
    check_number("target", target, "(0, 1]")
    check_number("k", k, "[1, inf)", whole=True)
    embeddings = checked_embeddings(item_embeddings)
    queries = _checked_queries(heldout_queries, embeddings.shape[1])
    start = recipe or recipe_for(len(embeddings), k, server=server)
    start.check_items(len(embeddings))
    start.check_server(server)
    probe = _Probe(embeddings, queries, k)
    curve: list[RecallPoint] = []
    fallback = ""
    with progress("index", None, "settings", quiet) as advance:

        def measured(index: Index, recipe: Recipe) -> RecallPoint:
            curve.append(probe.measure(index, recipe))
            advance(1, f"recall@{k} {curve[-1].recall:.4f}")
            return curve[-1]

        began = time.perf_counter()
        index = index_of(start, embeddings)
        build_seconds = time.perf_counter() - began
        settled = measured(index, index.recipe if isinstance(index, _Approximate) else start)
        if isinstance(index, _Approximate):
            settled = _climb(index, settled, probe, target, measured)
            if settled.recall < target and start.vectors == "int8":
                fallback = f"int8 vectors reach recall@{k} {settled.recall:.4f} at best, below {target}; float32 vectors are used. "
                again = dataclasses.replace(
                    index.recipe, vectors="float32", leaves_to_search=curve[0].leaves_to_search, reorder=start.reorder
                )
                index.use(again, embeddings)
                settled = _climb(index, measured(index, again), probe, target, measured)
            if settled.recall >= target:
                chosen = curve.index(settled)
                _descend(index, embeddings, measured)
                curve = probe.timed_together(index, curve)
                settled = curve[chosen]
            else:
                fallback += f"{_searched(index.recipe)} reaches recall@{k} {settled.recall:.4f}, below {target}; exact search is used."
                index = ExactIndex(embeddings)
                settled = measured(index, Recipe("exact"))
    report = IndexReport(
        recipe=index.recipe if isinstance(index, _Approximate) else Recipe("exact"),
        items=index.items,
        dim=index.dim,
        heads=queries.shape[1],
        queries=len(queries),
        k=k,
        target=target,
        recall=settled.recall,
        latency_ms=settled.latency_ms,
        memory_mb=settled.memory_mb,
        curve=tuple(curve),
        reason=reason_for(len(embeddings), server) if recipe is None else f"The recipe of kind {recipe.kind!r} was given.",
        fallback=fallback.strip(),
        build_seconds=build_seconds,
    )
    return index, report


def _climb(index: _Approximate, best: RecallPoint, probe: _Probe, target: float, measured: Any) -> RecallPoint:
    """Raises leaves or reordering, whichever gains more, until the target is met or both are at their largest; `index` keeps it."""
    portable = isinstance(index, PortableIndex)
    largest_reorder = 0 if portable else min(index.items, _LARGEST_REORDER * probe.k)
    most_leaves = math.ceil(_LARGEST_IVF_SHARE * index.recipe.leaves) if portable else index.recipe.leaves
    while best.recall < target:
        now, options = index.recipe, []
        if now.leaves_to_search < most_leaves:
            more_leaves = min(most_leaves, math.ceil(_GROWTH * now.leaves_to_search))
            options.append(dataclasses.replace(now, leaves_to_search=more_leaves))
        if now.reorder < largest_reorder:
            options.append(dataclasses.replace(now, reorder=min(largest_reorder, math.ceil(_GROWTH * now.reorder))))
        points = []
        for option in options:
            index.use(option, probe.embeddings)
            points.append(measured(index, option))
        if not points:
            break
        # Not by latency where recall is equal: the same vectors are to give the same index.
        best = max(points, key=lambda point: (point.recall, -point.leaves_to_search))
        index.use(options[points.index(best)], probe.embeddings)
    return best


def _descend(index: _Approximate, embeddings: np.ndarray, measured: Any) -> None:
    """Measures shares of the chosen leaves; `index` keeps the chosen ones."""
    chosen = index.recipe
    for leaves in sorted({math.ceil(share * chosen.leaves_to_search) for share in _BELOW} - {0, chosen.leaves_to_search}):
        fewer = dataclasses.replace(chosen, leaves_to_search=leaves)
        index.use(fewer, embeddings)
        measured(index, fewer)
    index.use(chosen, embeddings)


def _searched(recipe: Recipe) -> str:
    if recipe.kind == "ivf":
        return f"Searching {recipe.leaves_to_search} of {recipe.leaves} partitions"
    return f"Searching {recipe.leaves_to_search} leaves and reordering {recipe.reorder}"


def _checked_queries(queries: np.ndarray, dim: int) -> np.ndarray:
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 3 or 0 in queries.shape or queries.shape[2] != dim:
        raise DataError(f"Queries must have shape [queries, heads, {dim}], not empty. Received shape {list(queries.shape)}.")
    row = first_unusable(queries.reshape(len(queries), -1))
    if row is not None:
        raise DataError(f"Query {row} {what_is_wrong(queries[row])}; recall cannot be measured with it. Check the query tower.")
    return queries
