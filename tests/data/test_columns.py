"""A column of any plain type means what it says, or is refused by file, row and column."""

import datetime
import decimal
import re
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfebr.data.columns import check_unique, ids, numbers, texts, whole
from tfebr.data.place import Notes, Place
from tfebr.errors import DataError

HERE = Place.of("shop.parquet", "x", 100)
UUIDS = [uuid.UUID(int=2**127 + n * 12345678901234567) for n in range(3)]
WORDS = ["a", None, "ü 漢", ""]
BERLIN = datetime.datetime(2024, 1, 5, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))

TEXTS = {
    "string": (pa.array(WORDS), WORDS),
    "large_string": (pa.array(WORDS, pa.large_string()), WORDS),
    "string_view": (pa.array(WORDS, pa.string_view()), WORDS),
    "binary": (pa.array(WORDS).cast(pa.binary()), WORDS),
    "binary_view": (pa.array(WORDS).cast(pa.binary()).cast(pa.binary_view()), WORDS),
    "dictionary": (pa.array(WORDS).dictionary_encode(), WORDS),
    "dictionary of large_string": (pa.array(WORDS, pa.large_string()).dictionary_encode(), WORDS),
    "dictionary of numbers": (pa.array([7, None, 7]).dictionary_encode(), ["7", None, "7"]),
    "runs": (pc.run_end_encode(pa.array(["a", "a", None])), ["a", "a", None]),
    "slice": (pa.array(["no", *WORDS, "no"])[1:-1], WORDS),
    "fixed width": (pa.array([b"abc", None], pa.binary(3)), ["abc", None]),
    "16 letters": (pa.array([b"abcdefghijklmnop", None], pa.binary(16)), ["abcdefghijklmnop", None]),
    "uuid": (pa.array([u.bytes for u in UUIDS] + [None], pa.binary(16)).cast(pa.uuid()), [*map(str, UUIDS), None]),
    "uuid before Arrow had them": (pa.array([None, *(u.bytes for u in UUIDS)], pa.binary(16))[1:], [*map(str, UUIDS)]),
    "bool": (pa.array([True, False, None]), ["true", "false", None]),
    "int8": (pa.array([-1, None, 7], pa.int8()), ["-1", None, "7"]),
    "uint64": (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
    "float": (pa.array([34.0, 1.5, None, float("nan"), -0.0, 1e300]), ["34", "1.5", None, None, "0", "1e+300"]),
    "float16": (pa.array(np.array([2.0, 0.5], np.float16)), ["2", "0.5"]),
    "decimal": (pa.array([decimal.Decimal("7.00"), decimal.Decimal("7.50"), None]), ["7", "7.50", None]),
    "wide decimal": (pa.array([decimal.Decimal(10**30 + 1)], pa.decimal256(60, 0)), [str(10**30 + 1)]),
    "date32": (pa.array([datetime.date(2024, 1, 5)], pa.date32()), ["2024-01-05"]),
    "date64": (pa.array([datetime.date(2024, 1, 5)], pa.date64()), ["2024-01-05"]),
    "timestamp": (pa.array([datetime.datetime(2024, 1, 5, 12)], pa.timestamp("ns")), ["2024-01-05 12:00:00"]),
    "timestamp with a fraction": (pa.array([1_704_456_000_250], pa.timestamp("ms")), ["2024-01-05 12:00:00.25"]),
    "timestamp with a zone": (pa.array([BERLIN], pa.timestamp("us", "Europe/Berlin")), ["2024-01-05 11:00:00Z"]),
    "time": (pa.array([datetime.time(10, 30)], pa.time64("us")), ["10:30:00"]),
    "nothing": (pa.nulls(2), [None, None]),
}


@pytest.mark.parametrize(("column", "expected"), TEXTS.values(), ids=TEXTS)
def test_text_of_any_plain_type(column, expected):
    found = texts(column, HERE)
    assert found.type == pa.string()
    assert found.to_pylist() == expected


@pytest.mark.parametrize(
    "column",
    [
        pa.array([["a"]]),
        pa.array([{"a": 1}]),
        pa.array([datetime.timedelta(1)]),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        pa.array([b"\0"], pa.binary(1)).cast(pa.opaque(pa.binary(1), "t", "v")),
    ],
    ids=["list", "struct", "duration", "map", "unknown extension"],
)
def test_what_has_no_plain_meaning_is_refused_by_its_type(column):
    for convert in (texts, lambda c, at: ids(c, at, "")):
        with pytest.raises(DataError, match=r"shop\.parquet: column `x` has type .+ should hold|Write it as text"):
            convert(column, HERE)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(4)], ids=str)
def test_bytes_that_are_no_utf8_are_refused_by_row(kind):
    column = pa.array([b"cafe", "café".encode("latin-1")]).cast(pa.binary())
    column = column if kind == pa.binary() else pa.array(column.to_pylist(), kind)
    with pytest.raises(DataError, match=r"shop\.parquet: row 101, column `x`: not valid UTF-8\. Re-encode the file as UTF-8\."):
        texts(column, HERE)
    with pytest.raises(DataError, match="row 101"):
        texts(column.dictionary_encode(), HERE) if kind == pa.binary() else ids(column, HERE, "")


def test_whole_floats_are_the_ids_that_the_integers_would_be():
    notes = Notes("catalogue")
    assert ids(pa.array([7.0, 8.0]), HERE, "", notes).to_pylist() == ids(pa.array([7, 8]), HERE, "").to_pylist() == ["7", "8"]
    assert ids(pa.array([decimal.Decimal("7.00")]), HERE, "").to_pylist() == ["7"]
    assert notes.lines == ["catalogue: column `x`: 2 floating-point numbers were read as whole ones"]


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pa.array(["a", None]), r"row 101, column `x`: missing\. Every item needs one\."),
        (pa.array(["a", ""]), r"row 101, column `x`: empty\. Every item needs one\."),
        (pa.array([1.0, float("nan")]), r"row 101, column `x`: missing\."),
        (pa.array([1.0, 7.5]), r"row 101, column `x`: 7\.5 is not a whole number"),
        (pa.array([1.0, float("inf")]), r"row 101, column `x`: inf "),
        (pa.array([1.0, 2.0**53]), r"row 101, column `x`: 9007199254740992\.0 is too large for a float: its last digits are lost"),
    ],
)
def test_bad_ids_are_refused_by_row(column, problem):
    with pytest.raises(DataError, match=problem):
        ids(column, HERE, "Every item needs one.")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, 3], pa.int8()),
        pa.array([1, None, 3], pa.uint32()),
        pa.array([1.0, None, 3.0], pa.float32()),
        pa.array(np.array([1, np.nan, 3], np.float16)),
        pa.array([decimal.Decimal(1), None, decimal.Decimal(3)], pa.decimal128(9, 2)),
        pa.array([1, None, 3]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_numbers_of_any_width_and_none_where_there_is_none(column):
    found = numbers(column, HERE)
    assert found.type == pa.float64()
    assert not found.null_count
    assert np.array_equal(found.to_numpy(), [1, np.nan, 3], equal_nan=True)


def test_large_numbers_are_near_enough_and_infinite_ones_refused():
    assert numbers(pa.array([2**60 + 1]), HERE).to_pylist() == [pytest.approx(2.0**60)]
    with pytest.raises(DataError, match=r"row 101, column `x`: not a finite number: -inf"):
        numbers(pa.array([0.0, -np.inf]), HERE)


@given(st.lists(st.one_of(st.integers(-200, 200), st.floats(-200, 200), st.none()), max_size=6))
def test_whole_numbers_are_within_bounds_and_whole(values):
    good = [v is not None and v == int(v) and -100 <= v <= 100 for v in values]
    column = pa.array([None if v is None else float(v) for v in values], pa.float64())
    if all(good):
        assert whole(column, HERE, -100, 100, "").tolist() == [int(v) for v in values]
    else:
        with pytest.raises(DataError) as caught:
            whole(column, HERE, -100, 100, "")
        assert any(f"row {100 + row}, column `x`: " in str(caught.value) for row, fits in enumerate(good) if not fits)


@given(st.lists(st.sampled_from("abcdefgh"), max_size=12), st.integers(1, 4))
def test_the_first_repetition_is_named_in_its_own_file(values, rows_in_file):
    column = pa.chunked_array([values[i : i + 2] for i in range(0, len(values), 2)], pa.string())
    files = tuple((f"{i}.parquet", rows_in_file * i) for i in range(len(values) // rows_in_file + 1))
    place = Place(files, "item_id")
    again = next((row for row, value in enumerate(values) if value in values[:row]), None)
    if again is None:
        check_unique(column, place, "")
        return
    before = values.index(values[again])
    file = f"{again // rows_in_file}.parquet"
    other = "" if before // rows_in_file == again // rows_in_file else f" of {before // rows_in_file}.parquet"
    said = f"{file}: row {again % rows_in_file}, column `item_id`: {values[again]!r} repeats row {before % rows_in_file}{other}. "
    with pytest.raises(DataError, match="^" + re.escape(said)):
        check_unique(column, place, "")
