"""A table of one or several files whose columns have any plain type, brought to the types that its reader asks for, column by column."""

import os
import re
from collections.abc import Callable, Sequence

import pyarrow as pa

from tfebr.data.columns import by_chunk, is_number
from tfebr.data.parquet import no_name, parts
from tfebr.data.place import Notes, Place
from tfebr.errors import DataError

# Under these names pandas and dask write row numbers, which have no name of their own.
_ROW_NUMBERS = re.compile(r"__index_level_\d+__|__null_dask_index__|Unnamed: \d+(_level_\d+)?")


class Tables:
    """Tables one below the other, as they are.

    Attributes:
        names: of all columns, the required ones first.
        rows: of all tables.

    Args:
        tables: each with what messages call it.
        required: columns that each of them has.
        notes: of what is normalised.

    Raises:
        DataError: a required column is missing, one is there more than once, or one has no name or a name that is no text.
    """

    def __init__(self, tables: Sequence[tuple[str, pa.Table]], required: Sequence[str], notes: Notes):
        self._notes = notes
        self._tables = [(source, self._without_row_numbers(source, table)) for source, table in tables]
        for source, table in self._tables:
            _check_columns(source, table.column_names, required)
        begins = [0]
        for _, table in self._tables:
            begins.append(begins[-1] + table.num_rows)
        self.rows = begins[-1]
        self._files = tuple((source, begin) for (source, _), begin in zip(self._tables, begins, strict=False))
        self.names = list(dict.fromkeys([*required, *(name for _, table in self._tables for name in table.column_names)]))

    @classmethod
    def read(cls, path: str | os.PathLike, required: Sequence[str], notes: Notes) -> "Tables":
        """Of a Parquet file or a folder of them; raises DataError when there is none or one is not readable."""
        files = parts(path)
        if not files:
            raise DataError(f"{path}: no Parquet file found here.")
        return cls([(str(part.path), part.table()) for part in files], required, notes)

    @property
    def source(self) -> str:
        """The first file."""
        return self._files[0][0]

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """Of the first file."""
        return self._tables[0][1].schema.metadata or {}

    def place(self, name: str) -> Place:
        """Where the rows of a column are."""
        return Place(self._files, name)

    def holds_numbers(self, name: str) -> bool:
        """Whether a column is one of numbers by its type in all files; raises DataError where it is text in one and numbers in another."""
        found: dict[bool, str] = {}
        for source, table in self._tables:
            if name in table.column_names and not pa.types.is_null(kind := table.schema.field(name).type):
                found.setdefault(is_number(kind), source)
        if len(found) > 1:
            raise DataError(
                f"{found[False]}: column `{name}` holds text, but numbers in {found[True]}: the files do not have the same columns. "
                "Write it in one type."
            )
        return next(iter(found), False)

    def column(self, name: str, convert: Callable[[pa.Array, Place], pa.Array], kind: pa.DataType) -> pa.ChunkedArray:
        """A column of all tables; a file without it holds nulls there.

        Args:
            convert: makes an array of the type `kind` from one of a file.
        """
        found = []
        for (source, table), (_, begin) in zip(self._tables, self._files, strict=True):
            if name in table.column_names:
                column = table[name]
            else:
                self._notes.add(name, f"is missing in {source}, whose rows have no value there")
                column = pa.chunked_array([pa.nulls(table.num_rows)])
            found += by_chunk(column, convert, Place(self._files, name, begin), kind).chunks
        return pa.chunked_array(found, kind)

    def _without_row_numbers(self, source: str, table: pa.Table) -> pa.Table:
        try:
            names = table.column_names
        except UnicodeDecodeError as error:
            raise no_name(source, error) from None
        for name in filter(_ROW_NUMBERS.fullmatch, names):
            self._notes.add(name, "holds row numbers that the program which wrote the file added; it is not read")
        return table.select([i for i, name in enumerate(names) if not _ROW_NUMBERS.fullmatch(name)])


def _check_columns(source: str, names: list[str], required: Sequence[str]) -> None:
    for name in required:
        if name not in names:
            raise DataError(f"{source}: column `{name}` is missing. Received columns: {', '.join(names)}.")
    if "" in names:
        raise DataError(f"{source}: column {names.index('') + 1} of {len(names)} has no name. Give it one, or drop it.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{source}: column `{repeated[0]}` is there more than once. Rename or drop one of them.")
