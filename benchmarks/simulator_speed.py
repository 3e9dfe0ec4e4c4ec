"""Requests a second that the shop simulator writes, log and catalogue included, at preset small."""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import about_shop, shop, shop_config, spread


def run(quick: bool) -> dict[str, Any]:
    """Simulates five shops with five seeds, each timed as a whole."""
    speeds, requests = [], shop_config(quick).requests
    for seed in range(5):
        with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
            start = time.perf_counter()
            shop(Path(scratch, "shop"), seed, quick)
            speeds.append(requests / (time.perf_counter() - start))
        print(f"seed {seed}: {speeds[-1]:,.0f} requests a second", flush=True)
    return {
        "config": {"shop": about_shop(quick), "seeds": list(range(5))},
        "requests_per_second": {"target": ">= 20,000", **spread(speeds, 0)},
    }
