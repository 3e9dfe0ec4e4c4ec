"""The user encoder: profile and what the query finds in the history, against NumPy over events without padding."""

import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from layer_oracles import user_encoder

from tfebr.data.stage import Stage
from tfebr.layers.embedding_bag import EmbeddingBag
from tfebr.layers.user_encoder import UserEncoder

RNG = np.random.default_rng(0)
DIM, ITEMS, BRANDS = 6, 20, 5
# Row 1 has no history, row 2 one event, row 3 a full one; row 0's second event is of an unknown stage, its third of an unknown brand.
INPUTS = {
    "query": RNG.normal(size=(4, DIM)).astype(np.float32),
    "user_age": np.array([1, 2, 0, 3], np.int32),
    "user_city": np.array([4, 0, 0, 1], np.int32),
    "history_items": np.array([[3, 4, 5, 0, 0], [0] * 5, [19, 0, 0, 0, 0], [1, 2, 3, 3, 1]], np.int32),
    "history_brand": np.array([[1, 2, 0, 0, 0], [0] * 5, [4, 0, 0, 0, 0], [1, 2, 3, 3, 1]], np.int32),
    "history_stages": np.array([[1, 0, 2, 0, 0], [0] * 5, [3, 0, 0, 0, 0], [3, 2, 1, 1, 3]], np.int32),
}
HISTORY = [name for name in INPUTS if name.startswith("history")]


def fresh(events: bool = True, profile: bool = True) -> UserEncoder:
    of_events = {"items": EmbeddingBag(ITEMS, 4), "brand": EmbeddingBag(BRANDS, 3)} if events else {}
    return UserEncoder(of_events, {"age": EmbeddingBag(5, 2), "city": EmbeddingBag(6, 3)} if profile else {}, DIM)


def make(**changes) -> UserEncoder:
    """With weights of a size that tells every term apart."""
    layer = fresh(**changes)
    layer(INPUTS)
    for variable in layer.trainable_variables:
        variable.assign_add(0.5 * RNG.normal(size=variable.shape))
    return layer


def expected(layer: UserEncoder, inputs: dict[str, np.ndarray]) -> np.ndarray:
    rows = [{name: values[row] for name, values in inputs.items()} for row in range(len(inputs["query"]))]
    return np.array([user_encoder(row["query"], row, layer) for row in rows])


@pytest.mark.parametrize("changes", [{}, {"events": False}, {"profile": False}])
def test_contract(tmp_path, changes):
    run_layer_test(lambda: fresh(**changes), INPUTS, (DIM,), tmp_path, config=False)


@pytest.mark.parametrize("changes", [{}, {"events": False}, {"profile": False}])
def test_equals_numpy(changes):
    layer = make(**changes)
    np.testing.assert_allclose(layer(INPUTS), expected(layer, INPUTS), rtol=1e-4, atol=1e-4)


@settings(max_examples=15)
@given(st.data(), st.integers(0, 6), st.integers(0, 3))
def test_padding_changes_nothing(data, events, padding):
    layer = make()
    draw = lambda most: data.draw(hnp.arrays(np.int32, (4, events), elements=st.integers(0, most)))  # noqa: E731
    items = draw(ITEMS - 1)
    history = {"history_items": items} | {n: np.where(items, draw(m), 0) for n, m in (("history_brand", 4), ("history_stages", 3))}
    wider = {name: np.pad(values, [(0, 0), (0, padding)]).astype(np.int32) for name, values in history.items()}
    np.testing.assert_allclose(layer(INPUTS | wider), expected(layer, INPUTS | history), rtol=1e-3, atol=1e-4)


def test_what_stands_where_there_is_no_event_is_not_read():
    layer, there = make(), INPUTS["history_items"] > 0
    garbage = {name: np.where(there, INPUTS[name], 3).astype(np.int32) for name in HISTORY[1:]}
    np.testing.assert_allclose(layer(INPUTS | garbage), layer(INPUTS), rtol=1e-5, atol=1e-6)


def test_an_empty_history_adds_nothing_and_is_finite():
    layer = make()
    empty = INPUTS | {name: np.zeros_like(INPUTS[name]) for name in HISTORY}
    without = INPUTS | {name: INPUTS[name][:, :0] for name in HISTORY}
    kernel, bias = layer.join.get_weights()
    profile = np.concatenate([layer.profile[column](INPUTS[f"user_{column}"][:, None]) for column in ("age", "city")], axis=1)
    for inputs in (empty, without, empty | {"query": 0 * INPUTS["query"]}):
        with tf.GradientTape() as tape:
            found = layer(inputs)
        np.testing.assert_allclose(found, profile @ kernel[: profile.shape[1]] + bias, rtol=1e-4, atol=1e-5)
        for gradient in tape.gradient(found, layer.trainable_variables, unconnected_gradients="zero"):
            assert np.isfinite(tf.convert_to_tensor(gradient)).all()


def test_stages_are_told_apart_and_an_unknown_one_is_a_click():
    layer, found = make(), []
    for stage in Stage:
        found.append(layer(INPUTS | {"history_stages": np.where(INPUTS["history_items"], int(stage), 0).astype(np.int32)}).numpy())
    np.testing.assert_array_equal(found[Stage.UNCLICKED], found[Stage.CLICKED])
    for later, earlier in ((Stage.CARTED, Stage.CLICKED), (Stage.ORDERED, Stage.CARTED)):
        assert np.abs(found[later] - found[earlier]).max() > 1e-2


def test_the_order_of_events_does_not_matter_and_the_query_does():
    layer = make()
    turned = INPUTS | {name: INPUTS[name][:, ::-1] for name in HISTORY}
    np.testing.assert_allclose(layer(turned), layer(INPUTS), rtol=1e-4, atol=1e-5)
    other = layer(INPUTS | {"query": -INPUTS["query"]}).numpy()
    assert np.abs(other - layer(INPUTS))[[0, 2, 3]].max(axis=1).min() > 1e-2
    np.testing.assert_allclose(other[1], layer(INPUTS)[1], rtol=1e-5, atol=1e-6, err_msg="there is nothing to find")
