"""What was measured of an index: every setting that was tried, and the one that was settled on."""

import dataclasses
from typing import Any

from tfebr.index.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class RecallPoint:
    """One measured setting: recall@k on the held-out queries, the median time of a single query in milliseconds, and the index's size.

    `memory_mb` are MiB of variables and asset files.
    """

    leaves_to_search: int
    reorder: int
    vectors: str
    recall: float
    latency_ms: float
    memory_mb: float


@dataclasses.dataclass(frozen=True)
class IndexReport:
    """What was built and how good it is.

    Attributes:
        recipe: with the leaves and reordering that were settled on.
        items, dim, heads, queries: sizes, of the catalogue and of the held-out queries.
        k, target: recall@k that was asked for.
        recall, latency_ms, memory_mb: of the index as returned; see `RecallPoint`.
        curve: every setting that was measured, in order.
        reason: why the recipe to start from was of its kind, in one sentence.
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
    memory_mb: float
    curve: tuple[RecallPoint, ...]
    reason: str
    fallback: str
    build_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON; of the recipe, the fields that mean something for its kind."""
        return dataclasses.asdict(self) | {"recipe": self.recipe.as_dict()}
