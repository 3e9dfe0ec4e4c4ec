"""The demonstration: the whole path on a simulated shop, with readable results at the end."""

import dataclasses
import os
import shlex
import time
from pathlib import Path

from tfebr import pipeline
from tfebr.client.client import Client
from tfebr.data.dataset import DataFolder
from tfebr.data.log import shown_items
from tfebr.data.simulator import PRESETS, simulate
from tfebr.data.stage import Stage
from tfebr.errors import ConfigError
from tfebr.evaluation.picture import draw_comparison
from tfebr.evaluation.requests import held_out
from tfebr.infrastructure.files import read_json
from tfebr.server.server import Server
from tfebr.show import console, results_table, show_reports

_MODELS = ("dpsr", "mgdspr", "mmse")
_HISTORY = 20


def run(out: str | os.PathLike, preset: str = "small") -> None:
    """Simulates, trains the three models, compares them with BM25, exports the one that finds most orders, serves it and asks it."""
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}. Known presets: {', '.join(PRESETS)}.")
    out, start = Path(out), time.monotonic()
    shop, runs = out / "shop", {model: out / model for model in _MODELS}
    config = PRESETS[preset]
    _step("1/5  a shop, its users and its search log")
    if not (shop / "about.json").exists() or read_json(shop / "about.json")["config"] != dataclasses.asdict(config):
        simulate(config, shop)
    data = DataFolder(shop)
    about = read_json(shop / "about.json")
    console.print(f"{about['items']:,} items, {about['users']:,} users, {about['requests']:,} requests, {about['orders']:,} orders")
    _step("2/5  training (the last tenth of the log is held out)")
    for model, folder in runs.items():
        pipeline.train(shop, folder, model)
    _step("3/5  the whole catalogue ranked for every held-out request")
    reports = pipeline.evaluate(list(runs.values()))
    show_reports(reports)
    console.print(
        "ordered / clicked recall@100: share of what was ordered / clicked that is among 100 results; p_good@100: share of the 100\n"
        "results that the shop's oracle calls relevant; tail: the rarest queries, a third of the traffic.",
        style="dim",
    )
    picture = out / "comparison.png"
    draw_comparison(reports, picture, f"A simulated shop of {about['items']:,} items: held-out requests, 95 % intervals")
    console.print(f"picture {picture}", highlight=False, soft_wrap=True, markup=False)
    best = max(runs, key=lambda model: reports[model].means()["ordered_recall@100"])
    _step(f"4/5  {best}, which finds most of what was ordered, as one folder: query tower, index and item ids")
    version = pipeline.export(runs[best])
    console.print(f"published {version}", highlight=False, soft_wrap=True, markup=False)
    _step("5/5  serving it, and asking for two users")
    trained = pipeline.RunFolder(runs[best])
    with Server(version.parent, rest_port=0, grpc_port=0) as server, Client(server.rest_url, server.name) as client:
        _ask(client, data, trained.split_time or 0, trained.model_class.reads_events)
    console.print(f"\ndone in {time.monotonic() - start:.0f} s. Everything is in {out}:", highlight=False, markup=False)
    made = (
        (shop, "catalogue, log, users and, apart from them, the oracle"),
        (picture, "recall by stage and by how frequent the query is"),
        (runs[best], "config, vocabularies, checkpoints, metrics.json, run files"),
        (version, "what TensorFlow Serving loads"),
    )
    width = max(len(str(path)) for path, _ in made)
    for path, what in made:
        console.print(f"  {path!s:<{width}}  {what}", highlight=False, soft_wrap=True, markup=False)
    console.print(
        f"next: {shlex.join(['tfebr', 'serve', str(runs[best])])}      then, in another terminal: "
        f"{shlex.join(['tfebr', 'query', 'your words', '--data', str(shop)])}\n"
        "      tfebr train --help              to train on a shop of your own: see docs/data.md",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _step(title: str) -> None:
    console.print(f"\n[bold]{title}[/bold]", highlight=False)


def _ask(client: Client, data: DataFolder, split_time: int, reads_events: bool) -> None:
    """Three held-out queries, a frequent, a middling and a rare one, each for two users whose histories differ; then one with a filter.

    Args:
        reads_events: the model reads how far the items of a history got and when, not the items alone.
    """
    catalogue = data.catalogue()
    found = held_out(data.log(), catalogue, split_time)
    queries = [next(q for q, band in zip(found.queries, found.bands, strict=True) if band == wanted) for wanted in sorted(set(found.bands))]
    events = _two_histories(data, split_time)
    for query in queries[:3]:
        for user_id, (items, stages, ages) in events.items():
            read = (stages, ages) if reads_events else ((), ())
            (result,) = client.query(query, history=items, history_stages=read[0], history_ages=read[1])
            brands = catalogue.table["brand"].take(catalogue.rows_of(items)).to_pylist()
            liked = max(sorted(set(brands)), key=brands.count)
            title = f"{query!r} for {user_id} (last clicked {len(items)} items, most often of {liked})"
            console.print(results_table(title, result.ids[:5], result.scores[:5], catalogue))
    (result,) = client.query(queries[0], filter={"price": (None, 50)}, automatic=True)
    title = f"{queries[0]!r}, filtered: {'; '.join(result.applied_filter)}"
    console.print(results_table(title, result.ids[:5], result.scores[:5], catalogue))


def _two_histories(data: DataFolder, split_time: int) -> dict[str, tuple[list[str], list[int], list[int]]]:
    """Items, stages and ages of the events, newest first, of the most active user and of the next one who shares none of these items."""
    events: dict[str, list[tuple[str, int, int]]] = {}
    for batch in data.log().batches():
        times, user_ids = batch["time"].to_pylist(), batch["user_id"].to_pylist()
        for at, item_id, stage, _ in zip(*shown_items(batch), strict=True):
            if stage >= Stage.CLICKED and times[at] < split_time and user_ids[at]:
                events.setdefault(user_ids[at], []).append((item_id.as_py(), int(stage), split_time - times[at]))
    active = sorted(events, key=lambda user: (-len(events[user]), user))
    items = lambda user: {item for item, _, _ in events[user]}  # noqa: E731
    second = next((user for user in active[1:] if not items(user) & items(active[0])), active[-1])
    newest = {user: events[user][::-1][:_HISTORY] for user in (active[0], second)}
    return {user: ([e[0] for e in of], [e[1] for e in of], [e[2] for e in of]) for user, of in newest.items()}
