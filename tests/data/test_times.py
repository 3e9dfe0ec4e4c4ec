"""Times of a log are seconds, whatever they were written as; another unit is refused by its name."""

import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfebr.data.place import Place
from tfebr.data.times import EARLIEST, LATEST, seconds
from tfebr.errors import DataError

HERE = Place.of("log.parquet", "time", 40)
UTC = datetime.timezone.utc
START = 1_704_456_000  # 2024-01-05 12:00 UTC
TIMES = st.integers(EARLIEST, LATEST - 1)
PARTS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@given(st.lists(TIMES, max_size=5), st.sampled_from(sorted(PARTS)), st.sampled_from([None, "UTC", "Asia/Tokyo"]), st.floats(0, 0.999))
def test_a_timestamp_is_its_second(times, unit, zone, fraction):
    column = pa.array([t * PARTS[unit] + int(fraction * PARTS[unit]) for t in times], pa.timestamp(unit, zone))
    assert seconds(column, HERE).to_pylist() == times


@pytest.mark.parametrize(
    "column",
    [
        pa.array([START]),
        pa.array([START], pa.uint32()),
        pa.array([START + 0.75]),
        pa.array([START]).cast(pa.decimal128(20, 0)),
        pa.array([START]).dictionary_encode(),
        pa.array([str(START)]),
        pa.array(["2024-01-05 12:00:00"]),
        pa.array(["2024-01-05T12:00:00.999"], pa.large_string()),
        pa.array(["2024-01-05T12:00:00Z"], pa.string_view()),
        pa.array(["2024-01-05T13:00:00+01:00"]).dictionary_encode(),
    ],
    ids=lambda column: f"{column.type} {column[0]}",
)
def test_numbers_and_texts(column):
    found = seconds(column, HERE)
    assert found.type == pa.int64()
    assert found.to_pylist() == [START]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()], ids=str)
def test_a_date_is_its_midnight(kind):
    assert seconds(pa.array([datetime.date(2024, 1, 5)], kind), HERE).to_pylist() == [START - 12 * 3600]


@given(st.lists(TIMES, max_size=3), TIMES, st.sampled_from(["milliseconds", "microseconds", "nanoseconds"]))
def test_a_smaller_unit_is_refused_by_name(times, odd, unit):
    parts = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}[unit]
    for kind in (pa.int64(), pa.float64()):
        with pytest.raises(DataError, match=rf"log\.parquet: row {40 + len(times)}, column `time`: .* looks like {unit} .* Divide by"):
            seconds(pa.array([*times, odd * parts]).cast(kind, safe=False), HERE)


@given(TIMES, st.sampled_from([("minutes", 60), ("hours", 3600), ("days", 86_400)]))
def test_a_larger_unit_is_refused_by_name(time, unit):
    name, length = unit
    count = time // length + 1
    if count * length < LATEST:
        with pytest.raises(DataError, match=f"row 40, column `time`: {count} looks like {name} since 1970"):
            seconds(pa.array([count]), HERE)


@pytest.mark.parametrize("value", [0, 1, 59, 86_400 * 20, -1, -START, EARLIEST - 1, LATEST, 2**62, -(2**63)])
def test_what_no_log_is_from_is_refused_with_the_remedy(value):
    with pytest.raises(DataError, match=r"row 41, column `time`: .*(in January 1970|before 1990|after 2099|looks like)"):
        seconds(pa.array([START, value]), HERE)
    with pytest.raises(DataError, match=r"row 41, column `time`: .*the same start to all"):
        seconds(pa.array([START, 17]), HERE)


def test_seconds_that_were_read_as_a_smaller_unit_are_refused():
    """`pandas.to_datetime(seconds)` takes them for nanoseconds."""
    with pytest.raises(DataError, match=r"row 40, column `time`: 1970-01-01 00:00:01\.704456 is no time .* smaller unit"):
        seconds(pa.array([START], pa.timestamp("ns")), HERE)
    with pytest.raises(DataError, match="row 40, column `time`: 2262-"):
        seconds(pa.array([2**63 - 1], pa.timestamp("ns")), HERE)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([START, None]), "row 41, column `time`: missing"),
        (pa.array([float(START), np.nan]), "row 41, column `time`: .*missing"),
        (pa.array([datetime.datetime(2024, 1, 1), None], pa.timestamp("s")), "row 41, column `time`: missing"),
        (pa.array(["2024-01-01", "05/01/2024"]), r"row 41, column `time`: '05/01/2024' has a wrong type.*2024-01-31 12:00:00"),
        (pa.array(["2024-01-01", None]), "row 41, column `time`: missing"),
        (pa.array([datetime.time(10)]), r"column `time` has a wrong type: time64.*int64"),
        (pa.array([datetime.timedelta(1)]), r"column `time` has a wrong type: duration"),
        (pa.array([True]), r"column `time` has a wrong type: bool"),
        (pa.array([[START]]), r"column `time` has a wrong type: list"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value.type),
)
def test_what_is_no_time_is_refused(column, said):
    with pytest.raises(DataError, match=r"^log\.parquet: " + said):
        seconds(column, HERE)
