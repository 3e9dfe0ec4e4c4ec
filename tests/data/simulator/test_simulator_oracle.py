import numpy as np
import pytest

from tfebr.data.simulator import Oracle
from tfebr.data.simulator.lexicon import read_lexicon
from tfebr.data.simulator.truth import Meanings, Tastes, Truth, relevance_of, taste_of
from tfebr.errors import DataError

_NONE = -1
# Two leaf categories (0 and 1); concept 0 means the first, concept 1 both.
_TRUTH = Truth(
    concept_leaves=np.array([[True, False], [True, True]]),
    leaf_department=np.array([0, 0]),
    brand_latent=np.array([[1.0, 0.0], [0.0, 1.0]], np.float32),
    leaf=np.array([0, 0, 1, 0]),
    brand=np.array([0, 1, 0, 0]),
    series=np.array([0, 1, 2, 3]),
    values=np.array([[7, 9], [7, 8], [7, 9], [8, _NONE]]),
    price_z=np.zeros(4, np.float32),
    quality=np.zeros(4, np.float32),
)


def _judged(concept=_NONE, brand=_NONE, series=_NONE, values=(_NONE, _NONE), items=(0, 1, 2, 3, _NONE)):
    asked = Meanings(np.array([concept]), np.array([brand]), np.array([series]), np.array([values]))
    return relevance_of(_TRUTH, asked, np.array([items]))[0].tolist()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"concept": 0}, [1, 1, 0, 1, 0]),
        ({"concept": 1}, [1, 1, 1, 1, 0]),
        ({"concept": 0, "brand": 0}, [1, 0.2, 0, 1, 0]),
        ({"concept": 0, "values": (7, _NONE)}, [1, 1, 0, 0.2, 0]),
        ({"concept": 0, "values": (7, 9)}, [1, 0.6, 0, 0.2, 0]),
        ({"concept": 0, "brand": 0, "values": (7, _NONE)}, [1, 0.2 + 0.8 / 3, 0, 0.2 + 1.6 / 3, 0]),
        ({"brand": 0}, [1, 0, 1, 1, 0]),
        ({"brand": 0, "series": 2}, [0.6, 0, 1, 0.6, 0]),
        ({"concept": 0, "series": 1}, [0.2, 1, 0, 0.2, 0]),
    ],
    ids=["noun", "hypernym", "brand", "attribute", "two attributes", "brand outweighs attribute", "brand alone", "series", "noun + series"],
)
def test_relevance_by_constraints_met(asked, expected):
    assert _judged(**asked) == pytest.approx(expected)


def test_taste_prefers_the_favourite_brand_the_right_price_and_the_repeated_interest():
    def liking(**change):
        plain = {
            "latent": np.zeros((1, 2), np.float32),
            "favourite": np.array([[5]]),
            "price_z": np.zeros(1, np.float32),
            "interest": np.full((1, 5), 9),
            "department_liking": np.zeros((1, 1), np.float32),
        }
        return taste_of(_TRUTH, Tastes(**{**plain, **change}), np.array([0]), np.array([[0]]))[0, 0]

    plain = liking()
    assert liking(favourite=np.array([[0]])) > plain
    assert liking(latent=np.array([[1.0, 0.0]], np.float32)) > plain == liking(latent=np.array([[0.0, 1.0]], np.float32))
    assert liking(price_z=np.ones(1, np.float32)) < plain
    first, last = (np.full((1, 5), 9) for _ in range(2))
    first[0, 0], last[0, 4] = 0, 0
    assert liking(interest=first) > liking(interest=last) > plain
    assert 0 < plain < 1


def test_words_with_several_meanings_accept_each(shop):
    """The fruit and the phone brand; the computer's mouse and the cat's."""
    brand = np.array(shop.catalogue.table["brand"].to_pylist())
    leaf = np.array(shop.catalogue.table["leaf_category"].to_pylist())
    queries = [q for q in ("apple", "mouse", "case", "iron") if q in set(shop.log.query)]
    assert {"apple", "mouse"} <= set(queries)
    good = dict(zip(queries, shop.oracle.good(queries, np.tile(np.arange(len(leaf)), (len(queries), 1))), strict=True))
    assert good["apple"].tolist() == ((leaf == "apples") | (brand == "Apple")).tolist()
    assert set(leaf[good["mouse"]]) == {"computer mice", "cat toys"}


def test_hypernyms_synonyms_and_abbreviations_reach_their_leaf_categories(shop):
    leaf = np.array(shop.catalogue.table["leaf_category"].to_pylist())
    department = np.array(shop.catalogue.table["category"].to_pylist())
    asked = {
        "tv": leaf == "televisions",
        "fridge": leaf == "refrigerators",
        "tee": leaf == "t-shirts",
        "electronics": department == "Electronics",
    }
    known = [query for query in asked if query in set(shop.log.query)]
    assert len(known) >= 3
    for query, good in zip(known, shop.oracle.good(known, np.tile(np.arange(len(leaf)), (len(known), 1))), strict=True):
        assert (good == asked[query]).all(), query


def test_every_query_of_the_log_is_known_and_utility_is_at_most_relevance(shop):
    queries, first = np.unique(shop.log.query, return_index=True)
    items = np.random.default_rng(0).integers(-1, len(shop.catalogue), (len(queries), 20))
    relevance = shop.oracle.relevance(queries, items)
    utility = shop.oracle.utility(shop.log.user[first], queries, items)
    assert relevance.dtype == utility.dtype == np.float32
    assert relevance.shape == utility.shape == items.shape
    assert relevance.min() >= 0
    assert relevance.max() <= 1
    assert (utility <= relevance).all()
    assert (relevance[items < 0] == 0).all()
    assert ((relevance >= 0.5) == shop.oracle.good(queries, items)).all()


def test_large_questions_are_answered_in_blocks_alike(shop, monkeypatch):
    queries = shop.log.query[:60]
    items = np.random.default_rng(0).integers(-1, len(shop.catalogue), (60, 11))
    whole = shop.oracle.utility(shop.log.user[:60], queries, items)
    monkeypatch.setattr("tfebr.data.simulator.oracle._PAIRS_AT_ONCE", 100)
    assert (shop.oracle.utility(shop.log.user[:60], queries, items) == whole).all()


def test_unknown_query_user_item_or_folder_is_named(shop, tmp_path):
    known, user, item = shop.log.query[0], shop.log.user[0], np.array([[0]])
    with pytest.raises(DataError, match=r"row 1: unknown query 'zzz'"):
        shop.oracle.relevance([known, "zzz"], np.zeros((2, 1), int))
    with pytest.raises(DataError, match=r"unknown user 'nobody'"):
        shop.oracle.utility(["nobody"], [known], item)
    with pytest.raises(DataError, match=r"`item_rows` should lie from -1"):
        shop.oracle.utility([user], [known], item + len(shop.catalogue))
    with pytest.raises(DataError, match=r"`item_rows` should be \[1, k\]"):
        shop.oracle.relevance([known], np.array([0]))
    with pytest.raises(DataError, match="no complete oracle"):
        Oracle.read(tmp_path)


def test_lexicon_is_consistent():
    lexicon = read_lexicon()
    assert len(lexicon.departments) >= 10
    assert len(lexicon.leaves) >= 100
    assert len({leaf.name for leaf in lexicon.leaves}) == len(lexicon.leaves)
    for leaf in lexicon.leaves:
        assert 2 <= len(leaf.nouns) <= 4, leaf.name
        assert set(leaf.kinds) <= set(lexicon.kinds), leaf.name
        assert len(leaf.kinds) <= 3, leaf.name
    spellings = [spelling for values in lexicon.kinds.values() for value in values for spelling in value]
    assert len(set(spellings)) == len(spellings), "no attribute word stands for two values"
