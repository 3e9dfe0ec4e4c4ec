"""What a catalogue's columns are for: by their types, as declared, and refused by name."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfebr.data.catalogue import Catalogue
from tfebr.data.dataset import DataFolder
from tfebr.data.roles import ROLES, ColumnRoles
from tfebr.errors import DataError
from tfebr.infrastructure.files import read_json, write_json

TABLE = Catalogue(
    pa.table({"item_id": ["1"], "price": [2.0], "marke": ["Acme"], "title": ["lamp"], "description": ["of brass"], "url": ["u"]})
).table
COLUMNS = [name for name in TABLE.column_names if name != "item_id"]


def test_types_decide_where_nothing_is_declared():
    found = ColumnRoles.of(TABLE)
    assert found == ColumnRoles(text=("title",), category=("marke", "description", "url"), number=("price",))
    assert ColumnRoles.of(TABLE, {}) == found
    assert found.filters == ("marke", "description", "url", "price")


def test_what_is_declared_counts():
    found = ColumnRoles.of(TABLE, {"text": ["description"], "ignored": ["url", "price"]})
    assert found == ColumnRoles(text=("title", "description"), category=("marke",), ignored=("price", "url"))


@given(
    st.fixed_dictionaries(
        {
            name: st.sampled_from(["number", "ignored"] if name == "price" else ["text", "category", "ignored"])
            for name in COLUMNS
            if name != "title"
        }
    ),
    st.sets(st.sampled_from(COLUMNS)),
)
def test_every_column_has_one_role_and_reads_back(role_of, undeclared):
    declared = {role: [n for n, r in role_of.items() if r == role and n not in undeclared] for role in ROLES}
    found = ColumnRoles.of(TABLE, declared)
    assert sorted(name for names in found.to_json().values() for name in names) == sorted(COLUMNS)
    for role, names in declared.items():
        assert set(names) <= set(getattr(found, role))
    assert found.text[0] == "title"
    assert ColumnRoles.of(TABLE, found.to_json()) == found == found.over(TABLE)


def test_another_catalogue_keeps_the_roles():
    found = ColumnRoles.of(TABLE, {"text": ["description"], "ignored": ["url"]})
    other = Catalogue(TABLE.drop(["marke", "description"]).append_column("colour", pa.array(["red"]))).table
    assert found.over(other) == ColumnRoles(text=("title",), category=("colour",), number=("price",), ignored=("url",))
    worded = Catalogue(
        TABLE.drop(["price", "marke"]).append_column("price", pa.array(["2 EUR"])).append_column("marke", pa.array([7.0]))
    ).table
    assert found.over(worded) == ColumnRoles(text=("title", "description"), category=("price",), number=("marke",), ignored=("url",))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"text": ["titel"]}, "names 'titel' as text, but the catalogue has no such column. It has: item_id, title"),
        ({"text": ["price"]}, "names 'price' as text, which needs strings, but the catalogue holds double"),
        ({"category": ["price"]}, "names 'price' as category, which needs strings"),
        ({"number": ["marke"]}, "names 'marke' as number, which needs numbers, but the catalogue holds string"),
        ({"text": ["marke"], "category": ["marke"]}, "names 'marke' as text and as category"),
        ({"category": ["marke", "marke"]}, "names 'marke' as category and as category"),
        ({"ignored": ["title"]}, "names 'title' as ignored"),
        ({"category": ["item_id"]}, "names 'item_id' as category"),
        ({"texts": ["title"]}, "has a role 'texts'. Roles are text, category, number, ignored"),
        ({"text": "title"}, "'text' must be a list of column names. Received: 'title'"),
        ({"text": [1]}, "'text' must be a list of column names"),
        (["title"], r"`columns` must be an object of lists .* Received: \['title'\]"),
        (0, "`columns` must be an object of lists"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path, declared, message):
    Catalogue(TABLE).write(tmp_path / "catalogue.parquet")
    write_json(tmp_path / "about.json", {"columns": declared})
    with pytest.raises(DataError, match=f"about.json: .*{message}"):
        DataFolder(tmp_path).roles()


def test_a_folder_without_about_has_roles(tmp_path):
    Catalogue(TABLE).write(tmp_path / "catalogue.parquet")
    assert DataFolder(tmp_path).roles() == ColumnRoles.of(TABLE)


def test_a_simulated_shop_declares_its_columns(tiny_shop):
    declared = read_json(tiny_shop.path / "about.json")["columns"]
    assert declared == {"text": ["title"], "category": ["brand", "leaf_category", "category", "shop"], "number": ["price"], "ignored": []}
    assert tiny_shop.roles().to_json() == declared
