"""A SavedModel of a few ops whose answers plain Python can predict, for tests of servers and clients."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from tfebr.server.server import Server


class _Tiny(tf.Module):
    def __init__(self, mark: int):
        super().__init__()
        self._mark = mark

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, "query"),
            tf.TensorSpec([None], tf.string, "user_age"),
            tf.TensorSpec([None, None], tf.string, "history_items"),
        ]
    )
    def search(self, query, user_age, history_items):
        joined = tf.strings.join([query, user_age, tf.strings.reduce_join(history_items, axis=1, separator=",")], separator="|")
        rows = tf.shape(query)[0]
        mark = tf.fill([rows], tf.constant(f"mark {self._mark}"))
        ids = tf.stack([joined, mark, tf.fill([rows], "")], axis=1)
        scores = tf.fill([rows, 3], tf.constant(self._mark + 0.2, tf.float32))
        return {"ids": ids, "scores": scores, "num_results": tf.fill([rows], 2)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def half(self, x):
        return {"y": x / 2.0}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def inverse(self, x):
        return {"y": 1.0 / x}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "x")])
    def total(self, x):
        return {"sum": tf.reduce_sum(x), "largest": tf.reduce_max(x)}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int32, "small"),
            tf.TensorSpec([None], tf.int64, "large"),
            tf.TensorSpec([None], tf.bool, "flag"),
            tf.TensorSpec([None], tf.float64, "fine"),
            tf.TensorSpec([None, 2], tf.float32, "pair"),
            tf.TensorSpec([None], tf.string, "blob"),
        ]
    )
    def echo(self, small, large, flag, fine, pair, blob):
        columns = {"small": small, "large": large, "flag": flag, "fine": fine, "pair": pair, "blob": blob, "blob_bytes": blob}
        return {f"out_{name}": tf.identity(value) for name, value in columns.items()}


def write_tiny(folder: Path, mark: int = 0) -> Path:
    """Writes the model into a version folder; `mark` comes back in every answer of `serving_default`."""
    model = _Tiny(mark)
    signatures = {name: getattr(model, name) for name in ("half", "inverse", "total", "echo")}
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.search, **signatures})
    return folder


def joined(query: str, age: str = "", history: list[str] | None = None) -> str:
    """The first id that `serving_default` gives."""
    return f"{query}|{age}|{','.join(history or [''])}"


@contextlib.contextmanager
def serving_tiny(folder: Path, max_body_bytes: int) -> Iterator[Server]:
    """A server on free ports with version 3 of the tiny servable, called "shop"."""
    write_tiny(folder / "shop" / "3", mark=3)
    with Server(folder / "shop", rest_port=0, grpc_port=0, max_body_bytes=max_body_bytes) as server:
        yield server
