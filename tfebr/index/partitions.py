"""Partitions of a catalogue's embeddings: k-means centroids, and the items in the order of the partition that they belong to."""

import dataclasses
import itertools

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_matrix

_SEED = 0
_ITERATIONS = 8
# More items for each centroid move it little: 32 are enough for recall to be that of training on all.
_SAMPLE_PER_LEAF = 32
# Scores of items by centroids held at one time: 64 MB of float32.
_SCORES_AT_ONCE = 16 * 2**20
# A partition that is so many times larger than the mean is halved: it would cost every query that looks into it as much time.
_LARGEST = 4
_POWER_STEPS = 5


@dataclasses.dataclass(frozen=True)
class Partitions:
    """Which items lie together.

    Attributes:
        order: [items] int32 rows of the items, partition by partition, ascending within each.
        offsets: [leaves + 1] int32; partition i holds the rows `order[offsets[i]:offsets[i + 1]]`, at least one.
        centroids: [leaves, dim] float32 means of the partitions' items.
    """

    order: np.ndarray
    offsets: np.ndarray
    centroids: np.ndarray


def train_partitions(vectors: np.ndarray, leaves: int) -> Partitions:
    """Lloyd's k-means on a sample of 32 items for each partition; then every item goes to its nearest centroid.

    The centroids are means, not scaled to unit length: a query takes the partitions whose centroid has the highest dot product with it,
    and a mean's is the mean of its items'. Partitions larger than four times the mean are halved across their widest direction until they
    are not, and empty ones are left out, so that there may be more or fewer than asked for. The same vectors give the same partitions.

    Args:
        vectors: [items, dim] float32, finite.
        leaves: number of partitions, at most the number of items.
    """
    random = np.random.default_rng(_SEED)
    size = min(len(vectors), _SAMPLE_PER_LEAF * leaves)
    sample = vectors[np.sort(random.choice(len(vectors), size, replace=False))]
    centroids = sample[random.choice(size, leaves, replace=False)]
    for _ in range(_ITERATIONS):
        order, offsets = _grouped(_nearest(sample, centroids), leaves)
        sizes = np.diff(offsets)
        centroids = _means(sample, order, offsets)
        # A centroid without items starts again at an item of a large partition.
        empty = np.flatnonzero(sizes == 0)
        large = np.resize(np.argsort(-sizes, kind="stable")[: leaves - len(empty)], len(empty))
        centroids[empty] = sample[order[offsets[large] + random.integers(0, sizes[large])]]
    order, offsets = _grouped(_nearest(vectors, centroids), leaves)
    offsets = np.unique(_halved(vectors, order, offsets, max(_LARGEST * len(vectors) // leaves, 1), random))
    return Partitions(order, offsets.astype(np.int32), _means(vectors, order, offsets))


@tf.function(input_signature=[tf.TensorSpec([None, None]), tf.TensorSpec([None, None])])
def _nearest_centroid(vectors: tf.Tensor, centroids: tf.Tensor) -> tf.Tensor:
    closeness = tf.matmul(vectors, centroids, transpose_b=True) - tf.reduce_sum(tf.square(centroids), 1) / 2
    return tf.argmax(closeness, 1, tf.int32)


def _nearest(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """[items] the centroid at the smallest Euclidean distance of each item."""
    step, shared = max(_SCORES_AT_ONCE // len(centroids), 1), tf.constant(centroids)
    return np.concatenate([_nearest_centroid(vectors[i : i + step], shared).numpy() for i in range(0, len(vectors), step)])


def _grouped(labels: np.ndarray, leaves: int) -> tuple[np.ndarray, np.ndarray]:
    """Order and offsets, of which some partitions may be empty."""
    return np.argsort(labels, kind="stable").astype(np.int32), np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=leaves))])


def _means(vectors: np.ndarray, order: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """[leaves, dim]; zeros where a partition is empty."""
    members = csr_matrix((np.ones(len(order), np.float32), order, offsets), shape=(len(offsets) - 1, len(vectors)))
    return (members @ vectors) / np.maximum(np.diff(offsets)[:, None], 1, dtype=np.float32)


def _halved(vectors: np.ndarray, order: np.ndarray, offsets: np.ndarray, largest: int, random: np.random.Generator) -> np.ndarray:
    """Halves partitions until none holds more than `largest`; permutes `order` in place and returns the offsets with the new ones."""
    new, todo = [], [(int(a), int(b)) for a, b in itertools.pairwise(offsets) if b - a > largest]
    while todo:
        start, stop = todo.pop()
        rows = np.sort(order[start:stop])
        middle = (start + stop) // 2
        half = np.argsort(_along_widest(vectors[rows], random), kind="stable")
        order[start:middle], order[middle:stop] = np.sort(rows[half[: middle - start]]), np.sort(rows[half[middle - start :]])
        new.append(middle)
        todo += [(a, b) for a, b in ((start, middle), (middle, stop)) if b - a > largest]
    return np.sort(np.concatenate([offsets, np.array(new, offsets.dtype)]))


def _along_widest(vectors: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Each vector's coordinate along the direction of largest variance, by power iteration."""
    centred = vectors - vectors.mean(axis=0)
    direction = random.standard_normal(vectors.shape[1], np.float32)
    for _ in range(_POWER_STEPS):
        direction = centred.T @ (centred @ direction)
        direction /= max(float(np.linalg.norm(direction)), float(np.finfo(np.float32).tiny))
    return centred @ direction
