"""From what a user has in mind to the words typed: synonyms, hypernyms, attributes, brands, typos, word order."""

import dataclasses

import numpy as np
import pyarrow as pa

from tfebr.data.simulator.lexicon import QUERY_FILLERS
from tfebr.data.simulator.population import Users
from tfebr.data.simulator.shop import Shop
from tfebr.data.simulator.titles import pick_noun
from tfebr.data.simulator.truth import Meanings
from tfebr.data.simulator.words import join_phrases, misspellings

# Share; what names the leaf category (0 nothing, 1 noun, 2 group hypernym, 3 department hypernym); brand; series; number of attributes.
_PATTERNS = np.array(
    [
        [0.24, 1, 0, 0, 0],
        [0.05, 2, 0, 0, 0],
        [0.02, 3, 0, 0, 0],
        [0.22, 1, 0, 0, 1],
        [0.09, 1, 0, 0, 2],
        [0.03, 2, 0, 0, 1],
        [0.15, 1, 1, 0, 0],
        [0.08, 1, 1, 0, 1],
        [0.05, 0, 1, 0, 0],
        [0.04, 0, 1, 1, 0],
        [0.03, 1, 0, 1, 0],
    ]
)
_PLURAL, _OTHER_SPELLING, _TYPO, _FILLER = 0.25, 0.35, 0.07, 0.05
_MISSPELLINGS = 3
# Slots: brand, series, two attributes, noun, filler.
_ORDERS = np.array([[5, 0, 1, 2, 3, 4], [0, 4, 1, 2, 3, 5], [4, 2, 3, 0, 1, 5], [2, 0, 1, 4, 3, 5]])
_ORDER_SHARES = (0.72, 0.1, 0.1, 0.08)


@dataclasses.dataclass(frozen=True)
class Requests:
    """What was asked: the words, what they mean, and what a term match can read in them. All [n], -1 where absent.

    Attributes:
        text: the query.
        leaf: the leaf category in mind; the words may name more than that one.
        asked: what the words ask for.
        read_concept, read_brand, read_series: what the production search reads, -1 when a misspelt word stays unread;
            brand and series as phrase ids. `read_values`: [n, 2] phrase ids.
        read_category: the concept as far as the search knows its category, from clicks on the same words if not from reading.
    """

    text: pa.Array
    leaf: np.ndarray
    asked: Meanings
    read_concept: np.ndarray
    read_brand: np.ndarray
    read_series: np.ndarray
    read_values: np.ndarray
    read_category: np.ndarray


class QueryWriter:
    """Writes queries for leaf categories in mind.

    A query starts from an item that the user might want: popular in its leaf category (Zipf), preferably of the user's favourite brand.
    The pattern decides which of its facts are typed. Head, torso and tail follow from the products of these choices.
    """

    def __init__(self, shop: Shop, users: Users, rng: np.random.Generator):
        self._shop, self._users = shop, users
        popular_first = np.argsort(-shop.popularity)
        self._wanted = popular_first[np.argsort(shop.leaf[popular_first], kind="stable")]
        self._count = np.bincount(shop.leaf, minlength=len(shop.leaf_department))
        self._start = np.cumsum(self._count) - self._count
        self._fillers = np.array([shop.vocabulary.add(phrase) for phrase in QUERY_FILLERS], np.int32)
        self._misspelt = self._misspell(rng)
        self._phrases = pa.array(shop.vocabulary.phrases)

    def write(self, user: np.ndarray, leaf: np.ndarray, rng: np.random.Generator) -> Requests:
        """One query for each (user row, leaf category)."""
        shop, n = self._shop, len(user)
        item = self._wanted_item(user, leaf, rng)
        pattern = _PATTERNS[np.searchsorted(np.cumsum(_PATTERNS[:, 0]), rng.random(n) * _PATTERNS[:, 0].sum(), side="right")].astype(int)
        concept = self._named(pattern[:, 1], leaf, rng)
        brand = np.where(pattern[:, 2] > 0, shop.brand[item], -1)
        series = np.where(pattern[:, 3] > 0, shop.series[item], -1)
        values = self._asked_values(item, pattern[:, 4], rng)

        form = np.where(rng.random(n) < _PLURAL, shop.concepts.plural[concept], shop.concepts.word[concept])
        spelled = shop.value_word[values, (rng.random((n, 2)) < _OTHER_SPELLING).astype(int)]
        slots = np.column_stack(
            [
                np.where(brand >= 0, shop.brand_word[brand], -1),
                np.where(series >= 0, shop.series_word[series], -1),
                np.where(values >= 0, spelled, -1),
                np.where(concept >= 0, form, -1),
                np.where(rng.random(n) < _FILLER, rng.choice(self._fillers, n), -1),
            ]
        )
        read = slots.copy()
        category = self._mistype(slots, read, concept, rng)
        order = _ORDERS[rng.choice(len(_ORDERS), n, p=_ORDER_SHARES)]
        return Requests(
            text=join_phrases(self._phrases, np.take_along_axis(slots, order, axis=1)),
            leaf=leaf,
            asked=Meanings(concept, brand, series, values),
            read_concept=np.where(read[:, 4] >= 0, concept, -1),
            read_brand=read[:, 0],
            read_series=read[:, 1],
            read_values=read[:, 2:4],
            read_category=category,
        )

    def _wanted_item(self, user: np.ndarray, leaf: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Of two items drawn with a Zipf law over the leaf category's ranks, the favourite brand's, else the first."""
        count, start = self._count[leaf], self._start[leaf]
        first, second = (self._wanted[start + zipf_ranks(count, rng.random(len(leaf)))] for _ in range(2))
        favourite = self._users.tastes.favourite[user, self._shop.leaf_department[leaf]]
        return np.where(self._shop.brand[second] == favourite, second, first)

    def _named(self, how: np.ndarray, leaf: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        concepts, shop = self._shop.concepts, self._shop
        which = rng.integers(0, 2, len(leaf))
        group = concepts.of_group[shop.leaf_group[leaf]]
        department = concepts.of_department[shop.leaf_department[leaf]]
        noun = pick_noun(shop, leaf, rng)
        every = np.arange(len(leaf))
        names = [np.full(len(leaf), -1), noun]
        names += [np.where(two[every, which] >= 0, two[every, which], two[:, 0]) for two in (group, department)]
        return np.choose(how, names)

    def _asked_values(self, item: np.ndarray, asked: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Up to `asked` different attribute values of the item, the item's leading attributes more often."""
        have = self._shop.values[item].astype(np.int32)
        weight = np.where(have >= 0, rng.random(have.shape) * [1.0, 1.3, 1.0, 0.8], -1.0)
        values = np.take_along_axis(have, np.argsort(-weight, axis=1)[:, :2], axis=1)
        return np.where(np.arange(2) < asked[:, None], values, -1)

    def _mistype(self, slots: np.ndarray, read: np.ndarray, concept: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Misspells one word of some queries in `slots`; clears in `read` what spelling correction misses. Returns `read_category`."""
        row = np.flatnonzero(rng.random(len(slots)) < _TYPO)
        column = (rng.random((len(row), 5)) * (slots[row, :5] >= 0)).argmax(axis=1)
        which = rng.integers(0, _MISSPELLINGS, len(row))
        slip = self._misspelt[slots[row, column], which]
        row, column, which, slip = (a[slip >= 0] for a in (row, column, which, slip))
        slots[row, column] = slip
        # The shop's spelling correction knows the first slip of each word only, and clicks have taught it the category of the second.
        read[row[which > 0], column[which > 0]] = -1
        category = concept.copy()
        category[row[(which > 1) & (column == 4)]] = -1
        return category

    def _misspell(self, rng: np.random.Generator) -> np.ndarray:
        """[phrases, _MISSPELLINGS] phrase ids of slips that are no other phrase of the shop, -1 where there is none."""
        vocabulary = self._shop.vocabulary
        phrases = list(vocabulary.phrases)
        known, table = set(phrases), np.full((len(phrases), _MISSPELLINGS), -1, np.int32)
        for i, phrase in enumerate(phrases):
            for j, slip in enumerate(misspellings(phrase, _MISSPELLINGS, rng)):
                if slip not in known:
                    table[i, j] = vocabulary.add(slip)
        return table


def zipf_ranks(count: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Ranks from 0 below `count`, with a probability that falls about as 1 / (rank + 1)."""
    return np.minimum(np.exp(uniform * np.log1p(count)).astype(np.int64) - 1, count - 1)
