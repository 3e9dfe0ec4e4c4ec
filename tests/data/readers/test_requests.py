"""Requests found one by one become batches of the log."""

import numpy as np
import pytest

from tfebr.data.log import SCHEMA
from tfebr.data.readers.request_rows import Request, request_batches
from tfebr.data.stage import Stage
from tfebr.errors import DataError


def test_batches_hold_the_requests_in_order():
    requests = [
        Request("a", 3, "u", "red shoe", {"1": Stage.ORDERED, "2": Stage.UNCLICKED}),
        Request("b", 1, "", "", {}),
        Request("c", 2, "v", "ü", {"2": Stage.CARTED}),
    ]
    for at_once in (1, 2, 10):
        batches = list(request_batches(iter(requests), at_once))
        assert len(batches) == -(-3 // at_once)
        assert all(batch.schema == SCHEMA for batch in batches)
        assert [row for batch in batches for row in batch.to_pylist()] == [
            {
                "request_id": r.request_id,
                "time": r.time,
                "user_id": r.user_id,
                "query": r.query,
                "items": [{"item_id": i, "stage": s, "position": p} for p, (i, s) in enumerate(r.shown.items())],
            }
            for r in requests
        ]
    assert list(request_batches([])) == []


def test_more_items_than_positions_can_count_are_refused():
    shown = {str(i): Stage.UNCLICKED for i in range(32768)}
    with pytest.raises(DataError, match=r"request 'x': 32,768 shown items; at most 32,767"):
        list(request_batches([Request("x", 0, "u", "q", shown)]))
    del shown["0"]
    (batch,) = request_batches([Request("x", 0, "u", "q", shown)])
    np.testing.assert_array_equal(batch["items"].flatten().field("position"), np.arange(32767))
