"""Heads: separate weights for each head, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test

from tfebr.layers.heads import HeadsDense, MultiHeadEncoder

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3, 6)).astype(np.float32)
PARTS = [RNG.normal(size=(4, width)).astype(np.float32) for width in (5, 3, 5)]
GATES = (1.0, None, 0.2)
ENCODER = [
    {},
    {"heads": 1},
    {"share_mlp": True},
    {"hidden": ()},
    {"hidden": (), "share_mlp": True},
    {"gates": GATES},
    {"gates": GATES, "share_mlp": True, "heads": 2},
    {"normalize": False},
]


def encoder(**changes) -> MultiHeadEncoder:
    """A built encoder of three parts."""
    layer = MultiHeadEncoder(**{"heads": 3, "hidden": (8, 7), "dim": 5} | changes)
    layer(PARTS)
    return layer


@pytest.mark.parametrize("settings", [{}, {"activation": "relu"}, {"shared": True}, {"scale": 0.1}])
def test_dense_contract(tmp_path, settings):
    run_layer_test(lambda: HeadsDense(3, 4, **settings), X, (3, 4), tmp_path)


@pytest.mark.parametrize("settings", ENCODER)
def test_encoder_contract(tmp_path, settings):
    make = lambda: MultiHeadEncoder(**{"heads": 3, "hidden": (8, 7), "dim": 5} | settings)  # noqa: E731
    mixed = tf.float32 if settings.get("normalize", True) else tf.bfloat16
    run_layer_test(make, PARTS, (settings.get("heads", 3), 5), tmp_path, mixed=mixed)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
def test_dense_equals_a_loop_over_heads(shared, heads):
    dense = HeadsDense(heads, 4, "relu", shared=shared)
    dense(X[:, :heads])
    dense.bias.assign(RNG.normal(size=dense.bias.shape))
    found, kernel, bias = dense(X[:, :heads]), dense.kernel.numpy(), dense.bias.numpy()
    assert len(kernel) == (1 if shared else heads)
    for head in range(heads):
        weights = 0 if shared else head
        np.testing.assert_allclose(found[:, head], np.maximum(X[:, head] @ kernel[weights] + bias[weights], 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", ENCODER)
def test_encoder_equals_numpy(settings):
    layer = encoder(**settings)
    if layer.gates:
        layer.gate.assign(RNG.normal(size=layer.gate.shape))
    found = layer(PARTS)
    for head in range(layer.heads):
        z = np.concatenate(PARTS, axis=1)
        for number, dense in enumerate(layer.layers):
            weights = head if dense.kernel.shape[0] > 1 else 0
            z = z @ dense.kernel[weights].numpy() + dense.bias[weights].numpy()
            z = np.maximum(z, 0) if number < len(layer.hidden) else z
        if layer.gates:
            z = z + PARTS[0] * layer.gate[0, head].numpy() + PARTS[2] * layer.gate[1, head].numpy()
        z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-6) if layer.normalize else z
        np.testing.assert_allclose(found[:, head], z, rtol=1e-4, atol=1e-5)


def test_sharing_keeps_a_projection_for_each_head():
    assert [dense.kernel.shape[0] for dense in encoder(share_mlp=True).layers] == [3, 1, 1]
    assert [dense.kernel.shape[0] for dense in encoder(share_mlp=False).layers] == [3, 3, 3]
    found = encoder(share_mlp=True)(PARTS).numpy()
    assert not np.allclose(found[:, 0], found[:, 1])


def test_gated_parts_lead_at_the_start():
    found = encoder(gates=(1.0, None, None), heads=2)(PARTS).numpy()
    cosines = (found * (PARTS[0] / np.linalg.norm(PARTS[0], axis=1, keepdims=True))[:, None]).sum(-1)
    assert cosines.min() > 0.9
    np.testing.assert_array_equal(encoder(gates=GATES).gate, np.float32([[1, 1, 1], [0.2, 0.2, 0.2]]))


def test_zero_input_stays_finite():
    for settings in ENCODER:
        assert np.isfinite(encoder(**settings)([np.zeros_like(part) for part in PARTS])).all()
