import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfebr.data.catalogue import Catalogue
from tfebr.data.judgments import QRELS, QUERIES, Judgments
from tfebr.errors import ConfigError, DataError
from tfebr.evaluation.judged import evaluate_judged
from tfebr.evaluation.ranking import Ranking

ITEMS = 30
CATALOGUE = Catalogue(pa.table({"item_id": [f"i {row}" for row in range(ITEMS)], "title": [""] * ITEMS}))


def judgments_of(grades: list[dict[str, float]], relevant_from: float) -> Judgments:
    queries = pa.table([[f"q{i}" for i in range(len(grades))], ["text"] * len(grades), ["test"] * len(grades)], schema=QUERIES)
    triples = [(f"q{i}", item, grade) for i, judged in enumerate(grades) for item, grade in judged.items()]
    return Judgments(queries, pa.table([list(c) for c in zip(*triples, strict=True)] or [[], [], []], schema=QRELS), relevant_from)


def plain_values(rows: list[int], grades: dict[str, float], relevant_from: float, k: tuple[int, ...]) -> dict[str, float]:
    top = [f"i {row}" for row in rows if row >= 0]
    relevant = {item for item, grade in grades.items() if grade >= relevant_from}
    ideal = sorted(grades.values(), reverse=True)[:10]
    values = {f"recall@{at}": len(relevant & set(top[:at])) / len(relevant) for at in k}
    values["mrr@10"] = next((1 / (i + 1) for i, item in enumerate(top[:10]) if item in relevant), 0.0)
    values["p@10"] = len(relevant & set(top[:10])) / 10
    values["ndcg@10"] = sum(grades.get(item, 0) / math.log2(i + 2) for i, item in enumerate(top[:10])) / sum(
        grade / math.log2(i + 2) for i, grade in enumerate(ideal)
    )
    return values


@st.composite
def judged_rankings(draw):
    n = draw(st.integers(1, 5))
    items = st.sampled_from([*(f"i {row}" for row in range(ITEMS)), "not sold any more"])
    grades = [draw(st.dictionaries(items, st.sampled_from([1.0, 1.33, 2.0, 2.33, 2.5, 2.67, 3.0]), max_size=12)) for _ in range(n)]
    grades[0]["i 3"] = 3.0
    rows = [draw(st.permutations(range(ITEMS)))[: draw(st.integers(0, 15))] for _ in range(n)]
    return np.array([r + [-1] * (15 - len(r)) for r in map(list, rows)]), grades


@settings(max_examples=60, deadline=None)
@given(judged_rankings())
def test_every_metric_equals_its_plain_definition_also_with_tied_scores(case):
    rows, grades = case
    # All scores are equal: the order of the ranking itself must count, not the tool's way with ties.
    report = evaluate_judged(Ranking(rows, np.zeros(rows.shape)), judgments_of(grades, 2.5), CATALOGUE, (3, 15))
    kept = [i for i, judged in enumerate(grades) if max(judged.values(), default=0) >= 2.5]
    assert report.ids == [f"q{i}" for i in kept]
    for place, i in enumerate(kept):
        expected = plain_values(rows[i].tolist(), grades[i], 2.5, (3, 15))
        assert {name: values[place] for name, values in report.metrics.items()} == pytest.approx(expected)


def test_a_relevant_item_outside_the_catalogue_stays_a_miss():
    ranking = Ranking(np.array([[0, *range(2, 11)]]), np.zeros((1, 10)))
    report = evaluate_judged(ranking, judgments_of([{"i 0": 3, "gone": 3}], 2), CATALOGUE, (10,))
    assert report.means()["recall@10"] == 0.5


def test_bands_are_not_reported_without_frequencies():
    report = evaluate_judged(Ranking(np.zeros((1, 10)) - 1, np.zeros((1, 10))), judgments_of([{"i 0": 3}], 2), CATALOGUE, (10,))
    assert report.means() == {"recall@10": 0.0, "mrr@10": 0.0, "p@10": 0.0, "ndcg@10": 0.0}
    with pytest.raises(ConfigError, match="no metric 'recall@10/tail'"):
        report.values("recall@10/tail")


@pytest.mark.parametrize(
    ("grades", "shape", "k", "error", "message"),
    [
        ([{"i 0": 3}], (2, 10), (10,), DataError, "2 rows for 1 requests"),
        ([{"i 0": 3}], (1, 9), (5,), ConfigError, "depth 9"),
        ([{"i 0": 1}, {}], (2, 10), (10,), DataError, "none of the 2 queries has an item with relevance >= 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(grades, shape, k, error, message):
    with pytest.raises(error, match=message):
        evaluate_judged(Ranking(np.full(shape, -1), np.zeros(shape)), judgments_of(grades, 2), CATALOGUE, k)
