"""Every task in the place of `tfrs.tasks.Retrieval`, in a program written for TFRS, with its metrics over each kind of index."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_recommenders as tfrs
from hypothesis import given
from hypothesis import strategies as st

from tfebr.errors import ConfigError
from tfebr.index import IndexTopK, Recipe
from tfebr.losses import SampledSoftmax
from tfebr.tasks import MultiGrainedRetrieval, PairwiseRetrieval, SoftmaxRetrieval

ITEMS, DIM = 30, 8
TASKS = {
    "pairwise": lambda **more: PairwiseRetrieval(margin=0.5, beta=0.1, **more),
    "softmax": lambda **more: SoftmaxRetrieval(temperature=0.5, hard=4, **more),
    "softmax without mixing": lambda **more: SoftmaxRetrieval(temperature=0.5, mix=None, **more),
    "multi-grained": lambda **more: MultiGrainedRetrieval(temperature=0.5, ranking_weight=1.0, **more),
    "graded": lambda **more: MultiGrainedRetrieval("graded", temperature=0.5, **more),
}
every_task = pytest.mark.parametrize("make", TASKS.values(), ids=TASKS)
NAMES = np.array([f"item {i}" for i in range(ITEMS)])


class Program(tfrs.Model):
    """The tutorial's retrieval model, word for word, with the task given."""

    def __init__(self, task: tfrs.tasks.Retrieval):
        super().__init__()
        self.query_model = tf.keras.Sequential([tf.keras.layers.StringLookup(vocabulary=NAMES), tf.keras.layers.Embedding(ITEMS + 1, DIM)])
        self.candidate_model = tf.keras.Sequential(
            [tf.keras.layers.StringLookup(vocabulary=NAMES), tf.keras.layers.Embedding(ITEMS + 1, DIM)]
        )
        self.task = task

    def compute_loss(self, features, training=False):
        return self.task(
            self.query_model(features["query"]),
            self.candidate_model(features["item"]),
            candidate_ids=features["item"],
            candidate_sampling_probability=features["probability"],
            compute_metrics=not training,
        )


def data() -> tf.data.Dataset:
    """Everybody looks for the item of the same name."""
    columns = {"query": NAMES, "item": NAMES, "probability": np.full(ITEMS, 1 / ITEMS, np.float32)}
    return tf.data.Dataset.from_tensor_slices(columns).shuffle(ITEMS, seed=1).batch(10)


@every_task
def test_a_plain_tfrs_program_learns(make):
    tf.keras.utils.set_random_seed(0)
    model = Program(make())
    model.compile(optimizer=tf.keras.optimizers.Adam(0.1))
    losses = model.fit(data(), epochs=15, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
    vectors = model.candidate_model(NAMES)
    top = IndexTopK(1).index(vectors, NAMES)(model.query_model(NAMES))[1].numpy()[:, 0]
    assert np.mean(top.astype(str) == NAMES) > 0.8


RECIPES = {"exact": Recipe("exact"), "hash": Recipe("hash"), "ivf": Recipe("ivf", leaves=4, leaves_to_search=4)}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_factorized_top_k_over_our_indexes_counts_what_was_found(recipe):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(ITEMS, DIM)).astype(np.float32)
    queries = (vectors + rng.normal(size=vectors.shape) / 2).astype(np.float32)
    expected = np.mean((queries @ vectors.T).argsort(axis=1)[:, ::-1][:, :3] == np.arange(ITEMS)[:, None], axis=0).sum()
    assert 0.3 < expected < 1
    metric = tfrs.metrics.FactorizedTopK(candidates=IndexTopK(3, recipe=recipe).index(vectors, NAMES), ks=(3,))
    # The last ones are negatives of all rows, not anybody's positive.
    task = SoftmaxRetrieval(mix=None, metrics=metric)
    task(queries[:20], vectors[:25], candidate_ids=tf.constant(NAMES[:25]))
    task(queries[20:], vectors[20:], candidate_ids=tf.constant(NAMES[20:]))
    assert metric.result()[0].numpy() == pytest.approx(expected, abs=1e-6)
    task(queries[:20], vectors[:20], candidate_ids=tf.constant(NAMES[:20]), compute_metrics=False)
    assert metric.result()[0].numpy() == pytest.approx(expected, abs=1e-6)


def test_metrics_of_batch_and_loss():
    accuracy, mean = tf.keras.metrics.CategoricalAccuracy(), tf.keras.metrics.Mean()
    task = PairwiseRetrieval(margin=0.5, beta=0.1, batch_metrics=[accuracy], loss_metrics=[mean])
    queries, items = tf.eye(3), tf.constant([[1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
    loss = task(queries, items)
    # The second query's own item is the one it likes least.
    assert accuracy.result().numpy() == pytest.approx(2 / 3)
    assert mean.result().numpy() == pytest.approx(float(loss))
    # What is no candidate of a row is not counted against it: here both other items.
    accuracy.reset_state()
    task(queries, items, score_mask=tf.constant([[True] * 3, [False, True, False], [True] * 3]))
    assert accuracy.result().numpy() == pytest.approx(1.0)


@given(seed=st.integers(0, 1000), extra=st.integers(0, 3), ids=st.sampled_from(["none", "int", "string"]), masked=st.booleans())
def test_negatives_are_as_tfrs_has_them(seed, extra, ids, masked):
    rng = np.random.default_rng(seed)
    queries, items = rng.normal(size=(4, 2)).astype(np.float32), rng.normal(size=(4 + extra, 2)).astype(np.float32)
    numbers, weights = rng.integers(0, 4, 4 + extra), rng.uniform(0, 2, 4).astype(np.float32)
    considered = rng.random((4, 4 + extra)) < 0.7
    losses = []
    for i in range(4):
        own = float(queries[i] @ items[i])
        gaps = [
            float(queries[i] @ items[j]) - own
            for j in range(4 + extra)
            if j != i and (ids == "none" or numbers[j] != numbers[i]) and (not masked or considered[i, j])
        ]
        losses.append(math.log(1 + sum(math.exp(gap) for gap in gaps)))
    given_ids = {"none": None, "int": tf.constant(numbers), "string": tf.constant([f"no {n}" for n in numbers])}[ids]
    score_mask = tf.constant(considered) if masked else None
    task = SoftmaxRetrieval(1.0, None)
    found = task(queries, items, tf.constant(weights), candidate_ids=given_ids, score_mask=score_mask)
    assert float(found) == pytest.approx(float(np.mean(losses * weights)), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "softmax"])  # whose mixed negatives are drawn anew in each call
def test_weights_multiply_rows(name):
    rng, task = np.random.default_rng(3), TASKS[name]()
    queries, items = (rng.normal(size=(4, 5)).astype(np.float32) for _ in range(2))
    weights = [1, 0, 1, 0], [0, 1, 0, 1], [2, 0.5, 2, 0.5]
    first, second, both = (float(task(queries, items, tf.constant(w, tf.float32))) for w in weights)
    assert both == pytest.approx(2 * first + 0.5 * second, rel=1e-4)


def test_our_loss_in_tfrs_own_task():
    rng = np.random.default_rng(4)
    queries, items = (tf.constant(rng.normal(size=(4, 5)), tf.float32) for _ in range(2))
    theirs = tfrs.tasks.Retrieval(loss=SampledSoftmax(temperature=0.5))(queries, items)
    ours = SoftmaxRetrieval(0.5, None)(queries, items)
    assert float(theirs) == pytest.approx(float(ours), rel=1e-5)


def test_known_positives_need_ids_and_settings_of_tfrs_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"`candidate_ids` must be given with `known_positives`\. Received: None\."):
        PairwiseRetrieval(margin=0.1, beta=0.1)(tf.eye(2), tf.eye(2), known_positives=tf.constant([[1], [2]]))
    with pytest.raises(TypeError, match="num_hard_negatives"):
        SoftmaxRetrieval(num_hard_negatives=3)
