"""The shapes and dtypes of tensors, checked while a graph is made: what is wrong is named at once, and a step has no operation more."""

import numbers
from typing import Any

import tensorflow as tf

from tfebr.errors import ConfigError
from tfebr.infrastructure.checks import check_number

_LEADING = "..."


# There is nothing in it for AutoGraph to convert.
@tf.autograph.experimental.do_not_convert
def check_tensors(**arguments: tuple[Any, str]) -> None:
    """Raises ConfigError naming the first tensor whose dtype, rank or size is not as described.

    A wrong rank would otherwise broadcast: scores [3, 4] less [3, 1] is as good a tensor as scores [3, 4] less [3].

    Args:
        arguments: name -> (tensor or what converts to one, description as in the docstrings); None is left out. A description is
            "float [batch, candidates]", or "float [] or [batch]"; its first word is float, int, bool, or id for whole numbers and
            strings. A word among the sizes has one value in all arguments, a number is that size, "n + m" is the sum of two, and "..."
            stands for any number of dimensions, the same in all arguments. What a graph does not know yet passes.
    """
    sizes: dict[str, int] = {}
    for name, (value, description) in arguments.items():
        if value is None:
            continue
        if not hasattr(value, "shape"):
            value = tf.convert_to_tensor(value)
        kind, shapes = description.split(" ", 1)
        dtype, options = tf.as_dtype(value.dtype), shapes.split(" or ")
        if not _is(kind, dtype):
            raise ConfigError(f"`{name}` must be of a dtype {kind}. Received: {dtype.name}.")
        rank, found = tf.TensorShape(value.shape).rank, value.shape
        if rank is None:
            continue
        fitting = [bound for bound in (_bound(list(found), shape, sizes) for shape in options) if bound is not None]
        if not fitting:
            known = [f", here {here}" for here in (_here(shape, sizes, rank) for shape in options) if here]
            raise ConfigError(f"`{name}` must have shape {shapes}{''.join(known[:1])}. Received: shape {list(found)}.")
        sizes |= fitting[0]


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor, a variable or an array; a plain or a NumPy number is none."""
    return hasattr(value, "shape") and not isinstance(value, numbers.Number)


def is_scalar(value: Any) -> bool:
    """Whether a value is a number or a tensor without a rank."""
    return tf.TensorShape(value.shape).rank == 0 if is_tensor(value) else isinstance(value, numbers.Number)


@tf.autograph.experimental.do_not_convert
def check_scalar(name: str, value: Any, interval: str) -> None:
    """Raises ConfigError unless `value` is a number in the interval (see `check_number`), or a scalar tensor, for what is learned."""
    if not is_tensor(value):
        check_number(name, value, interval)
        return
    check_tensors(**{name: (value, "float []")})
    known = tf.get_static_value(value)
    if known is not None:
        check_number(name, float(known), interval)


def _is(kind: str, dtype: tf.DType) -> bool:
    whole = dtype.is_integer
    return {"float": dtype.is_floating, "int": whole, "bool": dtype.is_bool, "id": whole or dtype == tf.string}[kind]


def _names(shape: str) -> list[str]:
    return [name for name in shape[1:-1].split(", ") if name]


def _bound(found: list[int | None], shape: str, sizes: dict[str, int]) -> dict[str, int] | None:
    """The sizes that a shape gives its names, or None where it does not fit."""
    names, bound = _names(shape), {}
    if names[:1] == [_LEADING]:
        leading = len(found) - len(names) + 1
        if leading < 0 or sizes.get(_LEADING, leading) != leading:
            return None
        names, found, bound = names[1:], found[leading:], {_LEADING: leading}
    if len(names) != len(found):
        return None
    for name, size in zip(names, found, strict=True):
        known = _size(name, sizes | bound)
        if None not in (size, known) and size != known:
            return None
        if size is not None:
            bound[name] = size
    return bound


def _here(shape: str, sizes: dict[str, int], rank: int) -> str:
    """The shape in numbers, where the rank is right and something is known."""
    names = _names(shape)
    known = [_size(name, sizes) for name in names]
    if _LEADING in names or len(names) != rank or not any(known):
        return ""
    return f"[{', '.join(name if size is None else str(size) for name, size in zip(names, known, strict=True))}]"


def _size(name: str, sizes: dict[str, int]) -> int | None:
    """Of a number, a name or a sum of names; None where it is not known."""
    parts = [int(part) if part.isdigit() else sizes.get(part) for part in name.split(" + ")]
    return sizes.get(name) if None in parts else sum(part for part in parts if part is not None)
