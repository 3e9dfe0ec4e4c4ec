"""Negatives: how many, which, and never a known positive."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfebr.errors import ConfigError
from tfebr.tasks.candidates import negative_mask, random_negatives_for, uniform_rows


@given(st.floats(0, 0.95), st.integers(2, 2000))
def test_alpha_is_the_share_of_random_negatives(alpha, batch):
    random = random_negatives_for(alpha, batch)
    assert random >= 0
    # To the nearest whole negative.
    assert abs(random - alpha * (random + batch - 1)) <= 0.5 + 1e-6


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, 0), (0.5, 255), (0.75, 765), (1.0, 256)])
def test_alpha_examples(alpha, expected):
    assert random_negatives_for(alpha, 256) == expected


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_impossible_alpha_is_named(alpha):
    with pytest.raises(ConfigError, match="`alpha`"):
        random_negatives_for(alpha, 4)


def test_uniform_rows_reach_every_item_and_never_no_item():
    rows = uniform_rows(20_000, 7, tf.constant([1, 2])).numpy()
    counts = np.bincount(rows, minlength=8)
    assert len(counts) == 8
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:] / 20_000, 1 / 7, atol=0.02)


def test_uniform_rows_follow_the_seed():
    draws = [uniform_rows(50, 1000, tf.constant(seed)).numpy().tolist() for seed in ([1, 2], [1, 2], [1, 3], [2, 2])]
    assert draws[0] == draws[1]
    assert len({tuple(d) for d in draws}) == 3


@given(st.lists(st.integers(0, 5), max_size=6), st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=2), min_size=1, max_size=4))
def test_mask_equals_a_plain_loop(candidates, known):
    found = negative_mask(tf.constant(candidates, tf.int32), tf.constant(known, tf.int32)).numpy().tolist()
    assert found == [[c > 0 and c not in positives for c in candidates] for positives in known]
