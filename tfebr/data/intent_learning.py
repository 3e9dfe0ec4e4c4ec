"""Learning query intents: what the clicks on a query's words say about its brand and its category."""

import os
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from tfebr.data.catalogue import Catalogue
from tfebr.data.log import clicked_items
from tfebr.data.query_intent import NAME_TOKENS, BrandNames, IntentTables, fingerprints_of, terms_of
from tfebr.errors import ConfigError
from tfebr.progress import progress

# Chosen on a simulated shop by what a condition drops of the relevant items and of the others; see the docstring of `learn_intent`.
_NAME_SHARE = 0.7  # of the clicks, on the brand, for its name to mean it
_TITLE_SHARE = 0.9  # of the items whose texts hold a name that nobody asked for
_BRAND_CLICKS = 10  # before clicks say anything on a brand
_CATEGORY_CLICKS = 30  # before clicks say anything on a category
_CLICKS_PER_CATEGORY = 10  # so that a rarely clicked category is unlikely to be still unseen
_CATEGORY_SHARE = 0.003  # of the clicks; a category with less came in by noise

_TEXTS_AT_ONCE = 4096


def learn_intent(
    catalogue: Catalogue,
    log_batches: Iterable[pa.RecordBatch],
    folder: str | os.PathLike,
    brand_column: str = "brand",
    category_column: str = "leaf_category",
    end_time: int | None = None,
    max_categories: int = 16,
    pairs_in_memory: int = 8_000_000,
    quiet: bool = False,
) -> IntentTables:
    """Streams the log once and writes the tables of a `QueryIntent` into `folder`, atomically.

    Brand: a name is an intent when at least 70 % of the clicks on queries that hold it fall on its brands; a whole query that holds a name
    and has 10 clicks is judged likewise by its own. With fewer than 10 clicks on a name, at least 90 % of the items whose title or
    category holds it must be its brands'.
    Category: a word, word pair or whole query settles the category when it has at least 30 clicks, and 10 for each of at most
    `max_categories` categories; categories with less than 0.3 % of its clicks are noise. Of several such terms in a query the one with the
    least entropy decides. A category with few clicks is kept on purpose: relevant items that are rarely shown get few, and dropping such
    categories costs more relevant items than it keeps out others.

    Args:
        log_batches: batches of `log.SCHEMA`, of the training part; empty where there is no log, and then only names are learned.
        brand_column, category_column: categorical columns; a catalogue without "brand" or "leaf_category" has no such clauses.
        end_time: requests from this time (seconds since 1970) on are left out.
        max_categories: longest category condition.
        pairs_in_memory: counts of (term, category) or (query, brand name) that are held; beyond, the terms or queries with the fewest
            clicks are forgotten.

    Raises:
        ConfigError: a column is not a categorical column of the catalogue, or its name cannot be written in a filter, or
            `max_categories` or `pairs_in_memory` is not positive.
    """
    for setting, value in (("max_categories", max_categories), ("pairs_in_memory", pairs_in_memory)):
        if value < 1:
            raise ConfigError(f"`{setting}` should be a positive integer. Received: `{setting}` = {value!r}.")
    brands = _Brands(catalogue, _column(catalogue, "brand_column", brand_column, "brand"), pairs_in_memory)
    categories = _Categories(_column(catalogue, "category_column", category_column, "leaf_category"), pairs_in_memory)
    with progress("query intents", None, "requests", quiet) as advance:
        for batch in log_batches:
            if end_time is not None:
                batch = batch.filter(pc.less(batch["time"], end_time))
            request, item_ids = clicked_items(batch)
            item = catalogue.rows_of(item_ids)
            # An item that has left the catalogue says nothing on what is there now.
            request, item = request[item >= 0], item[item >= 0]
            asked, query = np.unique(request, return_inverse=True)
            encoded = batch["query"].take(pa.array(asked)).dictionary_encode()
            query = encoded.indices.to_numpy()[query]
            for grams, whole, rows in _blocks(encoded.dictionary):
                mine = (query >= rows.start) & (query < rows.stop)
                brands.add(grams, whole, query[mine] - rows.start, item[mine])
                categories.add(terms_of(grams, whole).numpy(), query[mine] - rows.start, item[mine])
            advance(batch.num_rows)
    sure = brands.sure()
    # A brand's name says where the brand is strong, not what is asked for: the brand clause has that already.
    names = brands.terms()[np.tile(sure, 2)]
    query_fingerprints, query_name = brands.judged_queries()
    term_fingerprints, term_rank, rank_clause, clauses = categories.settled(names, max_categories)
    tables = IntentTables(
        brands.fingerprints, brands.clauses(), sure, query_fingerprints, query_name, term_fingerprints, term_rank, rank_clause, clauses
    )
    tables.write(folder)
    return tables


class _Brands:
    """The brands' names, and how often clicks on queries that hold a name fall on its brands."""

    def __init__(self, catalogue: Catalogue, column: tuple[str, pa.Array] | None, pairs_in_memory: int):
        self._catalogue = catalogue
        self._column, values = ("", pa.array([""] * len(catalogue))) if column is None else column
        encoded = values.dictionary_encode()
        self._brands = encoded.dictionary.to_pylist()
        name_of_brand = np.full(len(self._brands), -1, np.int64)
        fingerprint = np.full(len(self._brands), -1, np.int64)
        as_query = np.full(len(self._brands), -1, np.int64)
        for found, whole_text, rows in _blocks(encoded.dictionary):
            grams, as_query[rows] = found.numpy(), whole_text.numpy()
            length = (grams[:, 0] >= 0).sum(axis=1)
            whole = grams[np.arange(len(length)), np.clip(length, 1, NAME_TOKENS) - 1, 0]
            fingerprint[rows] = np.where(length <= NAME_TOKENS, whole, -1)
        self.fingerprints, first = np.unique(fingerprint[fingerprint >= 0], return_index=True)
        self._as_query = as_query[fingerprint >= 0][first]
        name_of_brand[fingerprint >= 0] = np.searchsorted(self.fingerprints, fingerprint[fingerprint >= 0])
        self._name_of_brand, self._name_of_item = name_of_brand, name_of_brand[encoded.indices.to_numpy()]
        self._find = BrandNames(self.fingerprints)
        self._clicks, self._hits = np.zeros((2, len(self.fingerprints)), np.int64)
        self._by_query = _PairCounter(pairs_in_memory)

    def add(self, grams: tf.Tensor, whole: tf.Tensor, query: np.ndarray, item: np.ndarray) -> None:
        """Counts clicks on catalogue rows `item` [clicks] of the queries in rows `query` [clicks]."""
        if not len(self.fingerprints):
            return
        click, name = self._mentions(grams, query)
        hit = self._name_of_item[item[click]] == name
        self._clicks += np.bincount(name, minlength=len(self._clicks))
        self._hits += np.bincount(name[hit], minlength=len(self._hits))
        self._by_query.add(whole.numpy()[query[click]], name * 2 + hit)

    def sure(self) -> np.ndarray:
        """[names] bool, whether a name alone is an intent."""
        enough = self._clicks >= _BRAND_CLICKS
        if enough.all():
            return self._hits >= _NAME_SHARE * self._clicks
        items, own = self._items_that_hold()
        return np.where(enough, self._hits >= _NAME_SHARE * self._clicks, own >= _TITLE_SHARE * items)

    def judged_queries(self) -> tuple[np.ndarray, np.ndarray]:
        """Fingerprints of the queries with enough clicks, ascending, and the row of the name that each asks for, -1 for none."""
        query, code, count = self._by_query.arrays()
        # A click counts once for each name in its query, so every name of a query has the query's clicks as its total.
        queries, place = np.unique(query, return_inverse=True)
        name, is_hit = code // 2, code % 2 == 1
        pairs, at = np.unique(np.stack([place, name]), axis=1, return_inverse=True)
        clicks = np.bincount(at, count, minlength=pairs.shape[1])
        hits = np.bincount(at[is_hit], count[is_hit], minlength=pairs.shape[1])
        total, asked = np.zeros(len(queries)), np.full(len(queries), -1, np.int32)
        total[pairs[0]] = clicks
        meant = hits >= _NAME_SHARE * clicks
        asked[pairs[0][meant]] = pairs[1][meant]
        enough = total >= _BRAND_CLICKS
        return queries[enough], asked[enough]

    def terms(self) -> np.ndarray:
        """[2 * names] fingerprints of the names inside a query, then as whole queries."""
        return np.concatenate([self.fingerprints, self._as_query])

    def clauses(self) -> list[str]:
        """[names] "column=value", all brands of one name joined by "|"."""
        of_name: list[list[str]] = [[] for _ in self.fingerprints]
        for brand, name in zip(self._brands, self._name_of_brand, strict=True):
            if name >= 0:
                of_name[name].append(brand)
        return [_clause(self._column, sorted(brands)) for brands in of_name]

    def _items_that_hold(self) -> tuple[np.ndarray, np.ndarray]:
        """[names] items whose title or another of their texts holds the name, and those of them that are the brand's own."""
        items, own = np.zeros((2, len(self.fingerprints)), np.int64)
        texts = self._catalogue.table["title"]
        for column in ("leaf_category", "category"):
            if column in self._catalogue.categorical_columns and column != self._column:
                texts = pc.binary_join_element_wise(texts, self._catalogue.table[column], " ")
        for grams, _, rows in _blocks(texts):
            item, name = self._mentions(grams, np.arange(rows.start, rows.stop) - rows.start)
            items += np.bincount(name, minlength=len(items))
            own += np.bincount(name[self._name_of_item[rows][item] == name], minlength=len(own))
        return items, own

    def _mentions(self, grams: tf.Tensor, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each of `row` [n], the names in that text, each once: (place in `row`, name), flat."""
        found = _distinct_in_rows(self._find(grams).numpy())[row]
        place, column = np.nonzero(found >= 0)
        return place, found[place, column]


class _Categories:
    """How the clicks on each word, word pair and whole query spread over the categories."""

    def __init__(self, column: tuple[str, pa.Array] | None, pairs_in_memory: int):
        self._column = None if column is None else column[0]
        self._counts = _PairCounter(pairs_in_memory)
        if column is not None:
            encoded = column[1].dictionary_encode()
            self._categories, self._of_item = encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)

    def add(self, terms: np.ndarray, query: np.ndarray, item: np.ndarray) -> None:
        """Counts clicks on catalogue rows `item` [clicks] of the queries in rows `query` [clicks] of `terms` [queries, terms]."""
        if self._column is None or not len(query):
            return
        found = _distinct_in_rows(terms)[query]
        click, column = np.nonzero(found >= 0)
        self._counts.add(found[click, column], self._of_item[item[click]])

    def settled(self, names: np.ndarray, max_categories: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
        """The last four fields of `IntentTables`, without the terms `names`."""
        term, category, count = self._counts.arrays()
        if self._column is None or not len(term):
            return np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32), []
        start = np.flatnonzero(np.diff(term, prepend=-1))
        terms, total = term[start], np.add.reduceat(count, start)
        row = np.repeat(np.arange(len(terms)), np.diff(start, append=len(term)))
        kept = count >= _CATEGORY_SHARE * total[row]
        row, category, count = row[kept], category[kept], count[kept]
        size = np.bincount(row, minlength=len(terms))
        share = count / np.bincount(row, count, minlength=len(terms))[row]
        entropy = np.bincount(row, -share * np.log(share), minlength=len(terms))
        # An item without a category cannot be asked for by one.
        named = np.array([value != "" for value in self._categories])
        unnamed = np.bincount(row, ~named[category], minlength=len(terms))
        enough = (total >= np.maximum(_CATEGORY_CLICKS, _CLICKS_PER_CATEGORY * size)) & (size <= max_categories) & (unnamed == 0)
        chosen = np.flatnonzero(enough & ~np.isin(terms, names))
        order = chosen[np.lexsort((chosen, -total[chosen], entropy[chosen]))]
        bounds = np.searchsorted(row, np.arange(len(terms) + 1))
        clauses: dict[str, int] = {}
        rank_clause = np.empty(len(order), np.int32)
        for place, one in enumerate(order):
            values = sorted(self._categories[c] for c in category[bounds[one] : bounds[one + 1]])
            rank_clause[place] = clauses.setdefault(_clause(self._column, values), len(clauses))
        rank = np.empty(len(terms), np.int32)
        rank[order] = np.arange(len(order))
        return terms[chosen], rank[chosen], rank_clause, list(clauses)


class _PairCounter:
    """Counts (key, value) pairs of int64; when more than `limit` are held, the keys with the fewest counts are forgotten, half of them."""

    def __init__(self, limit: int):
        self._limit = limit
        self._counts = pa.table({"key": pa.array([], pa.int64()), "value": pa.array([], pa.int64()), "count": pa.array([], pa.int64())})
        self._pending: list[pa.Table] = []
        self._pending_rows = 0

    def add(self, keys: np.ndarray, values: np.ndarray) -> None:
        pairs = pa.table({"key": keys, "value": values.astype(np.int64), "count": np.ones(len(keys), np.int64)})
        self._pending.append(_summed(pairs))
        self._pending_rows += self._pending[-1].num_rows
        if self._pending_rows > 1_000_000:
            self._merge()

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys, values and counts, in the order of key and value."""
        self._merge()
        table = self._counts.sort_by([("key", "ascending"), ("value", "ascending")])
        return table["key"].to_numpy(), table["value"].to_numpy(), table["count"].to_numpy()

    def _merge(self) -> None:
        merged = _summed(pa.concat_tables([self._counts, *self._pending]))
        if merged.num_rows > self._limit:
            keys, row = np.unique(merged["key"].to_numpy(), return_inverse=True)
            total = np.bincount(row, merged["count"].to_numpy())
            often = np.zeros(len(keys), bool)
            often[np.argsort(-total, kind="stable")[: len(keys) // 2]] = True
            merged = merged.filter(pa.array(often[row]))
        self._counts, self._pending, self._pending_rows = merged, [], 0


def _summed(pairs: pa.Table) -> pa.Table:
    return pairs.group_by(["key", "value"]).aggregate([("count", "sum")]).rename_columns(["key", "value", "count"])


def _blocks(texts: pa.Array | pa.ChunkedArray) -> Iterable[tuple[tf.Tensor, tf.Tensor, slice]]:
    """`fingerprints_of` a few thousand texts at a time, with the rows that they are."""
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        block = texts.slice(start, _TEXTS_AT_ONCE)
        yield (*fingerprints_of(tf.constant(block.to_pylist(), tf.string)), slice(start, start + len(block)))


def _distinct_in_rows(numbers: np.ndarray) -> np.ndarray:
    """[n, m] numbers in ascending order, with -1 in place of repetitions."""
    ascending = np.sort(numbers, axis=1)
    ascending[:, 1:][ascending[:, 1:] == ascending[:, :-1]] = -1
    return ascending


def _column(catalogue: Catalogue, argument: str, name: str, default: str) -> tuple[str, pa.Array] | None:
    if name not in catalogue.categorical_columns:
        if name == default:
            return None
        known = ", ".join(catalogue.categorical_columns) or "none"
        raise ConfigError(
            f"`{argument}` should name a categorical column of the catalogue. Received: {name!r}. Categorical columns: {known}."
        )
    if "=" in name:
        raise ConfigError(f'`{argument}`: a filter cannot name a column with "=". Received: {name!r}. Rename the column.')
    return name, catalogue.table[name].combine_chunks()


def _clause(column: str, values: list[str]) -> str:
    return "|".join(f"{column}={value}".replace("%", "%25").replace("|", "%7C") for value in values)
