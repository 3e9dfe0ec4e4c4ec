"""Every index of this room as a layer of TensorFlow Recommenders, in the place of its BruteForce or ScaNN layer."""

import numpy as np
import tensorflow as tf
from tensorflow_recommenders.layers import factorized_top_k

from tfebr.errors import ConfigError, DataError
from tfebr.index.base import Index
from tfebr.index.kinds import index_of
from tfebr.index.recipe import Recipe, recipe_for
from tfebr.infrastructure.checks import check_number
from tfebr.infrastructure.shapes import check_tensors


class IndexTopK(factorized_top_k.TopK):
    """A `tfrs.layers.factorized_top_k.TopK` over an exact, a ScaNN or a portable index.

    Unlike TFRS's layers it takes several heads for a query, returns any k, and pads with an empty identifier and a finite score.

    Args:
        k: number of results when a call does not say.
        query_model: maps what a call receives to embeddings; calls bring embeddings when not given.
        recipe: how to build the index; `recipe_for` the number of candidates when not given.
        **kwargs: as Keras takes them. The layer is float32 where no `dtype` is among them: a global policy of mixed precision would round
            the queries, and so change what is found.

    Raises:
        ConfigError: `k` is not positive.
    """

    def __init__(self, k: int = 100, query_model: tf.keras.Model | None = None, recipe: Recipe | None = None, **kwargs):
        check_number("k", k, "[1, inf)", whole=True)
        super().__init__(k=k, **{"dtype": "float32"} | kwargs)
        self.query_model = query_model
        self._recipe = recipe
        self._index: Index | None = None
        self._identifiers: tf.Variable | None = None

    def index(self, candidates: tf.Tensor, identifiers: tf.Tensor | None = None) -> "IndexTopK":
        """Builds the index.

        Args:
            candidates: [items, dim] embeddings.
            identifiers: [items] strings or integers to return instead of row numbers.

        Raises:
            DataError: the embeddings are not finite or too long, or their number is not that of the identifiers.
        """
        vectors = np.asarray(candidates)
        if identifiers is not None and len(identifiers) != len(vectors):
            raise DataError(f"`identifiers` must be as many as `candidates`. Received {len(identifiers)} and {len(vectors)}.")
        recipe = self._recipe or recipe_for(len(vectors), self._k)
        self._index = index_of(recipe, vectors)
        self._identifiers = None if identifiers is None else tf.Variable(identifiers, trainable=False)
        self._reset_tf_function_cache()
        return self

    def call(self, queries: tf.Tensor | dict[str, tf.Tensor], k: int | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """The best candidates of each query.

        Args:
            queries: [batch, dim] or [batch, heads, dim] embeddings, or what `query_model` takes.
            k: number of results.

        Returns:
            scores: [batch, k] float32, `base.NO_SCORE` where there are fewer results.
            identifiers: [batch, k]; "" (strings) or -1 (integers) where there are fewer results.

        Raises:
            ConfigError: there is no index yet, `k` is not positive, or the queries have another shape or dtype.
        """
        if self._index is None:
            raise ConfigError("The `index` method must be called first to create the retrieval index.")
        k = self._k if k is None else k
        check_number("k", k, "[1, inf)", whole=True)
        embeddings = queries if self.query_model is None else self.query_model(queries)
        dim = self._index.dim
        check_tensors(queries=(embeddings, f"float [batch, {dim}] or [batch, heads, {dim}]"))
        embeddings = tf.cast(embeddings, tf.float32)
        if embeddings.shape.rank == 2:
            embeddings = embeddings[:, None, :]
        scores, rows = self._index.search(embeddings, k)
        if self._identifiers is None:
            return scores, rows
        nothing = tf.constant("" if self._identifiers.dtype == tf.string else -1, self._identifiers.dtype)
        return scores, tf.where(rows >= 0, tf.gather(self._identifiers, tf.maximum(rows, 0)), nothing)

    def is_exact(self) -> bool:
        """Whether the results are the true ones; before `index`, whether they will be with the given recipe."""
        if self._index is None:
            return self._recipe is not None and self._recipe.kind == "exact"
        return self._index.is_exact
