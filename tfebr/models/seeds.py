"""Initial weights from a seed of their own, without a word to the generators that the whole program shares."""

import contextlib
import random
from collections.abc import Iterator

from tf_keras.src import backend


@contextlib.contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Keras initializers without a seed draw theirs from here inside, in this thread alone: equal models built with one seed are equal.

    `tf.keras.utils.set_random_seed` would reseed Python's, NumPy's and TensorFlow's global generators, too, and without it Keras draws from
    Python's.
    """
    # What `set_random_seed` sets for Keras itself, which has no public name.
    seeds = backend._SEED_GENERATOR
    before = getattr(seeds, "generator", None)
    seeds.generator = random.Random(seed)
    try:
        yield
    finally:
        seeds.generator = before
