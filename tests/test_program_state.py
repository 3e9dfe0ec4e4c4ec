"""A library leaves the program's own state alone. That of models is checked with each model, by the harness."""

import shutil

import pytest
from program_state import unchanged

from tfebr import pipeline
from tfebr.data.batches import training_batches


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_batches(tiny_run, seed):
    with unchanged(seed):
        next(iter(training_batches(tiny_run.shards("train"), tiny_run.featurizer, 64, seed=3, epochs=1)))


def test_training_evaluating_and_exporting(tiny_run, tiny_config, tmp_path):
    shutil.copytree(tiny_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    with unchanged(7):
        run = pipeline.train(tiny_run.data.path, tmp_path / "run", "dpsr", tiny_config, quiet=True)
        pipeline.evaluate([run.path], max_requests=50)
        pipeline.export(run.path, heldout_queries=20, quiet=True)
