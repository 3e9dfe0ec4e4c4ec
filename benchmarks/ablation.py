"""MGDSPR's parts, alone and together, in three simulated shops beside its paper's ablation; sweeps of tau, (a, b) and N."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import about_shop, shop_config, spread
from benchmarks.trainings import Journal, Training, train_all
from tfebr.models.config import from_dict
from tfebr.models.mgdspr import MGDSPRConfig

# What all rows share beside the model's defaults, such as {"training": {"epochs": 3}}.
CHANGES: dict[str, Any] = {}
QUICK: dict[str, Any] = {"dim": 32, "heads": 2, "column_dim": 4, "training": {"epochs": 1}}

BASE = {"mgs": False, "trm": False, "temperature": 1.0, "mix": None}
MGS, TRM = {"mgs": True}, {"trm": True}
TAU, MIX = {"temperature": MGDSPRConfig().temperature}, {"mix": MGDSPRConfig().mix}
ROWS: dict[str, dict[str, Any]] = {
    "base": BASE,
    "+ mgs": BASE | MGS,
    "+ trm": BASE | TRM,
    "+ tau": BASE | TAU,
    "+ mgs + trm + tau": BASE | MGS | TRM | TAU,
    "+ I_mix": BASE | MIX,
    "all": BASE | MGS | TRM | TAU | MIX,
}
SEEDS = (0, 1, 2)
# The same without what the model adds to the paper's: how much of a part's effect the additions leave.
PUBLISHED = {"gated": False, "item_columns": False}
PUBLISHED_ROWS = ("base", "+ tau", "+ I_mix")

# Around "all". mix None is the row "+ mgs + trm + tau", and is not trained again either.
SWEEPS: dict[str, tuple[Any, ...]] = {
    "temperature": (0.5, 1.0, 2.0, 4.0, 8.0),
    "mix": (None, (0.0, 0.2), (0.4, 0.6), (0.6, 0.8)),
    "hard": (171, 684, 1023),
}
# Some of SEEDS.
SWEEP_SEEDS = (0,)

RECALL, GOOD = "ordered_recall@100", "p_good@100"
METRICS = (RECALL, "clicked_recall@100", GOOD, "popularity@100")
# Recall@1000 of clicked or bought items, and P_good, in percent: MGDSPR (arXiv 2106.09297), ablation table.
PAPER = {
    "base": (85.6, 71.2),
    "+ mgs": (86.0, 71.6),
    "+ trm": (86.4, 71.4),
    "+ tau": (85.5, 79.0),
    "+ mgs + trm + tau": (86.8, 79.2),
    "+ I_mix": (83.6, 75.6),
    "all": (84.7, 80.0),
}
PAPER_COLUMN = {RECALL: 0, "clicked_recall@100": 0, GOOD: 1}

OURS = "#1b6ca8"
AGREEMENT = {"same": ("same", "#2e7d32"), "opposite": ("opposite", "#b3261e"), "not significant": ("n. s.", "#777777")}


def run(quick: bool, resume: Path | None = None) -> dict[str, Any]:
    """Trains what the folder `resume` does not hold yet: every row in every shop, then the sweeps; then compares, paired by request."""
    seeds, sweep_seeds = ((0,), (0,)) if quick else (SEEDS, SWEEP_SEEDS)
    rows = {name: [_training(seed, name, settings, quick) for seed in seeds] for name, settings in ROWS.items()}
    sweeps = {field: _sweep(field, sweep_seeds, quick) for field in SWEEPS}
    published = {
        name: [_training(seed, f"{name}, as published", ROWS[name] | PUBLISHED, quick) for seed in sweep_seeds] for name in PUBLISHED_ROWS
    }
    plan = [training for group in (rows, *sweeps.values(), published) for found in group.values() for training in found]
    journal = Journal.of("ablation", resume)
    seconds = train_all(plan, journal, METRICS, (RECALL, GOOD))
    changes = _changes(quick)
    results = {
        "config": {
            "shop": about_shop(quick),
            "simulator_seeds": seeds,
            "sweep_seeds": sweep_seeds,
            "training_seed": from_dict(MGDSPRConfig, changes).training.seed,
            "changes": changes,
            "rows": ROWS,
            "paper": {"metrics": ["Recall@1000", "P_good"], "percent": PAPER},
        },
        "trainings": len(seconds),
        "training_seconds": spread(seconds, 1),
        "rows": {name: _row(name, rows, journal) for name in rows},
        "rows_without_additions": {name: _row(name, published, journal) for name in published},
        "sweeps": {field: _points(sweep, rows["all"], journal) for field, sweep in sweeps.items()},
    }
    print(text_table(results), flush=True)
    return results


def _changes(quick: bool) -> dict[str, Any]:
    return CHANGES | QUICK if quick else CHANGES


def _training(seed: int, name: str, settings: dict[str, Any], quick: bool) -> Training:
    return Training(dataclasses.replace(shop_config(quick), seed=seed), name, "mgdspr", _changes(quick) | settings)


def _sweep(field: str, seeds: Sequence[int], quick: bool) -> dict[Any, list[Training]]:
    """By value, in ascending order, only the ends when `quick`; where "all" has a value that is not listed, that too."""
    own = getattr(from_dict(MGDSPRConfig, _changes(quick) | ROWS["all"]), field)
    values = sorted({*(SWEEPS[field][:: 4 if quick else 1]), own}, key=lambda value: (value is not None, value))
    return {v: [_training(seed, f"all, {field} {v}", ROWS["all"] | {field: v}, quick) for seed in seeds] for v in values}


def _row(name: str, rows: dict[str, list[Training]], journal: Journal) -> dict[str, Any]:
    found: dict[str, Any] = {
        "means_by_seed": [{metric: journal.mean([training], metric) for metric in METRICS} for training in rows[name]],
        "means": {metric: journal.mean(rows[name], metric) for metric in METRICS},
    }
    if name == "base":
        return found
    found["against_base"] = {}
    for metric in METRICS:
        test = journal.compared(rows[name], rows["base"], metric)
        if metric in PAPER_COLUMN:
            column = PAPER_COLUMN[metric]
            paper = (PAPER[name][column] - PAPER["base"][column]) / 100
            test |= {"paper_difference": round(paper, 4), "direction": direction(test["difference"], test["p"], paper)}
        found["against_base"][metric] = test
    return found


def direction(difference: float, p: float, paper: float) -> str:
    """Whether a difference that is significant at 5 % has the sign of the paper's."""
    if p >= 0.05:
        return "not significant"
    return "same" if (difference > 0) == (paper > 0) else "opposite"


def _points(sweep: dict[Any, list[Training]], whole: list[Training], journal: Journal) -> list[dict[str, Any]]:
    points = []
    for value, trainings in sweep.items():
        point: dict[str, Any] = {"value": value, "means": {metric: journal.mean(trainings, metric) for metric in METRICS}}
        same = [next(found for found in whole if found.shop == training.shop) for training in trainings]
        point["is_all"] = trainings[0].key == same[0].key
        if not point["is_all"]:
            point["against_all"] = {metric: journal.compared(trainings, same, metric) for metric in (RECALL, GOOD)}
        points.append(point)
    return points


def text_table(results: dict[str, Any]) -> str:
    """The rows beside the paper's, then the sweeps; all in percent and percentage points."""
    lines = []
    for metric, name in ((RECALL, "Recall@1000"), (GOOD, "P_good")):
        column = PAPER_COLUMN[metric]
        lines += ["", f"{metric:<24}{'ours':>6}  {'to base, 95 % interval':<23}{'p':>8} | {'paper':>5}  {'to base':>7}  {name}: direction"]
        rows = results["rows"] | {f"{row} (as published)": found for row, found in results["rows_without_additions"].items()}
        for label, found in rows.items():
            row = label.removesuffix(" (as published)")
            line, paper = f"{label:<24}{100 * found['means'][metric]:6.1f}  ", f" | {PAPER[row][column]:5.1f}"
            if row == "base":
                lines.append(f"{line:<63}{paper}")
                continue
            test = found["against_base"][metric]
            lines.append(f"{line}{_change(test):<23}{test['p']:8.4f}{paper}  {_signed(test['paper_difference']):>7}  {test['direction']}")
    lines += ["", f"{'around all':<24}{RECALL:>18}  {'to all, 95 % interval':<23}{GOOD:>11}  to all, 95 % interval"]
    for field, points in results["sweeps"].items():
        for point in points:
            line = f"{field + ' ' + _short(point['value']):<24}"
            for metric, width in ((RECALL, 18), (GOOD, 11)):
                change = "(all)" if point["is_all"] else _change(point["against_all"][metric])
                line += f"{100 * point['means'][metric]:{width}.1f}  {change:<23}"
            lines.append(line.rstrip())
    return "\n".join(lines)


def _change(test: dict[str, Any]) -> str:
    low, high = map(_signed, test["interval_95"])
    return f"{_signed(test['difference'])} [{low}, {high}]"


def _signed(share: float) -> str:
    """In percentage points; a difference that rounds to 0 has no minus."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def _short(value: Any) -> str:
    return "none" if value is None else "–".join(f"{v:g}" for v in value) if isinstance(value, list | tuple) else f"{value:g}"


def draw(results: dict[str, Any], path: Path) -> None:
    """Differences to base by row beside the paper's, for recall and for P_good, and the sweeps as differences to "all"."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11, 5.2), dpi=150)
    rows = figure.add_gridspec(1, 2, left=0.12, right=0.635, top=0.86, bottom=0.15, wspace=0.27)
    sweeps = figure.add_gridspec(3, 1, left=0.755, right=0.98, top=0.86, bottom=0.08, hspace=0.75)
    for at, (metric, title) in enumerate(((RECALL, "recall@100 of ordered items"), (GOOD, "P_good@100"))):
        _draw_rows(figure.add_subplot(rows[at]), results, metric, title, at == 0)
    names = {"temperature": "temperature τ", "mix": "share of the positive in the mix, (a, b)", "hard": "hard negatives mixed, N"}
    for at, (field, name) in enumerate(names.items()):
        _draw_sweep(figure.add_subplot(sweeps[at]), results["sweeps"][field], name, at == 0)
    seeds, sweep_seeds = (len(results["config"][key]) for key in ("simulator_seeds", "sweep_seeds"))
    figure.suptitle(
        f"MGDSPR's parts in the simulated shop ({results['config']['shop']['items']:,} items): {_seeds(seeds)}; sweeps: "
        f"{_seeds(sweep_seeds)}. 95 % intervals over requests",
        fontsize=10,
        y=0.97,
    )
    figure.savefig(path)
    plt.close(figure)


def _seeds(number: int) -> str:
    return f"{number} seed{'s pooled' if number > 1 else ''}"


def _draw_rows(axes: Any, results: dict[str, Any], metric: str, title: str, labelled: bool) -> None:
    tests = {name: row["against_base"][metric] for name, row in results["rows"].items() if name != "base"}
    places = np.arange(len(tests))
    ours, paper = (100 * np.array([test[key] for test in tests.values()]) for key in ("difference", "paper_difference"))
    low, high = 100 * np.array([test["interval_95"] for test in tests.values()]).T
    axes.barh(places - 0.19, ours, 0.36, xerr=[ours - low, high - ours], color=OURS, ecolor="#333333", capsize=2, label="ours")
    axes.barh(places + 0.19, paper, 0.36, color="#b8b8b8", label="paper (Taobao, @1000)")
    width = max(high.max(), paper.max(), 0) - min(low.min(), paper.min(), 0)
    axes.set_xlim(min(low.min(), paper.min(), 0) - 0.17 * width, max(high.max(), paper.max(), 0) + 0.17 * width)
    for place, test in zip(places, tests.values(), strict=True):
        ends = (test["interval_95"][test["difference"] >= 0], test["paper_difference"])
        for value, end, shift in zip((test["difference"], test["paper_difference"]), ends, (-0.19, 0.19), strict=True):
            right = value >= 0
            place_of_text = 100 * end + (0.015 if right else -0.015) * width
            axes.text(place_of_text, place + shift, _signed(value), ha="left" if right else "right", va="center", fontsize=7.5)
        text, colour = AGREEMENT[test["direction"]]
        axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=7.5, color=colour)
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.text(1.02, -0.62, "direction", transform=axes.get_yaxis_transform(), va="center", fontsize=7.5, style="italic")
    axes.set_yticks(places, list(tests) if labelled else [""] * len(tests), fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("percentage points to base", fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if labelled:
        axes.figure.legend(
            *axes.get_legend_handles_labels(), ncols=2, fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.33, 0)
        )


def _draw_sweep(axes: Any, points: list[dict[str, Any]], name: str, labelled: bool) -> None:
    zero = {"difference": 0.0, "interval_95": [0.0, 0.0]}
    for metric, colour, label, shift in ((RECALL, OURS, "recall", -0.06), (GOOD, "#e08e45", "P_good", 0.06)):
        tests = [zero if point["is_all"] else point["against_all"][metric] for point in points]
        difference = 100 * np.array([test["difference"] for test in tests])
        low, high = 100 * np.array([test["interval_95"] for test in tests]).T
        places = np.arange(len(points)) + shift
        axes.errorbar(
            places,
            difference,
            [difference - low, high - difference],
            color=colour,
            marker="o",
            markersize=3,
            capsize=2,
            lw=1.2,
            label=label,
        )
    axes.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    axes.set_xticks(range(len(points)), [_short(point["value"]) for point in points], fontsize=8)
    for point, label in zip(points, axes.get_xticklabels(), strict=True):
        label.set_fontweight("bold" if point["is_all"] else "normal")
    axes.tick_params(axis="y", labelsize=8)
    axes.margins(y=0.12)
    axes.set_ylabel('points to "all"', fontsize=7.5)
    axes.set_title(name, fontsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    if labelled:
        axes.legend(fontsize=7.5, frameon=False, handlelength=1.2, ncols=2)
