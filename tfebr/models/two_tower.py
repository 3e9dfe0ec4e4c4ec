"""The plain two-tower recipe of the public TFRS tutorial: mean-pooled text, in-batch softmax. The baseline every other model must beat."""

import dataclasses

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfebr.data.batches import Batch
from tfebr.data.features import FeatureSpec, Featurizer
from tfebr.data.item_table import ItemTable
from tfebr.layers.heads import MultiHeadEncoder
from tfebr.layers.item_encoder import ItemEncoder
from tfebr.models.config import require
from tfebr.models.retrieval_model import RetrievalModel, Tables, TrainingConfig


@dataclasses.dataclass(frozen=True)
class TwoTowerConfig:
    """Settings of the plain two-tower.

    Attributes:
        dim: width of query and item vectors.
        embedding_dim: width of token and category embeddings.
        hidden: ReLU widths of both towers' MLPs; none in the tutorial.
        share_text: query and title tokens share their tables.
        features: what is read; the user and the history are not.
        training: how it is trained.
    """

    dim: int = 64
    embedding_dim: int = 64
    hidden: tuple[int, ...] = ()
    share_text: bool = True
    features: FeatureSpec = dataclasses.field(default_factory=FeatureSpec)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)

    def __post_init__(self):
        for name in ("dim", "embedding_dim"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(min(self.hidden, default=1) >= 1, "hidden", "positive widths", self.hidden)


class QueryTower(tf.keras.Model):
    """Mean-pooled query tokens -> dense: feature dict -> [batch, 1, dim]."""

    def __init__(self, config: TwoTowerConfig, tables: Tables):
        super().__init__(name="query_tower")
        self.tables = tables
        self.encoder = MultiHeadEncoder(1, config.hidden, config.dim, normalize=False, name="encoder")

    def call(self, features: Batch, training: bool = False) -> tf.Tensor:
        return self.encoder(tf.concat([bag(features[f"query_{grain}"]) for grain, bag in self.tables.query.items()], axis=-1))


class TwoTower(RetrievalModel):
    """TFRS's own retrieval task over the two towers."""

    Config = TwoTowerConfig

    def __init__(self, config: TwoTowerConfig, featurizer: Featurizer, table: ItemTable):
        super().__init__(featurizer, table)
        self.config = config
        tables = Tables.create(featurizer, config.embedding_dim, config.embedding_dim, config.share_text)
        self.query_tower = QueryTower(config, tables)
        self.item_tower = ItemEncoder(tables.title, tables.item, config.hidden, config.dim, normalize=False, name="item_tower")
        # TFRS sums by default; the mean keeps the learning rate independent of the batch size.
        loss = tf.keras.losses.CategoricalCrossentropy(from_logits=True)
        self.task = tfrs.tasks.Retrieval(loss=loss, remove_accidental_hits=True)
        self.build_towers()

    def compute_loss(self, batch: Batch, training: bool = False) -> tf.Tensor:
        queries = self.embed_queries(batch, training)[:, 0]
        items = self.embed_items(batch["positive"], training)
        return self.task(queries, items, candidate_ids=batch["positive"], compute_metrics=False)
