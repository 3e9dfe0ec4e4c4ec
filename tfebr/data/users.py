"""Profiles of users: one row per user, every column but the id a category."""

import os

import pyarrow as pa
import pyarrow.compute as pc

from tfebr.data.columns import check_unique, ids, texts
from tfebr.data.place import Notes
from tfebr.data.tables import Tables


def read_users(path: str | os.PathLike, notes: Notes | None = None) -> pa.Table:
    """Reads a Parquet file or a folder of them, as `conformed` has it."""
    notes = notes or Notes("users")
    return conformed(Tables.read(path, ["user_id"], notes), notes)


def conformed(tables: Tables, notes: Notes) -> pa.Table:
    """Profiles from columns of any plain types.

    Returns:
        `user_id` (string, unique, not empty), then the profile columns as strings, "" where unknown.

    Raises:
        DataError: `user_id` is missing, empty or repeated, or a column has no plain meaning; the message names file, row and column.
    """
    user_ids = tables.column("user_id", lambda c, at: ids(c, at, "Every profile needs its user's id.", notes), pa.string())
    check_unique(user_ids, tables.place("user_id"), "A user has one profile.")
    profiles = {name: pc.fill_null(tables.column(name, texts, pa.string()), "") for name in tables.names[1:]}
    return pa.table({"user_id": user_ids, **profiles})
