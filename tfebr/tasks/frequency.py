"""How often items come up as in-batch negatives, estimated from the stream of batches, for the logQ correction."""

import tensorflow as tf

from tfebr.infrastructure.checks import check_number
from tfebr.infrastructure.shapes import check_tensors


class StreamingFrequency(tf.Module):
    """Expected draws of each item per batch, as 1 / (mean number of steps between two of its draws).

    Source: Yi et al., Sampling-bias-corrected neural modeling for large corpus item recommendations, RecSys 2019, algorithm 2: A holds
    each item's last step, B its mean interval, and B = (1 - rate) B + rate (step - A). Three differences. Rows index the arrays, so that
    nothing collides. An item that comes c times in one batch makes c updates with an interval of (step - A) / c, so that 1 / B is the
    expected number of draws, above 1 for popular items, and not the probability of at least one. Until an item has come about
    1 / rate times, B is the plain mean of its intervals, the first of them counted from the start of the stream: nothing depends
    on an initial guess.

    Args:
        items: number of items; rows are in [1, items], 0 is "no item".
        rate: weight of the latest interval; a change of frequency is followed within about 1 / rate draws of the item.

    Raises:
        ConfigError: the rate is not in (0, 1), or `items` is not positive; when called, an argument has another shape or dtype.
    """

    def __init__(self, items: int, rate: float = 0.01, name: str | None = None):
        super().__init__(name=name)
        check_number("items", items, "[1, inf)", whole=True)
        check_number("rate", rate, "(0, 1)")
        self.rate = rate
        # Before the first step, 0, so that no interval is 0.
        self.last_step = tf.Variable(tf.fill([items + 1], tf.constant(-1, tf.int64)), trainable=False, name="last_step")
        self.interval = tf.Variable(tf.zeros([items + 1]), trainable=False, name="interval")
        self.draws = tf.Variable(tf.zeros([items + 1]), trainable=False, name="draws")

    def update(self, rows: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Takes one batch in, and returns the log of the expected draws per batch, float [n], of its items: 0 for "no item".

        Args:
            rows: int32 [n], the items of the batch, repeated as often as they come.
            step: int scalar, 0 for the first batch and never falling.
        """
        check_tensors(rows=(rows, "int [n]"), step=(step, "int []"))
        present = tf.boolean_mask(rows, rows > 0)
        unique, _, counts = tf.unique_with_counts(present)
        step, count = tf.cast(step, tf.int64), tf.cast(counts, tf.float32)
        at = unique[:, None]
        interval, seen = tf.gather(self.interval, unique), tf.gather(self.draws, unique)
        gap = tf.cast(step - tf.gather(self.last_step, unique), tf.float32) / count
        share = tf.maximum(count / (seen + count), 1.0 - (1.0 - self.rate) ** count)
        self.interval.scatter_nd_update(at, interval + share * (gap - interval))
        self.draws.scatter_nd_update(at, seen + count)
        self.last_step.scatter_nd_update(at, tf.fill(tf.shape(unique), step))
        return tf.math.log(tf.where(rows > 0, self.expected_draws(rows), 1.0))

    def expected_draws(self, rows: tf.Tensor) -> tf.Tensor:
        """Expected draws per batch of each of int32 rows of any shape, float of that shape; 0 for an item that never came."""
        check_tensors(rows=(rows, "int [...]"))
        return tf.math.divide_no_nan(1.0, tf.gather(self.interval, rows))


def pool_log_probability(expected_draws: tf.Tensor, random: int, items: int) -> tf.Tensor:
    """log(E + R / items): `Candidates.log_probability` of a pool of in-batch positives and R uniform draws with replacement.

    Args:
        expected_draws: float [...], E, of the candidate's item among the batch's positives, as `StreamingFrequency` gives it;
            0 where in-batch positives are no negatives.
        random: R, at least 0, the shared uniform negatives.
        items: number of items that they are drawn from.

    Returns:
        Of the shape of `expected_draws`; 0, "unknown", where neither source can draw the item.

    Raises:
        ConfigError: an argument is of another dtype, or out of its range.
    """
    check_number("random", random, "[0, inf)", whole=True)
    check_number("items", items, "[1, inf)", whole=True)
    check_tensors(expected_draws=(expected_draws, "float [...]"))
    draws = expected_draws + random / items
    return tf.math.log(tf.where(draws > 0, draws, 1.0))
