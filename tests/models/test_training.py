"""Training: the same result from one seed, also after a SIGKILL in the middle; bad input and a full disk are one clear error."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tfebr import pipeline
from tfebr.data.log import split_time
from tfebr.errors import DataError, TfebrError
from tfebr.layers.lstm import LSTMStack
from tfebr.models import training
from tfebr.models.config import from_dict
from tfebr.models.mgdspr import MGDSPRConfig
from tfebr.models.run_folder import RunFolder, prepare_run
from tfebr.models.training import fit
from tfebr.models.zoo import model_class

# Many small steps, so that there is a middle to be killed in.
CONFIG = {"dim": 8, "heads": 2, "query_hidden": [8], "item_hidden": [8], "training": {"epochs": 2, "batch_size": 16}}
# Three checkpoints are written, one for each 20 steps; where the fourth would be, in the middle of an epoch, the process is gone.
KILLED = """
import os, signal, sys
import tfebr
from tfebr.models import training
from tfebr.models.run_folder import RunFolder

class Manager(training.tf.train.CheckpointManager):
    saved = 0

    def save(self):
        if Manager.saved == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        super().save()
        Manager.saved += 1

training.tf.train.CheckpointManager = Manager
training.fit(RunFolder(sys.argv[1]), quiet=True, checkpoint_seconds=0.0)
"""


def metrics(run: RunFolder) -> dict[str, float]:
    return pipeline.evaluate([run.path])["dpsr"].means()


def copy_of(run: RunFolder, target, checkpoints: bool = True) -> RunFolder:
    shutil.copytree(run.path, target, ignore=None if checkpoints else shutil.ignore_patterns("checkpoints"))
    return RunFolder(target)


def steps_done(run: RunFolder) -> int:
    latest = tf.train.latest_checkpoint(str(run.checkpoints))
    return int(tf.train.load_variable(latest, "optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE"))


@pytest.fixture(scope="module")
def whole(tiny_shop, tmp_path_factory) -> RunFolder:
    """A run that nobody interrupts."""
    return pipeline.train(tiny_shop.path, tmp_path_factory.mktemp("training") / "whole", "dpsr", CONFIG, quiet=True)


@pytest.fixture(scope="module")
def measured(whole, tmp_path_factory) -> dict[str, float]:
    """The metrics of a copy of it."""
    return metrics(copy_of(whole, tmp_path_factory.mktemp("measured") / "run"))


def test_one_seed_gives_one_result(tiny_shop, whole, measured, tmp_path):
    again = pipeline.train(tiny_shop.path, tmp_path / "again", "dpsr", CONFIG, quiet=True)
    np.testing.assert_allclose(again.trained_model().corpus_embeddings(), whole.trained_model().corpus_embeddings(), atol=1e-5)
    assert metrics(again) == pytest.approx(measured, abs=1e-3)
    assert measured["clicked_recall@100"] > 0.3


def test_killed_in_the_middle_it_goes_on_to_the_same_result(whole, measured, tmp_path):
    run = copy_of(whole, tmp_path / "killed", checkpoints=False)
    ended = subprocess.run([sys.executable, "-c", KILLED, str(run.path)], stderr=subprocess.DEVNULL, check=False)
    assert ended.returncode == -signal.SIGKILL
    total = 2 * (run.shards("train").examples // 16)
    assert 40 < steps_done(run) < total
    fit(run, quiet=True)
    assert steps_done(run) == total
    resumed, uninterrupted = metrics(run), measured
    for name in ("clicked_recall@100", "ndcg@10", "mrr", "p_good@10"):
        assert resumed[name] == pytest.approx(uninterrupted[name], abs=0.01), name
    np.testing.assert_allclose(run.trained_model().corpus_embeddings(), whole.trained_model().corpus_embeddings(), atol=1e-3)


# Every part of every model that draws at random or keeps something beside the weights.
SMALL = {"dim": 16, "column_dim": 2, "training": {"epochs": 1, "batch_size": 32, "supervision_share": 0.2}}
SMOOTHED = {"smoothing": {"sampling": 0.05, "bootstrap": 0.2}, "teacher_decay": 0.9, "debias": True}
EVERYTHING: dict[str, dict] = {
    "two_tower": {name: SMALL[name] for name in ("dim", "training")},
    "dpsr": SMALL | {"heads": 2, "query_hidden": [8], "item_hidden": [8], "explicit_negatives": 2},
    "mgdspr": SMALL | SMOOTHED | {"heads": 2, "random_negatives": 20, "hard": 10, "logq": True, "dropout": 0.5},
    "mmse": SMALL | SMOOTHED | {"heads": 2, "query_hidden": [8], "item_hidden": [8], "random_negatives": 20},
}


def variables_of(run: RunFolder) -> dict[str, np.ndarray]:
    """All that the latest checkpoint holds, by name."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run.checkpoints)))
    found = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    return {name: value for name, value in found.items() if getattr(value, "dtype", None) in (np.float32, np.int64)}


# Far below what one other mask does to a weight, and above what the order of a sum does to its last bits.
TOLERANCE = 1e-4


@pytest.mark.parametrize("model", EVERYTHING)
def test_every_random_draw_comes_from_seed_and_step(tiny_shop, judged_data, tmp_path, monkeypatch, model):
    """From a checkpoint in the middle, in a program with other generators, it goes on to the same weights, slots and averages."""
    real = training.tf.train.CheckpointManager.save

    def kept(self):
        real(self)
        if not (tmp_path / "middle").exists():
            shutil.copytree(tmp_path / "whole", tmp_path / "middle")

    config = from_dict(model_class(model).Config, EVERYTHING[model])
    whole = prepare_run(tmp_path / "whole", model, config, tiny_shop, split_time(tiny_shop.log()), judged_data, quiet=True)
    with monkeypatch.context() as patched:
        patched.setattr(training.tf.train.CheckpointManager, "save", kept)
        fit(whole, quiet=True, checkpoint_seconds=0.0)
    resumed = RunFolder(tmp_path / "middle")
    assert steps_done(resumed) == 20 < steps_done(whole)
    tf.keras.utils.set_random_seed(99)
    if model == "mgdspr":
        assert mask_effect(resumed, monkeypatch) > 100 * TOLERANCE
    fit(resumed, quiet=True)
    found, expected = variables_of(resumed), variables_of(whole)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=TOLERANCE, err_msg=name)


def mask_effect(run: RunFolder, monkeypatch) -> float:
    """How far a weight moves elsewhere when the next step alone drops other elements."""
    batch = next(iter(run.training_batches(epochs=1)))
    drop, weights = LSTMStack._drop, []
    for shift in (0, 1):
        monkeypatch.setattr(LSTMStack, "_drop", lambda self, values, layer, seed, by=shift: drop(self, values, layer, seed + by))
        model = run.trained_model()
        model.train_step({name: value for name, value in batch.items() if name != "request_id"})
        weights.append([weight.numpy() for weight in model.trainable_variables])
    monkeypatch.undo()
    return max(float(np.abs(one - other).max()) for one, other in zip(*weights, strict=True))


def test_propensities_reach_the_batches(tiny_shop, tmp_path):
    run = prepare_run(
        tmp_path / "run",
        "mgdspr",
        from_dict(MGDSPRConfig, SMALL | SMOOTHED | {"heads": 2}),
        tiny_shop,
        split_time(tiny_shop.log()),
        quiet=True,
    )
    batch = next(iter(run.training_batches(epochs=1)))
    top = batch["confidence"].numpy()[batch["positions"].numpy() == 0]
    np.testing.assert_allclose(top, 1 / run.propensities()[0], rtol=1e-6)
    assert batch["positive_confidence"].numpy().max() > 1.5


def test_a_finished_run_is_left_as_it_is(whole, tmp_path):
    run = copy_of(whole, tmp_path / "finished")
    before = {p.name: p.read_bytes() for p in run.checkpoints.iterdir()}
    model = fit(run, quiet=True)
    np.testing.assert_allclose(model.corpus_embeddings(), whole.trained_model().corpus_embeddings(), rtol=1e-5, atol=1e-6)
    assert {p.name: p.read_bytes() for p in run.checkpoints.iterdir()} == before


def test_training_lowers_the_loss_and_beats_its_start(whole):
    fresh, trained = whole.new_model(), whole.trained_model()
    evaluation = pipeline.Evaluation.of(whole.data, whole.split_time)
    recall = [evaluation.report(pipeline.rank_model(whole, evaluation, m)).means()["clicked_recall@10"] for m in (fresh, trained)]
    assert recall[1] > recall[0]


def test_a_loss_that_is_not_finite_names_the_step(whole, tmp_path, monkeypatch):
    run = copy_of(whole, tmp_path / "broken", checkpoints=False)
    real = RunFolder.new_model

    def poisoned(self):
        model = real(self)
        model.trainable_variables[0].assign(tf.fill(model.trainable_variables[0].shape, np.nan))
        return model

    monkeypatch.setattr(RunFolder, "new_model", poisoned)
    with pytest.raises(TfebrError, match=r"the loss is nan at step \d+\. Lower training\.learning_rate"):
        fit(run, quiet=True)
    assert not list(run.path.glob("checkpoints/*.index"))


def test_a_shard_with_flipped_bytes_is_named(whole, tmp_path):
    run = copy_of(whole, tmp_path / "damaged", checkpoints=False)
    shard = next((run.path / "examples" / "train").glob("*.tfrecord"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 64] = os.urandom(64)
    shard.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"examples/train: a shard is damaged: corrupted record at \d+\. .*run again"):
        fit(run, quiet=True)


def test_a_full_disk_at_a_checkpoint_is_one_clear_error(whole, tmp_path, monkeypatch):
    run = copy_of(whole, tmp_path / "full", checkpoints=False)

    def full(self, *args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "ckpt-1.tempstate; No space left on device")

    monkeypatch.setattr(training.tf.train.CheckpointManager, "save", full)
    with pytest.raises(TfebrError, match=r"checkpoints: not written: .*No space left on device\. Free some space"):
        fit(run, quiet=True)


def test_metrics_are_json_of_the_run(whole, tmp_path):
    run = copy_of(whole, tmp_path / "measured")
    report = metrics(run)
    written = json.loads((run.path / "metrics.json").read_text())["test"]["dpsr"]
    assert written["means"]["mrr"] == pytest.approx(report["mrr"])
