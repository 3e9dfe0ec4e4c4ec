"""Digests of columns: the same for the same values however they lie, others for other values."""

import itertools
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfebr.data.catalogue import Catalogue
from tfebr.data.content import combined, content_of, differences
from tfebr.data.log import SCHEMA

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=4)
SHOWN = st.fixed_dictionaries({"item_id": TEXT, "stage": st.integers(0, 3), "position": st.integers(-1, 9)})
ROW = st.fixed_dictionaries(
    {"request_id": TEXT, "time": st.integers(0, 9), "user_id": TEXT, "query": TEXT, "items": st.lists(SHOWN, max_size=3)}
)
ROWS = st.lists(ROW, min_size=1, max_size=6)


def log_of(rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


def pieces(table: pa.Table, cuts: list[int]) -> list[pa.RecordBatch]:
    edges = sorted({0, table.num_rows, *(cut % (table.num_rows + 1) for cut in cuts)})
    return [batch for begin, end in itertools.pairwise(edges) for batch in table.slice(begin, end - begin).to_batches()]


@given(ROWS, st.lists(st.integers(0, 6)))
def test_the_cut_into_batches_does_not_count(rows, cuts):
    table = log_of(rows)
    assert content_of(pieces(table, cuts)) == content_of(table.to_batches())


@given(ROWS, ROWS)
def test_a_column_has_another_digest_exactly_when_its_values_are_others(one, other):
    found, expected = content_of(log_of(one).to_batches()), content_of(log_of(other).to_batches())
    for name in SCHEMA.names:
        assert (found[name] == expected[name]) == ([r[name] for r in one] == [r[name] for r in other]), name
    assert (combined(found) == combined(expected)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["a", "bc"], ["ab", "c"]),
        (["", "a"], ["a", ""]),
        ([None, "a"], ["", "a"]),
        ([None, ""], ["", None]),
        (["a"], ["a", ""]),
        ([1.0, None], [1.0, 0.0]),
        ([True, None], [True, False]),
        ([["a"], ["b"]], [["a", "b"], []]),
        ([None, ["a"]], [[], ["a"]]),
        ([{"x": None}], [{"x": ""}]),
    ],
)
def test_what_runs_into_each_other_or_is_missing_is_told_apart(one, other):
    kind = pa.array([*one, *other]).type
    found = [content_of([pa.record_batch({"a": pa.array(values, kind)})]) for values in (one, other)]
    assert found[0] != found[1]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_the_kind_of_text_and_the_width_of_numbers_do_not_count(kind):
    texts, numbers = pa.array(["red", None, "", "blau"]), [3, None, -1, 0]
    other = texts.dictionary_encode() if pa.types.is_dictionary(kind) else texts.cast(kind)
    plain = pa.record_batch({"text": texts, "number": pa.array(numbers, pa.int64())})
    assert content_of([pa.record_batch({"number": pa.array(numbers, pa.int8()), "text": other})]) == content_of([plain])
    assert content_of([pa.record_batch({"a": pa.array([0.0, np.nan])})]) == content_of([pa.record_batch({"a": pa.array([-0.0, -np.nan])})])


@pytest.mark.parametrize(
    "written",
    [
        {"row_group_size": 7},
        {"compression": "zstd", "use_dictionary": False},
        {"compression": "none", "data_page_version": "2.0", "data_page_size": 64},
    ],
)
def test_a_catalogue_written_otherwise_is_the_same(tiny_shop, tmp_path, written):
    catalogue = tiny_shop.catalogue()
    pq.write_table(catalogue.table, tmp_path / "catalogue.parquet", **written)
    again = Catalogue.read(tmp_path / "catalogue.parquet")
    assert again.content == catalogue.content
    assert again.content_hash() == catalogue.content_hash()


def test_every_column_of_a_catalogue_counts(tiny_shop):
    """Also where the ids and the set of values are as they were: all values of one column in another order."""
    catalogue, rng = tiny_shop.catalogue(), random.Random(0)
    hashes = {catalogue.content_hash()}
    for place, name in enumerate(catalogue.table.column_names):
        values = catalogue.table[name].to_pylist()
        rng.shuffle(values)
        changed = Catalogue(catalogue.table.set_column(place, name, pa.array(values, catalogue.table.schema.field(name).type)))
        assert {n for n in catalogue.content if changed.content[n] != catalogue.content[n]} == {name}
        hashes.add(changed.content_hash())
    assert len(hashes) == 1 + len(catalogue.table.column_names)


def test_it_is_computed_once_for_a_catalogue(tiny_shop, monkeypatch):
    catalogue, calls = tiny_shop.catalogue(), []
    monkeypatch.setattr("tfebr.data.catalogue.content_of", lambda batches: calls.append(1) or content_of(batches))
    assert len({catalogue.content_hash() for _ in range(3)}) == 1
    assert calls == [1]


def test_differences_name_files_and_columns():
    before = {"catalogue": {"title": "1", "brand": "2", "old": "3"}, "log": {"query": "4"}, "users": {"age": "5"}}
    now = {"catalogue": {"title": "0", "brand": "2", "new": "3"}, "log": {"query": "4"}, "users": {"age": "0"}}
    assert differences(before, now) == (
        "catalogue: column `title`, column `new`, which is new, column `old`, which is gone; users: column `age`"
    )
    assert differences(before, before) == differences(before, {"log": {"query": "4"}}) == ""
    assert differences({}, {"log": {"a": "1"}}) == "log: column `a`, which is new"
