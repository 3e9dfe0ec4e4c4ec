"""Vocabularies: frequency order against a plain counter, ids in the graph, out-of-vocabulary buckets."""

import collections
import shutil

import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfebr.data.vocabulary import TokenCounter, Vocabulary
from tfebr.errors import ArtifactError

TOKENS = st.lists(st.text(st.sampled_from("abc\u8dd1"), max_size=2), max_size=30)


def vocabulary(folder, tokens, oov_buckets=3) -> Vocabulary:
    Vocabulary.write(folder / "v.txt", tokens)
    return Vocabulary(folder / "v.txt", oov_buckets)


@given(st.lists(TOKENS, max_size=4), st.integers(1, 6), st.integers(1, 3))
def test_most_common_equals_a_plain_counter(batches, size, min_count):
    counter, plain = TokenCounter(), collections.Counter()
    for batch in batches:
        counter.add(pa.array(batch, pa.string()))
        plain.update(t for t in batch if t)
    expected = sorted((t for t in plain if plain[t] >= min_count), key=lambda t: (-plain[t], t.encode()))[:size]
    assert counter.most_common(size, min_count) == expected


def test_the_rarest_are_forgotten_beyond_the_limit():
    counter = TokenCounter(limit=4)
    counter.add(pa.array(["a"] * 5 + ["b"] * 4 + ["c", "d", "e"]))
    assert counter.most_common(10) == ["a", "b"]
    counter.add(pa.array(["c"] * 2))
    assert counter.most_common(10) == ["a", "b", "c"]


def test_ids_by_line_padding_and_buckets(tmp_path):
    known = vocabulary(tmp_path, ["the", "a b", "\u8dd1"])
    assert (known.tokens, known.size) == (3, 7)
    assert known(tf.constant(["", "the", "a b", "\u8dd1"])).numpy().tolist() == [0, 1, 2, 3]
    unknown = known(tf.constant([f"unknown{i}" for i in range(200)])).numpy()
    assert set(unknown) == {4, 5, 6}
    assert (known(tf.constant([f"unknown{i}" for i in range(200)])).numpy() == unknown).all()


def test_any_shape_and_ragged(tmp_path):
    known = vocabulary(tmp_path, ["a", "b"])
    assert known(tf.constant([[["a"], ["b"]]])).numpy().tolist() == [[[1], [2]]]
    ragged = known(tf.ragged.constant([["a", "b"], [], [""]]))
    assert ragged.to_list() == [[1, 2], [], [0]]
    assert ragged.dtype == tf.int32


def test_an_empty_vocabulary_has_buckets_only(tmp_path):
    empty = vocabulary(tmp_path, [], oov_buckets=2)
    assert empty.size == 3
    assert empty(tf.constant([""])).numpy().tolist() == [0]
    assert set(empty(tf.constant([str(i) for i in range(50)])).numpy()) == {1, 2}


def test_tokens_with_a_line_break_are_left_out(tmp_path):
    known = vocabulary(tmp_path, ["a", "b\nc", "d\re", "f"])
    assert known(tf.constant(["a", "f"])).numpy().tolist() == [1, 2]
    assert known.tokens == 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ArtifactError, match=r"nowhere\.txt: vocabulary file is missing.*train again"):
        Vocabulary(tmp_path / "nowhere.txt", 1)


def test_it_travels_with_a_saved_model(tmp_path):
    module = tf.Module()
    module.vocabulary = vocabulary(tmp_path, ["a", "b"])
    module.ids = tf.function(lambda s: module.vocabulary(s), input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, str(tmp_path / "saved"))
    (tmp_path / "v.txt").unlink()
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    assert tf.saved_model.load(str(tmp_path / "moved")).ids(tf.constant(["b", "", "a"])).numpy().tolist() == [2, 0, 1]
