"""What layers compute, in NumPy row by row, and a layer of several tensors as one of a tuple, as the harness wants it."""

import numpy as np
import tensorflow as tf

from tfebr.layers.attention import SelfAttention, TransformerLayer
from tfebr.layers.behaviour import RealTimeEncoder, ShortTermEncoder
from tfebr.layers.lstm import LSTMStack

KINDS = {kind.__name__: kind for kind in (LSTMStack, RealTimeEncoder, SelfAttention, ShortTermEncoder, TransformerLayer)}


class Several(tf.keras.layers.Layer):
    """Unpacks its one input."""

    def __init__(self, kind: str, settings: dict, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.layer = kind, KINDS[kind].from_config(settings | {"dtype": self.dtype_policy.name})

    def call(self, inputs):
        return self.layer(*inputs)

    def get_config(self):
        return super().get_config() | {"kind": self.kind, "settings": self.layer.get_config()}


def prefix_mask(lengths: list[int], length: int) -> np.ndarray:
    return np.arange(length) < np.array(lengths)[:, None]


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def attend(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """One row of a batch, without padding: softmax(Q K^T) K."""
    return softmax(queries @ keys.T) @ keys if len(keys) else np.zeros_like(queries)


def layer_norm(x: np.ndarray, layer) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * layer.gamma.numpy() + layer.beta.numpy()


def self_attention(x: np.ndarray, layer: SelfAttention) -> np.ndarray:
    """[length, dim] without padding, head by head."""
    dim = x.shape[1]
    width = dim // layer.heads
    query, key, value = (layer.qkv.numpy()[:, start : start + dim] for start in (0, dim, 2 * dim))
    read = []
    for head in range(layer.heads):
        at = slice(head * width, (head + 1) * width)
        read.append(softmax(x @ query[:, at] @ (x @ key[:, at]).T / np.sqrt(width)) @ (x @ value[:, at]))
    output = np.concatenate(read, axis=1) @ layer.output_kernel.numpy()
    return layer_norm(x + output, layer.norm) if layer.residual else output


def transformer(x: np.ndarray, layer: TransformerLayer) -> np.ndarray:
    """[length, dim] without padding."""
    x = self_attention(x, layer.attention)
    (w1, b1), (w2, b2) = layer.widen.get_weights(), layer.narrow.get_weights()
    return layer_norm(x + np.maximum(x @ w1 + b1, 0) @ w2 + b2, layer.norm)


def lstm(x: np.ndarray, cell) -> np.ndarray:
    """[length, dim] without padding -> [length, units], step by step."""
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    kernel, recurrent, bias = cell.get_weights()
    h = c = np.zeros(len(recurrent))
    states = []
    for event in x:
        i, f, g, o = np.split(event @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.array(states).reshape(-1, len(recurrent))


def pooled(bags: dict, ids: dict[str, np.ndarray]) -> np.ndarray:
    """The mean of all ids of one row that are not 0, each grain's from its own table."""
    found = [bags[grain].table.numpy()[number] for grain, of_grain in ids.items() for number in np.ravel(of_grain) if number]
    return np.mean(found, axis=0) if found else np.zeros(next(iter(bags.values())).dim)


def one_head(parts: list[np.ndarray], encoder) -> np.ndarray:
    """A `MultiHeadEncoder` of one head, for one row."""
    x = np.concatenate(parts)
    for layer in encoder.layers[:-1]:
        x = np.maximum(x @ layer.kernel[0].numpy() + layer.bias[0].numpy(), 0)
    x = x @ encoder.layers[-1].kernel[0].numpy() + encoder.layers[-1].bias[0].numpy()
    gated = [part for part, gate in zip(parts, encoder.gates, strict=False) if gate is not None]
    x = x + sum(part * gate[0] for part, gate in zip(gated, encoder.gate.numpy(), strict=True)) if gated else x
    return to_length(x) if encoder.normalize else x


def to_length(x: np.ndarray) -> np.ndarray:
    """To length 1; zeros stay."""
    return x / max(np.linalg.norm(x), 1e-6)


def text_encoder(ids: dict[str, np.ndarray], layer) -> np.ndarray:
    """MMSE's text of one row."""
    parts = [pooled(layer.text.bags, ids)]
    if layer.depth:
        words = ids[layer.words]
        at = np.flatnonzero(words)
        sequence = layer.text.bags[layer.words].table.numpy()[words[at]] + layer.positions.numpy()[at]
        for inner in layer.transformer if len(at) else ():
            sequence = transformer(sequence, inner)
        parts.append(sequence.mean(0) if len(at) else 0 * parts[0])
    return one_head(parts, layer.encoder)


def user_encoder(query: np.ndarray, row: dict[str, np.ndarray], layer) -> np.ndarray:
    """MMSE's user of one row: `user_COLUMN`, `history_COLUMN` and `history_stages`."""
    parts = [pooled({column: bag}, {column: row[f"user_{column}"]}) for column, bag in layer.profile.items()]
    if layer.events:
        kernel, bias = layer.event.get_weights()
        events = [np.zeros_like(query)]
        for at in np.flatnonzero(row[f"history_{next(iter(layer.events))}"]):
            columns = [pooled({column: bag}, {column: row[f"history_{column}"][at]}) for column, bag in layer.events.items()]
            events.append(np.concatenate(columns) @ kernel + bias + layer.stage.table.numpy()[max(row["history_stages"][at], 1)])
        parts.append(attend(query[None], np.array(events))[0])
    kernel, bias = layer.join.get_weights()
    return np.concatenate(parts) @ kernel + bias


def post_fusion(query: np.ndarray, user: np.ndarray, layer) -> np.ndarray:
    """MMSE's fusion of one row."""
    norm = to_length if layer.normalize else lambda x: x
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    both = np.concatenate([query, user])
    if layer.fusion == "late":
        (w1, b1), (w2, b2) = layer.hidden.get_weights(), layer.joined.get_weights()
        return norm(query + np.maximum(both @ w1 + b1, 0) @ w2 + b2)
    if layer.fusion == "gated":
        kernel, bias = layer.gate.get_weights()
        return norm(query + sigmoid(both @ kernel + bias) * user)
    share = sigmoid(float(layer.balance))
    return np.concatenate([share * norm(query), (1 - share) * norm(user)])


def by_row(function, x: np.ndarray, mask: np.ndarray, width: int) -> np.ndarray:
    """Applies a function of one row without padding to each row; zeros at masked places."""
    found = np.zeros((*mask.shape, width))
    for row, present in enumerate(mask):
        if present.any():
            found[row, present] = function(x[row, present])
    return found
