"""Paths that TensorFlow cannot take for patterns: it finds checkpoints by matching, and `run[12]` would match `run1`."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tfebr.errors import ConfigError

_PATTERN = re.compile(r"[*?\[\\]")
_DESCRIPTORS = Path("/proc/self/fd")


@contextlib.contextmanager
def literal(folder: str | os.PathLike) -> Iterator[str]:
    """Yields a path of this folder that matches nothing else: its own or, where that could be a pattern, one by way of a descriptor.

    For reading and writing below the folder until the end of the block, in this process.

    Raises:
        FileNotFoundError: there is no such folder.
        ConfigError: the path could be a pattern, and this system has no names for descriptors.
    """
    path = os.fspath(folder)
    if not _PATTERN.search(path):
        yield path
        return
    if not _DESCRIPTORS.is_dir():
        raise ConfigError(
            f"{path}: holds one of the characters *?[\\, which TensorFlow takes for a pattern on this system. Rename the folder."
        )
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield str(_DESCRIPTORS / str(descriptor))
    finally:
        os.close(descriptor)
