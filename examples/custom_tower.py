"""A tower of one's own: the query's tokens are weighted by a learned gate before they are averaged.

    tfebr train shop run --model examples/custom_tower.py:weighted
"""

import tensorflow as tf

from tfebr.models import TwoTower, register


class WeightedQueryTower(tf.keras.Model):
    """sum_t g_t v_t with g = softmax(v w): feature dict -> [batch, 1, dim]."""

    def __init__(self, tables):
        super().__init__(name="query_tower")
        self.text = tables.query
        self.gate = tf.keras.layers.Dense(1, name="gate")

    def call(self, features, training=False):
        ids = {grain: features[f"query_{grain}"] for grain in self.text.sizes}
        tokens = tf.concat([self.text.bags[grain].sequence(ids[grain]) for grain in ids], axis=1)
        present = tf.concat([ids[grain] > 0 for grain in ids], axis=1)
        weights = tf.nn.softmax(tf.where(present, self.gate(tokens)[..., 0], -1e9), axis=1)
        return tf.einsum("bt,btd->bd", weights, tokens)[:, None]


@register("weighted")
class Weighted(TwoTower):
    """The plain two-tower with that query tower; items, loss, training, evaluation and export are as they were."""

    def new_query_tower(self, tables):
        return WeightedQueryTower(tables)
