"""A request id that a log holds twice is found, however far apart the two are and whatever their hashes."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfebr.data import request_ids
from tfebr.data.request_ids import RequestIds, hashes
from tfebr.errors import DataError

BATCHES = st.lists(st.lists(st.text(st.sampled_from("ab\0ü"), max_size=4), max_size=5), max_size=6)


def checked(batches: list[list[str]]) -> None:
    arrays = [pa.array(batch, pa.string()) for batch in batches]
    begins = np.cumsum([0, *map(len, batches)])
    found = RequestIds()
    for array in arrays:
        found.add(array)
    found.check((f"{i}.parquet", int(begins[i]), array) for i, array in enumerate(arrays))


@given(BATCHES)
def test_equals_a_set(batches):
    ids = [i for batch in batches for i in batch]
    if len(set(ids)) == len(ids):
        checked(batches)
        return
    again = next(row for row, i in enumerate(ids) if i in ids[:row])
    with pytest.raises(DataError) as caught:
        checked(batches)
    assert f"row {again}, column `request_id`: {ids[again]!r} repeats row {ids.index(ids[again])}" in str(caught.value)


@given(BATCHES)
def test_equal_hashes_alone_are_no_repetition(batches):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_ids, "hashes", lambda ids: np.zeros(len(ids), np.uint64))
        test_equals_a_set.hypothesis.inner_test(batches)


@given(st.lists(st.text(max_size=6), max_size=20), st.integers(0, 3))
def test_a_hash_is_of_the_id_alone(ids, skipped):
    array = pa.array(["before"] * skipped + ids, pa.string())[skipped:]
    by_id = dict(zip(ids, hashes(array).tolist(), strict=True))
    assert [by_id[i] for i in ids] == [int(hashes(pa.array([i]))[0]) for i in ids]
    assert len(set(by_id.values())) == len(by_id)


def test_the_log_is_read_again_only_for_equal_hashes():
    def unread():
        raise AssertionError("was read")
        yield

    found = RequestIds()
    found.add(pa.array([f"r{n}" for n in range(100_000)]))
    found.check(unread())
