"""TensorFlow's own errors for a full or read-only disk, said as `tfebr.infrastructure.files` says them."""

import contextlib
import os
from collections.abc import Iterator

import tensorflow as tf

from tfebr.errors import TfebrError
from tfebr.infrastructure.messages import first_line


@contextlib.contextmanager
def tensorflow_disk_errors(target: str | os.PathLike) -> Iterator[None]:
    """Around operations that do nothing but write below `target`: raises TfebrError naming it when one fails."""
    try:
        yield
    except tf.errors.OpError as error:
        raise TfebrError(
            f"{target}: not written: {first_line(error)}. Free some space or choose another folder; what was there before is unchanged."
        ) from error
