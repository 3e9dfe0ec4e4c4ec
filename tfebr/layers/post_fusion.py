"""MMSE's post-fusion: where the user's vector joins the query's, after both have their own encoders."""

import tensorflow as tf

from tfebr.infrastructure.checks import check_choice
from tfebr.infrastructure.shapes import check_tensors
from tfebr.layers.precision import to_length

FUSIONS = ("late", "gated", "score")


class PostFusion(tf.keras.layers.Layer):
    """The query's vector t and the user's h to one: (t, h), [batch, dim] each -> [batch, dim], or [batch, 2 dim] for "score".

    | reading | fusion  | vector                                     | who meets whom, and when                                    |
    | ------- | ------- | ------------------------------------------ | ----------------------------------------------------------- |
    | A       | "late"  | norm(t + W_2 relu(W_1 [t; h]))             | query and user in an encoder; items by the score alone      |
    | A + B   | "gated" | norm(t + sigmoid(W [t; h] + b) h)          | query and user after their encoders, too                    |
    | A + C   | "score" | [a norm(t); (1 - a) norm(h)], a in (0, 1)  | nowhere: s = a <t, v_1> + (1 - a) <h, v_2>                  |

    In every reading the query meets the items of all stages by an inner product at the very end, which is what an index can serve. The item
    vector of "score" is [norm(v_1); norm(v_2)], so that its score is one inner product too.

    Source: MMSE, post-fusion; all three readings are reconstructed from the abstract.

    Args:
        fusion: "late", "gated" or "score".
        normalize: the vector, or both halves of it, have length 1 before they are weighed; it is float32 then under mixed precision, too.

    Raises:
        ConfigError: the fusion is unknown; when called, the vectors have another shape or dtype.
    """

    def __init__(self, fusion: str = "gated", normalize: bool = True, **kwargs):
        super().__init__(**kwargs)
        check_choice("fusion", fusion, FUSIONS)
        self.fusion, self.normalize = fusion, normalize

    def build(self, input_shape):
        dim = input_shape[0][-1]
        if self.fusion == "late":
            # Starts small: it corrects what the query says.
            small = tf.keras.initializers.VarianceScaling(0.01, "fan_avg", "uniform")
            self.hidden = tf.keras.layers.Dense(dim, "relu", name="hidden", dtype=self.dtype_policy)
            self.joined = tf.keras.layers.Dense(dim, kernel_initializer=small, name="joined", dtype=self.dtype_policy)
        elif self.fusion == "gated":
            self.gate = tf.keras.layers.Dense(dim, "sigmoid", name="gate", dtype=self.dtype_policy)
        else:
            self.balance = self.add_weight(name="balance", shape=[], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        query, user = inputs
        check_tensors(query=(query, "float [batch, dim]"), user=(user, "float [batch, dim]"))
        if self.fusion == "score":
            query, user = self._to_length(query), self._to_length(user)
            share = tf.cast(tf.sigmoid(self.balance), query.dtype)
            return tf.concat([share * query, (1.0 - share) * user], axis=-1)
        both = tf.concat([query, user], axis=-1)
        more = self.joined(self.hidden(both)) if self.fusion == "late" else self.gate(both) * user
        return self._to_length(query + more)

    def _to_length(self, values: tf.Tensor) -> tf.Tensor:
        return to_length(values) if self.normalize else values

    def get_config(self):
        return super().get_config() | {"fusion": self.fusion, "normalize": self.normalize}
