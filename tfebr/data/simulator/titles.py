"""What the shop writes about its items: keyword-pile titles, shop names and the catalogue table."""

import dataclasses

import numpy as np
import pyarrow as pa

from tfebr.data.catalogue import Catalogue
from tfebr.data.simulator.lexicon import TITLE_FILLERS
from tfebr.data.simulator.shop import Shop
from tfebr.data.simulator.words import invent_names, join_phrases

_BRAND_SHOWN, _VALUE_SHOWN, _SERIES_SHOWN = 0.92, 0.85, 0.9
_SECOND_NOUN, _HYPERNYM, _MODEL, _FILLER, _PLURAL, _OTHER_SPELLING = 0.25, 0.1, 0.35, 0.3, 0.25, 0.25
_MODELS = 400
# Slots: brand, series, sub-type, three values, noun, second noun, hypernym, model number, filler.
_ORDERS = np.array(
    [
        [0, 1, 2, 3, 6, 4, 5, 9, 7, 8, 10],
        [0, 1, 9, 3, 4, 2, 6, 5, 7, 10, 8],
        [3, 2, 6, 4, 0, 1, 5, 7, 9, 8, 10],
        [10, 0, 2, 6, 7, 3, 4, 5, 1, 9, 8],
    ]
)


@dataclasses.dataclass(frozen=True)
class Titles:
    """What a term match can find: phrase ids or concepts that stand in an item's title, -1 where they do not.

    Attributes:
        nouns: [items, 3] concepts: noun, second noun, hypernym.
        brand, series: [items] phrase ids.
        values: [items, 4] phrase ids, in the spelling used.
        phrases: [items, 11] phrase ids of the whole title, in order; models and fillers are phrases too.
    """

    nouns: np.ndarray
    brand: np.ndarray
    series: np.ndarray
    values: np.ndarray
    phrases: np.ndarray


def write_titles(shop: Shop, rng: np.random.Generator) -> Titles:
    """Draws a title for every item."""
    n, concepts = len(shop.leaf), shop.concepts
    nouns = np.full((n, 3), -1, np.int32)
    nouns[:, 0] = pick_noun(shop, shop.leaf, rng)
    second = pick_noun(shop, shop.leaf, rng)
    nouns[:, 1] = np.where((rng.random(n) < _SECOND_NOUN) & (second != nouns[:, 0]), second, -1)
    hypernym = concepts.of_group[shop.leaf_group[shop.leaf], 0]
    nouns[:, 2] = np.where((rng.random(n) < _HYPERNYM) & (hypernym >= 0), hypernym, -1)
    brand = np.where(rng.random(n) < _BRAND_SHOWN, shop.brand_word[shop.brand], -1)
    series = np.where(rng.random(n) < _SERIES_SHOWN, shop.series_word[shop.series], -1)
    spelled = shop.value_word[shop.values, (rng.random(shop.values.shape) < _OTHER_SPELLING).astype(int)]
    values = np.where((shop.values >= 0) & (rng.random(shop.values.shape) < _VALUE_SHOWN), spelled, -1)

    form = np.where(rng.random((n, 3)) < _PLURAL, concepts.plural[nouns], concepts.word[nouns])
    form = np.where(nouns >= 0, form, -1)
    models = np.array([shop.vocabulary.add(_model(rng)) for _ in range(_MODELS)], np.int32)
    fillers = np.array([shop.vocabulary.add(phrase) for phrase in TITLE_FILLERS], np.int32)
    model = np.where(rng.random(n) < _MODEL, rng.choice(models, n), -1)
    filler = np.where(rng.random(n) < _FILLER, rng.choice(fillers, n), -1)
    slots = np.column_stack([brand, series, values, form, model, filler])
    phrases = np.take_along_axis(slots, _ORDERS[rng.choice(len(_ORDERS), n, p=[0.5, 0.2, 0.2, 0.1])], axis=1)
    return Titles(nouns, brand, series, values, phrases.astype(np.int32))


def pick_noun(shop: Shop, leaf: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A noun concept for each leaf, in proportion to how usual it is."""
    slot = (rng.random(len(leaf))[:, None] >= shop.concepts.noun_cdf[leaf]).sum(axis=1)
    return shop.concepts.of_leaf[leaf, np.minimum(slot, shop.concepts.of_leaf.shape[1] - 1)]


def catalogue_of(shop: Shop, titles: Titles, rng: np.random.Generator) -> Catalogue:
    """The catalogue: `item_id`, `title`, `brand`, `leaf_category`, `category` (department), `shop`, `price`."""
    names = list(shop.vocabulary.phrases)
    for word in (*shop.brand_word, *shop.series_word):
        names[word] = names[word].capitalize()
    phrases, n = pa.array(names), len(shop.leaf)
    leaf_names = [leaf.name for leaf in shop.lexicon.leaves]
    type_names = [names[word] for word in shop.value_word[:, 0]]
    # Sub-type t of leaf l is leaf category l * (types + 1) + t + 1; plain l is t = -1.
    types = len(shop.lexicon.kinds["type"])
    leaf_categories = pa.array([leaf if t < 0 else f"{type_names[t]} {leaf}" for leaf in leaf_names for t in range(-1, types)])
    market = max(len(shop.brand_word) // 3, 5)
    sellers = [f"{names[word]} store" for word in shop.brand_word]
    sellers += [f"{name.capitalize()} market" for name in invent_names(market, rng, shop.vocabulary)]
    seller = np.where(rng.random(n) < 0.4, shop.brand, len(shop.brand_word) + (market * rng.random(n) ** 2).astype(np.int64))
    return Catalogue(
        pa.table(
            {
                "item_id": numbered("i", n),
                "title": join_phrases(phrases, titles.phrases),
                "brand": phrases.take(pa.array(shop.brand_word[shop.brand])),
                "leaf_category": leaf_categories.take(pa.array(shop.leaf.astype(np.int64) * (types + 1) + shop.values[:, 0] + 1)),
                "category": pa.array(shop.lexicon.departments).take(pa.array(shop.leaf_department[shop.leaf])),
                "shop": pa.array(sellers).take(pa.array(seller)),
                "price": pa.array(shop.price),
            }
        ),
        source="simulator",
    )


def numbered(prefix: str, count: int, first: int = 0, width: int = 7) -> pa.Array:
    """Ids such as "i0001234" for `first` to `first + count - 1`."""
    return pa.array([f"{prefix}{i:0{width}d}" for i in range(first, first + count)], pa.string())


def _model(rng: np.random.Generator) -> str:
    letters = "".join(chr(97 + c) for c in rng.integers(0, 26, rng.integers(1, 3)))
    return f"{letters}{rng.choice([100, 10, 50]) * rng.integers(1, 30)}"
