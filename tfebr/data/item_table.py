"""The item table: every item's feature ids, one row per item, computed once and mapped from disk."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfebr.data.catalogue import Catalogue
from tfebr.data.features import Featurizer
from tfebr.errors import ArtifactError
from tfebr.infrastructure.files import atomic_folder, read_json, write_json
from tfebr.infrastructure.progress import progress

_BLOCK = 8192


class ItemTable:
    """Feature ids of all items. Row 0 of every column is "no item" (zeros); the item in catalogue row r is row r + 1.

    Attributes:
        columns: `KEY` int32 [items + 1] of a category, `title_GRAIN` int32 [items + 1, length] of title tokens, memory-mapped; see
            `tfebr.data.names.column_key`.
        catalogue_hash: `Catalogue.content_hash()` of the catalogue it was made from.
    """

    def __init__(self, columns: dict[str, np.ndarray], catalogue_hash: str):
        self.columns = columns
        self.catalogue_hash = catalogue_hash

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) - 1

    def tensors(self, names: list[str] | None = None) -> dict[str, tf.Tensor]:
        """The named columns (all by default) as tensors, for `gather`."""
        return {n: tf.convert_to_tensor(self.columns[n]) for n in (names or self.columns)}

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "ItemTable":
        """Maps a written table; raises ArtifactError naming the file when one is missing or truncated."""
        folder = Path(folder)
        about = read_json(folder / "about.json")
        columns = {}
        for name, shape in about["columns"].items():
            try:
                columns[name] = np.load(folder / f"{name}.npy", mmap_mode="r")
            except (OSError, ValueError, EOFError) as error:
                raise ArtifactError(f"{folder / name}.npy: item table column is missing or truncated: {error}. Train again.") from error
            if list(columns[name].shape) != shape:
                raise ArtifactError(f"{folder / name}.npy: has shape {columns[name].shape}, expected {shape}. Train again.")
        return cls(columns, about["catalogue_hash"])


def write_item_table(catalogue: Catalogue, featurizer: Featurizer, folder: str | os.PathLike, quiet: bool = False) -> ItemTable:
    """Featurizes the whole catalogue in blocks into memory-mapped files; atomic. Returns the table, mapped."""
    names = list(dict.fromkeys(["title", *featurizer.item_columns]))
    graph = tf.function(featurizer.items).get_concrete_function({n: tf.TensorSpec([None], tf.string) for n in names})
    catalogue_hash = catalogue.content_hash()
    with atomic_folder(folder) as partial, progress("item table", len(catalogue), "items", quiet) as advance:
        written: dict[str, np.memmap] = {}
        for start in range(0, len(catalogue), _BLOCK):
            block = catalogue.table.select(names).slice(start, _BLOCK)
            ids = graph({n: tf.constant(block[n].to_pylist(), tf.string) for n in names})
            for name, values in ids.items():
                if name not in written:
                    shape = (len(catalogue) + 1, *values.shape[1:])
                    written[name] = np.lib.format.open_memmap(partial / f"{name}.npy", mode="w+", dtype=np.int32, shape=shape)
                written[name][start + 1 : start + 1 + block.num_rows] = values.numpy()
            advance(block.num_rows)
        for array in written.values():
            array.flush()
        write_json(partial / "about.json", {"catalogue_hash": catalogue_hash, "columns": {n: a.shape for n, a in written.items()}})
    return ItemTable.read(folder)
