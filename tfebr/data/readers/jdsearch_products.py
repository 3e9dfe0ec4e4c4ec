"""The products of JDsearch: names, brands, four levels of categories and shops, as term ids."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tfebr.data.catalogue import Catalogue
from tfebr.data.readers.rows import bare_rows
from tfebr.errors import DataError
from tfebr.infrastructure.progress import progress

_COLUMNS = (
    "wid",
    "name",
    "brand_id",
    "brand_name",
    *(f"cate_{kind}_{level}" for level in (1, 2, 3, 4) for kind in ("id", "name")),
    "shop_id",
)
# Catalogue column -> the file's columns of its name and its id.
_CATEGORICAL = {
    "brand": ("brand_name", "brand_id"),
    "category": ("cate_name_1", "cate_id_1"),
    "category_2": ("cate_name_2", "cate_id_2"),
    "category_3": ("cate_name_3", "cate_id_3"),
    "leaf_category": ("cate_name_4", "cate_id_4"),
    "shop": ("shop_id", "shop_id"),
}
_SCHEMA = pa.schema([(name, pa.string()) for name in ("item_id", "title", *_CATEGORICAL)])
_TERMS = "\x18"
_ROWS_AT_ONCE = 65536
# One Arrow column of text holds 2 GiB; some room is left for the products without metadata.
_MOST_TITLE_BYTES = 2**31 - 2**20


def read_products(path: Path, touched: Iterable[pa.Array], quiet: bool = False) -> tuple[Catalogue, tuple[str, ...]]:
    """Reads the products and adds those of `touched` (arrays of ids) that are missing, with empty texts, in order of first appearance.

    Terms are separated by spaces. A brand or category has its name's terms as value, or its id where there is no name. The products are
    held in memory. Where their titles together exceed 2 GiB (in the full set), titles are cut to the number of terms that fits.

    Returns:
        (catalogue, notes).
    """
    with progress("reading JDsearch", None, "products", quiet) as advance:
        parts = []
        for part in _product_tables(path):
            parts.append(part)
            advance(part.num_rows)
    if not parts:
        raise DataError(f"{path}: no product after the header. Download the file again.")
    products, notes = _fitting(pa.concat_tables(parts))
    ids = pa.chunked_array(list(touched), pa.string()).unique()
    missing = ids.filter(pc.invert(pc.is_in(ids, products["item_id"])))
    if len(missing):
        notes += (f"{len(missing)} products have no metadata and the title ''",)
        empty = pa.array([""] * len(missing), pa.string())
        products = pa.concat_tables([products, pa.table([missing, *[empty] * (len(_SCHEMA) - 1)], schema=_SCHEMA)])
    return Catalogue(products, str(path)), notes


def _product_tables(path: Path) -> Iterator[pa.Table]:
    chunk: list[list[str]] = []
    for line, values in bare_rows(path, _COLUMNS):
        if not values[0]:
            raise DataError(f"{path}: line {line}, column `wid`: empty. Repair the line.")
        chunk.append(values)
        if len(chunk) == _ROWS_AT_ONCE:
            yield _product_table(chunk)
            chunk = []
    if chunk:
        yield _product_table(chunk)


def _product_table(chunk: list[list[str]]) -> pa.Table:
    columns = dict(zip(_COLUMNS, (pa.array(values, pa.string()) for values in zip(*chunk, strict=True)), strict=True))
    arrays = [columns["wid"], _text(columns["name"])]
    for name, key in _CATEGORICAL.values():
        arrays.append(_text(pc.if_else(pc.equal(columns[name], ""), columns[key], columns[name])))
    return pa.table(arrays, schema=_SCHEMA)


def _text(terms: pa.Array) -> pa.Array:
    return pc.replace_substring(terms, _TERMS, " ")


def _fitting(products: pa.Table) -> tuple[pa.Table, tuple[str, ...]]:
    """Cuts all titles to the same number of terms, the largest that fits; leaves them alone when they fit as they are."""
    titles = products["title"].chunks
    if _bytes(titles) <= _MOST_TITLE_BYTES:
        return products, ()
    low, high = 1, 64
    while low < high:
        middle = (low + high + 1) // 2
        fits = sum(_bytes([_cut(chunk, middle)]) for chunk in titles) <= _MOST_TITLE_BYTES
        low, high = (middle, high) if fits else (low, middle - 1)
    cut = pa.chunked_array([_cut(chunk, low) for chunk in titles], pa.string())
    return products.set_column(1, "title", cut), (f"titles were cut to {low} terms: together they exceed 2 GiB",)


def _bytes(titles: list[pa.Array]) -> int:
    return sum(pc.sum(pc.binary_length(chunk)).as_py() for chunk in titles)


def _cut(titles: pa.Array, terms: int) -> pa.Array:
    return pc.binary_join(pc.list_slice(pc.split_pattern(titles, " "), 0, terms), " ")
