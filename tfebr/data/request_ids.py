"""Whether the request ids of a log are unique, from 8 bytes a request: the log may be larger than memory."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from tfebr.errors import DataError


class RequestIds:
    """Collects the hashes of a log's request ids, to be checked once, at its end."""

    def __init__(self) -> None:
        self._hashes: list[np.ndarray] = []

    def add(self, ids: pa.StringArray) -> None:
        """Takes the ids of the next requests."""
        self._hashes.append(hashes(ids))

    def check(self, again: Iterable[tuple[str, int, pa.StringArray]]) -> None:
        """Raises DataError when an id is there twice; the hashes are given up.

        Args:
            again: the same ids from the start, each batch with its file and its first row; only read when two hashes are equal.
        """
        ordered = np.concatenate([np.zeros(0, np.uint64), *self._hashes])
        self._hashes.clear()
        ordered.sort()
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        if not len(twice):
            return
        first: dict[str, tuple[str, int]] = {}
        for file, first_row, ids in again:
            for row in np.flatnonzero(np.isin(hashes(ids), twice)).tolist():
                request_id, here = ids[row].as_py(), (file, first_row + row)
                if (before := first.setdefault(request_id, here)) != here:
                    where = f"row {before[1]}" if before[0] == file else f"row {before[1]} of {before[0]}"
                    raise DataError(
                        f"{file}: row {here[1]}, column `request_id`: {request_id!r} repeats {where}. Give every request an id of its own: "
                        "results and judgments are kept by it."
                    )


def hashes(ids: pa.StringArray) -> np.ndarray:
    """uint64 [n]: a multilinear hash of the bytes (Lemire & Kaser, "Strongly universal string hashing is fast", 2014) of each id."""
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1] if len(ids) else np.zeros(1, np.int32)
    data = ids.buffers()[2]
    text = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] if data is not None else np.zeros(0, np.uint8)
    begins, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    weights = np.random.default_rng(0).integers(0, 2**64, int(lengths.max(initial=0)) + 1, np.uint64)
    place = np.arange(len(text)) - np.repeat(begins, lengths)
    # All of it modulo 2^64. A byte of 0 counts, too, so that no id is another one's beginning.
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum((text.astype(np.uint64) + 1) * weights[place], dtype=np.uint64)])
    return sums[begins + lengths] - sums[begins]
