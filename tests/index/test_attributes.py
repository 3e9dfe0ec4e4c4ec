"""Filters against a reading of their grammar in plain Python."""

import re

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st

from tfebr.data.names import LONGEST_CLAUSE, MOST_CLAUSES
from tfebr.errors import ConfigError
from tfebr.index.attributes import ItemAttributes, filter_columns

NAN = float("nan")
COLUMNS = {
    "brand": ["Sony", "LG", "", "a|b", "50%", "=", "%7C", "\u00e9\U0001f3a7", None, "Sony"],
    "price": [10.0, 0.1, 19.99, -5.0, NAN, 0.0, 1e300, 1e-40, 50.0, None],
    "50%|size": ["Sony", "S", "M", "", "S", "S", "M", "L", "L", "L"],
    "stock": [1, 2, 3, 4, 5, 6, 7, 8, 2**24 + 1, -(2**31)],
    "brand=Sony": ["S", "LG", "x=y", "", "=", "Sony", "S", "S", "S", "S"],
    "BRAND": ["LG", "LG", "Sony", "S", "", "", "", "", "", "S"],
    "%3D..\0": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
}
ITEMS = 10
TABLE = pa.table({"item_id": [str(i) for i in range(ITEMS)], "title": ["t"] * ITEMS, **COLUMNS})


@pytest.fixture(scope="module")
def attributes():
    return ItemAttributes(TABLE)


@pytest.fixture(scope="module")
def matches(attributes):
    return tf.function(attributes.matches, input_signature=[tf.TensorSpec([None], tf.string)])


def _atom_holds(atom, row):
    meant = {b"%7C": b"|", b"%25": b"%", b"%3D": b"="}
    column, equals, wanted = (re.sub(b"%(7C|25|3D)", lambda found: meant[found[0]], part) for part in atom.partition(b"="))
    values = COLUMNS.get(column.decode(errors="replace"))
    if not equals or values is None or values[row] is None:
        return False
    if isinstance(values[0], str):
        return wanted != b"" and values[row].encode() == wanted
    low, dots, high = wanted.partition(b"..")
    number = rb"[+-]?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,3})?"
    if not dots or not all(re.fullmatch(number, bound) for bound in (low, high) if bound):
        return False
    with np.errstate(over="ignore"):
        value, low, high = (np.float32(float(x)) for x in (values[row], low or b"-inf", high or b"inf"))
    return bool(low <= value <= high)


def _oracle(clauses):
    return [all(any(_atom_holds(atom, row) for atom in clause.split(b"|")) for clause in clauses if clause) for row in range(ITEMS)]


VALUES = st.sampled_from(
    ["Sony", "LG", "x=y", "%3D", "Sony=S", "a%7Cb", "a|b", "50%25", "50%", "=", "%257C", "%7C", "\u00e9\U0001f3a7", "S", "M", "", "s"]
)
BOUNDS = st.sampled_from(
    ["", "0", "-5", "+10", "19.99", "1e-1", "50", "1e300", "-1e999", "1e999", "16777217", "nan", "inf", ".5", "5.", "x", " 1"]
)
COLUMN = st.sampled_from(
    ["brand", "50%25%7Csize", "price", "stock", "brand%3DSony", "BRAND", "%253D..\0", "%3D..\0", "Brand", "", "title", "item_id"]
)
ATOMS = st.one_of(
    st.tuples(COLUMN, VALUES).map("=".join).map(str.encode),
    st.tuples(COLUMN, BOUNDS, st.sampled_from(["..", "...", "."]), BOUNDS).map(lambda a: f"{a[0]}={a[1]}{a[2]}{a[3]}".encode()),
    st.binary(max_size=4).filter(lambda text: b"|" not in text),
)
CLAUSES = st.lists(st.just(b"") | st.lists(ATOMS, min_size=1, max_size=4).map(b"|".join), max_size=3)


@given(clauses=CLAUSES)
@example(clauses=[b"brand=Sony|brand=LG|50%25%7Csize=S|price=..10", b"stock=1..|brand=50%25"])
@example(clauses=[b"price=..", b"", b"price=0..20|price=40..60"])
@example(clauses=[b"brand=%257C"])
@example(clauses=[b"brand=%7C|brand="])
@example(clauses=[b"|"])
@example(clauses=[b"\xff\xfe|brand=\xff|brand=Sony"])
@example(clauses=[b"brand"])
@example(clauses=[b"brand%3DSony=S|brand=Sony=S|BRAND=LG", b"%253D..\0=1..8"])
@example(clauses=[b"price=" + b"1" * 5000 + b"..|stock=9..1"])
def test_a_filter_leaves_what_its_grammar_says(matches, clauses):
    assert matches(tf.constant(clauses, tf.string, [len(clauses)])).numpy().tolist() == _oracle(clauses)


@pytest.mark.parametrize("values", [["Sony"], ["Sony", "LG"], ["Sony", "LG", "a%7Cb", "50%25", "="]])
def test_several_values_of_a_column(matches, values):
    clause = "|".join(f"brand={value}" for value in values).encode()
    found = matches(tf.constant([clause])).numpy()
    assert found.tolist() == _oracle([clause])
    assert found.sum() == len(values) + 1, "Sony is there twice"


def test_a_number_finds_itself(matches):
    for row, price in enumerate(COLUMNS["price"]):
        if price is not None and price == price:
            assert matches(tf.constant([f"price={price!r}..{price!r}"])).numpy()[row]


def test_values_come_back(attributes):
    rows = [0, 2, 3, 4, 8, -1]
    found = {name: values.numpy().tolist() for name, values in attributes.values(tf.constant(rows)).items()}
    assert found["brand"] == [b"Sony", b"", b"a|b", b"50%", b"", b""]
    assert found["50%|size"] == [b"Sony", b"M", b"", b"S", b"L", b""]
    assert found["price"] == pytest.approx([10.0, 19.99, -5.0, 0.0, 50.0, 0.0])
    assert found["stock"] == [1, 3, 4, 5, 2**24, 0]
    assert found["brand=Sony"] == [b"S", b"x=y", b"", b"=", b"S", b""]


def test_columns_and_their_kinds(attributes):
    kinds = ["category", "number", "category", "number", "category", "category", "number"]
    assert list(attributes.columns.items()) == list(zip(COLUMNS, kinds, strict=True))
    odd = TABLE.append_column("flags", [[True] * ITEMS])
    assert filter_columns(odd) == attributes.columns, "what is neither text nor number is no filter"


def test_a_catalogue_without_columns_is_refused():
    bare = TABLE.select(["item_id", "title"])
    assert filter_columns(bare) == {}
    with pytest.raises(ConfigError, match="no column to filter by"):
        ItemAttributes(bare)


@pytest.mark.parametrize("column", ["brand", "price"])
def test_one_column_is_enough(column):
    alone = ItemAttributes(TABLE.select(["item_id", "title", column]))
    for clause in (b"brand=Sony", b"price=0..20"):
        expected = _oracle([clause]) if clause.startswith(column.encode()) else [False] * ITEMS
        assert alone.matches(tf.constant([clause])).numpy().tolist() == expected


def test_a_column_without_values_matches_nothing():
    empty = ItemAttributes(pa.table({"brand": ["", None]}))
    assert empty.matches(tf.constant(["brand="])).numpy().tolist() == [False, False]
    assert empty.values(tf.constant([0, -1]))["brand"].numpy().tolist() == [b"", b""]


def test_a_filter_beyond_its_limits_finds_nothing_and_costs_nothing(matches):
    fits = "brand=LG|" * 7000 + "brand=Sony"
    assert 60_000 < len(fits) <= LONGEST_CLAUSE
    assert matches(tf.constant([fits])).numpy().nonzero()[0].tolist() == [0, 1, 9]
    assert matches(tf.constant(["", "brand=Sony"] * MOST_CLAUSES)).numpy().nonzero()[0].tolist() == [0, 9]
    for beyond in ([fits + "|brand=Sony" * 1000], ["brand=Sony"] * (MOST_CLAUSES + 1), ["brand=Sony", "|" * 20_000_000]):
        assert not matches(tf.constant(beyond)).numpy().any()


def test_memory_is_four_bytes_for_each_item_and_column():
    items = 10_000
    table = pa.table({"brand": ["a long name of a brand " + str(i % 7) for i in range(items)], "price": np.arange(items) * 1.0})
    held = sum(v.numpy().nbytes for v in ItemAttributes(table).variables if v.dtype != tf.string)
    assert held <= 4 * items * 2 + 200
