"""MMSE: ordered, clicked, unclicked and random items, post-fusion, a retrieval and a ranking loss (JD, WWW 2023, arXiv 2303.11009).

Of the paper the abstract alone is public: everything below it is a reconstruction, and every choice a setting.
"""

import dataclasses

import tensorflow as tf

from tfebr.data.batches import Batch
from tfebr.data.features import FeatureSpec, Featurizer
from tfebr.data.item_table import ItemTable
from tfebr.data.stage import Stage
from tfebr.infrastructure.checks import conform, require
from tfebr.layers.embedding_bag import EmbeddingBag
from tfebr.layers.item_encoder import ItemEncoder
from tfebr.layers.post_fusion import FUSIONS, PostFusion
from tfebr.layers.precision import at_least_float32, to_length
from tfebr.layers.text_encoder import TextEncoder
from tfebr.layers.user_encoder import UserEncoder
from tfebr.losses.graded_infonce import ROW_REDUCTIONS
from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.losses.multi_grained import FORMS
from tfebr.models.embedding_tables import Tables
from tfebr.models.running_average import SmoothedModel, check_smoothing
from tfebr.models.training_config import TrainingConfig
from tfebr.tasks.candidates import Candidates, uniform_rows
from tfebr.tasks.multi_grained_retrieval import OBJECTIVES, UNCLICKED, MultiGrainedRetrieval, shown_and_pool_scores
from tfebr.tasks.stages import mine_stages


@dataclasses.dataclass(frozen=True)
class MMSEConfig:
    """Settings of MMSE, all reconstructed; the numbers marked * are of the same team's EMNLP 2023 paper, which has MMSE as a baseline.

    Attributes:
        dim: d, width of query, user and item vectors and of token embeddings (128*).
        column_dim: width of category, profile and item id embeddings.
        depth: Transformer layers over the words of the query.
        heads: of every self-attention.
        query_hidden, item_hidden: ReLU widths of the MLPs of query text and item.
        gated: text is added to what the MLPs make of it, through a learned gate (see `MultiHeadEncoder`).
        normalize: query and item vectors have length 1, scores are cosines.
        use_user, use_history: the user's vector reads the profile, and the history's items.
        item_ids: items have a vector of their own; see `MGDSPRConfig.item_ids`.
        fusion: the reading of post-fusion: "late" (A), "gated" (A + B) or "score" (A + C); see `PostFusion`.
        objective: "multi_grained" (retrieval loss + lambda ranking loss) or "graded" (graded InfoNCE).
        ordered, clicked, unclicked: most items of each stage of a request in a step.
        click_only: carted and ordered items count as clicked, and no more.
        near: unclicked items count down to so many positions below the last click; None takes all. What was not seen says nothing, but
            where the log's ranker put the best on top, what stands below is worse for a reason.
        unclicked_as: "left_out" of the retrieval loss, or "negatives" in it.
        temperature: tau of the retrieval loss, or of the graded loss (1/30*).
        weights: of clicked, carted and ordered items in the loss.
        row_reduction: of a request's positives, "mean" or "sum".
        ranking_weight: lambda.
        form: of the ranking loss, "hinge", "logistic" or "listwise". The retrieval loss moves a score by up to 1 / tau, the hinge by 1: it
            takes a `ranking_weight` ten times as large.
        margins: of the hinge: one (0.1*), or the steps from unclicked to clicked, to carted, to ordered.
        ranking_temperature: tau of the other two forms.
        lowest_positive: of the graded loss: 2 compares clicked and later items with all below them, 1 unclicked ones with random ones, too.
        adaptive: alpha of adaptive temperatures and margins (0.5*; null for none); `margins` is then delta_0 (0.01*). With the hinge only.
        random_negatives: shared uniform negatives beside the batch's other positives.
        smoothing, teacher_decay, debias: against noisy clicks; see `MGDSPRConfig`.
        features: what is read.
        training: how it is trained.
    """

    dim: int = 128
    column_dim: int = 16
    depth: int = 1
    heads: int = 8
    query_hidden: tuple[int, ...] = (128,)
    item_hidden: tuple[int, ...] = (128,)
    gated: bool = True
    normalize: bool = True
    use_user: bool = True
    use_history: bool = True
    item_ids: bool = True
    fusion: str = "gated"
    objective: str = "multi_grained"
    ordered: int = 1
    clicked: int = 3
    unclicked: int = 8
    click_only: bool = False
    near: int | None = None
    unclicked_as: str = "left_out"
    temperature: float = 1 / 30
    weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    row_reduction: str = "mean"
    ranking_weight: float = 0.3
    form: str = "listwise"
    margins: tuple[float, ...] = (0.1,)
    ranking_temperature: float = 1 / 30
    lowest_positive: int = 2
    adaptive: float | None = None
    random_negatives: int = 512
    smoothing: LabelSmoothing = dataclasses.field(default_factory=LabelSmoothing)
    teacher_decay: float | None = None
    debias: bool = False
    features: FeatureSpec = dataclasses.field(default_factory=lambda: FeatureSpec(history_items=100, history_queries=0))
    training: TrainingConfig = dataclasses.field(default_factory=lambda: TrainingConfig(epochs=2, learning_rate=0.02, clip_norm=3.0))

    def __post_init__(self):
        conform(self)
        for name in ("dim", "column_dim", "heads", "clicked", "random_negatives"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.dim % self.heads == 0, "heads", f"a divisor of `dim` = {self.dim}", self.heads)
        for name in ("depth", "ordered", "unclicked", "ranking_weight"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        for name in ("query_hidden", "item_hidden"):
            require(min(getattr(self, name), default=1) >= 1, name, "widths of at least 1", getattr(self, name))
        for name, known in (("fusion", FUSIONS), ("objective", OBJECTIVES), ("row_reduction", ROW_REDUCTIONS), ("form", FORMS)):
            require(getattr(self, name) in known, name, f"one of {', '.join(known)}", getattr(self, name))
        require(self.unclicked_as in UNCLICKED, "unclicked_as", f"one of {', '.join(UNCLICKED)}", self.unclicked_as)
        for name in ("temperature", "ranking_temperature"):
            require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        require(self.near is None or self.near >= 0, "near", "at least 0, or null", self.near)
        require(len(self.weights) == 3 and min(self.weights) >= 0, "weights", "three numbers of at least 0", self.weights)
        require(len(self.margins) in (1, 3) and min(self.margins) >= 0, "margins", "one or three numbers of at least 0", self.margins)
        require(self.lowest_positive in (1, 2), "lowest_positive", "1 or 2", self.lowest_positive)
        require(self.adaptive is None or self.adaptive > 0, "adaptive", "above 0, or null", self.adaptive)
        fits = self.objective == "multi_grained" and self.form == "hinge" and len(self.margins) == 1 and self.unclicked_as == "left_out"
        require(self.adaptive is None or fits, "adaptive", "null, or with multi_grained, hinge, one margin and left_out", self.adaptive)
        require(self.adaptive is None or not self.smoothing.total, "adaptive", "null where there is `smoothing`", self.adaptive)
        check_smoothing(self.smoothing, self.teacher_decay)


class QueryTower(tf.keras.Model):
    """t = TextEnc(query), h = UserEnc(profile, history) and their post-fusion: feature dict -> [batch, 1, dim or 2 dim]."""

    def __init__(self, config: MMSEConfig, tables: Tables, ids: EmbeddingBag):
        super().__init__(name="query_tower", dtype=config.training.precision)
        self.normalize = config.normalize
        words, length = config.features.grains[0], config.features.query_lengths[0]
        read = config.depth, config.heads, config.query_hidden, config.gated
        self.text = TextEncoder(tables.query, words, length, *read, name="text", dtype=self.dtype_policy)
        events = {"items": ids} | tables.item if config.use_history and config.features.history_items else {}
        profile = tables.user if config.use_user else {}
        self.user = UserEncoder(events, profile, config.dim, name="user", dtype=self.dtype_policy) if events or profile else None
        if self.user is not None:
            self.fusion = PostFusion(config.fusion, config.normalize, name="fusion", dtype=self.dtype_policy)

    def call(self, features: Batch, training: bool = False) -> tf.Tensor:
        query = self.text({grain: features[f"query_{grain}"] for grain in self.text.text.sizes})
        if self.user is not None:
            vector = self.fusion((query, self.user(features | {"query": query})))
        else:
            vector = to_length(query) if self.normalize else query
        return at_least_float32(vector)[:, None]


class ItemTower(tf.keras.Model):
    """Title, categories and the item's own vector: feature dict -> [items, dim], or [items, 2 dim] with a `personal` half."""

    def __init__(self, config: MMSEConfig, tables: Tables, ids: EmbeddingBag, personal: bool):
        super().__init__(name="item_tower", dtype=config.training.precision)
        columns = ({"item": ids} if config.item_ids else {}) | tables.item
        rest = config.dim, config.gated, config.normalize
        self.encoder = ItemEncoder(tables.title, columns, config.item_hidden, *rest, name="encoder", dtype=self.dtype_policy)
        self.personal = None
        if personal:
            self.personal = ItemEncoder(tables.title, columns, config.item_hidden, *rest, name="personal", dtype=self.dtype_policy)

    def call(self, features: Batch, training: bool = False) -> tf.Tensor:
        vectors = self.encoder(features)
        return vectors if self.personal is None else tf.concat([vectors, self.personal(features)], axis=-1)


class MMSE(SmoothedModel):
    """The whole model: towers, multi-stage mining, the pool of negatives and the multi-grained objective."""

    Config = MMSEConfig
    reads_events = True

    def __init__(self, config: MMSEConfig, featurizer: Featurizer, table: ItemTable):
        super().__init__(featurizer, table)
        self.config = config
        self.reads_item_ids = config.item_ids
        self.query_tower, self.item_tower = self._new_towers(featurizer)
        self.task = MultiGrainedRetrieval(
            config.objective,
            config.temperature,
            config.weights,
            config.row_reduction,
            config.ranking_weight,
            config.form,
            config.margins[0] if len(config.margins) == 1 else config.margins,
            config.ranking_temperature,
            config.unclicked_as,
            config.lowest_positive,
            config.adaptive,
            smoothing=config.smoothing,
        )
        if config.smoothing.sampling:
            self.keep_draws()
        self.build_towers(config.training.seed)
        if config.teacher_decay is not None:
            self.keep_teacher(featurizer, table, *self._new_towers(featurizer))

    def _new_towers(self, featurizer: Featurizer) -> tuple[QueryTower, ItemTower]:
        tables = Tables.create(featurizer, self.config.dim, self.config.column_dim, share_text=True)
        ids = EmbeddingBag(self.items + 1, self.config.column_dim, name="item_id", dtype="float32")
        query_tower = QueryTower(self.config, tables, ids)
        # Without users, the query has no second half.
        personal = self.config.fusion == "score" and query_tower.user is not None
        return query_tower, ItemTower(self.config, tables, ids, personal)

    def compute_loss(self, batch: Batch, training: bool = False) -> tf.Tensor:
        config, seed = self.config, self.step_seed()
        stages = tf.minimum(batch["stages"], int(Stage.CLICKED)) if config.click_only else batch["stages"]
        counts = config.ordered, config.clicked, config.unclicked
        mined = mine_stages(batch["items"], stages, batch["positions"], *counts, config.near, seed + 1)
        pool = tf.concat([batch["positive"], uniform_rows(config.random_negatives, self.items, seed)], axis=0)
        if training:
            self.count_draws(batch["positive"])
        distinct, position = tf.unique(tf.concat([tf.reshape(mined.rows, [-1]), pool], axis=0))
        shown, pooled = self._placed(self.embed_items(distinct, training), position, mined.rows)
        teacher_scores = None
        if self.teacher is not None:
            taught = self._placed(self.teacher.embed_items(distinct), position, mined.rows)
            queries = self.teacher.embed_queries(batch)[:, 0]
            teacher_scores = tf.concat(shown_and_pool_scores(queries, *taught), axis=1)
        confidence = tf.gather(batch["confidence"], mined.places, batch_dims=1) if config.debias else None
        candidates = Candidates(pooled, pool, self.log_draws(pool, config.random_negatives))
        return self.task(
            self.embed_queries(batch, training),
            **candidates.arguments(),
            known_positives=batch["items"],
            shown=Candidates(shown, mined.rows, self.log_draws(mined.rows, config.random_negatives)),
            stages=mined.stages,
            confidence=confidence,
            teacher_scores=teacher_scores,
        )

    @staticmethod
    def _placed(embeddings: tf.Tensor, position: tf.Tensor, shown: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Of shown items [batch, n, dim] and of the pool [candidates, dim], from those of distinct items."""
        placed = tf.gather(embeddings, position)
        size = tf.size(shown)
        return tf.reshape(placed[:size], [-1, shown.shape[1], placed.shape[1]]), placed[size:]
