"""Attention with masks, against NumPy over rows without padding."""

import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from layer_oracles import Several, attend, by_row, prefix_mask, self_attention, transformer

from tfebr.errors import ConfigError
from tfebr.layers import attention
from tfebr.layers.attention import SelfAttention, TransformerLayer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 6, 8)).astype(np.float32)
MASK = prefix_mask([6, 0, 3, 1, 4], 6)
HOLES = RNG.permuted(MASK, axis=1)
SETTINGS = {"SelfAttention": [{"heads": 2}, {"heads": 4, "residual": True}], "TransformerLayer": [{"heads": 2}, {"heads": 2, "hidden": 5}]}
CASES = [(kind, values) for kind, several in SETTINGS.items() for values in several]
ORACLES = {"SelfAttention": self_attention, "TransformerLayer": transformer}
masks = hnp.arrays(bool, st.tuples(st.integers(1, 4), st.integers(0, 6)))


def shaken(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
    """Biases and norms start at 0 and 1, where a mistake in them would not show."""
    for variable in layer.trainable_variables:
        variable.assign_add(0.3 * RNG.normal(size=variable.shape))
    return layer


def make(kind: str, values: dict) -> tf.keras.layers.Layer:
    layer = getattr(attention, kind)(**values)
    layer(X, tf.constant(MASK))
    return shaken(layer)


@given(masks, st.booleans(), st.sampled_from([0.0, 1e20, -1e20]))
def test_attend_equals_numpy_and_never_reads_masked_places(mask, zero_row, garbage):
    queries = RNG.normal(size=(len(mask), 3, 4)).astype(np.float32)
    keys = RNG.normal(size=(*mask.shape, 4)).astype(np.float32)
    q, k = tf.constant(queries), tf.constant(np.where(mask[..., None], keys, np.float32(garbage)))
    with tf.GradientTape() as tape:
        tape.watch([q, k])
        found = attention.attend(q, k, tf.constant(mask), zero_row=zero_row)
        total = tf.reduce_sum(found * found)
    first = np.zeros((int(zero_row), 4))
    for row, present in enumerate(mask):
        np.testing.assert_allclose(found[row], attend(queries[row], np.concatenate([first, keys[row, present]])), rtol=1e-4, atol=1e-5)
    by_query, by_key = tape.gradient(total, [q, k])
    assert np.isfinite(by_query).all()
    assert np.isfinite(by_key).all()
    assert not by_key.numpy()[~mask].any()


def test_attend_reads_nothing_where_there_is_nothing():
    for length, zero_row in [(0, True), (0, False), (4, True), (4, False)]:
        found = attention.attend(tf.ones([2, 3, 8]), tf.ones([2, length, 8]), tf.zeros([2, length], tf.bool), zero_row=zero_row)
        np.testing.assert_array_equal(found, np.zeros((2, 3, 8)))


def test_the_zero_row_takes_the_weight_of_a_poor_match():
    queries, keys, mask = tf.constant([[[1.0, 0.0]]]), tf.constant([[[-20.0, 1.0]]]), tf.constant([[True]])
    np.testing.assert_allclose(attention.attend(queries, keys, mask)[0, 0], [0, 0], atol=1e-6)
    np.testing.assert_allclose(attention.attend(queries, keys, mask, zero_row=False)[0, 0], [-20, 1])


def test_attend_ignores_the_order_of_the_sequence():
    order = RNG.permutation(6)
    found = attention.attend(X[:, :2], X, tf.constant(HOLES))
    np.testing.assert_allclose(attention.attend(X[:, :2], X[:, order], tf.constant(HOLES[:, order])), found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("kind", "values"), CASES)
def test_contract(tmp_path, kind, values):
    run_layer_test(lambda: Several(kind, values), (X, HOLES), (6, 8), tmp_path)


@pytest.mark.parametrize("residual", [False, True])
def test_contract_without_mask(tmp_path, residual):
    run_layer_test(lambda: SelfAttention(2, residual), X, (6, 8), tmp_path)


@pytest.mark.parametrize("mask", [MASK, HOLES, np.ones_like(MASK), np.zeros_like(MASK)])
@pytest.mark.parametrize(("kind", "values"), CASES)
def test_layers_equal_numpy(kind, values, mask):
    layer = make(kind, values)
    expected = by_row(lambda x: ORACLES[kind](x, layer), X, mask, 8)
    np.testing.assert_allclose(layer(X, tf.constant(mask)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("residual", [False, True])
def test_no_mask_means_all_present(residual):
    layer = make("SelfAttention", {"heads": 4, "residual": residual})
    np.testing.assert_allclose(layer(X), np.stack([self_attention(x, layer) for x in X]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("residual", [False, True])
def test_read_is_the_first_place_of_all(residual):
    layer, start = make("SelfAttention", {"heads": 4, "residual": residual}), tf.Variable(RNG.normal(size=8), dtype=tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        whole = layer(tf.concat([tf.repeat(start[None, None], len(X), 0), X], axis=1))[:, 0]
        read = layer.read(start, X)
        totals = [tf.reduce_sum(output**3) for output in (whole, read)]
    np.testing.assert_allclose(read, whole, rtol=1e-4, atol=1e-5)
    for a, b in zip(*(tape.gradient(total, [start, *layer.trainable_variables]) for total in totals), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_read_works_on_a_layer_that_was_not_called():
    layer, start = SelfAttention(2), tf.ones([8])
    found = layer.read(start, X)
    np.testing.assert_allclose(layer(tf.concat([tf.ones([len(X), 1, 8]), X], axis=1))[:, 0], found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "values"), CASES)
@settings(max_examples=15)
@given(data=st.data())
def test_masked_places_change_nothing(kind, values, data):
    layer, mask = make(kind, values), data.draw(masks)
    at, garbage = data.draw(st.integers(0, mask.shape[1])), data.draw(st.sampled_from([0.0, 1e30, np.nan, np.inf]))
    x = RNG.normal(size=(*mask.shape, 8)).astype(np.float32)
    wide = tf.constant(np.insert(x, at, np.float32(garbage), axis=1))
    with tf.GradientTape() as tape:
        tape.watch(wide)
        found = layer(wide, tf.constant(np.insert(mask, at, False, axis=1)))
    gradients = tape.gradient(found, [wide, *layer.trainable_variables])
    assert all(np.isfinite(tf.convert_to_tensor(gradient)).all() for gradient in gradients)
    assert not gradients[0][:, at].numpy().any()
    assert not found[:, at].numpy().any()
    np.testing.assert_allclose(np.delete(found, at, axis=1), layer(tf.constant(x), tf.constant(mask)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "values"), CASES)
def test_outputs_move_with_their_inputs(kind, values):
    layer, order = make(kind, values), RNG.permutation(6)
    moved = layer(tf.constant(X[:, order]), tf.constant(HOLES[:, order]))
    np.testing.assert_allclose(moved, layer(X, tf.constant(HOLES)).numpy()[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "values"), CASES)
def test_any_batch_and_length_in_a_graph(kind, values):
    layer = make(kind, values)
    graph = tf.function(layer, input_signature=[tf.TensorSpec([None, None, 8]), tf.TensorSpec([None, None], tf.bool)])
    for rows, length in [(5, 6), (2, 1), (1, 0), (0, 3), (0, 0), (70, 3)]:
        x, mask = np.resize(X, (rows, length, 8)), np.resize(HOLES, (rows, length))
        expected = by_row(lambda x: ORACLES[kind](x, layer), x, mask, 8)
        np.testing.assert_allclose(graph(x, tf.constant(mask)), expected, rtol=1e-4, atol=1e-5)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ConfigError, match=r"`heads` must be a divisor of the inputs' width, 8\. Received: 3"):
        SelfAttention(3)(X)
    with pytest.raises(ConfigError, match=r"`heads` must be a whole number of at least 1\. Received: 0"):
        TransformerLayer(0)(X, tf.constant(MASK))
