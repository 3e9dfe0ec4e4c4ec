"""Item features to one vector: the item tower's body, whose tables the query side may share."""

import tensorflow as tf

from tfebr.infrastructure.shapes import check_tensors
from tfebr.layers.embedding_bag import EmbeddingBag, TextBag
from tfebr.layers.heads import MultiHeadEncoder
from tfebr.layers.precision import at_least_float32


class ItemEncoder(tf.keras.layers.Layer):
    """concat(pooled title, categories) -> MLP: feature dict -> float32 [items, dim]. Source: DPSR, S(s).

    Args:
        text: for the ids `title_GRAIN` [items, length].
        columns: key of a category, or `item` -> table for the ids [items].
        gated: the pooled title has a gate, see `MultiHeadEncoder`.
        hidden, dim, normalize: as in `MultiHeadEncoder`.

    Raises:
        ConfigError: as in `MultiHeadEncoder`; when called, ids have another shape or dtype.
    """

    def __init__(
        self,
        text: TextBag,
        columns: dict[str, EmbeddingBag],
        hidden: tuple[int, ...],
        dim: int,
        gated: bool = True,
        normalize: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.text, self.columns = text, columns
        gates = (1.0, *[None] * len(columns)) if gated else ()
        self.encoder = MultiHeadEncoder(1, hidden, dim, gates=gates, normalize=normalize, name="encoder", dtype=self.dtype_policy)

    def call(self, features: dict[str, tf.Tensor]) -> tf.Tensor:
        titles = {grain: features[f"title_{grain}"] for grain in self.text.sizes if f"title_{grain}" in features}
        check_tensors(
            **{f"title_{grain}": (ids, f"int [items, {grain}]") for grain, ids in titles.items()},
            **{column: (features[column], "int [items]") for column in self.columns},
        )
        parts = [self.text(titles)]
        parts += [bag(features[column][..., None]) for column, bag in self.columns.items()]
        return at_least_float32(self.encoder(parts)[:, 0])
