"""EComm: ten days of clicks, collections, carts and purchases of users of Alibaba (a sample of Tianchi 231719), without queries."""

import datetime
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tfebr.data.catalogue import Catalogue
from tfebr.data.readers.reader import Prepared, Reader, missing_files
from tfebr.data.readers.request_rows import Request, request_batches
from tfebr.data.readers.rows import bare_rows, check_new, find, number
from tfebr.data.readers.time_order import in_order_of_time
from tfebr.data.stage import Stage
from tfebr.errors import DataError
from tfebr.infrastructure.progress import progress

_EVENTS = ("user_id", "item_id", "type", "date")
_ITEMS = ("item_id", "cate_1_id", "cate_id", "brand_id", "price")
_USERS = ("user_id", "gender", "age", "education", "career", "income", "stages")
_EVENT_SCHEMA = pa.schema([("time", pa.int64()), ("user_id", pa.string()), ("item_id", pa.string()), ("stage", pa.int8())])
# A collection is more than a click, but not a step to the order as a cart is.
_TYPES = {"1": Stage.CLICKED, "2": Stage.CLICKED, "3": Stage.CARTED, "4": Stage.ORDERED}
_UNKNOWN = "-1"
_DATE = re.compile("[0-9]{8}")
_INCOME_GROUPS = 10
_ROWS_AT_ONCE = 65536
_TITLE = "EComm user behaviour (Alibaba)"
_FILES = (
    "ecomm_edge_train.txt, ecomm_item_feature.txt and (for profiles) ecomm_user_feature.txt, or the same as .tsv, each also as .gz or "
    ".zip: the sample of tianchi.aliyun.com/competition/entrance/231719 that is published with DyHATR."
)


def read(path: Path, quiet: bool = False) -> Prepared:
    """Reads a folder with events, items and, where they are, users; or the file of events with the others beside it.

    The set has neither queries nor shown lists. A request is one (user, day, leaf category): the category's id is the query, the items
    touched are the shown ones, each with its highest stage, in order of their first line; there are no unclicked items. A
    collection counts as a click. A day is all the time there is: a request is at its day's midnight (UTC), and histories hold what came
    on earlier days.

    There is no text but ids: an item's title is the id of its category and, where it is known, that of its brand. Profiles are the set's
    predictions: gender, age, education, career, income (in ten groups of equal size) and the set of life stages; "" where unknown.

    Events are read as a stream and sorted on disk, a day at a time is in memory; items and users are held in memory.
    """
    folder = path if path.is_dir() else path.parent
    source = path if path.is_file() else _find(path, "ecomm_edge_train")
    items, users = _find(folder, "ecomm_item_feature"), _find(folder, "ecomm_user_feature")
    if source is None or items is None:
        raise missing_files(path, _TITLE, _FILES)
    catalogue, categories = _read_items(items)
    events = in_order_of_time(_event_batches(source, categories, items.name, quiet))
    notes = (
        "the query is the leaf category's id: the set has no queries",
        "a request is what a user touched of a category on a day; positions are the order of lines, and nothing unclicked is known",
        "a collection counts as a click; a day is at its midnight in UTC",
    )
    profiles = _read_users(users) if users else None
    return Prepared(catalogue, log=request_batches(_requests(events, categories)), users=profiles, notes=notes)


def _find(folder: Path, stem: str) -> Path | None:
    return find(folder, f"{stem}.txt", f"{stem}.tsv")


def _read_items(path: Path) -> tuple[Catalogue, dict[str, str]]:
    lines: dict[str, int] = {}
    rows = []
    for line, (item_id, category, leaf, brand, price) in bare_rows(path, _ITEMS):
        check_new(item_id, lines, "item_id", path, line)
        if not leaf:
            raise DataError(f"{path}: line {line}, column `cate_id`: empty. Every item needs one.")
        brand = "" if brand == "0" else brand
        rows.append((item_id, f"{leaf} {brand}".rstrip(), category, leaf, brand, number(price, "price", 0, 1e12, path, line)))
    if not rows:
        raise DataError(f"{path}: no item. Download the file again.")
    names = ("item_id", "title", "category", "leaf_category", "brand", "price")
    table = pa.table(dict(zip(names, (list(column) for column in zip(*rows, strict=True)), strict=True)))
    return Catalogue(table, str(path)), {row[0]: row[3] for row in rows}


def _read_users(path: Path) -> pa.Table:
    lines: dict[str, int] = {}
    rows = []
    for line, (user_id, *profile, income, stages) in bare_rows(path, _USERS):
        check_new(user_id, lines, "user_id", path, line)
        known = "" if stages == _UNKNOWN else ",".join(sorted(set(stages.split(","))))
        earned = np.nan if income == _UNKNOWN else number(income, "income", 0, 1e12, path, line)
        rows.append((user_id, *("" if value == _UNKNOWN else value for value in profile), earned, known))
    if not rows:
        raise DataError(f"{path}: no user. Download the file again.")
    columns = dict(zip(_USERS, (list(column) for column in zip(*rows, strict=True)), strict=True))
    columns["income"] = _groups(np.array(columns["income"]))
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _groups(values: np.ndarray) -> list[str]:
    """The tenth, "0" to "9", that each value falls in; "" for NaN."""
    known = values[~np.isnan(values)]
    if not len(known):
        return [""] * len(values)
    bounds = np.quantile(known, np.arange(1, _INCOME_GROUPS) / _INCOME_GROUPS)
    return ["" if np.isnan(v) else str(np.searchsorted(bounds, v, side="right")) for v in values]


def _event_batches(path: Path, categories: dict[str, str], items_name: str, quiet: bool) -> Iterator[pa.RecordBatch]:
    seconds: dict[str, int] = {}
    chunk: list[tuple] = []
    with progress("reading EComm", None, "events", quiet) as advance:
        for line, (user_id, item_id, kind, date) in bare_rows(path, _EVENTS):
            if item_id not in categories:
                raise DataError(
                    f"{path}: line {line}, column `item_id`: {item_id!r} is not in {items_name}. Add the item or remove the line."
                )
            if kind not in _TYPES:
                raise DataError(f"{path}: line {line}, column `type`: unknown type {kind!r}. Known types: {', '.join(_TYPES)}.")
            if date not in seconds:
                seconds[date] = _midnight(date, path, line)
            chunk.append((seconds[date], user_id, item_id, _TYPES[kind]))
            if len(chunk) == _ROWS_AT_ONCE:
                yield _event_batch(chunk)
                advance(len(chunk))
                chunk = []
        if chunk:
            yield _event_batch(chunk)
            advance(len(chunk))


def _event_batch(chunk: list[tuple]) -> pa.RecordBatch:
    columns = [pa.array(values, field.type) for values, field in zip(zip(*chunk, strict=True), _EVENT_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=_EVENT_SCHEMA)


def _midnight(date: str, path: Path, line: int) -> int:
    try:
        if not _DATE.fullmatch(date):
            raise ValueError  # strptime itself takes 2019061, the rest of a truncated line, for the first of June.
        day = datetime.datetime.strptime(date, "%Y%m%d")
    except ValueError:
        raise DataError(f"{path}: line {line}, column `date`: {date!r} is not a date like 20190610. Repair the line.") from None
    return int(day.replace(tzinfo=datetime.timezone.utc).timestamp())


def _requests(events: Iterator[pa.RecordBatch], categories: dict[str, str]) -> Iterator[Request]:
    today, number_of_request = None, 0
    day: dict[tuple[str, str], Request] = {}
    for batch in events:
        for time, user_id, item_id, stage in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if time != today:
                yield from day.values()
                today, day = time, {}
            key = user_id, categories[item_id]
            if key not in day:
                day[key] = Request(f"EC{number_of_request:08d}", time, *key, {})
                number_of_request += 1
            shown = day[key].shown
            shown[item_id] = max(shown.get(item_id, stage), stage)
    yield from day.values()


READER = Reader(_TITLE, "Tianchi's terms: research only, no redistribution; see the competition's page.", _FILES, read)
