"""Rankings compared up to the last bits of their scores."""

import numpy as np


def assert_best(rows: np.ndarray, scores: np.ndarray, tolerance: float = 1e-5) -> None:
    """`rows` [..., k] hold the best items by `scores` [..., items], each once, best first; those that are nearly equal in any order."""
    rows, scores = np.asarray(rows), np.asarray(scores)
    best = -np.sort(-scores, axis=-1)[..., : rows.shape[-1]]
    np.testing.assert_allclose(np.take_along_axis(scores, rows.astype(np.int64), -1), best, rtol=tolerance, atol=tolerance)
    assert all(len(set(row)) == len(row) for row in rows.reshape(int(np.prod(rows.shape[:-1])), rows.shape[-1]).tolist())
