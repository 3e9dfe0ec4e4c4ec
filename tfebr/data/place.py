"""Where a value stands in a user's files, for messages, and what was normalised there, counted."""

import bisect
import collections
import dataclasses

import numpy as np

from tfebr.errors import DataError


@dataclasses.dataclass(frozen=True)
class Place:
    """A column of one or several files, so that a value in it can be named by file and row.

    Attributes:
        files: each file with the row of the column at which it begins, ascending. A row is named by its number in its own file, from 0.
        column: its name.
        first: the row of the column at which the values at hand begin.
        rows: the row of each value, counted from `first`, where it is not one value in each row.
    """

    files: tuple[tuple[str, int], ...]
    column: str
    first: int = 0
    rows: np.ndarray | None = None

    @classmethod
    def of(cls, source: str, column: str, first: int = 0, rows: np.ndarray | None = None) -> "Place":
        """A column of one file."""
        return cls(((source, 0),), column, first, rows)

    def after(self, values: int) -> "Place":
        """The place of what comes after so many values, in a column with one value in a row."""
        return dataclasses.replace(self, first=self.first + values)

    def row(self, value: int) -> tuple[str, int]:
        """The file and the row in it of a value, counted from the first one at hand."""
        row = self.first + int(value if self.rows is None else self.rows[value])
        file, begin = self.files[bisect.bisect_right(self.files, row, key=lambda f: f[1]) - 1]
        return file, row - begin

    def refuse(self, value: int, problem: str) -> DataError:
        """The error for one value."""
        file, row = self.row(value)
        return DataError(f"{file}: row {row}, column `{self.column}`: {problem}")

    def refuse_whole(self, problem: str) -> DataError:
        """The error for the column as such."""
        return DataError(f"{self.files[0][0]}: column `{self.column}` {problem}")


class Notes:
    """What was normalised while a table was read, to be said once and not for every row.

    Args:
        table: what the person calls it: catalogue, log, users ...
    """

    def __init__(self, table: str):
        self._table = table
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()

    def add(self, column: str, what: str, count: int | None = None) -> None:
        """Adds to how often `what` was done in a column; without a count, that it was done."""
        if count is None:
            self._counts[column, what] = 0
        elif count:
            self._counts[column, what] += count

    @property
    def lines(self) -> list[str]:
        """A sentence for each thing that was done."""
        return [f"{self._table}: column `{column}`: {f'{n:,} ' if n else ''}{what}" for (column, what), n in self._counts.items()]
