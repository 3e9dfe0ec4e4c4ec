"""The local server under load: versions swapped while eight clients ask, gRPC against the loaded model itself, and loading."""

import multiprocessing
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc, predict_pb2

from benchmarks.measure import shop, spread
from benchmarks.serving_latency import HELD_OUT, RECALL_TARGET, K, clustered, encoder_over, near_items
from benchmarks.serving_loading import loading
from tfebr import pipeline
from tfebr.client.client import Client
from tfebr.data.item_ids import ItemIds
from tfebr.index.recall import build
from tfebr.index.recipe import recipe_for
from tfebr.infrastructure.files import read_json
from tfebr.models.encoders import RawItemEncoder
from tfebr.models.run_folder import RunFolder
from tfebr.servable import manifest
from tfebr.servable.check import complete_inputs, load
from tfebr.servable.module import RetrievalServable
from tfebr.servable.tensors import to_proto
from tfebr.servable.version_folders import roll_back
from tfebr.servable.write import write
from tfebr.server.loaded import Model
from tfebr.server.server import Server

CLIENTS, NAME, ITEMS = 8, "shop", 20_000
PREDICT = "/tensorflow.serving.PredictionService/Predict"
BATCHES = (1, 16)
VERSIONS = (1, 2, 3, 4)


def run(quick: bool) -> dict[str, Any]:
    """Four versions over synthetic items, each with ids and vectors of its own; server and clients are different processes."""
    sizes = (ITEMS,) if quick else (ITEMS, 1_000_000)
    seconds = 10 if quick else 60
    with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
        data = shop(Path(scratch, "shop"), seed=1, quick=quick)
        print("training one epoch", flush=True)
        trained = pipeline.train(data.path, Path(scratch, "run"), "dpsr", {"training": {"epochs": 1}}, quiet=True)
        queries = pipeline.Evaluation.of(trained.data, trained.split_time, max_requests=200).queries
        print(f"exporting {len(VERSIONS)} versions of {ITEMS:,} items", flush=True)
        folders = [synthetic_version(trained, ITEMS, number, Path(scratch, "staged", str(number))) for number in VERSIONS]
        results: dict[str, Any] = {"swaps": swaps(folders, queries, Path(scratch, "servable", NAME), seconds)}
        results["throughput"] = throughput(folders[0], queries, rounds=3 if quick else 7, seconds=1.5 if quick else 4.0)
        results["loading"] = {}
        for items in sizes:
            folder = folders[0] if items == ITEMS else synthetic_version(trained, items, 1, Path(scratch, "large"))
            results["loading"][str(items)] = in_process(loading, folder, queries[0])
    config = {"items": ITEMS, "k": K, "heads": trained.config.heads, "clients": CLIENTS, "recall_target": RECALL_TARGET, "seconds": seconds}
    return {"config": config, **results}


def synthetic_version(trained: RunFolder, items: int, number: int, base: Path) -> Path:
    """Exports the run's query tower over synthetic items whose ids begin with the version, `v2-...`; returns the version folder."""
    random = np.random.default_rng(number)
    vectors = clustered(items, trained.config.dim, random)
    held_out = near_items(vectors, trained.config.heads, random)[:HELD_OUT]
    index, report = build(vectors, held_out, K, RECALL_TARGET, recipe_for(items, K), quiet=True)
    item_ids = ItemIds(np.array([f"v{number}-{item:07d}" for item in range(items)], object))
    model = trained.trained_model()
    servable = RetrievalServable(
        encoder_over(trained, model, item_ids, random), RawItemEncoder(model, trained.featurizer, item_ids), index, item_ids, K
    )
    return write(servable, base / NAME, {"model": NAME}, [{"query": ["led bulb"]}], report)


def swaps(folders: list[Path], queries: list[str], base: Path, seconds: float) -> dict[str, Any]:
    """Publishes the second to fourth version under load and rolls back the fourth; every answer is compared with its version's own.

    The versions were written before: to publish one is the rename that ends an export. A client never repeats a failed request.
    """
    base.mkdir(parents=True)
    shutil.copytree(folders[0], base / "1")
    stop, events = threading.Event(), []
    with serving(base) as (rest, target), ThreadPoolExecutor(CLIENTS) as clients:
        addresses = [(rest, "rest") if number % 2 else (target, "grpc") for number in range(CLIENTS)]
        ask = [clients.submit(_ask, *address, queries, number, stop) for number, address in enumerate(addresses)]
        started = time.perf_counter()
        try:
            for place, number in enumerate((2, 3, 4, 3)):
                _wait_until(started + seconds * (place + 1) / 5.5)
                began = time.perf_counter()
                if place == 3:
                    roll_back(base)
                else:
                    hidden = base / f".{number}.partial"
                    shutil.copytree(folders[number - 1], hidden)
                    hidden.rename(base / str(number))
                _wait_for(target, number)
                events.append({"to": number, "after_seconds": round(time.perf_counter() - began, 2)})
                print(f"version {number} answers", flush=True)
            _wait_until(started + seconds)
        finally:
            stop.set()
        answers = [answer for asked in ask for answer in asked.result()]
        lasted = time.perf_counter() - started
    failed = [answer["error"] for answer in answers if "error" in answer]
    good = [answer for answer in answers if "error" not in answer]
    mixed = sum(len(answer["versions"]) != 1 for answer in good)
    times = [answer["ms"] for answer in good]
    found = {
        "target": "zero failed requests, every answer of exactly one version",
        "seconds": round(lasted, 1),
        "requests": len(answers),
        "failed": len(failed),
        "first_failures": failed[:3],
        "answers_of_several_versions": mixed,
        "answers_unlike_the_version_alone": _unlike(folders, queries, good),
        "by_version": {str(n): sum(answer["versions"] == {n} for answer in good) for n in VERSIONS},
        "swaps": events,
        "latency_ms": {name: round(float(np.percentile(times, q)), 2) for name, q in (("p50", 50), ("p99", 99), ("max", 100))},
    }
    print(f"{len(answers):,} requests, {len(failed)} failed, {mixed} of several versions", flush=True)
    return found


def _ask(address: str, protocol: str, queries: list[str], seed: int, stop: threading.Event) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    answers: list[dict[str, Any]] = []
    with Client(address, NAME, protocol, timeout=30, retries=0) as client:
        while not stop.is_set():
            number, start = int(random.integers(len(queries))), time.perf_counter()
            try:
                (result,) = client.query(queries[number])
            except Exception as error:
                answers.append({"error": f"{type(error).__name__}: {error}"})
                continue
            milliseconds = 1000 * (time.perf_counter() - start)
            versions = {int(item_id[1 : item_id.index("-")]) for item_id in result.ids}
            answers.append({"query": number, "versions": versions, "ids": hash(tuple(result.ids)), "ms": milliseconds, "first": result.ids})
            # The ids themselves once: a minute's answers would fill the memory.
            if len(answers) > len(queries):
                answers[-1].pop("first")
    return answers


def _unlike(folders: list[Path], queries: list[str], answers: list[dict[str, Any]]) -> int:
    """How many answers differ from what the model of their version says when asked alone, in more than the order of equal scores."""
    unlike = 0
    for number in VERSIONS:
        model = Model(folders[number - 1], number)
        specs = model.inputs("")
        alone: dict[int, list[str]] = {}
        for answer in answers:
            if answer["versions"] != {number}:
                continue
            query = answer["query"]
            if query not in alone:
                inputs = {name: value.numpy() for name, value in complete_inputs(specs, {"query": [queries[query]]}).items()}
                alone[query] = [item_id.decode() for item_id in model.run("", inputs)["ids"][0]]
            same = hash(tuple(alone[query])) == answer["ids"]
            unlike += not (same or ("first" in answer and set(answer["first"]) == set(alone[query])))
    return unlike


def throughput(folder: Path, queries: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    """Requests a second of eight gRPC clients and of eight threads that call the loaded model, in turns."""
    found: dict[str, Any] = {"target": "gRPC at least 0.7 of calling the loaded model in the process"}
    with serving(folder) as (_, target), worker(_in_process_calls, folder, queries) as measure:
        for batch in BATCHES:
            requests = [_request(inputs) for inputs in _inputs(folder, queries, batch)]
            over_grpc, in_process_, shares = [], [], []
            for number in range(rounds + 1):
                measured = (_over_grpc(target, requests, seconds), measure((batch, seconds)))
                # The first round warms up.
                if number:
                    over_grpc.append(measured[0])
                    in_process_.append(measured[1])
                    shares.append(measured[0] / measured[1])
            found[f"batch_{batch}"] = {
                "grpc_requests_per_second": spread(over_grpc, 1),
                "in_process_requests_per_second": spread(in_process_, 1),
                "share": spread(shares),
            }
            print(f"batch {batch}: gRPC at {np.median(shares):.2f} of calling the model in the process", flush=True)
    return found


def _over_grpc(target: str, requests: list[predict_pb2.PredictRequest], seconds: float) -> float:
    """Messages are sent as recorded and not parsed: what makes the load takes its share of the same cores."""
    # A channel for each client: they would share one connection otherwise.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    channels = [grpc.insecure_channel(target, options) for _ in range(CLIENTS)]
    recorded = [request.SerializeToString() for request in requests]
    try:
        return _rate([_asker(channel.unary_unary(PREDICT), recorded) for channel in channels], seconds)
    finally:
        for channel in channels:
            channel.close()


def _asker(predict: Callable[[bytes], bytes], requests: list[bytes]) -> Callable[[int], bytes]:
    return lambda number: predict(requests[number % len(requests)])


def _in_process_calls(folder: Path, queries: list[str]) -> Callable[[tuple[int, float]], float]:
    find = load(folder).signatures["serving_default"]
    inputs = {batch: [{n: tf.constant(v) for n, v in given.items()} for given in _inputs(folder, queries, batch)] for batch in BATCHES}

    def measure(asked: tuple[int, float]) -> float:
        batch, seconds = asked
        given = inputs[batch]
        return _rate([lambda number: {n: v.numpy() for n, v in find(**given[number % len(given)]).items()}] * CLIENTS, seconds)

    return measure


def _rate(calls: list[Callable[[int], Any]], seconds: float) -> float:
    """Calls a second of all threads together, each with one of `calls`."""
    end = time.perf_counter() + seconds

    def loop(call: Callable[[int], Any]) -> int:
        number = 0
        while time.perf_counter() < end:
            call(number)
            number += 1
        return number

    start = time.perf_counter()
    with ThreadPoolExecutor(len(calls)) as threads:
        done = sum(threads.map(loop, calls))
    return done / (time.perf_counter() - start)


def _inputs(folder: Path, queries: list[str], batch: int) -> list[dict[str, np.ndarray]]:
    """Fifty batches of text queries, with all inputs of `serving_default`."""
    about = read_json(folder / manifest.MANIFEST)["signatures"]["serving_default"]["inputs"]
    specs = {name: tf.TensorSpec([None if n < 0 else n for n in spec["shape"]], spec["dtype"]) for name, spec in about.items()}
    texts = [[queries[(start * batch + place) % len(queries)] for place in range(batch)] for start in range(50)]
    return [{name: value.numpy() for name, value in complete_inputs(specs, {"query": text}).items()} for text in texts]


def _request(inputs: dict[str, np.ndarray]) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = NAME
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(to_proto(value))
    return request


@contextmanager
def serving(base: Path) -> Iterator[tuple[str, str]]:
    """Addresses of a server in a process of its own, REST and gRPC."""
    with worker(_start_server, base) as ask:
        yield ask(None)


def _start_server(base: Path) -> Callable[[None], tuple[str, str]]:
    server = Server(base, name=NAME, rest_port=0, grpc_port=0, poll_seconds=0.5)
    return lambda _: (server.rest_url, server.grpc_target)


def in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


@contextmanager
def worker(make: Callable[..., Callable[[Any], Any]], *arguments: Any) -> Iterator[Callable[[Any], Any]]:
    """Calls of what `make` returns, in one process that lives as long as the context."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, make, arguments), daemon=True)
    process.start()
    there.close()

    def call(asked: Any) -> Any:
        here.send(asked)
        return here.recv()

    try:
        yield call
    finally:
        here.close()
        process.join(timeout=30)
        if process.is_alive():
            process.kill()


def _work(pipe: Any, make: Callable[..., Callable[[Any], Any]], arguments: tuple) -> None:
    answer = make(*arguments)
    while True:
        try:
            pipe.send(answer(pipe.recv()))
        except EOFError:
            return


def _wait_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.perf_counter()))


def _wait_for(target: str, version: int) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = NAME
    with grpc.insecure_channel(target) as channel:
        status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
        while True:
            states = {state.version: state.state for state in status(request, timeout=30).model_version_status}
            if states.get(version) == get_model_status_pb2.ModelVersionStatus.AVAILABLE:
                return
            time.sleep(0.05)
