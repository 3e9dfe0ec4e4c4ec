"""A client's filter as the clauses that a servable reads, with every column checked against those that the catalogue has."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from tfebr.data.names import LONGEST_CLAUSE, MOST_CLAUSES, atom, split_atom
from tfebr.errors import RequestError

# Values by column, or clauses as they are sent.
Filter = Mapping[str, Any] | Sequence[str]


def filter_clauses(wanted: Filter, columns: Mapping[str, str]) -> list[str]:
    """The clauses of a filter, in the grammar of `tfebr.index.attributes`.

    Args:
        wanted: a dict from column to what it must be, all of which must hold: a value, a list of values of which one must hold, and for
            numbers a (low, high) tuple, None being no bound. Or a list of clauses, which stay as they are.
        columns: kind of each column that the catalogue has, "category" or "number".

    Raises:
        RequestError: naming the column that the catalogue does not have, or whose value is not one of its kind.
    """
    if isinstance(wanted, Mapping):
        return [_clause(name, value, _known(name, columns)) for name, value in wanted.items()]
    if isinstance(wanted, str | bytes) or not isinstance(wanted, Sequence) or not all(isinstance(clause, str) for clause in wanted):
        raise RequestError(
            f'`filter` must be a dict such as {{"brand": "Sony"}} or a list of clauses such as ["brand=Sony"]. Received: {wanted!r:.60}.'
        )
    for clause in wanted:
        for text in clause.split("|") if clause else []:
            parts = split_atom(text)
            if parts is None:
                raise RequestError(
                    f"`filter`: each part of a clause must be written column=value or column=low..high. Received: {text!r:.60}. "
                    "For %, | or = inside of a column's name write %25, %7C or %3D."
                )
            name, value = parts
            if _known(name, columns) == "number" and ".." not in value:
                raise RequestError(f"`filter`: column `{name}` holds numbers: write {name}=low..high. Received: {text!r:.60}.")
    return [clause for clause in wanted if clause]


def check_size(clauses: Sequence[str]) -> list[str]:
    """The clauses; raises RequestError where a servable would find nothing for their number or length."""
    if len(clauses) > MOST_CLAUSES:
        raise RequestError(f"`filter` must be at most {MOST_CLAUSES} clauses. Received: {len(clauses)}. Put values of one column into one.")
    for clause in clauses:
        size = len(clause.encode("utf-8", "replace"))
        if size > LONGEST_CLAUSE:
            raise RequestError(
                f"`filter`: a clause must be at most {LONGEST_CLAUSE:,} bytes long. Received: {size:,} bytes in {clause!r:.60}. "
                "Name fewer values, or those that are not wanted in `exclude`."
            )
    return list(clauses)


def _known(name: str, columns: Mapping[str, str]) -> str:
    if name not in columns:
        raise RequestError(f"`filter`: the catalogue has no column `{name:.60}`. It has: {', '.join(sorted(columns))}.")
    return columns[name]


def _clause(name: str, value: Any, kind: str) -> str:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise RequestError(f"`filter`: column `{name}` has an empty list, which nothing can match. Leave the column out.")
    text = _category if kind == "category" else _range
    return "|".join(atom(name, text(name, one)) for one in values)


def _category(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise RequestError(f"`filter`: column `{name}` holds strings: give one, or a list of them. Received: {value!r:.60}.")
    return value


def _range(name: str, value: Any) -> str:
    bounds = value if isinstance(value, tuple) and len(value) == 2 else (value, value)
    if bounds == (None, None) or not all(bound is None or _is_number(bound) for bound in bounds):
        raise RequestError(
            f"`filter`: column `{name}` holds numbers: give one, or (low, high) with None for no bound. Received: {value!r:.60}."
        )
    return "..".join(map(_bound, bounds))


def _is_number(bound: Any) -> bool:
    return isinstance(bound, numbers.Real) and not isinstance(bound, bool) and not math.isnan(bound)


def _bound(bound: numbers.Real | None) -> str:
    try:
        value = math.inf if bound is None else float(bound)
    except OverflowError:
        value = math.inf
    return "" if math.isinf(value) else repr(value)
