"""What settings must be: numbers in their range, and the fields of a config of the type that they declare."""

import dataclasses
import numbers
import sys
import types
import typing
from collections.abc import Sequence
from typing import Any

from tfebr.errors import ConfigError

_TYPES = {int: ("a whole number", "whole numbers"), float: ("a finite number", "finite numbers"), str: ("a string", "strings")}


def require(condition: bool, field: str, allowed: str, value: Any) -> None:
    """Raises ConfigError naming `field` unless `condition`."""
    if not condition:
        raise ConfigError(f"`{field}` must be {allowed}. Received: {value!r}.")


def is_number(value: Any, interval: str = "(-inf, inf)", whole: bool = False) -> bool:
    """Whether a value is a finite number in an interval; True is none."""
    if not isinstance(value, numbers.Integral if whole else numbers.Real) or isinstance(value, bool):
        return False
    number = int(value) if isinstance(value, numbers.Integral) else float(value)
    low, high = (float(end) for end in interval[1:-1].split(","))
    # NaN compares false with everything; a whole number may be too large for a float.
    if not abs(number) <= sys.float_info.max:
        return False
    return (low <= number if interval[0] == "[" else low < number) and (number <= high if interval[-1] == "]" else number < high)


def check_number(name: str, value: Any, interval: str = "(-inf, inf)", whole: bool = False) -> None:
    """Raises ConfigError unless `value` is a finite number in an interval such as "[0, 1)" or "(0, inf)". True and "3" are no numbers."""
    require(is_number(value, interval, whole), name, f"a {_kind(whole)} number{_span(interval)}", value)


def check_numbers(name: str, values: Any, count: int, interval: str = "(-inf, inf)", whole: bool = False) -> None:
    """Raises ConfigError unless `values` is a sequence of so many numbers in an interval."""
    fits = isinstance(values, Sequence) and len(values) == count and all(is_number(v, interval, whole) for v in values)
    require(fits, name, f"{count} {_kind(whole)} numbers{_span(interval)}", values)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raises ConfigError unless `value` is one of the words."""
    require(isinstance(value, str) and value in choices, name, f"one of {', '.join(choices)}", value)


def conform(config: Any) -> None:
    """Gives the fields of a frozen config dataclass the types that they declare, for its `__post_init__`.

    A list becomes a tuple, a whole number a float and a NumPy number a plain one where these are declared; nothing else is converted.

    Raises:
        ConfigError: a field has another type, or is NaN or infinite.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = _conformed(hints[field.name], getattr(config, field.name), field.name)
        object.__setattr__(config, field.name, value)


def _conformed(hint: Any, value: Any, name: str) -> Any:
    nullable = ""
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint, nullable = next(h for h in typing.get_args(hint) if h is not type(None)), ", or null"
    if typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        require(isinstance(value, list | tuple) and all(_is(kind, v) for v in value), name, f"a list of {_TYPES[kind][1]}{nullable}", value)
        return tuple(kind(v) for v in value)
    if hint in _TYPES:
        require(_is(hint, value), name, _TYPES[hint][0] + nullable, value)
        return hint(value)
    require(isinstance(value, hint), name, ("true or false" if hint is bool else f"a {hint.__name__}") + nullable, value)
    return value


def _is(kind: type, value: Any) -> bool:
    return isinstance(value, str) if kind is str else is_number(value, whole=kind is int)


def _kind(whole: bool) -> str:
    return "whole" if whole else "finite"


def _span(interval: str) -> str:
    low, high = (end.strip() for end in interval[1:-1].split(","))
    if high != "inf":
        return f" in {interval}"
    return "" if low == "-inf" else f" {'of at least' if interval[0] == '[' else 'above'} {low}"
