"""`python -m benchmarks.serving_probe FOLDER QUESTIONS` measures one exported folder in a process of its own and prints one JSON line."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfebr.servable.check import complete_inputs, load
from tfebr.servable.manifest import register_ops

_WARM_UP = 50


def main(folder: str, questions: str) -> None:
    """Memory of loading and the first query, then single queries: text alone, and with profile and a full history."""
    asked = json.loads(Path(questions).read_text(encoding="utf-8"))
    # What TensorFlow allocates for any model is not this model's. The libraries of its operations are code, which a server has linked in.
    tf.function(lambda x: tf.matmul(x, x))(tf.ones([64, 64]))
    without_libraries = _memory_mb("VmRSS")
    register_ops(folder)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _memory_mb("VmRSS"), time.perf_counter()
    found: dict[str, Any] = {"op_libraries_mb": round(before - without_libraries, 1)}
    model = load(folder)
    found["load_seconds"] = round(time.perf_counter() - start, 2)
    find = model.signatures["serving_default"]
    specs = find.structured_input_signature[1]
    text = [complete_inputs(specs, {"query": [query]}) for query in asked["queries"]]
    start = time.perf_counter()
    find(**text[0])["ids"].numpy()
    found["first_query_ms"] = round(1000 * (time.perf_counter() - start), 1)
    found |= {"resident_mb": _memory_mb("VmRSS") - before, "peak_mb": _memory_mb("VmHWM") - before}
    history = {name: [asked[name]] for name in ("history_items", "history_queries") if name in specs}
    profile = {name: [value] for name, value in asked["profile"].items() if name in specs}
    full = [complete_inputs(specs, {"query": [query], **history, **profile}) for query in asked["queries"]]
    found["latency"] = {"text_query_ms": _latency(find, text), "with_profile_and_history_ms": _latency(find, full)}
    print(json.dumps(found))


def _latency(find: Any, requests: list[dict[str, tf.Tensor]]) -> dict[str, float]:
    times = []
    for number, inputs in enumerate(requests[:_WARM_UP] + requests):
        start = time.perf_counter()
        find(**inputs)["ids"].numpy()
        if number >= _WARM_UP:
            times.append(1000 * (time.perf_counter() - start))
    return {name: round(float(np.percentile(times, q)), 3) for name, q in (("p50", 50), ("p90", 90), ("p99", 99))}


def _memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:3])
