"""Multi-stage mining against plain Python on random pages: who may be drawn, how many, and that all are drawn equally often."""

import itertools
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfebr.data.stage import Stage
from tfebr.tasks.stages import mine_stages

COUNTS = st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 3))
NEAR = st.sampled_from([None, 0, 2])


@st.composite
def pages(draw) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Padded pages of few distinct items, so that many are shown twice; padding stands anywhere."""
    shape = draw(st.integers(1, 4)), draw(st.integers(0, 9))
    numbers = np.random.default_rng(draw(st.integers(0, 10_000)))
    items = numbers.integers(0, 7, shape)
    stages = np.where(items > 0, numbers.choice(4, shape, p=[0.55, 0.2, 0.1, 0.15]), -1)
    positions = np.where(items > 0, numbers.integers(-1, 10, shape), -1)
    return items.astype(np.int32), stages.astype(np.int32), positions.astype(np.int32)


def groups_of(items, stages, positions, near) -> list[set[int]]:
    """Places of one page that may be drawn as ordered, as clicked and as unclicked."""
    latest: dict[int, int] = {}
    for place, item in enumerate(items):
        if item and (item not in latest or stages[place] > stages[latest[item]]):
            latest[item] = place
    last_click = max((p for s, p in zip(stages, positions, strict=True) if s >= Stage.CLICKED), default=-1)
    groups: list[set[int]] = [set(), set(), set()]
    for place in latest.values():
        if stages[place] == Stage.ORDERED:
            groups[0].add(place)
        elif stages[place] >= Stage.CLICKED:
            groups[1].add(place)
        elif near is None or last_click < 0 or positions[place] <= last_click + near:
            groups[2].add(place)
    return groups


@given(pages(), COUNTS, NEAR, st.integers(0, 100))
def test_draws_are_of_their_stage_once_and_as_many_as_there_are(page, counts, near, seed):
    mined = mine_stages(*page, *counts, near, tf.constant([seed, 3]))
    rows, stages, places = (values.numpy() for values in mined)
    assert rows.shape == stages.shape == places.shape == (len(page[0]), sum(counts))
    assert rows.dtype == stages.dtype == places.dtype == np.int32
    slots = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    for at, (items, own_stages, positions) in enumerate(zip(*page, strict=True)):
        for slot, members in zip(slots, groups_of(items, own_stages, positions, near), strict=True):
            there = slot[rows[at, slot] > 0]
            drawn = places[at, there]
            assert len(there) == min(len(slot), len(members))
            assert len(set(drawn)) == len(drawn)
            assert set(drawn) <= members
            np.testing.assert_array_equal(rows[at, there], items[drawn])
            np.testing.assert_array_equal(stages[at, there], own_stages[drawn])
            empty = np.setdiff1d(slot, there)
            assert (rows[at, empty] == 0).all()
            assert (stages[at, empty] == -1).all()
            assert (places[at, empty] == 0).all()
        present = rows[at][rows[at] > 0]
        assert len(set(present)) == len(present), "an item is drawn in two stages"


def test_any_width_in_a_graph():
    specs = [tf.TensorSpec([None, None], tf.int32)] * 3 + [tf.TensorSpec([2], tf.int64)]
    graph = tf.function(lambda *arguments: mine_stages(*arguments[:3], 1, 2, 3, 2, arguments[3]), input_signature=specs)
    seed = tf.constant([5, 2**40], tf.int64)
    items = np.arange(1, 41, dtype=np.int32).reshape(2, 20)
    for rows, width in ((2, 20), (1, 2), (2, 0), (0, 5)):
        page = [values[:rows, :width] for values in (items, items % 4, items % 7)]
        for found, expected in zip(graph(*page, seed), mine_stages(*page, 1, 2, 3, 2, seed), strict=True):
            assert found.shape == (rows, 6)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("near", "expected"),
    [(None, {10, 11, 13, 14, 15, 16}), (0, {10, 11, 15}), (1, {10, 11, 13, 15}), (4, {10, 11, 13, 14, 15}), (9, {10, 11, 13, 14, 15, 16})],
)
def test_what_stands_far_below_the_last_click_is_left_out(near, expected):
    """Clicks at 1 and 4; unclicked items at 0, 3, 5, 8, an unknown position, and 9."""
    items, positions = [10, 1, 11, 2, 13, 14, 15, 16], [0, 1, 3, 4, 5, 8, -1, 9]
    stages = [0, 1, 0, 3, 0, 0, 0, 0]
    mined = mine_stages(*(tf.constant([v]) for v in (items, stages, positions)), 0, 1, 8, near, tf.constant([1, 2]))
    assert set(mined.rows[0, 1:].numpy()) - {0} == expected


def test_without_a_known_click_all_unclicked_items_are_seen():
    items, positions = tf.constant([[1, 2, 3]] * 2), tf.constant([[0, 5, 60], [-1, 5, 60]])
    mined = mine_stages(items, tf.constant([[0, 0, 0], [1, 0, 0]]), positions, 0, 1, 3, 0, tf.constant([1, 2]))
    assert [set(row) for row in mined.rows[:, 1:].numpy()] == [{1, 2, 3}, {2, 3, 0}]


def test_one_seed_draws_the_same_and_another_one_does_not():
    items = np.tile(np.arange(1, 31, dtype=np.int32), [8, 1])
    stages, positions = np.zeros_like(items), np.zeros_like(items)
    draw = lambda *seed: mine_stages(items, stages, positions, 0, 1, 5, None, tf.constant(seed)).rows.numpy()  # noqa: E731
    np.testing.assert_array_equal(draw(3, 4), draw(3, 4))
    for seed in ((3, 5), (4, 4)):
        assert (draw(3, 4) != draw(*seed)).mean() > 0.5
    assert len({tuple(sorted(row)) for row in draw(3, 4)}) == 8, "requests of one step draw alike"


def test_every_member_and_every_pair_is_drawn_equally_often():
    page = [1, 2, 3, 4, 5, 0, 6, 7, 8], [0, 0, 0, 0, 0, -1, 1, 2, 1], [0, 1, 2, 3, 4, -1, 6, 7, 8]
    page = [np.tile(np.int32(values), [400, 1]) for values in page]
    unclicked, clicked = Counter(), Counter()
    for seed in range(10):
        mined = mine_stages(*page, 0, 1, 2, None, tf.constant([seed, 0])).rows.numpy()
        unclicked.update(tuple(sorted(row)) for row in mined[:, 1:])
        clicked.update(mined[:, 0].tolist())
    assert set(clicked) == {6, 7, 8}
    assert set(unclicked) == set(itertools.combinations(range(1, 6), 2))
    # Six standard deviations of a binomial count.
    for found, share in ((clicked, 1 / 3), (unclicked, 1 / 10)):
        assert max(abs(n - 4000 * share) for n in found.values()) < 6 * (4000 * share * (1 - share)) ** 0.5
