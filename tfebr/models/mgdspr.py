"""MGDSPR: query unit, behaviour attention, tempered softmax with mixed hard negatives (Taobao, KDD 2021, arXiv 2106.09297)."""

import dataclasses
import functools

import tensorflow as tf

from tfebr.data.batches import Batch
from tfebr.data.features import FeatureSpec, Featurizer
from tfebr.data.item_table import ItemTable
from tfebr.infrastructure.checks import check_numbers, conform, require
from tfebr.layers.attention import attend
from tfebr.layers.behaviour import RealTimeEncoder, ShortTermEncoder, long_term
from tfebr.layers.embedding_bag import EmbeddingBag
from tfebr.layers.fusion import ClsFusion
from tfebr.layers.precision import at_least_float32, to_length
from tfebr.layers.query_unit import QueryUnit
from tfebr.layers.windows import cut_windows, places_of
from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.models.embedding_tables import column_sizes
from tfebr.models.running_average import SmoothedModel, check_smoothing
from tfebr.models.training_config import TrainingConfig
from tfebr.tasks.candidates import Candidates, uniform_rows
from tfebr.tasks.softmax_retrieval import SoftmaxRetrieval, check_mix

_DAY = 86_400


@dataclasses.dataclass(frozen=True)
class MGDSPRConfig:
    """Settings of MGDSPR. Values marked *reconstructed* are not given by any public source of the paper.

    Attributes:
        dim: d, width of all rows and of the vectors of query and item (128).
        heads: of every self-attention (8).
        mgs: the multi-granular query unit; without it the query is one row, the mean of its words.
        trm: fusion by self-attention at [CLS]; without it the means of query, real-time, short-term and long-term rows are concatenated
            and projected (reconstructed).
        unit_depth: Transformer layers over the query's words (reconstructed: 1).
        lstm_layers, dropout: of the real-time window (2, 0.2).
        use_history: the query tower reads the history's items and queries.
        seconds: the oldest age in the real-time, short-term and long-term window (the first reconstructed: a day; 10 days; a month).
        lengths: most events of each window (50, 100, 100 per behaviour).
        column_dim: width of each category of an event in real-time and short-term; the item's id takes the rest of d (reconstructed).
        temperature: tau, for inner products of vectors that are not normalised (2).
        mix: (a, b), bounds of the positive's share in a mixed hard negative (0.4, 0.6); None leaves them out.
        random_negatives: shared uniform negatives; with the batch's other positives they are the pool (reconstructed: 768 make 1,023).
        hard: N, how many of the pool are mixed (684).
        stop_gradient: no gradient through what is mixed (reconstructed: no).
        logq: correct scores by the items' frequency in the pool, estimated from the stream (not in the paper).
        item_ids: the item tower has e, a vector of each item's own. Items that were never clicked in training have noise there: without
            it where most of the catalogue is new, as in a judged set.
        item_columns: the item tower adds the item's categories to e + tanh(W mean(title)) (not in the paper).
        gated: query and item vectors add their pooled text, of the grains that titles are read by, through a learned gate each (not in
            the paper; see `MultiHeadEncoder`).
        normalize: query and item vectors have length 1 and scores are cosines, for which `temperature` should be near 0.05; beside gated
            text the rest starts at a tenth of its weight (not in the paper).
        smoothing: shares of a positive's probability that go elsewhere, against noisy clicks; see `LabelSmoothing` (not in the paper).
        teacher_decay: bootstrapped smoothing takes the scores of a running average of the model, with this decay a step, in place of the
            model's own; see `RunningAverage` (not in the paper).
        debias: a click counts by the inverse propensity of its position, learned from the log (not in the paper).
        features: what is read. The grains are those of the rows q_1gram, q_2gram and q_seg; titles are read by words, profiles not at all.
        training: how it is trained (AdaGrad 0.1, batch 256, clipped at a global norm of 3: most steps are far below it, but in the first
            ones there are bursts of thousands; the paper's steps come to about two epochs).
    """

    dim: int = 128
    heads: int = 8
    mgs: bool = True
    trm: bool = True
    unit_depth: int = 1
    lstm_layers: int = 2
    dropout: float = 0.2
    use_history: bool = True
    seconds: tuple[int, ...] = (_DAY, 10 * _DAY, 30 * _DAY)
    lengths: tuple[int, ...] = (50, 100, 100)
    column_dim: int = 16
    temperature: float = 2.0
    mix: tuple[float, ...] | None = (0.4, 0.6)
    random_negatives: int = 768
    hard: int = 684
    stop_gradient: bool = False
    logq: bool = False
    item_ids: bool = True
    item_columns: bool = True
    gated: bool = True
    normalize: bool = False
    smoothing: LabelSmoothing = dataclasses.field(default_factory=LabelSmoothing)
    teacher_decay: float | None = None
    debias: bool = False
    features: FeatureSpec = dataclasses.field(
        default_factory=lambda: FeatureSpec(
            grains=("trigrams", "bigrams", "words"),
            query_lengths=(40, 12, 12),
            title_lengths=(0, 0, 24),
            user_columns=(),
            history_items=200,
            history_queries=10,
        )
    )
    training: TrainingConfig = dataclasses.field(default_factory=lambda: TrainingConfig(epochs=2, learning_rate=0.1, clip_norm=3.0))

    def __post_init__(self):
        conform(self)
        for name in ("dim", "heads", "unit_depth", "lstm_layers", "column_dim", "hard"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.dim % self.heads == 0, "heads", f"a divisor of `dim` = {self.dim}", self.heads)
        require(0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout)
        for name in ("seconds", "lengths"):
            check_numbers(name, getattr(self, name), 3, "[1, inf)", whole=True)
        require(tuple(sorted(self.seconds)) == tuple(self.seconds), "seconds", "in ascending order", self.seconds)
        require(self.temperature > 0, "temperature", "above 0", self.temperature)
        check_mix(self.mix)
        require(self.random_negatives >= 0, "random_negatives", "at least 0", self.random_negatives)
        check_smoothing(self.smoothing, self.teacher_decay)
        require(len(self.features.grains) == 3, "features.grains", "three grains: of q_1gram, q_2gram and q_seg", self.features.grains)


class EventTables:
    """The embedding tables: one for each grain of text, item ids and categories of width dim, and their narrow kin in events.

    Attributes:
        text: by grain.
        attributes, events: of the ids as `item`, and of the columns by their keys.
    """

    def __init__(self, config: MGDSPRConfig, featurizer: Featurizer, items: int):
        sizes = column_sizes(featurizer.item_columns)
        id_dim = config.dim - config.column_dim * len(sizes)
        require(id_dim >= 1, "column_dim", f"less than {config.dim / max(len(sizes), 1):g}, for {len(sizes)} categories", config.column_dim)
        table = functools.partial(EmbeddingBag, dtype="float32")
        self.text = {g: table(v.size, config.dim, name=f"text_{g}") for g, v in featurizer.grains.items()}
        self.attributes = {"item": table(items + 1, config.dim, name="item_id")}
        self.attributes |= {key: table(size, config.dim, name=key) for key, size in sizes.items()}
        self.events = {"item": table(items + 1, id_dim, name="event_item_id")}
        self.events |= {key: table(size, config.column_dim, name=f"event_{key}") for key, size in sizes.items()}


class Sum(tf.keras.layers.Layer):
    """What a tower computes, plus its pooled text where `gated`, and to length 1 where `normalize`: two [n, dim] -> float32 [n, dim]."""

    def __init__(self, config: MGDSPRConfig):
        super().__init__(name="sum", dtype="float32")
        self.gated, self.normalize = config.gated, config.normalize
        if self.gated:
            self.gate = self.add_weight(name="gate", shape=[], initializer="ones")
        if self.gated and self.normalize:
            self.share = self.add_weight(name="share", shape=[], initializer=tf.keras.initializers.Constant(0.1))

    def call(self, computed: tf.Tensor, text: tf.Tensor) -> tf.Tensor:
        if self.gated:
            computed = (computed * self.share if self.normalize else computed) + self.gate * text
        return to_length(computed) if self.normalize else computed


def _title_grains(config: MGDSPRConfig) -> list[str]:
    return [grain for grain, length in zip(config.features.grains, config.features.title_lengths, strict=True) if length]


class QueryTower(tf.keras.Model):
    """phi(q, R, S, L): feature dict -> [batch, 1, dim]."""

    def __init__(self, config: MGDSPRConfig, tables: EventTables):
        super().__init__(name="query_tower", dtype=config.training.precision)
        self.config, policy = config, self.dtype_policy
        self.grains = config.features.grains
        self.text = tables.text
        self.reads_items = config.use_history and config.features.history_items > 0
        if config.mgs:
            lengths = config.features.query_lengths
            one, two, words = tables.text.values()
            self.unit = QueryUnit(one, two, words, lengths[2], config.heads, config.unit_depth, name="query_unit", dtype=policy)
        if self.reads_items:
            self.attributes, self.events = tables.attributes, tables.events
            self.real_time = RealTimeEncoder(config.dim, config.lstm_layers, config.dropout, config.heads, name="real_time", dtype=policy)
            self.short_term = ShortTermEncoder(config.heads, name="short_term", dtype=policy)
        dense = tf.keras.layers.Dense
        self.fusion = ClsFusion(config.heads, name="fusion", dtype=policy) if config.trm else dense(config.dim, name="fusion", dtype=policy)
        self.sum = Sum(config)

    def call(self, features: Batch, training: bool = False, seed: tf.Tensor | None = None) -> tf.Tensor:
        query = self._query_rows(features)
        rows = [query, *self._behaviour(features, query, training, seed)] if self.reads_items else [query]
        fused = self.fusion(tf.concat(rows, axis=1) if self.config.trm else tf.concat([tf.reduce_mean(r, axis=1) for r in rows], axis=1))
        text = tf.add_n([self.text[grain](features[f"query_{grain}"]) for grain in _title_grains(self.config)])
        return self.sum(fused, text)[:, None]

    def _query_rows(self, features: Batch) -> tf.Tensor:
        """Q_mgs [batch, 6, dim], or [batch, 1, dim]."""
        one, two, words = (features[f"query_{grain}"] for grain in self.grains)
        if not self.config.mgs:
            return tf.cast(self.text[self.grains[2]](words), self.compute_dtype)[:, None]
        past = features[f"history_query_{self.grains[2]}"]
        return self.unit(one, two, words, past if self.config.use_history else past[:, :0])

    def _behaviour(self, features: Batch, query: tf.Tensor, training: bool, seed: tf.Tensor | None) -> list[tf.Tensor]:
        """H_real, H_short and H_long, each with as many rows as the query."""
        # Most users have done far less than what a history may hold.
        longest = tf.reduce_max(tf.where(features["history_items"] > 0, tf.range(1, features["history_items"].shape[1] + 1), 0))
        features = {name: value[:, :longest] for name, value in features.items() if name.startswith("history_")}
        items = features["history_items"]
        ids = {"item": items} | {column: features[f"history_{column}"] for column in self.attributes if column != "item"}
        cut = cut_windows(items > 0, features["history_stages"], features["history_ages"], self.config.seconds, self.config.lengths)
        places = [places_of(cut.real_time, oldest_first=True), places_of(cut.short_term)]
        # i_t = concat_f(e_f), of both windows at once: their tables are the same.
        of_events = [tf.concat([p.gather(ids[column]) for p in places], axis=0) for column in self.events]
        events = tf.concat([bag.lookup(found) for bag, found in zip(self.events.values(), of_events, strict=True)], axis=1)
        real_time, short_term = (
            p.padded(e) for p, e in zip(places, tf.split(events, [tf.size(p.history) // 2 for p in places]), strict=True)
        )
        real_time = self.real_time(real_time, places[0].present, training=training, seed=seed)
        short_term = self.short_term(short_term, places[1].present)
        return [
            attend(query, real_time, places[0].present),
            attend(query, short_term, places[1].present),
            long_term(query, self._pooled(ids, cut.long_term), tf.reduce_any(cut.long_term, axis=2)),
        ]

    def _pooled(self, ids: Batch, mask: tf.Tensor) -> dict[str, tf.Tensor]:
        """h_click, h_collect and h_buy of each attribute, [batch, behaviours, dim], of ids [batch, events] and a mask of each behaviour."""
        found, shape = tf.where(mask), tf.shape(mask, tf.int64)
        behaviour, history = found[:, 0] * shape[1] + found[:, 1], tf.gather(found, [0, 2], axis=1)
        pooled = {}
        for column, bag in self.attributes.items():
            mean = tf.math.unsorted_segment_mean(bag.lookup(tf.gather_nd(ids[column], history)), behaviour, shape[0] * shape[1])
            pooled[column] = tf.reshape(tf.cast(mean, self.compute_dtype), [shape[0], mask.shape[1], bag.dim])
        return pooled


class ItemTower(tf.keras.Model):
    """psi(i) = e + tanh(W_t mean(w_1 .. w_N)): feature dict -> [items, dim]. An item that was not there in training has e = 0."""

    def __init__(self, config: MGDSPRConfig, tables: EventTables):
        super().__init__(name="item_tower", dtype=config.training.precision)
        self.text = {grain: tables.text[grain] for grain in _title_grains(config)}
        read = {"item": config.item_ids}
        self.attributes = {column: bag for column, bag in tables.attributes.items() if read.get(column, config.item_columns)}
        self.transform = tf.keras.layers.Dense(config.dim, "tanh", use_bias=False, name="transform", dtype=self.dtype_policy)
        self.sum = Sum(config)

    def call(self, features: Batch, training: bool = False) -> tf.Tensor:
        title = tf.add_n([bag(features[f"title_{grain}"]) for grain, bag in self.text.items()])
        parts = [at_least_float32(self.transform(title)), *(bag(features[column][:, None]) for column, bag in self.attributes.items())]
        return self.sum(tf.add_n(parts), title)


class MGDSPR(SmoothedModel):
    """The whole model: towers, the pool of negatives, and the tempered softmax with mixed hard negatives."""

    Config = MGDSPRConfig
    reads_events = True

    def __init__(self, config: MGDSPRConfig, featurizer: Featurizer, table: ItemTable):
        super().__init__(featurizer, table)
        self.config = config
        self.reads_item_ids = config.item_ids
        self.query_tower, self.item_tower = self._new_towers(featurizer)
        mix = None if config.mix is None else (config.mix[0], config.mix[1])
        self.task = SoftmaxRetrieval(config.temperature, mix, config.hard, config.stop_gradient, config.logq, smoothing=config.smoothing)
        if config.logq or config.smoothing.sampling:
            self.keep_draws()
        self.build_towers(config.training.seed)
        if config.teacher_decay is not None:
            self.keep_teacher(featurizer, table, *self._new_towers(featurizer))

    def _new_towers(self, featurizer: Featurizer) -> tuple[QueryTower, ItemTower]:
        tables = EventTables(self.config, featurizer, self.items)
        return QueryTower(self.config, tables), ItemTower(self.config, tables)

    def compute_loss(self, batch: Batch, training: bool = False) -> tf.Tensor:
        config, seed = self.config, self.step_seed()
        pool = tf.concat([batch["positive"], uniform_rows(config.random_negatives, self.items, seed)], axis=0)
        if training:
            self.count_draws(batch["positive"])
        distinct, position = tf.unique(pool)
        embeddings = tf.gather(self.embed_items(distinct, training), position)
        candidates = Candidates(embeddings, pool, self.log_draws(pool, config.random_negatives))
        teacher_scores = None
        if self.teacher is not None:
            taught = tf.gather(self.teacher.embed_items(distinct), position)
            teacher_scores = tf.matmul(self.teacher.embed_queries(batch)[:, 0], taught, transpose_b=True)
        weights = batch["positive_confidence"] if config.debias else None
        queries = self.embed_queries(batch, training, seed + 2)
        return self.task(
            queries,
            **candidates.arguments(),
            sample_weight=weights,
            known_positives=batch["known_positives"],
            seed=seed + 1,
            teacher_scores=teacher_scores,
        )
