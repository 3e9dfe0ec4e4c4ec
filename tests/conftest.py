"""What all tests share: one thread a worker, hypothesis without a folder of its own, one tiny shop and one tiny trained run."""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

# ruff: noqa: E402
# Before TensorFlow and NumPy are loaded, and for the processes that tests start: every core has a worker of its own already, and threads
# that wait for one another take time of it. Set otherwise, a variable is left alone.
for _variable in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "ONEDNN_MAX_CPU_ISA" in os.environ:
    # An older processor is imitated: TensorFlow asks the real one whether oneDNN multiplies bfloat16, and would crash where it then can't.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import pytest
from hypothesis import configuration, settings

import tfebr  # noqa: F401  selects Keras 2 before a test touches `tf.keras`

if TYPE_CHECKING:
    from tfebr.data.dataset import DataFolder
    from tfebr.models.run_folder import RunFolder

pytest.register_assert_rewrite("harness")
logging.getLogger("tensorflow").setLevel(logging.ERROR)
settings.register_profile("tfebr", database=None, deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tfebr")

# Everything that a test of the path needs, and not more: a run of it takes seconds.
TINY = {
    "dim": 16,
    "heads": 2,
    "query_hidden": [16],
    "item_hidden": [16],
    "training": {"epochs": 2, "batch_size": 64},
}


def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis keeps Unicode tables on disk even without a database: outside the repository, and not for longer than the tests."""
    folder = tempfile.mkdtemp(prefix="tfebr-hypothesis-")
    configuration.set_hypothesis_home_dir(folder)
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_finish() -> None:
    """TensorFlow's modules and the graphs that tests trace are millions of objects: to look through them often is a tenth of the time."""
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """A file's tests stay on one worker, so that what they share is made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`made_once(name, make)`: a folder of this name that `make(folder)` writes for the first worker that asks; all workers read it."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"
    root.mkdir(exist_ok=True)

    def of(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                done.touch()
        return folder

    return of


@pytest.fixture(scope="session")
def tiny_shop(made_once) -> DataFolder:
    """The simulated shop of preset tiny: 500 items, 3,000 requests, 300 users."""
    # What needs TensorFlow is imported where it is used: xdist's controller, which runs no test, reads this file too.
    from tfebr.data.dataset import DataFolder
    from tfebr.data.simulator import PRESETS, simulate

    return DataFolder(made_once("tiny-shop", lambda folder: simulate(PRESETS["tiny"], folder, quiet=True)))


@pytest.fixture(scope="session")
def tiny_config() -> dict:
    """A small DPSR as plain values."""
    return TINY


@pytest.fixture(scope="session")
def tiny_run(tiny_shop, made_once) -> RunFolder:
    """A small DPSR trained on the tiny shop. Tests read it; one that writes into it works on a copy."""
    from tfebr import pipeline
    from tfebr.models.run_folder import RunFolder

    return RunFolder(made_once("tiny-run", lambda folder: pipeline.train(tiny_shop.path, folder, "dpsr", TINY, quiet=True)))


@pytest.fixture(scope="session")
def judged_data(tiny_shop, made_once) -> DataFolder:
    """A judged set without users: queries are words of titles, items that hold both words are good, those that hold one are fair."""
    from tfebr.data.dataset import DataFolder

    return DataFolder(made_once("judged-data", lambda folder: _write_judged(tiny_shop, folder)))


def _write_judged(tiny_shop: DataFolder, folder: Path) -> None:
    import pyarrow as pa

    from tfebr.data.judgments import QRELS, QUERIES, Judgments

    catalogue = tiny_shop.catalogue()
    catalogue.write(folder / "catalogue.parquet")
    tokens = [set(title.lower().split()) for title in catalogue.titles]
    queries, qrels = [], []
    for number in range(150):
        words = sorted(tokens[3 * number])[:2]
        name = f"q{number}"
        queries.append((name, " ".join(words), "train" if number % 3 else "test"))
        for item_id, title in zip(catalogue.item_ids, tokens, strict=True):
            shared = len(title & set(words))
            if shared:
                qrels.append((name, item_id, float(shared)))
    columns = [[q[i] for q in queries] for i in range(3)], [[q[i] for q in qrels] for i in range(3)]
    Judgments(pa.table(columns[0], schema=QUERIES), pa.table(columns[1], schema=QRELS), 2.0).write(folder / "judgments")
