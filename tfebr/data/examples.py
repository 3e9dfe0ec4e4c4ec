"""Examples: request-grained rows with histories, written once as TFRecord shards that every model reads."""

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

from tfebr.data.catalogue import Catalogue
from tfebr.data.history import windows
from tfebr.data.log import SCHEMA, shown_items
from tfebr.data.names import column_key
from tfebr.data.stage import Stage
from tfebr.errors import ArtifactError, DataError
from tfebr.infrastructure.disk import tensorflow_disk_errors
from tfebr.infrastructure.files import atomic_folder, read_json, write_json
from tfebr.infrastructure.progress import progress

# What an example keeps of a history; models read a part of it. The lengths cover the longest windows of the three papers.
HISTORY_ITEMS = 200
HISTORY_QUERIES = 20
# Requests that are sorted in memory at once; a longer log is first divided by user, on disk.
_REQUESTS_IN_MEMORY = 500_000


@dataclasses.dataclass(frozen=True)
class Shards:
    """Example shards of one split on disk.

    Attributes:
        folder: holds the shards and `examples.json`.
        files: name and bytes of every shard.
        examples: how many examples they hold.
        user_columns: profile columns in the examples.
    """

    folder: Path
    files: dict[str, int]
    examples: int
    user_columns: tuple[str, ...]

    @property
    def paths(self) -> list[str]:
        return [str(self.folder / name) for name in self.files]

    @classmethod
    def read(cls, folder: str | os.PathLike, catalogue_hash: str) -> "Shards":
        """Opens written shards; raises when one is truncated or they were made for another catalogue."""
        folder = Path(folder)
        about = read_json(folder / "examples.json")
        if about["catalogue_hash"] != catalogue_hash:
            raise ArtifactError(f"{folder}: these examples were made for another catalogue. Remove the folder and train again.")
        for name, size in about["files"].items():
            found = (folder / name).stat().st_size if (folder / name).exists() else None
            if found != size:
                what = "is missing" if found is None else f"has {found} bytes instead of {size}: it is truncated or was changed"
                raise DataError(f"{folder / name}: shard {what}. Remove the folder {folder} and run the command again to rebuild it.")
        return cls(folder, about["files"], about["examples"], tuple(about["user_columns"]))


def write_examples(
    requests: Iterable[pa.RecordBatch],
    catalogue: Catalogue,
    users: pa.Table | None,
    folder: str | os.PathLike,
    ranges: Mapping[str, tuple[int | None, int | None]],
    seed: int = 0,
    total: int | None = None,
    labelled: bool = False,
    all_requests: bool = False,
    quiet: bool = False,
) -> dict[str, Shards]:
    """Turns a stream of requests in order of time into example shards, one sub-folder of `folder` for each split.

    Unless `all_requests`, only requests with a click become examples; histories come from every earlier request of the user, also from
    other splits' times.

    Args:
        requests: batches of `log.SCHEMA` (a `SearchLog`'s or a judged set's).
        users: profiles (`user_id` and string columns) or None.
        ranges: split name -> (first time, end time) in seconds, half open; None is unbounded.
        seed: shuffles the examples of a shard.
        total: requests in the stream when known, for the remaining time.
        labelled: the stages are human labels, so that a shown item without a click is a negative and not merely unclicked.

    Raises:
        DataError: a shown item is not in the catalogue (naming the request), or a split has no example.
    """
    folder, catalogue_hash = Path(folder), catalogue.content_hash()
    user_columns = tuple(c for c in users.column_names if c != "user_id") if users is not None else ()
    with tempfile.TemporaryDirectory(prefix="tfebr-examples-") as scratch, progress("examples", total, "requests", quiet) as advance:
        parts = _divide_by_user(requests, Path(scratch), max(1, -(-(total or 0) // _REQUESTS_IN_MEMORY)))
        with atomic_folder(folder) as partial:
            counts = {split: 0 for split in ranges}
            files: dict[str, dict[str, int]] = {split: {} for split in ranges}
            for number, part in enumerate(parts):
                rows = _Rows(part, catalogue, users, labelled)
                for split, (begin, end) in ranges.items():
                    chosen = np.flatnonzero(
                        (rows.clicked | all_requests) & (rows.times >= _or(begin, -(2**62))) & (rows.times < _or(end, 2**62))
                    )
                    if not len(chosen):
                        continue
                    chosen = np.random.default_rng([seed, number]).permutation(chosen)
                    name = f"part-{number:05d}.tfrecord"
                    (partial / split).mkdir(exist_ok=True)
                    with tensorflow_disk_errors(folder), tf.io.TFRecordWriter(str(partial / split / name)) as writer:
                        for row in chosen:
                            writer.write(rows.example(int(row)))
                    files[split][name] = (partial / split / name).stat().st_size
                    counts[split] += len(chosen)
                advance(len(rows.times))
            for split, count in counts.items():
                if not count:
                    raise DataError(f"{folder}: split {split!r} has no request with a click; there is nothing to learn or measure from.")
                about = {"catalogue_hash": catalogue_hash, "files": files[split], "examples": count, "user_columns": user_columns}
                write_json(partial / split / "examples.json", about)
    return {split: Shards.read(folder / split, catalogue_hash) for split in ranges}


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _divide_by_user(requests: Iterable[pa.RecordBatch], scratch: Path, parts: int) -> Iterator[pa.Table]:
    """Yields the log in `parts` tables, all requests of a user in one of them, each still in order of time."""
    if parts == 1:
        yield pa.Table.from_batches(list(requests), SCHEMA)
        return
    writers = [pq.ParquetWriter(scratch / f"{i}.parquet", SCHEMA) for i in range(parts)]
    for batch in requests:
        hashes = tf.strings.to_hash_bucket_fast(batch["user_id"].to_pylist(), parts).numpy()
        # Requests of unknown users have no history to keep together: spread them evenly.
        anonymous = pc.equal(batch["user_id"], "").to_numpy(zero_copy_only=False)
        hashes = np.where(anonymous, np.arange(batch.num_rows) % parts, hashes)
        for i in range(parts):
            mine = np.flatnonzero(hashes == i)
            if len(mine):
                writers[i].write_batch(batch.take(pa.array(mine)))
    for writer in writers:
        writer.close()
    for i in range(parts):
        yield pq.read_table(scratch / f"{i}.parquet")
        (scratch / f"{i}.parquet").unlink()


class _Rows:
    """The requests of one part in memory, with everything an example needs as arrays."""

    def __init__(self, table: pa.Table, catalogue: Catalogue, users: pa.Table | None, labelled: bool):
        self.labelled = labelled
        batch = table.combine_chunks().to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], SCHEMA)
        self.times = batch["time"].to_numpy()
        self.ids = batch["request_id"].to_pylist()
        self.user_ids = batch["user_id"].to_pylist()
        self.queries = [q.encode() for q in batch["query"].to_pylist()]
        request, item_ids, self.stages, self.positions = shown_items(batch)
        self.items = catalogue.rows_of(item_ids) + 1
        if (self.items == 0).any():
            at = int(np.argmax(self.items == 0))
            raise DataError(
                f"log: request {self.ids[request[at]]!r}: shown item {item_ids[at].as_py()!r} is not in the catalogue. "
                "Add it to the catalogue or drop it from the log."
            )
        self.offsets = np.searchsorted(request, np.arange(batch.num_rows + 1))
        self.clicked = np.zeros(batch.num_rows, bool)
        self.clicked[request[self.stages >= Stage.CLICKED]] = True
        codes = batch["user_id"].dictionary_encode()
        user = codes.indices.to_numpy().astype(np.int64)
        user = np.where(np.asarray(self.user_ids, object) == "", -1, user)
        known = np.flatnonzero((user[request] >= 0) & (self.stages >= Stage.CLICKED))
        order, self.item_windows = windows(user, self.times, user[request[known]], self.times[request[known]], HISTORY_ITEMS)
        self.event_items, self.event_stages = self.items[known][order], self.stages[known][order]
        self.event_times = self.times[request[known]][order]
        asked = np.flatnonzero(user >= 0)
        order, self.query_windows = windows(user, self.times, user[asked], self.times[asked], HISTORY_QUERIES)
        self.asked = asked[order]
        self.profiles = _profiles(users, self.user_ids)

    def example(self, row: int) -> bytes:
        """One serialized tf.train.Example."""
        shown = slice(self.offsets[row], self.offsets[row + 1])
        ages = self.times[row] - self.item_windows.newest_first(self.event_times, row)
        feature = {
            "request_id": _bytes([self.ids[row].encode()]),
            "user_id": _bytes([self.user_ids[row].encode()]),
            "time": _ints([self.times[row]]),
            "query": _bytes([self.queries[row]]),
            "items": _ints(self.items[shown]),
            "stages": _ints(self.stages[shown]),
            "positions": _ints(self.positions[shown]),
            "negatives": _ints(self.items[shown][self.stages[shown] == Stage.UNCLICKED] if self.labelled else ()),
            "history_items": _ints(self.item_windows.newest_first(self.event_items, row)),
            "history_stages": _ints(self.item_windows.newest_first(self.event_stages, row)),
            "history_ages": _ints(ages),
            "history_queries": _bytes([self.queries[r] for r in self.query_windows.newest_first(self.asked, row)]),
        }
        for key, values in self.profiles.items():
            feature[f"user_{key}"] = _bytes([values[row]])
        return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def _profiles(users: pa.Table | None, user_ids: list[str]) -> dict[str, list[bytes]]:
    """By the column's key, the value of each user."""
    if users is None:
        return {}
    at = pc.index_in(pa.array(user_ids, pa.string()), users["user_id"].combine_chunks())
    columns = {}
    for column in users.column_names:
        if column != "user_id":
            columns[column_key(column)] = [v.encode() for v in pc.fill_null(users[column].take(at), "").to_pylist()]
    return columns


def _bytes(values: list[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _ints(values: Iterable[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
