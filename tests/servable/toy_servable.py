"""A servable small enough for tests: queries and items are embedded by hashing their strings."""

import importlib
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from tfebr.data.item_ids import ItemIds
from tfebr.index.attributes import ItemAttributes
from tfebr.index.exact import ExactIndex
from tfebr.index.recipe import Recipe
from tfebr.index.scann import ScannIndex
from tfebr.servable.module import RetrievalServable

ITEMS, DIM, HEADS, K = 300, 8, 2, 20
EMBEDDINGS = np.random.default_rng(5).normal(size=(ITEMS, DIM)).astype(np.float32)
IDS = [f"sku-{i}" for i in range(ITEMS)]
TREE = Recipe("tree", leaves=4, leaves_to_search=4, reorder=300)


class ToyQueries(tf.Module):
    """Heads of the query's hash and of the last history item's own embedding; age "nan" gives NaN."""

    input_signature: ClassVar = {
        "query": tf.TensorSpec([None], tf.string),
        "user_age": tf.TensorSpec([None], tf.string),
        "history_items": tf.TensorSpec([None, None], tf.string),
        "prices": tf.TensorSpec([None, 3], tf.float32),
    }

    def __init__(self, ids):
        super().__init__()
        self.ids = ids
        # Drawn anew, so that what a test finds does not depend on the tests before it.
        self.table = tf.Variable(np.random.default_rng(6).normal(size=(64, DIM)).astype(np.float32), trainable=False)
        self.items = tf.Variable(np.vstack([np.zeros((1, DIM), np.float32), EMBEDDINGS]), trainable=False)

    def __call__(self, inputs):
        words = tf.gather(self.table, tf.strings.to_hash_bucket_fast(inputs["query"], 64))
        words += tf.where(inputs["user_age"] == "nan", np.nan, tf.reduce_sum(inputs["prices"], axis=1))[:, None]
        history = tf.reduce_sum(tf.gather(self.items, self.ids.lookup(inputs["history_items"])), axis=1)
        return tf.stack([words, history], axis=1)


class ToyItems(tf.Module):
    input_signature: ClassVar = {"title": tf.TensorSpec([None], tf.string)}

    def __init__(self):
        super().__init__()
        self.table = tf.Variable(EMBEDDINGS[:64], trainable=False)

    def __call__(self, inputs):
        bad = tf.where(inputs["title"] == "nan", np.nan, 0.0)
        return tf.gather(self.table, tf.strings.to_hash_bucket_fast(inputs["title"], 64)) + bad[:, None]


class ToyIntent(tf.Module):
    """Who writes "cheap" wants a price below 10; who writes "sony", that brand."""

    def __call__(self, queries):
        cheap = tf.where(tf.strings.regex_full_match(queries, ".*cheap.*"), "price=..10", "")
        return tf.stack([cheap, tf.where(tf.strings.regex_full_match(queries, ".*sony.*"), "brand=Sony", "")], axis=1)


# Odd names and values on purpose.
COLUMNS = {
    "brand": [["Sony", "LG", "a|b", "50%", ""][i % 5] for i in range(ITEMS)],
    "Größe in %": [["S", "M", "L"][i % 3] for i in range(ITEMS)],
    "price": [i / 2 for i in range(ITEMS)],
}


def toy_servable(kind="exact", default_k=K, columns=None, intent=None, item_encoder=None, query_encoder=ToyQueries):
    ids = ItemIds(np.array(IDS))
    index = ExactIndex(EMBEDDINGS) if kind == "exact" else ScannIndex(EMBEDDINGS, TREE)
    attributes = ItemAttributes(pa.table(columns)) if columns else None
    return RetrievalServable(query_encoder(ids), item_encoder or ToyItems(), index, ids, default_k, attributes, intent)


QUESTIONS = [{"query": ["red shoes"]}, {"query": ["a", ""], "history_items": [["sku-4"], []], "prices": [[1, 2, 3], [0, 0, 0]]}]


def write_unchecked(servable, base, questions=QUESTIONS, report=None):
    """Writes a version without the check in a fresh process, which takes seconds, for tests of something else."""
    # The room's public function has the name of its module, which an import gives only sometimes.
    module = importlib.import_module("tfebr.servable.write")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_check_in_fresh_process", lambda folder: {"ok": True})
        return module.write(servable, base, {}, questions, report)
