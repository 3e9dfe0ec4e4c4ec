"""A client's columns, nested lists of any lengths, as the dense arrays of a signature's inputs; and its outputs as arrays."""

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfebr.errors import RequestError

# What to do about inputs of different numbers of rows, wherever that is noticed.
SAME_ROWS = "Give every input one row for each query; repeat a value that is meant for all of them."

_NUMPY = {
    "DT_STRING": np.dtype(object),
    "DT_BOOL": np.dtype(bool),
    "DT_FLOAT": np.dtype(np.float32),
    "DT_DOUBLE": np.dtype(np.float64),
    **{f"DT_{name.upper()}": np.dtype(name) for name in ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64")},
}
# NumPy's kind of a dtype: what a column of it may hold, in words and in types.
_VALUES: dict[str, tuple[str, tuple[type, ...]]] = {
    "O": ("a str", (str, bytes)),
    "b": ("True or False", (bool, np.bool_)),
    "i": ("a whole number", (int, np.integer)),
    "u": ("a whole number", (int, np.integer)),
    "f": ("a number", (int, float, np.integer, np.floating)),
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """dtype and shape of an input or output; a size of -1 is any size."""

    dtype: str
    shape: tuple[int, ...]


def tensors_of(described: Mapping[str, Any]) -> dict[str, Tensor]:
    """The inputs or outputs of a SignatureDef in protobuf's JSON form."""
    # Protobuf's JSON has int64 as text and may leave out what is zero or empty.
    return {
        name: Tensor(value["dtype"], tuple(int(dim.get("size", 0)) for dim in value.get("tensor_shape", {}).get("dim", [])))
        for name, value in described.items()
    }


def is_list(value: Any) -> bool:
    """Whether it holds values, one for each row or place; a string does not."""
    return isinstance(value, list | tuple | np.ndarray)


def to_array(name: str, value: Any, spec: Tensor, rows: int) -> np.ndarray:
    """A dense array out of nested lists of unequal lengths.

    Args:
        name: of the input, for errors.
        value: the lists, or one value for all rows; None is all padding.
        spec: what the signature takes.
        rows: how many rows the request has.

    Returns:
        An array of the signature's dtype, strings as bytes; with at least one column.

    Raises:
        RequestError: naming the field and what does not fit.
    """
    if spec.dtype not in _NUMPY:
        raise RequestError(f"Field `{name}` is of type {spec.dtype}, which this client cannot send.")
    dtype = _NUMPY[spec.dtype]
    padding = "" if dtype.kind == "O" else dtype.type(0)
    if value is None:
        value = padding if not spec.shape else [[] if len(spec.shape) > 1 else padding] * rows
    elif not is_list(value) and len(spec.shape) == 1:
        value = [value] * rows
    level, shape = [value], []
    for axis, size in enumerate(spec.shape):
        if not all(map(is_list, level)):
            raise RequestError(f"Field `{name}` needs {len(spec.shape)} levels of lists, the outermost for the rows.")
        longest = max(map(len, level), default=0)
        if 0 <= size < longest:
            raise RequestError(f"Field `{name}` takes lists of at most {size} values. Received: {longest}.")
        # At least one column of padding: models reduce over it, and the mean of nothing is NaN.
        shape.append(size if size >= 0 else max(longest, 1 if axis else 0))
        pad: Any = padding if axis == len(spec.shape) - 1 else []
        level = [item for row in level for item in (*row, *[pad] * (shape[-1] - len(row)))]
    wanted, types = _VALUES[dtype.kind]
    for item in level:
        if not isinstance(item, types) or (dtype.kind != "b" and isinstance(item, bool)):
            raise RequestError(f"Field `{name}` must hold {wanted} for each value. Received: a {type(item).__name__}.")
    try:
        values = [item.encode("utf-8") if isinstance(item, str) else item for item in level]
        return np.array(values, dtype=dtype).reshape(shape)
    except UnicodeEncodeError:
        raise RequestError(f"Field `{name}` holds half of a surrogate pair, which is no text.") from None
    except OverflowError:
        raise RequestError(f"Field `{name}` holds a number outside the range of {dtype.name}.") from None


def from_answer(name: str, value: Any, spec: Tensor) -> np.ndarray:
    """An output as an array of its dtype, strings as `str`; those of an output named `..._bytes` as `bytes`."""
    array = np.asarray(value, dtype=_NUMPY.get(spec.dtype))
    if array.dtype.kind != "O":
        return array
    leaves = [_leaf(name, leaf) for leaf in array.ravel().tolist()]
    return np.array(leaves, dtype=object).reshape(array.shape)


def _leaf(name: str, leaf: Any) -> str | bytes:
    if isinstance(leaf, dict):
        return base64.b64decode(leaf["b64"])
    if isinstance(leaf, bytes) and not name.endswith("_bytes"):
        return leaf.decode("utf-8", errors="replace")
    return leaf
