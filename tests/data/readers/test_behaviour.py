"""EComm: what a user touched of a category on a day is a request, at the highest stage; profiles are texts."""

import collections
import gzip
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfebr.data.examples import write_examples
from tfebr.data.readers import ecomm_behaviour as behaviour
from tfebr.data.readers import prepare, time_order
from tfebr.data.stage import Stage
from tfebr.errors import DataError

REAL = Path(__file__).parents[4] / "shared" / "data" / "ecomm_behaviour"
_, CLICKED, CARTED, ORDERED = Stage
DAYS = {"20190610": 1_560_124_800, "20190611": 1_560_211_200}
EVENTS = [
    ["u1", "3", "1", "20190611"],
    ["u1", "1", "4", "20190610"],
    ["u1", "2", "2", "20190610"],
    ["u1", "1", "1", "20190610"],
    ["u2", "1", "3", "20190610"],
    ["u1", "3", "1", "20190610"],
    ["u1", "1", "1", "20190611"],
]
ITEMS = [["1", "33", "501", "0", "21.8"], ["2", "33", "501", "9", "5"], ["3", "33", "502", "8", "0"], ["4", "34", "503", "0", "7"]]
USERS = [["u1", "1", "5", "-1", "10", "100.5", "4,1,6"], ["u2", "-1", "-1", "3", "-1", "-1", "-1"], ["u9", "0", "4", "3", "2", "300", "1"]]


def download(folder: Path, events=EVENTS, items=ITEMS, users=USERS, ending: str = ".tsv.gz") -> Path:
    folder.mkdir()
    for name, rows in (("ecomm_edge_train", events), ("ecomm_item_feature", items), ("ecomm_user_feature", users)):
        if rows is not None:
            text = "".join("\t".join(row) + "\n" for row in rows).encode()
            (folder / f"{name}{ending}").write_bytes(gzip.compress(text) if ending.endswith(".gz") else text)
    return folder


def as_tuples(rows: list[dict]) -> list[tuple]:
    return [(r["time"], r["user_id"], r["query"], [(i["item_id"], i["stage"], i["position"]) for i in r["items"]]) for r in rows]


def requests(data) -> list[dict]:
    return [row for batch in data.log().batches() for row in batch.to_pylist()]


@pytest.mark.parametrize("ending", [".tsv.gz", ".txt"])
def test_a_request_is_a_user_a_day_and_a_category(tmp_path, ending):
    data = prepare("behaviour", download(tmp_path / "in", ending=ending), tmp_path / "out", quiet=True)
    first, second = DAYS.values()
    assert as_tuples(requests(data)) == [
        (first, "u1", "501", [("1", ORDERED, 0), ("2", CLICKED, 1)]),
        (first, "u2", "501", [("1", CARTED, 0)]),
        (first, "u1", "502", [("3", CLICKED, 0)]),
        (second, "u1", "502", [("3", CLICKED, 0)]),
        (second, "u1", "501", [("1", CLICKED, 0)]),
    ]
    assert len({r["request_id"] for r in requests(data)}) == 5


def test_catalogue_has_ids_for_texts(tmp_path):
    data = prepare("behaviour", download(tmp_path / "in"), tmp_path / "out", quiet=True)
    assert data.catalogue().table.to_pydict() == {
        "item_id": ["1", "2", "3", "4"],
        "title": ["501", "501 9", "502 8", "503"],
        "category": ["33", "33", "33", "34"],
        "leaf_category": ["501", "501", "502", "503"],
        "brand": ["", "9", "8", ""],
        "price": [21.8, 5.0, 0.0, 7.0],
    }


def test_profiles_are_texts_and_empty_where_unknown(tmp_path):
    data = prepare("behaviour", download(tmp_path / "in"), tmp_path / "out", quiet=True)
    assert data.users().to_pydict() == {
        "user_id": ["u1", "u2", "u9"],
        "gender": ["1", "", "0"],
        "age": ["5", "", "4"],
        "education": ["", "3", "3"],
        "career": ["10", "", "2"],
        "income": ["0", "", "9"],
        "stages": ["1,4,6", "", "1"],
    }
    assert json.loads((data.path / "about.json").read_text())["users"] == 3
    without = prepare("behaviour", download(tmp_path / "bare", users=None), tmp_path / "out", quiet=True)
    assert without.users() is None


def test_incomes_fall_into_groups_of_equal_size(tmp_path):
    incomes = np.random.default_rng(1).permutation(1000) * 3.5
    users = [[f"u{i}", "1", "1", "1", "1", str(income), "1"] for i, income in enumerate(incomes)]
    found = prepare("behaviour", download(tmp_path / "in", users=users), tmp_path / "out", quiet=True).users()["income"].to_pylist()
    assert collections.Counter(found) == {str(group): 100 for group in range(10)}
    assert sorted(range(1000), key=lambda i: (found[i], incomes[i])) == sorted(range(1000), key=lambda i: incomes[i])
    unknown = [["u1", "1", "1", "1", "1", "-1", "1"]]
    data = prepare("behaviour", download(tmp_path / "unknown", users=unknown), tmp_path / "out", quiet=True)
    assert data.users()["income"].to_pylist() == [""]


EVENT = st.tuples(st.sampled_from(["u1", "u2"]), st.sampled_from("1234"), st.sampled_from("1234"), st.sampled_from(list(DAYS)))


@given(st.lists(EVENT, min_size=1, max_size=30), st.sampled_from([1, 5, 1000]))
@settings(max_examples=40)
def test_grouping_matches_a_plain_loop(tmp_path_factory, events, at_once):
    folder = tmp_path_factory.mktemp("behaviour")
    leaf = {item[0]: item[2] for item in ITEMS}
    stage = {"1": CLICKED, "2": CLICKED, "3": CARTED, "4": ORDERED}
    groups: dict[tuple, dict] = {}
    for user, item, kind, day in sorted(events, key=lambda e: e[3]):
        touched = groups.setdefault((DAYS[day], user, leaf[item]), {})
        touched[item] = max(touched.get(item, CLICKED), stage[kind])
    with pytest.MonkeyPatch.context() as patch:
        # Small chunks, each of them a sorted run on disk.
        patch.setattr(behaviour, "_ROWS_AT_ONCE", at_once)
        patch.setattr(behaviour, "in_order_of_time", lambda batches: time_order.in_order_of_time(batches, 1))
        prepared = behaviour.read(download(folder / "in", [list(e) for e in events]), quiet=True)
        rows = [row for batch in prepared.log for row in batch.to_pylist()]
    assert as_tuples(rows) == [(*key, [(i, s, p) for p, (i, s) in enumerate(touched.items())]) for key, touched in groups.items()]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"events": [*EVENTS, ["u1", "1", "1"]]}, "ecomm_edge_train.tsv.gz: line 8: 3 fields instead of 4"),
        (
            {"events": [*EVENTS, ["u1", "5", "1", "20190610"]]},
            "ecomm_edge_train.tsv.gz: line 8, column `item_id`: '5' is not in ecomm_item",
        ),
        ({"events": [*EVENTS, ["u1", "1", "5", "20190610"]]}, "line 8, column `type`: unknown type '5'. Known types: 1, 2, 3, 4."),
        ({"events": [*EVENTS, ["u1", "1", "1", "20190631"]]}, "line 8, column `date`: '20190631' is not a date like 20190610"),
        ({"events": [*EVENTS, ["u1", "1", "1", "2019061"]]}, "line 8, column `date`: '2019061' is not a date like 20190610"),
        ({"events": []}, "the log is empty"),
        ({"items": [*ITEMS, ITEMS[0]]}, "ecomm_item_feature.tsv.gz: line 5, column `item_id`: '1' repeats line 1"),
        ({"items": [*ITEMS, ["5", "33", "", "0", "1"]]}, "ecomm_item_feature.tsv.gz: line 5, column `cate_id`: empty"),
        ({"items": [*ITEMS, ["5", "33", "501", "0", "free"]]}, "line 5, column `price`: 'free' is not a number"),
        ({"items": [*ITEMS, ["5", "33", "501", "0", "nan"]]}, "line 5, column `price`: 'nan' is not a number"),
        ({"items": [*ITEMS, ["5", "33", "501", "0"]]}, "ecomm_item_feature.tsv.gz: line 5: 4 fields instead of 5"),
        ({"items": []}, "ecomm_item_feature.tsv.gz: no item"),
        ({"users": [*USERS, USERS[0]]}, "ecomm_user_feature.tsv.gz: line 4, column `user_id`: 'u1' repeats line 1"),
        ({"users": [*USERS, ["u3", "1", "1", "1", "1", "rich", "1"]]}, "line 4, column `income`: 'rich' is not a number"),
        ({"users": []}, "ecomm_user_feature.tsv.gz: no user"),
    ],
)
def test_bad_rows_are_named_and_nothing_remains(tmp_path, monkeypatch, changed, words):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    with pytest.raises(DataError) as caught:
        prepare("behaviour", download(tmp_path / "in", **changed), tmp_path / "out", quiet=True)
    assert words in str(caught.value)
    del caught
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "scratch"]
    assert not list((tmp_path / "scratch").iterdir())


def test_a_truncated_file_is_refused(tmp_path):
    folder = download(tmp_path / "in", EVENTS * 200)
    path = folder / "ecomm_edge_train.tsv.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"ecomm_edge_train\.tsv\.gz: after line \d+: damaged or truncated"):
        prepare("behaviour", folder, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_examples_carry_profiles_and_the_days_before(tmp_path):
    data = prepare("behaviour", download(tmp_path / "in"), tmp_path / "out", quiet=True)
    ranges = {"test": (DAYS["20190611"], None)}
    shards = write_examples(data.log().batches(), data.catalogue(), data.users(), tmp_path / "examples", ranges, quiet=True)["test"]
    assert shards.user_columns == ("gender", "age", "education", "career", "income", "stages")
    examples = [tf.train.Example.FromString(r.numpy()).features.feature for r in tf.data.TFRecordDataset(shards.paths)]
    assert len(examples) == 2
    for example in examples:
        assert sorted(example["history_items"].int64_list.value) == [1, 2, 3]
        assert example["user_column_stages"].bytes_list.value[0] == b"1,4,6"


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the EComm files in ../shared/data/ecomm_behaviour")
def test_the_real_set(tmp_path):
    data = prepare("behaviour", REAL, tmp_path / "out", quiet=True)
    events, items = (
        [line.split("\t") for line in gzip.decompress((REAL / name).read_bytes()).decode().splitlines()]
        for name in ("ecomm_edge_train.tsv.gz", "ecomm_item_feature.tsv.gz")
    )
    assert (len(events), len({e[0] for e in events}), len(items)) == (85_213, 1_476, 36_224)
    leaf = {item[0]: item[2] for item in items}
    rows = requests(data)
    assert len(rows) == len({(e[0], e[3], leaf[e[1]]) for e in events})
    assert sum(len(r["items"]) for r in rows) == len({(e[0], e[1], e[3]) for e in events})
    bought = {(e[0], e[1], e[3]) for e in events if e[2] == "4"}
    assert sum(i["stage"] == ORDERED for r in rows for i in r["items"]) == len(bought)
    assert len({r["user_id"] for r in rows}) == 1_476
    assert len(data.catalogue()) == 36_224
    assert len(data.users()) == 1_500
    ranges = {"train": (rows[-2000]["time"], rows[-1]["time"]), "test": (rows[-1]["time"], None)}
    shards = write_examples(data.log().batches(), data.catalogue(), data.users(), tmp_path / "examples", ranges, quiet=True)
    assert shards["test"].examples == sum(r["time"] == rows[-1]["time"] for r in rows)
