"""One modest shop, simulated once for the module's tests, and its log as flat arrays."""

import dataclasses

import numpy as np
import pytest

from tfebr.data.catalogue import Catalogue
from tfebr.data.dataset import DataFolder
from tfebr.data.log import shown_items
from tfebr.data.simulator import Oracle, SimulatorConfig, simulate


@dataclasses.dataclass(frozen=True)
class FlatLog:
    """Requests ([requests] arrays) and shown items ([shown] arrays; `request` points into the former)."""

    query: np.ndarray
    user: np.ndarray
    time: np.ndarray
    request: np.ndarray
    item: np.ndarray
    stage: np.ndarray
    position: np.ndarray


def flatten(folder: DataFolder, catalogue: Catalogue) -> FlatLog:
    columns: dict[str, list] = {name: [] for name in ("query", "user_id", "time")}
    shown: list[tuple] = []
    first = 0
    for batch in folder.log().batches():
        for name, values in columns.items():
            values += batch[name].to_pylist()
        rows, ids, stages, positions = shown_items(batch)
        shown.append((rows + first, catalogue.rows_of(ids), stages, positions))
        first += batch.num_rows
    return FlatLog(*(np.array(values) for values in columns.values()), *(np.concatenate(parts) for parts in zip(*shown, strict=True)))


@dataclasses.dataclass(frozen=True)
class Simulated:
    folder: DataFolder
    catalogue: Catalogue
    oracle: Oracle
    log: FlatLog


def _read(folder: DataFolder) -> Simulated:
    catalogue = folder.catalogue()
    return Simulated(folder, catalogue, Oracle.read(folder.path / "oracle"), flatten(folder, catalogue))


@pytest.fixture(scope="session")
def modest() -> SimulatorConfig:
    return SimulatorConfig(items=6_000, requests=30_000, users=2_500, days=20, seed=3)


@pytest.fixture(scope="session")
def run_shop(tmp_path_factory):
    """Simulates a config into a folder of its own and reads it back."""
    return lambda config: _read(simulate(config, tmp_path_factory.mktemp("shop") / "data", quiet=True))


@pytest.fixture(scope="session")
def shop(run_shop, modest) -> Simulated:
    return run_shop(modest)
