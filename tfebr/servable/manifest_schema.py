"""What a manifest has to look like: any file may lie where one is looked for."""

import datetime
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_Problem = str | None


def problem_of(manifest: Any) -> str | None:
    """What is wrong with a manifest, naming the field; None where everything that this library reads has its type."""
    if not isinstance(manifest, dict):
        return f"it must be an object. Received: {_kind(manifest)}"
    for field, (needed, check) in _FIELDS.items():
        if field not in manifest:
            if needed:
                return f"`{field}` is missing"
        elif (problem := check(manifest[field])) is not None:
            return f"`{field}` {problem}"
    return None


def _object(value: Any) -> _Problem:
    return None if isinstance(value, dict) else f"must be an object. Received: {_kind(value)}"


def _about(value: Any) -> _Problem:
    return _object(value) or _fields(
        value, {"model": _text, "config": _object, "inputs": _object, "results": _object, "server": _text, "shard": _shard}
    )


def _shard(value: Any) -> _Problem:
    return _object(value) or _fields(value, {"set": _text, "number": _count, "of": _count})


def _index(value: Any) -> _Problem:
    if value is None:
        return None
    kinds = {"recipe": _object, "items": _count, "k": _count, "recall": _number, "target": _number, "reason": _text}
    return _object(value) or _fields(value, kinds)


def _files(value: Any) -> _Problem:
    if not isinstance(value, dict):
        return _object(value)
    for name, about in value.items():
        # Nothing outside of the folder is any of its business.
        if not name or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
            return f"must name files inside the folder. Received: {name[:80]!r}"
        if not isinstance(about, dict) or _count(about.get("bytes")) or _text(about.get("sha256")):
            return f"must say `bytes` and `sha256` of each file. Received for {name[:80]}: {_kind(about)} without them"
    return None


def _fields(value: Mapping[str, Any], kinds: Mapping[str, Callable[[Any], _Problem]]) -> _Problem:
    for field, check in kinds.items():
        if field in value and (problem := check(value[field])) is not None:
            return f"has `{field}`, which {problem}"
    return None


def _text(value: Any) -> _Problem:
    return None if isinstance(value, str) else f"must be text. Received: {_kind(value)}"


def _count(value: Any) -> _Problem:
    good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return None if good else f"must be a whole number that is not negative. Received: {_kind(value)}"


def _number(value: Any) -> _Problem:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return None if good or value is None else f"must be a number. Received: {_kind(value)}"


def _nothing_or_object(value: Any) -> _Problem:
    return None if value is None else _object(value)


def _moment(value: Any) -> _Problem:
    try:
        datetime.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return f"must be a date and time. Received: {_kind(value)}"
    return None


def _kind(value: Any) -> str:
    kinds = {type(None): "null", bool: "a boolean", int: "a whole number", float: "a fraction", str: "text", list: "a list"}
    return kinds.get(type(value), "an object")


_FIELDS: dict[str, tuple[bool, Callable[[Any], _Problem]]] = {
    "about": (True, _about),
    "versions": (True, _object),
    "ops_outside_tensorflow": (True, _object),
    "filter_columns": (True, _object),
    "files": (True, _files),
    "index": (False, _index),
    "signatures": (False, _object),
    "bytes": (False, _count),
    "created": (False, _moment),
    "checked": (False, _nothing_or_object),
}
