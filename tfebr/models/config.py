"""Frozen configs: every setting a documented field, unknown or impossible values refused by name."""

import dataclasses
import difflib
import math
import typing
from typing import Any, TypeVar

from tfebr.errors import ConfigError

Config = TypeVar("Config")


def from_dict(kind: type[Config], values: dict[str, Any], where: str = "config") -> Config:
    """Builds a config dataclass from plain values (JSON, command line); a nested config may be a dict of what differs from its default.

    Raises:
        ConfigError: a field is unknown (the nearest known one is named), has the wrong type, or the config refuses its value.
    """
    return _changed(kind(), values, where)


def _changed(default: Config, values: dict[str, Any], where: str) -> Config:
    fields = [f.name for f in dataclasses.fields(default)]  # type: ignore[arg-type]
    hints = typing.get_type_hints(type(default))
    known = {}
    for name, value in values.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise ConfigError(f"{where}: unknown field `{name}`.{hint} Known fields: {', '.join(fields)}.")
        if dataclasses.is_dataclass(hints[name]) and isinstance(value, dict):
            known[name] = _changed(getattr(default, name), value, f"{where}.{name}")
        else:
            known[name] = _converted(hints[name], value, f"{where}.{name}")
    return dataclasses.replace(default, **known)  # type: ignore[type-var]


def _converted(hint: Any, value: Any, where: str) -> Any:
    if type(None) in typing.get_args(hint):
        if value is None:
            return None
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: must be a list. Received: {value!r}.")
        return tuple(_converted(typing.get_args(hint)[0], v, where) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: must be a finite number. Received: {value!r}.")
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is not bool and isinstance(value, bool))):
        raise ConfigError(f"{where}: must be {hint.__name__}. Received: {value!r}.")
    return value


def require(condition: bool, field: str, allowed: str, value: Any) -> None:
    """Raises ConfigError naming `field` unless `condition`."""
    if not condition:
        raise ConfigError(f"`{field}` must be {allowed}. Received: {value!r}.")
