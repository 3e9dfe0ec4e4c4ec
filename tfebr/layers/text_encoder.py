"""A query's text to one vector: its pooled tokens, corrected by what a Transformer makes of its words."""

import tensorflow as tf

from tfebr.infrastructure.checks import check_choice, check_number, require
from tfebr.infrastructure.shapes import check_tensors
from tfebr.layers.attention import TransformerLayer
from tfebr.layers.embedding_bag import TABLE_SCALE, TextBag
from tfebr.layers.heads import MultiHeadEncoder
from tfebr.layers.precision import mean_of_present


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
        ConfigError: `words` is none of the grains, or a setting is out of its range; when called, queries are longer than `length`, or ids
            have another shape or dtype.
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
        check_choice("words", words, tuple(text.sizes))
        check_number("length", length, "[1, inf)", whole=True)
        check_number("depth", depth, "[0, inf)", whole=True)
        self.text, self.words, self.length, self.depth = text, words, length, depth
        # What a layer makes of words starts as long as the words themselves.
        scales = [1.0] * (depth - 1) + [TABLE_SCALE] * min(depth, 1)
        policy = self.dtype_policy
        self.transformer = [TransformerLayer(heads, scale=scale, name=f"transformer_{i}", dtype=policy) for i, scale in enumerate(scales)]
        gates = (1.0, *[None] * min(depth, 1)) if gated else ()
        self.encoder = MultiHeadEncoder(1, hidden, text.dim, gates=gates, normalize=False, name="encoder", dtype=policy)

    def build(self, input_shape):
        if self.depth:
            start = tf.keras.initializers.RandomNormal(stddev=TABLE_SCALE)
            self.positions = self.add_weight(name="positions", shape=[self.length, self.text.dim], initializer=start)
        super().build(input_shape)

    def call(self, ids: dict[str, tf.Tensor]) -> tf.Tensor:
        check_tensors(**{grain: (of_grain, f"int [batch, {grain}]") for grain, of_grain in ids.items()})
        parts = [self.text(ids)]
        if self.depth:
            require(self.words in ids, "ids", f"with the grain {self.words!r}", list(ids))
            words = ids[self.words]
            require((words.shape[1] or 0) <= self.length, self.words, f"at most `length` = {self.length} ids", words.shape[1])
            present = words > 0
            sequence = tf.cast(self.text.bags[self.words].sequence(words), self.compute_dtype)
            sequence += self.positions[: tf.shape(words)[1]]
            for layer in self.transformer:
                sequence = layer(sequence, present)
            parts.append(mean_of_present(sequence, present))
        return self.encoder(parts)[:, 0]
