"""The oracle of a simulated shop: relevance of any (query, item) and utility of any (user, query, item), for evaluation only."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfebr.data.simulator.shop import Concepts
from tfebr.data.simulator.truth import RELEVANT_FROM, Meanings, Tastes, Truth, relevance_of, taste_of
from tfebr.errors import DataError

_PAIRS_AT_ONCE = 1_000_000
_MEANING = ("concept", "brand", "series", "value_0", "value_1")


class Oracle:
    """Answers for every query string, user and item of one simulated log.

    A query with several meanings ("apple") is judged by the best of them. `item_rows` are rows of the catalogue, from 0; -1 is no item.
    """

    def __init__(self, truth: Truth, tastes: Tastes, user_ids: pa.Array, queries: pa.Table):
        self._truth, self._tastes, self._user_ids = truth, tastes, user_ids
        text = queries["query"].combine_chunks()
        self._columns = np.column_stack([queries[name].to_numpy() for name in _MEANING])
        encoded = text.dictionary_encode()
        self._queries = encoded.dictionary
        # The table is sorted by query, so a query's meanings are neighbours.
        self._count = np.bincount(encoded.indices.to_numpy())
        self._start = np.cumsum(self._count) - self._count

    def relevance(self, queries: Sequence[str], item_rows: np.ndarray) -> np.ndarray:
        """Relevance float32 [n, k] in [0, 1] of items `item_rows` [n, k] to `queries` [n]; relevant from 0.5.

        Raises:
            DataError: a query never occurred in this shop's log, or an item row is outside the catalogue.
        """
        items = self._checked(queries, item_rows)
        query = _rows(pa.array(queries, pa.string()), self._queries, "query", "Ask for queries of this simulated log")
        result = np.zeros(items.shape, np.float32)
        for block in self._blocks(items):
            start, count = self._start[query[block]], self._count[query[block]]
            for nth in range(int(count.max())):
                columns = self._columns[start + np.minimum(nth, count - 1)]
                asked = Meanings(columns[:, 0], columns[:, 1], columns[:, 2], columns[:, 3:])
                np.maximum(result[block], relevance_of(self._truth, asked, items[block]), out=result[block])
        return result

    def good(self, queries: Sequence[str], item_rows: np.ndarray) -> np.ndarray:
        """Whether items [n, k] are relevant to queries [n], bool [n, k]."""
        return self.relevance(queries, item_rows) >= RELEVANT_FROM

    def utility(self, user_ids: Sequence[str], queries: Sequence[str], item_rows: np.ndarray) -> np.ndarray:
        """Relevance times the user's taste, float32 [n, k] in [0, 1): brand, price and category liking, and the items' quality.

        Raises:
            DataError: a user or query never occurred in this shop, or an item row is outside the catalogue.
        """
        items = self._checked(user_ids, item_rows)
        users = _rows(pa.array(user_ids, pa.string()), self._user_ids, "user", "Ask for users of users.parquet")
        result = self.relevance(queries, items)
        for block in self._blocks(items):
            result[block] *= taste_of(self._truth, self._tastes, users[block], items[block])
        return result

    @staticmethod
    def _blocks(items: np.ndarray) -> list[slice]:
        rows = max(_PAIRS_AT_ONCE // max(items.shape[1], 1), 1)
        return [slice(start, start + rows) for start in range(0, len(items), rows)]

    def _checked(self, first: Sequence[str], item_rows: np.ndarray) -> np.ndarray:
        items = np.asarray(item_rows)
        if items.ndim != 2 or len(items) != len(first):
            raise DataError(f"oracle: `item_rows` should be [{len(first)}, k], a row for each query. Received shape: {items.shape}.")
        if items.size and not (items.min() >= -1 and items.max() < len(self._truth.leaf)):
            raise DataError(
                f"oracle: `item_rows` should lie from -1 to {len(self._truth.leaf) - 1}. Received: {items.min()} to {items.max()}."
            )
        return items

    def write(self, folder: str | os.PathLike) -> None:
        """Writes the oracle's tables into an existing folder."""
        folder = Path(folder)
        np.savez(folder / "items.npz", allow_pickle=False, **_arrays(self._truth))
        np.savez(folder / "users.npz", allow_pickle=False, **_arrays(self._tastes))
        pq.write_table(pa.table({"user_id": self._user_ids}), folder / "user_ids.parquet", compression="zstd")
        text = self._queries.take(pa.array(np.repeat(np.arange(len(self._count)), self._count)))
        columns = {name: self._columns[:, i] for i, name in enumerate(_MEANING)}
        pq.write_table(pa.table({"query": text, **columns}), folder / "queries.parquet", compression="zstd")

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "Oracle":
        """Reads the `oracle` folder of a simulated data folder; raises DataError when it is not there or not complete."""
        # Arrow takes a relative path with a colon for an address.
        folder = Path(folder).absolute()
        try:
            with np.load(folder / "items.npz") as items, np.load(folder / "users.npz") as users:
                truth, tastes = Truth(**items), Tastes(**users)
            user_ids = pq.read_table(folder / "user_ids.parquet")["user_id"].combine_chunks()
            return cls(truth, tastes, user_ids, pq.read_table(folder / "queries.parquet"))
        except FileNotFoundError as error:
            raise DataError(f"{folder}: no complete oracle here: {error}. Make a shop with `tfebr simulate`.") from None


class MeaningTable:
    """Collects which meanings each query string was written for, chunk by chunk, each once."""

    def __init__(self, concepts: Concepts):
        self._concepts = concepts
        self._seen: list[pa.Table] = []

    def add(self, text: pa.Array, asked: Meanings) -> None:
        """Adds queries [n] with what they ask for."""
        numbers = (asked.concept, asked.brand, asked.series, *asked.values.T)
        columns = {name: np.asarray(number, np.int32) for name, number in zip(_MEANING, numbers, strict=True)}
        self._seen.append(_distinct(pa.table({"query": text, **columns})))

    def table(self) -> pa.Table:
        """All (query, meaning) rows, sorted by query, with the second meaning of brands that are written like a noun."""
        table = _distinct(pa.concat_tables(self._seen))
        concept, brand, series = (table[name].to_numpy() for name in _MEANING[:3])
        noun_is_brand = np.where((concept >= 0) & (brand < 0) & (series < 0), self._concepts.brand[concept], -1)
        known_brand = np.full(max(int(brand.max()), int(self._concepts.brand.max())) + 1, -1, np.int32)
        written_alike = np.flatnonzero(self._concepts.brand >= 0)
        known_brand[self._concepts.brand[written_alike]] = written_alike
        brand_is_noun = np.where((concept < 0) & (series < 0), known_brand[brand], -1)
        none = np.full(len(table), -1, np.int32)
        as_brand = _with(table, none, noun_is_brand).filter(noun_is_brand >= 0)
        as_noun = _with(table, brand_is_noun, none).filter(brand_is_noun >= 0)
        table = _distinct(pa.concat_tables([table, as_brand, as_noun]))
        return table.take(pc.sort_indices(table, sort_keys=[(name, "ascending") for name in ("query", *_MEANING)]))


def _with(table: pa.Table, concept: np.ndarray, brand: np.ndarray) -> pa.Table:
    columns = dict(zip(table.column_names, table.columns, strict=True))
    return pa.table({**columns, "concept": concept.astype(np.int32), "brand": brand.astype(np.int32)})


def _distinct(table: pa.Table) -> pa.Table:
    return table.group_by(["query", *_MEANING], use_threads=False).aggregate([])


def _rows(wanted: pa.Array, known: pa.Array, what: str, remedy: str) -> np.ndarray:
    found = pc.index_in(wanted, known)
    if found.null_count:
        row = int(np.argmax(found.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(f"oracle: row {row}: unknown {what} {wanted[row].as_py()!r}. {remedy}; the oracle knows no others.")
    return found.to_numpy()


def _arrays(record: Truth | Tastes) -> dict[str, np.ndarray]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
