"""What the clicks on a query's words say: which names mean their value, and on which categories a word's clicks fall."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from tfebr.data.catalogue import Catalogue
from tfebr.data.names import atom
from tfebr.data.query_intent import NAME_TOKENS, BrandNames, fingerprints_of

# Chosen on a simulated shop by what a condition drops of the relevant items and of the others; see the docstring of `learn_intent`.
NAME_SHARE = 0.7  # of the clicks, on the value, for its name to mean it
TITLE_SHARE = 0.9  # of the items whose texts hold a name that nobody asked for
NAME_CLICKS = 10  # before clicks say anything on a name
CATEGORY_CLICKS = 30  # before clicks say anything on a category
CLICKS_PER_CATEGORY = 10  # so that a rarely clicked category is unlikely to be still unseen
CATEGORY_SHARE = 0.003  # of the clicks; a category with less came in by noise

_TEXTS_AT_ONCE = 4096


class Names:
    """The names of a column's values, brands say, and how often clicks on queries that hold a name fall on its brands."""

    def __init__(self, catalogue: Catalogue, column: str | None, pairs_in_memory: int):
        self._catalogue, self._column = catalogue, column or ""
        values = pa.array([""] * len(catalogue)) if column is None else catalogue.table[column].combine_chunks()
        encoded = values.dictionary_encode()
        self._brands = encoded.dictionary.to_pylist()
        name_of_brand = np.full(len(self._brands), -1, np.int64)
        fingerprint = np.full(len(self._brands), -1, np.int64)
        as_query = np.full(len(self._brands), -1, np.int64)
        for found, whole_text, rows in blocks(encoded.dictionary):
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

    def sure(self, texts: Sequence[str]) -> np.ndarray:
        """[names] bool, whether a name alone is an intent; for one hardly asked for, the columns `texts` tell."""
        enough = self._clicks >= NAME_CLICKS
        if enough.all():
            return self._hits >= NAME_SHARE * self._clicks
        items, own = self._items_that_hold(texts)
        return np.where(enough, self._hits >= NAME_SHARE * self._clicks, own >= TITLE_SHARE * items)

    def bits(self) -> float:
        """What the clicks say that filtering by this column's names is worth: log2(items / items that are left), summed over clicks."""
        sure = (self._clicks >= NAME_CLICKS) & (self._hits >= NAME_SHARE * self._clicks)
        return float(self._hits[sure] @ self._bits_of_names()[sure])

    def bits_of_texts(self, texts: Sequence[str]) -> float:
        """The same where there were no clicks: summed over the items whose texts hold the name of their own value."""
        items, own = self._items_that_hold(texts)
        sure = own >= TITLE_SHARE * items
        return float(own[sure] @ self._bits_of_names()[sure])

    def _bits_of_names(self) -> np.ndarray:
        items = np.bincount(self._name_of_item[self._name_of_item >= 0], minlength=len(self.fingerprints))
        return np.log2(len(self._catalogue) / items)

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
        meant = hits >= NAME_SHARE * clicks
        asked[pairs[0][meant]] = pairs[1][meant]
        enough = total >= NAME_CLICKS
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

    def _items_that_hold(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """[names] items whose columns `texts` hold the name, and those of them that are the brand's own."""
        items, own = np.zeros((2, len(self.fingerprints)), np.int64)
        for grams, _, rows in blocks(pc.binary_join_element_wise(*(self._catalogue.table[name] for name in texts), " ")):
            item, name = self._mentions(grams, np.arange(rows.start, rows.stop) - rows.start)
            items += np.bincount(name, minlength=len(items))
            own += np.bincount(name[self._name_of_item[rows][item] == name], minlength=len(own))
        return items, own

    def _mentions(self, grams: tf.Tensor, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each of `row` [n], the names in that text, each once: (place in `row`, name), flat."""
        found = _distinct_in_rows(self._find(grams).numpy())[row]
        place, column = np.nonzero(found >= 0)
        return place, found[place, column]


class Categories:
    """How the clicks on each word, word pair and whole query spread over the categories."""

    def __init__(self, catalogue: Catalogue, column: str | None, pairs_in_memory: int):
        self._column, self._clicks = column, 0
        self._counts = _PairCounter(pairs_in_memory)
        if column is not None:
            encoded = catalogue.table[column].combine_chunks().dictionary_encode()
            self._categories, self._of_item = encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)

    def add(self, terms: np.ndarray, query: np.ndarray, item: np.ndarray) -> None:
        """Counts clicks on catalogue rows `item` [clicks] of the queries in rows `query` [clicks] of `terms` [queries, terms]."""
        if self._column is None or not len(query):
            return
        self._clicks += len(query)
        found = _distinct_in_rows(terms)[query]
        click, column = np.nonzero(found >= 0)
        self._counts.add(found[click, column], self._of_item[item[click]])

    def bits(self, max_categories: int) -> float:
        """What the clicks say that filtering by what words settle is worth, in the unit of `Names.bits`: of a word's clicks, those on its
        first category count, and a word of several in a query for its share."""
        found = self._judged(np.zeros(0, np.int64), max_categories)
        if found is None:
            return 0.0
        terms, total, row, category, count, _, chosen = found
        first = np.zeros(len(terms), np.int64)
        np.maximum.at(first, row, count)
        left = np.bincount(row, np.bincount(self._of_item, minlength=len(self._categories))[category], minlength=len(terms))
        return float(first[chosen] @ np.log2(len(self._of_item) / left[chosen])) * self._clicks / total.sum()

    def settled(self, names: np.ndarray, max_categories: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
        """The last four fields of `IntentTables`, without the terms `names`."""
        found = self._judged(names, max_categories)
        if self._column is None or found is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32), []
        terms, total, row, category, _, entropy, chosen = found
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

    def _judged(self, names: np.ndarray, max_categories: int) -> tuple[np.ndarray, ...] | None:
        """Terms and their clicks [terms]; of each kept (term, category): row of the term, category, clicks; entropy [terms]; the rows of
        the terms that settle the category. None without clicks."""
        term, category, count = self._counts.arrays()
        if self._column is None or not len(term):
            return None
        start = np.flatnonzero(np.diff(term, prepend=-1))
        terms, total = term[start], np.add.reduceat(count, start)
        row = np.repeat(np.arange(len(terms)), np.diff(start, append=len(term)))
        kept = count >= CATEGORY_SHARE * total[row]
        row, category, count = row[kept], category[kept], count[kept]
        size = np.bincount(row, minlength=len(terms))
        share = count / np.bincount(row, count, minlength=len(terms))[row]
        entropy = np.bincount(row, -share * np.log(share), minlength=len(terms))
        # An item without a category cannot be asked for by one.
        named = np.array([value != "" for value in self._categories])
        unnamed = np.bincount(row, ~named[category], minlength=len(terms))
        enough = (total >= np.maximum(CATEGORY_CLICKS, CLICKS_PER_CATEGORY * size)) & (size <= max_categories) & (unnamed == 0)
        return terms, total, row, category, count, entropy, np.flatnonzero(enough & ~np.isin(terms, names))


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


def blocks(texts: pa.Array | pa.ChunkedArray) -> Iterator[tuple[tf.Tensor, tf.Tensor, slice]]:
    """`fingerprints_of` a few thousand texts at a time, with the rows that they are."""
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        block = texts.slice(start, _TEXTS_AT_ONCE)
        yield (*fingerprints_of(tf.constant(block.to_pylist(), tf.string)), slice(start, start + len(block)))


def _distinct_in_rows(numbers: np.ndarray) -> np.ndarray:
    """[n, m] numbers in ascending order, with -1 in place of repetitions."""
    ascending = np.sort(numbers, axis=1)
    ascending[:, 1:][ascending[:, 1:] == ascending[:, :-1]] = -1
    return ascending


def _clause(column: str, values: list[str]) -> str:
    return "|".join(atom(column, value) for value in values)
