"""MGDSPR's objective as a TFRS task: sampled softmax with temperature over a pool and its hardest negatives, mixed with the positive."""

from collections.abc import Sequence

import tensorflow as tf

from tfebr.errors import ConfigError
from tfebr.infrastructure.checks import check_number, is_number, require
from tfebr.infrastructure.shapes import check_tensors
from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.losses.sampled_softmax import sampled_softmax
from tfebr.tasks.candidates import Candidates
from tfebr.tasks.mixing import mixed_negatives
from tfebr.tasks.retrieval_task import RetrievalTask


class SoftmaxRetrieval(RetrievalTask):
    """Every positive against all negatives of the pool at once, with known positives masked. For towers with one query vector.

    L = -log( exp(s+ / tau) / (exp(s+ / tau) + sum over negatives and mixed negatives of exp(s / tau)) ), s the inner product.

    Source: MGDSPR, the loss with temperature and I_mix. The paper mentions no logQ correction: it is off by default. With it,
    s / tau - log_probability is in place of s / tau, of negatives and of the positive; a mixed negative is drawn as often as its hard
    negative, and is corrected like it (reconstructed). Which negatives are hardest is a matter of s alone.

    With smoothing, L is the cross-entropy with its target distribution over the positive, the negatives and the mixed negatives; a mixed
    negative has the sampling probability of its hard negative, and by the teacher's embeddings the score of the same mix.

    Args:
        temperature: tau, in units of the score.
        mix: (a, b), the bounds of the positive's share in a mixed negative; None leaves mixed negatives out.
        hard: N, how many of the pool are mixed, at least 1; the paper's 684 needs a pool of about 1,000. See `mixed_negatives`.
        stop_gradient: mixed negatives move the query only, neither the positive nor the hard negative (reconstructed).
        logq: correct by the candidates' log_probability.
        in_batch: other rows' positives are negatives; False leaves the shared random ones alone.
        smoothing: of the target distributions, for noisy clicks; None for the plain loss.

    Raises:
        ConfigError: an argument is out of its range.
    """

    def __init__(
        self,
        temperature: float = 2.0,
        mix: tuple[float, float] | None = (0.4, 0.6),
        hard: int = 684,
        stop_gradient: bool = False,
        logq: bool = False,
        in_batch: bool = True,
        smoothing: LabelSmoothing | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_number("temperature", temperature, "(0, inf)")
        check_mix(mix)
        check_number("hard", hard, "[1, inf)", whole=True)
        self.temperature, self.mix, self.hard = temperature, mix, hard
        self.stop_gradient, self.logq, self.in_batch = stop_gradient, logq, in_batch
        # Of calls without a seed, as a TFRS program makes them; in checkpoints, so that a resumed program draws on.
        self._calls = tf.Variable(0, trainable=False, dtype=tf.int64, name="calls")
        # Without a share to give away, the plain loss is the same and keeps more digits.
        self.smoothing = smoothing if smoothing is not None and smoothing.total else None

    def compute_loss(  # type: ignore[override]  # more keywords than any task has
        self,
        queries: tf.Tensor,
        pool: Candidates,
        scores: tf.Tensor,
        mask: tf.Tensor,
        sample_weight: tf.Tensor | None,
        *,
        seed: tf.Tensor | None = None,
        teacher_scores: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The softmax loss.

        Args:
            queries, pool, scores, mask, sample_weight: as `RetrievalTask.compute_loss` has them. The pool's probabilities are read by
                `logq` and by smoothing's `sampling` alone.
            seed: int [2], of the shares alpha; another one for every step. By default the number of the call.
            teacher_scores: float [batch, candidates], inner products of another model's vectors, in place of this one's own scores for
                smoothing's `bootstrap`.

        Raises:
            ConfigError: an argument has another shape or dtype, or the candidates' sampling probability is None and needed.
        """
        check_tensors(
            scores=(scores, "float [batch, candidates]"),
            seed=(seed, "int [2]"),
            teacher_scores=(teacher_scores, "float [batch, candidates]"),
        )
        batch = tf.shape(scores)[0]
        positive_scores = tf.linalg.diag_part(scores[:, :batch])
        blocks, masks, teachers = [scores], [mask], [teacher_scores]
        if self.mix is not None:
            seed = self._next_seed() if seed is None else seed
            mixable = self.score(queries, tf.stop_gradient(pool.embeddings)) if self.stop_gradient else scores
            own = tf.linalg.diag_part(mixable[:, :batch])
            mixed, hardest = mixed_negatives(mixable, own, mask, self.hard, *self.mix, seed)
            blocks.append(mixed)
            masks.append(hardest)
            if teacher_scores is not None:
                taught = tf.cast(teacher_scores, scores.dtype)
                # The same seed and type: the same shares.
                teachers.append(mixed_negatives(taught, tf.linalg.diag_part(taught[:, :batch]), mask, self.hard, *self.mix, seed)[0])
        all_scores, all_masks = tf.concat(blocks, axis=1), tf.concat(masks, axis=1)
        all_taught = None if teacher_scores is None else tf.concat([tf.cast(t, scores.dtype) for t in teachers], axis=1)
        if self.logq:
            if pool.log_probability is None:
                raise ConfigError("`candidate_sampling_probability` must be given for `logq`. Received: None.")
            # The loss divides by the temperature, and the correction must come out whole.
            correction = tf.cast(self.temperature * pool.log_probability, scores.dtype)
            corrections = tf.tile(correction, [len(blocks)])
            all_scores -= corrections
            positive_scores -= correction[:batch]
            all_taught = None if all_taught is None else all_taught - corrections
        if self.smoothing is None:
            return sampled_softmax(all_scores, positive_scores, all_masks, self.temperature, sample_weight)
        log_probability = pool.log_probability
        if log_probability is not None:
            log_probability = tf.tile(log_probability, [len(blocks)])
        losses = self.smoothing.row_losses(all_scores, tf.range(batch), all_masks, self.temperature, log_probability, all_taught)
        return tf.reduce_mean(losses if sample_weight is None else losses * tf.cast(sample_weight, losses.dtype))

    def _next_seed(self) -> tf.Tensor:
        return tf.stack([tf.zeros([], tf.int64), self._calls.assign_add(1)])


def check_mix(mix: Sequence[float] | None) -> None:
    """Raises ConfigError unless a mixed negative's bounds a, b are two numbers with 0 <= a < b <= 1, or None."""
    bounds = isinstance(mix, Sequence) and len(mix) == 2 and all(is_number(share, "[0, 1]") for share in mix)
    fits = mix is None or (bounds and mix[0] < mix[1])
    require(fits, "mix", "two numbers a, b with 0 <= a < b <= 1, or None", mix)
