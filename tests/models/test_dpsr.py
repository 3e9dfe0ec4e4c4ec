"""DPSR: with one head and no history it is a plain two-tower in value and gradient; every setting has its effect."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfebr import pipeline
from tfebr.data.batches import training_batches
from tfebr.models.config import from_dict
from tfebr.models.dpsr import DPSR, DPSRConfig
from tfebr.models.run_folder import RunFolder, prepare_run

PLAIN = {"heads": 1, "use_history": False, "use_user": False, "gated": False, "alpha": 0.0, "reduction": "sum", "margin": 0.3}


@pytest.fixture(scope="module")
def batch(tiny_run) -> dict:
    found = next(iter(training_batches(tiny_run.shards("train"), tiny_run.featurizer, 64, seed=5, epochs=1)))
    found.pop("request_id")
    return found


def build(run: RunFolder, tiny_config: dict, **changes) -> DPSR:
    config = from_dict(DPSRConfig, tiny_config | changes)
    tf.keras.utils.set_random_seed(config.training.seed)
    model = DPSR(dataclasses.replace(config, features=run.config.features), run.featurizer, run.table)
    model.compile(optimizer=tf.keras.optimizers.Adagrad(0.1))
    return model


class PlainTwoTower:
    """Two towers of Keras layers with the weights of a DPSR, one inner product, and the hinge over in-batch negatives."""

    def __init__(self, model: DPSR, margin: float):
        self.margin = margin
        self.text = {grain: tf.Variable(bag.table) for grain, bag in model.query_tower.text.bags.items()}
        self.item = {column: tf.Variable(bag.table) for column, bag in model.item_tower.columns.items()}
        self.query_layers, self.item_layers = (
            [self._dense(layer, last=layer is encoder.layers[-1]) for layer in encoder.layers]
            for encoder in (model.query_tower.encoder, model.item_tower.encoder)
        )

    @staticmethod
    def _dense(layer, last: bool) -> tf.keras.layers.Dense:
        dense = tf.keras.layers.Dense(layer.units, None if last else "relu")
        dense.build([None, layer.kernel.shape[1]])
        dense.set_weights([layer.kernel[0].numpy(), layer.bias[0].numpy()])
        return dense

    def pooled(self, ids: dict[str, np.ndarray]) -> tf.Tensor:
        total, count = 0.0, 0.0
        for grain, table in self.text.items():
            present = tf.cast(ids[grain] != 0, tf.float32)[..., None]
            total += tf.reduce_sum(tf.nn.embedding_lookup(table, ids[grain]) * present, axis=1)
            count += tf.reduce_sum(present, axis=1)
        return total / tf.maximum(count, 1.0)

    @staticmethod
    def tower(layers: list, x: tf.Tensor) -> tf.Tensor:
        for layer in layers:
            x = layer(x)
        return x / tf.norm(x, axis=1, keepdims=True)

    def loss(self, batch: dict, columns: dict[str, np.ndarray]) -> tf.Tensor:
        rows = batch["positive"].numpy()
        queries = self.tower(self.query_layers, self.pooled({g: batch[f"query_{g}"] for g in self.text}))
        parts = [self.pooled({g: columns[f"title_{g}"][rows] for g in self.text})]
        for column, table in self.item.items():
            ids = columns[column][rows]
            parts.append(tf.gather(table, ids) * tf.cast(ids != 0, tf.float32)[:, None])
        items = self.tower(self.item_layers, tf.concat(parts, axis=1))
        total = 0.0
        for i, known in enumerate(batch["known_positives"].numpy()):
            positive = tf.tensordot(queries[i], items[i], 1)
            for j, row in enumerate(rows):
                if row not in known:
                    total += tf.maximum(0.0, self.margin - positive + tf.tensordot(queries[i], items[j], 1))
        return total / len(rows)


def test_one_head_without_history_is_a_plain_two_tower(tiny_run, tiny_config, batch):
    model = build(tiny_run, tiny_config, **PLAIN)
    few = {name: value[:24] for name, value in batch.items()}
    plain = PlainTwoTower(model, PLAIN["margin"])
    with tf.GradientTape(persistent=True) as tape:
        loss = model.compute_loss(few, training=True)
        expected = plain.loss(few, tiny_run.table.columns)
    assert float(expected) > 0.1
    np.testing.assert_allclose(loss, expected, rtol=1e-4)

    encoders = ((model.query_tower.encoder, plain.query_layers), (model.item_tower.encoder, plain.item_layers))
    pairs = [(bag.table, plain.text[grain]) for grain, bag in model.query_tower.text.bags.items()]
    pairs += [(bag.table, plain.item[column]) for column, bag in model.item_tower.columns.items()]
    for encoder, layers in encoders:
        for ours, theirs in zip(encoder.layers, layers, strict=True):
            pairs += [(ours.kernel, theirs.kernel), (ours.bias, theirs.bias)]
    ours, theirs = (tape.gradient(value, [pair[side] for pair in pairs]) for side, value in enumerate((loss, expected)))
    for (variable, _), found, wanted in zip(pairs, ours, theirs, strict=True):
        found, wanted = (tf.convert_to_tensor(g).numpy() for g in (found, wanted))
        assert np.abs(wanted).max() > 0, variable.name
        np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=1e-3, atol=1e-5, err_msg=variable.name)
    # The profile's tables are there, but nothing reads them.
    assert len(pairs) == len([v for v in model.trainable_variables if "user_" not in v.name])


@pytest.mark.parametrize(
    ("field", "inputs"),
    [
        ("use_user", ("user_column_age", "user_column_gender")),
        ("use_history", ("history_items", "history_query_words", "history_query_trigrams")),
    ],
)
def test_user_and_history_are_read_or_not(tiny_run, tiny_config, batch, field, inputs):
    other = batch | {name: tf.reverse(batch[name], [0]) for name in inputs}
    for reads in (True, False):
        model = build(tiny_run, tiny_config, **{field: reads})
        same = np.allclose(model.embed_queries(batch), model.embed_queries(other), atol=1e-6)
        assert same is not reads, f"{field}={reads}"


def test_heads_differ(tiny_run, tiny_config, batch):
    queries = build(tiny_run, tiny_config, heads=3).embed_queries(batch).numpy()
    assert queries.shape[1] == 3
    assert not np.allclose(queries[:, 0], queries[:, 1], atol=1e-3)


def test_tables_are_shared_between_query_and_title(tiny_run, tiny_config):
    shared, own = (build(tiny_run, tiny_config, share_text=share) for share in (True, False))
    assert shared.query_tower.text is shared.item_tower.text
    assert own.query_tower.text is not own.item_tower.text


def test_random_negatives_are_new_in_each_step_and_the_same_in_each_run(tiny_run, tiny_config, batch):
    model, other = (build(tiny_run, tiny_config, alpha=0.9, margin=1.0, reduction="sum") for _ in range(2))
    losses = []
    for step in range(3):
        model.optimizer.iterations.assign(step)
        other.optimizer.iterations.assign(step)
        losses.append(float(model.compute_loss(batch)))
        assert float(other.compute_loss(batch)) == pytest.approx(losses[-1], rel=1e-6)
    assert np.abs(np.subtract.outer(losses, losses))[np.triu_indices(3, 1)].min() > 1e-5 * losses[0]


def test_alpha_mixes_the_negatives(tiny_run, tiny_config, batch):
    # With a margin beyond any score, the sum counts pairs.
    found = {
        a: float(build(tiny_run, tiny_config, alpha=a, margin=1e4, reduction="sum").compute_loss(batch)) / 1e4 for a in (0.0, 0.5, 1.0)
    }
    known = batch["known_positives"].numpy()
    in_batch = np.mean([sum(row not in mine for row in batch["positive"].numpy()) for mine in known])
    assert found[0.0] == pytest.approx(in_batch, rel=1e-3)
    assert found[0.5] == pytest.approx(in_batch + 63, rel=0.02)
    assert found[1.0] == pytest.approx(64, rel=0.02)


def test_explicit_negatives_count_with_their_weight(judged_data, tiny_config, tmp_path):
    run = prepare_run(tmp_path / "run", "dpsr", from_dict(DPSRConfig, tiny_config), judged_data, None, quiet=True)
    batch = next(iter(training_batches(run.shards("train"), run.featurizer, 64, seed=5, epochs=1)))
    settings = {"alpha": 0.0, "margin": 1e4, "reduction": "sum"}
    losses = [
        float(build(run, tiny_config, **settings, explicit_negatives=count, explicit_weight=weight).compute_loss(batch)) / 1e4
        for count, weight in ((0, 1.0), (3, 1.0), (3, 2.5))
    ]
    given = np.mean((batch["negatives"].numpy()[:, :3] > 0).sum(axis=1))
    assert given > 1
    assert losses[1] - losses[0] == pytest.approx(given, rel=1e-2)
    assert losses[2] - losses[0] == pytest.approx(2.5 * given, rel=1e-2)


def test_titles_may_be_read_by_fewer_grains_than_queries(tiny_shop, tiny_config, tmp_path):
    changes = {"features": {"title_lengths": [24, 0]}, "training": tiny_config["training"] | {"epochs": 1}}
    run = pipeline.train(tiny_shop.path, tmp_path / "run", "dpsr", tiny_config | changes, quiet=True)
    assert set(run.table.columns) == {"title_words", *(f"column_{c}" for c in run.featurizer.item_columns)}
    assert np.isfinite(run.trained_model().corpus_embeddings()).all()
