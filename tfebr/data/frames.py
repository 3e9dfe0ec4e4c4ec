"""A data folder from what is in memory: frames of pandas or polars, Arrow tables, dicts of columns, or a tf.data.Dataset."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfebr.data.catalogue import Catalogue
from tfebr.data.columns import plain, texts
from tfebr.data.dataset import DataFolder
from tfebr.data.judgments import Judgments
from tfebr.data.log import write_log
from tfebr.data.place import Notes, Place
from tfebr.data.stage import Stage
from tfebr.data.tables import Tables
from tfebr.data.users import conformed
from tfebr.errors import DataError
from tfebr.infrastructure.files import atomic_folder

# The time of the first row of a log that says none: such rows are taken in their order, one a second.
_NO_TIME = 946_684_800
_TEXTS = ("request_id", "user_id", "query", "item_id")
_EVENT = (*_TEXTS, "time", "stage", "position")


def to_table(frame: Any, name: str = "frame") -> pa.Table:
    """An Arrow table from a pandas or polars frame, an Arrow table or reader, a dict of columns, or a tf.data.Dataset of dicts.

    A pandas index is no column. Elements of a dataset are rows, or batches of rows.

    Raises:
        DataError: it is none of these, naming it.
    """
    if isinstance(frame, pa.Table):
        return frame
    try:
        if isinstance(frame, Mapping):
            return pa.table({str(column): pa.array(values) for column, values in frame.items()})
        if _of("pandas", "DataFrame", frame):
            return pa.Table.from_pandas(frame, preserve_index=False)
        if _of("tensorflow", "data.Dataset", frame):
            return _from_dataset(frame, name)
        if hasattr(frame, "__arrow_c_stream__"):
            return pa.table(frame)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DataError(f"`{name}`: not readable as a table: {error}") from error
    raise DataError(
        f"`{name}` must be a pandas or polars frame, an Arrow table, a dict of columns or a tf.data.Dataset of dicts. "
        f"Received: {type(frame).__module__}.{type(frame).__qualname__}."
    )


def write_frames(path: str | os.PathLike, catalogue: Any, log: Any, users: Any = None) -> DataFolder:
    """Writes a data folder, atomically, and opens it.

    Args:
        catalogue: one row an item: `item_id`, `title`, then any categorical columns and numbers.
        log: in one of three forms, told apart by its columns.
            Requests: `items`, a list of `item_id`, `stage`, `position`, with `query` and what else a search log has.
            Events: one row for each `query` and `item_id`, with any of `request_id` (rows of one request belong together; else each row
            is one), `user_id`, `time` (else the rows are in order), `stage` (else clicked) and `position` (else the order of the rows).
            Judgments: `query`, `item_id` and `relevance`, with any of `query_id`, `split` (else "train") and `relevant_from`'s default 1.
        users: one row a user: `user_id`, then profile columns.

    Raises:
        DataError: a column is missing, or the content is refused as in a data folder that lies on disk.
    """
    path, table = Path(path), to_table(log, "log")
    with atomic_folder(path) as folder:
        Catalogue(to_table(catalogue, "catalogue"), "`catalogue`").write(folder / "catalogue.parquet")
        if "relevance" in table.column_names:
            _judgments(table).write(folder / "judgments")
        else:
            requests = table if "items" in table.column_names else _requests(table)
            write_log(folder / "log", _complete(requests).to_batches(max_chunksize=16384))
        if users is not None:
            notes = Notes("users")
            profiles = conformed(Tables([("`users`", to_table(users, "users"))], ["user_id"], notes), notes)
            pq.write_table(profiles, folder / "users.parquet")
    return DataFolder(path)


def _of(package: str, name: str, value: Any) -> bool:
    """Whether `value` is an instance of a class of a package; nobody has one of a package that is not loaded."""
    found: Any = sys.modules.get(package)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is not None and isinstance(value, found)


def _from_dataset(dataset: Any, name: str) -> pa.Table:
    spec = dataset.element_spec
    if not isinstance(spec, Mapping) or not all(getattr(value.shape, "rank", None) in (0, 1) for value in spec.values()):
        raise DataError(f"`{name}` must be a dataset of dicts from column to a scalar or a batch of scalars. Received elements: {spec}.")
    blocks = [
        pa.table({column: _plain(np.atleast_1d(value)) for column, value in element.items()}) for element in dataset.as_numpy_iterator()
    ]
    return pa.concat_tables(blocks) if blocks else pa.table({column: pa.array([], pa.string()) for column in spec})


def _plain(values: np.ndarray) -> pa.Array:
    # TensorFlow's strings are bytes; the checks of a data folder find what is no UTF-8.
    return pa.array(values.tolist(), pa.binary()) if values.dtype == object else pa.array(values)


def _requests(events: pa.Table) -> pa.Table:
    """One row for each request from one row for each shown item."""
    _need(events, "query", "item_id")
    rows = events.num_rows
    columns = {name: _plain_column(events, name) for name in _EVENT if name in events.column_names}
    if "time" in columns:
        order = pc.sort_indices(pa.table({"time": columns["time"]}), sort_keys=[("time", "ascending")])
        columns = {name: column.take(order) for name, column in columns.items()}
    if "request_id" not in columns:
        # Rows are told apart by their place.
        columns["request_id"] = pa.array(np.arange(rows).astype(str))
    code = pc.fill_null(columns["request_id"], "").dictionary_encode().indices.to_numpy()
    # By request, requests in the order of their first row, rows of a request as they came.
    by_request = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[by_request], prepend=-1))
    bounds = np.append(starts, rows)
    place = np.arange(rows) - np.repeat(starts, np.diff(bounds))
    taken = {name: column.take(pa.array(by_request)) for name, column in columns.items()}
    stage = taken.get("stage", pa.array(np.full(rows, Stage.CLICKED, np.int8)))
    position = taken.get("position", pa.array(place.astype(np.int16)))
    items = pa.StructArray.from_arrays([taken["item_id"], stage, position], ["item_id", "stage", "position"])
    first = {name: taken[name].take(pa.array(starts)) for name in ("request_id", "time", "user_id", "query") if name in taken}
    return pa.table(first | {"items": pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), items)})


def _plain_column(events: pa.Table, name: str) -> pa.Array:
    place, column = Place.of("`log`", name), events[name].combine_chunks()
    return texts(column, place) if name in _TEXTS else plain(column, place)


def _complete(requests: pa.Table) -> pa.Table:
    """With the columns of a search log that a frame may leave out."""
    _need(requests, "query", "items")
    columns, rows = {name: requests[name] for name in requests.column_names}, requests.num_rows
    columns.setdefault("request_id", pa.array(np.arange(rows).astype(str)))
    columns.setdefault("time", pa.array(_NO_TIME + np.arange(rows, dtype=np.int64)))
    columns.setdefault("user_id", pa.array([""] * rows, pa.string()))
    return pa.table(columns)


def _judgments(table: pa.Table) -> Judgments:
    _need(table, "query", "item_id", "relevance")
    ids, split = (_plain_or(table, *names) for names in (("query_id", "query"), ("split",)))
    split = pa.array(["train"] * table.num_rows, pa.string()) if split is None else split
    qrels = pa.table({"query_id": ids, "item_id": table["item_id"], "relevance": table["relevance"]})
    judged = pa.table({"query_id": ids, "query": _plain_or(table, "query"), "split": split})
    queries = judged.group_by(judged.column_names, use_threads=False).aggregate([])
    return Judgments(queries, qrels, 1.0)


def _plain_or(table: pa.Table, *names: str) -> pa.Array | None:
    """The first of the columns that there is, as text."""
    name = next((name for name in names if name in table.column_names), None)
    return None if name is None else texts(table[name].combine_chunks(), Place.of("`log`", name))


def _need(table: pa.Table, *columns: str) -> None:
    for column in columns:
        if column not in table.column_names:
            raise DataError(f"`log`: column `{column}` is missing. Received columns: {', '.join(table.column_names)}.")
