"""A query's text to one vector: its pooled tokens, corrected by what a Transformer makes of its words."""

import tensorflow as tf

from tfebr.errors import ConfigError
from tfebr.layers.attention import TransformerLayer
from tfebr.layers.embedding_bag import TABLE_SCALE, TextBag
from tfebr.layers.heads import MultiHeadEncoder


class TextEncoder(tf.keras.layers.Layer):
    """t = g mean(tokens) + MLP([mean(tokens); mean(Trm(words))]): grain -> int32 ids [batch, length], padded with 0 -> [batch, dim].

    Source: MMSE and the same team's later paper read a query by a Transformer; the sum with the pooled tokens is this library's own.

    Args:
        text: the tables of all grains, which the item tower may share.
        words: the grain that the Transformer reads.
        length: most words of a query, the number of learned positions.
        depth: Transformer layers; 0 leaves the pooled tokens alone.
        heads: of each layer.
        hidden: ReLU widths of the MLP.
        gated: with the gate g, see `MultiHeadEncoder`; without it the MLP alone.

    Raises:
        ConfigError: `words` is none of the grains.
    """

    def __init__(
        self,
        text: TextBag,
        words: str,
        length: int,
        depth: int = 1,
        heads: int = 8,
        hidden: tuple[int, ...] = (),
        gated: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if words not in text.sizes:
            raise ConfigError(f"`words` must be one of the grains {', '.join(text.sizes)}. Received: {words!r}.")
        self.text, self.words, self.length, self.depth = text, words, length, depth
        # What a layer makes of words starts as long as the words themselves.
        scales = [1.0] * (depth - 1) + [TABLE_SCALE] * min(depth, 1)
        self.transformer = [TransformerLayer(heads, scale=scale, name=f"transformer_{i}") for i, scale in enumerate(scales)]
        gates = (1.0, *[None] * min(depth, 1)) if gated else ()
        self.encoder = MultiHeadEncoder(1, hidden, text.dim, gates=gates, normalize=False, name="encoder")

    def build(self, input_shape):
        if self.depth:
            start = tf.keras.initializers.RandomNormal(stddev=TABLE_SCALE)
            self.positions = self.add_weight(name="positions", shape=[self.length, self.text.dim], initializer=start)
        super().build(input_shape)

    def call(self, ids: dict[str, tf.Tensor]) -> tf.Tensor:
        parts = [self.text(ids)]
        if self.depth:
            words = ids[self.words]
            present = words > 0
            sequence = self.text.bags[self.words].sequence(words) + self.positions[: tf.shape(words)[1]]
            for layer in self.transformer:
                sequence = layer(sequence, present)
            count = tf.reduce_sum(tf.cast(present, tf.float32), axis=1, keepdims=True)
            parts.append(tf.math.divide_no_nan(tf.reduce_sum(sequence, axis=1), count))
        return self.encoder(parts)[:, 0]
