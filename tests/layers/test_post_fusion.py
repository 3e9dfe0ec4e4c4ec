"""Post-fusion: each reading against NumPy, the score as one inner product, and what vectors without a direction do."""

import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test
from layer_oracles import post_fusion, to_length

from tfebr.errors import ConfigError
from tfebr.layers.post_fusion import FUSIONS, PostFusion

RNG = np.random.default_rng(0)
DIM = 6
QUERIES, USERS = RNG.normal(size=(2, 4, DIM)).astype(np.float32)
WIDTH = {"late": DIM, "gated": DIM, "score": 2 * DIM}


def make(fusion: str, normalize: bool = True) -> PostFusion:
    """With weights of a size that tells every term apart."""
    layer = PostFusion(fusion, normalize)
    layer((QUERIES, USERS))
    for variable in layer.trainable_variables:
        variable.assign_add(0.5 * RNG.normal(size=variable.shape))
    return layer


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_contract(tmp_path, fusion, normalize):
    run_layer_test(
        lambda: PostFusion(fusion, normalize), (QUERIES, USERS), (WIDTH[fusion],), tmp_path, mixed=tf.float32 if normalize else tf.bfloat16
    )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_equals_numpy(fusion, normalize):
    layer = make(fusion, normalize)
    expected = [post_fusion(query, user, layer) for query, user in zip(QUERIES, USERS, strict=True)]
    np.testing.assert_allclose(layer((QUERIES, USERS)), expected, rtol=1e-4, atol=1e-5)


def test_the_fused_score_is_one_inner_product():
    layer = make("score")
    first, second = RNG.normal(size=(2, 5, DIM)).astype(np.float32)
    share = 1 / (1 + np.exp(-float(layer.balance)))
    assert 0 < share < 1
    assert abs(share - 0.5) > 0.01
    by_query = np.array([[to_length(t) @ to_length(v) for v in first] for t in QUERIES])
    by_user = np.array([[to_length(h) @ to_length(v) for v in second] for h in USERS])
    items = np.concatenate([[to_length(v) for v in first], [to_length(v) for v in second]], axis=1)
    found = layer((QUERIES, USERS)).numpy() @ items.T
    np.testing.assert_allclose(found, share * by_query + (1 - share) * by_user, rtol=1e-4, atol=1e-5)


def test_late_starts_as_the_query_and_every_reading_reads_the_user():
    start = PostFusion("late")((QUERIES, USERS)).numpy()
    assert all(found @ to_length(query) > 0.95 for found, query in zip(start, QUERIES, strict=True))
    for fusion in FUSIONS:
        layer = make(fusion)
        found, other = layer((QUERIES, USERS)).numpy(), layer((QUERIES, USERS[::-1])).numpy()
        assert np.abs(found - other).max(axis=1).min() > 1e-2, fusion


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_empty_query_and_an_empty_user_are_finite(fusion):
    layer = make(fusion)
    for query, user in ((0, 1), (1, 0), (0, 0)):
        inputs = tf.constant(query * QUERIES), tf.constant(user * USERS)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            found = layer(inputs)
        assert np.isfinite(found).all()
        for gradient in tape.gradient(found, [*inputs, *layer.trainable_variables], unconnected_gradients="zero"):
            assert np.isfinite(gradient).all()
    assert not PostFusion(fusion)((0 * QUERIES, 0 * USERS)).numpy().any()


def test_an_unknown_fusion_is_named():
    with pytest.raises(ConfigError, match=r"`fusion` must be one of late, gated, score\. Received: 'early'"):
        PostFusion("early")
