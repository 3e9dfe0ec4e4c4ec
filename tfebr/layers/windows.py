"""One history cut into MGDSPR's three windows by age: real-time, short-term, and long-term by behaviour."""

from typing import NamedTuple

import tensorflow as tf

from tfebr.data.stage import Stage
from tfebr.infrastructure.checks import check_numbers, require
from tfebr.infrastructure.shapes import check_tensors

# Long-term behaviours, in order: the lowest stage an event must have reached. What was bought was also clicked.
BEHAVIOURS = {"click": Stage.UNCLICKED, "collect": Stage.CARTED, "buy": Stage.ORDERED}


class Windows(NamedTuple):
    """Which places of a history [batch, events] belong to a window.

    Attributes:
        real_time: bool [batch, events].
        short_term: bool [batch, events], outside real-time.
        long_term: bool [batch, behaviours, events], outside both.
    """

    real_time: tf.Tensor
    short_term: tf.Tensor
    long_term: tf.Tensor


def cut_windows(present: tf.Tensor, stages: tf.Tensor, ages: tf.Tensor, seconds: tuple[int, ...], lengths: tuple[int, ...]) -> Windows:
    """Cuts histories, newest event first, by age; each window keeps its newest events and leaves those before them to the next one.

    Source: MGDSPR, R (latest, before now), S (before R, within 10 days) and L (before S, within one month); the age at which
    real-time ends is reconstructed.

    Args:
        present: bool [batch, events]. An event without a stage, 0, counts as a click, and one without an age as new.
        stages: int32 [batch, events], `Stage` of each event.
        ages: int32 [batch, events], seconds, in ascending order.
        seconds: the oldest age in each of the three windows.
        lengths: most events of each of them, for long-term of each behaviour.

    Raises:
        ConfigError: an argument has another shape or dtype, or is out of its range.
    """
    check_numbers("seconds", seconds, 3, "[0, inf)", whole=True)
    check_numbers("lengths", lengths, 3, "[1, inf)", whole=True)
    require(list(seconds) == sorted(seconds), "seconds", "in ascending order", seconds)
    check_tensors(present=(present, "bool [batch, events]"), stages=(stages, "int [batch, events]"), ages=(ages, "int [batch, events]"))
    real_time = _newest(present & (ages <= seconds[0]), lengths[0])
    rest = present & ~real_time
    short_term = _newest(rest & (ages <= seconds[1]), lengths[1])
    rest &= ~short_term & (ages <= seconds[2])
    long_term = [_newest(rest & (stages >= int(stage)), lengths[2]) for stage in BEHAVIOURS.values()]
    return Windows(real_time, short_term, tf.stack(long_term, axis=1))


def _newest(mask: tf.Tensor, most: int) -> tf.Tensor:
    present = tf.cast(mask, tf.int32)
    # To count along every row takes longer than to see that hardly any has so many.
    too_many = tf.reduce_any(tf.reduce_sum(present, axis=-1) > most)
    return tf.cond(too_many, lambda: mask & (tf.cumsum(present, axis=-1) <= most), lambda: mask)


class Places(NamedTuple):
    """Where the events of a window are, one after another.

    Attributes:
        history: int64 [events, 2], row and column in the history.
        window: int64 [events, 2], row and column once the window is left-aligned.
        lengths: int64 [batch], events of each row.
    """

    history: tf.Tensor
    window: tf.Tensor
    lengths: tf.Tensor

    def gather(self, values: tf.Tensor) -> tf.Tensor:
        """values [batch, history, ...] -> [events, ...]."""
        return tf.gather_nd(values, self.history)

    def padded(self, values: tf.Tensor) -> tf.Tensor:
        """values [events, width] -> [batch, longest, width], left-aligned, with zeros where a row has fewer."""
        return tf.scatter_nd(self.window, values, tf.stack([tf.size(self.lengths, tf.int64), self.longest, values.shape[1]]))

    @property
    def longest(self) -> tf.Tensor:
        return tf.maximum(tf.reduce_max(self.lengths), 0)

    @property
    def present(self) -> tf.Tensor:
        """bool [batch, longest]."""
        return tf.sequence_mask(self.lengths, self.longest)


def places_of(mask: tf.Tensor, oldest_first: bool = False) -> Places:
    """The places of a window bool [batch, history], in the order of the history or, with `oldest_first`, against it."""
    check_tensors(mask=(mask, "bool [batch, history]"))
    lengths = tf.reduce_sum(tf.cast(mask, tf.int64), axis=1)
    history = tf.where(mask)
    before = tf.gather(tf.cumsum(lengths, exclusive=True), history[:, 0])
    column = tf.range(tf.size(before, tf.int64)) - before
    if oldest_first:
        column = tf.gather(lengths, history[:, 0]) - 1 - column
    return Places(history, tf.stack([history[:, 0], column], axis=1), lengths)
