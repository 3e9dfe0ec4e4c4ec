"""A picture of several systems' reports: recall by stage and by how frequent the query is."""

import os
from typing import Any

import numpy as np

from tfebr.errors import ConfigError
from tfebr.evaluation.report import BANDS, Report
from tfebr.infrastructure.files import atomic_file

STAGES = {"ordered": "items ordered", "clicked": "items clicked"}
_COLOURS = ("#7a3b8f", "#1b6ca8", "#2f9e77", "#e08e45", "#c2436b", "#7fb4d8", "#8c6d31", "#4d4d4d")
_BASELINE = "#b3b3b3"


def draw_comparison(reports: dict[str, Report], path: str | os.PathLike, title: str, k: int = 100) -> None:
    """Draws recall@k of ordered and of clicked items, of all queries and by frequency band, with 95 % intervals, into a PNG.

    Args:
        reports: by system, in the order of the legend; of the same held-out requests. "bm25" is drawn in grey.
        path: the file; it is replaced whole, or stays as it was.
        title: one line.
        k: depth of recall, one that the reports have.

    Raises:
        ConfigError: there is no report, or one of them lacks a metric that is drawn, as those of judged sets do.
    """
    metrics = [f"{stage}_recall@{k}" for stage in STAGES]
    if not reports:
        raise ConfigError("there is no report to draw.")
    for system, report in reports.items():
        missing = [metric for metric in metrics if metric not in report.metrics]
        if missing or report.bands is None:
            raise ConfigError(
                f"the report of {system!r} has no {missing[0] if missing else 'bands'}: only reports on held-out requests do."
            )
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot, which would change the backend of whoever draws on a screen in the same process.
    figure = Figure(figsize=(max(9.0, 3.4 + 1.5 * len(reports)), 5.4), dpi=150)
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(STAGES), 1)
    for axes, metric, what in zip(rows, metrics, STAGES.values(), strict=True):
        _draw_bars(axes, reports, metric)
        axes.set_ylabel(f"recall@{k}\nof {what}", fontsize=9)
    figure.legend(
        *rows[0].get_legend_handles_labels(),
        ncols=len(reports),
        fontsize=9,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.935),
        handlelength=1.2,
    )
    figure.suptitle(title, fontsize=11, y=0.985)
    figure.subplots_adjust(left=0.085, right=0.985, top=0.86, bottom=0.09, hspace=0.36)
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png")


def _draw_bars(axes: Any, reports: dict[str, Report], metric: str) -> None:
    groups = ("", *(f"/{band}" for band in BANDS))
    width = 0.84 / len(reports)
    colours = iter(_COLOURS * len(reports))
    for at, (system, report) in enumerate(reports.items()):
        bars = np.array([_interval(report.values(metric + group)) for group in groups])
        mean, low, high = bars.T
        places = np.arange(len(groups)) + width * (at - (len(reports) - 1) / 2)
        colour = _BASELINE if system == "bm25" else next(colours)
        axes.bar(places, mean, 0.92 * width, color=colour, label=system)
        axes.errorbar(places, mean, [mean - low, high - mean], fmt="none", ecolor="#222222", elinewidth=0.9, capsize=2.2)
        for place, value, top in zip(places, mean, high, strict=True):
            if not np.isnan(value):
                axes.text(place, top + 0.015, f"{value:.2f}", ha="center", va="bottom", fontsize=7, color="#333333")
    defined = [int((~np.isnan(next(iter(reports.values())).values(metric + group))).sum()) for group in groups]
    names = ("all queries", *(f"{band} queries" for band in BANDS))
    axes.set_xticks(range(len(groups)), [f"{name}\n{count:,} requests" for name, count in zip(names, defined, strict=True)], fontsize=8.5)
    axes.set_xlim(-0.55, len(groups) - 0.45)
    axes.set_ylim(0, 1.09)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.tick_params(axis="y", labelsize=8)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    # What all queries have is the sum of what follows.
    axes.axvline(0.5, color="#aaaaaa", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.spines[["top", "right"]].set_visible(False)


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of a metric over requests and the ends of its 95 % normal interval within 0 and 1; none of a single value, NaN without any."""
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan, np.nan
    mean = values.mean()
    reach = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return mean, max(mean - reach, 0.0), min(mean + reach, 1.0)
