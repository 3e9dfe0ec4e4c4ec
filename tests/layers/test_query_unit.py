"""The query unit: each of its six rows against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from layer_oracles import attend, transformer

from tfebr.errors import ConfigError
from tfebr.layers.embedding_bag import EmbeddingBag
from tfebr.layers.query_unit import QueryUnit

RNG = np.random.default_rng(0)
DIM, VOCABULARY, LENGTH = 8, 12, 4
# The last row is an empty query, the row before it has no past queries.
IDS = {
    "one_gram": np.array([[3, 4, 4, 0, 0], [1, 0, 0, 0, 0], [5, 6, 7, 8, 9], [0] * 5], np.int32),
    "two_gram": np.array([[3, 4, 0], [0, 0, 0], [5, 6, 7], [0] * 3], np.int32),
    "words": np.array([[3, 4, 0, 0], [1, 0, 0, 0], [5, 6, 7, 7], [0] * 4], np.int32),
    "history_words": np.array(
        [[[3, 9, 0], [0, 0, 0], [2, 0, 0]], [[3, 3, 3], [1, 2, 0], [9, 9, 8]], [[0] * 3] * 3, [[4, 0, 0], [0] * 3, [0] * 3]], np.int32
    ),
}
INPUTS = tuple(IDS.values())


class Unit(tf.keras.layers.Layer):
    """The unit with tables of its own, called with a tuple."""

    def __init__(self, depth: int = 1):
        super().__init__()
        tables = [EmbeddingBag(VOCABULARY, DIM, name=name) for name in ("one_gram", "two_gram", "words")]
        self.unit = QueryUnit(*tables, word_length=LENGTH, heads=2, depth=depth)

    def call(self, inputs):
        return self.unit(*inputs)


def make(depth: int = 1) -> QueryUnit:
    """With weights large enough that attention is not uniform."""
    layer = Unit(depth)
    layer(INPUTS)
    for variable in layer.trainable_variables:
        variable.assign_add(0.5 * RNG.normal(size=variable.shape))
    return layer.unit


def expected_rows(unit: QueryUnit, ones, pairs, words, history) -> np.ndarray:
    one_gram, two_gram, table = (bag.table.numpy() for bag in (unit.one_gram, unit.two_gram, unit.words))
    mean = lambda rows: np.mean(rows, axis=0) if len(rows) else np.zeros(DIM)  # noqa: E731
    found = []
    for one, pair, word, past in zip(ones, pairs, words, history, strict=True):
        segmented = mean(table[word[word > 0]])
        sequence = (table[word] + unit.positions.numpy()[: len(word)])[word > 0]
        for layer in unit.transformer:
            sequence = transformer(sequence, layer) if len(sequence) else sequence
        keys = [mean(table[text[text > 0]]) for text in past if text.any()]
        read = attend(segmented[None], np.reshape(keys, [-1, DIM]))[0]
        rows = [mean(one_gram[one[one > 0]]), mean(two_gram[pair[pair > 0]]), segmented, mean(sequence), read]
        found.append([*rows, sum(rows)])
    return np.array(found)


@pytest.mark.parametrize("depth", [0, 1])
def test_contract(tmp_path, depth):
    run_layer_test(lambda: Unit(depth), INPUTS, (6, DIM), tmp_path, config=False)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_each_row_equals_numpy(depth):
    unit = make(depth)
    found, expected = unit(*INPUTS), expected_rows(unit, *INPUTS)
    for row, name in enumerate(["q_1gram", "q_2gram", "q_seg", "q_seg_seq", "q_his_seq", "q_mix"]):
        np.testing.assert_allclose(found[:, row], expected[:, row], rtol=1e-4, atol=1e-5, err_msg=name)


def test_an_empty_query_is_zero_in_the_rows_that_read_it():
    found = make()(*INPUTS)[3].numpy()
    assert not found[:4].any()
    assert found[4].any()
    assert not make()(*(np.zeros_like(ids) for ids in INPUTS)).numpy().any()


def test_no_past_queries_are_a_zero_row_however_they_are_given():
    unit = make()
    empty = unit(*INPUTS[:3], np.zeros_like(INPUTS[3]))
    assert not empty[:, 4].numpy().any()
    for none in ((4, 0, 3), (4, 3, 0)):
        np.testing.assert_allclose(unit(*INPUTS[:3], np.zeros(none, np.int32)), empty, rtol=1e-5, atol=1e-6)


@settings(max_examples=15)
@given(st.data())
def test_padding_changes_nothing(data):
    unit = make()
    sizes = [(3, data.draw(st.integers(0, 3))) for _ in range(3)] + [(3, data.draw(st.integers(0, 2)), data.draw(st.integers(1, 3)))]
    inputs = [data.draw(hnp.arrays(np.int32, size, elements=st.integers(0, VOCABULARY - 1))) for size in sizes]
    wider = [np.pad(ids, [(0, 0)] + [(0, 1)] * (ids.ndim - 1)) for ids in inputs]
    found = unit(*wider)
    np.testing.assert_allclose(found, unit(*inputs), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, expected_rows(unit, *inputs), rtol=1e-3, atol=1e-4)


def test_past_queries_are_read_in_any_order_and_words_are_not():
    unit = make()
    np.testing.assert_allclose(unit(*INPUTS[:3], INPUTS[3][:, ::-1]), unit(*INPUTS), rtol=1e-4, atol=1e-5)
    swapped = INPUTS[2].copy()
    swapped[0, :2] = swapped[0, 1::-1]
    found = unit(*INPUTS[:2], swapped, INPUTS[3])
    np.testing.assert_allclose(found[:, 2], unit(*INPUTS)[:, 2], rtol=1e-5, atol=1e-6)
    assert not np.allclose(found[0, 3], unit(*INPUTS)[0, 3], rtol=1e-2)


def test_the_tables_are_the_ones_given_and_padding_is_never_learned():
    unit = make()
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(unit(*INPUTS) ** 2)
    tables = [unit.one_gram.table, unit.two_gram.table, unit.words.table]
    for table, gradient in zip(tables, tape.gradient(total, tables), strict=True):
        assert sum(variable is table for variable in unit.trainable_variables) == 1
        gradient = tf.convert_to_tensor(gradient).numpy()
        assert gradient.any()
        assert not gradient[0].any()


def test_any_batch_and_length_in_a_graph():
    unit = make()
    specs = [tf.TensorSpec([None] * ids.ndim, tf.int32) for ids in INPUTS]
    graph = tf.function(lambda *inputs: unit(*inputs), input_signature=specs)
    for rows in (4, 1, 0):
        inputs = [ids[:rows] for ids in INPUTS]
        np.testing.assert_allclose(graph(*inputs), expected_rows(unit, *inputs).reshape(rows, 6, DIM), rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"one width\. Received: \[8, 4, 8\]"):
        QueryUnit(EmbeddingBag(3, 8), EmbeddingBag(3, 4), EmbeddingBag(3, 8), word_length=4)
    with pytest.raises(ConfigError, match=r"`word_length` = 4 words\. Received: 5"):
        make()(*INPUTS[:2], np.ones((4, 5), np.int32), INPUTS[3])
