"""The search log: one row per request with the items that were shown and how far each got, in order of time."""

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfebr.data.columns import ids
from tfebr.data.log_rows import SCHEMA, SHOWN, check_order, positions, requests, rows_of_shown
from tfebr.data.parquet import Part, parts
from tfebr.data.place import Notes, Place
from tfebr.data.request_ids import RequestIds
from tfebr.data.stage import Stage
from tfebr.data.times import seconds
from tfebr.errors import DataError
from tfebr.infrastructure.checks import check_number
from tfebr.infrastructure.files import atomic_folder

__all__ = ["SCHEMA", "SHOWN", "SearchLog", "clicked_items", "shown_items", "split_time", "write_log"]

_ROWS_AT_ONCE = 65_536
_FAR = 2**31


class SearchLog:
    """A search log on disk: Parquet files, read as a stream of record batches.

    Columns (`SCHEMA`): `request_id` (string, unique in the whole log), `time` (int64, seconds since 1970), `user_id` (string, "" when
    unknown), `query` (string), `items` (list of `item_id`, `stage` as `Stage`'s number, `position` from 0, negative when unknown). Requests
    are in order of time. Files may hold other plain types (see `tfebr.data.columns` and `tfebr.data.times`), stages by name, fields of
    an item in any order, and more columns and fields. Where no position of the log is 0 and the least is 1, positions count from 1 there.

    Attributes:
        files: in the order in which they are read; see `tfebr.data.parquet.parts`.
        notes: what was normalised, of the last time that `batches` read the whole log.

    Args:
        path: a file, or a folder of files.

    Raises:
        DataError: there is no file, or one is not readable or lacks a column.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._parts = parts(path)
        self.files = [part.path for part in self._parts]
        self.notes: list[str] = []
        if not self.files:
            raise DataError(f"{self.path}: no Parquet file of a search log found here.")
        for part in self._parts:
            _check_names(part)

    def __len__(self) -> int:
        return sum(part.rows() for part in self._parts)

    def batches(self, batch_size: int = 16384) -> Iterator[pa.RecordBatch]:
        """Yields validated record batches; raises DataError naming file, row and column at the first bad row.

        A request id that is there twice is found when the whole log has been read.
        """
        notes, request_ids, last_time = Notes("log"), RequestIds(), None
        for file, row, columns in self._columns(SCHEMA.names, batch_size):
            batch = requests(columns, file, row, notes, self._first_position)
            last_time = check_order(batch, file, row, last_time)
            request_ids.add(batch["request_id"])
            yield batch
        request_ids.check(self._request_ids())
        self.notes = notes.lines

    def time_at(self, row: int) -> int:
        """The time of one request of the log, without reading the others."""
        for part in self._parts:
            rows = part.rows()
            if row < rows:
                return seconds(part.row(row, "time"), Place.of(str(part.path), "time", row))[0].as_py()
            row -= rows
        raise DataError(f"{self.path}: the log is empty; it needs at least one request.")

    @functools.cached_property
    def _first_position(self) -> int:
        """What positions count from: 0, or 1 when that is the least of all of them."""
        told = [part.least("items", "position") for part in self._parts]
        least = min((at for at in told if at is not None), default=-1)
        if None in told or least < 0:
            least = _FAR
            for file, row, columns in self._columns(["items"], _ROWS_AT_ONCE):
                found = positions(columns["items"], file, row)
                least = min(least, found[found >= 0].min(initial=_FAR))
                if least == 0:
                    break
        return 1 if least == 1 else 0

    def _columns(self, names: list[str], batch_size: int) -> Iterator[tuple[str, int, dict[str, pa.Array]]]:
        """File, first row and the named columns as they are, of a batch at a time."""
        for part in self._parts:
            row = 0
            try:
                for columns in part.batches(names, batch_size):
                    yield str(part.path), row, columns
                    row += len(columns[names[0]])
            except (pa.ArrowException, OSError) as error:
                raise DataError(
                    f"{part.path}: near row {row}: not readable: {error}. The file may be truncated: write it again."
                ) from error

    def _request_ids(self) -> Iterator[tuple[str, int, pa.StringArray]]:
        for file, row, columns in self._columns(["request_id"], _ROWS_AT_ONCE):
            yield file, row, ids(columns["request_id"], Place.of(file, "request_id", row), "")


def write_log(path: str | os.PathLike, batches: Iterable[pa.RecordBatch], rows_per_file: int = 500_000, notes: Notes | None = None) -> int:
    """Writes batches with the columns of `SCHEMA` as a folder of Parquet files, atomically; every batch is validated as in a `SearchLog`.

    Positions are written as they are. What is normalised goes to `notes`. Returns the number of requests.
    """
    total, last_time, notes, request_ids = 0, None, notes or Notes("log"), RequestIds()
    with atomic_folder(path) as folder:
        writer, in_file, file_number = None, 0, 0
        try:
            for batch in batches:
                batch = requests(_named(batch, str(path)), str(path), total, notes)
                last_time = check_order(batch, str(path), total, last_time)
                request_ids.add(batch["request_id"])
                if writer is None or in_file >= rows_per_file:
                    if writer is not None:
                        writer.close()
                    writer = pq.ParquetWriter(folder / f"part-{file_number:05d}.parquet", SCHEMA, compression="zstd")
                    in_file, file_number = 0, file_number + 1
                writer.write_batch(batch)
                in_file += batch.num_rows
                total += batch.num_rows
        finally:
            if writer is not None:
                writer.close()
        if total == 0:
            raise DataError(f"{path}: the log is empty; it needs at least one request.")
        request_ids.check(_written_ids(folder, str(path)))
    return total


def split_time(log: SearchLog, test_share: float = 0.1) -> int:
    """The time (seconds since 1970) from which on lie the last `test_share` of the log's requests, more where times are equal.

    Raises:
        ConfigError: `test_share` is not strictly between 0 and 1.
        DataError: no time leaves a request on both sides.
    """
    check_number("test_share", test_share, "(0, 1)")
    total = len(log)
    first = log.time_at(0)
    time = log.time_at(total - max(1, round(total * test_share)))
    if time == first:
        raise DataError(
            f"{log.path}: no time splits this log of {total} requests into two parts. Use a longer log or a smaller test share."
        )
    return time


def shown_items(batch: pa.RecordBatch) -> tuple[np.ndarray, pa.Array, np.ndarray, np.ndarray]:
    """The flat shown items of a batch: (row in the batch [n], item ids [n], stages int8 [n], positions int16 [n])."""
    flat = batch["items"].flatten()
    return rows_of_shown(batch["items"]), flat.field("item_id"), flat.field("stage").to_numpy(), flat.field("position").to_numpy()


def clicked_items(batch: pa.RecordBatch) -> tuple[np.ndarray, pa.Array]:
    """The items of a batch with stage CLICKED or later, flat: (row in the batch [n], item ids [n])."""
    rows, item_ids, stages, _ = shown_items(batch)
    clicked = np.flatnonzero(stages >= Stage.CLICKED)
    return rows[clicked], item_ids.take(pa.array(clicked))


def _check_names(part: Part) -> None:
    names = part.column_names()
    for name in SCHEMA.names:
        if names.count(name) != 1:
            problem = "is missing" if name not in names else "is there more than once"
            raise DataError(f"{part.path}: column `{name}` {problem}. Received columns: {', '.join(names)}.")


def _named(batch: pa.RecordBatch, source: str) -> dict[str, pa.Array]:
    for name in SCHEMA.names:
        if name not in batch.schema.names:
            raise DataError(f"{source}: column `{name}` is missing. Received columns: {', '.join(batch.schema.names)}.")
    return {name: batch[name] for name in SCHEMA.names}


def _written_ids(folder: Path, source: str) -> Iterator[tuple[str, int, pa.StringArray]]:
    """As they came: in one stream, whose rows are those of all files."""
    row = 0
    for part in parts(folder):
        for columns in part.batches(["request_id"], _ROWS_AT_ONCE):
            yield source, row, columns["request_id"]
            row += len(columns["request_id"])
