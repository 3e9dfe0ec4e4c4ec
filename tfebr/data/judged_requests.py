"""A judged set as requests, so that a set without users trains by the same path as a search log."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfebr.data.judgments import Judgments
from tfebr.data.log import SCHEMA, SHOWN
from tfebr.data.stage import Stage


def requests_of(judgments: Judgments, batch_size: int = 16384) -> Iterator[pa.RecordBatch]:
    """Yields batches of the search log's `SCHEMA`, one request per query in the order of `judgments.queries`.

    `request_id` is the query id, `user_id` is "" and `time` 0: nobody has a history. The shown items are the judged ones from the highest
    relevance down (equal ones in the order of the judgments): CLICKED from `judgments.relevant_from` on, UNCLICKED below. A query without
    a judgment shows nothing.
    """
    queries = judgments.queries.combine_chunks()
    qrels = judgments.qrels
    row = pc.index_in(qrels["query_id"], queries["query_id"].combine_chunks()).to_numpy()
    relevance = qrels["relevance"].to_numpy()
    order = np.lexsort((-relevance, row))
    row, relevance = row[order], relevance[order]
    bounds = np.searchsorted(row, np.arange(queries.num_rows + 1))
    stages = np.where(relevance >= judgments.relevant_from, Stage.CLICKED, Stage.UNCLICKED)
    items = pa.ListArray.from_arrays(
        pa.array(bounds, pa.int32()),
        pa.StructArray.from_arrays(
            [
                qrels["item_id"].combine_chunks().take(pa.array(order)),
                pa.array(stages, pa.int8()),
                pa.array(np.arange(len(row)) - bounds[row], pa.int16()),
            ],
            fields=list(SHOWN),
        ),
    )
    users = pa.array([""] * queries.num_rows, pa.string())
    times = pa.array(np.zeros(queries.num_rows, np.int64))
    table = pa.table([queries["query_id"], times, users, queries["query"], items], schema=SCHEMA)
    yield from table.to_batches(max_chunksize=batch_size)
