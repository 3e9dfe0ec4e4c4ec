"""The embedding tables of a model."""

import dataclasses
import functools

from tfebr.data.features import Featurizer
from tfebr.data.names import column_key
from tfebr.data.vocabulary import Vocabulary
from tfebr.layers.embedding_bag import EmbeddingBag, TextBag


@dataclasses.dataclass(frozen=True)
class Tables:
    """The embedding tables of one model: query text, title text, item columns and user columns, these by their keys; float32 throughout."""

    query: TextBag
    title: TextBag
    item: dict[str, EmbeddingBag]
    user: dict[str, EmbeddingBag]

    @classmethod
    def create(cls, featurizer: Featurizer, text_dim: int, column_dim: int, share_text: bool) -> "Tables":
        sizes = {grain: vocabulary.size for grain, vocabulary in featurizer.grains.items()}
        title = TextBag(sizes, text_dim, name="text" if share_text else "title_text", dtype="float32")
        query = title if share_text else TextBag(sizes, text_dim, name="query_text", dtype="float32")
        table = functools.partial(EmbeddingBag, dtype="float32")
        item = {k: table(size, column_dim, name=f"item_{k}") for k, size in column_sizes(featurizer.item_columns).items()}
        user = {k: table(size, column_dim, name=f"user_{k}") for k, size in column_sizes(featurizer.user_columns).items()}
        return cls(query, title, item, user)


def column_sizes(vocabularies: dict[str, Vocabulary]) -> dict[str, int]:
    """By the column's key, the size of its vocabulary."""
    return {column_key(column): vocabulary.size for column, vocabulary in vocabularies.items()}
