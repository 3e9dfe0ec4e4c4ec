"""Writes the index of a trained run alone as a servable, vectors in and ids out: no operation outside core TensorFlow is in it.

A service that embeds queries elsewhere can serve it on any TensorFlow Serving; and it shows that the portable index needs no op library.

python index_only.py RUN OUT/NAME [K]
"""

import os
import sys
from pathlib import Path

import tensorflow as tf

from tfebr.data.item_ids import ItemIds
from tfebr.index.kinds import index_of
from tfebr.index.recipe import Recipe, recipe_for
from tfebr.models.run_folder import RunFolder
from tfebr.servable.module import RetrievalServable
from tfebr.servable.write import write


class _AsGiven(tf.Module):
    """An encoder of what is encoded already: its only input is the vectors themselves."""

    def __init__(self, name: str, shape: list[int | None]):
        super().__init__()
        self._input = name
        self.input_signature = {name: tf.TensorSpec(shape, tf.float32)}

    def __call__(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return inputs[self._input]


def write_index(run: RunFolder, model, base: str | os.PathLike, k: int = 100, recipe: Recipe | None = None) -> Path:
    """Writes the next version below `base`, whose `serving_default` maps `query` [batch, heads, dim] to ids.

    Args:
        run: says which items there are.
        model: the run's, with the vectors of all items.
        base: `OUT/NAME`, as `tfebr.servable.write.write` takes it.
        k: results of `serving_default`.
        recipe: of kind "ivf" or "exact"; the one for the stock image by default.
    """
    catalogue = run.data.catalogue()
    run.check_input(run.data.catalogue_content(catalogue))
    vectors = model.corpus_embeddings()
    recipe = recipe or recipe_for(len(vectors), k, server="stock")
    recipe.check_server("stock")
    dim = vectors.shape[1]
    encoders = _AsGiven("query", [None, None, dim]), _AsGiven("item_embedding", [None, dim])
    servable = RetrievalServable(*encoders, index_of(recipe, vectors), ItemIds(catalogue.item_ids), min(k, len(vectors)))
    return write(servable, base, {"model": f"index of {run.model_name}", "server": "stock"}, [{"query": vectors[:2, None].tolist()}])


def main(arguments: list[str]) -> int:
    if not 2 <= len(arguments) <= 3:
        print(__doc__, file=sys.stderr)
        return 2
    run = RunFolder(arguments[0])
    print(write_index(run, run.trained_model(), arguments[1], int(arguments[2]) if len(arguments) == 3 else 100))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
