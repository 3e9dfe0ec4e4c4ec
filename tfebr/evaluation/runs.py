"""TREC run and qrels files, so that any other tool of the field can measure a ranking, and any ranking be measured here.

Whitespace separates the fields of these formats. An id that is empty or holds whitespace, a control character or "%" is written
percent-encoded, as "%" when it is empty, and read back as it was; every other id is written as it is.
"""

import os
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tfebr.data.judgments import QRELS
from tfebr.errors import DataError
from tfebr.evaluation.ranking import Ranking
from tfebr.evaluation.report import places_of
from tfebr.infrastructure.files import atomic_file


def write_run(path: str | os.PathLike, query_ids: Sequence[str], ranking: Ranking, item_ids: Sequence[str], tag: str) -> None:
    """Writes one line `query_id Q0 item_id rank score tag` per result, ranks from 1, atomically.

    Scores are written so that reading gives the same float32. Padding is not written.

    Args:
        query_ids: `[requests]`, one per row of the ranking.
        item_ids: `[items]`, by catalogue row.
        tag: names the system.

    Raises:
        DataError: query ids repeat, or counts do not fit.
    """
    if len(query_ids) != len(ranking):
        raise DataError(f"{path}: {len(query_ids)} query ids were given for a ranking of {len(ranking)} requests.")
    if ranking.item_rows.max(initial=-1) >= len(item_ids):
        raise DataError(f"{path}: the ranking holds item row {ranking.item_rows.max()}, but only {len(item_ids)} item ids were given.")
    places_of(query_ids, f"{path}: query_id")
    items = {row: _word(item_ids[row]) for row in np.unique(ranking.item_rows[ranking.item_rows >= 0]).tolist()}
    tag = _word(tag)
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for query_id, rows, scores in zip(map(_word, query_ids), ranking.item_rows.tolist(), ranking.scores.tolist(), strict=True):
            results = ((row, score) for row, score in zip(rows, scores, strict=True) if row >= 0)
            # Nine significant digits are enough to give back any float32.
            file.writelines(f"{query_id} Q0 {items[row]} {rank} {score:.9g} {tag}\n" for rank, (row, score) in enumerate(results, 1))


def read_run(path: str | os.PathLike, query_ids: Sequence[str], item_ids: Sequence[str]) -> Ranking:
    """Reads a run as the Ranking of the given queries over the given catalogue; a query without a line has no results.

    Results are ordered by falling score, equal scores by rank. The ranking's depth is that of the longest result list, at least 1.

    Raises:
        DataError: the file is missing or not UTF-8, or a line is malformed, its query or item is unknown, its score is not finite, or it
            repeats an item; the message names the line.
    """
    queries, items = places_of(query_ids, f"{path}: query_id"), places_of(item_ids, f"{path}: item_id")
    results: list[list[tuple[float, int, int]]] = [[] for _ in query_ids]
    seen = set()
    for where, (query_id, _, item_id, rank, score, _) in _fields(path, 6, "query_id Q0 item_id rank score tag"):
        query_id, item_id = _id(query_id), _id(item_id)
        if query_id not in queries:
            raise DataError(f"{where}: query_id {query_id!r} is not among the {len(queries)} queries.")
        if item_id not in items:
            raise DataError(f"{where}: item_id {item_id!r} is not in the catalogue of {len(items)} items.")
        query, row = queries[query_id], items[item_id]
        if (query, row) in seen:
            raise DataError(f"{where}: item_id {item_id!r} is listed twice for query_id {query_id!r}.")
        seen.add((query, row))
        results[query].append((-_number(score, where, "score"), int(_number(rank, where, "rank")), row))
    k = max([1, *map(len, results)])
    rows, scores = np.full((len(results), k), -1, np.int64), np.zeros((len(results), k), np.float32)
    for query, found in enumerate(results):
        found.sort()
        rows[query, : len(found)] = [row for _, _, row in found]
        scores[query, : len(found)] = [-negative for negative, _, _ in found]
    return Ranking(rows, scores)


def write_qrels(path: str | os.PathLike, query_ids: Sequence[str], item_ids: Sequence[str], relevance: Sequence[int]) -> None:
    """Writes one line `query_id 0 item_id relevance` per judged pair, atomically.

    trec_eval takes whole grades and calls 1 or more relevant: where a judged scale means something else, give
    `relevance >= relevant_from` (0 and 1).

    Raises:
        DataError: a grade is not whole, or the lengths differ.
    """
    if not len(query_ids) == len(item_ids) == len(relevance):
        raise DataError(f"{path}: {len(query_ids)} query ids, {len(item_ids)} item ids and {len(relevance)} grades; one of each per pair.")
    grades = np.asarray(relevance, np.float64)
    broken = ~np.isfinite(grades) | (grades != np.round(grades))
    if broken.any():
        row = int(np.argmax(broken))
        raise DataError(f"{path}: row {row}: relevance {grades[row]} is not a whole grade; write `relevance >= relevant_from` instead.")
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        pairs = zip(map(_word, query_ids), map(_word, item_ids), grades.astype(np.int64).tolist(), strict=True)
        file.writelines(f"{query_id} 0 {item_id} {grade}\n" for query_id, item_id, grade in pairs)


def read_qrels(path: str | os.PathLike) -> pa.Table:
    """Reads a qrels file as the `QRELS` table of `tfebr.data.judgments`; raises DataError naming the first malformed line."""
    rows = [
        (_id(query_id), _id(item_id), _number(grade, where, "relevance"))
        for where, (query_id, _, item_id, grade) in _fields(path, 4, "query_id 0 item_id relevance")
    ]
    return pa.table([list(column) for column in zip(*rows, strict=True)] or [[], [], []], schema=QRELS)


def _fields(path: str | os.PathLike, count: int, layout: str) -> Iterator[tuple[str, list[str]]]:
    """(where it is, fields) of every line that is not blank."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                fields = line.split()
                if not fields:
                    continue
                if len(fields) != count:
                    raise DataError(f"{path}: line {number}: expected `{layout}`. Received: {line.strip()!r}.")
                yield f"{path}: line {number}", fields
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not valid UTF-8: {error}. Re-encode the file as UTF-8.") from None


def _number(text: str, where: str, field: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(f"{where}: {field} should be a finite number. Received: {text!r}.")
    return value


# What readers of these formats take for the end of a field or of a line, or leave out at the beginning of a file; and the escape itself.
_UNSAFE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ufeff%]")
_EMPTY = "%"


def _word(text: str) -> str:
    """An id as one word."""
    return _UNSAFE.sub(lambda found: urllib.parse.quote(found[0], safe=""), text) or _EMPTY


def _id(word: str) -> str:
    """The id that `_word` wrote; a word that it would not have written, such as another tool's "50%", is an id as it stands."""
    text = "" if word == _EMPTY else urllib.parse.unquote(word)
    return text if _word(text) == word else word
