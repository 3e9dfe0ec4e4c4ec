"""Best Buy mobile web site clicks (Kaggle, ACM SF Bay Area hackathon 2012): queries of real users and the products they clicked."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfebr.data.catalogue import Catalogue
from tfebr.data.log import SCHEMA, SHOWN
from tfebr.data.readers.reader import Prepared, Reader, missing_files
from tfebr.data.readers.rows import check_new, find, rows
from tfebr.data.stage import Stage
from tfebr.errors import DataError
from tfebr.infrastructure.progress import progress

_COLUMNS = ("user", "sku", "category", "query", "click_time", "query_time")
_ROWS_AT_ONCE = 65536
_TITLE = "Best Buy mobile web site clicks"
_FILES = (
    "Kaggle's train.csv with small_product_data.xml or the unpacked product_data/products/*.xml beside it, from the competition "
    "`acm-sf-chapter-hackathon-small` or `acm-sf-chapter-hackathon-big` on kaggle.com, or from a folder with clicks.tsv.gz and "
    "sku_name.tsv.gz made from them."
)


def read(path: Path, quiet: bool = False) -> Prepared:
    """Reads the clicks `clicks.tsv` or Kaggle's `train.csv` (each also as .gz or .zip), and the names beside them.

    A request is one (user, query, query_time); its items are the SKUs clicked, as CLICKED, numbered in order of their first click: the
    set does not tell what else was shown, nor where. Times have no zone in the set and are taken as UTC. The catalogue holds every SKU
    that has a name or a click: a clicked SKU without a name has the title "", a SKU without a click the category "".
    """
    folder = path if path.is_dir() else path.parent
    source = path if path.is_file() else find(path, "clicks.tsv", "train.csv")
    names = _read_names(folder) if source else None
    if source is None or names is None:
        raise missing_files(path, _TITLE, _FILES)
    with progress("reading Best Buy", None, "clicks", quiet) as advance:
        parts = []
        for part in _click_tables(source):
            parts.append(part)
            advance(part.num_rows)
    if not parts:
        raise DataError(f"{source}: no click after the header. Download the file again.")
    clicks = pa.concat_tables(parts)
    catalogue = _catalogue(clicks, names, str(source))
    notes = ("positions are the order of clicks: the set does not tell what was shown", "times are taken as UTC")
    return Prepared(catalogue, log=_requests(clicks), notes=notes)


def _click_tables(path: Path) -> Iterator[pa.Table]:
    chunk: list[list[str]] = []
    lines: list[int] = []
    for line, values in rows(path, _COLUMNS):
        if not values[1]:
            raise DataError(f"{path}: line {line}, column `sku`: empty. Remove the line.")
        chunk.append(values)
        lines.append(line)
        if len(chunk) == _ROWS_AT_ONCE:
            yield _click_table(chunk, lines, path)
            chunk, lines = [], []
    if chunk:
        yield _click_table(chunk, lines, path)


def _click_table(chunk: list[list[str]], lines: list[int], path: Path) -> pa.Table:
    columns = {name: pa.array(values, pa.string()) for name, values in zip(_COLUMNS, zip(*chunk, strict=True), strict=True)}
    for name in ("click_time", "query_time"):
        try:
            columns[name] = columns[name].cast(pa.timestamp("us"))
        except pa.ArrowInvalid:
            at = next(i for i, text in enumerate(columns[name]) if not _is_time(text))
            raise DataError(
                f"{path}: line {lines[at]}, column `{name}`: {columns[name][at].as_py()!r} is not a time like 2011-09-01 23:43:59.752. "
                "Repair the line."
            ) from None
    return pa.table(columns)


def _is_time(text: pa.Scalar) -> bool:
    try:
        text.cast(pa.timestamp("us"))
        return True
    except pa.ArrowInvalid:
        return False


def _read_names(folder: Path) -> dict[str, str] | None:
    table = find(folder, "sku_name.tsv", "sku_name.csv")
    documents = [p for p in (folder / "small_product_data.xml", *sorted(folder.glob("product_data/products/*.xml"))) if p.is_file()]
    names: dict[str, str] = {}
    if table:
        lines: dict[str, int] = {}
        for line, (sku, name) in rows(table, ("sku", "name")):
            check_new(sku, lines, "sku", table, line)
            names[sku] = name
    for document in documents:
        for sku, name in _products_of(document):
            names.setdefault(sku, name)
    return names if table or documents else None


def _products_of(path: Path) -> Iterator[tuple[str, str]]:
    try:
        events = ElementTree.iterparse(path, events=("start", "end"))
        _, root = next(events)
        for event, element in events:
            if event == "end" and element.tag == "product":
                sku = element.findtext("sku", "").strip()
                if sku:
                    yield sku, " ".join(element.findtext("name", "").split())
                # Only the emptied root keeps memory flat: it holds every product read so far.
                root.clear()
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: line {error.position[0]}: not XML: {error}. Download the file again.") from error
    except StopIteration:
        raise DataError(f"{path}: empty. Download the file again.") from None


def _catalogue(clicks: pa.Table, names: dict[str, str], source: str) -> Catalogue:
    first = clicks.group_by("sku", use_threads=False).aggregate([("category", "first")])
    categories = dict(zip(first["sku"].to_pylist(), first["category_first"].to_pylist(), strict=True))
    item_ids = [*names, *sorted(sku for sku in categories if sku not in names)]
    table = pa.table(
        {
            "item_id": pa.array(item_ids, pa.string()),
            "title": pa.array([names.get(i, "") for i in item_ids], pa.string()),
            "category": pa.array([categories.get(i, "") for i in item_ids], pa.string()),
        }
    )
    return Catalogue(table, source)


def _requests(clicks: pa.Table) -> Iterator[pa.RecordBatch]:
    order = ("query_time", "user", "query", "click_time", "sku")
    clicks = clicks.sort_by([(name, "ascending") for name in order]).combine_chunks()
    changed = np.zeros(clicks.num_rows, bool)
    changed[0] = True
    for name in ("query_time", "user", "query"):
        column = clicks[name]
        changed[1:] |= pc.not_equal(column[1:], column[:-1]).to_numpy()
    request = np.cumsum(changed) - 1

    # A product clicked twice in one request was clicked: its first click counts.
    sku = clicks["sku"].combine_chunks().dictionary_encode()
    pair = request * len(sku.dictionary) + sku.indices.to_numpy()
    kept = np.sort(np.unique(pair, return_index=True)[1])
    first = np.flatnonzero(changed)
    ends = np.append(np.searchsorted(request[kept], np.arange(len(first))), len(kept))

    heads = clicks.take(first)
    seconds = heads["query_time"].cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    items = pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()),
        pa.StructArray.from_arrays(
            [
                clicks["sku"].combine_chunks().take(kept),
                pa.array(np.full(len(kept), Stage.CLICKED), pa.int8()),
                pa.array(np.arange(len(kept)) - ends[request[kept]], pa.int16()),
            ],
            fields=list(SHOWN),
        ),
    )
    ids = pa.array([f"BB{n:08d}" for n in range(len(first))])
    table = pa.table([ids, seconds, heads["user"], heads["query"], items], schema=SCHEMA)
    yield from table.to_batches(max_chunksize=16384)


READER = Reader(_TITLE, "Kaggle competition rules: no redistribution; see the competition's page.", _FILES, read)
