"""MGDSPR's objective as a TFRS task: sampled softmax with temperature over a pool and its hardest negatives, mixed with the positive."""

from collections.abc import Sequence

import tensorflow as tf

from tfebr.checks import check_number, is_number, require
from tfebr.errors import ConfigError
from tfebr.layers.precision import at_least_float32
from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.losses.sampled_softmax import sampled_softmax
from tfebr.shapes import check_tensors
from tfebr.tasks.candidates import Candidates, negative_mask
from tfebr.tasks.full_precision import FullPrecisionRetrieval
from tfebr.tasks.mixing import mixed_negatives


class SoftmaxRetrieval(FullPrecisionRetrieval):
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
        # Without a share to give away, the plain loss is the same and keeps more digits.
        self.smoothing = smoothing if smoothing is not None and smoothing.total else None

    def call(
        self,
        query_embeddings: tf.Tensor,
        candidates: Candidates,
        known_positives: tf.Tensor,
        seed: tf.Tensor,
        teacher_scores: tf.Tensor | None = None,
        weights: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """The loss, a scalar.

        Args:
            query_embeddings: float [batch, 1, dim].
            candidates: the pool; candidate i < batch is the positive of row i. Its `log_probability` is read by `logq` and by smoothing's
                `sampling` alone, and may be None without them.
            known_positives: int32 [batch, n], all known positive rows of each row, its drawn one among them, padded with 0.
            seed: int [2], of the shares alpha; another one for every step.
            teacher_scores: float [batch, candidates], inner products of another model's vectors, in place of this one's own scores for
                smoothing's `bootstrap`.
            weights: float [batch], the confidence in each row's positive; multiplies its loss, and the mean is still over all rows.

        Raises:
            ConfigError: an argument has another shape or dtype, the query tower has several heads, or `log_probability` is None and needed.
        """
        check_tensors(
            query_embeddings=(query_embeddings, "float [batch, heads, dim]"),
            **candidates.described("candidates"),
            known_positives=(known_positives, "int [batch, n]"),
            seed=(seed, "int [2]"),
            teacher_scores=(teacher_scores, "float [batch, candidates]"),
            weights=(weights, "float [batch]"),
        )
        if query_embeddings.shape[1] != 1:
            raise ConfigError(
                f"`query_embeddings` must be [batch, 1, dim]: softmax retrieval is for towers with one head. Received: shape "
                f"{tuple(query_embeddings.shape)}. Set the tower's heads to 1, or use PairwiseRetrieval."
            )
        queries, items = at_least_float32(query_embeddings)[:, 0], at_least_float32(candidates.embeddings)
        batch = tf.shape(queries)[0]
        scores = tf.matmul(queries, items, transpose_b=True)
        positive_scores = tf.linalg.diag_part(scores[:, :batch])
        mask = negative_mask(candidates.rows, known_positives)
        if not self.in_batch:
            mask &= (tf.range(tf.shape(scores)[1]) >= batch)[None, :]
        blocks, masks, teachers = [scores], [mask], [teacher_scores]
        if self.mix is not None:
            mixable = tf.matmul(queries, tf.stop_gradient(items), transpose_b=True) if self.stop_gradient else scores
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
            if candidates.log_probability is None:
                raise ConfigError("`log_probability` of the candidates is needed for `logq`. Received: None.")
            # The loss divides by the temperature, and the correction must come out whole.
            correction = tf.cast(self.temperature * candidates.log_probability, scores.dtype)
            corrections = tf.tile(correction, [len(blocks)])
            all_scores -= corrections
            positive_scores -= correction[:batch]
            all_taught = None if all_taught is None else all_taught - corrections
        if self.smoothing is None:
            return sampled_softmax(all_scores, positive_scores, all_masks, self.temperature, weights)
        log_probability = candidates.log_probability
        if log_probability is not None:
            log_probability = tf.tile(log_probability, [len(blocks)])
        losses = self.smoothing.row_losses(all_scores, tf.range(batch), all_masks, self.temperature, log_probability, all_taught)
        return tf.reduce_mean(losses if weights is None else losses * tf.cast(weights, losses.dtype))


def check_mix(mix: Sequence[float] | None) -> None:
    """Raises ConfigError unless a mixed negative's bounds a, b are two numbers with 0 <= a < b <= 1, or None."""
    bounds = isinstance(mix, Sequence) and len(mix) == 2 and all(is_number(share, "[0, 1]") for share in mix)
    fits = mix is None or (bounds and mix[0] < mix[1])
    require(fits, "mix", "two numbers a, b with 0 <= a < b <= 1, or None", mix)
