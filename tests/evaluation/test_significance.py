import numpy as np
import pytest
from scipy import stats

from tfebr.errors import ConfigError, DataError
from tfebr.evaluation import significance
from tfebr.evaluation.significance import paired_test


@pytest.mark.parametrize("seed", range(4))
def test_the_p_value_is_that_of_scipys_exact_test(seed):
    random = np.random.default_rng(seed)
    a, b = random.normal(0.4, 1, 11), random.normal(size=11)
    exact = stats.permutation_test((a - b,), np.mean, permutation_type="samples", n_resamples=np.inf)
    found = paired_test(a, b, resamples=20_000)
    assert found.difference == pytest.approx(exact.statistic)
    # Four standard deviations of a share of 20,000 draws.
    assert found.p_value == pytest.approx(exact.pvalue, abs=4 * np.sqrt(0.25 / 20_000))


def test_the_interval_is_that_of_scipys_percentile_bootstrap():
    random = np.random.default_rng(5)
    a, b = random.gamma(2, 1, 80), random.gamma(1.5, 1, 80)
    expected = stats.bootstrap((a - b,), np.mean, method="percentile", n_resamples=20_000, rng=random).confidence_interval
    found = paired_test(a, b, resamples=20_000)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_ties_of_a_discrete_metric_count_as_far_as_observed():
    # Of the 16 sign patterns of four differences of 0.1, two are as far from zero as all of one sign.
    b = np.array([0.1, 0.2, 0.3, 0.7])
    assert paired_test(b + 0.1, b, resamples=20_000).p_value == pytest.approx(2 / 16, abs=0.01)


def test_p_values_of_equal_systems_are_uniform():
    random = np.random.default_rng(6)
    p_values = [paired_test(random.normal(size=20), random.normal(size=20), resamples=400).p_value for _ in range(300)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_pairs_with_nan_are_left_out():
    a, b = np.array([1.0, np.nan, 3.0, 5.0, 2.0]), np.array([0.5, 2.0, np.nan, 4.0, 2.5])
    kept = paired_test(a[[0, 3, 4]], b[[0, 3, 4]])
    assert paired_test(a, b) == kept
    assert kept.n == 3


def test_swapping_the_systems_turns_the_difference_only():
    random = np.random.default_rng(7)
    a, b = random.normal(0.3, 1, 50), random.normal(size=50)
    there, back = paired_test(a, b), paired_test(b, a)
    assert (there.difference, there.p_value) == pytest.approx((-back.difference, back.p_value))
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_the_same_system_twice_has_no_difference():
    values = np.arange(10.0)
    found = paired_test(values, values)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_a_large_difference_has_the_smallest_p_value_of_the_resamples():
    random = np.random.default_rng(8)
    b = random.normal(size=100)
    assert paired_test(b + 1 + random.random(100), b, resamples=999).p_value == pytest.approx(1 / 1000)


def test_the_seed_fixes_the_result_and_blocks_do_not_bias_it(monkeypatch):
    random = np.random.default_rng(9)
    a, b = random.normal(0.2, 1, 60), random.normal(size=60)
    whole = paired_test(a, b, seed=1)
    assert paired_test(a, b, seed=1) == whole
    assert paired_test(a, b, seed=2) != whole
    monkeypatch.setattr(significance, "_VALUES_AT_ONCE", 60 * 7)
    blocks = paired_test(a, b, seed=1)
    assert (blocks.p_value, blocks.low, blocks.high) == pytest.approx((whole.p_value, whole.low, whole.high), abs=0.03)


@pytest.mark.parametrize(
    ("a", "b", "options", "error", "message"),
    [
        ([1.0, 2.0], [1.0], {}, DataError, r"shapes \(2,\) and \(1,\)"),
        ([[1.0, 2.0]], [[1.0, 2.0]], {}, DataError, r"\[requests\]"),
        ([1.0, np.nan], [1.0, 2.0], {}, DataError, "at least 2 requests .* Received: 1 of 2"),
        ([1.0, np.inf], [1.0, 2.0], {}, DataError, "infinite"),
        ([1.0, 2.0], [1.0, 2.0], {"resamples": 0}, ConfigError, "`resamples` must be a whole number of at least 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(a, b, options, error, message):
    with pytest.raises(error, match=message):
        paired_test(np.array(a), np.array(b), **options)
