"""JDsearch: a user's row becomes the visits of the history and the last search, with the times that the gaps tell."""

import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfebr.data.examples import write_examples
from tfebr.data.log import split_time
from tfebr.data.readers import jdsearch, jdsearch_products, prepare
from tfebr.data.readers.jdsearch import LAST_SEARCH
from tfebr.data.stage import Stage
from tfebr.errors import DataError

REAL = Path(__file__).parents[4] / "shared" / "data" / "jdsearch_sample"
HEADER = [
    "query",
    "candidate_wid_list",
    "candidate_label_list",
    *(f"history_{name}_list" for name in ("qry", "wid", "type", "time")),
]
LEVELS = [f"cate_{kind}_{level}" for level in (1, 2, 3, 4) for kind in ("id", "name")]
PRODUCT_HEADER = ["wid", "name", "brand_id", "brand_name", *LEVELS, "shop_id"]
UNCLICKED, CLICKED, CARTED, ORDERED = Stage
# Query 11 12 shows five products; before it: two of query 21, one an hour later, two without a query.
USER = [
    "11\x1812",
    "a_b_c_d_e",
    "3.0_2.0_1.0_0.0_0.0",
    "21_21_21_-1_-1",
    "a_f_a_g_f",
    "CLICK_CART_ORD_FLW_CLICK",
    "0_100_3600_5_1800",
]
USER[6] += "_60"
STRANGER = ["13", "d_c", "0.0_0.0", "", "", "", "0"]
PRODUCTS = [
    ["a", "1\x182\x183", "b1", "7\x188", "c1", "31", "c2", "32\x1833", "c3", "34", "c4", "35", "s1"],
    ["b", "4", "b2", "", "c1", "31", "c2", "32\x1833", "c3", "34", "c4", "", ""],
    ["c", "", "", "", "", "", "", "", "", "", "", "", ""],
]


def download(folder: Path, users=(USER, STRANGER), products=PRODUCTS, header: bool = True) -> Path:
    folder.mkdir()
    for name, rows, names in (("user_behavior_data.txt", users, HEADER), ("product_meta_data.txt.gz", products, PRODUCT_HEADER)):
        text = "".join("\t".join(row) + "\n" for row in ([names, *rows] if header else rows)).encode()
        (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return folder


def requests(data) -> list[dict]:
    return [row for batch in data.log().batches() for row in batch.to_pylist()]


def shown(row: dict) -> list[tuple]:
    return [(i["item_id"], i["stage"]) for i in row["items"]]


@pytest.mark.parametrize("header", [True, False])
def test_a_user_becomes_visits_and_the_last_search(tmp_path, header):
    rows = requests(prepare("jdsearch", download(tmp_path / "in", header=header), tmp_path / "out", quiet=True))
    start = LAST_SEARCH - (100 + 3600 + 5 + 1800 + 60)
    assert [(r["request_id"], r["time"], r["user_id"], r["query"]) for r in rows] == [
        ("JD000000-0000", start, "JD000000", "21"),
        ("JD000000-0001", start + 3700, "JD000000", "21"),
        ("JD000000-0002", start + 3705, "JD000000", ""),
        ("JD000000-last", LAST_SEARCH, "JD000000", "11 12"),
        ("JD000001-last", LAST_SEARCH, "JD000001", "13"),
    ]
    assert [shown(r) for r in rows[:3]] == [[("a", CLICKED), ("f", CARTED)], [("a", ORDERED)], [("g", CLICKED), ("f", CLICKED)]]
    assert dict(shown(rows[3])) == {"a": ORDERED, "b": CARTED, "c": CLICKED, "d": UNCLICKED, "e": UNCLICKED}
    assert dict(shown(rows[4])) == {"d": UNCLICKED, "c": UNCLICKED}
    for row in rows:
        assert [i["position"] for i in row["items"]] == list(range(len(row["items"])))


def test_catalogue_holds_described_and_touched_products(tmp_path):
    data = prepare("jdsearch", download(tmp_path / "in"), tmp_path / "out", quiet=True)
    assert data.catalogue().table.to_pydict() == {
        "item_id": ["a", "b", "c", "d", "e", "f", "g"],
        "title": ["1 2 3", "4", "", "", "", "", ""],
        "brand": ["7 8", "b2", "", "", "", "", ""],
        "category": ["31", "31", "", "", "", "", ""],
        "category_2": ["32 33", "32 33", "", "", "", "", ""],
        "category_3": ["34", "34", "", "", "", "", ""],
        "leaf_category": ["35", "c4", "", "", "", "", ""],
        "shop": ["s1", "", "", "", "", "", ""],
    }
    notes = (data.path / "about.json").read_text()
    assert "4 products have no metadata" in notes


def test_a_candidates_position_does_not_tell_its_label(tmp_path):
    users = []
    for user in range(400):
        ids = [f"u{user}x{i}" for i in range(8)]
        users.append(["1", "_".join(ids), "_".join(["3.0"] + ["0.0"] * 7), "", "", "", "0"])
    rows = requests(prepare("jdsearch", download(tmp_path / "in", users), tmp_path / "out", quiet=True))
    places = [[stage for _, stage in shown(r)].index(ORDERED) for r in rows]
    counts = np.bincount(places, minlength=8)
    # Chi-squared with 7 degrees of freedom: 24.3 is passed by chance once in a thousand draws.
    assert ((counts - 50) ** 2 / 50).sum() < 24.3
    again = requests(prepare("jdsearch", download(tmp_path / "again", users), tmp_path / "out", quiet=True))
    assert again == rows


EVENTS = st.tuples(st.sampled_from(["-1", "5", "6\x187"]), st.sampled_from("abc"), st.sampled_from(["CLICK", "FLW", "CART", "ORD"]))


@given(st.lists(st.lists(st.tuples(EVENTS, st.sampled_from([0, 7, 1800, 1801])), max_size=8), min_size=1, max_size=4), st.integers(0, 9))
@settings(max_examples=40)
def test_histories_match_a_plain_loop(tmp_path_factory, drawn, final):
    folder = tmp_path_factory.mktemp("jdsearch")
    users, expected = [], []
    stages = {"CLICK": 1, "FLW": 1, "CART": 2, "ORD": 3}
    for user, events in enumerate(drawn):
        gaps = [gap for _, gap in events] + [final]
        lists = ["_".join(e[i] for e, _ in events) for i in range(3)]
        users.append(["9", "a", "0.0", *lists, "_".join(map(str, gaps))])
        visits: list[list] = []
        for at, ((query, item, kind), gap) in enumerate(events):
            if not visits or gap > 1800 or query != events[at - 1][0][0]:
                time = LAST_SEARCH - sum(gaps[at + 1 :])
                visits.append([time, f"JD{user:06d}", query.replace("\x18", " ").replace("-1", ""), {}])
            visits[-1][3][item] = max(visits[-1][3].get(item, 0), stages[kind])
        expected += [*visits, [LAST_SEARCH, f"JD{user:06d}", "9", {"a": 0}]]
    rows = [r for batch in jdsearch.read(download(folder / "in", users), True).log for r in batch.to_pylist()]
    assert [[r["time"], r["user_id"], r["query"], dict(shown(r))] for r in rows] == sorted(expected, key=lambda r: r[0])


def bad(place: int, value: str) -> list[str]:
    return [value if at == place else old for at, old in enumerate(USER)]


@pytest.mark.parametrize(
    ("user", "words"),
    [
        (USER[:6], "line 3: 6 fields instead of 7 (query, candidate_wid_list"),
        ([*USER, "x"], "line 3: 8 fields instead of 7"),
        (bad(1, "a_b_c_d"), "line 3, column `candidate_label_list`: 5 entries instead of 4"),
        (bad(1, "a__c_d_e"), "line 3, column `candidate_wid_list`: an empty product id"),
        (bad(2, "4.0_2.0_1.0_0.0_0.0"), "line 3, column `candidate_label_list`: unknown label '4.0'. Known labels: 0.0, 1.0, 2.0, 3.0."),
        (bad(3, "21_21_21_-1"), "line 3, column `history_qry_list`: 4 entries instead of 5"),
        (bad(4, "a_f_a_g_"), "line 3, column `history_wid_list`: an empty product id"),
        (
            bad(5, "CLICK_CART_ORD_FLW_LOOK"),
            "line 3, column `history_type_list`: unknown label 'LOOK'. Known labels: CLICK, FLW, CART, ORD.",
        ),
        (bad(6, "0_100_3600_5_1800"), "line 3, column `history_time_list`: 5 entries instead of 6"),
        (bad(6, "0_100_soon_5_1800_60"), "line 3, column `history_time_list`: 'soon' is not a number from 0"),
        (bad(6, "0_100_-5_5_1800_60"), "line 3, column `history_time_list`: '-5' is not a number from 0"),
        (bad(6, "0_100_nan_5_1800_60"), "line 3, column `history_time_list`: 'nan' is not a number from 0"),
    ],
)
def test_bad_users_are_named_and_nothing_remains(tmp_path, monkeypatch, user, words):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    with pytest.raises(DataError) as caught:
        prepare("jdsearch", download(tmp_path / "in", [STRANGER, user]), tmp_path / "out", quiet=True)
    assert f"user_behavior_data.txt: {words}" in str(caught.value)
    del caught
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "scratch"]
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize(
    ("products", "words"),
    [
        ([PRODUCTS[0], PRODUCTS[1][:12]], "line 3: 12 fields instead of 13"),
        ([PRODUCTS[0], ["", *PRODUCTS[1][1:]]], "line 3, column `wid`: empty"),
        ([PRODUCTS[0], PRODUCTS[1], PRODUCTS[0]], "row 2, column `item_id`: 'a' repeats row 0"),
        ([], "no product after the header"),
    ],
)
def test_bad_products_are_named(tmp_path, products, words):
    with pytest.raises(DataError) as caught:
        prepare("jdsearch", download(tmp_path / "in", products=products), tmp_path / "out", quiet=True)
    assert f"product_meta_data.txt.gz: {words}" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_damaged_and_empty_downloads_are_refused(tmp_path):
    folder = download(tmp_path / "in", users=[])
    with pytest.raises(DataError, match=r"user_behavior_data\.txt: no user after the header"):
        prepare("jdsearch", folder, tmp_path / "out", quiet=True)
    packed = gzip.compress("\n".join("\t".join(row) for row in [HEADER, *[USER] * 50]).encode())
    (folder / "user_behavior_data.txt").unlink()
    (folder / "user_behavior_data.txt.gz").write_bytes(packed[:-20])
    with pytest.raises(DataError, match=r"user_behavior_data\.txt\.gz: after line \d+: damaged or truncated"):
        prepare("jdsearch", folder, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_titles_beyond_what_a_column_holds_are_cut(tmp_path, monkeypatch):
    products = [[f"p{i}", "\x18".join(f"{t:04d}" for t in range(10)), *PRODUCTS[0][2:]] for i in range(3)]
    folder = download(tmp_path / "in", products=products)
    for limit, terms in ((3 * 49, 10), (3 * 49 - 1, 9), (3 * 14 + 2, 3)):
        monkeypatch.setattr(jdsearch_products, "_MOST_TITLE_BYTES", limit)
        data = prepare("jdsearch", folder, tmp_path / "out", quiet=True)
        assert data.catalogue().titles[:3] == [" ".join(f"{t:04d}" for t in range(terms))] * 3
        assert (f"titles were cut to {terms} terms" in (data.path / "about.json").read_text()) == (terms < 10)


def test_users_are_read_in_chunks(tmp_path, monkeypatch):
    whole = prepare("jdsearch", download(tmp_path / "in"), tmp_path / "whole", quiet=True)
    monkeypatch.setattr(jdsearch, "_IDS_AT_ONCE", 1)
    monkeypatch.setattr(jdsearch_products, "_ROWS_AT_ONCE", 2)
    parts = prepare("jdsearch", tmp_path / "in" / "user_behavior_data.txt", tmp_path / "parts", quiet=True)
    assert requests(parts) == requests(whole)
    assert parts.catalogue().table.equals(whole.catalogue().table)


def test_the_history_of_an_example_is_that_of_the_file(tmp_path):
    data = prepare("jdsearch", download(tmp_path / "in"), tmp_path / "out", quiet=True)
    catalogue, ranges = data.catalogue(), {"test": (LAST_SEARCH, None)}
    shards = write_examples(data.log().batches(), catalogue, None, tmp_path / "examples", ranges, quiet=True)["test"]
    (record,) = tf.data.TFRecordDataset(shards.paths)
    example = tf.train.Example.FromString(record.numpy()).features.feature
    assert [catalogue.item_ids[row - 1] for row in example["history_items"].int64_list.value] == ["f", "g", "a", "f", "a"]
    assert list(example["history_stages"].int64_list.value) == [CLICKED, CLICKED, ORDERED, CARTED, CLICKED]
    assert list(example["history_ages"].int64_list.value) == [1860, 1860, 1865, 5565, 5565]
    assert list(example["history_queries"].bytes_list.value) == [b"", b"21", b"21"]


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the JDsearch sample in ../shared/data/jdsearch_sample")
def test_the_real_sample(tmp_path):
    data = prepare("jdsearch", REAL, tmp_path / "out", quiet=True)
    rows = requests(data)
    last = [r for r in rows if r["request_id"].endswith("-last")]
    assert sorted(len(r["items"]) for r in last) == [83, 89, 90]
    assert sorted(sum(stage >= CLICKED for _, stage in shown(r)) for r in last) == [1, 2, 2]
    assert all(term.isdigit() for r in rows for term in r["query"].split())
    # Behaviours of one visit with one product are one shown item: 182 + 46 + 2 behaviours.
    before = [r for r in rows if r not in last]
    assert 100 < sum(len(r["items"]) for r in before) <= 182 + 46 + 2
    assert LAST_SEARCH - 367 * 86400 < rows[0]["time"] < LAST_SEARCH - 300 * 86400
    catalogue = data.catalogue()
    assert sum(title != "" for title in catalogue.titles) == 409
    split = split_time(data.log(), 0.02)
    assert split == LAST_SEARCH
    ranges = {"train": (None, split), "test": (split, None)}
    shards = write_examples(data.log().batches(), catalogue, None, tmp_path / "examples", ranges, quiet=True)
    assert (shards["train"].examples, shards["test"].examples) == (len(before), 3)
