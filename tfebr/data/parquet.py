"""Parquet as shops have it: a file, a folder of part files, or a folder partitioned by columns (`date=2024-01-31/`)."""

import contextlib
import dataclasses
import os
import re
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tfebr.errors import DataError

_ENDINGS = (".parquet", ".parq", ".pq")
_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclasses.dataclass(frozen=True)
class Part:
    """One file of a table, and the columns that the names of its folders hold for all of its rows."""

    path: Path
    partition: dict[str, str | None]

    def column_names(self) -> list[str]:
        """Names of the columns in the file, and of the partition's."""
        with self.opened() as file:
            found = file.schema_arrow.names
        return found + [name for name in self.partition if name not in found]

    def rows(self) -> int:
        with self.opened() as file:
            return file.metadata.num_rows

    def table(self) -> pa.Table:
        """The whole file, its types as they are."""
        with self.opened() as file:
            try:
                table = file.read()
            except (pa.ArrowException, OSError) as error:
                raise unreadable(self.path, error) from error
        for name, value in self.partition.items():
            if name not in table.column_names:
                table = table.append_column(name, _repeated(value, table.num_rows))
        return table

    def batches(self, names: Sequence[str], size: int) -> Iterator[dict[str, pa.Array]]:
        """The named columns of at most `size` rows at a time, their types as they are."""
        with self.opened() as file:
            for batch in file.iter_batches(size, columns=names):
                held = dict(zip(batch.schema.names, batch.columns, strict=True))
                yield {n: held[n] if n in held else _repeated(self.partition[n], batch.num_rows) for n in names}

    def row(self, row: int, name: str) -> pa.Array:
        """One value of a column, as an array of its type, from the only row group that holds it."""
        with self.opened() as file:
            if name not in file.schema_arrow.names:
                return _repeated(self.partition[name], 1)
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if row < rows:
                    return file.read_row_group(group, columns=[name])[name].slice(row, 1).combine_chunks()
                row -= rows
        raise IndexError(row)

    def least(self, column: str, field: str) -> float | None:
        """The least value of a field of structs in lists, by the statistics that most files have, or None where they do not tell."""
        with self.opened() as file:
            about = file.metadata
            paths = [about.schema.column(i).path.split(".") for i in range(about.num_columns)]
            places = [i for i, path in enumerate(paths) if path[0] == column and path[-1] == field]
            groups = [about.row_group(group) for group in range(about.num_row_groups)]
            found = [group.column(i).statistics for group in groups for i in places if group.num_rows]
        if len(places) != 1 or not found or not all(s and s.has_min_max and isinstance(s.min, int | float) for s in found):
            return None
        return min(s.min for s in found)

    @contextlib.contextmanager
    def opened(self) -> Iterator[pq.ParquetFile]:
        try:
            # Arrow takes a relative path with a colon for an address. Spark's times overflow as nanoseconds after 2262.
            file = pq.ParquetFile(self.path.absolute(), coerce_int96_timestamp_unit="us")
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self.path, error) from error
        except UnicodeDecodeError as error:
            raise no_name(str(self.path), error) from None
        with file:
            yield file


def no_name(source: str, error: UnicodeDecodeError) -> DataError:
    """The error for a column whose name is no text, which Arrow finds out only when it is asked for."""
    return DataError(f"{source}: the column {error.object!r} has a name that is not valid UTF-8. Rename it.")


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that is damaged, or written in a way that Arrow does not read."""
    return DataError(f"{path}: not a readable Parquet file: {error}. It may be truncated: write it again.")


def parts(path: str | os.PathLike) -> list[Part]:
    """The file, or every Parquet file below the folder, in the order of their names with numbers in the order of their size.

    Names that begin with "." or "_" are what Spark and others leave beside their data; they are not looked at.
    """
    path = Path(path)
    if not path.is_dir():
        return [Part(path, {})] if path.exists() else []
    found: list[Path] = []
    for folder, names, files in os.walk(path):
        names[:] = [name for name in names if name[0] not in "._"]
        found += [Path(folder, name) for name in files if name[0] not in "._" and name.lower().endswith(_ENDINGS)]
    found.sort(key=lambda file: [_in_order(name) for name in file.relative_to(path).parts])
    return [Part(file, _partition(file.relative_to(path).parts[:-1])) for file in found]


def within(folder: str | os.PathLike, name: str) -> Path | None:
    """Where in a data folder a table is: `NAME.parquet`, which may be a folder, as Spark writes, or the folder `NAME`."""
    candidates = (Path(folder, f"{name}.parquet"), Path(folder, name))
    return next((path for path in candidates if path.exists()), None)


def _in_order(name: str) -> list[str | int]:
    return [int(part) if number % 2 else part for number, part in enumerate(re.split(r"(\d+)", name))]


def _partition(folders: Sequence[str]) -> dict[str, str | None]:
    pairs = [folder.partition("=") for folder in folders if "=" in folder]
    values = {urllib.parse.unquote(name): urllib.parse.unquote(value) for name, _, value in pairs}
    return {name: None if value == _NULL else value for name, value in values.items()}


def _repeated(value: str | None, rows: int) -> pa.Array:
    return pa.nulls(rows, pa.string()) if value is None else pa.repeat(pa.scalar(value, pa.string()), rows)
