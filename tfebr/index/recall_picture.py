"""The picture of an index report: what recall and latency a query gets from how many leaves."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfebr.index.index_report import IndexReport
from tfebr.infrastructure.files import atomic_file

_LINE, _CHOSEN, _REFERENCE = "#1f6f8b", "#d1495b", "#6b7280"


def draw_report(report: IndexReport | Mapping[str, Any], path: str | os.PathLike) -> Path:
    """Draws recall against leaves searched and, beside it, latency; the chosen setting is marked in both.

    For an index without leaves, hashing, candidates that are reordered take their place. Exact search is a line across both panels.

    Args:
        report: of `build`, or its `as_dict()` as a manifest holds it.
        path: the file; its suffix, .png, .svg or .pdf, says the format. Written atomically.
    """
    # Only who draws waits for it to load.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    values = report.as_dict() if isinstance(report, IndexReport) else report
    points, knob, label = _measured(values)
    figure = Figure(figsize=(10, 4.2), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axes, field in ((left, "recall"), (right, "latency_ms")):
        _mark_chosen(axes, values, knob, field)
        axes.set_xlabel(label)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if points:
            settings = [point[knob] for point in points]
            axes.plot(settings, [point[field] for point in points], "o-", color=_LINE, markersize=5, zorder=2, clip_on=False)
            _spread(axes, settings)
        else:
            axes.set_xticks([])
    left.axhline(values["target"], color=_REFERENCE, linestyle="--", linewidth=1.2)
    # On the side of the line where the curve does not begin.
    above = bool(points) and points[0]["recall"] < values["target"]
    place, offset, align = (0.01, values["target"]), (0, 4 if above else -4), "bottom" if above else "top"
    _say(left, f"target {values['target']:g}", place, offset, left.get_yaxis_transform(), color=_REFERENCE, ha="left", va=align)
    lowest = min([point["recall"] for point in points] + [values["target"], values["recall"]])
    left.set_ylim(lowest - 0.12 * max(1 - lowest, 0.02), 1 + 0.08 * max(1 - lowest, 0.02))
    left.set_ylabel(f"recall@{values['k']} against exact search")
    right.set_ylim(0, 1.25 * max([point["latency_ms"] for point in points] + [values["latency_ms"]]))
    right.set_ylabel("median time of one query, ms")
    figure.suptitle(_title(values), fontsize=11)
    with atomic_file(path) as partial:
        figure.savefig(partial, format=Path(path).suffix[1:] or "png", dpi=150)
    return Path(path)


def _measured(values: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], str, str]:
    """The points that differ from the chosen setting in one thing only, in ascending order of it; that field; its name."""
    exact = values["recipe"]["kind"] == "exact"
    # What gave way to exact search was measured before it.
    curve = list(values["curve"])[: -1 if exact else None]
    chosen = (curve or [None])[-1] if exact else values["recipe"]
    if chosen is None:
        return [], "leaves_to_search", "every item is scored"
    knob, other, label = "leaves_to_search", "reorder", "leaves searched for a query"
    if not any(point["leaves_to_search"] for point in curve):
        knob, other, label = other, knob, "candidates reordered for a query"
    total = values["recipe"].get("leaves")
    if total and knob == "leaves_to_search":
        label += f", of {total:,}"
    same = [p for p in curve if p["vectors"] == chosen["vectors"] and p[other] == chosen.get(other, p[other])]
    return sorted({point[knob]: point for point in same}.values(), key=lambda point: point[knob]), knob, label


def _mark_chosen(axes: Any, values: Mapping[str, Any], knob: str, field: str) -> None:
    text = f"{values[field]:.4f}" if field == "recall" else f"{values[field]:.2f} ms"
    if values["recipe"]["kind"] == "exact":
        axes.axhline(values[field], color=_CHOSEN, linewidth=1.6)
        place, offset, coordinates = (0.99, values[field]), (0, 5), axes.get_yaxis_transform()
        text = f"exact search: {text}"
    else:
        place, offset, coordinates = (values["recipe"][knob], values[field]), (0, 9), "data"
        axes.plot(*place, "o", color=_CHOSEN, markersize=9, zorder=3, clip_on=False)
        text = f"chosen: {text}"
    _say(axes, text, place, offset, coordinates, color=_CHOSEN, ha="right", va="bottom", fontweight="bold")


def _say(axes: Any, text: str, place: tuple[float, float], offset: tuple[int, int], coordinates: Any, **style: Any) -> None:
    """Text over whatever lies there, beside a place, without a say in the layout."""
    behind = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
    axes.annotate(text, place, offset, coordinates, "offset points", bbox=behind, zorder=4, **style).set_in_layout(False)


def _spread(axes: Any, ticks: list[int]) -> None:
    """A logarithmic axis, because settings are multiples of each other, with a tick at as many of them as have room."""
    axes.set_xscale("log")
    kept: list[int] = []
    for tick in reversed(ticks):
        if not kept or kept[-1] / tick > 1.3:
            kept.append(tick)
    axes.set_xticks(kept, [f"{tick:,}" for tick in kept])
    axes.set_xticks([], minor=True)
    axes.set_xlim(0.8 * ticks[0], 1.15 * ticks[-1])


def _title(values: Mapping[str, Any]) -> str:
    recipe = values["recipe"]
    kind = {"exact": "exact search", "hash": "ScaNN hashing", "tree": "ScaNN tree", "ivf": "portable IVF"}[recipe["kind"]]
    heads = f", {values['heads']} heads a query" if values["heads"] > 1 else ""
    storage = f", {recipe['vectors']} vectors" if "vectors" in recipe else ""
    return (
        f"{kind}{storage}: {values['items']:,} items of width {values['dim']}{heads}, {values['memory_mb']:,.0f} MB; "
        f"measured on {values['queries']:,} queries"
    )
