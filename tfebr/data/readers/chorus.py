"""Chorus: Icecat's open electronics catalogue with graded judgments, from the Chorus project of e-commerce search."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa

from tfebr.data.catalogue import Catalogue
from tfebr.data.readers.judged_tables import read_judgments
from tfebr.data.readers.reader import Prepared, Reader, missing_files
from tfebr.data.readers.rows import check_new, find, lines
from tfebr.errors import DataError
from tfebr.infrastructure.progress import progress

RELEVANT_FROM = 2.0
_GRADES = (0.0, 3.0)
# In order of preference: the first that a product has is its category.
_CATEGORY_FIELDS = ("attr_t_product_type", "attr_t_type")
_TITLE = "Chorus with Icecat products"
_FILES = (
    "a folder with products.jsonl.gz (the Icecat products with price, one JSON object a line), queries.tsv.gz and qrels.tsv.gz (their "
    "rated queries). Products and ratings come from the Chorus project, github.com/querqy/chorus."
)


def read(path: Path, quiet: bool = False) -> Prepared:
    """Reads a folder with `products.jsonl`, `queries.tsv`, `qrels.tsv` (each also as .gz or .zip).

    `supplier` becomes `brand`, the product type `category` ("" where there is none), `price` is in the file's own unit. All queries are
    "test": there are too few to train on.
    """
    products, queries, qrels = (find(path, name) for name in ("products.jsonl", "queries.tsv", "qrels.tsv"))
    if not (products and queries and qrels):
        raise missing_files(path, _TITLE, _FILES)
    seen: dict[str, int] = {}
    columns: dict[str, Any] = {"item_id": [], "title": [], "brand": [], "category": [], "price": []}
    with progress("reading Chorus", None, "products", quiet) as advance:
        for line, text in lines(products):
            if text.strip():
                for name, value in _product(text, products, line).items():
                    columns[name].append(value)
                check_new(columns["item_id"][-1], seen, "id", products, line)
                advance(1)
    columns["price"] = pa.array(columns["price"], pa.float64())
    catalogue = Catalogue(pa.table(columns), str(products))
    judgments = read_judgments(queries, qrels, "product_id", seen, _GRADES, RELEVANT_FROM, split="test")
    return Prepared(catalogue, judgments)


def _product(text: str, path: Path, line: int) -> dict[str, Any]:
    try:
        product = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {line}: not JSON: {error}. Repair the line or download the file again.") from error
    if not isinstance(product, dict):
        raise DataError(f"{path}: line {line}: expected a JSON object. Received: {text.strip()[:60]}")
    for name in ("id", "title"):
        if not isinstance(product.get(name), str | int):
            raise DataError(f"{path}: line {line}, field `{name}`: expected a text. Received: {product.get(name)!r}.")
    price = product.get("price")
    if price is not None and (not isinstance(price, int | float) or not math.isfinite(price)):
        raise DataError(f"{path}: line {line}, field `price`: not a finite number: {price!r}. Write a number or leave it out.")
    return {
        "item_id": str(product["id"]),
        "title": str(product["title"]),
        "brand": str(product.get("supplier") or ""),
        "category": next((str(product[f]) for f in _CATEGORY_FIELDS if product.get(f)), ""),
        "price": price,
    }


READER = Reader(_TITLE, "Code and ratings Apache-2.0; products under Icecat Open Content, attribute Icecat.", _FILES, read)
