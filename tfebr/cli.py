"""The `tfebr` command: each sub-command is a call of `tfebr.pipeline` or of one room, and says what to type next."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import tfebr
from tfebr import cli_serving
from tfebr.command_line import pair, say_next
from tfebr.errors import ConfigError, TfebrError
from tfebr.infrastructure.native_logs import without_noise
from tfebr.show import console, show_reports

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="From a shop's search log to one folder that TensorFlow Serving can load: query text and history in, item ids out.",
)

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]
Data = Annotated[Path, typer.Argument(help="A data folder (from `simulate` or `prepare`).", metavar="DATA")]
Run = Annotated[Path, typer.Argument(help="A run folder (from `train`).", metavar="RUN")]

ChangeFilters = Annotated[
    bool, typer.Option("--change-filters", help="Also where a filter of the version before would be gone or of another kind.")
]


def _version(wanted: bool) -> None:
    if wanted:
        for name, version in tfebr.versions().items():
            console.print(f"{name:<26}{version}", highlight=False)
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Versions that matter.")] = False,
) -> None:
    pass


@app.command(epilog="Example: `tfebr simulate shop --preset small --seed 7`")
def simulate(
    out: Annotated[Path, typer.Argument(help="The data folder to write.", metavar="OUT")],
    preset: Annotated[str, typer.Option(help="tiny, small (20,000 items, 100,000 requests) or large (1,000,000 items).")] = "small",
    seed: Annotated[int, typer.Option(help="Another seed is another shop.")] = 1,
    noisy_clicks: Annotated[float, typer.Option(help="Share of clicks that relevance does not explain.")] = 0.1,
    quiet: Quiet = False,
) -> None:
    """Make a shop with its catalogue, users and search log, for trying everything without data of your own."""
    import dataclasses

    from tfebr.data.simulator import PRESETS
    from tfebr.data.simulator import simulate as run

    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}. Known presets: {', '.join(PRESETS)}.")
    run(dataclasses.replace(PRESETS[preset], seed=seed, noisy_click_share=noisy_clicks), out, quiet)
    _show_data(out)
    say_next("tfebr", "train", out, "run")


@app.command(epilog="Example: `tfebr prepare homedepot ~/Downloads/home-depot hd`")
def prepare(
    source: Annotated[str, typer.Argument(help="homedepot, chorus, bestbuy, jdsearch, behaviour or trivago.", metavar="SOURCE")],
    download: Annotated[Path, typer.Argument(help="The download: a folder or its main file.", metavar="IN")],
    out: Annotated[Path, typer.Argument(help="The data folder to write.", metavar="OUT")],
    quiet: Quiet = False,
) -> None:
    """Turn a public data set into a data folder: a catalogue with a search log or judgments."""
    from tfebr.data.readers import prepare as run

    run(source, download, out, quiet)
    _show_data(out)
    say_next("tfebr", "train", out, "run")


@app.command(epilog="Example: `tfebr train shop run --model dpsr --set heads=2 --set training.epochs=3`")
def train(
    data: Data,
    run: Annotated[Path, typer.Argument(help="The run folder to write, or to go on with.", metavar="RUN")],
    model: Annotated[str, typer.Option(help="mmse, mgdspr, dpsr, two_tower, or one of your own as FILE.py:NAME.")] = "dpsr",
    config: Annotated[Path | None, typer.Option(help="A JSON file with fields of the model's config.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="One field, as `name=value`; may be repeated.")] = None,
    supervision: Annotated[Path | None, typer.Option(help="A judged data folder over the same items: labelled pairs.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train a model; a run that was interrupted goes on where it stopped."""
    from tfebr.infrastructure.files import read_json
    from tfebr.pipeline import train as start

    values = read_json(config) if config else {}
    if not isinstance(values, dict):
        raise ConfigError(f"{config}: must be a JSON object of fields and their values. Received: {values!r}.")
    for setting in settings or []:
        _put(values, setting)
    start(data, run, model, values, supervision, quiet=quiet)
    console.print(f"{model} trained: {run}", highlight=False, markup=False)
    say_next("tfebr", "evaluate", run)


@app.command(epilog="Example: `tfebr evaluate run other_run`")
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders trained on one data folder.", metavar="RUN...")],
    split: Annotated[str, typer.Option(help="Which judged split, where the data has judgments and no log.")] = "test",
    max_requests: Annotated[int | None, typer.Option(help="Measure on a random sample of the held-out requests.")] = None,
) -> None:
    """Measure models and BM25 over the whole catalogue, on requests (or judged queries) that training has not seen."""
    from tfebr.pipeline import evaluate as measure

    reports = measure(runs, split, max_requests)
    show_reports(reports)
    say_next("tfebr", "export", runs[0])


@app.command(epilog="Example: `tfebr export run --target 0.98`")
def export(
    run: Run,
    name: Annotated[str | None, typer.Option(help="The model's name on the server; the model's own by default.")] = None,
    target: Annotated[float, typer.Option(help="Recall of the index against exact search that must be measured.")] = 0.98,
    k: Annotated[int, typer.Option(help="Results for each query.")] = 100,
    shards: Annotated[int, typer.Option(help="Split the catalogue into so many folders, NAME-shard-0 and on, for as many servers.")] = 1,
    server: Annotated[str, typer.Option(help="What will serve it: scann (TF Serving with ScaNN's ops, tfebr serve) or stock.")] = "scann",
    change_filters: ChangeFilters = False,
    quiet: Quiet = False,
) -> None:
    """Write one folder with query tower, index and item ids, checked in a fresh process before it is published."""
    from tfebr.pipeline import export_shards

    _show_published(export_shards(run, shards, name, target, k, quiet=quiet, server=server, change_filters=change_filters))


@app.command(epilog="Example: `tfebr refresh run new/catalogue.parquet`")
def refresh(
    run: Run,
    catalogue: Annotated[Path, typer.Argument(help="A Parquet file, a folder of them, or a data folder.", metavar="CATALOGUE")],
    name: Annotated[str | None, typer.Option(help="Which servable of the run; the model's own by default.")] = None,
    target: Annotated[float | None, typer.Option(help="Recall that must be measured; as before by default.")] = None,
    change_filters: ChangeFilters = False,
    quiet: Quiet = False,
) -> None:
    """Publish the next version with another catalogue under the same towers; only new and changed items are embedded."""
    from tfebr.pipeline import refresh as publish

    found = publish(run, catalogue, name, target, quiet=quiet, change_filters=change_filters)
    console.print(f"{found.items:,} items, of which {found.embedded:,} were new or changed and embedded", highlight=False)
    _show_published(found.folders)


def _show_published(folders: list[Path]) -> None:
    from tfebr.servable.manifest import read_manifest
    from tfebr.servable.write import PICTURE

    for folder in folders:
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        console.print(f"published {folder} ({size / 2**20:.1f} MiB)", highlight=False, markup=False, soft_wrap=True)
        about = read_manifest(folder)
        index, asked = about.get("index"), about["about"].get("recall_measured_on")
        if index:
            kind, recall = index["recipe"]["kind"], f"recall@{index['k']} {index['recall']:.4f} against exact search"
            console.print(f"index: {kind}, {recall}, on {asked}; picture: assets.extra/{PICTURE}", highlight=False)
            console.print(index["reason"], style="dim", highlight=False)
    say_next("tfebr", "serve", folders[0].parent)


app.add_typer(cli_serving.app)


@app.command(epilog="Example: `tfebr demo demo`")
def demo(
    out: Annotated[Path, typer.Argument(help="Where everything is written.", metavar="OUT")],
    preset: Annotated[str, typer.Option(help="Size of the simulated shop.")] = "small",
) -> None:
    """The whole path on a simulated shop: simulate, train, compare, export, serve and ask."""
    from tfebr.demo import run

    run(out, preset)


def _show_data(out: Path) -> None:
    from tfebr.infrastructure.files import read_json

    about = read_json(out / "about.json")
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in about.items() if isinstance(value, int))
    console.print(f"{out}: {counts}", highlight=False, markup=False)
    for note in about.get("notes", []):
        console.print(f"  {note}", highlight=False, markup=False)


def _put(values: dict[str, Any], setting: str) -> None:
    """Puts "training.epochs=3" into {"training": {"epochs": 3}}."""
    name, text = pair(setting)
    *parents, last = name.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {setting}: `{parent}` has fields and is no value itself. Received before: {parent} = {values!r}.")
    try:
        values[last] = json.loads(text)
    except json.JSONDecodeError:
        values[last] = text


def main() -> None:
    """Runs the command; what a user can act on is one message and exit code 1, without a traceback."""
    with without_noise():
        try:
            app()
        except TfebrError as error:
            Console(stderr=True).print(f"[bold red]error:[/bold red] {_plain(str(error))}", soft_wrap=True, highlight=False)
            sys.exit(1)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
