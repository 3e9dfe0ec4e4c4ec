"""Home Depot: the labelled tables and Kaggle's original file become a catalogue and a judged set."""

import collections
import csv
import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfebr.data.dataset import DataFolder
from tfebr.data.readers import prepare
from tfebr.data.readers.homedepot import split_of
from tfebr.errors import DataError

REAL = Path(__file__).parents[4] / "shared" / "data" / "homedepot"
TABLES = {
    "products.tsv.gz": "product_uid\tproduct_title\n100\tHole Saw 2 in.\n200\t\n300\tDeck Stain café\n",
    "queries.tsv.gz": "query_id\tquery\tsplit\nq0\thole saw\ttrain\nq1\tstain\ttest\nq2\tsaw\tdev\n",
    "qrels.tsv.gz": "query_id\tproduct_uid\trelevance\tsplit\n"
    "q0\t100\t3.0\ttrain\nq0\t200\t2.33\ttrain\nq1\t300\t2.5\ttest\nq2\t100\t1\tdev\n",
}
TRAIN = [
    ["id", "product_uid", "product_title", "search_term", "relevance"],
    ["2", "100", 'Hole Saw, 2" ½ in.', "hole saw", "3"],
    ["3", "200", "Deck Stain", "hole  saw ", "2"],
    ["9", "100", 'Hole Saw, 2" ½ in.', "saw", "2.33"],
    ["16", "100", 'Hole Saw, 2" ½ in.', " hole saw", "2"],
]


def tables(folder: Path, **changed: str) -> Path:
    folder.mkdir()
    for name, text in TABLES.items():
        (folder / name).write_bytes(gzip.compress(changed.get(name.split(".")[0], text).encode()))
    return folder


def train_csv(folder: Path, rows: list[list[str]]) -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / "train.csv").open("w", encoding="latin-1", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def test_labelled_tables(tmp_path):
    data = prepare("homedepot", tables(tmp_path / "in"), tmp_path / "out", quiet=True)
    assert data.catalogue().table.to_pydict() == {"item_id": ["100", "200", "300"], "title": ["Hole Saw 2 in.", "", "Deck Stain café"]}
    assert not data.has_log
    judgments = data.judgments()
    assert judgments.relevant_from == 2.5
    assert [tuple(row.values()) for row in judgments.queries.to_pylist()] == [
        ("q0", "hole saw", "train"),
        ("q1", "stain", "test"),
        ("q2", "saw", "dev"),
    ]
    assert [tuple(row.values()) for row in judgments.qrels.to_pylist()] == [
        ("q0", "100", 3.0),
        ("q0", "200", 2.33),
        ("q1", "300", 2.5),
        ("q2", "100", 1.0),
    ]


@pytest.mark.parametrize(
    ("table", "old", "new", "words"),
    [
        ("products", "200\t", "100\t", "products.tsv.gz: line 3, column `product_uid`: '100' repeats line 2"),
        ("products", "100\tHole Saw 2 in.\n200\t\n300\tDeck Stain café\n", "", "products.tsv.gz: no product after the header"),
        ("products", "200\t", "\t", "products.tsv.gz: line 3, column `product_uid`: empty"),
        ("queries", "q1", "q0", "queries.tsv.gz: line 3, column `query_id`: 'q0' repeats line 2"),
        ("queries", "\tdev", "\tvalid", "queries.tsv.gz: line 4, column `split`: unknown split 'valid'. Known splits: train, dev, test"),
        ("queries", "\tsplit", "\tpart", "queries.tsv.gz: line 1: missing columns: split"),
        ("qrels", "q1\t", "q9\t", "qrels.tsv.gz: line 4, column `query_id`: 'q9' is not in queries.tsv.gz"),
        ("qrels", "\t300", "\t301", "qrels.tsv.gz: line 4, column `product_uid`: '301' is not among the products"),
        ("qrels", "2.33", "3.5", "qrels.tsv.gz: line 3, column `relevance`: '3.5' is not a number from 1 to 3"),
        ("qrels", "q0\t200", "q0\t100", "qrels.tsv.gz: line 3: 'q0' and '100' were judged in line 2"),
        ("qrels", "\ttrain", "", "qrels.tsv.gz: line 2: 3 fields, but the header has 4"),
    ],
)
def test_bad_rows_are_named_and_the_old_data_stays(tmp_path, table, old, new, words):
    before = prepare("homedepot", tables(tmp_path / "good"), tmp_path / "out", quiet=True).catalogue().table
    changed = TABLES[f"{table}.tsv.gz"].replace(old, new, 1)
    with pytest.raises(DataError) as caught:
        prepare("homedepot", tables(tmp_path / "in", **{table: changed}), tmp_path / "out", quiet=True)
    assert words in str(caught.value)
    after = DataFolder(tmp_path / "out")
    assert after.catalogue().table == before
    assert after.judgments().qrels.num_rows == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good", "in", "out"]


@pytest.mark.parametrize("given_file", [False, True])
def test_kaggles_original_file(tmp_path, given_file):
    folder = train_csv(tmp_path / "in", TRAIN)
    data = prepare("homedepot", folder / "train.csv" if given_file else folder, tmp_path / "out", quiet=True)
    assert data.catalogue().table.to_pydict() == {"item_id": ["100", "200"], "title": ['Hole Saw, 2" ½ in.', "Deck Stain"]}
    judgments = data.judgments()
    assert judgments.queries["query"].to_pylist() == ["hole saw", "saw"]
    assert judgments.queries["split"].to_pylist() == [split_of("hole saw"), split_of("saw")]
    query_ids = judgments.queries["query_id"].to_pylist()
    assert len(set(query_ids)) == 2
    # The pair judged 3 and 2 counts once, with the mean.
    assert [tuple(row.values()) for row in judgments.qrels.to_pylist()] == [
        (query_ids[0], "100", 2.5),
        (query_ids[0], "200", 2.0),
        (query_ids[1], "100", 2.33),
    ]
    assert judgments.relevant_from == 2.5


def test_attributes_give_the_brand(tmp_path):
    folder = train_csv(tmp_path / "in", TRAIN)
    (folder / "attributes.csv").write_text(
        '"product_uid","name","value"\n100,"MFG Brand Name","DEWALT, Inc."\n100,"Material","Steel"\n,,\n100,"MFG Brand Name","Other"\n'
        '999,"MFG Brand Name","Unsold"\n'
    )
    catalogue = prepare("homedepot", folder, tmp_path / "out", quiet=True).catalogue()
    assert catalogue.table["brand"].to_pylist() == ["DEWALT, Inc.", ""]
    assert catalogue.categorical_columns == ["brand"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (["2", "100", "Hole Saw", "saw", "4"], "line 2, column `relevance`: '4' is not a number from 1 to 3"),
        (["2", "", "Hole Saw", "saw", "3"], "line 2, column `product_uid`: empty"),
        (["2", "100", "Hole Saw", " ", "3"], "line 2, column `search_term`: empty"),
        (["2", "100", "Hole Saw", "saw"], "line 2: 4 fields"),
    ],
)
def test_bad_rows_of_kaggles_file_are_named(tmp_path, row, words):
    with pytest.raises(DataError) as caught:
        prepare("homedepot", train_csv(tmp_path / "in", [TRAIN[0], row]), tmp_path / "out", quiet=True)
    assert f"train.csv: {words}" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_kaggles_file_without_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"train\.csv: no row after the header"):
        prepare("homedepot", train_csv(tmp_path / "in", TRAIN[:1]), tmp_path / "out", quiet=True)


def test_split_shares():
    shares = collections.Counter(split_of(f"query number {n}") for n in range(20_000))
    assert shares["train"] / 20_000 == pytest.approx(0.8, abs=0.01)
    assert shares["dev"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert shares["test"] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_split_is_the_same_on_every_machine():
    assert [split_of(f"lamp {n}") for n in range(8)] == ["train", "train", "test", "train", "train", "dev", "train", "dev"]


@given(st.text(st.characters(max_codepoint=127)))
def test_split_ignores_case_and_spacing(query):
    assert split_of(query) == split_of(f"  {query.upper()} ") == split_of("  ".join(query.lower().split()))


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the Home Depot files in ../shared/data/homedepot")
def test_the_real_set(tmp_path):
    data = prepare("homedepot", REAL, tmp_path / "out", quiet=True)
    judgments = data.judgments()
    assert (len(data.catalogue()), judgments.queries.num_rows, judgments.qrels.num_rows) == (54_667, 10_618, 66_727)
    splits = {name: judgments.split(name) for name in ("train", "dev", "test")}
    assert {name: (s.queries.num_rows, s.qrels.num_rows) for name, s in splits.items()} == {
        "train": (8_302, 52_174),
        "dev": (1_136, 7_142),
        "test": (1_180, 7_411),
    }
