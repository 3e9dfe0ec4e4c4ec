"""Item id strings to rows and back inside a TensorFlow graph, in a few bytes more than the ids themselves."""

import numpy as np
import tensorflow as tf

from tfebr.errors import DataError

# Ids lie end to end in strings of this many, so that a short id does not cost TensorFlow's 24 bytes a string (and an allocation when long).
_IDS_A_BLOCK = 16
_FINGERPRINTS = 2**63 - 1
_SALTS = 32


class ItemIds(tf.Module):
    """The ids of a catalogue, both ways, with core TensorFlow operations only.

    An id is found by binary search over sorted 63-bit fingerprints and then compared with the stored id, so an unknown id is never mistaken
    for a known one. Two known ids never share a fingerprint: the salt is changed until all are different.

    Args:
        ids: [items] unique, non-empty strings (`str` or UTF-8 `bytes`), in row order.

    Raises:
        DataError: an id is empty or repeated, naming its row, or the ids together exceed 2 GiB.
    """

    def __init__(self, ids: np.ndarray, name: str = "item_ids"):
        super().__init__(name=name)
        encoded = [i.encode() if isinstance(i, str) else bytes(i) for i in ids]
        _check(encoded)
        starts = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(i) for i in encoded], out=starts[1:])
        if starts[-1] >= 2**31:
            raise DataError(f"The item ids are {starts[-1]:,} bytes together; at most {2**31 - 1:,} are possible. Use shorter ids.")
        blocks = [b"".join(encoded[i : i + _IDS_A_BLOCK]) for i in range(0, len(encoded), _IDS_A_BLOCK)]
        self._salt, fingerprints = _distinct_fingerprints(encoded)
        order = np.argsort(fingerprints)
        self._blocks = tf.Variable(blocks, trainable=False, dtype=tf.string, name="blocks")
        self._starts = tf.Variable(starts.astype(np.int32), trainable=False, name="starts")
        self._sorted_fingerprints = tf.Variable(fingerprints[order], trainable=False, name="sorted_fingerprints")
        self._rows = tf.Variable(order.astype(np.int32), trainable=False, name="rows")

    def __len__(self) -> int:
        return int(self._rows.shape[0])

    def lookup(self, ids: tf.Tensor) -> tf.Tensor:
        """int32 row + 1 of each id, 0 where it is unknown or "". `ids` is a string tensor of any shape; the result has the same."""
        flat = tf.reshape(ids, [-1])
        place = tf.searchsorted(self._sorted_fingerprints, _fingerprint(flat, self._salt))
        row = tf.gather(self._rows, tf.minimum(place, len(self) - 1))
        found = tf.equal(self.decode(row), flat)
        return tf.reshape(tf.where(found, row + 1, 0), tf.shape(ids))

    def decode(self, rows: tf.Tensor) -> tf.Tensor:
        """The id of each row, "" for a negative row. `rows` is an integer tensor of any shape, below the number of items."""
        rows = tf.convert_to_tensor(rows)
        safe = tf.maximum(tf.cast(rows, tf.int32), 0)
        block = safe // _IDS_A_BLOCK
        start = tf.gather(self._starts, safe)
        length = tf.gather(self._starts, safe + 1) - start
        ids = tf.strings.substr(tf.gather(self._blocks, block), start - tf.gather(self._starts, block * _IDS_A_BLOCK), length)
        return tf.where(rows >= 0, ids, "")


def _check(ids: list[bytes]) -> None:
    if not ids:
        raise DataError("There are no item ids; a catalogue needs at least one item.")
    first_row: dict[bytes, int] = {}
    for row, item_id in enumerate(ids):
        if not item_id:
            raise DataError(f"Row {row}: the item id is empty. Every item needs an id.")
        if first_row.setdefault(item_id, row) != row:
            raise DataError(
                f"Row {row}: item id {item_id.decode(errors='replace')!r} repeats row {first_row[item_id]}. Ids must be unique."
            )


def _fingerprint(ids: tf.Tensor, salt: str) -> tf.Tensor:
    return tf.strings.to_hash_bucket_fast(tf.strings.join([salt, ids]), _FINGERPRINTS)


def _distinct_fingerprints(ids: list[bytes]) -> tuple[str, np.ndarray]:
    tensor = tf.constant(ids, tf.string)
    for salt in range(_SALTS):
        fingerprints = _fingerprint(tensor, str(salt)).numpy()
        if len(np.unique(fingerprints)) == len(ids):
            return str(salt), fingerprints
    raise DataError(f"{len(ids):,} item ids could not be given distinct fingerprints with {_SALTS} salts.")
