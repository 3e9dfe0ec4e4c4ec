"""The plain two-tower recipe of the public TFRS tutorial: embeddings, mean-pooled text, in-batch softmax. What other models must beat."""

import dataclasses

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfebr.data.batches import Batch
from tfebr.data.features import FeatureSpec, Featurizer
from tfebr.data.item_table import ItemTable
from tfebr.infrastructure.checks import conform, require
from tfebr.models.embedding_tables import Tables
from tfebr.models.retrieval_model import RetrievalModel
from tfebr.models.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class TwoTowerConfig:
    """Settings of the plain two-tower.

    Attributes:
        dim: width of embeddings, and so of query and item vectors.
        share_text: query and title tokens share their tables.
        features: what is read; the user and the history are not.
        training: how it is trained; the tutorial's learning rate. Towers of tables alone compute in float32 whatever its precision.
    """

    dim: int = 64
    share_text: bool = True
    features: FeatureSpec = dataclasses.field(default_factory=FeatureSpec)
    training: TrainingConfig = dataclasses.field(default_factory=lambda: TrainingConfig(learning_rate=0.1))

    def __post_init__(self):
        conform(self)
        require(self.dim >= 1, "dim", "at least 1", self.dim)


class QueryTower(tf.keras.Model):
    """Mean token embedding: feature dict -> [batch, 1, dim]."""

    def __init__(self, tables: Tables):
        super().__init__(name="query_tower", dtype="float32")
        self.text = tables.query

    def call(self, features: Batch, training: bool = False) -> tf.Tensor:
        return self.text({grain: features[f"query_{grain}"] for grain in self.text.sizes})[:, None]


class ItemTower(tf.keras.Model):
    """The same of the title, plus the embeddings of the categories: feature dict -> [items, dim]."""

    def __init__(self, tables: Tables):
        super().__init__(name="item_tower", dtype="float32")
        self.text, self.item = tables.title, tables.item

    def call(self, features: Batch, training: bool = False) -> tf.Tensor:
        title = self.text({grain: features[f"title_{grain}"] for grain in self.text.sizes if f"title_{grain}" in features})
        return tf.add_n([title, *(bag(features[column][:, None]) for column, bag in self.item.items())])


class TwoTower(RetrievalModel):
    """TFRS's own retrieval task over the two towers."""

    Config = TwoTowerConfig

    def __init__(self, config: TwoTowerConfig, featurizer: Featurizer, table: ItemTable):
        super().__init__(featurizer, table)
        self.config = config
        tables = Tables.create(featurizer, config.dim, config.dim, config.share_text)
        self.query_tower, self.item_tower = self.new_query_tower(tables), self.new_item_tower(tables)
        # TFRS sums by default; the mean keeps the learning rate independent of the batch size.
        loss = tf.keras.losses.CategoricalCrossentropy(from_logits=True)
        self.task = tfrs.tasks.Retrieval(loss=loss, remove_accidental_hits=True)
        # TFRS hands no `dtype` on to Keras, which under a global policy of mixed precision would round the queries, and them alone.
        self.task._set_dtype_policy("float32")
        self.build_towers(config.training.seed)

    def new_query_tower(self, tables: Tables) -> tf.keras.Model:
        """The query tower over the tables; a subclass may have another."""
        return QueryTower(tables)

    def new_item_tower(self, tables: Tables) -> tf.keras.Model:
        """The item tower over the tables; a subclass may have another."""
        return ItemTower(tables)

    def compute_loss(self, batch: Batch, training: bool = False) -> tf.Tensor:
        queries = self.embed_queries(batch, training)[:, 0]
        items = self.embed_items(batch["positive"], training)
        return self.task(queries, items, candidate_ids=batch["positive"], compute_metrics=False)
