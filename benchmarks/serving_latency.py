"""Latency of the exported folder, from a query's text to item ids, and the memory that loading it takes."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.measure import shop
from tfebr import pipeline
from tfebr.data.item_ids import ItemIds
from tfebr.data.names import input_names
from tfebr.index.recall import build
from tfebr.index.scann import ScannIndex
from tfebr.infrastructure.files import read_json, write_json
from tfebr.models.encoders import RawItemEncoder, RawQueryEncoder
from tfebr.models.run_folder import RunFolder
from tfebr.servable import manifest
from tfebr.servable.check import complete_inputs
from tfebr.servable.module import RetrievalServable
from tfebr.servable.write import write

K, RECALL_TARGET, HELD_OUT = 100, 0.98, 500
# Of the synthetic catalogue: items scatter around their cluster's centre, and the heads of a query around one item, by this share of the
# vectors' length.
CLUSTER_SPREAD, QUERY_SPREAD = 0.6, 0.3


def run(quick: bool) -> dict[str, Any]:
    """A shop's DPSR after one epoch, and the same query tower over synthetic items; each folder is measured in a fresh process."""
    synthetic = 100_000 if quick else 1_000_000
    with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
        data = shop(Path(scratch, "shop"), seed=1, quick=quick)
        print("training one epoch", flush=True)
        run = pipeline.train(data.path, Path(scratch, "run"), "dpsr", {"training": {"epochs": 1}}, quiet=True)
        questions = Path(scratch, "questions.json")
        write_json(questions, _questions(run, 200 if quick else 1000))
        small = pipeline.export(run.path, "shop", RECALL_TARGET, K, HELD_OUT, quiet=True)
        results = {"shop": _measured(small, questions, "p50 < 3 ms")}
        print(f"building an index of {synthetic:,} items", flush=True)
        large, results["overhead"] = _synthetic(run, synthetic, Path(scratch, "servable"), "scann", questions)
        results["synthetic"] = _measured(large, questions, "p50 < 5 ms")
        portable, _ = _synthetic(run, synthetic, Path(scratch, "portable"), "stock", questions)
        results["synthetic_portable"] = _measured(portable, questions, "p50 within 6 x of ScaNN's")
        heads = run.config.heads
    config = {"heads": heads, "dim": 64, "k": K, "batch": 1, "recall_target": RECALL_TARGET, "seed": 1, "requests": 200 if quick else 1000}
    config |= {"synthetic_cluster_spread": CLUSTER_SPREAD, "synthetic_query_spread": QUERY_SPREAD}
    return {"config": config, **results}


def _questions(run: RunFolder, count: int) -> dict[str, Any]:
    """Held-out queries; and a user with a full history, as the client would send it."""
    evaluation = pipeline.Evaluation.of(run.data, run.split_time, max_requests=count)
    item_ids = run.data.catalogue().item_ids
    users = run.data.users()
    named = input_names([f"user_{column}" for column in run.featurizer.user_columns])
    profile = {} if users is None else {name: users[full.removeprefix("user_")][0].as_py() for full, name in named.items()}
    return {
        "queries": evaluation.queries,
        "history_items": item_ids[: run.config.features.history_items].tolist(),
        "history_queries": evaluation.queries[: run.config.features.history_queries],
        "profile": profile,
    }


def _synthetic(run: RunFolder, items: int, base: Path, server: str, questions: Path) -> tuple[Path, dict[str, Any]]:
    random = np.random.default_rng(0)
    vectors = clustered(items, run.config.dim, random)
    queries = near_items(vectors, run.config.heads, random)
    index, report = build(vectors, queries, K, RECALL_TARGET, quiet=True, server=server)
    item_ids = ItemIds(np.array([f"i{i:07d}" for i in range(items)], object))
    model = run.trained_model()
    query_encoder = encoder_over(run, model, item_ids, random)
    servable = RetrievalServable(query_encoder, RawItemEncoder(model, run.featurizer, item_ids), index, item_ids, K)
    folder = write(servable, base, {"model": "synthetic items"}, [{"query": ["led bulb"]}], report)
    return folder, _overhead(servable, read_json(questions)["queries"])


def _overhead(servable: RetrievalServable, queries: list[str]) -> dict[str, Any]:
    """The whole, text to ids, against the tower and ScaNN's own search alone, one after the other for each query in this process."""
    index = servable.index
    if not isinstance(index, ScannIndex):
        return {}
    functions = servable.signature_functions()
    candidates = tf.function(lambda heads: index.candidates(heads, index.recipe.reorder))
    times: dict[str, list[float]] = {"tower": [], "scann": [], "whole": []}
    for number, query in enumerate(queries):
        inputs = complete_inputs(functions["embed_query"].structured_input_signature[1], {"query": [query]})
        heads = functions["embed_query"](**inputs)["embedding"]
        calls = {
            "tower": lambda inputs=inputs: functions["embed_query"](**inputs)["embedding"].numpy(),
            "scann": lambda heads=heads: candidates(heads).numpy(),
            "whole": lambda inputs=inputs: functions["serving_default"](**inputs)["ids"].numpy(),
        }
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            # The first ones trace and fill caches.
            if number >= 20:
                times[name].append(1000 * (time.perf_counter() - start))
    p50 = {name: float(np.median(values)) for name, values in times.items()}
    ratio = p50["whole"] / (p50["tower"] + p50["scann"])
    return {"target": "at most 1.3", "p50_ms": {n: round(v, 3) for n, v in p50.items()}, "whole_to_tower_and_scann": round(ratio, 2)}


def encoder_over(run: RunFolder, model: Any, item_ids: ItemIds, random: np.random.Generator) -> RawQueryEncoder:
    """The model's query encoder over other items; each has the categories of some item of the shop, so that histories are read as ever."""
    rows = tf.constant(np.concatenate([[0], random.integers(1, model.items + 1, len(item_ids))]))
    columns = {name: tf.gather(ids, rows) for name, ids in model.history_columns().items()}
    stand_in: Any = SimpleNamespace(query_tower=model.query_tower, history_columns=lambda: columns, reads_events=model.reads_events)
    return RawQueryEncoder(stand_in, run.featurizer, item_ids)


def clustered(items: int, dim: int, random: np.random.Generator) -> np.ndarray:
    """[items, dim] unit vectors around one centre for every 500 of them."""
    centres = _unit(random.standard_normal((max(10, items // 500), dim)))
    vectors = np.empty((items, dim), np.float32)
    for start in range(0, items, 100_000):
        size = min(100_000, items - start)
        noise = random.standard_normal((size, dim)) / np.sqrt(dim)
        vectors[start : start + size] = _unit(centres[random.integers(0, len(centres), size)] + CLUSTER_SPREAD * noise)
    return vectors


def near_items(vectors: np.ndarray, heads: int, random: np.random.Generator) -> np.ndarray:
    """[HELD_OUT, heads, dim] queries, the heads of each around one item."""
    near = vectors[random.choice(len(vectors), HELD_OUT, replace=False)]
    noise = random.standard_normal((HELD_OUT, heads, vectors.shape[1])) / np.sqrt(vectors.shape[1])
    return _unit(near[:, None] + QUERY_SPREAD * noise).astype(np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _measured(folder: Path, questions: Path, target: str) -> dict[str, Any]:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
    probe = _json_of([sys.executable, "-m", "benchmarks.serving_probe", str(folder), str(questions)])
    check = _json_of([sys.executable, "-m", "tfebr.servable.check", str(folder)])
    index = read_json(folder / manifest.MANIFEST)["index"]
    found = {
        "target": f"{target}, recall >= {RECALL_TARGET}, memory <= 1.4 x folder",
        "items": index["items"],
        "recipe": index["recipe"],
        f"recall@{K}": round(index["recall"], 4),
        "fallback": index["fallback"],
        "build_seconds": round(index["build_seconds"], 1),
        **probe["latency"],
        "load_seconds": probe["load_seconds"],
        "first_query_ms": probe["first_query_ms"],
        "folder_mb": round(size, 1),
        **{name: round(probe[name], 1) for name in ("op_libraries_mb", "resident_mb", "peak_mb")},
        "resident_relative_to_folder": round(probe["resident_mb"] / size, 2),
        "peak_relative_to_folder": round(probe["peak_mb"] / size, 2),
        "check_in_fresh_process": check,
    }
    p50 = found["text_query_ms"]["p50"]
    recall, peak = found[f"recall@{K}"], found["peak_relative_to_folder"]
    print(f"{index['items']:,} items: p50 {p50:.2f} ms, recall {recall:.3f}, peak {peak:.2f} x the folder", flush=True)
    return found


def _json_of(command: list[str]) -> dict[str, Any]:
    package = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command[1:3])} ended with code {ended.returncode}: {ended.stdout[-500:]} {ended.stderr[-2000:]}")
    return json.loads(ended.stdout.strip().splitlines()[-1])
