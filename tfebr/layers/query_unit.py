"""MGDSPR's query unit: one text as six rows, from its characters to what its words mean after the user's past queries."""

import tensorflow as tf

from tfebr.errors import ConfigError
from tfebr.infrastructure.checks import check_number
from tfebr.infrastructure.shapes import check_tensors
from tfebr.layers.attention import TransformerLayer, attend
from tfebr.layers.embedding_bag import TABLE_SCALE, EmbeddingBag
from tfebr.layers.precision import mean_of_present


class QueryUnit(tf.keras.layers.Layer):
    """Q_mgs = stack(q_1gram, q_2gram, q_seg, q_seg_seq, q_his_seq, q_mix): ids -> [batch, 6, dim].

    | row       | reads                      | space-separated scripts     | Chinese            |
    | --------- | -------------------------- | --------------------------- | ------------------ |
    | q_1gram   | mean of the 1-grams        | character n-grams           | single characters  |
    | q_2gram   | mean of the 2-grams        | pairs of neighbouring words | character pairs    |
    | q_seg     | mean of the words          | words                       | segmented words    |
    | q_seg_seq | mean of Trm(words)         | words                       | segmented words    |
    | q_his_seq | softmax(q_seg H^T) H       | words of each past query    | segmented words    |
    | q_mix     | the sum of the five others |                             |                    |

    H has the mean of the words of each past query. A row without its ids is zero; a user without past queries gives a zero q_his_seq.

    Source: MGDSPR, the Multi-Granular Semantic Unit. The grains of space-separated scripts, the depth of Trm, its learned positions and the
    zero for no past queries are reconstructed.

    Call: int32 ids padded with 0: one_gram [batch, n1], two_gram [batch, n2], words [batch, n3], history_words [batch, past queries, n4];
    there may be no past queries.

    Args:
        one_gram, two_gram, words: the tables, of one width; other layers may share them.
        word_length: most words of a query, the number of learned positions.
        heads: as in `TransformerLayer`.
        depth: number of Transformer layers.

    Raises:
        ConfigError: the tables differ in width, or a setting is out of its range; when called, queries are longer than `word_length`, or
            ids have another shape or dtype.
    """

    def __init__(
        self,
        one_gram: EmbeddingBag,
        two_gram: EmbeddingBag,
        words: EmbeddingBag,
        word_length: int,
        heads: int = 8,
        depth: int = 1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_number("word_length", word_length, "[1, inf)", whole=True)
        check_number("depth", depth, "[0, inf)", whole=True)
        widths = [one_gram.dim, two_gram.dim, words.dim]
        if len(set(widths)) > 1:
            raise ConfigError(f"`one_gram`, `two_gram` and `words` must have one width. Received: {widths}.")
        self.one_gram, self.two_gram, self.words, self.word_length = one_gram, two_gram, words, word_length
        # q_seg_seq starts as long as the other rows: at a LayerNorm's own scale it would drown them in q_mix and in every attention.
        scales = [1.0] * (depth - 1) + [TABLE_SCALE] * min(depth, 1)
        self.transformer = [
            TransformerLayer(heads, scale=scale, name=f"transformer_{number}", dtype=self.dtype_policy)
            for number, scale in enumerate(scales)
        ]

    def build(self, input_shape):
        start = tf.keras.initializers.RandomNormal(stddev=TABLE_SCALE)
        self.positions = self.add_weight(name="positions", shape=[self.word_length, self.words.dim], initializer=start)
        super().build(input_shape)

    def call(self, one_gram: tf.Tensor, two_gram: tf.Tensor, words: tf.Tensor, history_words: tf.Tensor) -> tf.Tensor:
        check_tensors(
            one_gram=(one_gram, "int [batch, n1]"),
            two_gram=(two_gram, "int [batch, n2]"),
            words=(words, "int [batch, n3]"),
            history_words=(history_words, "int [batch, past queries, n4]"),
        )
        if (words.shape[1] or 0) > self.word_length:
            raise ConfigError(f"Queries must have at most `word_length` = {self.word_length} words. Received: {words.shape[1]}.")
        present = words > 0
        embedded = tf.cast(self.words.sequence(words), self.compute_dtype)
        segmented = mean_of_present(embedded, present)
        sequence = tf.where(present[..., None], embedded + self.positions[: tf.shape(words)[1]], 0.0)
        for layer in self.transformer:
            sequence = layer(sequence, present)
        past = tf.cast(self.words(history_words), self.compute_dtype)
        past = attend(segmented[:, None], past, tf.reduce_any(history_words > 0, axis=-1), zero_row=False)
        rows = [
            tf.cast(self.one_gram(one_gram), self.compute_dtype),
            tf.cast(self.two_gram(two_gram), self.compute_dtype),
            segmented,
            mean_of_present(sequence, present),
            past[:, 0],
        ]
        return tf.stack([*rows, tf.add_n(rows)], axis=1)
