"""How models are trained: the settings that all configs share, and the optimizer that they mean."""

import dataclasses

import tensorflow as tf

from tfebr.infrastructure.checks import check_choice, conform, require
from tfebr.models.clipping import ClippedAdagrad, ClippedAdam, ClippedSGD

OPTIMIZERS = ("adagrad", "adam", "sgd")
PRECISIONS = ("float32", "mixed_bfloat16")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes:
        batch_size: requests in a step.
        epochs: passes over the training requests.
        optimizer: "adagrad", "adam" or "sgd". AdaGrad updates only the rows of the tables that a batch touches; Adam updates them all.
        learning_rate: of the optimizer.
        initial_accumulator: of AdaGrad. Losses are means over the batch, so gradients are small: with Keras's default of 0.1 the
            accumulator would never forget its start, and rare tokens would hardly move.
        clip_norm: gradients are scaled down to this global L2 norm when theirs is larger; None leaves them as they are. The norm is that of
            the gradient itself, with the rows that a step reads several times summed. The defaults are set by
            `benchmarks/results/gradient_norms.json`: bursts in the first steps of MGDSPR and MMSE are clipped, DPSR and the two-tower
            have none.
        seed: of everything random.
        supervision_share: share of a batch drawn from labelled pairs, where a judged set is given beside the log.
        precision: what the towers compute in, in training and in the servable: "float32", or "mixed_bfloat16", which a GPU or a
            processor with bfloat16 units runs faster. Weights, embedding tables, the vectors that leave the towers, losses and the index
            are float32 either way. By default Keras's global dtype policy, which is float32 unless the program has set another.
    """

    batch_size: int = 256
    epochs: int = 5
    optimizer: str = "adagrad"
    learning_rate: float = 0.01
    initial_accumulator: float = 1e-6
    clip_norm: float | None = None
    seed: int = 0
    supervision_share: float = 0.1
    precision: str = dataclasses.field(default_factory=lambda: tf.keras.mixed_precision.global_policy().name)

    def __post_init__(self):
        conform(self)
        for name in ("batch_size", "epochs"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        require(self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        require(self.initial_accumulator > 0, "initial_accumulator", "above 0", self.initial_accumulator)
        require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "above 0, or null", self.clip_norm)
        require(0 <= self.seed < 2**32, "seed", "in [0, 2^32)", self.seed)
        require(0 < self.supervision_share < 1, "supervision_share", "between 0 and 1", self.supervision_share)
        # float16 has not the range of the gradients, and the scaling of losses that helps would skip steps.
        check_choice("precision", self.precision, PRECISIONS)

    def new_optimizer(self) -> tf.keras.optimizers.Optimizer:
        """The optimizer, with nothing learned."""
        clips = self.clip_norm is not None
        if self.optimizer == "adam":
            return (ClippedAdam if clips else tf.keras.optimizers.Adam)(self.learning_rate, global_clipnorm=self.clip_norm)
        if self.optimizer == "sgd":
            return (ClippedSGD if clips else tf.keras.optimizers.SGD)(self.learning_rate, global_clipnorm=self.clip_norm)
        kind = ClippedAdagrad if clips else tf.keras.optimizers.Adagrad
        return kind(self.learning_rate, self.initial_accumulator, epsilon=1e-10, global_clipnorm=self.clip_norm)
