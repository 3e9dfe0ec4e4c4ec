"""A data folder that a stranger's programs wrote is read as what it means, or refused by file, row and column before work begins."""

import decimal
import json
import shutil
import tempfile
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfebr import pipeline
from tfebr.data.catalogue import Catalogue
from tfebr.data.dataset import DataFolder
from tfebr.data.log import SearchLog, split_time, write_log
from tfebr.data.users import read_users
from tfebr.errors import DataError

START = 1_704_067_200  # 2024
ITEMS = {
    "item_id": ["1", "2", "3"],
    "title": ["red dress", "blue coat", "lamp"],
    "brand": ["Acme", "Zeta", None],
    "price": [9.5, None, 3.0],
}
SHOWN = [{"item_id": "1", "stage": 0, "position": 0}, {"item_id": "2", "stage": 3, "position": 1}]
LOG = {
    "request_id": ["r0", "r1"],
    "time": [START, START + 5],
    "user_id": ["7", ""],
    "query": ["dress", "coat"],
    "items": [SHOWN, SHOWN[:1]],
}
USERS = {"user_id": ["7", "8"], "age": ["34", ""]}
QUERIES = {"query_id": ["1", "2"], "query": ["dress", "lamp"], "split": ["train", "test"]}
QRELS = {"query_id": ["1", "2"], "item_id": ["1", "3"], "relevance": [1.0, 2.0]}
FILES = {
    "catalogue.parquet": ITEMS,
    "log/part-0.parquet": LOG,
    "users.parquet": USERS,
    "judgments/queries.parquet": QUERIES,
    "judgments/qrels.parquet": QRELS,
}


def write(path: Path, table, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path, **options)


def folder(path: Path, **changed) -> DataFolder:
    """A small data folder; of `changed`, the key is a file's stem and the value its table."""
    for name, table in FILES.items():
        write(path / name, changed.get(Path(name).stem.partition("-")[0], table))
    return DataFolder(path)


def rows(log: SearchLog) -> list[dict]:
    return [row for batch in log.batches(1) for row in batch.to_pylist()]


def same(found: DataFolder, expected: DataFolder) -> None:
    """Everything that is read from two folders."""
    left, right = found.catalogue().table, expected.catalogue().table
    assert left.drop_columns("price").to_pydict() == right.drop_columns("price").to_pydict()
    assert np.array_equal(left["price"].to_numpy(), right["price"].to_numpy(), equal_nan=True)
    assert rows(found.log()) == rows(expected.log())
    assert found.users() == expected.users()
    for name in ("queries", "qrels"):
        assert getattr(found.judgments(), name) == getattr(expected.judgments(), name)


def texts_as(kind: pa.DataType, table: pa.Table) -> pa.Table:
    """The table with every column of text in another type."""
    return pa.table({n: c.cast(kind) if pa.types.is_string(c.type) else c for n, c in zip(table.column_names, table.columns, strict=True)})


@pytest.fixture
def plain(tmp_path) -> DataFolder:
    return folder(tmp_path / "plain")


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.large_string())], ids=str)
def test_text_may_be_of_any_type_in_every_file(tmp_path, plain, kind):
    # By way of binary, which has a cast to a dictionary of any text.
    for name, table in FILES.items():
        table = pa.table(table)
        if pa.types.is_dictionary(kind):
            columns = {
                n: c.cast(pa.large_string()).dictionary_encode() if pa.types.is_string(c.type) else c
                for n, c in zip(table.column_names, table.columns, strict=True)
            }
            write(tmp_path / "other" / name, columns)
        else:
            write(tmp_path / "other" / name, texts_as(kind, table))
    same(DataFolder(tmp_path / "other"), plain)
    assert DataFolder(tmp_path / "other").check(quiet=True) == plain.check(quiet=True)


@pytest.mark.parametrize("kind", [pa.int32(), pa.uint64(), pa.float64(), pa.decimal128(20, 0)], ids=str)
def test_ids_may_be_numbers_in_every_file(tmp_path, plain, kind):
    def numbers(values: list[str]) -> pa.Array:
        return pa.array([int(v) if v else None for v in values]).cast(kind)

    shown = pa.StructArray.from_arrays(
        [numbers(["1", "2", "1"]), pa.array([0.0, 3.0, 0.0]), pa.array([0, 1, 0], pa.uint8())], ["item_id", "stage", "position"]
    )
    other = folder(
        tmp_path / "other",
        catalogue=ITEMS | {"item_id": numbers(ITEMS["item_id"])},
        users=USERS | {"user_id": numbers(USERS["user_id"]), "age": numbers(USERS["age"])},
        queries=QUERIES | {"query_id": numbers(QUERIES["query_id"])},
        qrels=QRELS | {"query_id": numbers(QRELS["query_id"]), "item_id": numbers(QRELS["item_id"]), "relevance": numbers(["1", "2"])},
        part=LOG | {"user_id": numbers(LOG["user_id"]), "items": pa.ListArray.from_arrays(pa.array([0, 2, 3], pa.int32()), shown)},
    )
    same(other, plain)
    assert any("requests have no user" in note for note in other.check(quiet=True).notes)


def test_uuids_are_ids(tmp_path):
    ids = [uuid.uuid5(uuid.NAMESPACE_DNS, str(n)) for n in range(3)]
    column = pa.array([i.bytes for i in ids], pa.binary(16)).cast(pa.uuid())
    write(tmp_path / "catalogue.parquet", ITEMS | {"item_id": column})
    shown = pa.StructArray.from_arrays([column, pa.array([1, 1, 1]), pa.array([0, 0, 0])], ["item_id", "stage", "position"])
    requests = {"request_id": column, "time": [START] * 3, "user_id": column, "query": ["q"] * 3}
    write(tmp_path / "log" / "a.parquet", requests | {"items": pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), shown)})
    data = DataFolder(tmp_path)
    assert list(data.catalogue().item_ids) == [str(i) for i in ids]
    assert [(r["request_id"], r["user_id"], r["items"][0]["item_id"]) for r in rows(data.log())] == [(str(i),) * 3 for i in ids]


@pytest.mark.parametrize(
    "kind",
    [pa.large_list, pa.list_view, pa.large_list_view, lambda item: pa.list_(item, 1)],
    ids=["large_list", "list_view", "large_list_view", "fixed_size_list"],
)
def test_shown_items_may_be_lists_of_any_type_with_fields_in_any_order(tmp_path, kind):
    item = pa.struct([("score", pa.float32()), ("position", pa.uint16()), ("stage", pa.large_string()), ("item_id", pa.int64())])
    shown = [[{"score": 0.5, "position": 0, "stage": stage, "item_id": n}] for n, stage in enumerate(["Clicked", " ordered ", "0"])]
    shown = [*shown, None]
    table = {"items": pa.array(shown, kind(item)), "time": [START] * 4, "query": ["q"] * 4, "user_id": [""] * 4, "shop": [1] * 4}
    write(tmp_path / "log.parquet", table | {"request_id": ["a", "b", "c", "d"]})
    found = [[tuple(i.values()) for i in r["items"]] for r in rows(SearchLog(tmp_path / "log.parquet"))]
    assert found == [[("0", 1, 0)], [("1", 3, 0)], [("2", 0, 0)], []]


def test_folders_as_spark_writes_them(tmp_path, plain):
    """Every table is a folder of part files beside what is no table; some part files have no rows."""
    for name, table in FILES.items():
        table, path = pa.table(table), tmp_path / "spark" / name.replace("/part-0.parquet", ".parquet")
        for number, part in enumerate((table.slice(0, 1), table.slice(0, 0), table.slice(1))):
            file = path / f"part-{number:05d}-0ebc-c000.snappy.parquet"
            write(file, part, use_deprecated_int96_timestamps=True)
            (path / f".{file.name}.crc").write_bytes(b"crc")
        (path / "_SUCCESS").touch()
        (path / "_temporary").mkdir()
        (path / "_temporary" / "part-00000.parquet").write_bytes(b"half a file")
    same(DataFolder(tmp_path / "spark"), plain)


def test_partitions_are_columns_and_numbers_in_names_are_in_order(tmp_path, plain):
    table = pa.table(ITEMS)
    for row, brand in enumerate(["Acme", "Zeta", "__HIVE_DEFAULT_PARTITION__"]):
        write(
            tmp_path / "other" / "catalogue" / f"row={row + 8}" / f"brand={brand}" / "data_0.parquet",
            table.drop_columns("brand").slice(row, 1),
        )
    for name in ("users.parquet", "judgments"):
        source = plain.path / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / "other" / name)
    log = pa.table(LOG)
    for day, row in ((9, 0), (10, 1)):
        write(tmp_path / "other" / "log" / "year=2024" / f"day={day}" / "data_0.parquet", log.slice(row, 1))
    data = DataFolder(tmp_path / "other")
    found = data.catalogue()
    assert found.table["brand"].to_pylist() == ["Acme", "Zeta", ""]
    assert found.table["row"].to_pylist() == ["8", "9", "10"]
    assert found.titles == ITEMS["title"]
    assert rows(data.log()) == rows(plain.log())


def test_a_partition_may_hold_a_column_of_the_log(tmp_path):
    for user in ("u 1", "u/2"):
        name = user.replace("/", "%2F")
        write(
            tmp_path / f"user_id={name}" / "a.parquet",
            pa.table(LOG | {"request_id": [user + "a", user + "b"], "time": [START] * 2}).drop_columns("user_id"),
        )
    assert sorted(r["user_id"] for r in rows(SearchLog(tmp_path))) == ["u 1", "u 1", "u/2", "u/2"]


def test_a_partition_may_be_the_time(tmp_path):
    for day, row in (("2024-01-01", 0), ("2024-01-02 12%3A00%3A00", 1)):
        write(tmp_path / f"time={day}" / "a.parquet", pa.table(LOG).slice(row, 1).drop_columns("time"))
    log = SearchLog(tmp_path)
    assert [r["time"] for r in rows(log)] == [START, START + 36 * 3600] == [log.time_at(0), log.time_at(1)]


@pytest.mark.parametrize("name", ["s3:shop", "file:shop", "gs:", "x://y", "a[1]?*{b,c}", "50% #1 &", "漢 é"])
def test_a_folder_may_have_any_name(tmp_path, monkeypatch, plain, name):
    """A relative one, too, that another program would take for an address or a pattern."""
    monkeypatch.chdir(tmp_path)
    plain.catalogue().write(Path(name) / "shop" / "catalogue.parquet")
    write_log(Path(name) / "shop" / "log", plain.log().batches())
    plain.judgments().write(Path(name) / "shop" / "judgments")
    shutil.copy(plain.path / "users.parquet", Path(name) / "shop")
    same(DataFolder(Path(name) / "shop"), plain)


def test_times_of_spark(tmp_path):
    column = pa.array([START * 10**6 + 999_999, (START + 5) * 10**6], pa.timestamp("us"))
    write(tmp_path / "log.parquet", LOG | {"time": column}, use_deprecated_int96_timestamps=True)
    log = SearchLog(tmp_path / "log.parquet")
    assert [r["time"] for r in rows(log)] == LOG["time"]
    assert [log.time_at(0), log.time_at(1)] == LOG["time"]


@pytest.mark.parametrize("kind", ["timestamp", "text", "date"])
def test_a_log_is_split_by_what_its_times_mean(tmp_path, tiny_shop, kind):
    """The point of the split is a plain number, which the run's config holds, whatever the type of the column."""
    log = pa.concat_tables(pq.read_table(file) for file in tiny_shop.log().files)
    times = log["time"].cast(pa.timestamp("s"))
    written = {
        "timestamp": times.cast(pa.timestamp("ns", "Europe/Berlin")),
        "text": times.cast(pa.string()),
        "date": times.cast(pa.date32()),
    }[kind]
    write(tmp_path / "log.parquet", log.set_column(1, "time", written), row_group_size=700)
    found, expected = split_time(SearchLog(tmp_path / "log.parquet"), 0.3), split_time(tiny_shop.log(), 0.3)
    assert json.loads(json.dumps(found)) == expected - (expected % 86_400 if kind == "date" else 0)


def test_a_stranger_s_log_is_the_log_that_it_means(tmp_path, tiny_shop):
    """The simulated shop's, as other programs would have written it."""
    log = pa.concat_tables(pq.read_table(file) for file in tiny_shop.log().files)
    batch = log.combine_chunks().to_batches()[0]
    flat = batch["items"].flatten()
    names = pa.array(["Unclicked", "Clicked", "Carted", "Ordered"]).take(flat.field("stage")).dictionary_encode()
    shown = {"position": pc.add(flat.field("position"), 1).cast(pa.float64()), "extra": flat.field("stage"), "stage": names}
    shown["item_id"] = flat.field("item_id").dictionary_encode()
    items = pa.LargeListArray.from_arrays(
        batch["items"].offsets.cast(pa.int64()), pa.StructArray.from_arrays(list(shown.values()), list(shown))
    )
    times = batch["time"].cast(pa.timestamp("s")).cast(pa.timestamp("us", "America/New_York"))
    columns = {
        "items": items,
        "query": batch["query"].cast(pa.large_string()),
        "user_id": batch["user_id"].dictionary_encode(),
        "time": times,
    }
    table = pa.table(columns | {"request_id": batch["request_id"].cast(pa.large_binary()), "__index_level_0__": batch["time"]})
    days = (batch["time"].to_numpy() - batch["time"][0].as_py()) // 86_400
    for day in np.unique(days):
        write(
            tmp_path / f"day={day}" / "data_0.parquet", table.filter(pa.array(days == day)), use_deprecated_int96_timestamps=bool(day % 2)
        )
    found = pa.Table.from_batches(list(SearchLog(tmp_path).batches(1000)))
    assert found.combine_chunks().equals(pa.Table.from_batches(list(tiny_shop.log().batches())).combine_chunks())


def test_row_numbers_that_a_program_added_are_no_columns(tmp_path, plain):
    """pandas writes the index of a table whose rows were chosen, dask and CSV files likewise."""
    extra = {"__index_level_0__": [4, 2], "__null_dask_index__": [4, 2], "Unnamed: 0": [4, 2]}
    items = {name: [*values, 9] for name, values in extra.items()}
    other = folder(
        tmp_path / "other", catalogue=ITEMS | items, users=USERS | extra, queries=QUERIES | extra, qrels=QRELS | extra, part=LOG | extra
    )
    same(other, plain)
    found = other.catalogue()
    assert (found.number_columns, found.categorical_columns) == (["price"], ["brand"])
    assert sum("__index_level_0__" in note for note in other.check(quiet=True).notes) == 3


def test_what_was_normalised_is_said_with_counts(tmp_path):
    titles = ["red &amp; blue", None, "x"]
    shown = [[i | {"position": i["position"] + 1} for i in items] for items in LOG["items"]]
    data = folder(
        tmp_path, catalogue=ITEMS | {"title": titles, "brand": ["A&amp;B"] * 3}, part=LOG | {"items": shown, "user_id": ["7", None]}
    )
    assert data.check(quiet=True).notes == [
        "catalogue: column `title`: 1 values held HTML entities; they were decoded",
        "catalogue: column `title`: 1 items have no title; they are found by their other columns",
        "catalogue: column `brand`: 3 values held HTML entities; they were decoded",
        "catalogue: column `price`: 1 items have no number there; a filter by a range leaves them out",
        "log: column `user_id`: 1 requests have no user; they have no history",
        "log: column `items.position`: positions count from 1; they were made to count from 0",
    ]
    assert data.catalogue().titles == ["red & blue", "", "x"]
    assert [[i["position"] for i in r["items"]] for r in rows(data.log())] == [[0, 1], [0]]


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ([[1, 2, 3], [1, 2]], [[0, 1, 2], [0, 1]]),
        ([[1, 2], [0, 1]], [[1, 2], [0, 1]]),
        ([[21, 22], [41]], [[21, 22], [41]]),
        ([[1, -1], [21]], [[0, -1], [20]]),
        ([[-1], [-1]], [[-1], [-1]]),
        ([[], []], [[], []]),
        ([[2], [3]], [[2], [3]]),
    ],
    ids=["all from 1", "some from 1", "later pages alone", "unknown ones stay", "none known", "none shown", "from 2"],
)
def test_positions_count_from_0_when_the_whole_log_counts_from_1(tmp_path, written, meant, statistics):
    items = [[{"item_id": "1", "stage": 1, "position": p} for p in shown] for shown in written]
    schema = pa.list_(pa.struct([("item_id", pa.string()), ("stage", pa.int8()), ("position", pa.int64())]))
    table = pa.table(LOG | {"items": pa.array(items, schema)})
    # What decides may stand in the last file, with the statistics that most files have and without.
    for row in range(2):
        write(tmp_path / f"{row}.parquet", table.slice(row, 1), write_statistics=statistics)
    assert [[i["position"] for i in r["items"]] for r in rows(SearchLog(tmp_path))] == meant


def raw_strings(*values: bytes) -> pa.Array:
    """A string array whose bytes nobody has checked."""
    offsets = np.cumsum([0, *(len(v) for v in values)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(values)))


LATIN = raw_strings(b"ok", b"caf\xe9")
REFUSED = {
    "users: no user_id": ("users", {"age": ["1"]}, ["users.parquet: column `user_id` is missing", "age"]),
    "users: repeated": ("users", USERS | {"user_id": ["7", "7"]}, ["users.parquet: row 1, column `user_id`: '7' repeats row 0"]),
    "users: repeated as a number": ("users", USERS | {"user_id": [7.0, 7.0]}, ["row 1, column `user_id`: 7.0 repeats row 0"]),
    "users: null": ("users", USERS | {"user_id": ["7", None]}, ["users.parquet: row 1, column `user_id`: missing"]),
    "users: empty": ("users", USERS | {"user_id": ["", "7"]}, ["users.parquet: row 0, column `user_id`: empty"]),
    "users: latin-1": ("users", USERS | {"age": LATIN}, ["users.parquet: row 1, column `age`: not valid UTF-8"]),
    "users: latin-1 id": ("users", USERS | {"user_id": LATIN}, ["users.parquet: row 1, column `user_id`: not valid UTF-8"]),
    "users: lists": ("users", USERS | {"age": [[1], [2]]}, ["users.parquet: column `age` has type list"]),
    "catalogue: fractions": ("catalogue", ITEMS | {"item_id": [1.5, 2.0, 3.0]}, ["catalogue.parquet: row 0, column `item_id`: 1.5"]),
    "catalogue: no title": ("catalogue", ITEMS | {"title": pa.nulls(3)}, ["catalogue.parquet: column `title`", "every title is missing"]),
    "catalogue: infinite": ("catalogue", ITEMS | {"price": [1.0, np.inf, 2.0]}, ["catalogue.parquet: row 1, column `price`", "inf"]),
    "log: latin-1": ("part", LOG | {"query": LATIN}, ["part-0.parquet: row 1, column `query`: not valid UTF-8"]),
    "log: latin-1 user": ("part", LOG | {"user_id": LATIN}, ["part-0.parquet: row 1, column `user_id`: not valid UTF-8"]),
    "log: milliseconds": ("part", LOG | {"time": [START * 1000] * 2}, ["part-0.parquet: row 0, column `time`", "looks like milliseconds"]),
    "log: repeated id": ("part", LOG | {"request_id": ["r", "r"]}, ["part-0.parquet: row 1, column `request_id`: 'r' repeats row 0"]),
    "log: no id": ("part", LOG | {"request_id": ["r", ""]}, ["part-0.parquet: row 1, column `request_id`: empty"]),
    "log: half a user": ("part", LOG | {"user_id": [None, 1.5]}, ["part-0.parquet: row 1, column `user_id`: 1.5"]),
    "log: texts as items": ("part", LOG | {"items": ["[]", "[]"]}, ["part-0.parquet: column `items` has a wrong type: string"]),
    "log: unknown stage": (
        "part",
        LOG | {"items": [[SHOWN[0] | {"stage": "clicked"}], [SHOWN[0] | {"stage": "bought"}]]},
        ["part-0.parquet: row 1, column `items.stage`: unknown stage 'bought'", "3 = ordered"],
    ),
    "log: no positions": (
        "part",
        LOG | {"items": [[{"item_id": "1", "stage": 1}]] * 2},
        ["part-0.parquet: column `items.position` is missing", "item_id, stage"],
    ),
    "log: half a position": (
        "part",
        LOG | {"items": [[SHOWN[0]], [SHOWN[0], SHOWN[1] | {"position": 1.5}]]},
        ["part-0.parquet: row 1, column `items.position`: 1.5 is not a whole number"],
    ),
    "log: far position": (
        "part",
        LOG | {"items": [[SHOWN[0]], [SHOWN[1] | {"position": 40_000}]]},
        ["part-0.parquet: row 1, column `items.position`: 40000"],
    ),
    "log: words as positions": (
        "part",
        LOG | {"items": [[SHOWN[0] | {"position": "first"}]] * 2},
        ["part-0.parquet: column `items.position` has a wrong type: string"],
    ),
    "queries: latin-1": ("queries", QUERIES | {"query": LATIN}, ["queries.parquet: row 1, column `query`: not valid UTF-8"]),
    "queries: null": ("queries", QUERIES | {"query": ["a", None]}, ["queries.parquet: row 1, column `query`: missing"]),
    "queries: no split": ("queries", {k: QUERIES[k] for k in ("query_id", "query")}, ["queries.parquet: column `split` is missing"]),
    "queries: repeated": ("queries", QUERIES | {"query_id": [1, 1]}, ["queries.parquet: row 1, column `query_id`: 1 repeats row 0"]),
    "qrels: repeated pair": (
        "qrels",
        {k: v + v[:1] for k, v in QRELS.items()},
        ["qrels.parquet: row 2, column `item_id`: '1' was judged for the same query in row 0"],
    ),
    "qrels: null": ("qrels", QRELS | {"relevance": [1.0, None]}, ["qrels.parquet: row 1, column `relevance`: not a finite number"]),
    "qrels: words": (
        "qrels",
        QRELS | {"relevance": ["good", "bad"]},
        ["qrels.parquet: column `relevance` has type string"],
    ),
    "qrels: latin-1": ("qrels", QRELS | {"item_id": LATIN}, ["qrels.parquet: row 1, column `item_id`: not valid UTF-8"]),
    "qrels: unknown query": ("qrels", QRELS | {"query_id": ["1", "9"]}, ["qrels.parquet: row 1, column `query_id`: '9' is not among"]),
}


@pytest.mark.parametrize(("name", "table", "words"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_plain_meaning_is_refused_by_file_row_and_column(tmp_path, name, table, words):
    data = folder(tmp_path / "shop", **{name: table})
    with pytest.raises(DataError) as caught:
        data.check(quiet=True)
    for word in words:
        assert word.replace("7.0 repeats", "'7' repeats").replace(": 1 repeats", ": '1' repeats") in str(caught.value)
    # Before a run folder is made.
    with pytest.raises(DataError):
        pipeline.train(tmp_path / "shop", tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


TYPES = [
    *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.binary(16), pa.uuid(), pa.bool_(), pa.null(), pa.float16()),
    *(pa.int8(), pa.uint16(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.decimal128(38, 10), pa.decimal256(70, 3)),
    *(
        pa.date32(),
        pa.date64(),
        pa.time64("us"),
        pa.duration("us"),
        pa.timestamp("ms"),
        pa.timestamp("us", "Asia/Tokyo"),
        pa.timestamp("ns"),
    ),
    *(pa.list_(pa.string()), pa.list_(pa.int64(), 2), pa.map_(pa.string(), pa.int64()), pa.struct([("item_id", pa.string())])),
    pa.dictionary(pa.int32(), pa.string()),
    pa.list_(pa.struct([("item_id", pa.int64()), ("stage", pa.bool_()), ("position", pa.float32())])),
    pa.large_list(pa.struct([("position", pa.string()), ("stage", pa.decimal128(5, 2)), ("item_id", pa.binary())])),
    pa.list_(pa.struct([("position", pa.int64()), ("stage", pa.int64()), ("item_id", pa.list_(pa.int8()))])),
]
SHOWN_VALUES = st.sampled_from([1, "1", None, 1.5, b"\xe9", True])
VALUES = st.one_of(
    *(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=3), st.binary(max_size=3)),
    *(st.sampled_from([b"\xff" * 16, START, START * 1000, "2024-01-31", "clicked", decimal.Decimal("1.5")]), st.dates(), st.datetimes()),
    st.lists(
        st.fixed_dictionaries({n: st.sampled_from([1, "1", None, 1.5, b"\xe9", True]) for n in ("item_id", "stage", "position")}),
        max_size=2,
    ),
)


@given(st.sampled_from([(name, column) for name, table in FILES.items() for column in table]), st.sampled_from(TYPES), st.data())
@settings(max_examples=150)
def test_whatever_is_in_a_column_is_read_or_refused_by_its_name(file, kind, data):
    name, column = file
    values = [data.draw(VALUES) for _ in next(iter(FILES[name].values()))]
    with tempfile.TemporaryDirectory() as path:
        shop = folder(Path(path))
        try:
            write(Path(path) / name, FILES[name] | {column: pa.array([v if fits(v, kind) else None for v in values], kind)})
        except (pa.ArrowException, TypeError):  # what Parquet itself cannot hold
            return
        try:
            shop.check(quiet=True)
        except DataError as error:
            refusal = str(error)
        else:
            return
    assert str(Path(path) / name) in refusal
    assert column in refusal


def fits(value, kind: pa.DataType) -> bool:
    try:
        pa.scalar(value, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False
    return True


def test_a_repeated_request_id_is_found_across_files(tmp_path):
    log = pa.table(
        {
            "request_id": [f"r{n}" for n in range(300)],
            "time": [START] * 300,
            "user_id": [""] * 300,
            "query": ["q"] * 300,
            "items": [[]] * 300,
        }
    )
    log = log.set_column(
        4, "items", pa.array([[]] * 300, pa.list_(pa.struct([("item_id", pa.string()), ("stage", pa.int8()), ("position", pa.int8())])))
    )
    write(tmp_path / "a.parquet", log)
    write(tmp_path / "b.parquet", log.slice(299))
    with pytest.raises(DataError, match=r"b\.parquet: row 0, column `request_id`: 'r299' repeats row 299 of .*a\.parquet"):
        list(SearchLog(tmp_path).batches(7))


def test_files_of_one_table_may_differ_in_types_and_columns(tmp_path):
    write(tmp_path / "part-2.parquet", {"item_id": [1], "title": ["a"], "price": [1]})
    write(
        tmp_path / "part-10.parquet",
        {"title": ["b"], "item_id": pa.array(["2"], pa.large_string()), "colour": ["red"], "price": pa.nulls(1)},
    )
    catalogue = Catalogue.read(tmp_path)
    assert catalogue.table.select(["item_id", "title", "colour"]).to_pydict() == {
        "item_id": ["1", "2"],
        "title": ["a", "b"],
        "colour": ["", "red"],
    }
    assert np.array_equal(catalogue.table["price"].to_numpy(), [1, np.nan], equal_nan=True)
    assert any("`colour`: is missing in" in note and "part-2.parquet" in note for note in catalogue.notes)
    write(tmp_path / "part-11.parquet", {"item_id": [3], "title": ["c"], "price": ["cheap"]})
    with pytest.raises(DataError, match=r"part-11\.parquet: column `price` holds text, but numbers in .*part-2\.parquet"):
        Catalogue.read(tmp_path)


def test_users_in_parts_are_unique_together(tmp_path):
    write(tmp_path / "users" / "a.parquet", USERS)
    write(tmp_path / "users" / "b.parquet", {"user_id": [9, 8], "age": [None, 3.0]})
    with pytest.raises(DataError, match=r"b\.parquet: row 1, column `user_id`: '8' repeats row 1 of .*a\.parquet"):
        read_users(tmp_path / "users")
    write(tmp_path / "users" / "b.parquet", {"user_id": [9], "vip": [True]})
    assert read_users(tmp_path / "users").to_pydict() == {"user_id": ["7", "8", "9"], "age": ["34", "", ""], "vip": ["", "", "true"]}


def test_reading_what_was_read_changes_nothing(tmp_path):
    titles = ["&amp;lt;b&gt; &amp;amp;amp;", "", "ü"]
    once = Catalogue(pa.table(ITEMS | {"title": titles}))
    once.write(tmp_path / "catalogue.parquet")
    again = Catalogue.read(tmp_path)
    assert again.titles == once.titles == ["<b> &", "", "ü"]
    assert again.content_hash() == once.content_hash()


def test_a_person_who_trains_is_told_what_was_normalised(tmp_path, tiny_shop, capsys):
    table = tiny_shop.catalogue().table
    prices = pa.array([None, *table["price"].to_pylist()[1:]])
    table = table.set_column(table.column_names.index("price"), "price", prices).append_column(
        "__index_level_0__", pa.array(range(len(table)))
    )
    shutil.copytree(tiny_shop.path, tmp_path / "shop")
    pq.write_table(table, tmp_path / "shop" / "catalogue.parquet")
    with pytest.raises(DataError, match="split 'train' has no request with a click"):
        pipeline.train(tmp_path / "shop", tmp_path / "run", "dpsr", test_from=1, quiet=True)
    said = capsys.readouterr().err
    assert said.count("note: catalogue: column `price`: 1 items have no number there") == 1
    assert said.count("`__index_level_0__`: holds row numbers") == 1


def test_what_pandas_writes(tmp_path, plain):
    """The index of chosen rows is a column of the file, missing values make floats of whole numbers, and text is large_string."""
    pandas = pytest.importorskip("pandas")
    times = pandas.to_datetime(LOG["time"], unit="s", utc=True)
    frames = {
        "catalogue.parquet": pandas.DataFrame(ITEMS | {"item_id": [1, 2, 3], "brand": pandas.Categorical(ITEMS["brand"])}),
        "log/part-0.parquet": pandas.DataFrame(LOG | {"time": times, "user_id": [7.0, None]}),
        "users.parquet": pandas.DataFrame(USERS | {"user_id": [7, 8], "age": [34.0, None]}),
        "judgments/queries.parquet": pandas.DataFrame(QUERIES),
        "judgments/qrels.parquet": pandas.DataFrame(QRELS | {"relevance": pandas.array([1, 2], "Int64")}),
    }
    for name, frame in frames.items():
        (tmp_path / "other" / name).parent.mkdir(parents=True, exist_ok=True)
        frame.set_axis([4, 2, 9][: len(frame)]).to_parquet(tmp_path / "other" / name)
        assert "__index_level_0__" in pq.read_schema(tmp_path / "other" / name).names
    same(DataFolder(tmp_path / "other"), plain)


def test_what_polars_writes(tmp_path, plain):
    polars = pytest.importorskip("polars")
    kinds = {"catalogue.parquet": ("brand", polars.Categorical), "users.parquet": ("age", polars.Enum(["34", ""]))}
    for name, table in FILES.items():
        frame = polars.DataFrame(table)
        if name in kinds:
            column, kind = kinds[name]
            frame = frame.with_columns(polars.col(column).cast(kind))
        if name.startswith("log"):
            frame = frame.with_columns(polars.from_epoch("time").alias("time"))
        (tmp_path / "other" / name).parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(tmp_path / "other" / name)
    same(DataFolder(tmp_path / "other"), plain)
