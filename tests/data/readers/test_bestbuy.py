"""Best Buy: clicks become requests in order of time, names become the catalogue."""

import csv
import datetime
import gzip
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfebr.data.readers import bestbuy, prepare
from tfebr.data.stage import Stage
from tfebr.errors import DataError

REAL = Path(__file__).parents[4] / "shared" / "data" / "bestbuy_clicks"
HEADER = ["user", "sku", "category", "query", "click_time", "query_time"]
DAY = "2011-08-11"
CLICKS = [
    ["u2", "7", "games", "gears", f"{DAY} 05:00:09.5", f"{DAY} 05:00:00.25"],
    ["u1", "8", "games", "troy", f"{DAY} 04:00:30", f"{DAY} 04:00:00.001"],
    ["u1", "9", "music", "troy", f"{DAY} 04:00:20.123", f"{DAY} 04:00:00.001"],
    ["u1", "8", "games", "troy", f"{DAY} 04:00:40", f"{DAY} 04:00:00.001"],
    ["u1", "8", "games", "troy", f"{DAY} 04:00:50", f"{DAY} 04:00:00.002"],
]
NAMES = "sku\tname\n8\tHalo: Reach\n5\tUnclicked Game\n7\tGears of War\n"
XML = """<?xml version="1.0" encoding="UTF-8"?>
<products>
<product><sku>8</sku><name>Halo: &amp; Reach
  Édition</name><price>1</price></product>
<product><sku>5</sku><name>Unclicked Game</name></product><product><name>No SKU</name></product><product><sku>7</sku></product>
</products>
"""


def download(folder: Path, clicks=CLICKS, names: str = NAMES) -> Path:
    folder.mkdir()
    text = "\n".join("\t".join(row) for row in [HEADER, *clicks]) + "\n"
    (folder / "clicks.tsv.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "sku_name.tsv.gz").write_bytes(gzip.compress(names.encode()))
    return folder


def kaggle(folder: Path) -> Path:
    folder.mkdir()
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADER, *CLICKS])
    return folder


def seconds(text: str) -> int:
    return int(datetime.datetime.fromisoformat(f"{DAY}T{text}+00:00").timestamp())


def requests(data) -> list[dict]:
    return [row for batch in data.log().batches() for row in batch.to_pylist()]


def expected_requests() -> list[tuple]:
    return [
        (seconds("04:00:00"), "u1", "troy", [("9", Stage.CLICKED, 0), ("8", Stage.CLICKED, 1)]),
        (seconds("04:00:00"), "u1", "troy", [("8", Stage.CLICKED, 0)]),
        (seconds("05:00:00"), "u2", "gears", [("7", Stage.CLICKED, 0)]),
    ]


def as_tuples(rows: list[dict]) -> list[tuple]:
    return [(r["time"], r["user_id"], r["query"], [(i["item_id"], i["stage"], i["position"]) for i in r["items"]]) for r in rows]


def test_clicks_become_requests_in_order_of_time(tmp_path):
    data = prepare("bestbuy", download(tmp_path / "in"), tmp_path / "out", quiet=True)
    rows = requests(data)
    assert as_tuples(rows) == expected_requests()
    assert len({r["request_id"] for r in rows}) == 3
    assert not data.has_judgments


def test_catalogue_holds_every_named_or_clicked_sku(tmp_path):
    data = prepare("bestbuy", download(tmp_path / "in"), tmp_path / "out", quiet=True)
    assert data.catalogue().table.to_pydict() == {
        "item_id": ["8", "5", "7", "9"],
        "title": ["Halo: Reach", "Unclicked Game", "Gears of War", ""],
        "category": ["games", "", "games", "music"],
    }


@pytest.mark.parametrize("place", ["small_product_data.xml", "product_data/products/products_0001.xml"])
def test_kaggles_original_files(tmp_path, place):
    folder = kaggle(tmp_path / "in")
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text(XML, encoding="utf-8")
    for path in (folder, folder / "train.csv"):
        data = prepare("bestbuy", path, tmp_path / "out", quiet=True)
        assert as_tuples(requests(data)) == expected_requests()
        assert dict(zip(data.catalogue().item_ids, data.catalogue().titles, strict=True)) == {
            "8": "Halo: & Reach Édition",
            "5": "Unclicked Game",
            "7": "",
            "9": "",
        }


@given(
    st.lists(
        st.tuples(st.sampled_from("uvw"), st.sampled_from("123"), st.sampled_from(["q", "Q", ""]), st.integers(0, 2), st.integers(0, 5)),
        min_size=1,
        max_size=30,
    )
)
@settings(max_examples=40, deadline=None)
def test_grouping_matches_a_plain_loop(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("bestbuy")
    clicks = [[u, sku, "c", q, f"{DAY} 10:00:{10 + c:02d}.5", f"{DAY} 10:00:0{t}.25"] for u, sku, q, t, c in drawn]
    groups: dict[tuple, list] = {}
    for u, sku, q, t, _ in sorted(drawn, key=lambda d: (d[3], d[0], d[2], d[4], d[1])):
        shown = groups.setdefault((seconds(f"10:00:0{t}"), u, q), [])
        if sku not in [s for s, *_ in shown]:
            shown.append((sku, Stage.CLICKED, len(shown)))
    prepared = bestbuy.read(download(folder / "in", clicks), quiet=True)
    rows = [row for batch in prepared.log for row in batch.to_pylist()]
    assert as_tuples(rows) == [(*key, shown) for key, shown in groups.items()]


def test_clicks_are_read_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(bestbuy, "_ROWS_AT_ONCE", 2)
    assert as_tuples(requests(prepare("bestbuy", download(tmp_path / "in"), tmp_path / "out", quiet=True))) == expected_requests()


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (1, "", "clicks.tsv.gz: line 6, column `sku`: empty"),
        (4, "yesterday", "clicks.tsv.gz: line 6, column `click_time`: 'yesterday' is not a time like"),
        (5, "2011-13-01 00:00:00", "clicks.tsv.gz: line 6, column `query_time`: '2011-13-01 00:00:00' is not a time like"),
        (5, "", "clicks.tsv.gz: line 6, column `query_time`: '' is not a time like"),
    ],
)
def test_bad_clicks_are_named(tmp_path, place, value, words):
    bad = [*CLICKS[:4], [value if at == place else v for at, v in enumerate(CLICKS[4])]]
    with pytest.raises(DataError) as caught:
        prepare("bestbuy", download(tmp_path / "in", bad), tmp_path / "out", quiet=True)
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_bad_names_are_named(tmp_path):
    with pytest.raises(DataError, match=r"sku_name\.tsv\.gz: line 5, column `sku`: '8' repeats line 2"):
        prepare("bestbuy", download(tmp_path / "in", names=NAMES + "8\tAgain\n"), tmp_path / "out", quiet=True)
    folder = kaggle(tmp_path / "kaggle")
    for text, words in ((XML[: len(XML) // 2], r"line \d: not XML"), ("", "not XML")):
        (folder / "small_product_data.xml").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=rf"small_product_data\.xml: .*{words}"):
            prepare("bestbuy", folder, tmp_path / "out", quiet=True)


def test_no_click_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"clicks\.tsv\.gz: no click after the header"):
        prepare("bestbuy", download(tmp_path / "in", []), tmp_path / "out", quiet=True)


def test_clicks_without_any_names_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"files are not \(all\) here.*small_product_data\.xml"):
        prepare("bestbuy", kaggle(tmp_path / "in"), tmp_path / "out", quiet=True)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the Best Buy files in ../shared/data/bestbuy_clicks")
def test_the_real_set(tmp_path):
    data = prepare("bestbuy", REAL, tmp_path / "out", quiet=True)
    with gzip.open(REAL / "clicks.tsv.gz", "rt", encoding="utf-8") as file:
        clicks = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(data.log()) == len({(c["user"], c["query"], c["query_time"]) for c in clicks}) == 34_317
    rows = requests(data)
    assert sum(len(r["items"]) for r in rows) == len({(c["user"], c["query"], c["query_time"], c["sku"]) for c in clicks})
    catalogue = data.catalogue()
    assert len(catalogue) == 450
    assert (catalogue.rows_of([i["item_id"] for r in rows for i in r["items"]]) >= 0).all()
    assert rows[0]["time"] == seconds("03:59:04")


def test_product_documents_are_read_in_flat_memory(tmp_path):
    def peak(products: int) -> int:
        path = tmp_path / f"{products}.xml"
        path.write_text("<products>" + "<product><sku>1</sku><name>Halo</name></product>" * products + "</products>")
        tracemalloc.start()
        assert sum(1 for _ in bestbuy._products_of(path)) == products
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(20_000) < 2 * peak(2_000)
