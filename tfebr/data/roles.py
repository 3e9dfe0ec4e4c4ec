"""What each column of a catalogue is for: text, a category, a number, or nothing. One declaration that everything reads."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from tfebr.errors import DataError

ROLES = ("text", "category", "number", "ignored")
_SHAPE = 'an object of lists of column names, such as {"text": ["title", "description"], "category": ["brand"], "ignored": ["url"]}'


@dataclasses.dataclass(frozen=True)
class ColumnRoles:
    """The columns of a catalogue by what they are for; each of them but `item_id` stands in one role, in the order of the table.

    Attributes:
        text: words; "title" is always the first of them, and the one that the models read. BM25 searches them all.
        category: values of which an item has one; models read them, BM25 searches them, filters and query intents name them.
        number: filters name them.
        ignored: nothing reads them.
    """

    text: tuple[str, ...]
    category: tuple[str, ...] = ()
    number: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @classmethod
    def of(cls, table: pa.Table, declared: Any = None, source: str = "catalogue") -> "ColumnRoles":
        """The roles of a catalogue's columns.

        Args:
            table: of a `Catalogue`: strings and numbers.
            declared: role -> column names. A column that it does not name has the role of its type: "title" is text, other strings are
                categories, numbers are numbers. None declares nothing.
            source: what the message of an error names.

        Raises:
            DataError: `declared` is no such object, or names an unknown role, an unknown column, one column twice, `item_id`, a column of
                numbers as text or category, one of strings as number, or "title" as something other than text.
        """
        role_of = _declared_roles({} if declared is None else declared, table, source)
        found: dict[str, list[str]] = {role: [] for role in ROLES}
        for field in table.schema:
            if field.name != "item_id":
                found[role_of.get(field.name) or _default(field)].append(field.name)
        found["text"].sort(key=lambda name: name != "title")
        return cls(**{role: tuple(names) for role, names in found.items()})

    def over(self, table: pa.Table) -> "ColumnRoles":
        """The same roles for another table: without columns that it does not have; new ones, and those of another type, by their type."""
        types = dict(zip(table.column_names, table.schema.types, strict=True))
        there = {role: [n for n in names if n in types and _fits(role, types[n])] for role, names in self.to_json().items()}
        return ColumnRoles.of(table, there)

    def to_json(self) -> dict[str, list[str]]:
        """As it is declared."""
        return {role: list(getattr(self, role)) for role in ROLES}

    @property
    def filters(self) -> tuple[str, ...]:
        """What a filter can name."""
        return (*self.category, *self.number)


def _declared_roles(declared: Any, table: pa.Table, source: str) -> dict[str, str]:
    if not isinstance(declared, Mapping):
        raise DataError(f"{source}: `columns` must be {_SHAPE}. Received: {declared!r:.200}.")
    role_of: dict[str, str] = {}
    for role, names in declared.items():
        if role not in ROLES:
            raise DataError(f"{source}: `columns` has a role {role!r}. Roles are {', '.join(ROLES)}.")
        if not isinstance(names, Sequence) or isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{source}: `columns`: {role!r} must be a list of column names. Received: {names!r:.200}.")
        for name in names:
            if name in role_of:
                raise DataError(
                    f"{source}: `columns` names {name!r} as {role_of[name]} and as {role}. A column has one role: remove it from one."
                )
            _check(name, role, table, source)
            role_of[name] = role
    return role_of


def _check(name: str, role: str, table: pa.Table, source: str) -> None:
    if name not in table.column_names:
        raise DataError(
            f"{source}: `columns` names {name!r} as {role}, but the catalogue has no such column. It has: {', '.join(table.column_names)}."
        )
    if name == "item_id" or (name == "title" and role != "text"):
        raise DataError(f"{source}: `columns` names {name!r} as {role}. `item_id` has no role, and `title` is text. Remove it there.")
    kind = table.schema.field(name).type
    if not _fits(role, kind):
        wanted = "numbers" if role == "number" else "strings"
        raise DataError(
            f"{source}: `columns` names {name!r} as {role}, which needs {wanted}, but the catalogue holds {kind}. Write it as {wanted}."
        )


def _fits(role: str, kind: pa.DataType) -> bool:
    return role == "ignored" or (role == "number") == pa.types.is_floating(kind)


def _default(field: pa.Field) -> str:
    if field.name == "title":
        return "text"
    return "number" if pa.types.is_floating(field.type) else "category"
