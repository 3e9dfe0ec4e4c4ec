"""A report: every metric of every request of one system, so that means can be shown and two systems be paired."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfebr.errors import ConfigError, DataError
from tfebr.evaluation.ranking import Ranking
from tfebr.infrastructure.checks import is_number, require

BANDS = ("head", "torso", "tail")


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """Metrics of one system on one set of requests.

    Attributes:
        ids: `[requests]` distinct request or query ids; two reports pair when these are equal.
        metrics: name -> float `[requests]`, NaN where the metric is not defined for the request (no order: no ordered recall).
        bands: `[requests]` frequency band of each request's query ("head", "torso", "tail"), or None where queries have no frequency.
    """

    ids: list[str]
    metrics: dict[str, np.ndarray]
    bands: list[str] | None = None

    def __post_init__(self) -> None:
        places_of(self.ids, "report: request id")
        for name, values in self.metrics.items():
            if len(values) != len(self.ids):
                raise DataError(f"report: metric {name!r} has {len(values)} values for {len(self.ids)} requests.")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def names(self) -> list[str]:
        """Every name that `values` knows: the metrics, and with bands each metric followed by "/head", "/torso" and "/tail"."""
        return [n + suffix for n in self.metrics for suffix in ("", *(f"/{b}" for b in BANDS if self.bands is not None))]

    def values(self, name: str) -> np.ndarray:
        """`[requests]` values of a metric such as "clicked_recall@100", or of one band, "clicked_recall@100/tail", NaN elsewhere."""
        metric, _, band = name.partition("/")
        if name not in self.names:
            raise ConfigError(f"no metric {name!r} in this report. It has: {', '.join(self.names)}.")
        if not band:
            return self.metrics[metric]
        return np.where(np.asarray(self.bands) == band, self.metrics[metric], np.nan)

    def means(self) -> dict[str, float]:
        """Mean of each of `names` over the requests where it is defined; NaN where it is nowhere defined."""
        means = {}
        for name in self.names:
            values = self.values(name)
            values = values[~np.isnan(values)]
            means[name] = float(values.mean()) if len(values) else float("nan")
        return means

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON: `requests`, `means` (null where nowhere defined) and `defined`, the number of requests behind each mean."""
        means = {name: None if np.isnan(mean) else mean for name, mean in self.means().items()}
        return {"requests": len(self), "means": means, "defined": {n: int((~np.isnan(self.values(n))).sum()) for n in self.names}}


def check_depth(ranking: Ranking, requests: int, k: tuple[int, ...]) -> None:
    """Raises unless the ranking has one row for each request and is deep enough for every k."""
    if len(ranking) != requests:
        raise DataError(f"the ranking has {len(ranking)} rows for {requests} requests; rank exactly these requests, in their order.")
    require(bool(k) and all(is_number(depth, "[1, inf)", whole=True) for depth in k), "k", "whole numbers of at least 1", k)
    if ranking.k < max(k):
        raise ConfigError(f"metrics at k = {max(k)} need a ranking of that depth. Received: depth {ranking.k}. Rank with a larger k.")


def places_of(ids: Sequence[str], what: str) -> dict[str, int]:
    """The place of each id; raises DataError, which begins with `what`, where one is given twice: it could be taken for another."""
    places = {word: i for i, word in enumerate(ids)}
    if len(places) < len(ids):
        repeated = next(word for i, word in enumerate(ids) if places[word] != i)
        raise DataError(f"{what}: {repeated!r} is given twice. Ids must be unique.")
    return places
