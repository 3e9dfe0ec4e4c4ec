"""Multi-stage mining: which of a request's shown items stand for each stage in a training step."""

from typing import NamedTuple

import tensorflow as tf

from tfebr.data.stage import Stage
from tfebr.infrastructure.checks import check_number, require
from tfebr.infrastructure.shapes import check_tensors


class Mined(NamedTuple):
    """A few shown items of each request, all [batch, ordered + clicked + unclicked].

    Attributes:
        rows: int32 item rows, 0 where a request has fewer.
        stages: int32 number of each item's `Stage`, -1 where there is none.
        places: int32 where each item stands in the lists that it was taken from; 0 where there is none.
    """

    rows: tf.Tensor
    stages: tf.Tensor
    places: tf.Tensor


def mine_stages(
    items: tf.Tensor,
    stages: tf.Tensor,
    positions: tf.Tensor,
    ordered: int,
    clicked: int,
    unclicked: int,
    near: int | None,
    seed: tf.Tensor,
) -> Mined:
    """Draws at most so many ordered, clicked (or carted) and unclicked items of each request, each once.

    Whoever clicked at a position has most likely seen what stands above it; of what stands far below nothing is known. An item that was
    shown twice counts by its latest stage.

    Source: MMSE, multi-stage information mining; the numbers, and which unclicked items count, are reconstructed.

    Args:
        items: int32 [batch, shown], padded with 0.
        stages: int32 [batch, shown], padded with -1.
        positions: int32 [batch, shown], from 0 at the top; -1 where it is not known, which counts as seen.
        ordered, clicked, unclicked: how many of each, at least 0 and not all of them 0.
        near: unclicked items count down to so many positions below the last click; 0 takes those above it, None all.
        seed: int [2]; another one for every step.

    Raises:
        ConfigError: an argument has another shape or dtype, or is out of its range.
    """
    for name, count in (("ordered", ordered), ("clicked", clicked), ("unclicked", unclicked)):
        check_number(name, count, "[0, inf)", whole=True)
    require(ordered + clicked + unclicked > 0, "ordered + clicked + unclicked", "at least 1", 0)
    if near is not None:
        check_number("near", near, "[0, inf)", whole=True)
    check_tensors(
        items=(items, "int [batch, shown]"),
        stages=(stages, "int [batch, shown]"),
        positions=(positions, "int [batch, shown]"),
        seed=(seed, "int [2]"),
    )
    # There may be fewer places than are asked for.
    missing = tf.maximum(max(ordered, clicked, unclicked) - tf.shape(items)[1], 0)
    items, stages, positions = (
        tf.pad(values, [[0, 0], [0, missing]], constant_values=padding) for values, padding in ((items, 0), (stages, -1), (positions, -1))
    )
    shown = tf.range(tf.shape(items)[1])
    same = items[:, :, None] == items[:, None, :]
    goes_first = stages[:, None, :] > stages[:, :, None]
    goes_first |= (stages[:, None, :] == stages[:, :, None]) & (shown[None, :] < shown[:, None])[None]
    once = (items > 0) & ~tf.reduce_any(same & goes_first, axis=2)
    is_ordered, is_clicked = stages == int(Stage.ORDERED), stages >= int(Stage.CLICKED)
    seen = tf.ones_like(once)
    if near is not None:
        last_click = tf.reduce_max(tf.where(is_clicked, positions, -1), axis=1, keepdims=True)
        seen = (positions <= last_click + near) | (last_click < 0)
    noise = tf.random.stateless_uniform(tf.shape(items), seed)
    groups = (
        (ordered, once & is_ordered),
        (clicked, once & is_clicked & ~is_ordered),
        (unclicked, once & (stages == int(Stage.UNCLICKED)) & seen),
    )
    drawn = [_draw(members, noise, count) for count, members in groups if count]
    there, places = (tf.concat(parts, axis=1) for parts in zip(*drawn, strict=True))
    rows, found = tf.gather(items, places, batch_dims=1), tf.gather(stages, places, batch_dims=1)
    return Mined(tf.where(there, rows, 0), tf.where(there, found, -1), tf.where(there, places, 0))


def _draw(members: tf.Tensor, noise: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether there is one, and its place, [batch, count], of members drawn without repetition."""
    best, places = tf.math.top_k(tf.where(members, noise, -1.0), count)
    return best >= 0, places
