"""Requests of a search log as a file has them, brought to the log's own columns or refused by file, row and column."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfebr.data.columns import ids, is_number, optional_ids, plain, texts, whole
from tfebr.data.entities import decoded
from tfebr.data.place import Notes, Place
from tfebr.data.stage import Stage
from tfebr.data.times import seconds
from tfebr.errors import DataError

SHOWN = pa.struct([("item_id", pa.string()), ("stage", pa.int8()), ("position", pa.int16())])
SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("time", pa.int64()),
        ("user_id", pa.string()),
        ("query", pa.string()),
        ("items", pa.list_(SHOWN)),
    ]
)
_NEEDED = "A shown item needs an id, a stage and a position."
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view, pa.types.is_large_list_view)
_MOST = 2**15 - 1


def requests(columns: dict[str, pa.Array], source: str, first_row: int, notes: Notes, first_position: int = 0) -> pa.RecordBatch:
    """A batch of `SCHEMA` from columns of any plain types.

    Args:
        columns: those of the schema, by name.
        source: the file that they come from.
        first_row: the row in it of the first request.
        first_position: what positions of the log count from; they count from 0 in the batch. Negative ones stay as they are: unknown.

    Raises:
        DataError: a value is missing, is not what its column holds or has no plain meaning.
    """
    places = {name: Place.of(source, name, first_row) for name in SCHEMA.names}
    request_ids = ids(columns["request_id"], places["request_id"], "Every request needs an id.", notes)
    users = _users(columns["user_id"], places["user_id"], notes)
    queries = _queries(columns["query"], places["query"], notes)
    items = _items(columns["items"], source, first_row, notes, first_position)
    return pa.RecordBatch.from_arrays([request_ids, seconds(columns["time"], places["time"]), users, queries, items], schema=SCHEMA)


def check_order(batch: pa.RecordBatch, source: str, first_row: int, last_time: int | None) -> int | None:
    """The time of the batch's last request; raises DataError naming one that comes before the request in front of it."""
    times = batch["time"].to_numpy()
    if not len(times):
        return last_time
    before = np.concatenate([[times[0] if last_time is None else last_time], times[:-1]])
    if (times < before).any():
        row = int(np.argmax(times < before))
        raise Place.of(source, "time", first_row).refuse(
            row, f"{times[row]} comes after {before[row]}. Sort the log by time: histories are built from what came before."
        )
    return int(times[-1])


def positions(items: pa.Array, source: str, first_row: int) -> np.ndarray:
    """int64 positions of the shown items of a batch, as they are written."""
    rows, fields = _shown(items, source, first_row)
    return whole(fields["position"], Place.of(source, "items.position", first_row, rows), -_MOST, _MOST + 1, _NEEDED)


def rows_of_shown(items: pa.Array) -> np.ndarray:
    """The row of each shown item in a column of lists."""
    lengths = pc.fill_null(pc.list_value_length(items), 0).to_numpy(zero_copy_only=False)
    return np.repeat(np.arange(len(items)), lengths)


def _users(values: pa.Array, place: Place, notes: Notes) -> pa.StringArray:
    """Ids, or "" where the user is unknown."""
    found = optional_ids(values, place, notes)
    notes.add(place.column, "requests have no user; they have no history", found.null_count)
    return pc.fill_null(found, "")


def _queries(values: pa.Array, place: Place, notes: Notes) -> pa.StringArray:
    found = texts(values, place)
    if found.null_count:
        row = int(np.argmax(found.is_null().to_numpy(zero_copy_only=False)))
        raise place.refuse(row, 'missing. Write "" for an empty query.')
    return decoded(found, place, notes)


def _items(column: pa.Array, source: str, first_row: int, notes: Notes, first_position: int) -> pa.ListArray:
    rows, fields = _shown(column, source, first_row)
    places = {name: Place.of(source, f"items.{name}", first_row, rows) for name in fields}
    item_ids = ids(fields["item_id"], places["item_id"], _NEEDED, notes)
    stages = _stages(fields["stage"], places["stage"])
    at = whole(fields["position"], places["position"], -_MOST, _MOST + first_position, _NEEDED)
    if first_position:
        notes.add("items.position", f"positions count from {first_position}; they were made to count from 0")
        at = np.where(at > 0, at - first_position, at)
    shown = pa.StructArray.from_arrays([item_ids, pa.array(stages, pa.int8()), pa.array(at, pa.int16())], fields=list(SHOWN))
    ends = np.searchsorted(rows, np.arange(len(column) + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), shown)


def _shown(column: pa.Array, source: str, first_row: int) -> tuple[np.ndarray, dict[str, pa.Array]]:
    """The row of each shown item, and the fields of all of them by name; whatever else a shop writes there is left out."""
    place = Place.of(source, "items", first_row)
    kind = column.type
    if pa.types.is_null(kind) or not len(column):
        return np.zeros(0, np.int64), {field.name: pa.nulls(0, field.type) for field in SHOWN}
    if not any(is_list(kind) for is_list in _LISTS) or not pa.types.is_struct(kind.value_type):
        raise place.refuse_whole(f"has a wrong type: {kind}. Expected: {SCHEMA.field('items').type}.")
    rows, flat = rows_of_shown(column), column.flatten()
    if flat.null_count:
        at = int(np.argmax(flat.is_null().to_numpy(zero_copy_only=False)))
        raise Place.of(source, "items", first_row, rows).refuse(at, f"missing. {_NEEDED}")
    names = [field.name for field in flat.type]
    for field in SHOWN:
        if names.count(field.name) != 1:
            raise DataError(f"{source}: column `items.{field.name}` is missing. Received fields of a shown item: {', '.join(names)}.")
    return rows, {field.name: flat.field(field.name) for field in SHOWN}


def _stages(values: pa.Array, place: Place) -> np.ndarray:
    """Stages by number, or by name in any case."""
    values = plain(values, place)
    if is_number(values.type) or pa.types.is_boolean(values.type) or pa.types.is_null(values.type):
        found = whole(values, place, -_MOST, _MOST, _NEEDED)
    else:
        names = pc.utf8_lower(pc.utf8_trim_whitespace(texts(values, place)))
        if names.null_count:
            raise place.refuse(int(np.argmax(names.is_null().to_numpy(zero_copy_only=False))), f"missing. {_NEEDED}")
        known = pc.index_in(names, pa.array([*(stage.name.lower() for stage in Stage), *(str(stage.value) for stage in Stage)]))
        found = pc.fill_null(known, -1).to_numpy()
        found = np.where(found >= 0, found % len(Stage), -1)
    bad = (found < min(Stage)) | (found > max(Stage))
    if bad.any():
        row = int(np.argmax(bad))
        allowed = ", ".join(f"{stage.value} = {stage.name.lower()}" for stage in Stage)
        raise place.refuse(row, f"unknown stage {values[row].as_py()!r}. Known stages: {allowed}.")
    return found
