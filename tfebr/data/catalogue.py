"""The catalogue: one row per item, refused whole when a row is bad."""

import functools
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfebr.data.columns import check_unique, ids, numbers, texts
from tfebr.data.content import combined, content_of
from tfebr.data.entities import decoded
from tfebr.data.parquet import within
from tfebr.data.place import Notes, Place
from tfebr.data.tables import Tables
from tfebr.errors import DataError
from tfebr.infrastructure.files import atomic_file

_REQUIRED = ("item_id", "title")


class Catalogue:
    """Items of a shop.

    `table` has `item_id` (string, unique, not empty), `title` (string), then any categorical columns (string, "" where unknown) and numbers
    (float64, NaN where unknown). HTML entities in texts are decoded. Item *row* r of every array in this project is row r of `table`; row
    ids in examples and item tables are r + 1, because 0 is "no item".

    Attributes:
        notes: what was normalised.

    Args:
        table: columns of any plain types; see `tfebr.data.columns`.
        source: what messages call it.

    Raises:
        DataError: a required column is missing, the catalogue is empty, an id is empty or repeated, no item has a title, a text is not
            valid UTF-8, a number is infinite. The message names the source, the row (from 0) and the column.
    """

    def __init__(self, table: pa.Table, source: str = "catalogue"):
        notes = Notes("catalogue")
        self.table = _validated(Tables([(source, table)], _REQUIRED, notes), notes)
        self.notes = notes.lines

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def item_ids(self) -> np.ndarray:
        """[items] item ids as Python strings (object array), in row order."""
        return self.table["item_id"].to_numpy()

    @property
    def titles(self) -> list[str]:
        """[items] titles, in row order."""
        return self.table["title"].to_pylist()

    @property
    def categorical_columns(self) -> list[str]:
        """Names of the string columns after `item_id` and `title`."""
        return [f.name for f in self.table.schema if pa.types.is_string(f.type) and f.name not in ("item_id", "title")]

    @property
    def number_columns(self) -> list[str]:
        """Names of the numeric columns."""
        return [f.name for f in self.table.schema if pa.types.is_floating(f.type)]

    def rows_of(self, item_ids: pa.Array | list[str]) -> np.ndarray:
        """Row of each id as int64, -1 where the catalogue has no such item."""
        asked = pc.fill_null(pa.array(item_ids, pa.string()), "").dictionary_encode()
        rows = np.fromiter((self._row_by_id.get(i, -1) for i in asked.dictionary.to_pylist()), np.int64, len(asked.dictionary))
        return rows[asked.indices.to_numpy()]

    @functools.cached_property
    def _row_by_id(self) -> dict[str, int]:
        """Kept for the batches of a log: Arrow's `index_in` would hash the whole catalogue for each of them."""
        return {item_id: row for row, item_id in enumerate(self.table["item_id"].to_pylist())}

    @functools.cached_property
    def content(self) -> dict[str, str]:
        """A digest of each column, as of `tfebr.data.content`: what was made from one catalogue fits no other."""
        return content_of(self.table.to_batches())

    def content_hash(self) -> str:
        """A short hash of all columns: of what row ids in shards and tables refer to, and of what those rows hold."""
        return combined(self.content)[:16]

    def write(self, path: str | os.PathLike) -> None:
        """Writes one Parquet file, atomically."""
        with atomic_file(path) as partial:
            pq.write_table(self.table, partial, compression="zstd")

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Catalogue":
        """Reads a Parquet file, a folder of them (see `tfebr.data.parquet.parts`), or the catalogue inside a data folder."""
        path = Path(path)
        path = (within(path, "catalogue") if path.is_dir() else None) or path
        if not path.exists():
            raise DataError(f"{path}: no such catalogue. Make one with `tfebr simulate` or `tfebr prepare`.")
        notes = Notes("catalogue")
        catalogue = cls.__new__(cls)
        catalogue.table = _validated(Tables.read(path, _REQUIRED, notes), notes)
        catalogue.notes = notes.lines
        return catalogue


def _validated(tables: Tables, notes: Notes) -> pa.Table:
    if not tables.rows:
        raise DataError(f"{tables.source}: the catalogue is empty; it needs at least one item.")
    columns = {"item_id": tables.column("item_id", lambda c, at: ids(c, at, "Every item needs an id.", notes), pa.string())}
    check_unique(columns["item_id"], tables.place("item_id"), "Ids must be unique.")
    for name in tables.names[1:]:
        if name != "title" and tables.holds_numbers(name):
            columns[name] = tables.column(name, numbers, pa.float64())
            unknown = sum(int(np.isnan(chunk.to_numpy()).sum()) for chunk in columns[name].chunks)
            notes.add(name, "items have no number there; a filter by a range leaves them out", unknown)
            continue
        found = tables.column(name, lambda c, at: decoded(texts(c, at), at, notes), pa.string())
        if name == "title":
            _check_titles(found, tables.place(name), notes)
        columns[name] = pc.fill_null(found, "")
    return pa.table(columns)


def _check_titles(titles: pa.ChunkedArray, place: Place, notes: Notes) -> None:
    if titles.null_count == len(titles):
        raise place.refuse_whole("has no value: every title is missing. Models and BM25 read items by their titles.")
    blank = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(titles, "")), "")
    notes.add(place.column, "items have no title; they are found by their other columns", pc.sum(blank).as_py())
