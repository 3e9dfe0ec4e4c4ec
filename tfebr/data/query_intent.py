"""Query understanding in the graph: which brand and which categories a query asks for, as clauses of a filter."""

import dataclasses
import os
import zipfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfebr.data import text
from tfebr.errors import ArtifactError
from tfebr.infrastructure.files import atomic_folder, read_json, write_json

# A word of Chinese or a part of "3m" is a token, so that a brand's name of up to three words may take more tokens than that.
NAME_TOKENS = 6
_MAX_TOKENS = 64
_FINGERPRINTS = 2**63 - 1
_NOTHING = -1
# Stands in an empty table, where searching needs a row; no string has it.
_UNUSED = _FINGERPRINTS


@dataclasses.dataclass(frozen=True)
class IntentTables:
    """What was learned, as arrays; fingerprints are int64, ascending, and never those of two entries.

    Attributes:
        name_fingerprints: [names] of the brands' normalised names.
        name_clauses: [names] the filter clause of each name.
        name_sure: [names] bool, whether the name alone is an intent.
        query_fingerprints: [queries] of whole queries that hold a name and have enough clicks to be judged by themselves.
        query_name: [queries] int32 row of the name that such a query asks for, -1 for none.
        term_fingerprints: [terms] of words, word pairs and whole queries that settle the category.
        term_rank: [terms] int32 place of each in the order of specificity, 0 the most specific.
        rank_clause: [terms] int32 row in `category_clauses` of the term at each place.
        category_clauses: [clauses] distinct filter clauses.
    """

    name_fingerprints: np.ndarray
    name_clauses: list[str]
    name_sure: np.ndarray
    query_fingerprints: np.ndarray
    query_name: np.ndarray
    term_fingerprints: np.ndarray
    term_rank: np.ndarray
    rank_clause: np.ndarray
    category_clauses: list[str]

    def write(self, folder: str | os.PathLike) -> None:
        """Writes the tables as a folder, atomically."""
        fields = dataclasses.asdict(self)
        with atomic_folder(folder) as partial:
            np.savez(partial / "tables.npz", allow_pickle=False, **{n: v for n, v in fields.items() if isinstance(v, np.ndarray)})
            write_json(partial / "clauses.json", {n: v for n, v in fields.items() if isinstance(v, list)})

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "IntentTables":
        """Reads what `write` wrote; raises ArtifactError when it is missing or damaged."""
        folder = Path(folder)
        if not (folder / "clauses.json").exists():
            raise ArtifactError(f"{folder}: no tables of query intents here. Learn them with `learn_intent`.")
        try:
            # Opened here: NumPy leaves a file open that it finds damaged.
            with open(folder / "tables.npz", "rb") as file, np.load(file) as arrays:
                return cls(**arrays, **read_json(folder / "clauses.json"))
        except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise ArtifactError(f"{folder}: the tables of query intents are damaged: {error}. Learn them again.") from error


class QueryIntent(tf.Module):
    """Raw queries to a brand clause and a category clause, by the tables that `learn_intent` learned.

    Brand: the longest brand name in the query, if clicks (or, for a name hardly asked for, titles) say that it means the brand; a whole
    query with clicks enough is judged by its own. Two different brands in one query are no intent.
    Category: of the query's words, word pairs and the whole of it, the one whose clicks fall on the fewest categories decides.

    Source: relevance control of MGDSPR, arXiv 2106.09297, serving; how intents are learned is not published and is this library's own.

    Args:
        tables: `IntentTables`, or the folder that `learn_intent` wrote. They become variables: a saved model needs no file of it.
    """

    def __init__(self, tables: IntentTables | str | os.PathLike, name: str = "query_intent"):
        super().__init__(name=name)
        if not isinstance(tables, IntentTables):
            tables = IntentTables.read(tables)
        self._names = BrandNames(tables.name_fingerprints)
        self._queries = Fingerprints(tables.query_fingerprints)
        self._terms = Fingerprints(tables.term_fingerprints)
        # One row more than there are entries, for "none": row -1 of a gather is made the last one.
        self._name_clauses = _constant([*tables.name_clauses, ""], tf.string, "name_clauses")
        self._name_sure = _constant(np.append(tables.name_sure, False), tf.bool, "name_sure")
        self._query_name = _constant(np.append(tables.query_name, _NOTHING), tf.int32, "query_name")
        self._term_rank = _constant(np.append(tables.term_rank, len(tables.term_rank)), tf.int32, "term_rank")
        self._rank_clause = _constant(np.append(tables.rank_clause, len(tables.category_clauses)), tf.int32, "rank_clause")
        self._category_clauses = _constant([*tables.category_clauses, ""], tf.string, "category_clauses")

    def __call__(self, queries: tf.Tensor) -> tf.Tensor:
        """[batch] raw strings -> string [batch, 2], the brand clause and the category clause, "" where no intent is sure."""
        grams, whole = fingerprints_of(queries)
        return tf.stack([self._brand(grams, whole), self._category(grams, whole)], axis=1)

    def _brand(self, grams: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
        found = self._names(grams)
        sure = tf.gather(self._name_sure, _or_last(found, self._name_sure))
        last = tf.reduce_max(tf.where(sure, found, _NOTHING), axis=1)
        first = tf.reduce_min(tf.where(sure, found, found.dtype.max), axis=1)
        judged = self._queries(whole)
        own = tf.gather(self._query_name, _or_last(judged, self._query_name))
        row = tf.where(judged >= 0, own, tf.where(first == last, last, _NOTHING))
        return tf.gather(self._name_clauses, _or_last(row, self._name_clauses))

    def _category(self, grams: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
        row = self._terms(terms_of(grams, whole))
        rank = tf.reduce_min(tf.gather(self._term_rank, _or_last(row, self._term_rank)), axis=1)
        return tf.gather(self._category_clauses, tf.gather(self._rank_clause, rank))


class Fingerprints(tf.Module):
    """The place of a fingerprint in a sorted array [n], by binary search."""

    def __init__(self, ascending: np.ndarray):
        super().__init__()
        self._sorted = _constant(ascending if len(ascending) else [_UNUSED], tf.int64, "fingerprints")

    def __call__(self, fingerprints: tf.Tensor) -> tf.Tensor:
        """int64 of any shape -> int32 rows of the same shape, -1 where it is not there."""
        flat = tf.reshape(fingerprints, [-1])
        row = tf.minimum(tf.searchsorted(self._sorted, flat), self._sorted.shape[0] - 1)
        found = tf.where(tf.gather(self._sorted, row) == flat, row, _NOTHING)
        return tf.reshape(found, tf.shape(fingerprints))


class BrandNames(tf.Module):
    """Finds brand names in token n-grams; a name that lies inside a longer one is not found."""

    def __init__(self, ascending: np.ndarray):
        super().__init__()
        self._rows = Fingerprints(ascending)

    def __call__(self, grams: tf.Tensor) -> tf.Tensor:
        """`fingerprints_of`'s n-grams [batch, NAME_TOKENS, tokens] -> int32 [batch, NAME_TOKENS * tokens] rows of names, -1 elsewhere."""
        count = tf.shape(grams)[2]
        start = tf.tile(tf.range(count), [NAME_TOKENS])
        end = start + tf.repeat(tf.range(1, NAME_TOKENS + 1), count)
        longer = (end - start)[:, None] > (end - start)[None, :]
        covers = longer & (start[:, None] <= start[None, :]) & (end[:, None] >= end[None, :])
        rows = tf.reshape(self._rows(grams), [-1, NAME_TOKENS * count])
        covered = tf.matmul(tf.cast(rows >= 0, tf.float32), tf.cast(covers, tf.float32)) > 0
        return tf.where(covered, _NOTHING, rows)


def fingerprints_of(texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[batch] raw strings -> int64 fingerprints of the token n-grams [batch, NAME_TOKENS, tokens] and of the whole text [batch].

    Entry (n, i) is the n + 1 tokens from token i on; -1 where the text has no such tokens. At most 64 tokens of a text are read.
    """
    normalized = text.normalize(texts)
    tokens = text.words(normalized).to_tensor("")[:, :_MAX_TOKENS]
    # One column at least, so that a batch of empty texts has a shape like any other.
    count = tf.maximum(tf.shape(tokens)[1], 1)
    tokens = tf.pad(tokens, [[0, 0], [0, NAME_TOKENS]], constant_values="")
    gram = tokens[:, :count]
    grams, there = [gram], [gram != ""]
    for n in range(1, NAME_TOKENS):
        following = tokens[:, n : n + count]
        gram = tf.strings.join([gram, following], " ")
        grams.append(gram)
        there.append(following != "")
    found = tf.where(tf.stack(there, 1), _fingerprint(tf.stack(grams, 1)), _NOTHING)
    # Normalised texts have no "=": a whole query and its only word are two different things.
    return found, tf.where(normalized == "", tf.cast(_NOTHING, tf.int64), _fingerprint(tf.strings.join(["=", normalized])))


def terms_of(grams: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
    """Both results of `fingerprints_of` -> int64 [batch, terms]: the words, word pairs and the whole text."""
    return tf.concat([grams[:, 0], grams[:, 1], whole[:, None]], axis=1)


def _fingerprint(strings: tf.Tensor) -> tf.Tensor:
    return tf.strings.to_hash_bucket_fast(strings, _FINGERPRINTS)


def _or_last(rows: tf.Tensor, table: tf.Variable) -> tf.Tensor:
    return tf.where(rows >= 0, rows, table.shape[0] - 1)


def _constant(values: list | np.ndarray, dtype: tf.DType, name: str) -> tf.Variable:
    return tf.Variable(values, trainable=False, dtype=dtype, name=name)
