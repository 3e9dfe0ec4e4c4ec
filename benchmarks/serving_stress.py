"""The local server under stress: eight clients of which a third leave early, forks, versions that come and go, and bad requests."""

import contextlib
import multiprocessing
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.pool import AsyncResult
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from benchmarks.serving_latency import clustered
from benchmarks.stress_clients import ECHO, HEAVY_K, HEAVY_ROWS, NAME, TOLERANCE, Expected, clients, echo, watch
from tfebr.data.item_ids import ItemIds
from tfebr.index.exact import ExactIndex
from tfebr.servable.check import complete_inputs
from tfebr.servable.manifest import MANIFEST
from tfebr.servable.module import RetrievalServable
from tfebr.servable.version_folders import prune, restore, roll_back
from tfebr.servable.write import write
from tfebr.server.loaded import Model

ITEMS, DIM, K = 20_000, 64, 100
VERSIONS = (1, 2, 3)
QUERIES = [f"{colour} {thing} {size}" for colour in ("red", "blue", "") for thing in ("lamp", "shoes", "led bulb", "靴") for size in (1, 2)]
# By protocol: clients that compare their answers, and clients that leave before theirs comes.
CLIENTS = {"rest": (3, 2), "grpc": (2, 1)}
HEALTH_TARGET_MS = 100.0


class _Queries(tf.Module):
    """Two heads: the sum of the vectors of a text's words, and of its pairs of letters. No training, and no two queries alike."""

    input_signature: ClassVar = {"query": tf.TensorSpec([None], tf.string)}

    def __init__(self, seed: int):
        super().__init__()
        self._table = tf.Variable(np.random.default_rng(seed).normal(size=(4096, DIM)).astype(np.float32), trainable=False)

    def __call__(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        query = inputs["query"]
        letters = tf.strings.unicode_split(query, "UTF-8")
        pairs = tf.strings.reduce_join(tf.stack([letters[:, :-1].flat_values, letters[:, 1:].flat_values]), axis=0)
        parts = tf.strings.split(query), letters[:, 1:].with_flat_values(pairs)
        heads = [tf.reduce_sum(tf.gather(self._table, tf.strings.to_hash_bucket_fast(part, 4096)), axis=1) for part in parts]
        return tf.stack([tf.math.l2_normalize(head, axis=1) for head in heads], axis=1)


class _Items(tf.Module):
    input_signature: ClassVar = {"title": tf.TensorSpec([None], tf.string)}

    def __init__(self, queries: _Queries):
        super().__init__()
        self._queries = queries

    def __call__(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return self._queries({"query": inputs["title"]})[:, 0]


def run(quick: bool) -> dict[str, Any]:
    """Three versions over items of their own are published, replaced, rolled back and restored, and a damaged one appears among them."""
    seconds = 12.0 if quick else 60.0
    with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
        print(f"writing {len(VERSIONS)} versions of {ITEMS:,} items", flush=True)
        folders = {number: _version(number, Path(scratch, "staged", str(number))) for number in VERSIONS}
        expected = _alone(folders)
        found = _stress(folders, expected, Path(scratch, "servable", NAME), seconds)
    config = {"items": ITEMS, "dim": DIM, "k": K, "heavy_rows": HEAVY_ROWS, "heavy_k": HEAVY_K, "tolerance": TOLERANCE, "seconds": seconds}
    return {"config": {**config, "clients": {name: sum(count) for name, count in CLIENTS.items()}}, **found}


def _version(number: int, base: Path) -> Path:
    vectors = clustered(ITEMS, DIM, np.random.default_rng(number))
    ids = ItemIds(np.array([f"v{number}-{item:06d}" for item in range(ITEMS)], object))
    queries = _Queries(number)
    servable = RetrievalServable(queries, _Items(queries), ExactIndex(vectors), ids, K)
    return write(servable, base / NAME, {"model": "stress"}, [{"query": QUERIES[:2]}])


def _alone(folders: dict[int, Path]) -> Expected:
    """What each version answers to each query when nobody else asks."""
    expected: Expected = {text: {} for text in QUERIES}
    for number, folder in folders.items():
        model = Model(folder, number)
        for text in QUERIES:
            inputs = {name: value.numpy() for name, value in complete_inputs(model.inputs(""), {"query": [text]}).items()}
            answer = model.run("", inputs)
            expected[text][number] = [item.decode() for item in answer["ids"][0]], answer["scores"][0].tolist()
    return expected


def _stress(folders: dict[int, Path], expected: Expected, base: Path, seconds: float) -> dict[str, Any]:
    base.mkdir(parents=True)
    shutil.copytree(folders[1], base / "1")
    context = multiprocessing.get_context("spawn")
    with _serving(base) as (rest, target), context.Manager() as manager, context.Pool(len(CLIENTS) + 2) as pool:
        stop = manager.Event()
        asked = {
            protocol: pool.apply_async(clients, (protocol, rest, target, asking, leaving, expected, stop))
            for protocol, (asking, leaving) in CLIENTS.items()
        }
        port = manager.Value("i", 0)
        echoing = pool.apply_async(echo, (port, stop))
        while not port.value and not echoing.ready():
            time.sleep(0.05)
        health = pool.apply_async(watch, (rest, target, port.value, stop))
        try:
            events = _come_and_go(folders, base, seconds, [*asked.values(), health])
        finally:
            stop.set()
        tallies = {protocol: result.get(timeout=120) for protocol, result in asked.items()}
        times = health.get(timeout=120)
    counts: dict[str, int] = {}
    for tally in tallies.values():
        for what, count in tally["counts"].items():
            counts[what] = counts.get(what, 0) + count
    latency = {name: _spread(values) for name, values in times.items()}
    slowest = max(values["max"] for name, values in latency.items() if name != ECHO)
    found = {
        "target": f"no wrong answer, no failed fork, every bad request refused as one, health below {HEALTH_TARGET_MS:g} ms throughout",
        "answers_right": counts.get("right", 0),
        "answers_wrong": counts.get("wrong", 0),
        "requests_failed": counts.get("failed", 0),
        "requests_left_early": counts.get("left_early", 0),
        "bad_requests_refused": counts.get("bad_refused", 0),
        "bad_requests_not_refused": counts.get("bad_accepted", 0) + counts.get("bad_failed", 0),
        "forks": counts.get("forks", 0),
        "forks_failed": counts.get("forks_failed", 0),
        "version_changes": len(events),
        "health_ms": latency,
        "health_max_ms": slowest,
        "health_in_time": slowest < HEALTH_TARGET_MS,
        "examples_of_faults": [example for tally in tallies.values() for example in tally["examples"]],
    }
    print(f"{found['answers_right']:,} right, {found['answers_wrong']} wrong, health at most {slowest:.0f} ms", flush=True)
    return found


def _come_and_go(folders: dict[int, Path], base: Path, seconds: float, running: list[AsyncResult]) -> list[str]:
    """What happens to the folder while clients ask; ends early, with the error, when one of the processes does."""
    steps = [
        ("publish 2", lambda: _publish(folders[2], base / "2")),
        ("a damaged version", lambda: _publish(folders[3], base / "7", damaged=True)),
        ("publish 3 beside it", lambda: (shutil.rmtree(base / "7"), _publish(folders[3], base / "3"))),
        ("roll back", lambda: roll_back(base)),
        ("restore", lambda: restore(base)),
        ("the folder goes and comes back", lambda: _away(base)),
        ("prune", lambda: prune(base, 1)),
    ]
    start = time.perf_counter()
    for place, (name, act) in enumerate(steps, 1):
        while time.perf_counter() < start + seconds * place / (len(steps) + 1):
            for result in running:
                if result.ready():
                    result.get()
            time.sleep(0.1)
        act()
        print(f"{time.perf_counter() - start:5.1f} s  {name}", flush=True)
    time.sleep(max(0.0, start + seconds - time.perf_counter()))
    return [name for name, _ in steps]


def _publish(source: Path, target: Path, damaged: bool = False) -> None:
    hidden = target.parent / f".{target.name}.incoming"
    shutil.copytree(source, hidden)
    if damaged:
        (hidden / MANIFEST).write_text("[1, 2, 3]")
    hidden.rename(target)


def _away(base: Path) -> None:
    base.rename(base.with_name("away"))
    time.sleep(2.0)
    base.with_name("away").rename(base)


@contextlib.contextmanager
def _serving(base: Path) -> Iterator[tuple[str, str]]:
    """REST and gRPC addresses of `tfebr serve`."""
    command = [sys.executable, "-m", "tfebr.cli", "serve", str(base), "--rest-port", "0", "--grpc-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        rest, target = re.search(r"http://[\d.:]+", said), re.search(r"gRPC ([\d.:]+)", said)
        if rest is None or target is None:
            raise RuntimeError(f"the server did not start: {said}")
        try:
            yield rest[0], target[1]
        finally:
            process.terminate()


def _spread(values: list[float]) -> dict[str, float]:
    return {"looks": len(values)} | {
        name: round(float(np.percentile(values, q)), 2) for name, q in (("p50", 50), ("p99", 99), ("max", 100))
    }
