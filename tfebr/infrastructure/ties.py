"""Which scores count as equal: the same product, computed in another order or by other instructions, differs in its last bits."""

import numpy as np

# Of the largest score of a list, positive or negative: some sixteen times the rounding of one float32 operation.
TIE_TOLERANCE = 1e-6


def tie_width(scores: np.ndarray) -> np.ndarray:
    """[..., results] finite scores -> [..., 1]: how far two of them may lie apart and still be equal."""
    return TIE_TOLERANCE * np.abs(scores).max(axis=-1, keepdims=True, initial=0.0)


def order_of_results(scores: np.ndarray) -> np.ndarray:
    """Places of the scores, best first; where neighbours differ by no more than the tolerance, in the order in which they came.

    Args:
        scores: [..., results], finite.

    Returns:
        [..., results] integers.
    """
    best_first = np.argsort(-scores, axis=-1, kind="stable")
    ordered = np.take_along_axis(scores, best_first, axis=-1)
    apart = -np.diff(ordered, axis=-1, prepend=ordered[..., :1]) > tie_width(scores)
    return np.take_along_axis(best_first, np.lexsort((best_first, np.cumsum(apart, axis=-1))), axis=-1)
