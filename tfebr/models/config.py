"""Frozen configs from plain values: every setting a documented field, unknown or impossible values refused by name."""

import dataclasses
import difflib
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
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: must be an object of fields and their values. Received: {values!r}.")
    fields = [f.name for f in dataclasses.fields(default)]  # type: ignore[arg-type]
    hints = typing.get_type_hints(type(default))
    known = {}
    for name, value in values.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise ConfigError(f"{where}: unknown field `{name}`.{hint} Known fields: {', '.join(fields)}.")
        nested = dataclasses.is_dataclass(hints[name]) and not isinstance(value, hints[name])
        known[name] = _changed(getattr(default, name), value, f"{where}.{name}") if nested else value
    try:
        return dataclasses.replace(default, **known)  # type: ignore[type-var]
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
