"""Raw request fields and raw item fields to embeddings: featurizer and tower in one graph, as they are served."""

from collections.abc import Callable

import tensorflow as tf

from tfebr.data.batches import query_features
from tfebr.data.features import Featurizer
from tfebr.data.item_ids import ItemIds
from tfebr.data.names import input_names
from tfebr.data.stage import Stage
from tfebr.models.retrieval_model import RetrievalModel, join_history

# What is told of the events of a history, and how the values that an event can have are made of any.
_EVENTS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "history_stages": lambda stages: tf.where((stages >= 0) & (stages <= int(max(Stage))), stages, 0),
    "history_ages": lambda ages: tf.maximum(ages, 0),
}


class RawQueryEncoder(tf.Module):
    """Query text, profile and history as strings -> float [batch, heads, dim].

    It carries the item table's categorical columns, through which item ids of a history are read; not the titles.

    Attributes:
        input_signature: `query` [batch], `user_COLUMN` [batch] for each profile column (by `tfebr.data.names.input_names`),
            `history_items` [batch, n] item ids and `history_queries` [batch, n] texts, both newest first and padded with "". Models that
            read no history take none. Models that tell events apart also take `history_stages` int32 [batch, n] (`Stage`: 1 clicked,
            2 carted, 3 ordered; 0 counts as clicked) and `history_ages` int32 [batch, n], seconds from the event to the request; both
            stand beside `history_items`. A history that begins with one "", as TensorFlow Serving's batching wants it, is the same as
            without.
        columns: profile column by input.

    No value is an error, as a server may have merged requests of several users into one batch: an unknown id is no event, a stage that does
    not exist is 0, a negative age is 0, text is read as far as it is UTF-8.
    """

    def __init__(self, model: RetrievalModel, featurizer: Featurizer, item_ids: ItemIds):
        super().__init__(name="raw_query_encoder")
        spec = featurizer.spec
        self.featurizer, self.item_ids = featurizer, item_ids
        self.tower = _Function(model.query_tower)
        self._spec = spec
        self.history_columns = {}
        # Assigned whole at the end: TensorFlow refuses to save a dict attribute that changed after it was set.
        signature = {"query": tf.TensorSpec([None], tf.string)}
        named = input_names([f"user_{c}" for c in featurizer.user_columns])
        self.columns = dict(zip(named.values(), featurizer.user_columns, strict=True))
        signature |= {name: tf.TensorSpec([None], tf.string) for name in self.columns}
        if spec.history_items:
            signature["history_items"] = tf.TensorSpec([None, None], tf.string)
            if model.reads_events:
                signature |= {name: tf.TensorSpec([None, None], tf.int32) for name in _EVENTS}
            self.history_columns = {n: tf.Variable(ids, trainable=False) for n, ids in model.history_columns().items()}
        if spec.history_queries:
            signature["history_queries"] = tf.TensorSpec([None, None], tf.string)
        self.input_signature = signature

    def __call__(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        spec, count = self._spec, tf.shape(inputs["query"])[0]
        past = tf.zeros([count, 0], tf.string)
        if spec.history_queries:
            past = _fixed(inputs["history_queries"], spec.history_queries, _begins_with_padding(inputs["history_queries"]))
        features = query_features(self.featurizer, inputs["query"], past)
        features |= self.featurizer.user({column: inputs[name] for name, column in self.columns.items()})
        if spec.history_items:
            late = _begins_with_padding(inputs["history_items"])
            features["history_items"] = self.item_ids.lookup(_fixed(inputs["history_items"], spec.history_items, late))
            features |= {name: read(_fixed(inputs[name], spec.history_items, late)) for name, read in _EVENTS.items() if name in inputs}
            features = join_history(features, self.history_columns)
        return self.tower(features)


class RawItemEncoder(tf.Module):
    """Title and categories as strings -> float [items, dim].

    Attributes:
        input_signature: `title` and the categorical columns (by `tfebr.data.names.input_names`), [items] each; `item_id` [items] too for
            models that know items by their id, where an unknown one is a new item.
        columns: catalogue column by input.
    """

    def __init__(self, model: RetrievalModel, featurizer: Featurizer, item_ids: ItemIds):
        super().__init__(name="raw_item_encoder")
        self.featurizer, self.tower = featurizer, _Function(model.item_tower)
        self.item_ids = item_ids if model.reads_item_ids else None
        own = ("item_id", "title") if model.reads_item_ids else ("title",)
        named = input_names(featurizer.item_columns, taken=own)
        self.columns = {name: name for name in own} | {name: column for column, name in named.items()}
        self.input_signature = {name: tf.TensorSpec([None], tf.string) for name in self.columns}

    def __call__(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        features = self.featurizer.items({column: inputs[name] for name, column in self.columns.items()})
        if self.item_ids is not None:
            features["item"] = self.item_ids.lookup(inputs["item_id"])
        return self.tower(features)


class _Function(tf.Module):
    """A tower as a plain function of its variables: a Keras model in an export would bring a trace of every layer along."""

    def __init__(self, tower: tf.keras.layers.Layer):
        super().__init__()
        self.weights = list(tower.variables)
        self._call = tower.__call__

    def __call__(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        return self._call(features)


def _begins_with_padding(values: tf.Tensor) -> tf.Tensor:
    """[batch] which rows of [batch, n] strings have "" in the first place."""
    return tf.reduce_all(values[:, :1] == "", axis=1)


def _fixed(values: tf.Tensor, length: int, late: tf.Tensor) -> tf.Tensor:
    """[batch, n] -> [batch, length]: the newest entries, padded with "" or 0; rows that are `late` begin in their second place."""
    kept = values[:, : length + 1]
    padding = "" if values.dtype == tf.string else 0
    padded = tf.pad(kept, [[0, 0], [0, length + 1 - tf.shape(kept)[1]]], constant_values=padding)
    return tf.ensure_shape(tf.where(late[:, None], padded[:, 1:], padded[:, :-1]), [None, length])
