"""The public names of a room: listed in its `__init__.pyi`, imported when they are first asked for."""

import difflib
from collections.abc import Callable
from typing import Any

import lazy_loader


def attach(room: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package whose stub beside `file` names its public classes and functions.

    Importing a room is free; what a name needs, TensorFlow say, is imported with the name. An unknown name raises AttributeError with
    the names near it.
    """
    load, listed, names = lazy_loader.attach_stub(room, file)

    def public_name(name: str) -> Any:
        if name in names:
            return load(name)
        by_lower = {known.lower(): known for known in names}
        near = [by_lower[found] for found in difflib.get_close_matches(name.lower(), by_lower)]
        hint = f" Did you mean {' or '.join(near)}?" if near else f" It has: {', '.join(names)}."
        raise AttributeError(f"`{room}` has no public name `{name}`.{hint}", name=name)

    return public_name, listed, names
