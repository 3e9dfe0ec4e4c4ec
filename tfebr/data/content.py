"""What columns hold, as short digests: the same for the same values, however they lie in memory and files, and other ones for others."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Digests by column, and those by file.
Columns = Mapping[str, str]
Files = Mapping[str, Columns]


def content_of(batches: Iterable[pa.RecordBatch]) -> dict[str, str]:
    """A digest of every column, over a stream of batches with one schema; {} of no batches.

    Order and number of rows count. How they are cut into batches, the order of columns, the width of integers and of string offsets,
    dictionaries, and everything about a file's layout and compression do not. Time and memory are those of one pass over the buffers.
    """
    columns: dict[str, _Digest] = {}
    for batch in batches:
        for name in batch.schema.names:
            columns.setdefault(name, _Digest()).update(batch[name])
    return {name: columns[name].value() for name in sorted(columns)}


def combined(columns: Columns) -> str:
    """One digest of all columns and their names."""
    return _hash("\0".join(f"{name}\0{digest}" for name, digest in sorted(columns.items())).encode()).hexdigest()


def differences(before: Files, now: Files) -> str:
    """What is not the same of the files in `now`, for a message, such as "catalogue: column `title`"; "" where all is."""
    found = []
    for file, columns in now.items():
        was = before.get(file, {})
        changed = [f"column `{name}`" for name in sorted(columns.keys() & was.keys()) if columns[name] != was[name]]
        changed += [f"column `{name}`, which is new" for name in sorted(columns.keys() - was.keys())]
        changed += [f"column `{name}`, which is gone" for name in sorted(was.keys() - columns.keys())]
        if changed:
            found.append(f"{file}: {', '.join(changed)}")
    return "; ".join(found)


class _Digest:
    """Of one column: of the bytes of its values, of how long each is, of which are missing, and of what is nested in it."""

    def __init__(self) -> None:
        self.rows = 0
        self.values, self.lengths, self.missing = _hash(), _hash(), _hash()
        self.parts: dict[str, _Digest] = {}

    def update(self, array: pa.Array) -> None:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        kind = array.type
        if array.null_count:
            self.missing.update((self.rows + np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))).data)
        self.rows += len(array)
        if not len(array):
            return
        if pa.types.is_struct(kind):
            for field, part in zip(kind, array.flatten(), strict=True):
                self._part(field.name).update(part)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            self.lengths.update(pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64).data)
            self._part("").update(array.flatten())
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            numbers = np.asarray(pc.fill_null(array, False if pa.types.is_boolean(kind) else 0).to_numpy(zero_copy_only=False))
            self.values.update(_plain(numbers).data)
        else:
            self._update_texts(array)

    def value(self) -> str:
        digest = _hash(f"{self.rows}\0".encode())
        for part in (self.values, self.lengths, self.missing):
            digest.update(part.digest())
        for name, nested in sorted(self.parts.items()):
            digest.update(f"{name}\0{nested.value()}\0".encode())
        return digest.hexdigest()

    def _part(self, name: str) -> "_Digest":
        return self.parts.setdefault(name, _Digest())

    def _update_texts(self, array: pa.Array) -> None:
        if not pa.types.is_string(array.type) and not pa.types.is_large_string(array.type):
            array = array.cast(pa.string())
        if array.null_count:
            array = pc.fill_null(array, "")
        _, offsets, content = array.buffers()
        dtype = np.int64 if pa.types.is_large_string(array.type) else np.int32
        bounds = np.frombuffer(offsets, dtype)[array.offset : array.offset + len(array) + 1]
        # No text is over 2 GiB.
        self.lengths.update(np.diff(bounds).astype(np.int32).data)
        if content is not None:
            self.values.update(memoryview(content)[bounds[0] : bounds[-1]])


def _plain(numbers: np.ndarray) -> np.ndarray:
    """Numbers in one width; there is one NaN and one zero."""
    if numbers.dtype.kind == "f":
        return np.where(np.isnan(numbers), np.nan, numbers + 0.0).astype(np.float64)
    return np.ascontiguousarray(numbers.astype(np.int64))


def _hash(content: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(content, digest_size=16)
