"""Judged sets keep their contract, split by name and read back as written."""

import math

import pyarrow as pa
import pytest

from tfebr.data.judgments import QRELS, QUERIES, Judgments
from tfebr.errors import DataError


def queries(*rows: tuple[str, str, str]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(QUERIES.names, row, strict=True)) for row in rows], schema=QUERIES)


def qrels(*rows: tuple[str, str, float | None]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(QRELS.names, row, strict=True)) for row in rows], schema=QRELS)


@pytest.fixture
def judgments() -> Judgments:
    return Judgments(
        queries(("q1", "drill", "train"), ("q2", "saw", "test"), ("q3", "lamp", "test")),
        qrels(("q1", "a", 3.0), ("q2", "b", 1.0), ("q1", "c", 2.33), ("q3", "a", 2.5)),
        2.5,
    )


def test_split_keeps_its_queries_and_their_judgments(judgments):
    test = judgments.split("test")
    assert test.queries["query_id"].to_pylist() == ["q2", "q3"]
    assert test.qrels.to_pylist() == [
        {"query_id": "q2", "item_id": "b", "relevance": 1.0},
        {"query_id": "q3", "item_id": "a", "relevance": 2.5},
    ]
    assert test.relevant_from == 2.5


def test_queries_without_any_judgment_are_kept(tmp_path):
    Judgments(queries(("q1", "drill", "train")), qrels(), 1.0).write(tmp_path)
    again = Judgments.read(tmp_path)
    assert (again.queries.num_rows, again.qrels.num_rows, again.split("train").qrels.num_rows) == (1, 0, 0)


def test_split_without_queries_is_refused(judgments):
    with pytest.raises(DataError, match=r"split 'dev' has no query\. Splits: \['test', 'train'\]"):
        judgments.split("dev")


def test_written_judgments_read_back(tmp_path, judgments):
    judgments.write(tmp_path / "judgments")
    again = Judgments.read(tmp_path / "judgments")
    assert again.queries.to_pydict() == judgments.queries.to_pydict()
    assert again.qrels.to_pydict() == judgments.qrels.to_pydict()
    assert again.relevant_from == 2.5


@pytest.mark.parametrize(
    ("bad_queries", "bad_qrels", "words"),
    [
        (queries().drop_columns(["split"]), qrels(), ["queries: column `split` is missing", "Received columns: query_id, query"]),
        (queries(), qrels().drop_columns(["relevance"]), ["qrels: column `relevance` is missing"]),
        (queries(("q1", "x", "test")), qrels(("q1", "a", 1.0), ("q9", "a", 1.0)), ["qrels: row 1", "'q9'", "not among the queries"]),
        (queries(("q1", "x", "test"), ("q1", "y", "test")), qrels(), ["queries: row 1, column `query_id`", "'q1' repeats row 0"]),
        (queries(("q1", "x", "test")), qrels(("q1", "a", 1.0), ("q1", "b", math.nan)), ["qrels: row 1", "`relevance`", "finite"]),
        (queries(("q1", "x", "test")), qrels(("q1", "a", None)), ["qrels: row 0", "`relevance`", "finite"]),
    ],
    ids=["queries column", "qrels column", "unknown query", "repeated query", "nan", "null"],
)
def test_bad_judgments_are_refused(bad_queries, bad_qrels, words):
    with pytest.raises(DataError) as caught:
        Judgments(bad_queries, bad_qrels, 1.0)
    for word in words:
        assert word in str(caught.value)


def test_missing_and_truncated_files_are_named(tmp_path, judgments):
    with pytest.raises(DataError, match="no judgments here"):
        Judgments.read(tmp_path)
    judgments.write(tmp_path)
    for name in ("qrels.parquet", "queries.parquet"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=r"not a readable Parquet file.*truncated") as caught:
            Judgments.read(tmp_path)
        assert str(tmp_path) in str(caught.value)
        (tmp_path / name).write_bytes(whole)


def test_true_is_relevant():
    judged = pa.table({"query_id": ["q", "q"], "item_id": ["a", "b"], "relevance": [True, False]})
    assert Judgments(queries(("q", "saw", "test")), judged, 1.0).qrels["relevance"].to_pylist() == [1.0, 0.0]
