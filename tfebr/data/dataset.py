"""A data folder: what `tfebr simulate` and `tfebr prepare` write and every other step reads."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tfebr.data.catalogue import Catalogue
from tfebr.data.judgments import Judgments
from tfebr.data.log import SearchLog
from tfebr.data.roles import ColumnRoles
from tfebr.errors import DataError
from tfebr.files import read_json


class DataFolder:
    """A catalogue, and a search log or a judged set or both.

    Layout: `catalogue.parquet`; `log/*.parquet` (optional); `users.parquet` (optional: `user_id`, then categorical profile columns as
    strings); `judgments/` (optional); `oracle/` (simulated shops only, read by evaluation alone); `about.json` (optional: source, counts,
    and what the catalogue's columns are for).
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if not (self.path / "catalogue.parquet").exists():
            raise DataError(f"{self.path}: not a data folder (no catalogue.parquet). Make one with `tfebr simulate` or `tfebr prepare`.")

    def catalogue(self) -> Catalogue:
        return Catalogue.read(self.path / "catalogue.parquet")

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
        return (self.path / "log").is_dir()

    @property
    def has_judgments(self) -> bool:
        return (self.path / "judgments").is_dir()

    @property
    def has_oracle(self) -> bool:
        return (self.path / "oracle").is_dir()

    def log(self) -> SearchLog:
        return SearchLog(self.path / "log")

    def judgments(self) -> Judgments:
        return Judgments.read(self.path / "judgments")

    def users(self) -> pa.Table | None:
        """The profiles: `user_id` and string columns, or None."""
        path = self.path / "users.parquet"
        return pq.read_table(path) if path.exists() else None
