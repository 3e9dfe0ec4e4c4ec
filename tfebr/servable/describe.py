"""The description of a version as tables for a terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(about: Mapping[str, Any], console: Console) -> None:
    """Prints what `inspect` found.

    Args:
        about: the dict that `tfebr.servable.inspect.inspect` returns.
        console: where to; wide values wrap within their column, requests are one line each.
    """
    rows: list[tuple[str, ...]] = [
        ("servable", about["name"] + (f", version {about['version']}" if about["version"] is not None else "")),
        ("folder", about["folder"]),
        ("model", str(about["model"] or "not said: not written by tfebr")),
    ]
    settings = {name: value for name, value in about["config"].items() if not isinstance(value, dict)}
    if settings:
        rows.append(("config", _pairs(settings)))
    rows.append(("written with", _pairs(about["versions"]) or f"tensorflow {about['tensorflow']}"))
    if about["content"]:
        rows.append(("content", str(about["content"])))
    rows += _index(about["index"])
    if about["results"]:
        rows.append(("results", f"{_value(about['results']['default'])} a query, up to {_value(about['results']['most'])} by `search`"))
    if about["filter_columns"]:
        rows.append(("filter by", ", ".join(f"{name} ({kind})" for name, kind in about["filter_columns"].items())))
    if about["inputs"]:
        rows.append(("made-up names", ", ".join(f"{name} = {column}" for name, column in about["inputs"].items())))
    if about["checked"]:
        rows.append(("checked", _pairs(about["checked"])))
    recorded = about["warm_up"]
    rows.append(("warm-up", "none: the first query is slow" if recorded is None else "requests: " + _pairs(recorded)))
    ops = about["ops_outside_tensorflow"]
    rows.append(("other ops", ", ".join(f"{op} ({package or 'unknown'})" for op, package in ops.items()) or "none: core TensorFlow only"))
    _print(console, "", (), rows)
    _print(
        console, "servers", ("server", "runs it", ""), [(s["server"], "yes" if s["runs"] else "no", s["advice"]) for s in about["servers"]]
    )
    _print(console, "signatures", ("signature", "", "name", "dtype", "shape"), _signatures(about["signatures"]))
    files = [(name, f"{file['bytes']:,}", file["state"]) for name, file in about["files"].items()]
    _print(console, "files", ("file", "bytes", "sha256"), [*files, ("total", f"{about['bytes']:,}", _verdict(about))], numbers=(1,))
    console.print("requests", style="bold")
    for signature, lines in about["requests"].items():
        console.print(f"# {signature}", style="dim", markup=False, highlight=False)
        for line in lines.values():
            console.print(Text(_printable(line)), soft_wrap=True)


def _index(index: Mapping[str, Any] | None) -> list[tuple[str, ...]]:
    if not index:
        return []
    recipe = index.get("recipe")
    recipe = recipe if isinstance(recipe, dict) else {"kind": recipe}
    # How to search less than everything says nothing of an exact index.
    rows: list[tuple[str, ...]] = [("index", "exact" if recipe.get("kind") == "exact" else _pairs(recipe))]
    sizes = {name: index[name] for name in ("items", "dim", "heads") if name in index}
    if sizes:
        rows.append(("index size", _pairs(sizes)))
    if "recall" in index:
        measured = f"recall@{_value(index.get('k'))} {_value(index['recall'])} against exact search (target {_value(index.get('target'))})"
        rows.append(("measured", f"{measured}, {_value(index.get('latency_ms'))} ms a query, on {_value(index.get('queries'))} queries"))
    rows += [(label, str(index[name])) for name, label in (("reason", "why"), ("fallback", "note")) if index.get(name)]
    return rows


def _signatures(signatures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for signature, sides in signatures.items():
        said = signature
        for side in ("inputs", "outputs"):
            for name, spec in sides[side].items():
                shape = "[" + ", ".join("?" if size < 0 else str(size) for size in spec["shape"]) + "]"
                rows.append((said, side[:-1], name, spec["dtype"], shape))
                said = ""
    return rows


def _verdict(about: Mapping[str, Any]) -> str:
    if about["damage"]:
        return f"{len(about['damage'])} damaged or missing"
    return "all as written" if any(file["state"] == "ok" for file in about["files"].values()) else "no manifest to compare with"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print(console: Console, title: str, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], numbers: tuple[int, ...] = ()) -> None:
    rows = list(rows)
    table = Table(title=title or None, title_justify="left", title_style="bold", show_header=bool(heads), box=None, pad_edge=False)
    for number in range(len(heads) or max(map(len, rows))):
        table.add_column(heads[number] if heads else "", justify="right" if number in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_printable(cell)) for cell in row))
    console.print(table, "")


def _printable(text: str) -> str:
    """A folder's names and values may hold anything; a terminal should not act on it."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
