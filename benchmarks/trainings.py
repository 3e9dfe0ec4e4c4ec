"""Many trainings in simulated shops, kept one by one in a journal, so that a killed benchmark goes on where it stopped."""

import dataclasses
import itertools
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfebr import pipeline
from tfebr.data.log import split_time
from tfebr.data.simulator import SimulatorConfig, simulate
from tfebr.evaluation.significance import paired_test
from tfebr.models.config import from_dict
from tfebr.models.zoo import model_class


@dataclasses.dataclass(frozen=True)
class Training:
    """One model to train in one shop.

    Attributes:
        shop: what is simulated.
        name: of the row in a table.
        model: its name in the zoo.
        settings: fields of its config that differ from the defaults.
    """

    shop: SimulatorConfig
    name: str
    model: str
    settings: dict[str, Any]

    @property
    def key(self) -> str:
        """The same for the same shop, model and settings, whatever the name."""
        config: Any = from_dict(model_class(self.model).Config, self.settings, self.model)
        return json.dumps([dataclasses.asdict(self.shop), self.model, dataclasses.asdict(config)], sort_keys=True)


class Journal:
    """Figures of finished trainings as JSON lines, each on disk as soon as it is known."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.read_bytes() if path.exists() else b""
        whole = written[: written.rfind(b"\n") + 1]
        if whole != written:
            # The run was killed while it wrote the last line.
            os.truncate(path, len(whole))
        self.found: dict[str, dict[str, Any]] = {line["key"]: line for line in map(json.loads, whole.splitlines())}

    @classmethod
    def of(cls, benchmark: str, resume: Path | None) -> "Journal":
        """In the folder to go on with, or in a new one."""
        folder = resume or Path(tempfile.mkdtemp(prefix=f"tfebr-{benchmark}-"))
        return cls(folder / f"{benchmark}.jsonl")

    def add(self, training: Training, seconds: float, values: dict[str, np.ndarray]) -> None:
        """Writes one training's values `[requests]` of each metric."""
        lists = {metric: [None if np.isnan(v) else round(float(v), 6) for v in array] for metric, array in values.items()}
        line = {"key": training.key, "shop": training.shop.seed, "name": training.name, "seconds": round(seconds, 1), "values": lists}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.found[training.key] = line

    def values(self, trainings: Sequence[Training], metric: str) -> np.ndarray:
        """float [requests], of all the trainings' shops one after the other; NaN where the metric is not defined."""
        return np.array([value for t in trainings for value in self.found[t.key]["values"][metric]], np.float64)

    def mean(self, trainings: Sequence[Training], metric: str) -> float:
        """Over the requests where the metric is defined."""
        return round(float(np.nanmean(self.values(trainings, metric))), 4)

    def interval(self, trainings: Sequence[Training], metric: str) -> dict[str, Any]:
        """The mean with its bootstrap interval, which the paired test gives against a system that always scores 0."""
        values = self.values(trainings, metric)
        found = paired_test(values, np.zeros_like(values))
        return {"mean": round(found.difference, 4), "interval_95": [round(found.low, 4), round(found.high, 4)], "requests": found.n}

    def compared(self, a: Sequence[Training], b: Sequence[Training], metric: str) -> dict[str, Any]:
        """System a against system b, in the same shops, paired by request."""
        pair = paired_test(self.values(a, metric), self.values(b, metric))
        by_seed = [np.nanmean(self.values([x], metric) - self.values([y], metric)) for x, y in zip(a, b, strict=True)]
        return {
            "difference": round(pair.difference, 5),
            "interval_95": [round(pair.low, 5), round(pair.high, 5)],
            "p": round(pair.p_value, 5),
            "requests": pair.n,
            "difference_by_seed": [round(float(difference), 4) for difference in by_seed],
        }


def train_all(plan: Sequence[Training], journal: Journal, metrics: Sequence[str], said: Sequence[str]) -> list[float]:
    """Trains what the journal does not hold yet, shop by shop, and returns the seconds of each training of the plan.

    Args:
        metrics: what the journal keeps of every training's report.
        said: metrics whose means are printed.
    """
    distinct = {training.key: training for training in plan}
    left = [training for key, training in distinct.items() if key not in journal.found]
    folder = journal.path.parent
    print(f"{len(distinct)} trainings, {len(left)} to do, kept in {folder}: after a kill, --resume {folder}", flush=True)
    seconds = [journal.found[key]["seconds"] for key in distinct if key in journal.found]
    for shop, trainings in itertools.groupby(sorted(left, key=lambda t: json.dumps(dataclasses.asdict(t.shop))), lambda t: t.shop):
        with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
            data = simulate(shop, Path(scratch, "shop"), quiet=True)
            evaluation = pipeline.Evaluation.of(data, split_time(data.log(), pipeline.TEST_SHARE))
            for training in trainings:
                began = time.perf_counter()
                values = _measured(training, evaluation, metrics)
                seconds.append(time.perf_counter() - began)
                journal.add(training, seconds[-1], values)
                means = ", ".join(f"{metric} {np.nanmean(values[metric]):.4f}" for metric in said)
                minutes = float(np.median(seconds)) * (len(distinct) - len(seconds)) / 60
                done = f"[{len(seconds)}/{len(distinct)}] shop {shop.seed}, {training.name}: {means}"
                print(f"{done}; {seconds[-1]:.0f} s, {minutes:.0f} min left", flush=True)
    return [journal.found[key]["seconds"] for key in distinct]


def _measured(training: Training, evaluation: pipeline.Evaluation, metrics: Sequence[str]) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
        trained = pipeline.train(evaluation.data.path, Path(scratch, "run"), training.model, training.settings, quiet=True)
        _, report = pipeline.measure_model(trained, evaluation)
    # Keras keeps every model's graph, which is a lot of memory after thirty models.
    tf.keras.backend.clear_session()
    return {metric: report.values(metric) for metric in metrics}
