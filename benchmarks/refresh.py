"""Embedding a catalogue of which one item in a hundred is new or changed, beside embedding the whole of it."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from benchmarks.measure import shop, spread
from tfebr.data.catalogue import Catalogue
from tfebr.data.item_ids import ItemIds
from tfebr.data.log import split_time
from tfebr.infrastructure.literal_paths import literal
from tfebr.models.dpsr import DPSRConfig
from tfebr.models.encoders import RawItemEncoder
from tfebr.models.run_folder import RunFolder, prepare_run
from tfebr.publishing.embedding_cache import catalogue_vectors, content_hashes, run_identity

CHANGED, REPEATS = 0.01, 3


def run(quick: bool) -> dict[str, Any]:
    """Both with the item tower of an untrained DPSR, from the table in memory to the vectors on disk."""
    items = 20_000 if quick else 1_000_000
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="tfebr-bench-") as scratch:
        data = shop(Path(scratch, "shop"), seed=1, quick=True)
        run = prepare_run(Path(scratch, "run"), "dpsr", DPSRConfig(), data, split_time(data.log(), 0.1), quiet=True)
        model = run.new_model()
        run.checkpoints.mkdir()
        with literal(run.checkpoints) as folder:
            tf.train.CheckpointManager(tf.train.Checkpoint(model=model), folder, 1).save()
        encoder = RawItemEncoder(model, run.featurizer, ItemIds(data.catalogue().item_ids))
        today = many_items(data.catalogue(), items, random)
        tomorrow = next_day(today, random)
        full, _ = _timed(run, today, encoder)
        print(f"{items:,} items: all of them in {full:.1f} s", flush=True)
        again = []
        for repeat in range(REPEATS):
            seconds, embedded = _timed(run, today if repeat % 2 else tomorrow, encoder)
            again.append(seconds)
            print(f"{embedded:,} new or changed in {seconds:.2f} s, {seconds / full:.3f} of that", flush=True)
        hashing = _seconds(lambda: content_hashes(today, list(encoder.columns.values()), run_identity(run)))
    return {
        "config": {
            "items": items,
            "changed_or_new": embedded,
            "removed": int(items * CHANGED) // 2,
            "model": "dpsr",
            "dim": DPSRConfig().dim,
        },
        "full_seconds": round(full, 2),
        "refresh_seconds": spread(again, 2),
        "hashing_seconds": round(hashing, 2),
        "refresh_relative_to_full": {"target": "<= 0.25", **spread([seconds / full for seconds in again], 4)},
    }


def many_items(catalogue: Catalogue, items: int, random: np.random.Generator) -> pa.Table:
    """A catalogue's rows over and over, each with an id and a title of its own."""
    return _own(catalogue.table.take(random.integers(0, len(catalogue), items)), 0)


def next_day(table: pa.Table, random: np.random.Generator) -> pa.Table:
    """The same with `CHANGED` of it new: half of that other titles, the other half in place of items that are removed."""
    count = int(table.num_rows * CHANGED) // 2
    chosen = random.permutation(table.num_rows)[: 2 * count]
    other = np.zeros(table.num_rows, bool)
    other[chosen[:count]] = True
    titles = pc.if_else(pa.array(other), pc.binary_join_element_wise(table["title"], "refurbished", " "), table["title"])
    kept = np.ones(table.num_rows, bool)
    kept[chosen[count:]] = False
    new = _own(table.take(chosen[count:]), table.num_rows)
    return pa.concat_tables([table.set_column(table.column_names.index("title"), "title", titles).filter(pa.array(kept)), new])


def _own(table: pa.Table, first: int) -> pa.Table:
    numbers = pa.array(np.arange(first, first + table.num_rows)).cast(pa.string())
    names = table.column_names
    table = table.set_column(names.index("item_id"), "item_id", pc.binary_join_element_wise("n", numbers, ""))
    return table.set_column(names.index("title"), "title", pc.binary_join_element_wise(table["title"], numbers, " "))


def _timed(run: RunFolder, table: pa.Table, encoder: RawItemEncoder) -> tuple[float, int]:
    found: list[int] = []
    seconds = _seconds(lambda: found.append(catalogue_vectors(run, table, encoder, quiet=True)[1]))
    return seconds, found[0]


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
