"""The catalogue: one row per item, refused whole when a row is bad."""

import functools
import hashlib
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfebr.data.utf8 import first_invalid
from tfebr.errors import DataError
from tfebr.files import atomic_file


class Catalogue:
    """Items of a shop.

    `table` has `item_id` (string, unique, not empty), `title` (string), then any categorical columns (string) and numbers (float64).
    Item *row* r of every array in this project is row r of `table`; row ids in examples and item tables are r + 1, because 0 is "no item".

    Raises:
        DataError: a required column is missing, the catalogue is empty, an id is empty or repeated, a text is not valid UTF-8,
            a number is NaN or infinite. The message names the source, the row (from 0) and the column.
    """

    def __init__(self, table: pa.Table, source: str = "catalogue"):
        self.table = _validated(table, source)

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

    def content_hash(self) -> str:
        """A short hash of the item ids in order: what row ids in shards and tables refer to."""
        digest = hashlib.sha256()
        for batch in self.table.select(["item_id"]).to_batches():
            digest.update(b"\0".join(i.encode() for i in batch.column(0).to_pylist()))
            digest.update(b"\0")
        return digest.hexdigest()[:16]

    def write(self, path: str | os.PathLike) -> None:
        """Writes one Parquet file, atomically."""
        with atomic_file(path) as partial:
            pq.write_table(self.table, partial, compression="zstd")

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Catalogue":
        """Reads a Parquet file, or `catalogue.parquet` inside a data folder."""
        path = Path(path)
        if path.is_dir():
            path = path / "catalogue.parquet"
        try:
            table = pq.read_table(path, memory_map=True)
        except FileNotFoundError:
            raise DataError(f"{path}: no such catalogue. Make one with `tfebr simulate` or `tfebr prepare`.") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path}: not a readable Parquet file: {error}") from error
        return cls(table, source=str(path))


def _validated(table: pa.Table, source: str) -> pa.Table:
    for name in ("item_id", "title"):
        if name not in table.column_names:
            raise DataError(f"{source}: column `{name}` is missing. Received columns: {', '.join(table.column_names)}.")
    repeated = sorted({c for c in table.column_names if table.column_names.count(c) > 1})
    if repeated:
        raise DataError(f"{source}: column `{repeated[0]}` is there more than once. Rename or drop one of them.")
    if table.num_rows == 0:
        raise DataError(f"{source}: the catalogue is empty; it needs at least one item.")
    columns = {}
    for name in ["item_id", "title", *(c for c in table.column_names if c not in ("item_id", "title"))]:
        columns[name] = _validated_column(table[name], name, source)
    _check_ids(columns["item_id"], source)
    return pa.table(columns)


def _validated_column(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        if name in ("item_id", "title"):
            return _text(column.cast(pa.string()), name, source)
        numbers = column.cast(pa.float64())
        bad = ~np.isfinite(numbers.to_numpy())
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(
                f"{source}: row {row}, column `{name}`: not a finite number: {column[row].as_py()}. "
                "Give every item a number or drop the column."
            )
        return numbers
    return _text(column, name, source)


def _text(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    try:
        # Not one array: that of all titles may be larger than the 2 GiB that one can hold.
        texts = pc.fill_null(column.cast(pa.string()), "")
        texts.validate(full=True)
        return texts
    except pa.ArrowInvalid as error:
        row = first_invalid(column)
        if row is None:
            raise DataError(f"{source}: column `{name}`: {error}. Write the file with fewer rows in a row group.") from error
        raise DataError(f"{source}: row {row}, column `{name}`: not valid UTF-8. Re-encode the file as UTF-8.") from None
    except pa.ArrowNotImplementedError:
        raise DataError(f"{source}: column `{name}` has type {column.type}; a catalogue holds strings and numbers only.") from None


def _check_ids(ids: pa.ChunkedArray, source: str) -> None:
    empty = pc.equal(ids, "").to_numpy()
    if empty.any():
        raise DataError(f"{source}: row {int(np.argmax(empty))}, column `item_id`: empty. Every item needs an id.")
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in ids.dictionary_encode().chunks])
    first_seen = np.zeros(len(codes), bool)
    first_seen[np.unique(codes, return_index=True)[1]] = True
    if not first_seen.all():
        row = int(np.argmin(first_seen))
        first = int(np.argmax(codes == codes[row]))
        raise DataError(f"{source}: row {row}, column `item_id`: {ids[row].as_py()!r} repeats row {first}. Ids must be unique.")
