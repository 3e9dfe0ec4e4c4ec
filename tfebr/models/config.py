"""Frozen configs: every setting a documented field, unknown or impossible values refused by name."""

import dataclasses
import difflib
import typing
from typing import Any, TypeVar

from tfebr.errors import ConfigError

Config = TypeVar("Config")


def from_dict(kind: type[Config], values: dict[str, Any], where: str = "config") -> Config:
    """Builds a config dataclass from plain values (JSON, command line); nested configs may be dicts.

    Raises:
        ConfigError: a field is unknown (the nearest known one is named), has the wrong type, or the config refuses its value.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    known = {}
    for name, value in values.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise ConfigError(f"{where}: unknown field `{name}`.{hint} Known fields: {', '.join(fields)}.")
        known[name] = _converted(hints[name], value, f"{where}.{name}")
    return kind(**known)


def _converted(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, where) if isinstance(value, dict) else value
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
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is not bool and isinstance(value, bool))):
        raise ConfigError(f"{where}: must be {hint.__name__}. Received: {value!r}.")
    return value


def require(condition: bool, field: str, allowed: str, value: Any) -> None:
    """Raises ConfigError naming `field` unless `condition`."""
    if not condition:
        raise ConfigError(f"`{field}` must be {allowed}. Received: {value!r}.")
