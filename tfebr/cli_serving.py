"""The sub-commands for what was published: inspect, serve, versions, query."""

import gc
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from tfebr.command_line import pair, profile_value, say_next
from tfebr.errors import ConfigError
from tfebr.show import console, results_table, versions_table

app = typer.Typer()
_SWITCH_SECONDS = 0.0005


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
    name: Annotated[str | None, typer.Option(help="Which servable of RUN; of another folder, what requests call the model.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="A name for a version that stays loaded, as `stable=3`; repeatable.")] = None,
    rest_api_timeout_in_ms: Annotated[int, typer.Option(min=0, help="Time limit of a REST prediction; 0 is any time.")] = 30_000,
    rest_api_enable_cors_support: Annotated[
        bool, typer.Option("--rest-api-enable-cors-support", help="Let scripts of web pages from elsewhere read REST answers.")
    ] = False,
    log: Annotated[str, typer.Option(help="json: a line for each request on stderr, without its content; none.")] = "none",
) -> None:
    """Serve a published folder with TF Serving's REST and gRPC predict API, until Ctrl-C."""
    import logging
    import signal

    from tfebr.servable.folders import only_servable
    from tfebr.server.request_log import JsonLines
    from tfebr.server.server import Server

    if log not in ("json", "none"):
        raise ConfigError(f"`log` must be json or none. Received: {log!r}.")
    if log == "json":
        logging.basicConfig(level=logging.WARNING, handlers=[JsonLines()], force=True)
        logging.getLogger("tfebr").setLevel(logging.INFO)
    labels = {}
    for key, number in map(pair, label or []):
        if not number.isdecimal():
            raise ConfigError(f"`label` must be written `name=version` with a version's number. Received: {key}={number}.")
        labels[key] = int(number)
    # A service manager's stop is the same as Ctrl-C: what is being answered is answered first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    base = only_servable(folder, "serve", name)
    # This process does nothing else: threads hand Python's lock on ten times sooner than usual, so that a look at health, which takes it
    # some ten times, never waits long for the threads that write large answers.
    sys.setswitchinterval(_SWITCH_SECONDS)
    with Server(
        base,
        name,
        host,
        rest_port,
        grpc_port,
        labels=labels,
        rest_timeout=rest_api_timeout_in_ms / 1000,
        cors=rest_api_enable_cors_support,
    ) as server:
        # What was imported and loaded stays: to look through it for garbage again and again would stop all threads for a tenth of a second.
        gc.collect()
        gc.freeze()
        console.print(
            f"REST {server.rest_url}/v1/models/{server.name}  gRPC {server.grpc_target}", highlight=False, markup=False, soft_wrap=True
        )
        say_next("tfebr", "query", "your text", "--server", server.rest_url, "--name", server.name)
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
    name: Annotated[str | None, typer.Option(help="Which servable of RUN.")] = None,
) -> None:
    """List the published versions; roll back, restore or delete some. Servers that watch the folder follow by themselves."""
    from tfebr.servable import version_folders as publish
    from tfebr.servable.folders import only_servable

    if rollback + restore + (prune is not None) > 1:
        raise ConfigError("`--rollback`, `--restore` and `--prune` are one at a time.")
    base = only_servable(folder, "list the versions of", name)
    if rollback:
        console.print(f"served from now on: {publish.roll_back(base)}", highlight=False, markup=False, soft_wrap=True)
    if restore:
        console.print(f"served from now on: {publish.restore(base)}", highlight=False, markup=False, soft_wrap=True)
    if prune is not None:
        gone = publish.prune(base, prune)
        console.print(f"deleted: {', '.join(map(str, gone)) or 'none'}", highlight=False)
    found = publish.versions(base)
    console.print(versions_table(found))
    for version in found:
        if version.problem:
            console.print(version.problem, style="yellow", markup=False, highlight=False, soft_wrap=True)


@app.command(
    epilog="Example: `tfebr query 'red dress' --user age=25-34 --filter 'brand=Acme|brand=Zeta' --filter 'price=10..50' --data shop`"
)
def query(
    text: Annotated[str, typer.Argument(help="What to search for.", metavar="TEXT")],
    server: Annotated[
        str, typer.Option(help="Address of the server; gRPC with a port of its own and `--grpc`. With commas between: of each shard.")
    ] = "http://127.0.0.1:8501",
    name: Annotated[str | None, typer.Option(help="The model's name on the server; by default the only one of `tfebr serve`.")] = None,
    grpc: Annotated[bool, typer.Option("--grpc", help="Ask over gRPC (give `--server 127.0.0.1:8500`).")] = False,
    user: Annotated[
        list[str] | None, typer.Option(help="A profile column, as `age=25-34`; may be repeated; a `=` in its name is %3D.")
    ] = None,
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
    from tfebr.client.client import Client
    from tfebr.client.sharded_client import ShardedClient
    from tfebr.data.catalogue import Catalogue
    from tfebr.servable.folders import check_name

    if name is not None:
        check_name(name)
    profile = dict(map(profile_value, user or []))
    protocol, shards = "grpc" if grpc else "rest", server.split(",")
    with ShardedClient(shards, name, protocol) if len(shards) > 1 else Client(server, name, protocol) as client:
        (result,) = client.query(
            text, profile, _comma_list(history), filter=filters, automatic=automatic, k=k, exclude=_comma_list(exclude)
        )
    if result.applied_filter:
        console.print(f"filter: {', '.join(result.applied_filter)}", highlight=False, markup=False)
    catalogue = Catalogue.read(data) if data else None
    console.print(results_table(text, result.ids[: k or 10], result.scores[: k or 10], catalogue))


def _comma_list(text: str) -> list[str]:
    return [part for part in text.split(",") if part]
