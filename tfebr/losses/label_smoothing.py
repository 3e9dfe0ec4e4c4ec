"""Label smoothing for noisy clicks: target distributions over unmasked candidates, and the cross-entropy of scores with them."""

import dataclasses

import tensorflow as tf

from tfebr.errors import ConfigError
from tfebr.infrastructure.checks import check_number, conform, require
from tfebr.infrastructure.shapes import check_tensors
from tfebr.losses.masked import masked_logsumexp, masked_softmax, to_logits


@dataclasses.dataclass(frozen=True)
class LabelSmoothing:
    """Which share of a positive's probability goes to other targets:  t = (1 - u - s - b) positive + u U + s Q + b P.

    Every part is a distribution over the row's positive and its unmasked candidates, so that no mass falls on what is masked.

    Attributes:
        uniform: u, spread evenly (Szegedy et al. 2016).
        sampling: s, spread in proportion to the candidates' sampling probability (unigram smoothing, Pereyra et al. 2017).
        bootstrap: b, to the softmax of the model's own scores, or of a teacher such as a running average of the model
            (soft bootstrapping, Reed et al. 2015). A target, without a gradient.

    Raises:
        ConfigError: a share is negative, or the positive would keep nothing.
    """

    uniform: float = 0.0
    sampling: float = 0.0
    bootstrap: float = 0.0

    def __post_init__(self):
        conform(self)
        for name, share in dataclasses.asdict(self).items():
            check_number(name, share, "[0, 1)")
        require(self.total < 1, "uniform + sampling + bootstrap", "less than 1", self.total)

    @property
    def total(self) -> float:
        """The share that the positive gives away."""
        return self.uniform + self.sampling + self.bootstrap

    def targets(
        self,
        scores: tf.Tensor,
        positive: tf.Tensor,
        mask: tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
        log_probability: tf.Tensor | None = None,
        teacher_scores: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The target distributions, float [batch, candidates]; rows sum to 1, masked candidates have 0, and no gradient flows.

        Args:
            scores: float [batch, candidates], the positive's among them.
            positive: int [batch], the column of each row's positive.
            mask: bool [batch, candidates], True for negatives; whether the positive's column is True makes no difference.
            temperature: tau of the bootstrapped part, the one of the loss.
            log_probability: float [candidates] or [batch, candidates], of drawing each candidate, up to a constant; for `sampling`.
            teacher_scores: float [batch, candidates], in place of the model's own for `bootstrap`.

        Raises:
            ConfigError: an argument has another shape or dtype, or `sampling` is not 0, and `log_probability` is missing.
        """
        check_tensors(
            scores=(scores, "float [batch, candidates]"),
            positive=(positive, "int [batch]"),
            mask=(mask, "bool [batch, candidates]"),
            log_probability=(log_probability, "float [candidates] or [batch, candidates]"),
            teacher_scores=(teacher_scores, "float [batch, candidates]"),
        )
        logits = to_logits(scores, temperature)
        own = _one_hot(positive, mask)
        mask |= own
        targets = (1.0 - self.total) * tf.cast(own, logits.dtype)
        if self.uniform:
            targets += self.uniform * masked_softmax(tf.zeros_like(logits), mask)
        if self.sampling:
            if log_probability is None:
                raise ConfigError(f"`log_probability` of the candidates is needed for `sampling` = {self.sampling}. Received: None.")
            targets += self.sampling * masked_softmax(tf.cast(log_probability, logits.dtype), mask)
        if self.bootstrap:
            soft = logits if teacher_scores is None else to_logits(teacher_scores, temperature)
            targets += self.bootstrap * masked_softmax(soft, mask)
        return tf.stop_gradient(targets)

    def row_losses(
        self,
        scores: tf.Tensor,
        positive: tf.Tensor,
        mask: tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
        log_probability: tf.Tensor | None = None,
        teacher_scores: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Cross-entropy of every row with its `targets`, float [batch]; arguments as there."""
        targets = self.targets(scores, positive, mask, temperature, log_probability, teacher_scores)
        return _cross_entropies(scores, targets, mask | _one_hot(positive, mask), temperature)


def soft_cross_entropy(
    scores: tf.Tensor,
    targets: tf.Tensor,
    mask: tf.Tensor,
    temperature: float | tf.Tensor = 1.0,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """L = mean over rows of  - sum_j t_ij log softmax(s_i / tau)_j, the softmax over unmasked candidates.

    With one-hot targets it is `sampled_softmax`.

    Args:
        scores: float [batch, candidates].
        targets: float [batch, candidates], 0 where masked, as `LabelSmoothing.targets` makes them.
        mask: bool [batch, candidates], True for all that is in the softmax, the row's positive among it.
        temperature: tau, in units of the score.
        weights: float [batch], the confidence in each row's label; multiplies its loss, and the mean is still over all rows.

    Returns:
        A scalar, float32 at least; rows where nothing is unmasked count as 0. Finite for every mask, in value and gradient.

    Raises:
        ConfigError: an argument has another shape or dtype, or the temperature is not positive.
    """
    check_tensors(
        scores=(scores, "float [batch, candidates]"),
        targets=(targets, "float [batch, candidates]"),
        mask=(mask, "bool [batch, candidates]"),
        weights=(weights, "float [batch]"),
    )
    losses = _cross_entropies(scores, targets, mask, temperature)
    return tf.reduce_mean(losses if weights is None else losses * tf.cast(weights, losses.dtype))


def _cross_entropies(scores: tf.Tensor, targets: tf.Tensor, mask: tf.Tensor, temperature: float | tf.Tensor) -> tf.Tensor:
    logits = to_logits(scores, temperature)
    total = masked_logsumexp(logits, mask)
    # Selected, not multiplied by a target of 0: a masked score may be infinite.
    return tf.reduce_sum(tf.cast(targets, logits.dtype) * tf.where(mask, total[:, None] - logits, 0.0), axis=1)


def _one_hot(positive: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return tf.cast(positive, tf.int32)[:, None] == tf.range(tf.shape(mask)[1])[None, :]
