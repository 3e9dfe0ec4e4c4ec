"""Judged sets: queries, and graded relevance of (query, item) pairs, with named splits."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfebr.data.columns import check_unique, ids, numbers, texts
from tfebr.data.content import content_of
from tfebr.data.entities import decoded
from tfebr.data.parquet import within
from tfebr.data.place import Notes, Place
from tfebr.data.tables import Tables
from tfebr.errors import DataError
from tfebr.infrastructure.files import atomic_file

QUERIES = pa.schema([("query_id", pa.string()), ("query", pa.string()), ("split", pa.string())])
QRELS = pa.schema([("query_id", pa.string()), ("item_id", pa.string()), ("relevance", pa.float64())])


@dataclasses.dataclass(frozen=True)
class Judgments:
    """Graded judgments.

    Attributes:
        queries: `QUERIES` table, from columns of any plain types; query ids are unique; `split` is "train", "dev" or "test".
        qrels: `QRELS` table, likewise; a pair is in it once, unjudged ones are not.
        relevant_from: an item is relevant when its relevance is at least this.
        notes: what was normalised.

    Raises:
        DataError: a column or value is missing, repeated or not of its kind, or a judgment is of no query.
    """

    queries: pa.Table
    qrels: pa.Table
    relevant_from: float
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        notes = Notes("judgments")
        queries = _queries(Tables([("judgments: queries", self.queries)], QUERIES.names, notes), notes)
        qrels = _qrels(Tables([("judgments: qrels", self.qrels)], QRELS.names, notes), queries["query_id"], notes)
        for name, value in (("queries", queries), ("qrels", qrels), ("notes", (*self.notes, *notes.lines))):
            object.__setattr__(self, name, value)

    def split(self, name: str) -> "Judgments":
        """The judgments of one split; raises DataError when the split has no query."""
        queries = self.queries.filter(pc.equal(self.queries["split"], name))
        if not queries.num_rows:
            raise DataError(f"judgments: split {name!r} has no query. Splits: {self.splits}.")
        qrels = self.qrels.filter(pc.is_in(self.qrels["query_id"], queries["query_id"].combine_chunks()))
        return Judgments(queries, qrels, self.relevant_from)

    @property
    def splits(self) -> list[str]:
        """Names of the splits that have a query."""
        return sorted(set(self.queries["split"].to_pylist()))

    def content(self) -> dict[str, str]:
        """A digest of each column, as of `tfebr.data.content`, and what is relevant."""
        found = {
            f"{name}.{column}": digest
            for name, table in (("queries", self.queries), ("qrels", self.qrels))
            for column, digest in content_of(table.to_batches()).items()
        }
        return found | {"relevant_from": repr(self.relevant_from)}

    def write(self, folder: str | os.PathLike) -> None:
        """Writes `queries.parquet` and `qrels.parquet` into `folder`."""
        for name, table, schema in (("queries", self.queries, QUERIES), ("qrels", self.qrels, QRELS)):
            table = table.select(schema.names).cast(schema)
            if name == "qrels":
                table = table.replace_schema_metadata({"relevant_from": str(self.relevant_from)})
            with atomic_file(Path(folder) / f"{name}.parquet") as partial:
                pq.write_table(table, partial)

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "Judgments":
        """Reads what `write` wrote; raises DataError when it is not there."""
        notes = Notes("judgments")
        found = {}
        for name, schema in (("queries", QUERIES), ("qrels", QRELS)):
            path = within(folder, name)
            if path is None:
                raise DataError(f"{folder}: no judgments here: no {name}.parquet.")
            found[name] = Tables.read(path, schema.names, notes)
        queries = _queries(found["queries"], notes)
        qrels = _qrels(found["qrels"], queries["query_id"], notes)
        return cls(queries, qrels, _relevant_from(found["qrels"]), tuple(notes.lines))


def _queries(tables: Tables, notes: Notes) -> pa.Table:
    query_ids = tables.column("query_id", lambda c, at: ids(c, at, "Every query needs an id.", notes), pa.string())
    check_unique(query_ids, tables.place("query_id"), "Query ids must be unique.")
    queries = tables.column("query", lambda c, at: decoded(_known(texts(c, at), at), at, notes), pa.string())
    splits = tables.column("split", lambda c, at: ids(c, at, "Every query is of a split: train, dev or test."), pa.string())
    return pa.table([query_ids, queries, splits], schema=QUERIES)


def _qrels(tables: Tables, known: pa.ChunkedArray, notes: Notes) -> pa.Table:
    query_ids, item_ids = (
        tables.column(name, lambda c, at: ids(c, at, "A judgment is of a query and an item.", notes), pa.string())
        for name in ("query_id", "item_id")
    )
    relevance = tables.column("relevance", numbers, pa.float64())
    unknown = np.isnan(relevance.to_numpy())
    if unknown.any():
        raise tables.place("relevance").refuse(int(np.argmax(unknown)), "not a finite number. Drop the row or grade it.")
    query = pc.index_in(query_ids, known.combine_chunks())
    if query.null_count:
        row = int(np.argmax(query.is_null().to_numpy()))
        raise tables.place("query_id").refuse(row, f"{query_ids[row].as_py()!r} is not among the queries.")
    _check_pairs(query.to_numpy(), item_ids, tables.place("item_id"))
    return pa.table([query_ids, item_ids, relevance], schema=QRELS)


def _known(values: pa.StringArray, place: Place) -> pa.StringArray:
    if values.null_count:
        raise place.refuse(int(np.argmax(values.is_null().to_numpy(zero_copy_only=False))), "missing. Give the query or drop the row.")
    return values


def _check_pairs(query: np.ndarray, item_ids: pa.ChunkedArray, place: Place) -> None:
    item = item_ids.combine_chunks().dictionary_encode()
    pair = query.astype(np.int64) * max(len(item.dictionary), 1) + item.indices.to_numpy()
    order = np.argsort(pair, kind="stable")
    again = order[1:][pair[order[1:]] == pair[order[:-1]]]
    if len(again):
        row = int(again.min())
        file, before = place.row(int(np.argmax(pair == pair[row])))
        raise place.refuse(row, f"{item_ids[row].as_py()!r} was judged for the same query in row {before} of {file}. Remove one of them.")


def _relevant_from(qrels: Tables) -> float:
    written = qrels.metadata.get(b"relevant_from", b"1")
    try:
        return float(written)
    except ValueError:
        raise DataError(f"{qrels.source}: the file's metadata `relevant_from` should be a number. Received: {written!r}.") from None
