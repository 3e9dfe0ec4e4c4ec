"""What label smoothing keeps beside a model: a running average of its towers, and how often items are drawn."""

import tensorflow as tf

from tfebr.data.features import Featurizer
from tfebr.data.item_table import ItemTable
from tfebr.infrastructure.checks import check_number, require
from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.models.retrieval_model import RetrievalModel
from tfebr.tasks.frequency import StreamingFrequency, pool_log_probability


def check_smoothing(smoothing: LabelSmoothing, teacher_decay: float | None) -> None:
    """Raises ConfigError naming `teacher_decay` where it is out of its range, or where nothing would read the average."""
    require(teacher_decay is None or 0 < teacher_decay < 1, "teacher_decay", "between 0 and 1, or null", teacher_decay)
    reads = smoothing.bootstrap > 0
    require(teacher_decay is None or reads, "teacher_decay", "null where `smoothing.bootstrap` is 0, or set that", teacher_decay)


class RunningAverage(RetrievalModel):
    """A second pair of towers, whose weights are a running average of a model's: w' = (1 - share) w' + share w.

    The share is 1 - decay^every, at every `every`-th step: so it costs a fraction of a pass over the embedding tables. Until about
    1 / (1 - decay) steps are taken it is larger, so that w' is the plain mean of what was taken in; before the first time, w' is the model
    at its start. It embeds as the model does, without dropout, is not trained, is saved in the model's checkpoints, and is not exported.

    Source: Tarvainen and Valpola, Mean teachers are better role models, 2017; that it moves at some steps only is this library's own.

    Args:
        model: what it follows, already built.
        query_tower, item_tower: towers made as the model's were, not yet built.
        decay: of one step.
        every: steps between two updates.

    Raises:
        ConfigError: `decay` is not between 0 and 1, or `every` is not positive.
    """

    def __init__(
        self,
        model: RetrievalModel,
        featurizer: Featurizer,
        table: ItemTable,
        query_tower: tf.keras.Model,
        item_tower: tf.keras.Model,
        decay: float,
        every: int = 10,
    ):
        super().__init__(featurizer, table)
        check_number("decay", decay, "(0, 1)")
        check_number("every", every, "[1, inf)", whole=True)
        self.query_tower, self.item_tower = query_tower, item_tower
        self.decay, self.every = decay, every
        # The values are replaced.
        self.build_towers(seed=0)
        pairs = list(zip(_weights(self), _weights(model), strict=True))
        for own, followed in pairs:
            own.assign(followed)
        # Wrapped, so that the followed weights are not tracked as this one's.
        self._pairs = lambda: pairs
        self.trainable = False

    def follow(self, step: tf.Tensor) -> None:
        """Takes the model's weights in, where `step`, an int scalar counted from 1, is one of those to do it at."""
        tf.cond(step % self.every == 0, lambda: self._take_in(step // self.every), lambda: False)

    def _take_in(self, times: tf.Tensor) -> bool:
        share = tf.maximum(1.0 - self.decay**self.every, 1.0 / tf.cast(times, tf.float32))
        for own, followed in self._pairs():
            # In place, with one temporary array where `assign` of the sum would need three: tables are large.
            tf.raw_ops.ResourceApplyGradientDescent(var=own.handle, alpha=share, delta=own - followed)
        return True


class SmoothedModel(RetrievalModel):
    """A model with label smoothing: it keeps what the targets are made of, where its config asks for it.

    Its config has the fields `smoothing`, `teacher_decay` and `debias`. A subclass calls `keep_draws` and `keep_teacher`, and in
    `compute_loss` reads `teacher` and, after `count_draws`, `log_draws`.

    Attributes:
        teacher: the running average of the model, or None.
        frequency: of items among the batches' positives, or None.
    """

    def __init__(self, featurizer: Featurizer, table: ItemTable):
        super().__init__(featurizer, table)
        self.teacher: RunningAverage | None = None
        self.frequency: StreamingFrequency | None = None

    def keep_draws(self) -> None:
        """Counts how often items are drawn."""
        self.frequency = StreamingFrequency(self.items)

    def keep_teacher(self, featurizer: Featurizer, table: ItemTable, query_tower: tf.keras.Model, item_tower: tf.keras.Model) -> None:
        """Follows the built towers with fresh ones of the same kind, by the decay in the config."""
        self.teacher = RunningAverage(self, featurizer, table, query_tower, item_tower, self.config.teacher_decay)

    def count_draws(self, positives: tf.Tensor) -> None:
        """Takes in one batch's positives, int32 [batch]; does nothing where draws are not kept."""
        if self.frequency is not None:
            self.frequency.update(positives, tf.cast(self.optimizer.iterations, tf.int64))

    def log_draws(self, rows: tf.Tensor, random: int) -> tf.Tensor | None:
        """log of the expected draws of int32 [...] rows into a pool of a batch's positives and `random` uniform ones; None if not kept."""
        return None if self.frequency is None else pool_log_probability(self.frequency.expected_draws(rows), random, self.items)

    def train_step(self, inputs):
        metrics = super().train_step(inputs)
        if self.teacher is not None:
            self.teacher.follow(self.optimizer.iterations)
        return metrics


def _weights(model: RetrievalModel) -> list[tf.Variable]:
    """Of both towers, each once, though they share tables."""
    return list({id(weight): weight for weight in (*model.query_tower.weights, *model.item_tower.weights)}.values())
