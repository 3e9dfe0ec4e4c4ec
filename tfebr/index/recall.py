"""Building an index and measuring, on held-out queries, how much of the exact result it finds."""

import dataclasses
import math
import time
from typing import Any

import numpy as np
import tensorflow as tf

from tfebr.errors import ConfigError, DataError
from tfebr.index.base import Index, checked_embeddings
from tfebr.index.exact import ExactIndex
from tfebr.index.recipe import Recipe, recipe_for
from tfebr.index.scann import ScannIndex
from tfebr.progress import progress

_BATCH = 128
_TIMED_QUERIES = 50
# More candidates than this many times k cost about what exact search costs.
_LARGEST_REORDER = 50
_GROWTH = 1.5


@dataclasses.dataclass(frozen=True)
class RecallPoint:
    """One measured setting: recall@k on the held-out queries and the median time of a single query in milliseconds."""

    leaves_to_search: int
    reorder: int
    vectors: str
    recall: float
    latency_ms: float


@dataclasses.dataclass(frozen=True)
class IndexReport:
    """What was built and how good it is.

    Attributes:
        recipe: with the leaves and reordering that were settled on.
        items, dim, heads, queries: sizes, of the catalogue and of the held-out queries.
        k, target: recall@k that was asked for.
        recall, latency_ms: of the index as returned; latency is the median of single queries.
        curve: every setting that was measured, in order.
        fallback: why the index is another one than the recipe's; "" when it is not.
        build_seconds: training of the index, without measuring.
    """

    recipe: Recipe
    items: int
    dim: int
    heads: int
    queries: int
    k: int
    target: float
    recall: float
    latency_ms: float
    curve: tuple[RecallPoint, ...]
    fallback: str
    build_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        return dataclasses.asdict(self)


class _Probe:
    """Held-out queries with the score of each one's k-th best item."""

    def __init__(self, item_embeddings: np.ndarray, queries: np.ndarray, k: int):
        self.embeddings, self.queries, self.k = item_embeddings, queries, min(k, len(item_embeddings))
        exact = tf.function(ExactIndex(item_embeddings).search)
        parts = [exact(tf.constant(queries[i : i + _BATCH]), tf.constant(self.k))[0][:, -1].numpy() for i in range(0, len(queries), _BATCH)]
        lowest = np.concatenate(parts)
        self.enough = lowest - 1e-5 * np.abs(lowest) - 1e-7

    def recall(self, index: Index) -> float:
        """Share of the k results that are as good as the exact k-th: items with equal scores are equally right."""
        search = tf.function(index.search)
        hits = 0
        for i in range(0, len(self.queries), _BATCH):
            queries = self.queries[i : i + _BATCH]
            rows = search(tf.constant(queries), tf.constant(self.k))[1].numpy()
            scores = np.einsum("bhd,bkd->bhk", queries, self.embeddings[np.maximum(rows, 0)], optimize=True).max(axis=1)
            hits += int(((rows >= 0) & (scores >= self.enough[i : i + _BATCH, None])).sum())
        return hits / (len(self.queries) * self.k)

    def latency_ms(self, index: Index) -> float:
        search = tf.function(index.search)
        singles = [tf.constant(self.queries[i : i + 1]) for i in range(min(len(self.queries), _TIMED_QUERIES))]
        k, times = tf.constant(self.k), []
        search(singles[0], k)
        for query in singles:
            start = time.perf_counter()
            search(query, k)
            times.append(time.perf_counter() - start)
        return 1000 * float(np.median(times))

    def measure(self, index: Index, recipe: Recipe) -> RecallPoint:
        return RecallPoint(recipe.leaves_to_search, recipe.reorder, recipe.vectors, self.recall(index), self.latency_ms(index))


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
        return _Probe(checked_embeddings(exact), queries, k).recall(index)
    k = min(k, index.items)
    if exact.ndim != 2 or len(exact) != len(queries) or exact.shape[1] < k:
        raise DataError(f"`exact` must have shape [{len(queries)}, at least {k}]. Received {list(exact.shape)}.")
    search, found = tf.function(index.search), 0
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
) -> tuple[Index, IndexReport]:
    """Builds an index whose measured recall@k is at least `target`.

    The leaves to search and the candidates to reorder are raised until the target is met. When even the largest do not meet it,
    int8 vectors give way to float32 ones, and at last the index to an exact one; the report's `fallback` then says so.

    Args:
        item_embeddings: [items, dim] float32.
        heldout_queries: [queries, heads, dim] float32; some hundreds of queries like those to come. All of them are searched.
        k: depth at which recall is measured.
        target: recall@k in (0, 1].
        recipe: where to start; `recipe_for` the number of items when not given.
        quiet: no progress display.

    Raises:
        ConfigError: the target is not a share, or the recipe does not fit the number of items.
        DataError: embeddings or queries have another shape or are not finite.
    """
    if not 0 < target <= 1:
        raise ConfigError(f"`target` should be a recall in (0, 1]. Received: target = {target!r}.")
    embeddings = checked_embeddings(item_embeddings)
    queries = _checked_queries(heldout_queries, embeddings.shape[1])
    start_recipe = recipe or recipe_for(len(embeddings), k)
    start_recipe.check_items(len(embeddings))
    probe = _Probe(embeddings, queries, k)
    curve: list[RecallPoint] = []
    fallback = ""
    with progress("index", None, "settings", quiet) as advance:

        def measured(index: Index, recipe: Recipe) -> RecallPoint:
            curve.append(probe.measure(index, recipe))
            advance(1, f"recall@{k} {curve[-1].recall:.4f}")
            return curve[-1]

        began = time.perf_counter()
        index: Index = ExactIndex(embeddings) if start_recipe.kind == "exact" else ScannIndex(embeddings, start_recipe)
        build_seconds = time.perf_counter() - began
        settled = measured(index, start_recipe)
        if isinstance(index, ScannIndex):
            settled = _climb(index, settled, probe, target, measured)
            if settled.recall < target and start_recipe.vectors == "int8":
                fallback = f"int8 vectors reach recall@{k} {settled.recall:.4f} at best, below {target}; float32 vectors are used. "
                index.use(dataclasses.replace(start_recipe, vectors="float32"), embeddings)
                settled = _climb(index, measured(index, index.recipe), probe, target, measured)
        if settled.recall < target and not index.is_exact:
            fallback += (
                f"Searching {settled.leaves_to_search} leaves and reordering {settled.reorder} reaches recall@{k} {settled.recall:.4f}, "
                f"below {target}; exact search is used."
            )
            index = ExactIndex(embeddings)
            settled = measured(index, Recipe("exact"))
    final = index.recipe if isinstance(index, ScannIndex) else Recipe("exact")
    report = IndexReport(
        recipe=final,
        items=index.items,
        dim=index.dim,
        heads=queries.shape[1],
        queries=len(queries),
        k=k,
        target=target,
        recall=settled.recall,
        latency_ms=settled.latency_ms,
        curve=tuple(curve),
        fallback=fallback.strip(),
        build_seconds=build_seconds,
    )
    return index, report


def _climb(index: ScannIndex, best: RecallPoint, probe: _Probe, target: float, measured: Any) -> RecallPoint:
    """Raises leaves or reordering, whichever gains more, until the target is met or both are at their largest; `index` keeps it."""
    largest_reorder = min(index.items, _LARGEST_REORDER * probe.k)
    while best.recall < target:
        now, options = index.recipe, []
        if now.leaves_to_search < now.leaves:
            more_leaves = min(now.leaves, math.ceil(_GROWTH * now.leaves_to_search))
            options.append(dataclasses.replace(now, leaves_to_search=more_leaves))
        if now.reorder < largest_reorder:
            options.append(dataclasses.replace(now, reorder=min(largest_reorder, math.ceil(_GROWTH * now.reorder))))
        points = []
        for option in options:
            index.use(option, probe.embeddings)
            points.append(measured(index, option))
        if not points:
            break
        best = max(points, key=lambda point: (point.recall, -point.latency_ms))
        index.use(options[points.index(best)], probe.embeddings)
    return best


def _checked_queries(queries: np.ndarray, dim: int) -> np.ndarray:
    queries = np.ascontiguousarray(queries, np.float32)
    if queries.ndim != 3 or 0 in queries.shape or queries.shape[2] != dim:
        raise DataError(f"Queries must have shape [queries, heads, {dim}], not empty. Received shape {list(queries.shape)}.")
    bad = ~np.isfinite(queries).all(axis=(1, 2))
    if bad.any():
        raise DataError(f"Query {int(np.argmax(bad))} holds NaN or infinity; recall cannot be measured with it. Check the query tower.")
    return queries
