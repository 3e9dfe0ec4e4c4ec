"""DPSR: personalised two-tower retrieval with a multi-head query tower and mixed negatives (JD, SIGIR 2020, arXiv 2006.02282)."""

import dataclasses

import tensorflow as tf

from tfebr.data.batches import Batch
from tfebr.data.features import FeatureSpec, Featurizer
from tfebr.data.item_table import ItemTable
from tfebr.infrastructure.checks import conform, require
from tfebr.layers.heads import MultiHeadEncoder
from tfebr.layers.item_encoder import ItemEncoder
from tfebr.layers.precision import at_least_float32
from tfebr.losses.pairwise_hinge import REDUCTIONS
from tfebr.models.embedding_tables import Tables
from tfebr.models.retrieval_model import RetrievalModel
from tfebr.models.training_config import TrainingConfig
from tfebr.tasks.candidates import Candidates, random_negatives_for, uniform_rows
from tfebr.tasks.pairwise_retrieval import PairwiseRetrieval


@dataclasses.dataclass(frozen=True)
class DPSRConfig:
    """Settings of DPSR. Values marked *reconstructed* are not given by any public source of the paper.

    Attributes:
        dim: d, width of query and item vectors and of token embeddings (64).
        column_dim: width of category and profile embeddings (reconstructed).
        heads: m, query vectors of a request; 1 and 4 were compared.
        query_hidden: ReLU widths of each head's MLP, the first is its projection P_i (reconstructed).
        item_hidden: ReLU widths of the item tower's MLP (reconstructed).
        share_head_mlp: heads share the MLP after their projections (reconstructed: no).
        gated: the pooled text is added to what the MLPs make of it, through a learned gate (see `MultiHeadEncoder`; not in the paper).
        share_text: query and title tokens share their tables (reconstructed: yes).
        normalize: query and item vectors have length 1, scores are cosines (reconstructed: yes).
        use_user: the query tower reads the profile.
        use_history: the query tower reads the history's items and queries.
        beta: temperature of the attention over heads (reconstructed: 0.1).
        stop_attention: no gradient through the attention weights.
        margin: delta of the hinge (0.1 in the same team's later paper).
        reduction: of the hinge over a row's negatives: "mean_active" (those inside the margin), "sum" (as the paper writes it), "mean".
            The sum lets a row with many hard negatives outweigh the others: on small logs it measures worse.
        alpha: share of shared uniform negatives among all negatives of a row (reconstructed: 0.5, from the published data set op).
        explicit_negatives: most labelled negatives of a request that are used ("human supervision"), 0 for none.
        explicit_weight: weight of a labelled negative relative to one of the pool.
        features: what is read.
        training: how it is trained (AdaGrad; the page gives 0.01 at 400M steps, a shop's log needs larger steps).
    """

    dim: int = 64
    column_dim: int = 16
    heads: int = 4
    query_hidden: tuple[int, ...] = (128, 64)
    item_hidden: tuple[int, ...] = (128,)
    share_head_mlp: bool = False
    gated: bool = True
    share_text: bool = True
    normalize: bool = True
    use_user: bool = True
    use_history: bool = True
    beta: float = 0.1
    stop_attention: bool = False
    margin: float = 0.1
    reduction: str = "mean_active"
    alpha: float = 0.5
    explicit_negatives: int = 0
    explicit_weight: float = 1.0
    features: FeatureSpec = dataclasses.field(default_factory=FeatureSpec)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)

    def __post_init__(self):
        conform(self)
        for name in ("dim", "column_dim", "heads"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("beta", "margin"):
            require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        require(0 <= self.alpha <= 1, "alpha", "in [0, 1]", self.alpha)
        require(self.reduction in REDUCTIONS, "reduction", f"one of {', '.join(REDUCTIONS)}", self.reduction)
        require(self.explicit_negatives >= 0, "explicit_negatives", "at least 0", self.explicit_negatives)
        require(self.explicit_weight > 0, "explicit_weight", "above 0", self.explicit_weight)
        for name in ("query_hidden", "item_hidden"):
            require(min(getattr(self, name), default=1) >= 1, name, "widths of at least 1", getattr(self, name))


class QueryTower(tf.keras.Model):
    """x = concat(avgpool(tokens), profile, avgpool(history)); e_i = MLP_i(x P_i): feature dict -> [batch, heads, dim]."""

    def __init__(self, config: DPSRConfig, tables: Tables):
        super().__init__(name="query_tower", dtype=config.training.precision)
        self.config = config
        self.text, self.item, self.user = tables.query, tables.item, tables.user
        others = len(self.user) * config.use_user + len(self.item) * self._reads("history_items") + self._reads("history_queries")
        self.encoder = MultiHeadEncoder(
            config.heads,
            config.query_hidden,
            config.dim,
            config.share_head_mlp,
            (1.0, *[None] * others) if config.gated else (),
            config.normalize,
            name="encoder",
            dtype=self.dtype_policy,
        )

    def _reads(self, history: str) -> bool:
        return self.config.use_history and getattr(self.config.features, history) > 0

    def call(self, features: Batch, training: bool = False) -> tf.Tensor:
        grains = self.text.sizes
        parts = [self.text({grain: features[f"query_{grain}"] for grain in grains})]
        if self.config.use_user:
            parts += [bag(features[f"user_{column}"][:, None]) for column, bag in self.user.items()]
        if self._reads("history_items"):
            parts += [bag(features[f"history_{column}"]) for column, bag in self.item.items()]
        if self._reads("history_queries"):
            past = {grain: features[f"history_query_{grain}"] for grain in grains}
            parts.append(self.text({grain: tf.reshape(ids, [-1, ids.shape[1] * ids.shape[2]]) for grain, ids in past.items()}))
        return at_least_float32(self.encoder(parts))


class DPSR(RetrievalModel):
    """The whole model: towers, mixed negatives and the hinge loss over every (positive, negative) pair."""

    Config = DPSRConfig

    def __init__(self, config: DPSRConfig, featurizer: Featurizer, table: ItemTable):
        super().__init__(featurizer, table)
        self.config = config
        tables = Tables.create(featurizer, config.dim, config.column_dim, config.share_text)
        self.query_tower = QueryTower(config, tables)
        encoder = config.item_hidden, config.dim, config.gated, config.normalize
        self.item_tower = ItemEncoder(tables.title, tables.item, *encoder, name="item_tower", dtype=config.training.precision)
        self.task = PairwiseRetrieval(
            margin=config.margin,
            beta=config.beta,
            in_batch=config.alpha < 1,
            reduction=config.reduction,
            stop_weights=config.stop_attention,
        )
        self.build_towers(config.training.seed)

    def compute_loss(self, batch: Batch, training: bool = False) -> tf.Tensor:
        config = self.config
        negatives = random_negatives_for(config.alpha, config.training.batch_size)
        pool = tf.concat([batch["positive"], uniform_rows(negatives, self.items, self.step_seed())], axis=0)
        rows, more = pool, dict[str, tf.Tensor]()
        if config.explicit_negatives:
            rows, more = self._with_labelled(pool, batch["negatives"][:, : config.explicit_negatives])
        distinct, position = tf.unique(rows)
        candidates = Candidates(tf.gather(self.embed_items(distinct, training), position), rows)
        return self.task(self.embed_queries(batch, training), **candidates.arguments(), known_positives=batch["known_positives"], **more)

    def _with_labelled(self, pool: tf.Tensor, labelled: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The rows of the pool and of each row's own labelled negatives [batch, n], and what the task is to know of them."""
        batch, of_pool = tf.shape(labelled)[0], tf.ones([tf.shape(labelled)[0], tf.size(pool)])
        own = tf.repeat(tf.eye(batch, dtype=tf.bool), tf.shape(labelled)[1], axis=1)
        weights = tf.concat([of_pool, tf.fill(tf.shape(own), self.config.explicit_weight)], axis=1)
        mask = tf.concat([of_pool > 0, own], axis=1)
        return tf.concat([pool, tf.reshape(labelled, [-1])], axis=0), {"score_mask": mask, "negative_weights": weights}
