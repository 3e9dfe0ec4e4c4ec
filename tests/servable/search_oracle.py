"""What a request to the toy servable's `search` may be answered with, by plain Python."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from toy_servable import COLUMNS, IDS

_NUMBER = r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?"
_RANGE = re.compile(rf"({_NUMBER})?\.\.({_NUMBER})?")
_IMPLIED = {"price": (re.compile(r"[^\n]*cheap[^\n]*"), "price=..10"), "brand": (re.compile(r"[^\n]*sony[^\n]*"), "brand=Sony")}


def check_answer(row: Mapping[str, Any], ids: Sequence[str], default_k: int) -> None:
    """Fails when a found item is excluded, does not match, is there twice, or when there are more or fewer than the row asks for."""
    allowed = _allowed(row)
    assert set(ids) <= allowed
    assert len(set(ids)) == len(ids)
    k = row.get("k", 0)
    assert len(ids) == min(k if k > 0 else default_k, len(allowed)), "always k where there are k"


def _allowed(row: Mapping[str, Any]) -> set[str]:
    clauses = [clause for clause in row.get("filter", []) if clause]
    if row.get("automatic"):
        named = {clause.partition("=")[0] for clause in clauses}
        clauses += [clause for column, (words, clause) in _IMPLIED.items() if words.fullmatch(row["query"]) and column not in named]
    excluded = set(row.get("exclude", []))
    return {
        item
        for i, item in enumerate(IDS)
        if item not in excluded and all(any(_holds(atom, i) for atom in clause.split("|")) for clause in clauses)
    }


def _holds(atom: str, i: int) -> bool:
    column, equals, value = (part.replace("%3D", "=").replace("%7C", "|").replace("%25", "%") for part in atom.partition("="))
    if not equals or column not in COLUMNS:
        return False
    if column != "price":
        return value != "" and COLUMNS[column][i] == value
    bounds = _RANGE.fullmatch(value)
    return bounds is not None and float(bounds[1] or "-inf") <= COLUMNS["price"][i] <= float(bounds[2] or "inf")
