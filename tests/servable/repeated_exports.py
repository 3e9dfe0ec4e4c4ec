"""A fresh process that writes servables: python repeated_exports.py RUN TIMES exports the run, and the toy over other indexes so often."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from toy_servable import COLUMNS, EMBEDDINGS, IDS, QUESTIONS, ToyIntent, ToyItems, ToyQueries, write_unchecked

from tfebr import pipeline
from tfebr.data.item_ids import ItemIds
from tfebr.index.attributes import ItemAttributes
from tfebr.index.recall import build
from tfebr.index.recipe import Recipe
from tfebr.servable.module import RetrievalServable

# So little to begin with that settings have to be measured and raised.
RECIPES = {
    "tree": Recipe("tree", leaves=20, leaves_to_search=1, reorder=10),
    "ivf": Recipe("ivf", leaves=40, leaves_to_search=1),
}


def main(run, times):
    importlib.import_module("tfebr.servable.write")._check_in_fresh_process = lambda folder: {"ok": True}
    pipeline.export(run, "exact", k=20, quiet=True)
    for name, recipe in [*RECIPES.items()] * int(times):
        index, report = build(EMBEDDINGS, EMBEDDINGS[:50, None, :], k=10, target=0.6, recipe=recipe, quiet=True)
        ids = ItemIds(np.array(IDS))
        servable = RetrievalServable(ToyQueries(ids), ToyItems(), index, ids, 10, ItemAttributes(pa.table(COLUMNS)), ToyIntent())
        write_unchecked(servable, Path(run, "servable", name), QUESTIONS, report)


if __name__ == "__main__":
    main(*sys.argv[1:])
