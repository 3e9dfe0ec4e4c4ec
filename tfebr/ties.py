"""Which scores count as equal: the same product, computed in another order or by other instructions, differs in its last bits."""

import numpy as np

# Of the largest score of a list, positive or negative: some sixteen times the rounding of one float32 operation.
TIE_TOLERANCE = 1e-6


def order_of_results(scores: np.ndarray) -> np.ndarray:
    """Places of the scores, best first; where neighbours differ by no more than the tolerance, in the order in which they came.

    Args:
        scores: [results], finite.

    Returns:
        [results] integers.
    """
    best_first = np.argsort(-scores, kind="stable")
    if not len(scores):
        return best_first
    gaps = -np.diff(scores[best_first], prepend=scores[best_first[0]])
    group = np.cumsum(gaps > TIE_TOLERANCE * np.abs(scores).max())
    return best_first[np.lexsort((best_first, group))]
