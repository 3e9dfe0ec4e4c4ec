"""The catalogue keeps its contract or refuses the input whole, naming source, row and column."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfebr.data.catalogue import Catalogue
from tfebr.errors import DataError


def raw_strings(*values: bytes) -> pa.Array:
    """A string array whose bytes nobody has checked."""
    offsets = np.cumsum([0, *(len(v) for v in values)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(values)))


def items(**columns) -> pa.Table:
    return pa.table({"item_id": ["a", "b", "c"], "title": ["A", "B", "C"]} | columns)


def test_columns_are_sorted_into_texts_and_numbers():
    catalogue = Catalogue(
        items(price=[1, 2, 3], brand=["x", None, "y"], in_stock=[True, False, True], cents=pa.array([1, 2, 3], pa.int8()))
    )
    assert len(catalogue) == 3
    assert catalogue.table.column_names[:2] == ["item_id", "title"]
    assert catalogue.categorical_columns == ["brand", "in_stock"]
    assert catalogue.number_columns == ["price", "cents"]
    assert catalogue.table["brand"].to_pylist() == ["x", "", "y"]
    assert catalogue.table["price"].type == pa.float64()
    assert catalogue.titles == ["A", "B", "C"]
    assert list(catalogue.item_ids) == ["a", "b", "c"]


def test_ids_and_titles_that_are_numbers_become_text():
    catalogue = Catalogue(pa.table({"title": [60, 100], "item_id": [7, 8]}))
    assert list(catalogue.item_ids) == ["7", "8"]
    assert catalogue.titles == ["60", "100"]
    assert catalogue.number_columns == []


def test_dictionary_and_large_and_binary_columns_become_strings():
    table = items(
        brand=pa.array(["x", "y", "x"]).dictionary_encode(),
        shop=pa.array(["s", "t", "u"], pa.large_string()),
        colour=pa.array([b"red", b"gr\xc3\xbcn", None], pa.binary()),
    )
    catalogue = Catalogue(table)
    assert catalogue.categorical_columns == ["brand", "shop", "colour"]
    assert catalogue.table["colour"].to_pylist() == ["red", "grün", ""]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (pa.table({"title": ["A"]}), ["column `item_id` is missing", "title"]),
        (pa.table({"item_id": ["a"], "name": ["A"]}), ["column `title` is missing", "item_id, name"]),
        (items().slice(0, 0), ["empty", "at least one item"]),
        (items(item_id=["a", "", "c"]), ["row 1", "`item_id`", "empty"]),
        (items(item_id=["a", None, "c"]), ["row 1", "`item_id`", "missing"]),
        (items(item_id=["a", "b", "a"]), ["row 2", "`item_id`", "'a' repeats row 0"]),
        (items(price=[1.0, 2.0, -math.inf]), ["row 2", "`price`", "-inf"]),
        (items(tags=[["x"], [], ["y"]]), ["`tags`", "list", "strings and numbers only"]),
        (items(title=raw_strings(b"ok", b"caf\xe9", b"ok")), ["row 1", "`title`", "not valid UTF-8", "Re-encode"]),
        (items(brand=pa.array([b"ok", b"ok", b"\xff"], pa.binary())), ["row 2", "`brand`", "not valid UTF-8"]),
        (items(item_id=raw_strings(b"\xc3", b"b", b"c")), ["row 0", "`item_id`", "not valid UTF-8"]),
        (pa.Table.from_arrays([pa.array(["a"])] * 3, ["item_id", "title", "title"]), ["`title`", "more than once"]),
    ],
    ids=lambda value: None if isinstance(value, pa.Table) else value[0],
)
def test_bad_input_is_refused(table, words):
    with pytest.raises(DataError) as caught:
        Catalogue(table, source="shop.parquet")
    assert str(caught.value).startswith("shop.parquet: ")
    for word in words:
        assert word in str(caught.value)


def test_rows_are_counted_across_chunks():
    table = pa.table(
        {
            "item_id": pa.chunked_array([["a", "b"], ["c", "d"]]),
            "title": pa.chunked_array([["A", "B"], ["C", "D"]]),
            "price": pa.chunked_array([[1.0, 2.0], [3.0, math.inf]]),
        }
    )
    with pytest.raises(DataError, match="row 3, column `price`"):
        Catalogue(table)
    repeated = table.select(["item_id", "title"]).set_column(0, "item_id", pa.chunked_array([["a", "b"], ["c", "b"]]))
    with pytest.raises(DataError, match="row 3, column `item_id`: 'b' repeats row 1"):
        Catalogue(repeated)


def test_written_catalogue_reads_back(tmp_path):
    catalogue = Catalogue(items(price=[1.5, 2, 3], brand=["x", "ü", "漢"]))
    catalogue.write(tmp_path / "catalogue.parquet")
    for path in (tmp_path, tmp_path / "catalogue.parquet"):
        again = Catalogue.read(path)
        assert again.table.to_pydict() == catalogue.table.to_pydict()
        assert again.content_hash() == catalogue.content_hash()


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no such catalogue.*tfebr simulate"):
        Catalogue.read(tmp_path / "nothing.parquet")
    path = tmp_path / "catalogue.parquet"
    Catalogue(items()).write(path)
    whole = path.read_bytes()
    for part in (b"", b"not parquet", whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(part)
        with pytest.raises(DataError, match=r"catalogue\.parquet: not a readable Parquet file"):
            Catalogue.read(path)


def test_invalid_utf8_in_a_file_is_found(tmp_path):
    path = tmp_path / "catalogue.parquet"
    pq.write_table(items(title=raw_strings(b"A", b"B", b"\xfe")), path)
    with pytest.raises(DataError, match=r"catalogue\.parquet: row 2, column `title`: not valid UTF-8"):
        Catalogue.read(path)


@pytest.mark.parametrize("wrap", [list, pa.array, lambda ids: pa.chunked_array([ids[:1], ids[1:]])], ids=["list", "array", "chunked"])
def test_rows_of(wrap):
    catalogue = Catalogue(items())
    for asked, expected in ((["c", "nobody", "a", ""], [2, -1, 0, -1]), (["b", "b", None], [1, 1, -1]), (["a"], [0])):
        rows = catalogue.rows_of(wrap(asked))
        assert rows.dtype == np.int64
        assert rows.tolist() == expected
    assert catalogue.rows_of([]).tolist() == []


def test_a_column_may_hold_more_text_than_one_array_can():
    """Two GiB are the most that one Arrow array of strings holds; the two chunks here share theirs."""
    title, rows = b"x" * 2**20, 1025
    offsets = pa.py_buffer(np.arange(0, (rows + 1) * len(title), len(title), np.int32).tobytes())
    chunk = pa.StringArray.from_buffers(rows, offsets, pa.py_buffer(title * rows))
    table = pa.table({"item_id": [f"i{row}" for row in range(2 * rows)], "title": pa.chunked_array([chunk, chunk])})
    catalogue = Catalogue(table)
    assert len(catalogue) == 2 * rows
    assert catalogue.table["title"][2 * rows - 1].as_py() == title.decode()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True, min_size=1), st.randoms())
@settings(max_examples=50, deadline=None)
def test_any_unique_ids_are_found_where_they_are(ids, random):
    catalogue = Catalogue(pa.table({"item_id": ids, "title": [""] * len(ids)}))
    asked = random.sample(ids, len(ids))
    assert [ids[row] for row in catalogue.rows_of(asked)] == asked


def test_content_hash_tells_ids_and_order_apart():
    tables = [["a", "b"], ["b", "a"], ["ab", ""], ["a", "bc"], ["ab", "c"]]
    hashes = {Catalogue(pa.table({"item_id": [i or "-" for i in ids], "title": ["", ""]})).content_hash() for ids in tables}
    assert len(hashes) == len(tables)
