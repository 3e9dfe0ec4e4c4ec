"""A plain TFRS program with a task of tfebr in the place of TFRS's own."""

import tfebr  # noqa: F401, I001  # first: it selects the Keras that TFRS needs
import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfebr.index import IndexTopK
from tfebr.tasks import SoftmaxRetrieval

ITEMS = np.array([f"item {i}" for i in range(200)])
PAIRS = tf.data.Dataset.from_tensor_slices({"query": ITEMS, "item": ITEMS}).shuffle(200, seed=1)


def tower() -> tf.keras.Model:
    return tf.keras.Sequential([tf.keras.layers.StringLookup(vocabulary=ITEMS), tf.keras.layers.Embedding(len(ITEMS) + 1, 16)])


class Model(tfrs.Model):
    def __init__(self):
        super().__init__()
        self.query_model, self.candidate_model = tower(), tower()
        # Hardest negatives mixed with the positive, as MGDSPR has them.
        self.task = SoftmaxRetrieval(temperature=0.2, hard=20)

    def compute_loss(self, features, training=False):
        return self.task(self.query_model(features["query"]), self.candidate_model(features["item"]), candidate_ids=features["item"])


model = Model()
model.compile(optimizer=tf.keras.optimizers.Adam(0.05))
history = model.fit(PAIRS.batch(50), epochs=20, verbose=0)
index = IndexTopK(k=1).index(model.candidate_model(ITEMS), ITEMS)
metric = tfrs.metrics.FactorizedTopK(candidates=index, ks=(1,))
metric.update_state(model.query_model(ITEMS), model.candidate_model(ITEMS), true_candidate_ids=tf.constant(ITEMS))
print(f"loss {history.history['loss'][-1]:.3f}, first of all items found for {float(metric.result()[0]):.0%} of the queries")
