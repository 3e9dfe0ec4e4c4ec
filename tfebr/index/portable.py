"""Approximate search in trained partitions with core TensorFlow operations only: it runs on the stock `tensorflow/serving` image."""

import dataclasses

import numpy as np
import tensorflow as tf

from tfebr.errors import ConfigError
from tfebr.index import base
from tfebr.index.partitions import train_partitions
from tfebr.index.recipe import Recipe
from tfebr.index.stored import StoredVectors

# Items of one query whose vectors are gathered at one time: 16 MB of float32 at width 64.
_ITEMS_AT_ONCE = 2**16
# Queries of a batch that are searched side by side; each holds the vectors of one block.
_QUERIES_AT_ONCE = 4


class PortableIndex(base.Index):
    """An inverted file (IVF): a query is scored against the items of the partitions whose centroids have the highest dot products with it.

    The items lie partition by partition in one variable, so that a query reads a few contiguous stretches of it. A partition is as near to
    a query as to the nearest of its heads. A query that would find fewer than k items in its partitions looks into as many more as it
    takes. After building, `recipe.leaves` is the number of partitions there are: halving large and leaving out empty ones changes it.

    Args:
        item_embeddings: [items, dim] float32.
        recipe: of kind "ivf".

    Raises:
        ConfigError: the recipe is of another kind or does not fit the number of items.
        DataError: the embeddings' shape is another one, or a row is not finite or too long.
    """

    is_exact = False
    recipe: Recipe

    def __init__(self, item_embeddings: np.ndarray, recipe: Recipe, name: str = "portable_index"):
        super().__init__(name=name)
        vectors = base.checked_embeddings(item_embeddings)
        self.items, self.dim = vectors.shape
        if recipe.kind != "ivf":
            raise ConfigError(f"PortableIndex needs a recipe of kind 'ivf'. Received: kind = {recipe.kind!r}.")
        recipe.check_items(self.items)
        partitions = train_partitions(base.at_ordinary_scale(vectors), recipe.leaves)
        leaves = len(partitions.centroids)
        self.recipe = dataclasses.replace(recipe, leaves=leaves, leaves_to_search=min(recipe.leaves_to_search, leaves))
        sizes = np.sort(np.diff(partitions.offsets))
        places = np.empty(self.items, np.int32)
        places[partitions.order] = np.arange(self.items, dtype=np.int32)
        self._centroids = tf.Variable(partitions.centroids, trainable=False, name="centroids")
        self._offsets = tf.Variable(partitions.offsets, trainable=False, name="offsets")
        # How many items any so many partitions hold at least.
        self._fewest = tf.Variable(np.cumsum(sizes, dtype=np.int32), trainable=False, name="fewest")
        self._rows = tf.Variable(partitions.order, trainable=False, name="rows")
        self._places = tf.Variable(places, trainable=False, name="places")
        self._stored = StoredVectors(vectors, recipe.vectors, partitions.order)

    def use(self, recipe: Recipe, item_embeddings: np.ndarray) -> None:
        """Takes another `leaves_to_search` or `vectors` without training the partitions again.

        Args:
            recipe: differs from the present one in these two fields only.
            item_embeddings: [items, dim] float32, those that the index was built from.

        Raises:
            ConfigError: another field differs.
        """
        if dataclasses.replace(self.recipe, leaves_to_search=recipe.leaves_to_search, vectors=recipe.vectors) != recipe:
            raise ConfigError(
                f"Only leaves_to_search and vectors can change without building again. Built with {self.recipe}, received {recipe}."
            )
        changed, self.recipe = recipe.vectors != self.recipe.vectors, recipe
        if changed:
            self._stored = StoredVectors(np.asarray(item_embeddings, np.float32), recipe.vectors, self._rows.numpy())

    def search(self, queries: tf.Tensor, k: int | tf.Tensor, leaves: int | tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Index.search`; `leaves` are partitions for all heads of a query together."""
        batch, static_k = tf.shape(queries)[0], tf.get_static_value(k)
        # A loop over no queries cannot tell the width of its result when k is a tensor: then one query of zeros goes through it.
        queries, usable = base.usable_heads(tf.pad(queries, [[0, tf.cast(batch == 0, tf.int32)], [0, 0], [0, 0]]))
        found = (tf.TensorSpec([static_k], tf.float32), tf.TensorSpec([static_k], tf.int32))
        # One query at a time: they look into different numbers of items.
        scores, places = tf.map_fn(
            lambda one: self._best(one[0], one[1], one[2], one[3], k),
            (queries, usable, *self._stretches(queries, usable, k, self.recipe.leaves_to_search if leaves is None else leaves)),
            parallel_iterations=_QUERIES_AT_ONCE,
            fn_output_signature=found,
        )
        rows = tf.where(places >= 0, tf.gather(self._rows, tf.maximum(places, 0)), -1)
        return scores[:batch], rows[:batch]

    def vectors(self, rows: tf.Tensor) -> tf.Tensor:
        """See `Index.vectors`; of int8 vectors, what they stand for."""
        return self._stored.take(tf.gather(self._places, rows))

    def _stretches(self, queries: tf.Tensor, usable: tf.Tensor, k: int | tf.Tensor, leaves: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """[batch, partitions] first and last + 1 place of each partition to look into; a stretch may be empty."""
        batch, heads, count = tf.shape(queries)[0], tf.shape(queries)[1], self._centroids.shape[0]
        near = tf.matmul(tf.reshape(queries, [-1, self.dim]), self._centroids, transpose_b=True)
        near = base.best_head(tf.reshape(near, [batch, heads, count]), usable)
        leaves = tf.clip_by_value(leaves, 1, count)
        enough = tf.minimum(tf.searchsorted(self._fewest, [k])[0] + 1, count)
        nearest = tf.math.top_k(near, tf.maximum(leaves, enough)).indices
        starts, stops = tf.gather(self._offsets, nearest), tf.gather(self._offsets, nearest + 1)
        before = tf.cumsum(stops - starts, axis=1, exclusive=True)
        wanted = (tf.range(tf.shape(nearest)[1]) < leaves) | (before < k)
        return starts, tf.where(wanted, stops, starts)

    def _best(
        self, query: tf.Tensor, usable: tf.Tensor, starts: tf.Tensor, stops: tf.Tensor, k: int | tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """[k] scores and places of the best of one [heads, dim] query among these stretches."""
        places = tf.ragged.range(starts, stops).flat_values

        def scores_of(first: tf.Tensor) -> tf.Tensor:
            block = places[first : first + _ITEMS_AT_ONCE]
            return base.best_head(self._stored.scores(query, block)[None], usable[None])

        count = tf.size(places)
        scores, kept = base.best_in_blocks(scores_of, count, _ITEMS_AT_ONCE, tf.minimum(k, count))
        scores, kept = base.finish(scores, tf.gather(places, kept), k)
        return scores[0], kept[0]
