"""MMSE's objectives and fusions, from clicks alone to every stage of the log, beside DPSR and MGDSPR in three simulated shops."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import about_shop, shop_config, spread
from benchmarks.trainings import Journal, Training, train_all

WITHOUT_RANKING = {"ranking_weight": 0.0, "form": "hinge"}
HINGE = {"form": "hinge", "ranking_weight": 3.0}
CLICKS = WITHOUT_RANKING | {"click_only": True, "unclicked": 0}
# MMSE itself is a reconstruction from its abstract; so are all of these.
SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "DPSR": ("dpsr", {}),
    "MGDSPR": ("mgdspr", {}),
    "clicks alone": ("mmse", CLICKS),
    "+ orders": ("mmse", WITHOUT_RANKING | {"unclicked": 0}),
    "+ orders, unclicked as negatives": ("mmse", WITHOUT_RANKING | {"unclicked_as": "negatives"}),
    "+ orders, ranking without unclicked": ("mmse", {"unclicked": 0}),
    "MMSE (all stages, A + B)": ("mmse", {}),
    "MMSE, fusion A": ("mmse", {"fusion": "late"}),
    "MMSE, fusion A + C": ("mmse", {"fusion": "score"}),
    "MMSE, hinge": ("mmse", HINGE),
    "MMSE, hinge, adaptive": ("mmse", HINGE | {"adaptive": 0.5, "margins": (0.01,)}),
    "MMSE, unclicked above last click + 2": ("mmse", {"near": 2}),
    "graded InfoNCE": ("mmse", {"objective": "graded", "lowest_positive": 1}),
}
FULL, GRADED = "MMSE (all stages, A + B)", "graded InfoNCE"
RANKED = tuple(name for name in SYSTEMS if name.startswith("MMSE") or name == GRADED)
QUICK: dict[str, Any] = {"dim": 32, "training": {"epochs": 1}}
SEEDS = (0, 1, 2)
RECALL, TOP, CLICKED, GOOD = "ordered_recall@100", "ordered_recall@10", "clicked_recall@100", "p_good@100"
ORDER, CLICK = "order_over_click", "click_over_unclicked"
METRICS = (RECALL, TOP, CLICKED, GOOD, "p_good@10", ORDER, CLICK, f"{RECALL}/head", f"{RECALL}/torso", f"{RECALL}/tail")
LABELS = {
    RECALL: "recall@100\nof ordered",
    TOP: "recall@10\nof ordered",
    CLICKED: "recall@100\nof clicked",
    GOOD: "P_good@100",
    ORDER: "P(order > click)\nwithin a request",
    CLICK: "P(click > unclicked)\nwithin a request",
}


def run(quick: bool, resume: Path | None = None) -> dict[str, Any]:
    """Trains what the folder `resume` does not hold yet, every system in every shop, and compares them, paired by request."""
    seeds = SEEDS[:1] if quick else SEEDS
    shops = [dataclasses.replace(shop_config(quick), seed=seed) for seed in seeds]
    rows = {
        name: [Training(shop, name, model, settings | (QUICK if quick else {})) for shop in shops]
        for name, (model, settings) in SYSTEMS.items()
    }
    journal = Journal.of("stages", resume)
    seconds = train_all([t for trainings in rows.values() for t in trainings], journal, METRICS, (RECALL, CLICKED, ORDER, CLICK))
    best = max(("DPSR", "MGDSPR"), key=lambda name: journal.mean(rows[name], RECALL))
    pairs = [(FULL, "clicks alone"), (GRADED, "clicks alone"), (GRADED, FULL), (FULL, "DPSR"), (FULL, "MGDSPR"), (GRADED, "MGDSPR")]
    pairs += [(name, FULL) for name in SYSTEMS if name not in (FULL, GRADED, "clicks alone", "DPSR", "MGDSPR")]
    results = {
        "config": {
            "shop": about_shop(quick),
            "simulator_seeds": seeds,
            "training_seed": 0,
            "systems": {name: {"model": model, "settings": settings} for name, (model, settings) in SYSTEMS.items()},
        },
        "trainings": len(seconds),
        "training_seconds": spread(seconds, 1),
        "systems": {
            name: {
                "by_seed": {metric: [journal.mean([t], metric) for t in trainings] for metric in METRICS},
                **{metric: journal.interval(trainings, metric) for metric in METRICS},
            }
            for name, trainings in rows.items()
        },
        "best_of_dpsr_and_mgdspr": best,
        "relative_gain_over_best": {
            name: {metric: round(journal.mean(rows[name], metric) / journal.mean(rows[best], metric) - 1, 4) for metric in (RECALL, TOP)}
            for name in (FULL, GRADED)
        },
        "paired_tests": {
            f"{a} - {b}": {metric: journal.compared(rows[a], rows[b], metric) for metric in (RECALL, TOP, CLICKED, GOOD, ORDER, CLICK)}
            for a, b in pairs
        },
    }
    print(text_table(results), flush=True)
    return results


def text_table(results: dict[str, Any]) -> str:
    """Means of each system, then the differences that the claims are about."""
    width = max(map(len, SYSTEMS)) + 2
    lines = [f"{'':<{width}}" + "".join(f"{metric:>22}" for metric in LABELS)]
    for name, found in results["systems"].items():
        lines.append(f"{name:<{width}}" + "".join(f"{found[metric]['mean']:>22.3f}" for metric in LABELS))
    lines.append("")
    for pair, tests in results["paired_tests"].items():
        for metric in (RECALL, ORDER, CLICK):
            test = tests[metric]
            low, high = test["interval_95"]
            lines.append(f"{pair}, {metric}: {test['difference']:+.4f} [{low:+.4f}, {high:+.4f}], p = {test['p']:.4f}")
    return "\n".join(lines)


def draw(results: dict[str, Any], path: Path) -> None:
    """One panel for each metric: every system's mean with its 95 % interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(results["systems"])
    places = np.arange(len(names))[::-1]
    figure, panels = plt.subplots(1, len(LABELS), figsize=(13, 4.4), dpi=150, sharey=True)
    for axes, (metric, label) in zip(panels, LABELS.items(), strict=True):
        found = [results["systems"][name][metric] for name in names]
        means, (low, high) = np.array([f["mean"] for f in found]), np.array([f["interval_95"] for f in found]).T
        for place, name, mean, least, most in zip(places, names, means, low, high, strict=True):
            colour = "#8a8a8a" if name in ("DPSR", "MGDSPR") else "#7a3b8f" if name in RANKED else "#1b6ca8"
            axes.errorbar(mean, place, xerr=[[mean - least], [most - mean]], fmt="o", color=colour, markersize=4, capsize=2, lw=1.2)
            axes.annotate(f"{mean:.3f}", (mean, place), (0, 5), textcoords="offset points", ha="center", fontsize=6.5, color=colour)
        axes.set_title(label, fontsize=8.5)
        axes.tick_params(axis="x", labelsize=7)
        axes.margins(x=0.18, y=0.06)
        axes.grid(axis="y", color="#eeeeee", lw=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(places, names, fontsize=8)
    seeds = len(results["config"]["simulator_seeds"])
    figure.suptitle(
        f"MMSE (reconstructed) in the simulated shop ({results['config']['shop']['items']:,} items), {seeds} seeds pooled, 95 % intervals "
        "over requests. Grey: the other models; blue: no ranking among unclicked items; purple: every stage",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
