"""Judged sets: a ranking measured against graded judgments with trec_eval's own metrics, through ir_measures."""

import numpy as np
from ir_measures import RR, P, R, iter_calc, nDCG

from tfebr.data.catalogue import Catalogue
from tfebr.data.judgments import Judgments
from tfebr.errors import DataError
from tfebr.evaluation.ranking import Ranking
from tfebr.evaluation.report import Report, check_depth

# trec_eval takes whole grades; nDCG with linear gain is the same for every multiple of the grades.
_GRADE_STEPS = 100


def evaluate_judged(ranking: Ranking, judgments: Judgments, catalogue: Catalogue, k: tuple[int, ...] = (10, 100)) -> Report:
    """Metrics of a ranking whose rows are the judgments' queries, in order: `recall@k` for each k, `mrr@10`, `ndcg@10`, `p@10`.

    Relevant is what is judged `relevant_from` or more; unjudged items are not relevant. nDCG has linear gain, the relevance as judged (to a
    hundredth). A relevant item that the catalogue does not hold stays a miss, as trec_eval counts it. Queries without a relevant item are
    left out of the report.

    Raises:
        ConfigError: the ranking is not as deep as the largest k and 10.
        DataError: the ranking does not have one row per query, or no query has a relevant item.
    """
    query_ids = judgments.queries["query_id"].to_pylist()
    check_depth(ranking, len(query_ids), (*k, 10))
    number = {query_id: str(i) for i, query_id in enumerate(query_ids)}
    grades, relevant = _qrels(judgments, catalogue, number)
    if not relevant:
        raise DataError(f"judgments: none of the {len(query_ids)} queries has an item with relevance >= {judgments.relevant_from}.")
    # Falling scores by rank: trec_eval breaks equal scores by document name and would reorder a ranking with ties.
    depth = max((*k, 10))
    run = {}
    for query in relevant:
        rows = ranking.item_rows[int(query), :depth]
        run[query] = {str(row): float(depth - rank) for rank, row in enumerate(rows[rows >= 0].tolist())}
    run = {query: results for query, results in run.items() if results}
    names = {**{R @ at: f"recall@{at}" for at in k}, RR @ 10: "mrr@10", P @ 10: "p@10", nDCG @ 10: "ndcg@10"}
    place = {query: i for i, query in enumerate(relevant)}
    values = {name: np.zeros(len(relevant)) for name in names.values()}
    for measures, qrels in (([m for m in names if m.NAME != "nDCG"], relevant), ([nDCG @ 10], grades)):
        for result in iter_calc(measures, {query: qrels[query] for query in relevant}, run):
            values[names[result.measure]][place[result.query_id]] = result.value
    return Report([query_ids[int(query)] for query in relevant], values)


def _qrels(
    judgments: Judgments, catalogue: Catalogue, number: dict[str, str]
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    """Whole grades of every judged query, and the binary judgments of the queries with a relevant item, by query number and item row."""
    qrels = judgments.qrels
    query_ids, item_ids, relevance = (qrels[name].to_pylist() for name in ("query_id", "item_id", "relevance"))
    rows = catalogue.rows_of(item_ids)
    grades: dict[str, dict[str, int]] = {}
    relevant: dict[str, dict[str, int]] = {}
    for query_id, item_id, row, grade in zip(query_ids, item_ids, rows.tolist(), relevance, strict=True):
        query, item = number[query_id], str(row) if row >= 0 else f"not in the catalogue: {item_id}"
        grades.setdefault(query, {})[item] = max(round(grade * _GRADE_STEPS), 0)
        relevant.setdefault(query, {})[item] = int(grade >= judgments.relevant_from)
    with_relevant = {query: items for query, items in relevant.items() if any(items.values())}
    return grades, {query: with_relevant[query] for query in sorted(with_relevant, key=int)}
