"""A servable whose answers wait at a gate, for tests of what a server does meanwhile."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfebr.server.server import Server


class Gated(tf.Module):
    """Answers what it was asked, but not before the gate opens. A Python function: it runs because the server is in this process."""

    def __init__(self):
        super().__init__()
        self.gate, self.lock, self.asked = threading.Event(), threading.Lock(), []

    def pass_gate(self, numbers: np.ndarray) -> np.ndarray:
        with self.lock:
            self.asked += numbers.tolist()
        self.gate.wait(60)
        return numbers

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "x")])
    def wait(self, x):
        return {"y": tf.reshape(tf.numpy_function(self.pass_gate, [x], tf.int32), [-1])}


@contextlib.contextmanager
def gated(folder: Path, **settings) -> Iterator[tuple[Server, Gated]]:
    """A server of such a servable, called "slow", on free ports."""
    model = Gated()
    tf.saved_model.save(model, str(folder / "slow" / "1"), signatures={"serving_default": model.wait})
    with Server(folder / "slow", rest_port=0, grpc_port=0, **settings) as server:
        try:
            yield server, model
        finally:
            model.gate.set()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Looks until the condition holds; the limit is for what never comes, however slow the machine."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
