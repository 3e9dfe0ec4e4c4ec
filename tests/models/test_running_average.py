"""A model's running average: its weights against NumPy, what it does not touch, and that checkpoints hold it and servables do not."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfebr.data.batches import training_batches
from tfebr.data.item_ids import ItemIds
from tfebr.data.log import split_time
from tfebr.errors import ConfigError
from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.models.config import from_dict
from tfebr.models.encoders import RawItemEncoder, RawQueryEncoder
from tfebr.models.mgdspr import MGDSPR, MGDSPRConfig
from tfebr.models.run_folder import prepare_run
from tfebr.models.running_average import RunningAverage, check_smoothing

TINY = {
    "dim": 16,
    "heads": 2,
    "column_dim": 2,
    "dropout": 0.0,
    "random_negatives": 20,
    "hard": 10,
    "features": {"history_items": 10, "history_queries": 2},
    "training": {"epochs": 1, "batch_size": 32, "seed": 3},
}
TAUGHT = {"smoothing": {"bootstrap": 0.2}, "teacher_decay": 0.9}


@pytest.fixture(scope="module")
def run(tiny_shop, tmp_path_factory):
    config = from_dict(MGDSPRConfig, TINY | TAUGHT)
    return prepare_run(tmp_path_factory.mktemp("average") / "run", "mgdspr", config, tiny_shop, split_time(tiny_shop.log()), quiet=True)


@pytest.fixture(scope="module")
def batch(run):
    found = next(iter(training_batches(run.shards("train"), run.featurizer, 32, seed=5, epochs=1)))
    found.pop("request_id")
    return found


def build(run, **changes) -> MGDSPR:
    tf.keras.utils.set_random_seed(3)
    model = MGDSPR(dataclasses.replace(run.config, **changes), run.featurizer, run.table)
    model.compile(tf.keras.optimizers.Adagrad(0.1))
    return model


def towers(model) -> list[np.ndarray]:
    """Weights of both towers, the tables that they share twice."""
    return [w.numpy() for w in (*model.query_tower.weights, *model.item_tower.weights)]


@pytest.mark.parametrize(("every", "decay"), [(1, 0.6), (3, 0.9)])
def test_it_is_the_average_of_the_weights_at_its_steps(run, every, decay):
    model, rng = build(run, teacher_decay=None), np.random.default_rng(0)
    average = RunningAverage(model, run.featurizer, run.table, *model._new_towers(run.featurizer), decay, every)
    follow, expected = tf.function(average.follow), towers(model)
    for number in range(1, 13):
        for weight in model.trainable_variables:
            weight.assign_add(rng.normal(size=weight.shape))
        follow(tf.constant(number, tf.int64))
        if number % every == 0:
            # The plain mean, until the decay forgets faster.
            share = max(1 - decay**every, 1 / (number // every))
            expected = [(1 - share) * a + share * w for a, w in zip(expected, towers(model), strict=True)]
        for found, value in zip(towers(average), expected, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-4)


def test_every_tenth_step_of_training_moves_it_and_checkpoints_hold_it(run, batch, tmp_path):
    model, fresh, rows = build(run, dropout=0.5), build(run), tf.range(1, 30)
    np.testing.assert_allclose(model.teacher.embed_queries(batch), model.embed_queries(batch), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.teacher.embed_items(rows), model.embed_items(rows), rtol=1e-5, atol=1e-6)
    start, step = towers(model), tf.function(model.train_step)
    for _ in range(9):
        step(batch)
    for a, b in zip(towers(model.teacher), start, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    step(batch)
    np.testing.assert_allclose(model.teacher.embed_items(rows), model.embed_items(rows), rtol=1e-4, atol=1e-6)
    step(batch)
    assert np.abs(model.teacher.embed_items(rows) - model.embed_items(rows)).max() > 1e-4

    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=fresh).read(path).assert_existing_objects_matched()
    for a, b in zip(towers(fresh.teacher), towers(model.teacher), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_it_is_not_trained_and_the_model_is_not_touched(run):
    taught, alone = build(run), build(run, teacher_decay=None)
    assert [v.name for v in taught.trainable_variables] == [v.name for v in alone.trainable_variables]
    of_towers = {id(weight) for weight in (*alone.query_tower.weights, *alone.item_tower.weights)}
    assert len(taught.variables) == len(alone.variables) + len(of_towers)
    assert alone.teacher is None
    for a, b in zip(taught.trainable_variables, alone.trainable_variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_its_scores_are_the_targets(run, batch):
    taught, alone = build(run), build(run, teacher_decay=None)
    for model in (taught, alone, taught.teacher):
        # Fresh weights are so small that all scores are nearly the same.
        for weight in (*model.query_tower.weights, *model.item_tower.attributes["item"].weights):
            weight.assign(tf.random.stateless_normal(weight.shape, [1, 2]))
    # The same weights say the same; others do not.
    assert float(taught.compute_loss(batch)) == pytest.approx(float(alone.compute_loss(batch)), rel=1e-5)
    for weight in taught.teacher.weights:
        weight.assign(-weight)
    assert float(taught.compute_loss(batch)) != pytest.approx(float(alone.compute_loss(batch)), rel=1e-2)


def test_servables_do_not_hold_it(run):
    item_ids = ItemIds(run.data.catalogue().item_ids)
    for encoder in (RawQueryEncoder, RawItemEncoder):
        taught, alone = (encoder(model, run.featurizer, item_ids) for model in (build(run), build(run, teacher_decay=None)))
        assert [v.name for v in taught.variables] == [v.name for v in alone.variables]


@pytest.mark.parametrize(
    ("bootstrap", "decay", "message"),
    [
        (0.1, 1.0, "`teacher_decay` must be between 0 and 1, or null. Received: 1.0"),
        (0.1, 0.0, "`teacher_decay` must be between"),
        (0.0, 0.9, "`teacher_decay` must be null where `smoothing.bootstrap` is 0"),
    ],
)
def test_an_average_that_nothing_reads_is_refused(bootstrap, decay, message):
    with pytest.raises(ConfigError, match=message):
        check_smoothing(LabelSmoothing(bootstrap=bootstrap), decay)
