"""Requests as a reader finds them, one by one, made into batches of the search log."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tfebr.data.log import SCHEMA, SHOWN
from tfebr.errors import DataError

_ROWS_AT_ONCE = 8192
_MOST_SHOWN = 2**15 - 1


class Request(NamedTuple):
    """One request; `shown` holds (item id -> stage) in the order of the positions."""

    request_id: str
    time: int
    user_id: str
    query: str
    shown: dict[str, int]


def request_batches(requests: Iterable[Request], rows_at_once: int = _ROWS_AT_ONCE) -> Iterator[pa.RecordBatch]:
    """Yields batches of `log.SCHEMA` in the order of `requests`; positions count from 0.

    Raises:
        DataError: a request shows more items than the log's positions can count.
    """
    chunk: list[Request] = []
    for request in requests:
        if len(request.shown) > _MOST_SHOWN:
            raise DataError(f"request {request.request_id!r}: {len(request.shown):,} shown items; at most {_MOST_SHOWN:,} are possible.")
        chunk.append(request)
        if len(chunk) == rows_at_once:
            yield _batch(chunk)
            chunk = []
    if chunk:
        yield _batch(chunk)


def _batch(requests: list[Request]) -> pa.RecordBatch:
    lengths = np.array([len(r.shown) for r in requests])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    shown = pa.StructArray.from_arrays(
        [
            pa.array([item_id for r in requests for item_id in r.shown], pa.string()),
            pa.array([stage for r in requests for stage in r.shown.values()], pa.int8()),
            pa.array(np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths), pa.int16()),
        ],
        fields=list(SHOWN),
    )
    columns = [
        pa.array([r.request_id for r in requests], pa.string()),
        pa.array([r.time for r in requests], pa.int64()),
        pa.array([r.user_id for r in requests], pa.string()),
        pa.array([r.query for r in requests], pa.string()),
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), shown),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
