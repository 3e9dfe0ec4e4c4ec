"""Ids and rows, against a Python dict."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfebr.data import item_ids
from tfebr.data.item_ids import ItemIds
from tfebr.errors import DataError


@settings(max_examples=40, deadline=None)
@given(
    ids=st.lists(st.text(min_size=1, max_size=30).filter(lambda s: s.isprintable()), min_size=1, max_size=60, unique=True),
    others=st.lists(st.text(max_size=10), max_size=10),
)
def test_lookup_and_decode_agree_with_a_dict(ids, others):
    module = ItemIds(np.array(ids, object))
    row_of = {item_id: row + 1 for row, item_id in enumerate(ids)}
    asked = ids[::-1] + others + [""]
    assert module.lookup(tf.constant(asked)).numpy().tolist() == [row_of.get(a, 0) for a in asked]
    assert [i.decode() for i in module.decode(tf.range(len(ids))).numpy()] == ids
    assert len(module) == len(ids)


@pytest.mark.parametrize("shape", [(), (0,), (6,), (2, 3), (2, 0), (1, 2, 3)])
def test_shapes_are_kept(shape):
    module = ItemIds(np.array([f"sku-{i}" for i in range(40)]))
    rows = np.resize(np.array([39, -1, 0, 17, 16, 15], np.int32), shape)
    names = np.array([f"sku-{r}" if r >= 0 else "" for r in rows.ravel()], object).reshape(shape)
    decoded = module.decode(tf.constant(rows))
    assert decoded.shape == shape
    found = module.lookup(tf.constant(names, tf.string))
    np.testing.assert_array_equal(found.numpy(), np.where(rows >= 0, rows + 1, 0))
    assert found.dtype == tf.int32
    assert [i.decode() for i in np.ravel(np.asarray(decoded.numpy(), object))] == list(names.ravel())


def test_known_ids_that_collide_get_another_salt(monkeypatch):
    ids = np.array([f"item{i}" for i in range(10)])
    monkeypatch.setattr(item_ids, "_FINGERPRINTS", 53)
    first = tf.strings.to_hash_bucket_fast(tf.constant([f"0item{i}" for i in range(10)]), 53).numpy()
    assert len(set(first)) < 10, "the case must start with a collision"
    module = ItemIds(ids)
    assert module.lookup(tf.constant(ids)).numpy().tolist() == list(range(1, 11))
    strangers = [f"other{i}" for i in range(500)]
    assert not module.lookup(tf.constant(strangers)).numpy().any(), "a fingerprint alone must not make an id known"


def test_survives_saving_and_loading(tmp_path):
    class Both(tf.Module):
        def __init__(self, ids):
            super().__init__()
            self.ids = ItemIds(ids)

        @tf.function(input_signature=[tf.TensorSpec([None, None], tf.string)])
        def there_and_back(self, ids):
            return self.ids.decode(self.ids.lookup(ids) - 1)

    tf.saved_model.save(Both(np.array(["a", "é" * 40, "c"])), str(tmp_path / "m"))
    loaded = tf.saved_model.load(str(tmp_path / "m"))
    assert [i.decode() for i in loaded.there_and_back([["c", "nothing", "é" * 40]]).numpy()[0]] == ["c", "", "é" * 40]


def test_takes_little_more_than_the_ids():
    ids = np.array([f"{i:010d}" for i in range(20_000)])
    module = ItemIds(ids)
    blocks = module._blocks.numpy()
    stored = sum(len(b) + 40 for b in blocks) + sum(v.numpy().nbytes for v in module.variables if v.dtype != tf.string)
    assert stored / len(ids) < 10 + 20


@pytest.mark.parametrize(
    ("ids", "message"),
    [(["a", "", "b"], "Row 1: the item id is empty"), (["a", "b", "a"], "Row 2: item id 'a' repeats row 0"), ([], "at least one")],
)
def test_bad_ids_are_refused(ids, message):
    with pytest.raises(DataError, match=message):
        ItemIds(np.array(ids, object))
