"""Feature specs refuse what is impossible; the featurizer gives padded ids, the same for query and title."""

import collections
import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from tfebr.data import text
from tfebr.data.catalogue import Catalogue
from tfebr.data.features import FeatureSpec, Featurizer, write_vocabularies
from tfebr.data.roles import ColumnRoles
from tfebr.errors import ConfigError

SPEC = FeatureSpec(
    grains=("words", "bigrams"),
    query_lengths=(3, 4),
    title_lengths=(4, 5),
    min_count=1,
    oov_buckets=5,
    item_columns=("brand",),
    user_columns=("age",),
)
CATALOGUE = Catalogue(
    pa.table({"item_id": ["1", "2", "3"], "title": ["red led bulb", "led lamp", "red shoes"], "brand": ["b", "b", ""], "price": [1, 2, 3]})
)
USERS = pa.table({"user_id": ["u", "v"], "age": ["30", "40"]})
QUERIES = [pa.array(["led bulb", "led"]), pa.array(["lamp", ""])]


@pytest.fixture(scope="module")
def featurizer(tmp_path_factory) -> Featurizer:
    folder = tmp_path_factory.mktemp("vocabulary")
    write_vocabularies(SPEC, CATALOGUE, QUERIES, USERS, folder)
    return Featurizer(SPEC, folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grains": ("words", "syllables")}, "`grains`.*words, bigrams, trigrams.*syllables"),
        ({"grains": ()}, "`grains`"),
        ({"query_lengths": (3,)}, r"`query_lengths`.*\(3,\)"),
        ({"title_lengths": (-1, 3)}, "`title_lengths`"),
        ({"title_lengths": (0, 0)}, "`title_lengths`.*at least"),
        ({"query_lengths": (0, 3)}, "`query_lengths`"),
        ({"vocabulary_size": 0}, "`vocabulary_size`.*0"),
        ({"min_count": 0}, "`min_count`"),
        ({"oov_buckets": 0}, "`oov_buckets`"),
        ({"history_items": -1}, "`history_items`.*-1"),
        ({"history_queries": -2}, "`history_queries`.*-2"),
    ],
)
def test_impossible_settings_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        FeatureSpec(**changes)


def test_a_grain_of_title_length_0_is_read_of_queries_alone(featurizer, tmp_path):
    write_vocabularies(featurizer.spec, CATALOGUE, QUERIES, USERS, tmp_path)
    alone = Featurizer(dataclasses.replace(featurizer.spec, title_lengths=(4, 0)), tmp_path)
    columns = {"title": tf.constant(["led lamp"]), "brand": tf.constant(["Acme"])}
    whole, found = featurizer.items(columns), alone.items(columns)
    assert set(whole) - set(found) == {f"title_{featurizer.spec.grains[1]}"}
    np.testing.assert_array_equal(found["title_words"], whole["title_words"])
    assert set(alone.query(columns["title"])) == set(featurizer.spec.grains)


def test_resolved_names_the_columns_of_the_data():
    roles = ColumnRoles(text=("title",), category=("brand",), number=("price",))
    full = FeatureSpec().resolved(roles, USERS, has_users=True)
    assert (full.item_columns, full.user_columns, full.history_items) == (("brand",), ("age",), 50)
    alone = FeatureSpec().resolved(roles, None, has_users=False)
    assert (alone.item_columns, alone.user_columns, alone.history_items, alone.history_queries) == (("brand",), (), 0, 0)
    assert FeatureSpec(item_columns=()).resolved(roles, USERS, True).item_columns == ()
    for spec in (FeatureSpec(), FeatureSpec(user_columns=("age",))):
        assert spec.resolved(roles, USERS, has_users=False).user_columns == (), "requests of a judged set have no user"


def test_vocabularies_hold_titles_and_queries_by_frequency(featurizer, tmp_path):
    counts = collections.Counter(w for t in [*CATALOGUE.titles, *(q for a in QUERIES for q in a.to_pylist())] for w in t.split())
    expected = sorted(counts, key=lambda w: (-counts[w], w))
    ids = featurizer.grains["words"](tf.constant(expected)).numpy().tolist()
    assert ids == list(range(1, len(expected) + 1))


def test_vocabulary_size_and_min_count_send_the_rest_to_buckets(tmp_path):
    spec = FeatureSpec(grains=("words",), query_lengths=(9,), title_lengths=(9,), vocabulary_size=2, min_count=2, oov_buckets=1)
    write_vocabularies(spec, CATALOGUE, QUERIES, None, tmp_path)
    ids = Featurizer(spec, tmp_path).query(tf.constant(["led bulb red lamp shoes"]))["words"].numpy().tolist()
    assert ids == [[1, 2, 3, 3, 3, 0, 0, 0, 0]]


def test_queries_are_padded_and_cut(featurizer):
    found = featurizer.query(tf.constant(["led", "", "red led bulb lamp shoes"]))
    assert found["words"].shape == (3, 3)
    assert found["bigrams"].shape == (3, 4)
    words = featurizer.grains["words"](tf.constant(["red", "led", "bulb"])).numpy().tolist()
    assert found["words"].numpy().tolist() == [[words[1], 0, 0], [0, 0, 0], words]
    assert (found["bigrams"][1].numpy() == 0).all()
    assert found["words"].dtype == tf.int32


def test_titles_and_queries_share_their_ids(featurizer):
    query = featurizer.query(tf.constant(["Red  LED bulb!"]))["words"].numpy()[0]
    title = featurizer.items({"title": tf.constant(["red led bulb"]), "brand": tf.constant(["b"])})["title_words"].numpy()[0]
    assert query.tolist() == title[:3].tolist()
    assert title[3] == 0


def test_categories_and_profiles(featurizer):
    items = featurizer.items({"title": tf.constant(["x"] * 3), "brand": tf.constant(["b", "", "new brand"])})
    assert items["column_brand"].numpy().tolist() == [1, 0, 2]
    assert featurizer.user({"age": tf.constant(["40", "", "99", "30"])})["user_column_age"].numpy().tolist() == [2, 0, 3, 1]


def test_every_id_is_inside_its_table(featurizer):
    texts = tf.constant(["zz yy \u8dd1\u978b \U0001f3a7", "led", "q" * 10_000, b"\xff\xfe", "12oz " * 200])
    for grain, ids in featurizer.query(texts).items():
        assert np.ptp(ids.numpy()) > 0
        assert ids.numpy().min() >= 0
        assert ids.numpy().max() < featurizer.grains[grain].size
    assert set(featurizer.grains) == set(SPEC.grains) <= set(text.GRAINS)


@pytest.mark.parametrize(
    ("changes", "users", "message"),
    [
        ({"item_columns": ("colour",)}, USERS, "`item_columns` names 'colour'.*item_id, title, brand, price"),
        ({"user_columns": ("height",)}, USERS, "`user_columns` names 'height'.*user_id, age"),
        ({"user_columns": ("age",)}, None, "`user_columns` names 'age'"),
        ({"user_columns": ("age", "user_id")}, USERS, "`user_columns` names 'user_id', which says whose a profile is"),
    ],
)
def test_unknown_columns_are_named(tmp_path, changes, users, message):
    spec = FeatureSpec(**{"item_columns": (), "user_columns": ()} | changes)
    with pytest.raises(ConfigError, match=message):
        write_vocabularies(spec, CATALOGUE, [], users, tmp_path)


def test_a_number_column_is_no_category(tmp_path):
    with pytest.raises(ConfigError, match="`item_columns` names 'price'"):
        write_vocabularies(FeatureSpec(item_columns=("price",), user_columns=()), CATALOGUE, [], None, tmp_path)
