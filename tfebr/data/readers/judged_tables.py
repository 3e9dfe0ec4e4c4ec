"""Judged sets stored as queries.tsv and qrels.tsv."""

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa

from tfebr.data.judgments import QRELS, QUERIES, Judgments
from tfebr.data.readers.rows import check_new, number, rows
from tfebr.errors import DataError

SPLITS = ("train", "dev", "test")


def read_judgments(
    queries_path: Path,
    qrels_path: Path,
    item_column: str,
    items: Collection[str],
    relevance: tuple[float, float],
    relevant_from: float,
    split: str | None = None,
) -> Judgments:
    """Reads a judged set.

    Args:
        queries_path: columns query_id, query and, when `split` is None, split.
        qrels_path: columns query_id, `item_column`, relevance.
        items: ids of the catalogue; a judgment of anything else is refused.
        relevance: lowest and highest grade.
        split: the split of every query when the file does not say.

    Raises:
        DataError: a row is bad; the message names file, line and column.
    """
    queries: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    for line, (query_id, query, *rest) in rows(queries_path, ("query_id", "query") if split else ("query_id", "query", "split")):
        check_new(query_id, lines, "query_id", queries_path, line)
        if rest and rest[0] not in SPLITS:
            raise DataError(f"{queries_path}: line {line}, column `split`: unknown split {rest[0]!r}. Known splits: {', '.join(SPLITS)}.")
        queries[query_id] = [query, split or rest[0]]

    judged: dict[tuple[str, str], tuple[float, int]] = {}
    for line, (query_id, item_id, grade) in rows(qrels_path, ("query_id", item_column, "relevance")):
        value = number(grade, "relevance", *relevance, qrels_path, line)
        if query_id not in queries:
            raise DataError(f"{qrels_path}: line {line}, column `query_id`: {query_id!r} is not in {queries_path.name}.")
        if item_id not in items:
            raise DataError(f"{qrels_path}: line {line}, column `{item_column}`: {item_id!r} is not among the products.")
        first = judged.setdefault((query_id, item_id), (value, line))[1]
        if first != line:
            raise DataError(f"{qrels_path}: line {line}: {query_id!r} and {item_id!r} were judged in line {first}. Remove one of them.")

    return Judgments(
        pa.table([list(queries), [q for q, _ in queries.values()], [s for _, s in queries.values()]], schema=QUERIES),
        pa.table([[q for q, _ in judged], [i for _, i in judged], [value for value, _ in judged.values()]], schema=QRELS),
        relevant_from,
    )
