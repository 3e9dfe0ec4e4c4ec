"""Item features to one vector: the item tower's body, whose tables the query side may share."""

import tensorflow as tf

from tfebr.layers.embedding_bag import EmbeddingBag, TextBag
from tfebr.layers.heads import MultiHeadEncoder


class ItemEncoder(tf.keras.layers.Layer):
    """concat(pooled title, categories) -> MLP: feature dict -> [items, dim]. Source: DPSR, S(s).

    Args:
        text: for the ids `title_GRAIN` [items, length].
        columns: category -> table for the ids [items].
        hidden, dim, residual, normalize: as in `MultiHeadEncoder`.
    """

    def __init__(
        self,
        text: TextBag,
        columns: dict[str, EmbeddingBag],
        hidden: tuple[int, ...],
        dim: int,
        residual: bool = True,
        normalize: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.text, self.columns = text, columns
        self.encoder = MultiHeadEncoder(1, hidden, dim, residual=residual, normalize=normalize, name="encoder")

    def call(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        parts = [self.text({grain: features[f"title_{grain}"] for grain in self.text.sizes})]
        parts += [bag(features[column][..., None]) for column, bag in self.columns.items()]
        return self.encoder(tf.concat(parts, axis=-1))[:, 0]
