"""Where a column of text is not UTF-8: Parquet and Arrow do not check on reading."""

import pyarrow as pa


def first_invalid(column: pa.Array | pa.ChunkedArray) -> int | None:
    """Row of the first value of a string or binary column that is not valid UTF-8, or None."""
    return next((row for row, value in enumerate(column.cast(pa.large_binary())) if not _is_utf8(value.as_py())), None)


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode("utf-8")
        return True
    except UnicodeDecodeError:
        return False
