"""The text encoder: pooled tokens plus what a Transformer makes of the words, against NumPy over rows without padding."""

import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from layer_oracles import pooled, text_encoder

from tfebr.errors import ConfigError
from tfebr.layers.embedding_bag import TextBag
from tfebr.layers.text_encoder import TextEncoder

RNG = np.random.default_rng(0)
DIM, LENGTH, SIZES = 4, 5, {"words": 9, "trigrams": 12}
# The last row is an empty query; the row before it has no known trigram.
IDS = {
    "words": np.array([[3, 4, 4, 0, 0], [1, 2, 5, 6, 7], [8, 0, 0, 0, 0], [0] * 5], np.int32),
    "trigrams": np.array([[1, 2, 0, 0], [11, 10, 9, 8], [0] * 4, [0] * 4], np.int32),
}
WAYS = [
    {},
    {"depth": 0, "hidden": (6,)},
    {"depth": 2, "heads": 1, "gated": False},
    {"depth": 1, "hidden": (6, 3)},
    {"words": "trigrams", "length": 4},
]


def fresh(**changes) -> TextEncoder:
    values = {"words": "words", "length": LENGTH, "heads": 2} | changes
    return TextEncoder(TextBag(SIZES, DIM), **values)


def make(**changes) -> TextEncoder:
    """With weights of a size that tells every term apart."""
    layer = fresh(**changes)
    layer(IDS)
    for variable in layer.trainable_variables:
        variable.assign_add(0.5 * RNG.normal(size=variable.shape))
    return layer


def expected(layer: TextEncoder, ids: dict[str, np.ndarray]) -> np.ndarray:
    rows = range(len(ids["words"]))
    return np.array([text_encoder({grain: of_grain[row] for grain, of_grain in ids.items()}, layer) for row in rows])


@pytest.mark.parametrize("changes", [{}, {"depth": 0, "hidden": (6,), "gated": False}])
def test_contract(tmp_path, changes):
    run_layer_test(lambda: fresh(**changes), IDS, (DIM,), tmp_path, config=False)


@pytest.mark.parametrize("changes", WAYS)
def test_equals_numpy(changes):
    layer = make(**changes)
    np.testing.assert_allclose(layer(IDS), expected(layer, IDS), rtol=1e-3, atol=1e-4)


@settings(max_examples=12)
@given(st.data())
def test_padding_changes_nothing(data):
    layer = make()
    shapes = {"words": (3, data.draw(st.integers(1, LENGTH - 1))), "trigrams": (3, data.draw(st.integers(1, 3)))}
    ids = {g: data.draw(hnp.arrays(np.int32, shape, elements=st.integers(0, SIZES[g] - 1))) for g, shape in shapes.items()}
    # A query's tokens stand at its start; there, words have their positions.
    ids = {g: np.array([sorted(row, key=lambda n: n == 0) for row in of_grain], np.int32) for g, of_grain in ids.items()}
    wider = {g: np.pad(of_grain, [(0, 0), (0, 1)]) for g, of_grain in ids.items()}
    np.testing.assert_allclose(layer(wider), layer(ids), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer(wider), expected(layer, ids), rtol=1e-3, atol=1e-4)


def test_an_empty_query_is_zero_at_the_start_and_finite_ever_after():
    nothing = {grain: np.zeros_like(ids) for grain, ids in IDS.items()}
    assert not fresh()(nothing).numpy().any()
    layer = make()
    with tf.GradientTape() as tape:
        found = layer(nothing)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
    for gradient in tape.gradient(found, layer.trainable_variables, unconnected_gradients="zero"):
        assert np.isfinite(tf.convert_to_tensor(gradient)).all()


def test_it_starts_near_the_pooled_tokens_where_gated():
    layer = fresh(depth=1, hidden=(6,))
    found = layer(IDS).numpy()
    for row in range(3):
        start = pooled(layer.text.bags, {grain: ids[row] for grain, ids in IDS.items()})
        cosine = found[row] @ start / np.linalg.norm(found[row]) / np.linalg.norm(start)
        assert cosine > 0.8


def test_the_order_of_words_is_read_by_the_transformer_alone():
    swapped = IDS | {"words": IDS["words"][:, [1, 0, 2, 3, 4]]}
    for depth, reads in ((0, False), (1, True)):
        layer = make(depth=depth)
        same = np.allclose(layer(IDS)[0], layer(swapped)[0], rtol=1e-4, atol=1e-5)
        assert same is not reads


def test_the_tables_are_the_ones_given():
    layer = make()
    for bag in layer.text.bags.values():
        assert sum(variable is bag.table for variable in layer.trainable_variables) == 1


def test_an_unknown_grain_is_named():
    with pytest.raises(ConfigError, match=r"`words` must be one of words, trigrams\. Received: 'bigrams'"):
        fresh(words="bigrams")
