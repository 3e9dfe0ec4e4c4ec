"""A user to one vector: the profile, and what the query finds in the history."""

import tensorflow as tf

from tfebr.data.stage import Stage
from tfebr.infrastructure.checks import check_number, require
from tfebr.infrastructure.shapes import check_tensors
from tfebr.layers.attention import attend
from tfebr.layers.embedding_bag import EmbeddingBag


class UserEncoder(tf.keras.layers.Layer):
    """h = W [profile; softmax(t E^T) E] with events e_i = W_e [categories of item i] + stage(i), one of them zero: -> [batch, dim].

    Source: MMSE (reconstructed); the query's attention with a zero event is MGDSPR's, see `attend`.

    Call: a dict of `query` float [batch, dim]; `user_KEY` int32 [batch]; `history_KEY` and `history_stages` int32 [batch, events],
    0 where there is no event. An event whose stage is not known is a click.

    Args:
        events: the tables of an event's columns, by their keys; the first tells whether there is an event; none, and no history is read.
        profile: the tables of the profile's columns, by their keys.
        dim: d.

    Raises:
        ConfigError: `dim` is not positive, or there are neither events nor a profile; when called, an input has another shape or dtype.
    """

    def __init__(self, events: dict[str, EmbeddingBag], profile: dict[str, EmbeddingBag], dim: int, **kwargs):
        super().__init__(**kwargs)
        check_number("dim", dim, "[1, inf)", whole=True)
        require(bool(events or profile), "events and profile", "tables, at least one in the two", {**events, **profile})
        self.events, self.profile = events, profile
        self.join = tf.keras.layers.Dense(dim, name="join", dtype=self.dtype_policy)
        if events:
            self.event = tf.keras.layers.Dense(dim, name="event", dtype=self.dtype_policy)
            self.stage = EmbeddingBag(len(Stage), dim, name="stage", dtype=self.dtype_policy)

    def call(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        read = {"query": "float [batch, dim]"} if self.events else {}
        read |= {f"user_{column}": "int [batch]" for column in self.profile}
        read |= {f"history_{name}": "int [batch, events]" for name in (*self.events, "stages") if self.events}
        check_tensors(**{name: (inputs[name], shape) for name, shape in read.items()})
        parts = [tf.cast(bag(inputs[f"user_{column}"][:, None]), self.compute_dtype) for column, bag in self.profile.items()]
        if self.events:
            parts.append(self._read(inputs))
        return self.join(tf.concat(parts, axis=-1))

    def _read(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        there = inputs[f"history_{next(iter(self.events))}"] > 0
        # Most users have done far less than what a history may hold.
        longest = tf.reduce_max(tf.where(there, tf.range(1, tf.shape(there)[1] + 1), 0))
        read = {name: inputs[f"history_{name}"][:, :longest] for name in (*self.events, "stages")}
        events = self.event(tf.concat([bag.sequence(read[column]) for column, bag in self.events.items()], axis=-1))
        events += self.stage.sequence(tf.maximum(read["stages"], int(Stage.CLICKED)))
        return attend(inputs["query"][:, None], events, there[:, :longest])[:, 0]
