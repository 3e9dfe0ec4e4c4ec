"""Tensors as JSON and as TensorProto, checked against the specs of a signature, the way TensorFlow Serving maps them."""

import base64
import binascii
import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from tfebr.errors import RequestError

Specs = Mapping[str, tf.TensorSpec]
Tensors = dict[str, np.ndarray]

_INTEGERS = (tf.int8, tf.uint8, tf.int16, tf.int32, tf.uint32, tf.int64, tf.uint64)
# Whole numbers from here on have no exact counterpart in the floating type.
_FLOATS = {tf.float32: 2**24, tf.float64: 2**53}
# TensorFlow Serving answers with the typed fields, and clients in the field read them; `tensor_content` would be empty there.
_FIELDS = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int8: "int_val",
    tf.uint8: "int_val",
    tf.int16: "int_val",
    tf.int32: "int_val",
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}


class NotFinite(float):
    """A number that a request writes NaN, Infinity or -Infinity; one that is merely too large comes as a plain float."""


def from_json(body: Mapping[str, Any], specs: Specs) -> tuple[Tensors, bool]:
    """The input tensors of a predict request.

    Args:
        body: the JSON object, with `instances` (row form) or `inputs` (column form). As in TensorFlow Serving, columns that the signature
            does not have are not read, while rows must have its inputs and no others.
        specs: dtype and shape of every input of the signature.

    Returns:
        (tensors, row_form): one array for each input, strings as bytes; whether the request, and so the response, is in row form.

    Raises:
        RequestError: naming the input and the row that cannot be read, and why.
    """
    if ("instances" in body) == ("inputs" in body):
        raise RequestError('The body needs exactly one of the keys "instances" (row form) and "inputs" (column form).')
    if "inputs" in body:
        columns = body["inputs"]
        if _is_plain(columns):
            columns = {_only_input(specs, "inputs"): columns}
        _check_names({name: columns[name] for name in columns.keys() & specs.keys()}, specs, '"inputs"')
        return {name: _array(name, columns[name], spec) for name, spec in specs.items()}, False
    rows = body["instances"]
    if not isinstance(rows, list) or not rows:
        raise RequestError('"instances" must be a list of at least one row.')
    if _is_plain(rows[0]):
        if not all(map(_is_plain, rows)):
            raise RequestError('"instances" must hold values only or objects only, not both.')
        only = _only_input(specs, "instances")
        return {only: _array(only, rows, specs[only])}, True
    for number, row in enumerate(rows):
        if _is_plain(row):
            raise RequestError(f'Row {number} of "instances" is not an object, but row 0 is.')
        _check_names(row, specs, f'row {number} of "instances"')
    return {name: _array(name, [row[name] for row in rows], spec) for name, spec in specs.items()}, True


def to_json(outputs: Mapping[str, np.ndarray], row_form: bool) -> bytes:
    """The body of a predict response; a single output is not nested under its name, outputs named `..._bytes` are base64.

    A number that is not finite is written NaN, Infinity or -Infinity, as TensorFlow Serving writes it; JSON has no word for it.

    Raises:
        RequestError: row form, but the outputs do not share their first dimension.
    """
    names = sorted(outputs)
    starts = {array.shape[:1] for array in outputs.values()}
    if row_form and (len(starts) > 1 or () in starts):
        shapes = ", ".join(f"{name} {list(outputs[name].shape)}" for name in names)
        raise RequestError(f'The outputs do not share their first dimension ({shapes}): use the column form "inputs".')
    columns = {name: _json_values(name, outputs[name]) for name in names}
    if len(names) == 1:
        written = _written(columns[names[0]])
    elif row_form:
        written = _written([dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)])
    else:
        written = "{" + ", ".join(f"{json.dumps(name)}: {_written(column)}" for name, column in columns.items()) + "}"
    return f'{{"{"predictions" if row_form else "outputs"}": {written}}}'.encode()


def _written(value: Any) -> str:
    """A value as JSON, an element of a list at a time: a large answer in one call would keep all other threads waiting."""
    if isinstance(value, list):
        return "[" + ", ".join(json.dumps(item, ensure_ascii=False) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def from_protos(protos: Mapping[str, tensor_pb2.TensorProto], specs: Specs, max_elements: int) -> Tensors:
    """The input tensors of a gRPC request; raises RequestError naming the input.

    Args:
        protos: one message for each input.
        specs: dtype and shape of every input of the signature.
        max_elements: largest accepted tensor; a message of a few bytes can declare any shape.
    """
    _check_names(protos, specs, "the request")
    tensors = {}
    for name, spec in specs.items():
        proto, shape = protos[name], [dim.size for dim in protos[name].tensor_shape.dim]
        if proto.dtype != spec.dtype.as_datatype_enum:
            raise RequestError(f"Input `{name}` must be {spec.dtype.name}. Received: {_dtype_name(proto.dtype)}.")
        if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
            raise RequestError(f"Input `{name}` does not declare its shape.")
        _check_shape(name, shape, spec)
        if _size(shape) > max_elements:
            raise RequestError(f"Input `{name}` declares {_size(shape)} elements; at most {max_elements} are accepted.")
        try:
            tensors[name] = _strings_of(proto) if proto.dtype == types_pb2.DT_STRING and proto.tensor_content else tf.make_ndarray(proto)
        except (ValueError, TypeError, IndexError, tf.errors.InvalidArgumentError):
            raise RequestError(f"Input `{name}` declares the shape {shape}, but does not hold as many values.") from None
    return tensors


def _strings_of(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Strings in `tensor_content`, which clients in other languages send and only TensorFlow's own code reads."""
    return tf.io.parse_tensor(proto.SerializeToString(), tf.string).numpy()


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """A tensor as TensorFlow Serving sends it by default: the values in the typed field of their dtype."""
    dtype = tf.as_dtype(array.dtype)
    if dtype not in _FIELDS:
        return tf.make_tensor_proto(array)
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum, tensor_shape=tf.TensorShape(array.shape).as_proto())
    getattr(proto, _FIELDS[dtype]).extend(array.ravel().tolist())
    return proto


def rows_of(tensors: Mapping[str, np.ndarray]) -> int | None:
    """The size of the batch, None where no input has a dimension."""
    return next((len(array) for array in tensors.values() if array.ndim), None)


def _is_plain(value: Any) -> bool:
    return not isinstance(value, dict) or _is_base64(value)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _only_input(specs: Specs, key: str) -> str:
    if len(specs) != 1:
        raise RequestError(f'"{key}" holds plain values, but the signature has several inputs: name them ({", ".join(sorted(specs))}).')
    return next(iter(specs))


def _check_names(given: Mapping[str, Any], specs: Specs, where: str) -> None:
    if given.keys() == specs.keys():
        return
    unknown, missing = sorted(given.keys() - specs.keys()), sorted(specs.keys() - given.keys())
    said = [f"{what}: {', '.join(map(_short, names))}" for what, names in (("unknown", unknown), ("missing", missing)) if names]
    raise RequestError(f"The inputs of {where} do not match the signature: {'; '.join(said)}. It has: {', '.join(sorted(specs))}.")


def _check_shape(name: str, shape: list[int], spec: tf.TensorSpec) -> None:
    if not spec.shape.is_compatible_with(shape):
        wanted = spec.shape.as_list()
        hint = "a list for each row" if len(wanted) > len(shape) else "check the nesting and the lengths of its lists"
        raise RequestError(f"Input `{name}` must have the shape {wanted} (None: any size). Received the shape {shape}: {hint}.")


def _array(name: str, value: Any, spec: tf.TensorSpec) -> np.ndarray:
    """Nested JSON lists as one dense array of the spec's dtype."""
    shape: list[int] = []
    probe = value
    while isinstance(probe, list):
        shape.append(len(probe))
        probe = probe[0] if probe else None
    leaves = [value]
    for depth, size in enumerate(shape):
        for row, item in enumerate(leaves):
            if not isinstance(item, list):
                raise RequestError(f"Input `{name}` mixes lists and values at nesting level {depth}.")
            if len(item) != size:
                raise RequestError(
                    f"Input `{name}` has rows of unequal length: {len(item)} values in row {row}, {size} in row 0. "
                    'Pad the shorter ones, strings with "": a tensor has one length for all rows.'
                )
        leaves = list(chain.from_iterable(leaves))
    # The lists of an empty batch cannot show how deep they would be nested.
    if shape and shape[-1] == 0 and len(shape) < (spec.shape.rank or 0):
        shape += [size or 0 for size in spec.shape.as_list()[len(shape) :]]
    _check_shape(name, shape, spec)
    return _leaf_array(name, leaves, spec.dtype).reshape(shape)


def _leaf_array(name: str, leaves: list, dtype: tf.DType) -> np.ndarray:
    if dtype == tf.string:
        try:
            # Bytes of the body that are no UTF-8 come as halves of surrogate pairs.
            values = [leaf.encode("utf-8", "surrogateescape") if isinstance(leaf, str) else _decode_base64(name, leaf) for leaf in leaves]
        except UnicodeEncodeError:
            raise RequestError(f"Input `{name}` holds half of a surrogate pair, which is no text.") from None
        return np.array(values, dtype=object)
    if dtype == tf.bool:
        _check_leaves(name, leaves, (bool,), "true or false")
    elif dtype in _FLOATS:
        _check_leaves(name, leaves, (int, float, NotFinite), "a number")
        # Beyond 64 bits a whole number is read as a fraction is.
        if any(isinstance(leaf, int) and _FLOATS[dtype] <= abs(leaf) < 2**64 for leaf in leaves):
            raise RequestError(f"Input `{name}` holds a whole number that {dtype.name} cannot represent without loss.")
        if not all(isinstance(leaf, NotFinite) or abs(leaf) <= float(dtype.max) for leaf in leaves):
            raise RequestError(f"Input `{name}` holds a number that is not finite as {dtype.name}.")
    elif dtype in _INTEGERS:
        _check_leaves(name, leaves, (int,), "a whole number")
        if any(not dtype.min <= leaf <= dtype.max for leaf in leaves):
            raise RequestError(f"Input `{name}` holds a whole number outside the range of {dtype.name}, {dtype.min} to {dtype.max}.")
    else:
        raise RequestError(f"Input `{name}` is {dtype.name}, which has no JSON form: use gRPC.")
    return np.array(leaves, dtype=dtype.as_numpy_dtype)


def _check_leaves(name: str, leaves: list, types: tuple[type, ...], wanted: str) -> None:
    # Exact types: to Python, True is a whole number.
    for leaf in leaves:
        if type(leaf) not in types:
            raise RequestError(f"Input `{name}` must hold {wanted} everywhere. Received: {_json_type(leaf)}.")


def _decode_base64(name: str, leaf: Any) -> bytes:
    if not _is_base64(leaf):
        raise RequestError(f'Input `{name}` must hold strings, or binary strings as {{"b64": "..."}}. Received: {_json_type(leaf)}.')
    # As TensorFlow Serving reads it: white space does not count, and the padding at the end may be left out.
    digits = "".join(leaf["b64"].split()).rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(f'Input `{name}` holds a "b64" object whose value is not base64.') from None


def _json_type(leaf: Any) -> str:
    kinds = {type(None): "null", bool: "a boolean", int: "a number", float: "a fraction", str: "a string", list: "a list"}
    return kinds.get(type(leaf), "an object")


def _json_values(name: str, array: np.ndarray) -> Any:
    if array.dtype.kind == "O":
        leaves = array.ravel().tolist()
        if name.endswith("_bytes"):
            values = [{"b64": base64.b64encode(leaf).decode("ascii")} for leaf in leaves]
        else:
            # A JSON text is UTF-8 whatever the tensor holds.
            values = [leaf.decode("utf-8", errors="replace") for leaf in leaves]
        shaped = np.empty(len(values), dtype=object)
        shaped[:] = values
        return shaped.reshape(array.shape).tolist()
    # bfloat16 is of kind "V" to NumPy.
    if array.dtype.kind in "fV":
        # Through text: the shortest number that reads back as the same value, not float64's noise digits.
        return np.array([float(str(number)) for number in array.ravel()], dtype=np.float64).reshape(array.shape).tolist()
    return array.tolist()


def _size(shape: list[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _short(name: str) -> str:
    """A name from a request, cut to what an error message should repeat."""
    return name if len(name) <= 60 else name[:60] + "..."


def _dtype_name(enum: int) -> str:
    try:
        return tf.as_dtype(enum).name
    except TypeError:
        return f"the unknown dtype {enum}"
