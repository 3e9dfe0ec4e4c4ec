"""trivago: a click-out is a request with the list in its shown order; hotels are known by city and price."""

import csv
import gzip
import tempfile
from pathlib import Path

import pytest

from tfebr.data.examples import write_examples
from tfebr.data.log import split_time
from tfebr.data.readers import prepare, time_order, trivago
from tfebr.data.stage import Stage
from tfebr.errors import DataError

REAL = Path(__file__).parents[4] / "shared" / "data" / "trivago_sessions"
UNCLICKED, CLICKED, *_ = Stage
HEADER = (
    "user_id session_id timestamp step action_type reference platform city device current_filters impressions prices".split()  # noqa: SIM905
)
ROME, OSLO = "Rome, Italy", "Oslo, Norway"
ROWS = [
    ["u1", "s1", "1541002000", "1", "search for poi", "Trevi", "IT", ROME, "mobile", "", "", ""],
    ["u1", "s1", "1541002010", "2", "clickout item", "12", "IT", ROME, "mobile", "Hotel|Sort by Price", "11|12|13", "50|60|70"],
    ["u1", "s1", "1541002010", "2", "clickout item", "99", "IT", ROME, "mobile", "", "13|11", "80|52"],
    ["u2", "s2", "1541001000", "1", "clickout item", "13", "NO", OSLO, "desktop", "", "13", "90"],
]


def download(folder: Path, rows=ROWS, name: str = "sessions.csv.gz") -> Path:
    folder.mkdir()
    (folder / name).write_bytes(packed(rows, name))
    return folder


def packed(rows: list[list[str]], name: str) -> bytes:
    lines = [",".join(f'"{v}"' if "," in v else v for v in row) + "\n" for row in [HEADER, *rows]]
    text = "".join(lines).encode()
    return gzip.compress(text) if name.endswith(".gz") else text


def requests(data) -> list[dict]:
    return [row for batch in data.log().batches() for row in batch.to_pylist()]


def as_tuples(rows: list[dict]) -> list[tuple]:
    return [
        (r["request_id"], r["time"], r["user_id"], r["query"], [(i["item_id"], i["stage"], i["position"]) for i in r["items"]])
        for r in rows
    ]


EXPECTED = [
    ("s2:5", 1541001000, "u2", "Oslo, Norway NO", [("13", CLICKED, 0)]),
    ("s1:3", 1541002010, "u1", "Rome, Italy IT Hotel Sort by Price", [("11", UNCLICKED, 0), ("12", CLICKED, 1), ("13", UNCLICKED, 2)]),
    ("s1:4", 1541002010, "u1", "Rome, Italy IT", [("13", UNCLICKED, 0), ("11", UNCLICKED, 1)]),
]


@pytest.mark.parametrize("name", ["sessions.csv.gz", "train.csv"])
def test_click_outs_become_requests_in_order_of_time(tmp_path, name):
    folder = download(tmp_path / "in", name=name)
    for path in (folder, folder / name):
        data = prepare("trivago", path, tmp_path / "out", quiet=True)
        assert as_tuples(requests(data)) == EXPECTED
    assert "1 click-outs went to a hotel that was not in the list" in (data.path / "about.json").read_text()


def test_order_does_not_depend_on_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(trivago, "in_order_of_time", lambda batches: time_order.in_order_of_time(batches, 1))
    whole = trivago.request_batches
    monkeypatch.setattr(trivago, "request_batches", lambda found: whole(found, 1))
    assert as_tuples(requests(prepare("trivago", download(tmp_path / "in"), tmp_path / "out", quiet=True))) == EXPECTED


def test_hotels_are_known_by_city_and_price(tmp_path):
    folder = download(tmp_path / "in")
    expected = {
        "item_id": ["11", "12", "13"],
        "title": [ROME, ROME, ROME],
        "city": [ROME, ROME, ROME],
        "country": ["Italy", "Italy", "Italy"],
        "price": [51.0, 60.0, 80.0],
    }
    assert prepare("trivago", folder, tmp_path / "out", quiet=True).catalogue().table.to_pydict() == expected
    (folder / "item_metadata.csv").write_text("item_id,properties\n12,Wifi|Pool (Indoor)\n77,Bar\n13,\n")
    expected["title"] = [ROME, "Rome, Italy, Wifi, Pool (Indoor)", ROME]
    assert prepare("trivago", folder, tmp_path / "out", quiet=True).catalogue().table.to_pydict() == expected


def changed(**values: str) -> list[list[str]]:
    return [*ROWS, [values.get(name, old) for name, old in zip(HEADER, ROWS[1], strict=True)]]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([*ROWS, ROWS[0][:-1]], "line 6: 11 fields, but the header has 12"),
        (changed(action_type="booking"), "line 6, column `action_type`: unknown action 'booking'. Known actions: clickout item, "),
        (changed(reference=""), "line 6, column `reference`: empty"),
        (changed(impressions=""), "line 6, column `impressions`: empty"),
        (changed(impressions="11||13"), "line 6, column `impressions`: an empty hotel id"),
        (changed(prices="50|60"), "line 6, column `prices`: 2 prices for 3 impressions"),
        (changed(prices="50|60|-7"), "line 6, column `prices`: '-7' is not a number from 0"),
        (changed(prices="50|60|nan"), "line 6, column `prices`: 'nan' is not a number from 0"),
        (changed(timestamp="noon"), "line 6, column `timestamp`: 'noon' is not a number from 6.3"),
        (changed(timestamp="1541002010000"), "line 6, column `timestamp`: '1541002010000' is not a number from 6.3"),
        ([ROWS[0]], "no click-out after the header"),
    ],
)
def test_bad_rows_are_named_and_nothing_remains(tmp_path, monkeypatch, rows, words):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    with pytest.raises(DataError) as caught:
        prepare("trivago", download(tmp_path / "in", rows), tmp_path / "out", quiet=True)
    assert f"sessions.csv.gz: {words}" in str(caught.value)
    del caught
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "scratch"]
    assert not list((tmp_path / "scratch").iterdir())


def test_damaged_files_are_refused(tmp_path):
    folder = download(tmp_path / "in", ROWS * 200)
    path = folder / "sessions.csv.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"sessions\.csv\.gz: after line \d+: damaged or truncated"):
        prepare("trivago", folder, tmp_path / "out", quiet=True)
    path.write_bytes(gzip.compress(b"user_id,session_id\nu,s\n"))
    with pytest.raises(DataError, match=r"sessions\.csv\.gz: line 1: missing columns: timestamp, action_type"):
        prepare("trivago", folder, tmp_path / "out", quiet=True)
    path.write_bytes(whole)
    (folder / "item_metadata.csv").write_text("item_id,properties\n12,Wifi\n12,Pool\n")
    with pytest.raises(DataError, match=r"item_metadata\.csv: line 3, column `item_id`: '12' repeats line 2"):
        prepare("trivago", folder, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the trivago sessions in ../shared/data/trivago_sessions")
def test_the_real_sample(tmp_path):
    data = prepare("trivago", REAL, tmp_path / "out", quiet=True)
    rows = requests(data)
    assert len(rows) == 13_597
    assert sum(len(r["items"]) for r in rows) == 312_539
    with gzip.open(REAL / "sessions.csv.gz", "rt", encoding="utf-8", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["action_type"] == "clickout item"]
    lists = {(r["time"], r["user_id"], "|".join(i["item_id"] for i in r["items"])) for r in rows}
    assert lists == {(int(row["timestamp"]), row["user_id"], row["impressions"]) for row in found}
    ranks = [1 / (1 + [i["stage"] for i in r["items"]].index(CLICKED)) for r in rows if any(i["stage"] for i in r["items"])]
    assert len(ranks) == 13_596
    # The reciprocal rank of the click-out in the shown order, which every ranking model has to beat.
    assert sum(ranks) / len(rows) == pytest.approx(0.450, abs=5e-4)
    assert len(data.catalogue()) == 106_866
    split = split_time(data.log(), 0.1)
    shards = write_examples(data.log().batches(), data.catalogue(), None, tmp_path / "examples", {"test": (split, None)}, quiet=True)
    assert shards["test"].examples == sum(r["time"] >= split for r in rows) == sum(int(row["timestamp"]) >= split for row in found)
