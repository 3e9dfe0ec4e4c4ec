import re

import ir_measures
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tfebr.data.judgments import QRELS
from tfebr.errors import DataError
from tfebr.evaluation.ranking import Ranking
from tfebr.evaluation.runs import read_qrels, read_run, write_qrels, write_run

ITEM_IDS = ["a", "läuft", "商品-3", "4/5", "x#y"]


@st.composite
def rankings(draw):
    n, depth = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    rows, scores = np.full((n, depth), -1), np.zeros((n, depth), np.float32)
    for i in range(n):
        count = draw(st.integers(0, depth))
        rows[i, :count] = draw(st.permutations(range(5)))[:count]
        each = st.floats(width=32, allow_nan=False, allow_infinity=False)
        scores[i, :count] = sorted(draw(st.lists(each, min_size=count, max_size=count)), reverse=True)
    # Equal scores must keep their order too.
    return Ranking(rows, np.zeros_like(scores) if draw(st.booleans()) else scores)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ranking=rankings())
def test_a_run_comes_back_as_it_was(tmp_path, ranking):
    query_ids = [f"Q{i}" for i in range(len(ranking))]
    write_run(tmp_path / "run.txt", query_ids, ranking, ITEM_IDS, "dpsr")
    back = read_run(tmp_path / "run.txt", query_ids, ITEM_IDS)
    depth = max(1, int((ranking.item_rows >= 0).sum(axis=1).max()))
    assert np.array_equal(back.item_rows, ranking.item_rows[:, :depth])
    assert np.array_equal(back.scores, ranking.scores[:, :depth])
    foreign = list(ir_measures.read_trec_run(str(tmp_path / "run.txt")))
    assert [(r.query_id, r.doc_id) for r in foreign] == [
        (query_ids[i], ITEM_IDS[row]) for i, rows in enumerate(ranking.item_rows) for row in rows if row >= 0
    ]


def test_a_run_has_the_layout_of_trec(tmp_path):
    write_run(
        tmp_path / "run.txt", ["q1", "q2"], Ranking(np.array([[2, 0], [-1, -1]]), np.array([[1.5, 0.1], [0, 0]])), ["a", "b", "c"], "t"
    )
    assert (tmp_path / "run.txt").read_text() == "q1 Q0 c 1 1.5 t\nq1 Q0 a 2 0.100000001 t\n"


def test_a_run_of_another_tool_is_ordered_by_score(tmp_path):
    (tmp_path / "run.txt").write_text("q Q0 b 9 1.0 x\n\nq\tQ0\ta\t8\t1.0\tx\nq Q0 c 1 2e0 x\n")
    assert read_run(tmp_path / "run.txt", ["q"], ["a", "b", "c"]).item_rows.tolist() == [[2, 0, 1]]


# What a reader of another tool may take for the end of a field or a line, and what an escape is made of.
HARD = st.text(
    st.sampled_from(" \t\n\r\x00\x0b\x0c\x1c\x1f\x7f\x85\xa0\u1680\u2003\u2028\u2029\u3000\ufeff%%2050aA\u5546")
    | st.characters(exclude_categories=("Cs",))
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(HARD, min_size=2, max_size=4, unique=True), st.lists(HARD, min_size=3, max_size=3, unique=True), HARD)
@example(["", "%"], ["%", "%25", "%%"], "")
@example(["50%", "50%25"], ["a b", "a%20b", "a%2520b"], "two words")
def test_any_ids_come_back_as_they_were(tmp_path, query_ids, item_ids, tag):
    ranking = Ranking(np.array([[0, 1, 2]] * len(query_ids)), np.array([[3, 2, 1]] * len(query_ids)))
    write_run(tmp_path / "run.txt", query_ids, ranking, item_ids, tag)
    assert np.array_equal(read_run(tmp_path / "run.txt", query_ids, item_ids).item_rows, ranking.item_rows)
    write_qrels(tmp_path / "qrels.txt", query_ids, item_ids[:1] * len(query_ids), [1] * len(query_ids))
    assert read_qrels(tmp_path / "qrels.txt").to_pydict() == {
        "query_id": query_ids,
        "item_id": item_ids[:1] * len(query_ids),
        "relevance": [1.0] * len(query_ids),
    }
    # Readers of other tools see as many lines, fields and different ids as there are, whatever they take for whitespace.
    for file, fields, ids in (("run.txt", 6, 3 * len(query_ids)), ("qrels.txt", 4, len(query_ids))):
        lines = (tmp_path / file).read_bytes().decode().splitlines()
        assert [len(re.split(r"[\s\x00-\x1f\x7f-\x9f\ufeff]+", line)) for line in lines] == [fields] * ids
        assert len({(line.split()[0], line.split()[2]) for line in lines}) == ids


def test_ordinary_ids_are_written_as_they_are_and_foreign_ones_read_as_they_stand(tmp_path):
    write_qrels(tmp_path / "qrels.txt", ["caf\u00e9-\u5546/4#x"], ["a&b=c+d"], [1])
    assert (tmp_path / "qrels.txt").read_text() == "caf\u00e9-\u5546/4#x 0 a&b=c+d 1\n"
    (tmp_path / "foreign.txt").write_text("50% 0 a%41 1\n100%zz 0 %ff 1\n")
    assert read_qrels(tmp_path / "foreign.txt").to_pydict()["query_id"] == ["50%", "100%zz"]
    assert read_qrels(tmp_path / "foreign.txt").to_pydict()["item_id"] == ["a%41", "%ff"]


@pytest.mark.parametrize(
    ("query_ids", "item_ids", "message"),
    [(["q"], ["a"], "1 query ids .* 2 requests"), (["q", "q"], ["a", "b"], "'q' is given twice"), (["q", "r"], ["a"], "holds item row 1")],
)
def test_ids_that_do_not_fit_the_ranking_are_refused(tmp_path, query_ids, item_ids, message):
    with pytest.raises(DataError, match=message):
        write_run(tmp_path / "run.txt", query_ids, Ranking(np.array([[0], [1]]), np.ones((2, 1))), item_ids, "t")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 a 1 2.0", "line 2: expected `query_id Q0 item_id rank score tag`"),
        ("r Q0 b 1 2.0 t", "line 2: query_id 'r'"),
        ("q Q0 z 1 2.0 t", "line 2: item_id 'z' is not in the catalogue of 2"),
        ("q Q0 a 1 2.0 t", "line 2: item_id 'a' is listed twice"),
        ("q Q0 b 1 nan t", "line 2: score should be a finite number. Received: 'nan'"),
        ("q Q0 b first 2.0 t", "line 2: rank should be a finite number"),
    ],
)
def test_a_bad_line_of_a_run_is_named(tmp_path, line, message):
    (tmp_path / "run.txt").write_text(f"q Q0 a 1 3.0 t\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_run(tmp_path / "run.txt", ["q"], ["a", "b"])


@pytest.mark.parametrize("read", [read_qrels, lambda path: read_run(path, ["q"], ["a"])])
def test_a_file_that_cannot_be_read_is_named(tmp_path, read):
    with pytest.raises(DataError, match=r"none\.txt: no such file"):
        read(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 0 a 1\n")
    with pytest.raises(DataError, match=r"latin\.txt: not valid UTF-8"):
        read(tmp_path / "latin.txt")


def test_qrels_come_back_as_they_were(tmp_path):
    write_qrels(tmp_path / "qrels.txt", ["q1", "q1", "q2"], pa.array(["a", "商品", "a"]).to_pylist(), np.array([3.0, 0.0, 1.0]))
    table = read_qrels(tmp_path / "qrels.txt")
    assert table.schema == QRELS
    assert table.to_pydict() == {"query_id": ["q1", "q1", "q2"], "item_id": ["a", "商品", "a"], "relevance": [3.0, 0.0, 1.0]}
    foreign = list(ir_measures.read_trec_qrels(str(tmp_path / "qrels.txt")))
    assert [(q.query_id, q.doc_id, q.relevance) for q in foreign] == [("q1", "a", 3), ("q1", "商品", 0), ("q2", "a", 1)]


def test_qrels_take_binary_relevance_and_none(tmp_path):
    write_qrels(tmp_path / "qrels.txt", ["q", "q"], ["a", "b"], np.array([2.67, 1.0]) >= 2.5)
    assert (tmp_path / "qrels.txt").read_text() == "q 0 a 1\nq 0 b 0\n"
    write_qrels(tmp_path / "empty.txt", [], [], [])
    assert read_qrels(tmp_path / "empty.txt").num_rows == 0


def test_qrels_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"row 1: relevance 2\.67 is not a whole grade; write `relevance >= relevant_from`"):
        write_qrels(tmp_path / "qrels.txt", ["q", "q"], ["a", "b"], [1.0, 2.67])
    with pytest.raises(DataError, match="2 query ids, 1 item ids"):
        write_qrels(tmp_path / "qrels.txt", ["q", "q"], ["a"], [1])
    (tmp_path / "qrels.txt").write_text("q 0 a high\n")
    with pytest.raises(DataError, match="line 1: relevance should be a finite number"):
        read_qrels(tmp_path / "qrels.txt")
