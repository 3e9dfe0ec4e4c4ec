"""What every benchmark shares: spread of repeated measurements, the machine they ran on, and a simulated shop to run on."""

import dataclasses
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfebr._stack import versions
from tfebr.data.dataset import DataFolder
from tfebr.data.simulator import PRESETS, SimulatorConfig, simulate


def spread(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """Median, lowest, highest and every single value, rounded to `digits` decimals."""
    rounded = [round(float(v), digits) for v in values]
    return {"median": round(float(np.median(values)), digits), "min": min(rounded), "max": max(rounded), "values": rounded}


def machine() -> dict[str, Any]:
    """Cores that this process may use, the kind of machine, and the versions that timings depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores,
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions(),
    }


def shop_config(quick: bool) -> SimulatorConfig:
    """Preset small; when `quick`, the smallest shop with a few orders in every band."""
    return SimulatorConfig(items=2_000, requests=15_000, users=1_500) if quick else PRESETS["small"]


def shop(folder: Path, seed: int, quick: bool) -> DataFolder:
    """A simulated shop in a new folder."""
    return simulate(dataclasses.replace(shop_config(quick), seed=seed), folder, quiet=True)


def about_shop(quick: bool) -> dict[str, Any]:
    """What `shop` simulates, for the record."""
    config = shop_config(quick)
    return {"preset": None if quick else "small", "items": config.items, "requests": config.requests, "users": config.users}
