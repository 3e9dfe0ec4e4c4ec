"""The `tfebr` command: each sub-command is a call of `tfebr.pipeline` or of one room, and says what to type next."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import tfebr
from tfebr.errors import ConfigError, TfebrError
from tfebr.native_logs import without_noise
from tfebr.show import console, results_table, show_reports, versions_table

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


def _next(command: str) -> None:
    console.print(f"[dim]next:[/dim] {command}", soft_wrap=True, highlight=False)


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
    _next(f"tfebr train {out} run")


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
    _next(f"tfebr train {out} run")


@app.command(epilog="Example: `tfebr train shop run --model dpsr --set heads=2 --set training.epochs=3`")
def train(
    data: Data,
    run: Annotated[Path, typer.Argument(help="The run folder to write, or to go on with.", metavar="RUN")],
    model: Annotated[str, typer.Option(help="mmse, mgdspr, dpsr or two_tower.")] = "dpsr",
    config: Annotated[Path | None, typer.Option(help="A JSON file with fields of the model's config.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="One field, as `name=value`; may be repeated.")] = None,
    supervision: Annotated[Path | None, typer.Option(help="A judged data folder over the same items: labelled pairs.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train a model; a run that was interrupted goes on where it stopped."""
    from tfebr.files import read_json
    from tfebr.pipeline import train as start

    values = read_json(config) if config else {}
    if not isinstance(values, dict):
        raise ConfigError(f"{config}: must be a JSON object of fields and their values. Received: {values!r}.")
    for setting in settings or []:
        _put(values, setting)
    start(data, run, model, values, supervision, quiet=quiet)
    console.print(f"{model} trained: {run}", highlight=False)
    _next(f"tfebr evaluate {run}")


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
    _next(f"tfebr export {runs[0]}")


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
        console.print(f"published {folder} ({size / 2**20:.1f} MiB)", highlight=False, soft_wrap=True)
        about = read_manifest(folder)
        index, asked = about.get("index"), about["about"].get("recall_measured_on")
        if index:
            kind, recall = index["recipe"]["kind"], f"recall@{index['k']} {index['recall']:.4f} against exact search"
            console.print(f"index: {kind}, {recall}, on {asked}; picture: assets.extra/{PICTURE}", highlight=False)
            console.print(index["reason"], style="dim", highlight=False)
    _next(f"tfebr serve {folders[0].parent}")


@app.command(epilog="Example: `tfebr inspect run`")
def inspect(
    folder: Annotated[Path, typer.Argument(help="RUN, RUN/servable/NAME (its newest version), or one version below it.", metavar="FOLDER")],
    as_json: Annotated[bool, typer.Option("--json", help="JSON, for machines.")] = False,
) -> None:
    """Show what an exported folder holds, which servers can run it, and requests to copy; ends with an error when a file is damaged."""
    from tfebr.errors import ArtifactError
    from tfebr.servable.describe import show
    from tfebr.servable.inspect import inspect as describe

    about = describe(folder)
    if as_json:
        typer.echo(json.dumps(about, indent=2, ensure_ascii=False))
    else:
        show(about, console)
    if about["damage"]:
        raise ArtifactError("\n".join(about["damage"]))


@app.command(epilog="Example: `tfebr serve run` and, in another terminal, `tfebr query 'led light bulb 60 watt'`")
def serve(
    folder: Annotated[Path, typer.Argument(help="RUN, RUN/servable/NAME, or one version below it.", metavar="FOLDER")],
    host: Annotated[str, typer.Option(help="Address to listen on; the default is this machine only.")] = "127.0.0.1",
    rest_port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8501,
    grpc_port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8500,
    label: Annotated[list[str] | None, typer.Option(help="A name for a version that stays loaded, as `stable=3`; repeatable.")] = None,
    log: Annotated[str, typer.Option(help="json: a line for each request on stderr, without its content; none.")] = "none",
) -> None:
    """Serve a published folder with TF Serving's REST and gRPC predict API, until Ctrl-C."""
    import logging
    import signal

    from tfebr.servable.folders import only_servable
    from tfebr.servable.request_log import JsonLines
    from tfebr.servable.server import Server

    if log not in ("json", "none"):
        raise ConfigError(f"`log` must be json or none. Received: {log!r}.")
    if log == "json":
        logging.basicConfig(level=logging.WARNING, handlers=[JsonLines()], force=True)
        logging.getLogger("tfebr").setLevel(logging.INFO)
    labels = {}
    for name, number in map(_pair, label or []):
        if not number.isdecimal():
            raise ConfigError(f"`label` must be written `name=version` with a version's number. Received: {name}={number}.")
        labels[name] = int(number)
    # A service manager's stop is the same as Ctrl-C: what is being answered is answered first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    base = only_servable(folder, "serve")
    with Server(base, host=host, rest_port=rest_port, grpc_port=grpc_port, labels=labels) as server:
        console.print(f"REST {server.rest_url}/v1/models/{server.name}  gRPC {server.grpc_target}", highlight=False, soft_wrap=True)
        _next(f"tfebr query 'your text' --server {server.rest_url} --name {server.name}")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            console.print("stopped")


@app.command(epilog="Example: `tfebr versions run`, `tfebr versions run --rollback`, `tfebr versions run --prune 3`")
def versions(
    folder: Annotated[Path, typer.Argument(help="RUN or RUN/servable/NAME.", metavar="FOLDER")],
    rollback: Annotated[bool, typer.Option("--rollback", help="Hide the newest: servers go back to the one before.")] = False,
    restore: Annotated[bool, typer.Option("--restore", help="Undo the last rollback.")] = False,
    prune: Annotated[int | None, typer.Option(help="Delete all but so many of the newest.")] = None,
) -> None:
    """List the published versions; roll back, restore or delete some. Servers that watch the folder follow by themselves."""
    from tfebr.servable import publish
    from tfebr.servable.folders import only_servable

    if rollback + restore + (prune is not None) > 1:
        raise ConfigError("`--rollback`, `--restore` and `--prune` are one at a time.")
    base = only_servable(folder, "list the versions of")
    if rollback:
        console.print(f"served from now on: {publish.roll_back(base)}", highlight=False, soft_wrap=True)
    if restore:
        console.print(f"served from now on: {publish.restore(base)}", highlight=False, soft_wrap=True)
    if prune is not None:
        gone = publish.prune(base, prune)
        console.print(f"deleted: {', '.join(map(str, gone)) or 'none'}", highlight=False)
    console.print(versions_table(publish.versions(base)))


@app.command(
    epilog="Example: `tfebr query 'red dress' --user age=25-34 --filter 'brand=Acme|brand=Zeta' --filter 'price=10..50' --data shop`"
)
def query(
    text: Annotated[str, typer.Argument(help="What to search for.", metavar="TEXT")],
    server: Annotated[
        str, typer.Option(help="Address of the server; gRPC with a port of its own and `--grpc`. With commas between: of each shard.")
    ] = "http://127.0.0.1:8501",
    name: Annotated[str, typer.Option(help="The model's name on the server.")] = "dpsr",
    grpc: Annotated[bool, typer.Option("--grpc", help="Ask over gRPC (give `--server 127.0.0.1:8500`).")] = False,
    user: Annotated[list[str] | None, typer.Option(help="A profile column, as `age=25-34`; may be repeated.")] = None,
    history: Annotated[str, typer.Option(help="Item ids the user clicked, newest first, with commas between.")] = "",
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help="`brand=Acme`, `brand=Acme|brand=Zeta` or `price=10..50`; may be repeated: all hold."),
    ] = None,
    automatic: Annotated[bool, typer.Option("--automatic", help="Filter by the brand or category that the query names.")] = False,
    exclude: Annotated[str, typer.Option(help="Item ids that must not be found, with commas between.")] = "",
    data: Annotated[Path | None, typer.Option(help="A data folder, to print titles beside ids.")] = None,
    k: Annotated[int | None, typer.Option(min=1, help="How many results to ask for; the first 10 are printed when not given.")] = None,
) -> None:
    """Ask a running server."""
    from tfebr.data.catalogue import Catalogue
    from tfebr.servable.client import Client
    from tfebr.servable.sharded_client import ShardedClient

    profile = dict(_pair(column) for column in user or [])
    protocol, shards = "grpc" if grpc else "rest", server.split(",")
    with ShardedClient(shards, name, protocol) if len(shards) > 1 else Client(server, name, protocol) as client:
        (result,) = client.query(text, profile, _ids(history), filter=filters, automatic=automatic, k=k, exclude=_ids(exclude))
    if result.applied_filter:
        console.print(f"filter: {', '.join(result.applied_filter)}", highlight=False, markup=False)
    catalogue = Catalogue.read(data) if data else None
    console.print(results_table(text, result.ids[: k or 10], result.scores[: k or 10], catalogue))


@app.command(epilog="Example: `tfebr demo demo`")
def demo(
    out: Annotated[Path, typer.Argument(help="Where everything is written.", metavar="OUT")],
    preset: Annotated[str, typer.Option(help="Size of the simulated shop.")] = "small",
) -> None:
    """The whole path on a simulated shop: simulate, train, compare, export, serve and ask."""
    from tfebr.demo import run

    run(out, preset)


def _show_data(out: Path) -> None:
    from tfebr.files import read_json

    about = read_json(out / "about.json")
    counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in about.items() if isinstance(value, int))
    console.print(f"{out}: {counts}", highlight=False)
    for note in about.get("notes", []):
        console.print(f"  {note}", highlight=False)


def _ids(text: str) -> list[str]:
    return [item_id for item_id in text.split(",") if item_id]


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"must be written `name=value`. Received: {text!r}.")
    return name.strip(), value.strip()


def _put(values: dict[str, Any], setting: str) -> None:
    """Puts "training.epochs=3" into {"training": {"epochs": 3}}."""
    name, text = _pair(setting)
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
