"""Vocabularies by frequency with hashed out-of-vocabulary buckets."""

import hashlib
import io
import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from tfebr.errors import ArtifactError
from tfebr.infrastructure.files import atomic_file


class TokenCounter:
    """Counts tokens of a stream in bounded memory: when more than `limit` are held, the rarest half is forgotten."""

    def __init__(self, limit: int = 4_000_000):
        self._limit = limit
        self._counts = pa.table({"token": pa.array([], pa.string()), "count": pa.array([], pa.int64())})
        self._pending: list[pa.Table] = []
        self._pending_rows = 0

    def add(self, tokens: pa.Array) -> None:
        """Counts an Arrow array of strings; empty strings are not tokens."""
        counted = pc.value_counts(tokens.filter(pc.not_equal(tokens, "")))
        table = pa.table({"token": counted.field("values").cast(pa.string()), "count": counted.field("counts")})
        self._pending.append(table)
        self._pending_rows += table.num_rows
        if self._pending_rows > 1_000_000:
            self._merge()

    def most_common(self, size: int, min_count: int = 1) -> list[str]:
        """The `size` most frequent tokens that occur at least `min_count` times; ties in the order of the alphabet."""
        self._merge()
        kept = self._counts.filter(pc.greater_equal(self._counts["count"], min_count))
        kept = kept.sort_by([("count", "descending"), ("token", "ascending")])
        return kept["token"].slice(0, size).to_pylist()

    def _merge(self) -> None:
        merged = pa.concat_tables([self._counts, *self._pending])
        merged = merged.group_by("token").aggregate([("count", "sum")]).rename_columns(["token", "count"])
        if merged.num_rows > self._limit:
            merged = merged.sort_by([("count", "descending"), ("token", "ascending")]).slice(0, self._limit // 2)
        self._counts, self._pending, self._pending_rows = merged, [], 0


class Vocabulary(tf.Module):
    """Maps strings to ids in the graph: 0 is padding (the empty string), then the tokens, then `oov_buckets` hashed buckets.

    Args:
        path: a text file with one token a line, the most frequent first; it becomes an asset of a SavedModel.
        oov_buckets: how many learned rows unknown strings are hashed into.
    """

    def __init__(self, path: str | os.PathLike, oov_buckets: int):
        super().__init__()
        path = Path(path)
        if not path.exists():
            raise ArtifactError(f"{path}: vocabulary file is missing. The run folder is incomplete: train again.")
        content = path.read_bytes()
        self.tokens = sum(1 for _ in io.BytesIO(content))
        self.size = 1 + self.tokens + oov_buckets
        if self.tokens:
            self._table = tf.lookup.StaticVocabularyTable(_Lines(path, content), oov_buckets)
        else:
            self._table = None
            self._buckets = oov_buckets

    def __call__(self, strings: tf.Tensor | tf.RaggedTensor) -> tf.Tensor | tf.RaggedTensor:
        """Strings of any shape -> int32 ids of the same shape, in [0, size)."""
        if isinstance(strings, tf.RaggedTensor):
            return strings.with_flat_values(self(strings.flat_values))
        ids = tf.strings.to_hash_bucket_fast(strings, self._buckets) if self._table is None else self._table.lookup(strings)
        return tf.where(tf.equal(strings, ""), 0, tf.cast(ids, tf.int32) + 1)

    @staticmethod
    def write(path: str | os.PathLike, tokens: Iterable[str]) -> None:
        """Writes a vocabulary file, atomically. Tokens with a line break cannot be looked up and are left out."""
        with atomic_file(path) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(token + "\n" for token in tokens if "\n" not in token and "\r" not in token)


class _Lines(tf.lookup.TextFileInitializer):
    """A file's lines to their numbers, for a table that is called after what it holds.

    TensorFlow calls it after the whole path: an export would name folders of this machine, the same run would be another model in another
    place, and two models in a process would share a table when their files took turns at one path.
    """

    def __init__(self, path: Path, content: bytes):
        super().__init__(str(path), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
        self._content_name = f"{path.stem}_{hashlib.sha256(content).hexdigest()[:32]}"

    @property
    def _shared_name(self) -> str:
        return self._content_name
