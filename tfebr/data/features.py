"""Feature specs, and the featurizer that turns raw strings into ids by one graph in training and in serving."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import tensorflow as tf

from tfebr.data import text
from tfebr.data.catalogue import Catalogue
from tfebr.data.names import column_key
from tfebr.data.roles import ColumnRoles
from tfebr.data.vocabulary import TokenCounter, Vocabulary
from tfebr.errors import ConfigError
from tfebr.infrastructure.checks import conform, require


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """What is read from queries, users, items and histories.

    Attributes:
        grains: token grains of queries and titles, among "words", "bigrams", "trigrams". Bigrams pay with large logs only: on small ones
            the model memorises them.
        query_lengths: most tokens of a query, per grain; the rest is cut.
        title_lengths: most tokens of a title, per grain; 0 for a grain that is read of queries alone.
        vocabulary_size: most tokens of a grain's vocabulary; rarer tokens share the buckets.
        min_count: a token enters a vocabulary when it occurs at least this often.
        oov_buckets: hashed rows for unknown tokens, per grain.
        item_columns: catalogue columns of strings that models read; None stands for all that are categories (`resolved`).
        user_columns: profile columns that models read; None likewise.
        history_items: most recent items of a user's history that models read.
        history_queries: most recent queries of a user's history that models read.
    """

    grains: tuple[str, ...] = ("words", "trigrams")
    query_lengths: tuple[int, ...] = (12, 40)
    title_lengths: tuple[int, ...] = (24, 80)
    vocabulary_size: int = 100_000
    min_count: int = 2
    oov_buckets: int = 1_000
    item_columns: tuple[str, ...] | None = None
    user_columns: tuple[str, ...] | None = None
    history_items: int = 50
    history_queries: int = 5

    def __post_init__(self):
        conform(self)
        known = bool(self.grains) and set(self.grains) <= set(text.GRAINS) and len(set(self.grains)) == len(self.grains)
        require(known, "grains", f"some of {', '.join(text.GRAINS)}, each once", self.grains)
        for name, least in (("query_lengths", 1), ("title_lengths", 0)):
            lengths = getattr(self, name)
            fits = len(lengths) == len(self.grains) and min(lengths) >= least
            require(fits, name, f"one length of at least {least} for each of the grains {', '.join(self.grains)}", lengths)
        require(any(self.title_lengths), "title_lengths", "above 0 for one of the grains at least", self.title_lengths)
        for name in ("vocabulary_size", "min_count", "oov_buckets"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("history_items", "history_queries"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))

    def resolved(self, roles: ColumnRoles, users: pa.Table | None, has_users: bool) -> "FeatureSpec":
        """The spec with its columns named, and without profiles and histories where the data has no users."""
        profile = [c for c in users.column_names if c != "user_id"] if users is not None else []
        changes: dict[str, Any] = {} if has_users else {"history_items": 0, "history_queries": 0, "user_columns": ()}
        if self.item_columns is None:
            changes["item_columns"] = roles.category
        if self.user_columns is None:
            changes.setdefault("user_columns", tuple(profile))
        return dataclasses.replace(self, **changes)


class Featurizer(tf.Module):
    """Raw strings to ids, from a spec and the vocabularies in `folder` (written by `write_vocabularies`).

    What comes in is named by its columns, what goes out by their keys (`tfebr.data.names.column_key`).

    Attributes:
        grains: the vocabulary of each grain.
        item_columns, user_columns: that of each column, by its name.
    """

    def __init__(self, spec: FeatureSpec, folder: str | os.PathLike):
        super().__init__()
        self.spec = spec
        folder = Path(folder)
        self.grains = {g: Vocabulary(folder / f"grain-{g}.txt", spec.oov_buckets) for g in spec.grains}
        # One bucket is enough for a category that appeared after training: there is nothing to tell such categories apart by.
        self.item_columns = {c: Vocabulary(folder / _file("item", c), 1) for c in spec.item_columns or ()}
        self.user_columns = {c: Vocabulary(folder / _file("user", c), 1) for c in spec.user_columns or ()}

    def tokens(self, texts: tf.Tensor, lengths: tuple[int, ...]) -> dict[str, tf.Tensor]:
        """[n] texts -> per grain of a length above 0 int32 ids [n, length], padded with 0."""
        read = {grain: length for grain, length in zip(self.spec.grains, lengths, strict=True) if length}
        found = text.grains(texts, tuple(read))
        return {g: self.grains[g](found[g]).to_tensor(0, shape=[None, length]) for g, length in read.items()}

    def query(self, queries: tf.Tensor) -> dict[str, tf.Tensor]:
        """[batch] queries -> per grain int32 [batch, query length]."""
        return self.tokens(queries, self.spec.query_lengths)

    def user(self, columns: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Profile column -> [batch] strings, as `user_KEY` int32 ids [batch]; an empty string is 0, "unknown"."""
        return {f"user_{column_key(c)}": vocabulary(columns[c]) for c, vocabulary in self.user_columns.items()}

    def items(self, columns: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """`title` and the categorical columns, [n] strings each -> `title_GRAIN` int32 [n, title length] and `KEY` int32 [n]."""
        titles = {f"title_{g}": ids for g, ids in self.tokens(columns["title"], self.spec.title_lengths).items()}
        return titles | {column_key(c): vocabulary(columns[c]) for c, vocabulary in self.item_columns.items()}


def write_vocabularies(
    spec: FeatureSpec, catalogue: Catalogue, queries: Iterable[pa.Array], users: pa.Table | None, folder: str | os.PathLike
) -> None:
    """Counts the tokens of all titles and of the training queries, and writes one vocabulary file for each grain and column.

    Args:
        queries: a stream of Arrow string arrays, of the training part only.
        users: profiles with the spec's `user_columns`, or None when the spec has none.
    """
    folder = Path(folder)
    counters = {g: TokenCounter() for g in spec.grains}
    graph = tf.function(lambda t: text.grains(t, spec.grains), input_signature=[tf.TensorSpec([None], tf.string)])

    def count(texts: pa.Array) -> None:
        for start in range(0, len(texts), 8192):
            found = graph(tf.constant(texts.slice(start, 8192).to_pylist(), tf.string))
            for grain, tokens in found.items():
                counters[grain].add(pa.array(tokens.flat_values.numpy(), pa.binary()).cast(pa.string()))

    for chunk in catalogue.table["title"].chunks:
        count(chunk)
    for batch in queries:
        count(batch)
    for grain, counter in counters.items():
        Vocabulary.write(folder / f"grain-{grain}.txt", counter.most_common(spec.vocabulary_size, spec.min_count))
    if "user_id" in (spec.user_columns or ()):
        raise ConfigError("`user_columns` names 'user_id', which says whose a profile is and stands in none. Leave it out.")
    for kind, table, columns in (("item", catalogue.table, spec.item_columns), ("user", users, spec.user_columns)):
        for column in columns or ():
            if table is None or column not in table.column_names:
                have = [] if table is None else table.column_names
                raise ConfigError(f"`{kind}_columns` names {column!r}, which the data does not have. Received columns: {', '.join(have)}.")
            if not pa.types.is_string(table.schema.field(column).type):
                raise ConfigError(
                    f"`{kind}_columns` names {column!r}, which holds {table.schema.field(column).type} and not strings. Leave it out."
                )
            counter = TokenCounter()
            counter.add(table[column].combine_chunks())
            Vocabulary.write(folder / _file(kind, column), counter.most_common(spec.vocabulary_size))


def _file(kind: str, column: str) -> str:
    """A vocabulary's file for a column of "item" or "user"."""
    return f"{kind}-{column_key(column)}.txt"
