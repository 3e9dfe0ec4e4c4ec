"""Columns of any plain type that a file may have, as the few types that the rest of the project reads.

Every function takes one Arrow array and its `Place`; `by_chunk` applies it to a column of a table. What has no plain meaning is refused by
file, row and column.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfebr.data.place import Notes, Place
from tfebr.data.utf8 import first_invalid

_ARRAY_BYTES = 2**31 - 1
# From here on float64 does not tell neighbouring whole numbers apart.
_EXACT = 2.0**53
_UUID_BYTES = 16
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint8).reshape(256, 2)


def by_chunk(column: pa.ChunkedArray, convert: Callable[[pa.Array, Place], pa.Array], place: Place, kind: pa.DataType) -> pa.ChunkedArray:
    """The converted column; chunk by chunk, because one array holds 2 GiB of text at most, and that of all titles may be larger."""
    converted = []
    for chunk in column.chunks:
        for piece in _pieces(chunk):
            converted.append(convert(piece, place))
            place = place.after(len(piece))
    return pa.chunked_array(converted, kind)


def plain(values: pa.Array, place: Place) -> pa.Array:
    """The values without what only packs them: dictionaries, runs, and extension types that stand for text."""
    while True:
        kind = values.type
        if isinstance(kind, pa.BaseExtensionType):
            if kind.extension_name not in ("arrow.uuid", "arrow.json"):
                raise place.refuse_whole(f"has type {kind}. Write it as text or as a number.")
            values = values.storage
        elif pa.types.is_dictionary(kind):
            values = values.dictionary_decode()
        elif pa.types.is_run_end_encoded(kind):
            values = pc.run_end_decode(values)
        else:
            return values


def is_number(kind: pa.DataType) -> bool:
    """Whether a column is one of numbers, by its type. Categories that are written as numbers are categories."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def texts(values: pa.Array, place: Place) -> pa.StringArray:
    """Values as text, nulls kept: a whole number without a fraction, a time as in ISO 8601 (in UTC where it has a zone), a UUID in hex."""
    values = plain(values, place)
    kind = values.type
    if pa.types.is_nested(kind) or pa.types.is_duration(kind):
        raise place.refuse_whole(f"has type {kind}; it should hold strings and numbers only. Convert it or drop it.")
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _numbers_as_text(values)
    if pa.types.is_fixed_size_binary(kind):
        values = _fixed_as_text(values)
    zone = pa.types.is_timestamp(kind) and kind.tz is not None
    if zone:
        values = values.cast(pa.timestamp(kind.unit))
    try:
        found = values.cast(pa.string())
        found.validate(full=True)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError):
        raise place.refuse_whole(f"has type {kind}; it should hold strings and numbers only. Convert it or drop it.") from None
    except pa.ArrowInvalid as error:
        row = first_invalid(values)
        if row is None:
            raise place.refuse_whole(f"is not readable: {error}.") from error
        raise place.refuse(row, "not valid UTF-8. Re-encode the file as UTF-8.") from None
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        # One instant is one text, whatever unit its file counts in.
        found = pc.replace_substring_regex(pc.replace_substring_regex(found, r"(\.[0-9]*?)0+$", r"\1"), r"\.$", "")
    return pc.binary_join_element_wise(found, "Z", "") if zone else found


def ids(values: pa.Array, place: Place, remedy: str, notes: Notes | None = None) -> pa.StringArray:
    """Ids as text, none of them missing or empty; `remedy` says what needs them."""
    found = optional_ids(values, place, notes)
    bad = pc.equal(pc.fill_null(found, ""), "").to_numpy(zero_copy_only=False)
    if bad.any():
        row = int(np.argmax(bad))
        raise place.refuse(row, f"{'empty' if found[row].is_valid else 'missing'}. {remedy}")
    return found


def optional_ids(values: pa.Array, place: Place, notes: Notes | None = None) -> pa.StringArray:
    """Ids as text, nulls kept.

    Whole numbers that pandas wrote as floats, because others of the column were missing, are the same ids as those that it did not.
    """
    values = plain(values, place)
    if pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        numbers = np.nan_to_num(floats(values), nan=0, posinf=np.inf, neginf=-np.inf)
        bad = (numbers != np.floor(numbers)) | np.isinf(numbers)
        if bad.any():
            row = int(np.argmax(bad))
            raise place.refuse(row, f"{values[row].as_py()} is not a whole number, so it is no id. Write ids as text.")
        bad = np.abs(numbers) >= _EXACT
        if bad.any() and pa.types.is_floating(values.type):
            row = int(np.argmax(bad))
            raise place.refuse(
                row, f"{values[row].as_py()} is too large for a float: its last digits are lost. Write ids as text or integers."
            )
        if notes is not None:
            notes.add(place.column, "floating-point numbers were read as whole ones", len(values) - values.null_count)
    return texts(values, place)


def floats(values: pa.Array) -> np.ndarray:
    """float64 numbers, NaN where there is none, from an array of numbers or nulls."""
    # Unchecked: a number above 2^53 loses its last digits, as all numbers do here.
    return values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def numbers(values: pa.Array, place: Place) -> pa.DoubleArray:
    """Numbers as float64 without nulls, NaN where there is none; refuses the infinite. True is 1."""
    values = plain(values, place)
    if not (is_number(values.type) or pa.types.is_boolean(values.type) or pa.types.is_null(values.type)):
        raise place.refuse_whole(f"has type {values.type}; it should hold numbers.")
    found = floats(values)
    infinite = np.isinf(found)
    if infinite.any():
        row = int(np.argmax(infinite))
        raise place.refuse(row, f"not a finite number: {values[row].as_py()}. Give the item a number or none.")
    return pa.array(found)


def whole(values: pa.Array, place: Place, least: int, most: int, remedy: str) -> np.ndarray:
    """int64 whole numbers from `least` to `most`, from numbers of any type, none missing; `remedy` says what needs them."""
    values = plain(values, place)
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if not is_number(values.type) and not pa.types.is_null(values.type):
        raise place.refuse_whole(f"has a wrong type: {values.type}. Expected: whole numbers.")
    found = floats(values)
    bad = np.isnan(found)
    if bad.any():
        raise place.refuse(int(np.argmax(bad)), f"missing. {remedy}")
    bad = (found != np.floor(found)) | (found < least) | (found > most)
    if bad.any():
        row = int(np.argmax(bad))
        raise place.refuse(row, f"{values[row].as_py()} is not a whole number from {least:,} to {most:,}.")
    return found.astype(np.int64)


def check_unique(values: pa.ChunkedArray, place: Place, rule: str) -> None:
    """Raises DataError naming the first value that is there for the second time, and where it was before."""
    codes = np.concatenate([np.zeros(0, np.int32), *(chunk.indices.to_numpy() for chunk in values.dictionary_encode().chunks)])
    first_seen = np.zeros(len(codes), bool)
    first_seen[np.unique(codes, return_index=True)[1]] = True
    if not first_seen.all():
        row = int(np.argmin(first_seen))
        file, first = place.row(int(np.argmax(codes == codes[row])))
        where = f"row {first}" if file == place.row(row)[0] else f"row {first} of {file}"
        raise place.refuse(row, f"{values[row].as_py()!r} repeats {where}. {rule}")


def _pieces(chunk: pa.Array) -> Iterator[pa.Array]:
    """The chunk in parts whose text fits into one array."""
    if len(chunk) < 2 or chunk.nbytes <= _ARRAY_BYTES:
        yield chunk
    else:
        half = len(chunk) // 2
        yield from _pieces(chunk[:half])
        yield from _pieces(chunk[half:])


def _numbers_as_text(values: pa.Array) -> pa.StringArray:
    numbers = floats(values)
    missing = np.isnan(numbers)
    whole = np.where(missing | (numbers != np.floor(numbers)) | (np.abs(numbers) >= _EXACT), np.nan, numbers)
    known = pa.array(~missing)
    written = pc.if_else(known, values, pa.scalar(None, values.type)).cast(pa.string())
    return pc.if_else(pa.array(~np.isnan(whole)), pa.array(np.nan_to_num(whole).astype(np.int64)).cast(pa.string()), written)


def _fixed_as_text(values: pa.FixedSizeBinaryArray) -> pa.Array:
    """Text of a fixed width, or UUIDs as older readers of Parquet give them: the ninth byte of a UUID is no ASCII."""
    texts = values.cast(pa.binary())
    if values.type.byte_width != _UUID_BYTES or not len(values):
        return texts
    bytes_ = np.frombuffer(values.buffers()[1], np.uint8)[values.offset * _UUID_BYTES :][: len(values) * _UUID_BYTES].reshape(
        -1, _UUID_BYTES
    )
    known = values.is_valid().to_numpy(zero_copy_only=False)
    if ((bytes_[known] >= 0x20) & (bytes_[known] < 0x7F)).all():
        return texts
    digits = _HEX[bytes_].reshape(len(values), 2 * _UUID_BYTES)
    written = np.insert(digits, [8, 12, 16, 20], ord("-"), axis=1)
    offsets = np.arange(len(values) + 1, dtype=np.int32) * written.shape[1]
    found = pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(written)))
    return pc.if_else(pa.array(known), found, pa.scalar(None, pa.string()))
