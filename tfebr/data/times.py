"""Times of a search log as seconds since 1970, whatever they were written as; what is no time of a log is refused by name."""

import contextlib
import datetime

import numpy as np
import pyarrow as pa

from tfebr.data.columns import floats, is_number, plain, texts
from tfebr.data.place import Place

# No search log is older, or of a time to come. Seconds in here are no plausible number of any other unit.
EARLIEST, LATEST = (int(datetime.datetime(year, 1, 1, tzinfo=datetime.timezone.utc).timestamp()) for year in (1990, 2100))
_LONGER = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
_SHORTER = {"minutes": 60, "hours": 3600, "days": 86_400}
_WRITTEN = (pa.int64(), pa.timestamp("us"), pa.timestamp("us", "UTC"))
_FORMS = "Expected: int64 seconds since 1970, a timestamp, a date, or text like 2024-01-31 12:00:00"


def seconds(values: pa.Array, place: Place) -> pa.Int64Array:
    """int64 seconds since 1970, fractions cut off.

    Takes numbers of seconds, timestamps of any unit (in UTC where they have no zone), dates, and text of either.

    Raises:
        DataError: one is missing or does not lie from 1990 up to 2100; what looks like another unit is named.
    """
    values = plain(values, place)
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        values = _parsed(texts(values, place), place)
        kind = values.type
    missing = values.is_null().to_numpy(zero_copy_only=False)
    if missing.any():
        raise place.refuse(int(np.argmax(missing)), "missing. Every request needs a time.")
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        found = _whole_seconds(values)
        bad = (found < EARLIEST) | (found >= LATEST)
        if bad.any():
            row = int(np.argmax(bad))
            written = texts(values.slice(row, 1), place)[0].as_py()
            raise place.refuse(row, f"{written} is no time of a search log, which lies from 1990 up to 2100. {_origin(found[row])}")
    elif is_number(kind):
        # As float64, which is exact for what is in range, whatever the type: nothing overflows on the way.
        numbers = floats(values)
        with np.errstate(invalid="ignore"):
            bad = ~((numbers >= EARLIEST) & (numbers < LATEST))
        if bad.any():
            row = int(np.argmax(bad))
            raise place.refuse(row, f"{values[row].as_py()} {_unit(float(numbers[row]))}")
        found = np.floor(numbers).astype(np.int64)
    else:
        raise place.refuse_whole(f"has a wrong type: {kind}. {_FORMS}.")
    return pa.array(found, pa.int64())


def _whole_seconds(values: pa.Array) -> np.ndarray:
    # By way of NumPy, whose unit conversion rounds down and does not overflow on the way to a longer unit.
    kind = values.type
    if pa.types.is_date(kind):
        values = values.cast(pa.timestamp("ms" if pa.types.is_date64(kind) else "s"))
    units = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
    return values.cast(pa.int64()).to_numpy() // units[values.type.unit]


def _parsed(written: pa.Array, place: Place) -> pa.Array:
    for kind in _WRITTEN:
        with contextlib.suppress(pa.ArrowInvalid):
            return written.cast(kind)
    row = next((row for row, text in enumerate(written) if not _is_time(text)), 0)
    raise place.refuse(row, f"{written[row].as_py()!r} has a wrong type, or another form than the times before. {_FORMS}.")


def _is_time(text: pa.Scalar) -> bool:
    for kind in _WRITTEN:
        with contextlib.suppress(pa.ArrowInvalid):
            text.cast(kind)
            return True
    return False


def _origin(second: int) -> str:
    if 0 <= second < 365 * 86_400:
        return "Numbers of seconds were probably taken for a smaller unit: convert them with the right one."
    return "Repair it."


def _unit(number: float) -> str:
    """What is wrong with a number that is not seconds in range."""
    if np.isnan(number):
        return "is missing. Every request needs a time."
    for name, parts in _LONGER.items():
        if EARLIEST <= number / parts < LATEST:
            return f"looks like {name} since 1970, not seconds. Divide by {parts:,.0f}, or write the column as a timestamp."
    for name, parts in _SHORTER.items():
        if EARLIEST <= number * parts < LATEST:
            return f"looks like {name} since 1970, not seconds, or a time from another start. {_REMEDY}"
    when = "in January 1970" if 0 <= number < 31 * 86_400 else "before 1990" if number < EARLIEST else "after 2099"
    return f"as seconds since 1970 lies {when}, where no search log does. {_REMEDY}"


_REMEDY = "Give seconds since 1970; where only the time from some start is known, add the same start to all, such as 1704067200 (2024)."
