"""A data folder: what `tfebr simulate` and `tfebr prepare` write and every other step reads."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from tfebr.data.catalogue import Catalogue
from tfebr.data.content import Columns, Files, content_of
from tfebr.data.judgments import Judgments
from tfebr.data.log import SearchLog
from tfebr.data.parquet import within
from tfebr.data.place import Notes
from tfebr.data.roles import ColumnRoles
from tfebr.data.users import read_users
from tfebr.errors import DataError
from tfebr.infrastructure.files import read_json
from tfebr.infrastructure.progress import progress


@dataclasses.dataclass(frozen=True)
class Checked:
    """What a data folder holds.

    Attributes:
        notes: what was normalised, a sentence each.
        content: of each file ("catalogue", "users", "log", "judgments of 'test'"), a digest of each column that something reads.
    """

    notes: list[str]
    content: Files


class DataFolder:
    """A catalogue, and a search log or a judged set or both.

    Layout: `catalogue.parquet`; `log/*.parquet` (optional); `users.parquet` (optional: `user_id`, then categorical profile columns as
    strings); `judgments/` (optional); `oracle/` (simulated shops only, read by evaluation alone); `about.json` (optional: source, counts,
    and what the catalogue's columns are for). Each table may be a file or a folder of part files, partitioned or not; see
    `tfebr.data.parquet`.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if within(self.path, "catalogue") is None:
            raise DataError(f"{self.path}: not a data folder (no catalogue.parquet). Make one with `tfebr simulate` or `tfebr prepare`.")

    def catalogue(self) -> Catalogue:
        return Catalogue.read(self.path)

    def roles(self, catalogue: Catalogue | None = None) -> ColumnRoles:
        """What the catalogue's columns are for: as `columns` of `about.json` declares, and else by their types; see `ColumnRoles.of`.

        Args:
            catalogue: this folder's, where it has been read already.

        Raises:
            DataError: the declaration is not one of this catalogue.
        """
        file = self.path / "about.json"
        about = read_json(file) if file.exists() else {}
        if not isinstance(about, dict):
            raise DataError(f"{file}: must be a JSON object. Received: {about!r:.200}.")
        return ColumnRoles.of((catalogue or self.catalogue()).table, about.get("columns"), str(file))

    @property
    def has_log(self) -> bool:
        return within(self.path, "log") is not None

    @property
    def has_judgments(self) -> bool:
        return (self.path / "judgments").is_dir()

    @property
    def has_oracle(self) -> bool:
        return (self.path / "oracle").is_dir()

    def log(self) -> SearchLog:
        return SearchLog(within(self.path, "log") or self.path / "log")

    def judgments(self) -> Judgments:
        return Judgments.read(self.path / "judgments")

    def users(self) -> pa.Table | None:
        """The profiles as of `tfebr.data.users.read_users`, or None."""
        path = within(self.path, "users")
        return read_users(path) if path is not None else None

    def catalogue_content(self, catalogue: Catalogue) -> dict[str, Columns]:
        """The catalogue's part of `Checked.content`: the columns that something reads."""
        ignored = self.roles(catalogue).ignored
        return {"catalogue": {name: digest for name, digest in catalogue.content.items() if name not in ignored}}

    def check(self, quiet: bool = False, catalogue: Catalogue | None = None) -> Checked:
        """Reads every row of every file once, so that what is bad is refused before anything is made from it.

        Args:
            catalogue: this folder's, where it has been read already.

        Raises:
            DataError: naming file, row and column.
        """
        catalogue = catalogue or self.catalogue()
        found, content = list(catalogue.notes), dict(self.catalogue_content(catalogue))
        users = within(self.path, "users")
        if users is not None:
            notes = Notes("users")
            content["users"] = content_of(read_users(users, notes).to_batches())
            found += notes.lines
        if self.has_judgments:
            judgments = self.judgments()
            found += judgments.notes
            content |= {f"judgments of {split!r}": judgments.split(split).content() for split in judgments.splits}
        if self.has_log:
            log = self.log()
            content["log"] = content_of(_counted(log, quiet))
            found += log.notes
        return Checked(found, content)


def _counted(log: SearchLog, quiet: bool) -> Iterator[pa.RecordBatch]:
    with progress("checking log", len(log), "requests", quiet) as advance:
        for batch in log.batches():
            yield batch
            advance(batch.num_rows)
