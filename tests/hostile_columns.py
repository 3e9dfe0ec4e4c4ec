"""Names of columns that anything might trip over, and a small shop whose catalogue and users have many of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfebr.data.catalogue import Catalogue
from tfebr.data.dataset import DataFolder
from tfebr.data.log import SCHEMA, write_log
from tfebr.data.names import made_up

LONG = "x" * 260
# What the project itself calls something: features, inputs, outputs, arguments, files.
INTERNAL = [
    "ages",
    "item",
    "items",
    "title_words",
    "history_items",
    "stages",
    "positive",
    "about",
    "query",
    "queries",
    "k",
    "filter",
    "name",
]
INTERNAL += ["self", "column_brand", "user_age", "automatic", "item_ids", "embedding", "training"]
# What files, graphs, Keras, Python or the grammar of filters might trip over.
ODD = [
    "BRAND",
    "Title",
    "class",
    "1st",
    "_x",
    "size (cm)",
    "größe",
    "gro\u0308ße",
    "尺寸",
    "a:b",
    "a&b",
    "a/b",
    "[1]",
    "../up",
    "/etc/passwd",
]
ODD += ["a=b", "a|b", "50%", "low..high", "%3D", "nul\0", "two\nlines", " ", "CON", "*", LONG, made_up("größe"), "\U0001f3a7", "{x}", "."]
NAMES = ["brand", *INTERNAL, *ODD]

# A few of each kind: a model takes seconds to build for many columns.
CATEGORIES = [
    "brand",
    "BRAND",
    "ages",
    "item",
    "items",
    "title_words",
    "query",
    "k",
    "class",
    "尺寸",
    "../up",
    "a=b",
    "50%|nul\0",
    "/etc/passwd",
]
NUMBERS = ["Price", "price=x", "../price"]
PROFILE = ["age", "AGE", "id", "größe (cm)"]
ITEMS, USERS, REQUESTS = 60, 12, 120


def catalogue(changed: int = 0) -> Catalogue:
    """Items of columns whose values differ; items 0 and 1 are twins, and the next `changed` have another value in the column `../up`."""
    random = np.random.default_rng(3)
    columns = {"title": [f"lamp number {i % 7} of shop {i % 5}" for i in range(ITEMS)]}
    columns |= {name: [f"v{code}={name[:3]}|%" for code in random.integers(0, 4, ITEMS)] for name in CATEGORIES}
    columns |= {name: random.integers(0, 50, ITEMS).astype(float).tolist() for name in NUMBERS}
    for values in columns.values():
        values[1] = values[0]
    columns["../up"][2 : 2 + changed] = ["another"] * changed
    return Catalogue(pa.table({"item_id": [f"i{i}" for i in range(ITEMS)], **columns}))


def write_shop(folder: Path) -> DataFolder:
    """Every user clicks two of three shown items a few times, for some weeks."""
    random = np.random.default_rng(4)
    catalogue().write(folder / "catalogue.parquet")
    profiles = {name: [f"{name[:3]}{code}" for code in random.integers(0, 3, USERS)] for name in PROFILE}
    pq.write_table(pa.table({"user_id": [f"u{i}" for i in range(USERS)], **profiles}), folder / "users.parquet")
    rows = []
    for number in range(REQUESTS):
        shown = [f"i{i}" for i in random.choice(ITEMS, 3, replace=False)]
        items = [{"item_id": item, "stage": 2 - place, "position": place} for place, item in enumerate(shown)]
        request = {"request_id": f"r{number}", "time": 1_700_000_000 + 21_600 * number, "user_id": f"u{number % USERS}"}
        rows.append(request | {"query": f"lamp {number % 7}", "items": items})
    write_log(folder / "log", [pa.RecordBatch.from_pylist(rows, schema=SCHEMA)])
    return DataFolder(folder)
