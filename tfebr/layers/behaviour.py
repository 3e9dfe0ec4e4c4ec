"""MGDSPR's three windows of a user's behaviour: real-time, short-term and long-term."""

import tensorflow as tf

from tfebr.infrastructure.checks import check_number, require
from tfebr.infrastructure.shapes import check_tensors
from tfebr.layers.attention import SelfAttention, attend
from tfebr.layers.lstm import LSTMStack


class RealTimeEncoder(tf.keras.layers.Layer):
    """R_self = SelfAttention(LSTM(R)): events [batch, length, dim_in] -> [batch, length, dim].

    Source: MGDSPR, R_lstm and R_self. `attend` then gives H_real.

    Call: events oldest first and left-aligned, mask bool [batch, length], seed as in `LSTMStack`. Outputs at masked places are zeros.

    Args:
        dim: width of the LSTM and the output.
        layers, dropout: as in `LSTMStack`.
        heads: as in `SelfAttention`.

    Raises:
        ConfigError: a setting is out of its range; when called, an argument has another shape or dtype.
    """

    def __init__(self, dim: int, layers: int = 2, dropout: float = 0.2, heads: int = 8, **kwargs):
        super().__init__(**kwargs)
        check_number("dim", dim, "[1, inf)", whole=True)
        check_number("heads", heads, "[1, inf)", whole=True)
        require(dim % heads == 0, "heads", f"a divisor of `dim` = {dim}", heads)
        self.dim, self.layers, self.dropout, self.heads = dim, layers, dropout, heads
        self.lstm = LSTMStack(dim, layers, dropout, name="lstm", dtype=self.dtype_policy)
        self.attention = SelfAttention(heads, name="attention", dtype=self.dtype_policy)

    def call(self, events: tf.Tensor, mask: tf.Tensor, training: bool | None = None, seed: tf.Tensor | None = None) -> tf.Tensor:
        return self.attention(self.lstm(events, mask, training=training, seed=seed), mask)

    def get_config(self):
        return super().get_config() | {"dim": self.dim, "layers": self.layers, "dropout": self.dropout, "heads": self.heads}


class ShortTermEncoder(SelfAttention):
    """S_self = SelfAttention(S): events [batch, length, dim] in any order, mask bool [batch, length] -> [batch, length, dim].

    Source: MGDSPR, S_self. `attend` then gives H_short.
    """


def long_term(query_rows: tf.Tensor, pooled: dict[str, tf.Tensor], present: tf.Tensor) -> tf.Tensor:
    """H_long = sum over attributes a of softmax(Q L_a^T) L_a, where L_a = [0; h_click; h_buy; h_collect].

    Source: MGDSPR, H_item + H_shop + H_leaf + H_brand.

    Args:
        query_rows: float [batch, rows, dim].
        pooled: attribute -> mean embedding of each behaviour's items, float [batch, behaviours, dim].
        present: bool [batch, behaviours], false where the user shows no such behaviour.

    Returns:
        [batch, rows, dim].

    Raises:
        ConfigError: an argument has another shape or dtype, or there is no attribute.
    """
    require(bool(pooled), "pooled", "at least one attribute", pooled)
    check_tensors(
        query_rows=(query_rows, "float [batch, rows, dim]"),
        **{attribute: (means, "float [batch, behaviours, dim]") for attribute, means in pooled.items()},
        present=(present, "bool [batch, behaviours]"),
    )
    return tf.reduce_sum(attend(query_rows[:, None], tf.stack(list(pooled.values()), axis=1), present[:, None]), axis=1)
