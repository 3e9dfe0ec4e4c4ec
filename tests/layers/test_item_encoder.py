"""The item encoder: titles and categories to one vector, through tables that the query side shares."""

import numpy as np
import pytest
import tensorflow as tf
from harness import run_layer_test

from tfebr.layers.embedding_bag import EmbeddingBag, TextBag
from tfebr.layers.item_encoder import ItemEncoder

ITEMS = {
    "title_words": np.array([[1, 2, 0], [0, 0, 0], [4, 4, 3]], np.int32),
    "title_trigrams": np.array([[1], [0], [6]], np.int32),
    "brand": np.array([1, 0, 2], np.int32),
    "shop": np.array([0, 3, 1], np.int32),
}


def make(columns: tuple[str, ...] = ("brand", "shop"), **settings) -> ItemEncoder:
    text = TextBag({"words": 5, "trigrams": 7}, 4, name="text")
    return ItemEncoder(text, {c: EmbeddingBag(4, 4, name=c) for c in columns}, **{"hidden": (6,), "dim": 4} | settings)


@pytest.mark.parametrize(("columns", "settings"), [(("brand", "shop"), {}), ((), {}), (("shop",), {"normalize": False})])
def test_contract(tmp_path, columns, settings):
    run_layer_test(lambda: make(columns, **settings), ITEMS, (4,), tmp_path, config=False, mixed=tf.float32)


def test_the_encoder_reads_pooled_title_and_categories():
    layer = make(normalize=False)
    found = layer(ITEMS)
    words, trigrams = (layer.text.bags[g].table.numpy() for g in ("words", "trigrams"))
    brand, shop = (layer.columns[c].table.numpy() for c in ("brand", "shop"))
    title = [np.mean([words[1], words[2], trigrams[1]], axis=0), np.zeros(4), np.mean([words[4], words[4], words[3], trigrams[6]], axis=0)]
    zero = np.zeros(4)
    parts = [title, [brand[1], zero, brand[2]], [zero, shop[3], shop[1]]]
    expected = layer.encoder([np.array(part, np.float32) for part in parts])
    np.testing.assert_allclose(found, expected[:, 0], rtol=1e-4, atol=1e-6)


def test_the_tables_are_the_ones_given():
    layer = make()
    layer(ITEMS)
    shared = layer.text.bags["words"].table
    assert sum(v is shared for v in layer.trainable_variables) == 1
