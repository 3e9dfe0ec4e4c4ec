"""Names of columns: keys that cannot clash, inputs that TensorFlow takes, the grammar of filters, and what is no name."""

import keyword
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_columns import NAMES as HOSTILE
from hostile_columns import write_shop
from hypothesis import example, given
from hypothesis import strategies as st

from tfebr.data.catalogue import Catalogue
from tfebr.data.dataset import DataFolder
from tfebr.data.names import atom, column_key, find_input, input_names, made_up, split_atom
from tfebr.errors import DataError

NAMES = st.sampled_from(HOSTILE) | st.text(min_size=1, max_size=8) | st.text("aA_1 é", min_size=1, max_size=4) | st.text(min_size=40)
# Names that are made up for others, and those of others that are made up for these.
CUNNING = NAMES | NAMES.map(made_up) | NAMES.map(made_up).map(made_up) | NAMES.map(lambda name: column_key(name).removeprefix("column_"))
SETS = st.lists(CUNNING, min_size=1, max_size=12, unique=True)


@given(names=SETS)
@example(names=list(dict.fromkeys(HOSTILE)))
def test_keys_are_all_different_and_safe_in_any_file_system(names):
    keys = [column_key(name) for name in names]
    assert len({key.casefold() for key in keys}) == len(names)
    for key in keys:
        assert re.fullmatch("column_[a-z0-9_]+", key)
        assert len(f"item-{key}.txt") <= 64


def test_short_names_stay_readable():
    assert [column_key(name) for name in ("brand", "leaf_category", "1st", "history_items")] == [
        "column_brand",
        "column_leaf_category",
        "column_1st",
        "column_history_items",
    ]
    assert column_key("Größe (cm)").startswith("column_gr_e_cm_")


@given(names=SETS, prefix=st.sampled_from(["", "user_"]))
@example(names=list(dict.fromkeys(HOSTILE)), prefix="")
@example(names=list(dict.fromkeys(HOSTILE)), prefix="user_")
@example(names=["Brand", "BRAND", "bRAND"], prefix="")
def test_inputs_are_found_by_the_names_they_stand_for(names, prefix):
    taken = {"item_id", "title"}
    asked = [prefix + name for name in names if name not in taken]
    found = input_names(asked, taken)
    assert list(found) == asked
    inputs = {*found.values(), *taken}
    assert len({name.lower() for name in inputs}) == len(asked) + len(taken), "TensorFlow does not tell upper from lower case"
    for name, given_name in found.items():
        assert re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,63}", given_name)
        assert not keyword.iskeyword(given_name)
        assert find_input(name, inputs) == given_name
        assert find_input(name, inputs - {given_name, name}) is None
        assert input_names(asked[::-1], taken)[name] == given_name
        # Clients may use the made-up name, unless a column is called so.
        assert made_up(given_name) in inputs or find_input(given_name, inputs) == given_name


@pytest.mark.parametrize("name", ["brand", "Brand", "LeafCategory", "user_age", "user_1st", "user_class", "a_1", "x" * 64])
def test_plain_names_are_themselves(name):
    assert input_names([name], ["title", "query"]) == {name: name}
    assert find_input(name, [name, "query"]) == name


def test_of_names_that_differ_in_case_the_lower_one_is_itself():
    found = input_names(["brand", "BRAND", "TITLE"], ["title"])
    assert found == {"brand": "brand", "BRAND": made_up("BRAND"), "TITLE": made_up("TITLE")}
    assert set(input_names(["Brand", "BRAND"]).values()) == {made_up("Brand"), made_up("BRAND")}


@given(column=CUNNING | st.text("=%|.37CD25", min_size=1), value=st.text("=%|.37CD25") | st.text())
def test_an_atom_is_split_where_it_was_joined(column, value):
    text = atom(column, value)
    assert "|" not in text
    name, rest = split_atom(text)
    assert name == column
    assert rest.replace("%3D", "=").replace("%7C", "|").replace("%25", "%") == value


def test_without_equals_there_is_no_atom():
    assert split_atom("brand") is None
    assert split_atom("a%3Db") is None
    assert split_atom("=x") == ("", "x")
    assert split_atom("a%b=c=%7C") == ("a%b", "c=%7C"), "a stray % stands for itself"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("names") / "shop")


def with_column(table, name):
    return pa.Table.from_arrays([*table.columns, pa.array(["x"] * len(table))], schema=table.schema.append(pa.field(name, pa.string())))


def test_names_of_any_kind_are_read(tmp_path):
    table = pa.table({"item_id": ["a", "b"], "title": ["A", "B"]} | {name: [name, ""] for name in HOSTILE})
    pq.write_table(table, tmp_path / "catalogue.parquet")
    catalogue = Catalogue.read(tmp_path)
    assert catalogue.categorical_columns == HOSTILE
    assert catalogue.table.to_pylist()[0] == {"item_id": "a", "title": "A"} | {name: name for name in HOSTILE}


@pytest.mark.parametrize("file", ["catalogue.parquet", "users.parquet", "log/part-00000.parquet"])
def test_a_name_that_is_no_text_is_refused(shop, tmp_path, file):
    folder = shutil.copytree(shop.path, tmp_path / "shop")
    pq.write_table(with_column(pq.read_table(folder / file), b"size\xff"), folder / file)
    with pytest.raises(DataError, match="the column b'x"):
        Catalogue(with_column(pa.table({"item_id": ["a"], "title": ["A"]}), b"x\xff"))
    with pytest.raises(DataError, match=rf"{file}: the column b'size\\xff' has a name that is not valid UTF-8. Rename it"):
        DataFolder(folder).check(quiet=True)


@pytest.mark.parametrize("file", ["catalogue.parquet", "users.parquet"])
def test_a_column_without_a_name_is_refused(shop, tmp_path, file):
    folder = shutil.copytree(shop.path, tmp_path / "shop")
    table = with_column(pq.read_table(folder / file), "")
    pq.write_table(table, folder / file)
    with pytest.raises(DataError, match=rf"{file}: column {table.num_columns} of {table.num_columns} has no name. Give it one, or drop it"):
        DataFolder(folder).check(quiet=True)
