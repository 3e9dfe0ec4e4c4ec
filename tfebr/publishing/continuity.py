"""What the clients of a served version rely on, and a next version must go on giving them."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from tfebr.errors import DataError, TfebrError
from tfebr.servable.manifest import read_manifest
from tfebr.servable.version_folders import version_folders

_KINDS = {"category": "strings", "number": "numbers"}


def check_filters(base: Path, columns: Mapping[str, str], source: str | os.PathLike) -> None:
    """Refuses to take away a filter that the newest version below `base` has, or to change its kind.

    Clients would find nothing by it, or be refused, and nobody would have been told.

    Args:
        base: `servable/<name>`; there may be no version yet.
        columns: what a filter of the next version can name, with its kind.
        source: the catalogue, for the message.

    Raises:
        DataError: naming the columns.
    """
    versions = version_folders(base)
    before: dict[str, str] = {}
    # A version that was not written here says nothing of its filters.
    with contextlib.suppress(TfebrError):
        before = read_manifest(versions[max(versions)]).get("filter_columns", {}) if versions else {}
    lost = [
        f"`{name}`, which held {_KINDS[kind]}, {f'holds {_KINDS[columns[name]]}' if name in columns else 'is gone'}"
        for name, kind in before.items()
        if columns.get(name) != kind
    ]
    if lost:
        raise DataError(
            f"{source}: clients of version {max(versions)} filter by columns that the next one would not have so: {'; '.join(lost)}. "
            "Correct the catalogue, or publish it all the same with `--change-filters` (in Python, change_filters=True)."
        )
