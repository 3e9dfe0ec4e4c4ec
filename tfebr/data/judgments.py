"""Judged sets: queries, and graded relevance of (query, item) pairs, with named splits."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfebr.errors import DataError
from tfebr.files import atomic_file

QUERIES = pa.schema([("query_id", pa.string()), ("query", pa.string()), ("split", pa.string())])
QRELS = pa.schema([("query_id", pa.string()), ("item_id", pa.string()), ("relevance", pa.float64())])


@dataclasses.dataclass(frozen=True)
class Judgments:
    """Graded judgments.

    Attributes:
        queries: `QUERIES` table; `split` is "train", "dev" or "test".
        qrels: `QRELS` table; unjudged pairs are not in it.
        relevant_from: an item is relevant when its relevance is at least this.
    """

    queries: pa.Table
    qrels: pa.Table
    relevant_from: float

    def __post_init__(self):
        for name, table, schema in (("queries", self.queries, QUERIES), ("qrels", self.qrels, QRELS)):
            missing = [c for c in schema.names if c not in table.column_names]
            if missing:
                raise DataError(f"judgments: `{name}` lacks the columns {', '.join(missing)}. Received: {', '.join(table.column_names)}.")
        _check_no_repeats(self.queries["query_id"])
        finite = np.isfinite(pc.fill_null(self.qrels["relevance"], float("nan")).to_numpy())
        if not finite.all():
            raise DataError(f"judgments: qrels row {np.argmin(finite)}, column `relevance`: not a finite number. Drop the row or grade it.")
        known = pc.is_in(self.qrels["query_id"], self.queries["query_id"].combine_chunks())
        if not pc.all(known, min_count=0).as_py():
            row = pc.index(known, False).as_py()
            raise DataError(f"judgments: qrels row {row}: query_id {self.qrels['query_id'][row].as_py()!r} is not among the queries.")

    def split(self, name: str) -> "Judgments":
        """The judgments of one split; raises DataError when the split has no query."""
        queries = self.queries.filter(pc.equal(self.queries["split"], name))
        if not queries.num_rows:
            raise DataError(f"judgments: split {name!r} has no query. Splits: {sorted(set(self.queries['split'].to_pylist()))}.")
        qrels = self.qrels.filter(pc.is_in(self.qrels["query_id"], queries["query_id"].combine_chunks()))
        return Judgments(queries, qrels, self.relevant_from)

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
        folder = Path(folder)
        try:
            queries, qrels = pq.read_table(folder / "queries.parquet"), pq.read_table(folder / "qrels.parquet")
        except FileNotFoundError as error:
            raise DataError(f"{folder}: no judgments here: {error}") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{folder}: judgments are not readable: {error}. A file may be truncated: write it again.") from error
        return cls(queries, qrels, float((qrels.schema.metadata or {}).get(b"relevant_from", b"1")))


def _check_no_repeats(ids: pa.ChunkedArray) -> None:
    seen: set[str] = set()
    for row, value in enumerate(ids.to_pylist()):
        if value in seen:
            raise DataError(f"judgments: queries row {row}: query_id {value!r} is there more than once. Query ids must be unique.")
        seen.add(value)
