"""The index that a recipe describes."""

import numpy as np

from tfebr.index.base import Index
from tfebr.index.exact import ExactIndex
from tfebr.index.portable import PortableIndex
from tfebr.index.recipe import SCANN_KINDS, Recipe
from tfebr.index.scann import ScannIndex


def index_of(recipe: Recipe, item_embeddings: np.ndarray) -> Index:
    """Builds the index of the recipe's kind over [items, dim] embeddings.

    Raises:
        ConfigError: the recipe does not fit the number of items.
        DataError: the embeddings' shape is another one, or a row is not finite or too long.
    """
    if recipe.kind == "exact":
        return ExactIndex(item_embeddings)
    return (ScannIndex if recipe.kind in SCANN_KINDS else PortableIndex)(item_embeddings, recipe)
