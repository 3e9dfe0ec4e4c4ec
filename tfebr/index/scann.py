"""Approximate search by ScaNN's tree and quantised codes, with the full scores computed by core operations."""

import dataclasses
import hashlib
import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np
import tensorflow as tf
from scann import scann_ops

from tfebr.errors import ConfigError
from tfebr.index import base
from tfebr.index.recipe import Recipe
from tfebr.index.stored import StoredVectors

# Queries whose candidates' vectors are gathered at one time.
_CANDIDATES_AT_ONCE = 2**17
# Requests of a batch that ScaNN searches side by side.
_REQUESTS_AT_ONCE = 8


class ScannIndex(base.Index):
    """ScaNN finds candidates for each head; their full scores, over all heads, decide.

    ScaNN itself holds the partitions and 4-bit codes only. The full vectors are a variable: a SavedModel restores it straight into its
    place, where ScaNN's own copy would be held twice while loading.

    Args:
        item_embeddings: [items, dim] float32.
        recipe: of kind "hash" or "tree".

    Raises:
        ConfigError: the recipe is exact or does not fit the number of items.
        DataError: the embeddings' shape is another one, or a row is not finite or too long.
    """

    is_exact = False
    recipe: Recipe

    def __init__(self, item_embeddings: np.ndarray, recipe: Recipe, name: str = "scann_index"):
        super().__init__(name=name)
        vectors = base.checked_embeddings(item_embeddings)
        self.items, self.dim = vectors.shape
        if recipe.kind == "exact":
            raise ConfigError("ScannIndex needs a recipe of kind 'hash' or 'tree'. Received: kind = 'exact'; use ExactIndex.")
        recipe.check_items(self.items)
        self._codes = _Codes(_build(base.at_ordinary_scale(vectors), recipe))
        self._stored = StoredVectors(vectors, recipe.vectors)
        self.recipe = recipe

    def use(self, recipe: Recipe, item_embeddings: np.ndarray) -> None:
        """Takes another `leaves_to_search`, `reorder` or `vectors` without training the codes again.

        Args:
            recipe: differs from the present one in these three fields only.
            item_embeddings: [items, dim] float32, those that the index was built from.

        Raises:
            ConfigError: another field differs.
        """
        same_codes = dataclasses.replace(
            self.recipe, leaves_to_search=recipe.leaves_to_search, reorder=recipe.reorder, vectors=recipe.vectors
        )
        if same_codes != recipe:
            raise ConfigError(
                "Only leaves_to_search, reorder and vectors can change without building again. "
                f"Built with {self.recipe}, received {recipe}."
            )
        if recipe.vectors != self.recipe.vectors:
            self._stored = StoredVectors(np.asarray(item_embeddings, np.float32), recipe.vectors)
        self.recipe = recipe

    def search(
        self, queries: tf.Tensor, k: int | tf.Tensor, leaves: int | tf.Tensor | None = None, reorder: int | tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Index.search`.

        Args:
            queries: [batch, heads, dim] float32.
            k: how many results.
            leaves: as in `Index.search`.
            reorder: candidates per head to compute full scores of, at least k; the recipe's when not given.
        """
        per_head = self._depth(k, self.recipe.reorder if reorder is None else reorder)
        candidates = self.candidates(queries, per_head, leaves)
        if queries.shape[1] != 1:
            candidates = _without_repeats(candidates)
        return base.finish(*self._best(*base.usable_heads(queries), candidates, tf.minimum(k, tf.shape(candidates)[1])), k)

    def effort(self, k: tf.Tensor, leaves: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `Index.effort`; the depth is the number of candidates for each head."""
        return self._depth(k, self.recipe.reorder), super().effort(k, leaves)[1]

    def _depth(self, k: int | tf.Tensor, reorder: int | tf.Tensor) -> tf.Tensor:
        # `tf.clip_by_value` takes no bounds of a higher rank than the value.
        return tf.maximum(tf.minimum(reorder, self.items), k)

    def candidates(self, queries: tf.Tensor, per_head: int | tf.Tensor, leaves: int | tf.Tensor | None = None) -> tf.Tensor:
        """What ScaNN finds by its codes alone, before any full score is computed.

        Args:
            queries: [batch, heads, dim] float32.
            per_head: how many to find for each head.
            leaves: as in `search`.

        Returns:
            [batch, heads * n] int32 rows, in no order that counts over all heads; a row may be there once for each head, and -1 stands for
            none.
        """
        leaves = tf.clip_by_value(self.recipe.leaves_to_search if leaves is None else leaves, 1, max(self.recipe.leaves, 1))
        queries, usable = base.usable_heads(queries)
        # Only the direction of a head decides; sums of very large numbers would be infinite in ScaNN's tables.
        queries = tf.math.divide_no_nan(queries, tf.reduce_max(tf.abs(queries), axis=-1, keepdims=True))
        batch, heads = tf.shape(queries)[0], queries.shape[1] or tf.shape(queries)[1]

        def one(heads: tf.Tensor) -> tf.Tensor:
            found = self._codes.search(heads, per_head, leaves)
            # In few leaves there may be fewer items than are asked for.
            return tf.pad(found, [[0, 0], [0, per_head - tf.shape(found)[1]]], constant_values=-1)

        def each() -> tf.Tensor:
            found = tf.map_fn(
                one,
                queries,
                parallel_iterations=_REQUESTS_AT_ONCE,
                fn_output_signature=tf.TensorSpec([None, None], tf.int32),
            )
            return tf.reshape(found, [batch * heads, -1])

        # ScaNN rounds otherwise when it scores more queries at once: a request's results must not depend on what else is in the batch.
        found = tf.cond(batch > 1, each, lambda: self._codes.search(tf.reshape(queries, [-1, self.dim]), per_head, leaves))
        found = tf.where(tf.reshape(usable, [-1, 1]), found, -1)
        return tf.reshape(found, [batch, heads * tf.shape(found)[1]])

    def vectors(self, rows: tf.Tensor) -> tf.Tensor:
        """See `Index.vectors`; of int8 vectors, what they stand for."""
        return self._stored.take(rows)

    def _best(self, queries: tf.Tensor, usable: tf.Tensor, candidates: tf.Tensor, keep: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The `keep` best of [batch, candidates] by full score, a slice of the batch at a time so that memory stays bounded."""
        batch = tf.shape(queries)[0]
        step = tf.maximum(_CANDIDATES_AT_ONCE // tf.maximum(tf.shape(candidates)[1], 1), 1)

        def one_slice(first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows = candidates[first : first + step]
            scores = self._stored.scores(queries[first : first + step], tf.maximum(rows, 0))
            scores = tf.where(rows >= 0, base.best_head(scores, usable[first : first + step]), -np.inf)
            scores, places = tf.math.top_k(scores, keep)
            return scores, tf.gather(rows, places, batch_dims=1)

        def add_slice(first: tf.Tensor, scores: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            more_scores, more_rows = one_slice(first)
            return first + step, tf.concat([scores, more_scores], 0), tf.concat([rows, more_rows], 0)

        _, scores, rows = tf.while_loop(
            lambda first, *_: first < batch,
            add_slice,
            (step, *one_slice(tf.constant(0))),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape([None, None])),
            parallel_iterations=1,
        )
        return scores, rows


def _without_repeats(rows: tf.Tensor) -> tf.Tensor:
    """[batch, candidates] with every repeated row but one replaced by -1, in no particular order."""
    rows = tf.sort(rows, axis=1, direction="DESCENDING")
    repeated = tf.equal(rows[:, 1:], rows[:, :-1])
    return tf.concat([rows[:, :1], tf.where(repeated, -1, rows[:, 1:])], axis=1)


def _build(vectors: np.ndarray, recipe: Recipe) -> dict[str, tf.Tensor]:
    """Trains ScaNN's tree and codes and returns them as the tensors that `TensorsToScann` takes, in its order.

    The same vectors give the same tensors, in any process and with any number of threads.
    """
    builder = scann_ops.builder(vectors, 1, "dot_product")
    if recipe.kind == "tree":
        # ScaNN draws by a fixed seed, but puts the centres of its random start into a hash set, whose order differs in every process.
        builder = builder.tree(recipe.leaves, recipe.leaves_to_search, random_init=False)
    searcher = builder.score_ah(recipe.dims_per_block, anisotropic_quantization_threshold=recipe.anisotropic_threshold).build()
    parts = scann_ops.scann_to_tensors(searcher.searcher_handle)._asdict()
    tf.raw_ops.DestroyResourceOp(resource=searcher.searcher_handle)
    return {name: parts[name] for name in _ARGUMENTS}


_ARGUMENTS = (
    "dataset",
    "scann_config",
    "serialized_partitioner",
    "datapoint_to_token",
    "ah_codebook",
    "hashed_dataset",
    "int8_dataset",
    "int8_multipliers",
    "dp_norms",
)


class _Codes(tf.Module):
    """ScaNN's searcher, kept as raw files beside the graph and built once when the model is loaded.

    The searcher is found by its shared name, a hash of its content, so two models in one process share it only when it is the same. It
    stays in memory until the process, or in TF Serving the session, ends: another model may be using it.
    """

    def __init__(self, parts: dict[str, tf.Tensor]):
        super().__init__(name="codes")
        self._folder = Path(tempfile.mkdtemp(prefix="tfebr-index-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._dtypes = {name: part.dtype for name, part in parts.items()}
        self._shapes = {name: part.shape for name, part in parts.items()}
        self._assets = {}
        digest = hashlib.sha256()
        for name, part in parts.items():
            if part.shape.rank == 0:
                continue
            content = part.numpy().tobytes() if part.dtype != tf.string else part.numpy().item()
            digest.update(b"%s %d " % (name.encode(), len(content)))
            digest.update(content)
            path = self._folder / f"scann_{name}.bin"
            path.write_bytes(content)
            self._assets[name] = tf.saved_model.Asset(str(path))
        self.shared_name = f"tfebr_scann_{digest.hexdigest()[:32]}"
        self._searcher = _Searcher(self)

    def searcher(self) -> tf.Tensor:
        """Builds the searcher from the files."""
        return scann_ops.tensors_to_scann(*map(self._read, _ARGUMENTS), container="", shared_name=self.shared_name)

    def search(self, queries: tf.Tensor, candidates: tf.Tensor, leaves: int | tf.Tensor) -> tf.Tensor:
        """[queries, min(candidates, items)] int32 rows in the order of the codes' scores, -1 where ScaNN found fewer."""
        handle = scann_ops.tensors_to_scann(*map(self._nothing, _ARGUMENTS), container="", shared_name=self.shared_name)
        found = scann_ops.scann_search_batched(handle, queries, candidates, candidates, leaves, True)
        return tf.where(tf.math.is_nan(found.distances), -1, found.indices)

    def _read(self, name: str) -> tf.Tensor:
        if name not in self._assets:
            return self._nothing(name)
        raw = tf.io.read_file(self._assets[name].asset_path)
        if self._dtypes[name] != tf.string:
            raw = tf.io.decode_raw(raw, self._dtypes[name])
        return tf.reshape(raw, self._shapes[name])

    def _nothing(self, name: str) -> tf.Tensor:
        return tf.constant("") if self._dtypes[name] == tf.string else tf.zeros([], self._dtypes[name])


class _Searcher(tf.saved_model.experimental.TrackableResource):
    """Makes TensorFlow build the searcher while it loads a model, not on the first query."""

    def __init__(self, codes: _Codes):
        super().__init__()
        self._codes = codes
        self._initialize()

    def _create_resource(self) -> tf.Tensor:
        # TensorFlow wants a handle of its own; the searcher is reached by its shared name.
        return tf.raw_ops.StackV2(max_size=1, elem_type=tf.int32, stack_name=self._codes.shared_name)

    def _initialize(self) -> None:
        self._codes.searcher()
