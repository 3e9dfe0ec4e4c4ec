"""MGDSPR: the towers against the equations in NumPy, what an empty or a too long history does, and the effect of every setting."""

import dataclasses

import layer_oracles as plain
import numpy as np
import pytest
import tensorflow as tf
from harness import run_model_test, run_precision_test

from tfebr.data.batches import training_batches
from tfebr.data.log import split_time
from tfebr.data.stage import Stage
from tfebr.errors import ConfigError
from tfebr.models.config import from_dict
from tfebr.models.mgdspr import MGDSPR, MGDSPRConfig
from tfebr.models.run_folder import prepare_run

TINY = {
    "dim": 32,
    "heads": 4,
    "column_dim": 4,
    "random_negatives": 100,
    "hard": 40,
    "seconds": [43_200, 3 * 86_400, 30 * 86_400],
    "lengths": [3, 4, 5],
    "features": {"history_items": 40, "history_queries": 3},
    "training": {"epochs": 1, "batch_size": 64, "seed": 3},
}
PAPER = {"gated": False, "item_columns": False}


@pytest.fixture(scope="module")
def run(tiny_shop, tmp_path_factory):
    config = from_dict(MGDSPRConfig, TINY)
    return prepare_run(tmp_path_factory.mktemp("mgdspr") / "run", "mgdspr", config, tiny_shop, split_time(tiny_shop.log()), quiet=True)


@pytest.fixture(scope="module")
def batch(run):
    found = next(iter(training_batches(run.shards("train"), run.featurizer, 64, seed=5, epochs=1)))
    found.pop("request_id")
    assert int(tf.reduce_sum(tf.cast(found["history_items"] > 0, tf.int32))) > 200
    return found


def build(run, scale: float = 4.0, **changes) -> MGDSPR:
    config = dataclasses.replace(from_dict(MGDSPRConfig, TINY | changes), features=run.config.features)
    tf.keras.utils.set_random_seed(config.training.seed)
    model = MGDSPR(config, run.featurizer, run.table)
    model.compile(tf.keras.optimizers.Adagrad(0.1))
    # Fresh weights are small: larger ones tell terms of the equations apart.
    for variable in model.trainable_variables:
        variable.assign(variable * (1 if variable.shape.rank == 0 else scale))
    return model


def pooled(bag, ids) -> np.ndarray:
    ids = np.asarray(ids)
    return bag.table.numpy()[ids[ids > 0]].mean(0) if (ids > 0).any() else np.zeros(bag.dim)


def summed(layer, computed: np.ndarray, text: np.ndarray) -> np.ndarray:
    if layer.gated:
        computed = computed * (float(layer.share) if layer.normalize else 1) + float(layer.gate) * text
    return computed / np.linalg.norm(computed) if layer.normalize else computed


def numpy_query(model: MGDSPR, row: dict[str, np.ndarray]) -> np.ndarray:
    """The query tower's equations for one request, from its ids."""
    tower, config = model.query_tower, model.config
    one, two, words = (row[f"query_{grain}"] for grain in tower.grains)
    tables = list(tower.text.values())
    segmented = pooled(tables[2], words)
    query = segmented[None]
    if config.mgs:
        present = words[words > 0]
        sequence = tables[2].table.numpy()[present] + tower.unit.positions.numpy()[: len(present)]
        for layer in tower.unit.transformer:
            sequence = plain.transformer(sequence, layer) if len(sequence) else sequence
        past = [pooled(tables[2], text) for text in row[f"history_query_{tower.grains[2]}"] if (text > 0).any()]
        rows = [pooled(tables[0], one), pooled(tables[1], two), segmented, sequence.mean(0) if len(present) else 0 * segmented]
        rows.append(plain.attend(segmented[None], np.array(past).reshape(-1, config.dim))[0])
        query = np.stack([*rows, sum(rows)])
    zero = np.zeros([1, config.dim])
    events = [
        (i, s, a, at) for at, (i, s, a) in enumerate(zip(*(row[f"history_{n}"] for n in ("items", "stages", "ages")), strict=True)) if i
    ]
    real = [e for e in events if e[2] <= config.seconds[0]][: config.lengths[0]]
    short = [e for e in events if e not in real and e[2] <= config.seconds[1]][: config.lengths[1]]
    old = [e for e in events if e not in real + short and e[2] <= config.seconds[2]]
    column_ids = lambda column, event: event[0] if column == "item" else row[f"history_{column}"][event[3]]  # noqa: E731
    embed = lambda e: np.concatenate([bag.table.numpy()[column_ids(c, e)] for c, bag in tower.events.items()])  # noqa: E731
    joined = [query]
    for window, encoder in ((real[::-1], "real"), (short, "short")):
        keys = np.array([embed(e) for e in window]).reshape(-1, config.dim)
        if len(keys) and encoder == "real":
            for cell_number, cell in enumerate(tower.real_time.lstm.cells):
                keys = plain.lstm(keys, cell) + (keys if cell_number else 0)
            keys = plain.self_attention(keys, tower.real_time.attention)
        elif len(keys):
            keys = plain.self_attention(keys, tower.short_term)
        joined.append(plain.attend(query, np.concatenate([zero, keys])))
    long = np.zeros_like(query)
    for column, bag in tower.attributes.items():
        means = [zero]
        for stage in (Stage.UNCLICKED, Stage.CARTED, Stage.ORDERED):
            chosen = [e for e in old if e[1] >= stage][: config.lengths[2]]
            means += [np.mean([bag.table.numpy()[column_ids(column, e)] for e in chosen], axis=0)[None]] if chosen else []
        long += plain.attend(query, np.concatenate(means))
    joined.append(long)
    if config.trm:
        fused = plain.self_attention(np.concatenate([tower.fusion.cls.numpy()[None], *joined]), tower.fusion.attention)[0]
    else:
        kernel, bias = tower.fusion.get_weights()
        fused = np.concatenate([rows.mean(0) for rows in joined]) @ kernel + bias
    read = zip(tables, (one, two, words), config.features.title_lengths, strict=True)
    return summed(tower.sum, fused, sum(pooled(table, ids) for table, ids, length in read if length))


@pytest.mark.parametrize("changes", [{}, PAPER, {"mgs": False}, {"trm": False}, {"mgs": False, "trm": False} | PAPER, {"normalize": True}])
def test_query_tower_is_its_equations(run, batch, changes):
    model = build(run, **changes)
    found = model.embed_queries(batch)[:, 0].numpy()
    joined = {name: value.numpy() for name, value in batch.items()}
    joined |= {f"history_{c}": ids.numpy()[joined["history_items"]] for c, ids in model.history_columns().items()}
    expected = [numpy_query(model, {name: value[at] for name, value in joined.items()}) for at in range(len(found))]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("changes", [{}, PAPER, {"item_ids": False}, {"normalize": True}, {"normalize": True} | PAPER])
def test_item_tower_is_its_equation(run, changes):
    model, rows = build(run, **changes), np.array([1, 7, 500])
    tower, config = model.item_tower, model.config
    assert model.reads_item_ids == config.item_ids
    for row, found in zip(rows, model.embed_items(tf.constant(rows, tf.int32)).numpy(), strict=True):
        title = pooled(tower.text["words"], run.table.columns["title_words"][row])
        expected = np.tanh(title @ tower.transform.get_weights()[0])
        if config.item_ids:
            expected = expected + tower.attributes["item"].table.numpy()[row]
        for key in model.history_columns() if config.item_columns else ():
            expected = expected + tower.attributes[key].table.numpy()[run.table.columns[key][row]]
        np.testing.assert_allclose(found, summed(tower.sum, expected, title), rtol=1e-4, atol=1e-5)


def test_model_passes_every_check(run, tmp_path):
    run_model_test(run, tmp_path, heads=1, normalized=False)


def test_mixed_precision_is_nearly_the_same(run):
    run_precision_test(run)


def history(batch, width):
    """The batch with no more than `width` events and as many queries in each history."""
    return {n: v[:, :width] if n.startswith("history") else v for n, v in batch.items()}


def test_an_empty_history_is_no_history(run, batch):
    model = build(run)
    empty = {n: tf.zeros_like(v) if n == "history_items" or n.startswith("history_query") else v for n, v in batch.items()}
    np.testing.assert_allclose(model.embed_queries(empty), model.embed_queries(history(batch, 0)), rtol=1e-4, atol=1e-5)
    assert np.abs(model.embed_queries(empty) - model.embed_queries(batch)).max() > 1e-2


def test_a_history_longer_than_its_windows_keeps_the_newest(run, batch):
    model = build(run)
    ages = tf.tile(tf.range(40)[None] * 10_000 + 100, [64, 1])
    items = tf.random.stateless_uniform([64, 40], [1, 2], 1, 500, tf.int32)
    whole = batch | {"history_items": items, "history_stages": tf.ones_like(items), "history_ages": ages}
    reaches = sum(model.config.lengths)
    assert tf.reduce_max(ages[:, reaches]) < model.config.seconds[2]
    cut = whole | {"history_items": tf.where(tf.range(40) < reaches, items, 0)}
    np.testing.assert_allclose(model.embed_queries(whole), model.embed_queries(cut), rtol=1e-4, atol=1e-5)
    shorter = whole | {"history_items": tf.where(tf.range(40) < reaches - 1, items, 0)}
    assert np.abs(model.embed_queries(whole) - model.embed_queries(shorter)).max() > 1e-4


def test_dropout_is_for_training_alone(run, batch):
    model = build(run)
    assert np.allclose(model.embed_queries(batch), model.embed_queries(batch), rtol=1e-5, atol=1e-6)
    assert not np.allclose(model.embed_queries(batch, training=True), model.embed_queries(batch), rtol=1e-3, atol=1e-3)


def test_an_item_without_an_id_is_its_title_and_categories(run):
    model = build(run)
    features = {name: tf.gather(ids, [3]) for name, ids in model._columns().items()}
    new, known = (model.item_tower(features | {"item": tf.constant([row])}) for row in (0, 3))
    np.testing.assert_allclose(known - new, model.item_tower.attributes["item"].table.numpy()[3:4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 1.0},
        {"mix": None},
        {"mix": [0.1, 0.2]},
        {"hard": 5},
        {"random_negatives": 10},
        {"logq": True},
        {"use_history": False},
    ],
)
def test_every_setting_changes_the_loss(run, batch, changes):
    changed = build(run, 1.0, **changes)
    changed.count_draws(batch["positive"])
    assert not np.isclose(build(run, 1.0).compute_loss(batch), changed.compute_loss(batch), rtol=1e-4)


@pytest.mark.parametrize("part", ["uniform", "sampling", "bootstrap"])
def test_every_part_of_smoothing_changes_the_loss(run, batch, part):
    smoothed = build(run, smoothing={part: 0.3})
    assert not np.isclose(build(run).compute_loss(batch), smoothed.compute_loss(batch), rtol=1e-2)


def test_sampling_smoothing_learns_frequencies_and_leaves_scores_alone(run, batch):
    model, uncorrected = build(run, smoothing={"sampling": 0.1}), build(run)
    assert uncorrected.frequency is None
    model.train_step(batch)
    rows = batch["positive"]
    assert (model.frequency.expected_draws(rows).numpy() > 0).all()
    assert not model.task.logq
    before = model.frequency.expected_draws(rows).numpy()
    model.test_step(batch)
    np.testing.assert_allclose(model.frequency.expected_draws(rows), before, err_msg="validation counts as training")


def test_a_click_counts_by_the_confidence_in_it(run, batch):
    plain, debiased = build(run), build(run, debias=True)
    confidence = tf.random.stateless_uniform([64], [1, 2], 0.0, 3.0)
    believed = {value: batch | {"positive_confidence": tf.fill([64], value)} for value in (1.0, 2.0)}
    assert float(debiased.compute_loss(believed[1.0])) == pytest.approx(float(plain.compute_loss(batch)), rel=1e-6)
    assert float(debiased.compute_loss(believed[2.0])) == pytest.approx(2 * float(plain.compute_loss(batch)), rel=1e-5)
    varied = batch | {"positive_confidence": confidence}
    assert float(debiased.compute_loss(varied)) != pytest.approx(float(tf.reduce_mean(confidence) * plain.compute_loss(batch)), rel=1e-4)
    assert float(plain.compute_loss(varied)) == pytest.approx(float(plain.compute_loss(batch)), rel=1e-6)


def test_logq_learns_frequencies_from_the_stream(run, batch):
    model = build(run, logq=True)
    for _ in range(5):
        model.train_step(batch)
    rows, counts = np.unique(batch["positive"].numpy(), return_counts=True)
    np.testing.assert_allclose(model.frequency.expected_draws(tf.constant(rows)), counts, rtol=0.2)
    assert not np.any(model.frequency.expected_draws(tf.constant(np.setdiff1d(np.arange(1, 500), rows), tf.int32)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "`heads` must be a divisor of `dim`"),
        ({"mix": [0.6, 0.4]}, "`mix` must be two numbers"),
        ({"seconds": [10, 5, 20]}, "`seconds` must be in ascending order"),
        ({"lengths": [1, 2]}, "`lengths` must be 3 whole numbers of at least 1"),
        ({"features": {"grains": ["words"], "query_lengths": [5], "title_lengths": [5]}}, "three grains"),
        ({"temperature": 0}, "`temperature` must be above 0"),
        ({"smoothing": {"uniform": 1.5}}, r"`uniform` must be a finite number in \[0, 1\)"),
        ({"smoothing": {"unifrom": 0.1}}, r"config\.smoothing: unknown field `unifrom`\. Did you mean `uniform`"),
        ({"smoothing": {"uniform": "much"}}, r"config\.smoothing: `uniform` must be a finite number"),
        ({"smoothing": 0.1}, r"config\.smoothing: must be an object of fields"),
        ({"teacher_decay": 0.99}, "`teacher_decay` must be null where `smoothing.bootstrap` is 0"),
        ({"debias": 1}, r"config: `debias` must be true or false"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(MGDSPRConfig, changes)
