"""The search log is a validated stream in order of time."""

import errno

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfebr.data import log as log_module
from tfebr.data.log import SCHEMA, SearchLog, shown_items, write_log
from tfebr.data.stage import Stage
from tfebr.errors import DataError, TfebrError

START = 1_704_067_200  # 2024
SHOWN = {"item_id": "i", "stage": 1, "position": 0}


def request(n: int = 0, **fields) -> dict:
    return {"request_id": f"r{n}", "time": START + n, "user_id": "u", "query": "q", "items": [SHOWN]} | fields


def batch(*requests: dict) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(requests), schema=SCHEMA)


def with_column(name: str, column: pa.Array) -> pa.RecordBatch:
    """Two good requests with one column replaced."""
    good = batch(request(0), request(1))
    columns = [column if field.name == name else good[field.name] for field in SCHEMA]
    return pa.RecordBatch.from_arrays(columns, names=SCHEMA.names)


def raw_strings(*values: bytes) -> pa.Array:
    offsets = np.cumsum([0, *(len(v) for v in values)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(values)))


def items_with_id(first: pa.Array) -> pa.Array:
    parts = [first, pa.array([1] * len(first), pa.int8()), pa.array([0] * len(first), pa.int16())]
    return pa.ListArray.from_arrays(
        pa.array([0, 1, len(first)], pa.int32()), pa.StructArray.from_arrays(parts, ["item_id", "stage", "position"])
    )


def test_stages_are_ordered():
    assert Stage.UNCLICKED < Stage.CLICKED < Stage.CARTED < Stage.ORDERED
    assert [int(s) for s in Stage] == [0, 1, 2, 3]


def test_written_log_reads_back_as_a_stream(tmp_path):
    requests = [request(n, query=f"q{n} ü 漢", items=[SHOWN] * (n % 3)) for n in range(10)]
    count = write_log(tmp_path / "log", (batch(*requests[at : at + 3]) for at in range(0, 10, 3)), rows_per_file=4)
    read = SearchLog(tmp_path / "log")
    assert count == len(read) == 10
    assert [f.name for f in read.files] == ["part-00000.parquet", "part-00001.parquet"]
    batches = list(read.batches(batch_size=2))
    assert max(b.num_rows for b in batches) == 2
    assert [row for b in batches for row in b.to_pylist()] == requests


def test_one_file_is_a_log_too(tmp_path):
    pq.write_table(pa.Table.from_batches([batch(request(0), request(1))]), tmp_path / "one.parquet")
    assert [b.num_rows for b in SearchLog(tmp_path / "one.parquet").batches()] == [2]


def test_shown_items_of_a_slice():
    whole = batch(
        request(0, items=[SHOWN] * 2),
        request(1, items=[]),
        request(2, items=[SHOWN | {"item_id": "x", "stage": 3, "position": 4}, SHOWN | {"item_id": "y"}]),
        request(3, items=None),
        request(4, items=[SHOWN | {"item_id": "z"}]),
    )
    rows, ids, stages, positions = shown_items(whole.slice(1))
    assert rows.tolist() == [1, 1, 3]
    assert ids.to_pylist() == ["x", "y", "z"]
    assert stages.tolist() == [3, 1, 1]
    assert positions.tolist() == [4, 0, 0]


BAD = {
    "unknown stage": (batch(request(0), request(1, items=[SHOWN, SHOWN | {"stage": 4}])), ["row 1", "`items.stage`", "4", "3 = ordered"]),
    "negative stage": (batch(request(0, items=[SHOWN | {"stage": -1}])), ["row 0", "`items.stage`", "-1"]),
    "no stage": (batch(request(0), request(1, items=[SHOWN | {"stage": None}])), ["row 1", "`items.stage`", "missing"]),
    "no position": (batch(request(0, items=[SHOWN, SHOWN | {"position": None}])), ["row 0", "`items.position`", "missing"]),
    "no shown item": (batch(request(0), request(1, items=[SHOWN, None])), ["row 1", "`items`", "missing"]),
    "empty item id": (batch(request(0), request(1, items=[SHOWN, SHOWN | {"item_id": ""}])), ["row 1", "`items.item_id`", "empty"]),
    "null item id": (batch(request(0, items=[SHOWN | {"item_id": None}])), ["row 0", "`items.item_id`", "missing"]),
    "times out of order": (batch(request(5), request(7), request(6)), ["row 2", "`time`", f"{START + 6} comes after {START + 7}", "Sort"]),
    "no time": (batch(request(0), request(1, time=None)), ["row 1", "`time`", "missing"]),
    "no query": (batch(request(0), request(1, query=None)), ["row 1", "`query`", "missing"]),
    "missing column": (batch(request(0)).drop_columns(["query"]), ["column `query` is missing", "request_id"]),
    "wrong type": (with_column("time", pa.array(["yesterday", "today"])), ["`time`", "wrong type", "int64"]),
    "query bytes": (with_column("query", raw_strings(b"ok", b"caf\xe9")), ["row 1", "`query`", "not valid UTF-8"]),
    "query binary": (with_column("query", pa.array([b"ok", b"\xff"], pa.binary())), ["row 1", "`query`", "not valid UTF-8"]),
    "item id bytes": (
        with_column("items", items_with_id(raw_strings(b"a", b"b", b"\xff"))),
        ["row 1", "`items.item_id`", "not valid UTF-8"],
    ),
}


@pytest.mark.parametrize(("bad", "words"), BAD.values(), ids=BAD)
def test_bad_rows_are_refused_on_writing_and_the_old_log_stays(tmp_path, bad, words):
    write_log(tmp_path / "log", [batch(request(0, query="kept"))])
    with pytest.raises(DataError) as caught:
        write_log(tmp_path / "log", [bad])
    for word in [str(tmp_path / "log"), *words]:
        assert word in str(caught.value)
    assert [row["query"] for b in SearchLog(tmp_path / "log").batches() for row in b.to_pylist()] == ["kept"]
    assert [p.name for p in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize(("bad", "words"), BAD.values(), ids=BAD)
def test_bad_rows_are_refused_on_reading(tmp_path, bad, words):
    pq.write_table(pa.Table.from_batches([bad]), tmp_path / "part.parquet")
    with pytest.raises(DataError) as caught:
        list(SearchLog(tmp_path).batches())
    for word in [str(tmp_path / "part.parquet"), *words]:
        assert word in str(caught.value)


def test_a_repeated_request_id_is_refused_on_writing_and_the_old_log_stays(tmp_path):
    write_log(tmp_path / "log", [batch(request(0, query="kept"))])
    batches = [batch(*(request(n) for n in range(at, at + 50))) for at in range(0, 500, 50)]
    again = batch(request(500), request(501, request_id="r7"))
    with pytest.raises(DataError, match=r"log: row 501, column `request_id`: 'r7' repeats row 7\. Give every request an id of its own"):
        write_log(tmp_path / "log", [*batches, again], rows_per_file=100)
    assert [row["query"] for b in SearchLog(tmp_path / "log").batches() for row in b.to_pylist()] == ["kept"]


def test_times_must_be_in_order_across_batches(tmp_path):
    with pytest.raises(DataError, match=f"row 2, column `time`: {START + 3} comes after {START + 9}"):
        write_log(tmp_path / "log", [batch(request(1), request(9)), batch(), batch(request(3))])
    pq.write_table(pa.Table.from_batches([batch(request(1), request(9), request(3))]), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=f"row 2, column `time`: {START + 3} comes after {START + 9}"):
        list(SearchLog(tmp_path / "log.parquet").batches(batch_size=1))


def test_times_must_be_in_order_across_files(tmp_path):
    for name, time in (("a", 5), ("b", 4)):
        pq.write_table(pa.Table.from_batches([batch(request(time))]), tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=rf"b\.parquet: row 0, column `time`: {START + 4} comes after {START + 5}"):
        list(SearchLog(tmp_path).batches())


def test_equal_times_are_in_order(tmp_path):
    assert write_log(tmp_path / "log", [batch(request(3), request(4, time=START + 3)), batch(request(5, time=START + 3))]) == 3


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_any_unit_become_seconds(tmp_path, unit):
    times = (
        pa.array([1_313_035_144_270_000_000, 1_313_035_145_000_000_000])
        .cast(pa.timestamp("ns", "UTC"))
        .cast(pa.timestamp(unit, "UTC"), safe=False)
    )
    write_log(tmp_path / "log", [with_column("time", times)])
    assert next(SearchLog(tmp_path / "log").batches())["time"].to_pylist() == [1_313_035_144, 1_313_035_145]


def test_an_empty_log_is_refused(tmp_path):
    for batches in ([], [batch()]):
        with pytest.raises(DataError, match="the log is empty"):
            write_log(tmp_path / "log", batches)
    with pytest.raises(DataError, match="no Parquet file"):
        SearchLog(tmp_path)
    with pytest.raises(DataError, match="no Parquet file"):
        SearchLog(tmp_path / "nowhere.parquet")


def test_truncated_and_damaged_files_are_named(tmp_path):
    file = tmp_path / "part.parquet"
    pq.write_table(pa.Table.from_batches([batch(*(request(n, query=f"query {n}") for n in range(1000)))]), file, compression="zstd")
    whole = file.read_bytes()
    for part in (b"", whole[: len(whole) // 2]):
        file.write_bytes(part)
        with pytest.raises(DataError, match=r"part\.parquet: not a readable Parquet file.*truncated"):
            SearchLog(tmp_path)
    file.write_bytes(whole[:100] + b"\0" * 4000 + whole[4100:])
    with pytest.raises(DataError, match=r"part\.parquet: near row 0: not readable"):
        list(SearchLog(tmp_path).batches())


def test_full_disk_keeps_the_old_log(tmp_path, monkeypatch):
    write_log(tmp_path / "log", [batch(request(0, query="kept"))])

    class FullDisk(pq.ParquetWriter):
        def write_batch(self, *_args, **_kwargs):
            raise OSError(errno.ENOSPC, "Error writing bytes to file")

    monkeypatch.setattr(log_module.pq, "ParquetWriter", FullDisk)
    with pytest.raises(TfebrError, match=r"log: not written: No space left on device\. Free some space"):
        write_log(tmp_path / "log", [batch(request(1))])
    monkeypatch.undo()
    assert next(SearchLog(tmp_path / "log").batches())["query"].to_pylist() == ["kept"]
    assert [p.name for p in tmp_path.iterdir()] == ["log"]
