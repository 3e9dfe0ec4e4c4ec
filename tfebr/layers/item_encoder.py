"""Item features to one vector: the item tower's body, whose tables the query side may share."""

import tensorflow as tf

from tfebr.layers.embedding_bag import EmbeddingBag
from tfebr.layers.heads import MultiHeadEncoder


class ItemEncoder(tf.keras.layers.Layer):
    """concat(title grains, categories) -> MLP: feature dict -> [items, dim].

    Args:
        text: grain -> `EmbeddingBag` for the ids `title_GRAIN` [items, length].
        columns: category -> `EmbeddingBag` for the ids [items].
        hidden: widths of the ReLU layers.
        dim: output width.
        normalize: scale outputs to length 1.
    """

    def __init__(
        self,
        text: dict[str, EmbeddingBag],
        columns: dict[str, EmbeddingBag],
        hidden: tuple[int, ...],
        dim: int,
        normalize: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.text, self.columns = text, columns
        width = sum(bag.dim for bag in text.values())
        self.encoder = MultiHeadEncoder(1, hidden, dim, normalize=normalize, twin_inputs=width, name="encoder")

    def call(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        parts = [bag(features[f"title_{grain}"]) for grain, bag in self.text.items()]
        parts += [bag(features[column][..., None]) for column, bag in self.columns.items()]
        return self.encoder(tf.concat(parts, axis=-1))[:, 0]
