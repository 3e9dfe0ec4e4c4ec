"""Readers of public data sets: an official download becomes a data folder."""

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tfebr.data.dataset import DataFolder
from tfebr.data.log import write_log
from tfebr.data.place import Notes
from tfebr.data.readers import bestbuy, chorus, homedepot, jdsearch, trivago
from tfebr.data.readers import ecomm_behaviour as behaviour
from tfebr.data.readers.reader import Prepared, Reader
from tfebr.data.roles import ColumnRoles
from tfebr.errors import ConfigError, DataError
from tfebr.infrastructure.files import atomic_folder, write_json

__all__ = ["READERS", "Prepared", "Reader", "prepare"]

READERS: dict[str, Reader] = {
    "homedepot": homedepot.READER,
    "chorus": chorus.READER,
    "bestbuy": bestbuy.READER,
    "jdsearch": jdsearch.READER,
    "behaviour": behaviour.READER,
    "trivago": trivago.READER,
}


def prepare(source: str, input_path: str | os.PathLike, out: str | os.PathLike, quiet: bool = False) -> DataFolder:
    """Turns a download into the data folder `out`, whole or not at all; a data folder that was there before is replaced.

    Args:
        source: a key of `READERS`.
        input_path: the download, a folder or its main file.

    Raises:
        ConfigError: the source is unknown.
        DataError: files are missing or bad, or `out` is something other than a data folder or holds the input.
    """
    if source not in READERS:
        raise ConfigError(f"unknown source {source!r}. Known sources: {', '.join(READERS)}.")
    reader, input_path, out = READERS[source], Path(input_path), Path(out)
    _check_out(input_path, out)
    prepared = reader.read(input_path, quiet)
    about: dict[str, Any] = {
        "source": source,
        "title": reader.title,
        "licence": reader.licence,
        "items": len(prepared.catalogue),
        "columns": ColumnRoles.of(prepared.catalogue.table).to_json(),
    }
    log_notes = Notes("log")
    with atomic_folder(out) as folder:
        prepared.catalogue.write(folder / "catalogue.parquet")
        if prepared.log is not None:
            about["requests"] = write_log(folder / "log", prepared.log, notes=log_notes)
        if prepared.users is not None:
            pq.write_table(prepared.users, folder / "users.parquet", compression="zstd")
            about["users"] = prepared.users.num_rows
        if prepared.judgments is not None:
            prepared.judgments.write(folder / "judgments")
            about["queries"] = prepared.judgments.queries.num_rows
            about["judgments"] = prepared.judgments.qrels.num_rows
            about["relevant_from"] = prepared.judgments.relevant_from
        notes = [*prepared.notes, *prepared.catalogue.notes, *(prepared.judgments.notes if prepared.judgments else ()), *log_notes.lines]
        write_json(folder / "about.json", about | {"notes": notes})
    return DataFolder(out)


def _check_out(input_path: Path, out: Path) -> None:
    """Replacing a folder removes what is in it: refuse everything that is not a data folder."""
    if input_path.resolve().is_relative_to(out.resolve()):
        raise DataError(f"{out}: holds the input {input_path} and would be replaced. Choose another output folder.")
    if out.is_dir() and any(out.iterdir()) and not (out / "catalogue.parquet").exists():
        raise DataError(f"{out}: a folder with something else than a data folder in it. Choose a new or an empty folder.")
