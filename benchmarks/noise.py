"""Noisy clicks: recall and P_good of MMSE with each remedy, in shops where 0, 10, 20 and 40 % of the clicks fall on irrelevant items."""

import collections
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.measure import shop_config, spread
from benchmarks.trainings import Journal, Training, train_all
from tfebr.data.log import shown_items
from tfebr.data.simulator import Oracle, SimulatorConfig, simulate
from tfebr.data.stage import Stage

LEVELS = (0.0, 0.1, 0.2, 0.4)
# Of MMSE, which is itself a reconstruction. What was chosen was chosen on a shop of another seed, 100.
METHODS: dict[str, dict[str, Any]] = {
    "none": {},
    "temperature": {"temperature": 0.1},
    "uniform smoothing": {"smoothing": {"uniform": 0.2}},
    "sampling smoothing": {"smoothing": {"sampling": 0.2}},
    "bootstrap, own scores": {"smoothing": {"bootstrap": 0.3}},
    "bootstrap, running average": {"smoothing": {"bootstrap": 0.3}, "teacher_decay": 0.99},
    "position-debiased clicks": {"debias": True},
    # Not smoothing: the other stages of the log.
    "graded, shown above random": {"objective": "graded", "lowest_positive": 1},
    "graded, clicks weigh a tenth": {"objective": "graded", "lowest_positive": 1, "weights": (0.1, 1.0, 1.0)},
}
REQUESTS = 50_000
QUICK: dict[str, Any] = {"dim": 32, "training": {"epochs": 1}}
SEEDS = (0, 1)
RECALL, GOOD = "ordered_recall@100", "p_good@100"
METRICS = (RECALL, "clicked_recall@100", GOOD, "p_good@10", "ordered_recall@10")
COLOURS = ("#222222", "#c0504d", "#1b6ca8", "#7fb4d8", "#7a3b8f", "#b58bc4", "#5a9e5a", "#c98a2b", "#8a6d3b")


def run(quick: bool, resume: Path | None = None) -> dict[str, Any]:
    """Trains what the folder `resume` does not hold yet: every method at every level of noise in every shop."""
    seeds, levels = (SEEDS[:1], LEVELS[::3]) if quick else (SEEDS, LEVELS)
    small = shop_config(quick)
    shop = dataclasses.replace(small, requests=min(REQUESTS, small.requests))

    def trainings(name: str, level: float) -> list[Training]:
        settings = METHODS[name] | (QUICK if quick else {})
        shops = [dataclasses.replace(shop, seed=seed, noisy_click_share=level) for seed in seeds]
        return [Training(noisy, f"{name}, noise {level:.0%}", "mmse", settings) for noisy in shops]

    plan = {name: {level: trainings(name, level) for level in levels} for name in METHODS}
    journal = Journal.of("noise", resume)
    seconds = train_all([t for of in plan.values() for found in of.values() for t in found], journal, METRICS, (RECALL, GOOD))
    clean, worst = levels[0], levels[-1]
    results: dict[str, Any] = {
        "config": {
            "shop": {"items": shop.items, "requests": shop.requests, "users": shop.users},
            "simulator_seeds": seeds,
            "training_seed": 0,
            "methods": METHODS,
        },
        "trainings": len(seconds),
        "training_seconds": spread(seconds, 1),
        "methods": {},
    }
    for name, of in plan.items():
        kept = [journal.mean([b], GOOD) / journal.mean([a], GOOD) for a, b in zip(of[clean], of[worst], strict=True)]
        results["methods"][name] = {
            "levels": {f"{level:.0%}": {m: journal.interval(found, m) for m in METRICS} for level, found in of.items()},
            "p_good_kept_at_worst": {"pooled": round(journal.mean(of[worst], GOOD) / journal.mean(of[clean], GOOD), 4)}
            | {"by_seed": [round(share, 4) for share in kept]},
            "against_none": {
                f"{level:.0%}": {m: journal.compared(found, plan["none"][level], m) for m in (RECALL, GOOD)}
                for level, found in of.items()
                if name != "none"
            },
        }
    noisy = {level: dataclasses.replace(shop, seed=seeds[0], noisy_click_share=level) for level in levels}
    results["noisy_clicks"] = {f"{level:.0%}": _noisy_clicks(config) for level, config in noisy.items()}
    print(text_table(results), flush=True)
    return results


def _noisy_clicks(shop: SimulatorConfig) -> dict[str, Any]:
    """What tells the clicks on irrelevant items from the others, by the oracle: position, the item's clicks, and other users' agreement."""
    with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
        data = simulate(shop, Path(scratch, "shop"), quiet=True)
        catalogue, oracle = data.catalogue(), Oracle.read(data.path / "oracle")
        pairs, columns = [], []
        for batch in data.log().batches():
            request, item_ids, stages, position = shown_items(batch)
            queries = batch["query"].take(pa.array(request)).to_pylist()
            rows = catalogue.rows_of(item_ids)
            pairs += [(queries[at], int(rows[at])) for at in np.flatnonzero(stages >= Stage.CLICKED)]
            columns.append((np.asarray(oracle.good(queries, rows[:, None]), bool)[:, 0], stages, position))
    shown_good, stage, position = (np.concatenate(column) for column in zip(*columns, strict=True))
    is_clicked = stage >= Stage.CLICKED
    good, place = shown_good[is_clicked], position[is_clicked]
    of_pair, of_item = collections.Counter(pairs), collections.Counter(row for _, row in pairs)
    again = np.array([of_pair[pair] > 1 for pair in pairs])
    popular = np.array([of_item[row] for _, row in pairs])
    kinds, shown = {"relevant": good, "irrelevant": ~good}, {"relevant": shown_good, "irrelevant": ~shown_good}
    share = lambda of: round(float(of.mean()), 4)  # noqa: E731
    return {
        "irrelevant_share": {
            "of what was shown": share(~shown_good),
            "of clicks": share(~good),
            "of carts and orders": share(~shown_good[stage >= Stage.CARTED]),
        },
        "clicked_share_of_shown": {kind: share(is_clicked[of]) for kind, of in shown.items()},
        "clicked_share_at_the_top": {kind: share(is_clicked[of & (position == 0)]) for kind, of in shown.items()},
        "mean_position_of_clicks": {kind: round(float(place[of].mean()), 2) for kind, of in kinds.items()},
        "median_clicks_of_the_item": {kind: float(np.median(popular[of])) for kind, of in kinds.items()},
        "share_clicked_again_for_the_query": {kind: share(again[of]) for kind, of in kinds.items()},
    }


def text_table(results: dict[str, Any]) -> str:
    """Of each method: both metrics by level, and the share of the clean P_good that is left at the highest."""
    lines = []
    for name, found in results["methods"].items():
        for metric in (RECALL, GOOD):
            means = "  ".join(f"{level} {values[metric]['mean']:.3f}" for level, values in found["levels"].items())
            lines.append(f"{name:<28}{metric:<20}{means}")
        lines.append(f"{'':<28}{'P_good kept':<20}{found['p_good_kept_at_worst']['pooled']:.3f}")
    return "\n".join(lines)


def draw(results: dict[str, Any], path: Path) -> None:
    """Ordered recall and P_good against the share of noisy clicks, one line for each method, with 95 % intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), dpi=150)
    for axes, (metric, title) in zip(panels, ((RECALL, "recall@100 of ordered items"), (GOOD, "P_good@100")), strict=True):
        for at, (name, colour) in enumerate(zip(results["methods"], COLOURS, strict=True)):
            levels = results["methods"][name]["levels"]
            found = [values[metric] for values in levels.values()]
            means, (low, high) = np.array([f["mean"] for f in found]), np.array([f["interval_95"] for f in found]).T
            # Side by side, so that intervals do not cover each other.
            places = [float(level.rstrip("%")) + 0.5 * (at - 4) for level in levels]
            axes.errorbar(places, means, [means - low, high - means], color=colour, marker="o", markersize=3, capsize=2, lw=1.1, label=name)
        axes.set_xticks([float(level.rstrip("%")) for level in levels], list(levels))
        axes.set_xlabel("clicks on irrelevant items", fontsize=8)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=5, fontsize=7.5, frameon=False, loc="lower center")
    config = results["config"]
    figure.suptitle(
        f"MMSE (reconstructed) on noisy clicks: {config['shop']['items']:,} items, {config['shop']['requests']:,} requests, "
        f"{len(config['simulator_seeds'])} seeds pooled, 95 % intervals",
        fontsize=9.5,
    )
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(path)
    plt.close(figure)
