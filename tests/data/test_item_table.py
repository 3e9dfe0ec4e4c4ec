"""The item table: row r + 1 is catalogue row r, row 0 is no item, damage is named."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from tfebr.data import item_table
from tfebr.data.catalogue import Catalogue
from tfebr.data.features import FeatureSpec, Featurizer, write_vocabularies
from tfebr.data.item_table import ItemTable, write_item_table
from tfebr.errors import ArtifactError, TfebrError

ITEMS = 23


@pytest.fixture
def catalogue() -> Catalogue:
    titles = [f"item number {i} \u8dd1\u978b" if i % 3 else "" for i in range(ITEMS)]
    return Catalogue(pa.table({"item_id": [f"i{i}" for i in range(ITEMS)], "title": titles, "brand": [f"b{i % 4}" for i in range(ITEMS)]}))


@pytest.fixture
def featurizer(catalogue, tmp_path) -> Featurizer:
    spec = FeatureSpec(title_lengths=(6, 20), min_count=1, oov_buckets=3, item_columns=("brand",), user_columns=())
    write_vocabularies(spec, catalogue, [], None, tmp_path / "vocabulary")
    return Featurizer(spec, tmp_path / "vocabulary")


@pytest.mark.parametrize("block", [5, ITEMS, 8192])
def test_rows_are_the_catalogue_shifted_by_one(catalogue, featurizer, tmp_path, monkeypatch, block):
    monkeypatch.setattr(item_table, "_BLOCK", block)
    table = write_item_table(catalogue, featurizer, tmp_path / "table", quiet=True)
    assert len(table) == ITEMS
    assert set(table.columns) == {"title_words", "title_trigrams", "column_brand"}
    for row, item in enumerate(catalogue.table.to_pylist()):
        alone = featurizer.items({name: tf.constant([item[name]]) for name in ("title", "brand")})
        for name, ids in alone.items():
            np.testing.assert_array_equal(table.columns[name][row + 1], ids.numpy()[0], err_msg=f"{name} of item {row}")
    for values in table.columns.values():
        assert values.dtype == np.int32
        assert not values[0].any()


def test_it_reads_back(catalogue, featurizer, tmp_path):
    written = write_item_table(catalogue, featurizer, tmp_path / "table", quiet=True)
    read = ItemTable.read(tmp_path / "table")
    assert read.catalogue_hash == catalogue.content_hash()
    assert isinstance(read.columns["column_brand"], np.memmap)
    assert set(read.tensors(["column_brand"])) == {"column_brand"}
    for name, tensor in read.tensors().items():
        np.testing.assert_array_equal(tensor.numpy(), written.columns[name])


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_named(catalogue, featurizer, tmp_path, keep):
    write_item_table(catalogue, featurizer, tmp_path / "table", quiet=True)
    file = tmp_path / "table" / "title_words.npy"
    content = file.read_bytes()
    file.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(ArtifactError, match=r"title_words\.npy: .*Train again"):
        ItemTable.read(tmp_path / "table")


def test_a_missing_file_is_named(catalogue, featurizer, tmp_path):
    write_item_table(catalogue, featurizer, tmp_path / "table", quiet=True)
    (tmp_path / "table" / "column_brand.npy").unlink()
    with pytest.raises(ArtifactError, match=r"column_brand\.npy: .*missing"):
        ItemTable.read(tmp_path / "table")
    with pytest.raises(TfebrError, match=r"about\.json: no such file"):
        ItemTable.read(tmp_path)


def test_titles_and_ids_may_be_read_as_categories_too(catalogue, tmp_path):
    spec = FeatureSpec(title_lengths=(6, 20), min_count=1, oov_buckets=3, item_columns=("title", "item_id"), user_columns=())
    write_vocabularies(spec, catalogue, [], None, tmp_path / "vocabulary")
    table = write_item_table(catalogue, Featurizer(spec, tmp_path / "vocabulary"), tmp_path / "table", quiet=True)
    assert set(table.columns) == {"title_words", "title_trigrams", "column_title", "column_item_id"}
    assert len(set(table.columns["column_item_id"].tolist())) == ITEMS + 1


def test_a_column_of_another_length_is_named(catalogue, featurizer, tmp_path):
    write_item_table(catalogue, featurizer, tmp_path / "table", quiet=True)
    np.save(tmp_path / "table" / "column_brand.npy", np.zeros(ITEMS, np.int32))
    with pytest.raises(ArtifactError, match=rf"column_brand\.npy: has shape \({ITEMS},\), expected \[{ITEMS + 1}\]"):
        ItemTable.read(tmp_path / "table")
