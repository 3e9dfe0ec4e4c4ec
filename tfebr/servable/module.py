"""The one module that is exported: towers, index and item ids behind named signatures, strings in and strings out."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import tensorflow as tf

from tfebr.data.item_ids import ItemIds
from tfebr.errors import ConfigError
from tfebr.index.attributes import ItemAttributes, columns_of
from tfebr.index.base import Index
from tfebr.index.filtered import filtered_search
from tfebr.infrastructure.checks import check_number
from tfebr.infrastructure.ties import TIE_TOLERANCE
from tfebr.servable.same_rows import with_same_rows

# The most results that `search` returns for one query: some hundred kilobytes of JSON.
MAX_K = 10_000
_SEARCH = {
    "k": tf.TensorSpec([None], tf.int32),
    "exclude": tf.TensorSpec([None, None], tf.string),
    "leaves_to_search": tf.TensorSpec([None], tf.int32),
}


class Encoder(Protocol):
    """A tf.Module that maps raw inputs to embeddings.

    Attributes:
        input_signature: raw inputs by name, each with a leading batch dimension of unknown size.
    """

    input_signature: Mapping[str, tf.TensorSpec]

    def __call__(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Queries to [batch, heads, dim], items to [items, dim]."""


class RetrievalServable(tf.Module):
    """Finds items for raw queries.

    Args:
        query_encoder: raw query inputs to [batch, heads, dim].
        item_encoder: raw item inputs to [items, dim].
        index: over the items' embeddings, its rows in the order of `item_ids`.
        item_ids: the items' ids.
        default_k: results that `serving_default` returns for each query, and `search` where the request does not say.
        attributes: of the items, in the same order; with them `search` takes a filter, and there is the signature `attributes`.
        intent: maps [batch] query texts to the filters that they imply, [batch, n] clauses padded with ""; see `tfebr.index.attributes`.

    Attributes:
        max_k: the most results that `search` returns for one query: MAX_K or, if that is more, `default_k`; at most all items.

    Raises:
        ConfigError: index, ids and attributes differ in number, `default_k` is not positive, an encoder's input has no batch dimension, or
            there is an `intent` without attributes.
    """

    def __init__(
        self,
        query_encoder: Encoder,
        item_encoder: Encoder,
        index: Index,
        item_ids: ItemIds,
        default_k: int = 100,
        attributes: ItemAttributes | None = None,
        intent: tf.Module | None = None,
    ):
        super().__init__(name="retrieval_servable")
        if index.items != len(item_ids):
            raise ConfigError(f"`index` and `item_ids` must hold the same items. Received {index.items} and {len(item_ids)} items.")
        check_number("default_k", default_k, "[1, inf)", whole=True)
        if attributes is not None and attributes.items != index.items:
            raise ConfigError(f"`index` and `attributes` must hold the same items. Received {index.items} and {attributes.items} items.")
        if intent is not None and attributes is None:
            raise ConfigError("`intent` makes filters, which need `attributes`. Give both or neither.")
        self.query_encoder, self.item_encoder = query_encoder, item_encoder
        self.index, self.item_ids, self.default_k = index, item_ids, default_k
        self.max_k = min(max(MAX_K, default_k), index.items)
        self.attributes, self.intent = attributes, intent
        # One function for all signatures: its graph is held once.
        self._encode = _named(lambda **inputs: {"embedding": query_encoder(inputs)}, query_encoder.input_signature)
        signatures = {
            "serving_default": _signature(self._find, query_encoder.input_signature),
            "embed_query": _signature(self._embed_query, query_encoder.input_signature),
            "embed_items": _signature(self._embed_items, item_encoder.input_signature),
        }
        inputs = {**query_encoder.input_signature, **_SEARCH}
        if attributes is not None:
            inputs["filter"] = tf.TensorSpec([None, None], tf.string)
        if intent is not None:
            inputs["automatic"] = tf.TensorSpec([None], tf.bool)
        signatures["search"] = _signature(self._search, inputs)
        if attributes is not None:
            ids = {"item_ids": tf.TensorSpec([None], tf.string)}
            signatures["attributes"] = _signature(lambda **given: attributes.values(item_ids.lookup(given["item_ids"]) - 1), ids)
        # Assigned whole: TensorFlow refuses to save a dict attribute that changed after it was set.
        self._signatures = signatures

    def signature_functions(self) -> dict[str, Any]:
        """The concrete function of each signature, taking inputs by name and returning a dict of named outputs.

        `serving_default` returns `ids` [batch, default_k] strings padded with "", `scores` [batch, default_k] float32, 0.0 where there
        is no id, and `num_results` [batch] int32. `embed_query` returns `embedding` [batch, heads, dim], `embed_items` returns
        `embedding` [items, dim].

        `search` finds what each row asks for: `k` int32 [batch] results, at most `max_k`, `default_k` where it is 0 or less; none of the
        items `exclude`, [batch, n] ids padded with "", of which unknown and repeated ones do not count; and it looks into
        `leaves_to_search` int32 [batch] partitions of the index, as many as the index was built for where it is 0 or less. It returns what
        `serving_default` does, as wide as the largest k of the batch; a row of a smaller k is padded.

        With attributes, `search` finds only items that match its input `filter`, [batch, n] clauses padded with ""; with an intent module,
        also what the query implies of other columns, for rows whose input `automatic` [batch] is true. It then also returns
        `applied_filter` [batch, clauses], the clauses that it went by, padded with "". `attributes` maps `item_ids` [batch] to one output
        for each column that a filter can name: [batch] strings, or float32 for numbers; "" or 0.0 where there is no value.

        All inputs of a request need the same number of rows; where one differs, the refusal has the numbers of all by name. Among scores
        that are equal up to `TIE_TOLERANCE` the items are in the catalogue's order; a tie may be cut at the last place. No
        output holds NaN or infinity.
        """
        return self._signatures

    def _find(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._results(*self.index.search(self._encode(**inputs)["embedding"], self.default_k))

    def _search(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        k, exclude, leaves = (inputs.pop(name) for name in _SEARCH)
        # Not refused: a server that merges requests would fail all of them for one.
        k = tf.minimum(tf.where(k > 0, k, self.default_k), self.max_k)
        clauses = inputs.pop("filter") if self.attributes is not None else None
        if self.intent is not None:
            implied = self.intent(inputs["query"])
            # What was asked for in so many words goes before what the query's words were taken for.
            named = tf.reduce_any(columns_of(implied)[:, :, None] == columns_of(clauses)[:, None, :], axis=2)
            implied = tf.where(inputs.pop("automatic")[:, None] & ~named, implied, "")
            clauses = tf.concat([clauses, implied], axis=1)
        queries, excluded = self._encode(**inputs)["embedding"], self.item_ids.lookup(exclude) - 1
        found = self._results(*filtered_search(self.index, self.attributes, queries, k, clauses, excluded, leaves))
        return found if clauses is None else {**found, "applied_filter": clauses}

    def _results(self, scores: tf.Tensor, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = _ties_in_order(scores, rows)
        return {
            "ids": self.item_ids.decode(rows),
            "scores": tf.where(rows >= 0, scores, 0.0),
            "num_results": tf.reduce_sum(tf.cast(rows >= 0, tf.int32), axis=1),
        }

    def _embed_query(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embedding": _finite(self._encode(**inputs)["embedding"])}

    def _embed_items(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embedding": _finite(self.item_encoder(inputs))}


def _named(function: Callable[..., dict[str, tf.Tensor]], input_signature: Mapping[str, tf.TensorSpec]) -> Any:
    """A concrete function whose inputs carry the names of the input signature."""
    for name, spec in input_signature.items():
        if spec.shape.rank is None or spec.shape.rank < 1 or spec.shape[0] is not None:
            raise ConfigError(f"Input `{name}` needs a leading batch dimension of unknown size. Received shape {spec.shape}.")
    specs = {name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in input_signature.items()}
    return tf.function(function).get_concrete_function(**specs)


def _signature(function: Callable[..., dict[str, tf.Tensor]], input_signature: Mapping[str, tf.TensorSpec]) -> Any:
    """The same of a function that is asked from outside, where inputs may differ in rows."""
    return _named(lambda **inputs: function(**with_same_rows(inputs)), input_signature)


def _ties_in_order(scores: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Rows [batch, k] of results, best first, in the order of the catalogue where neighbours differ by no more than the tolerance."""
    found = rows >= 0
    largest = tf.reduce_max(tf.where(found, tf.abs(scores), 0.0), axis=1, keepdims=True)
    # Places without a result come last, each for itself.
    apart = (scores[:, :-1] - scores[:, 1:] > TIE_TOLERANCE * largest) | ~found[:, 1:]
    group = tf.cumsum(tf.pad(tf.cast(apart, tf.int64), [[0, 0], [1, 0]]), axis=1)
    order = tf.argsort(group * 2**32 + tf.cast(rows, tf.int64), axis=1)
    return tf.ensure_shape(tf.gather(rows, order, batch_dims=1), rows.shape)


def _finite(values: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.math.is_finite(values), values, 0.0)
