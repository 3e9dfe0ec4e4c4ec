"""A judged set becomes requests of nobody, its relevant items clicked."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfebr.data.judged_requests import requests_of
from tfebr.data.judgments import QRELS, QUERIES, Judgments
from tfebr.data.log import SCHEMA, SearchLog, write_log
from tfebr.data.stage import Stage


def judged(queries: list[str], qrels: list[tuple[str, str, float]], relevant_from: float = 2.5) -> Judgments:
    return Judgments(
        pa.table([queries, [f"text of {q}" for q in queries], ["train"] * len(queries)], schema=QUERIES),
        pa.table([[q for q, _, _ in qrels], [i for _, i, _ in qrels], [float(r) for _, _, r in qrels]], schema=QRELS),
        relevant_from,
    )


def test_one_request_per_query_best_items_first():
    judgments = judged(["q2", "q1", "q3"], [("q1", "a", 2.0), ("q2", "b", 1.0), ("q1", "c", 2.5), ("q1", "d", 3.0), ("q1", "e", 2.0)])
    (batch,) = requests_of(judgments)
    assert batch.schema == SCHEMA
    rows = batch.to_pylist()
    assert [(r["request_id"], r["query"], r["user_id"], r["time"]) for r in rows] == [
        (q, f"text of {q}", "", 0) for q in ("q2", "q1", "q3")
    ]
    assert [[(i["item_id"], i["stage"], i["position"]) for i in r["items"]] for r in rows] == [
        [("b", Stage.UNCLICKED, 0)],
        [("d", Stage.CLICKED, 0), ("c", Stage.CLICKED, 1), ("a", Stage.UNCLICKED, 2), ("e", Stage.UNCLICKED, 3)],
        [],
    ]


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 20).map(str), st.integers(0, 3)), unique_by=lambda t: t[:2]),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_matches_a_plain_loop(qrels, batch_size):
    judgments = judged(list("dbca"), qrels, relevant_from=2)
    batches = list(requests_of(judgments, batch_size))
    assert all(b.num_rows <= batch_size for b in batches)
    rows = [row for batch in batches for row in batch.to_pylist()]
    for query, row in zip("dbca", rows, strict=True):
        mine = sorted((q for q in qrels if q[0] == query), key=lambda q: -q[2])
        assert row["items"] == [{"item_id": i, "stage": int(r >= 2), "position": n} for n, (_, i, r) in enumerate(mine)]


def test_judgments_in_chunks_and_splits(tmp_path):
    judgments = judged(["q1", "q2"], [("q1", "a", 3.0), ("q2", "b", 3.0)])
    chunked = Judgments(pa.concat_tables([judgments.queries.slice(0, 1), judgments.queries.slice(1)]), judgments.qrels, 2.5).split("train")
    assert [r["items"][0]["item_id"] for b in requests_of(chunked) for r in b.to_pylist()] == ["a", "b"]


@pytest.mark.parametrize("batch_size", [1, 100])
def test_it_is_a_valid_search_log_but_for_its_time(tmp_path, batch_size):
    judgments = judged(["q1", "q2", "q3"], [("q1", "a", 3.0), ("q3", "b", 1.0)])
    wanted = [r | {"time": 1_704_067_200} for b in requests_of(judgments) for r in b.to_pylist()]
    batches = (
        pa.RecordBatch.from_pylist([r | {"time": 1_704_067_200} for r in b.to_pylist()], SCHEMA) for b in requests_of(judgments, batch_size)
    )
    assert write_log(tmp_path / "log", batches) == 3
    assert [r for b in SearchLog(tmp_path / "log").batches() for r in b.to_pylist()] == wanted
