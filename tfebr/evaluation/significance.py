"""Is one system better than another: a paired randomisation test and a bootstrap interval over requests."""

import dataclasses

import numpy as np

from tfebr.errors import DataError
from tfebr.infrastructure.checks import check_number

# Bounds the block of resampled values, whatever the number of requests.
_VALUES_AT_ONCE = 1 << 22


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How system a differs from system b on the same requests.

    Attributes:
        difference: mean of `a - b`.
        low, high: 95 % percentile bootstrap interval of the difference.
        p_value: two-sided, of the paired randomisation (sign-flip) test.
        n: requests that both systems have a value for.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int


def paired_test(a: np.ndarray, b: np.ndarray, seed: int = 0, resamples: int = 10_000) -> Comparison:
    """Compares two systems by their values `[requests]` of one metric; requests where either is NaN are left out.

    The p-value is `(1 + #{|permuted| >= |observed|}) / (1 + resamples)`, so it is never 0: its smallest value is 1 / (1 + resamples).
    Source: Smucker, Allan and Carterette, "A comparison of statistical significance tests for information retrieval evaluation", CIKM 2007.

    Raises:
        ConfigError: `resamples` is not positive.
        DataError: the lengths differ, fewer than 2 requests have both values, or a value is infinite.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    check_number("resamples", resamples, "[1, inf)", whole=True)
    if a.ndim != 1 or a.shape != b.shape:
        raise DataError(f"`a` and `b` should both be [requests], of the same requests. Received: shapes {a.shape} and {b.shape}.")
    differences = (a - b)[~(np.isnan(a) | np.isnan(b))]
    n = len(differences)
    if n < 2:
        raise DataError(f"a paired test needs at least 2 requests with a value of both systems. Received: {n} of {len(a)}.")
    if not np.isfinite(differences).all():
        raise DataError("`a` or `b` holds an infinite value; a metric is finite, or NaN where it is not defined.")
    random = np.random.default_rng(seed)
    observed = float(differences.mean())
    flipped, resampled = [], []
    block = max(1, _VALUES_AT_ONCE // n)
    for start in range(0, resamples, block):
        shape = (min(block, resamples - start), n)
        flipped.append((1.0 - 2.0 * random.integers(0, 2, shape, dtype=np.int8)) @ differences / n)
        resampled.append(differences[random.integers(0, n, shape)].mean(axis=1))
    # The sums are taken in another order than the observed mean, so equal ones may differ in their last bits.
    as_far = np.abs(np.concatenate(flipped)) >= abs(observed) - 1e-12 * np.abs(differences).max()
    low, high = np.quantile(np.concatenate(resampled), [0.025, 0.975])
    return Comparison(observed, float(low), float(high), float((1 + as_far.sum()) / (1 + resamples)), n)
