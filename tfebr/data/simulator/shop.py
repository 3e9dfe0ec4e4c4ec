"""The simulated shop: its words as concepts, its brands and series, and every item's true attributes."""

import dataclasses

import numpy as np

from tfebr.data.simulator.lexicon import AMBIGUOUS_BRANDS, Lexicon, read_lexicon
from tfebr.data.simulator.settings import SimulatorConfig
from tfebr.data.simulator.truth import Truth
from tfebr.data.simulator.words import Vocabulary, invent_names

LATENT = 8
NOUNS = 4  # nouns per leaf category at most, the first used most
_NOUN_SHARES = np.array([0.52, 0.28, 0.13, 0.07])


@dataclasses.dataclass(frozen=True)
class Concepts:
    """Nouns and hypernyms: what each may mean, and how it is written.

    Attributes:
        leaves: [concepts, leaves] bool, the leaf categories that a concept may mean; an ambiguous noun means several.
        word, plural: [concepts] phrase ids of the two forms, equal where there is no plural.
        head: [concepts] phrase id of the last word, by which a partial term match finds an item.
        of_leaf: [leaves, NOUNS] concepts that name a leaf, -1 padded; `noun_cdf` is the cumulative share of each.
        of_group, of_department: hypernyms of each, [n, 2], -1 padded.
        brand: [concepts] the brand that is written like the noun, or -1.
    """

    leaves: np.ndarray
    word: np.ndarray
    plural: np.ndarray
    head: np.ndarray
    of_leaf: np.ndarray
    noun_cdf: np.ndarray
    of_group: np.ndarray
    of_department: np.ndarray
    brand: np.ndarray


@dataclasses.dataclass(frozen=True)
class Shop:
    """A catalogue's truth, as arrays over items, brands, series, attribute values and leaf categories.

    Attributes:
        leaf_department, leaf_group, leaf_popularity: [leaves]; popularity sums to 1.
        brand_word: [brands] phrase id.
        brand_latent: [brands, LATENT] float32, what a user's latent taste is compared with.
        series_word: [series] phrase id.
        value_word: [values, 2] phrase ids of an attribute value's usual and other spelling, equal where there is one.
        leaf, brand, series: [items]; `values`: [items, 4] attribute values (sub-type, then the leaf's kinds), -1 padded.
        price, price_z: [items] price, and its place among its leaf's prices in standard deviations.
        quality: [items] standard normal; `popularity`: [items] 1 / popularity rank, the Zipf law with exponent 1.
    """

    lexicon: Lexicon
    vocabulary: Vocabulary
    concepts: Concepts
    leaf_department: np.ndarray
    leaf_group: np.ndarray
    leaf_popularity: np.ndarray
    brand_word: np.ndarray
    brand_latent: np.ndarray
    series_word: np.ndarray
    value_word: np.ndarray
    leaf: np.ndarray
    brand: np.ndarray
    series: np.ndarray
    values: np.ndarray
    price: np.ndarray
    price_z: np.ndarray
    quality: np.ndarray
    popularity: np.ndarray

    @property
    def truth(self) -> Truth:
        """The properties that relevance and taste depend on."""
        return Truth(
            self.concepts.leaves, self.leaf_department, self.brand_latent,
            self.leaf, self.brand, self.series, self.values, self.price_z, self.quality,
        )  # fmt: skip


def open_shop(config: SimulatorConfig, rng: np.random.Generator) -> Shop:
    """Draws a shop of `config.items` items. Larger shops have more brands, series and sub-types per leaf category."""
    lexicon, vocabulary = read_lexicon(), Vocabulary()
    leaf_department = np.array([leaf.department for leaf in lexicon.leaves], np.int16)
    leaf_group = np.array([leaf.group for leaf in lexicon.leaves], np.int16)
    leaves = len(leaf_department)
    leaf_popularity = _zipf(leaves, 0.7)[rng.permutation(leaves)]

    value_start, value_word = _attribute_values(lexicon, vocabulary)
    concepts = _concepts(lexicon, vocabulary)
    brands = int(np.clip(config.items // 60, 60, 6000))
    names = [*AMBIGUOUS_BRANDS, *invent_names(brands - len(AMBIGUOUS_BRANDS), rng, vocabulary)]
    brand_word = np.array([vocabulary.add(name) for name in names], np.int32)
    brand_department = rng.integers(0, len(lexicon.departments), brands).astype(np.int16)
    brand_department[: len(AMBIGUOUS_BRANDS)] = [lexicon.departments.index(d) for d in AMBIGUOUS_BRANDS.values()]
    spread = np.arange(len(lexicon.departments)) + len(AMBIGUOUS_BRANDS)
    brand_department[spread] = np.arange(len(lexicon.departments))
    for same, name in enumerate(AMBIGUOUS_BRANDS):
        concepts.brand[concepts.word == vocabulary.add(name)] = same
    brand_tier = np.exp(rng.normal(0, 0.35, brands))
    brand_latent = rng.normal(0, 1, (brands, LATENT)).astype(np.float32)

    # More items than the leaf's share of searches: shops list a long tail.
    share = leaf_popularity**0.7 / (leaf_popularity**0.7).sum()
    series_count = max(config.items // 25, leaves)
    series_leaf = np.sort(np.concatenate([np.arange(leaves), rng.choice(leaves, series_count - leaves, p=share)]))
    series_brand = _brands_of_series(leaf_department[series_leaf], brand_department, rng)
    series_word = np.array([vocabulary.add(name) for name in invent_names(series_count, rng, vocabulary)], np.int32)

    n = config.items
    leaf = rng.permutation(np.concatenate([np.arange(leaves), rng.choice(leaves, n - leaves, p=share)])).astype(np.int16)
    first, count = np.searchsorted(series_leaf, leaf), np.bincount(series_leaf, minlength=leaves)[leaf]
    item_series = (first + (count * rng.random(n) ** 1.5).astype(np.int64)).astype(np.int32)
    brand = series_brand[item_series]
    values = _item_values(lexicon, value_start, leaf, int(np.clip(n // (leaves * 400), 0, 12)), rng)

    quality = rng.normal(0, 1, n).astype(np.float32)
    deviation = np.log(brand_tier[brand]) + rng.normal(0, 0.35, n) + 0.1 * quality
    median = np.array([one.price for one in lexicon.leaves])
    price = np.maximum(np.round(median[leaf] * np.exp(deviation), 2), 0.5)
    rank = np.argsort(np.argsort(-(0.5 * quality + rng.normal(0, 1, n))))
    return Shop(
        lexicon, vocabulary, concepts, leaf_department, leaf_group, leaf_popularity, brand_word, brand_latent,
        series_word, value_word, leaf, brand, item_series, values, price, (deviation / 0.5).astype(np.float32), quality, 1.0 / (rank + 1.0),
    )  # fmt: skip


def _zipf(n: int, exponent: float) -> np.ndarray:
    weights = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


def _attribute_values(lexicon: Lexicon, vocabulary: Vocabulary) -> tuple[dict[str, tuple[int, int]], np.ndarray]:
    """Each kind's (first value, number of values), and the two spellings of every value."""
    start: dict[str, tuple[int, int]] = {}
    rows: list[tuple[int, int]] = []
    for kind, values in lexicon.kinds.items():
        start[kind] = (len(rows), len(values))
        rows += [(vocabulary.add(spellings[0]), vocabulary.add(spellings[-1])) for spellings in values]
    return start, np.array(rows, np.int32)


def _concepts(lexicon: Lexicon, vocabulary: Vocabulary) -> Concepts:
    leaves = lexicon.leaves
    known: dict[str, int] = {}
    masks: list[np.ndarray] = []

    def concept(phrase: str, mask: np.ndarray) -> int:
        index = known.setdefault(phrase, len(masks))
        if index == len(masks):
            masks.append(np.zeros(len(leaves), bool))
        masks[index] |= mask
        return index

    def padded(rows: list[list[int]], width: int) -> np.ndarray:
        return np.array([row + [-1] * (width - len(row)) for row in rows], np.int32)

    one = np.eye(len(leaves), dtype=bool)
    department, group = np.array([leaf.department for leaf in leaves]), np.array([leaf.group for leaf in leaves])
    of_leaf = padded([[concept(noun, one[i]) for noun in leaf.nouns] for i, leaf in enumerate(leaves)], NOUNS)
    of_group = padded([[concept(h, group == g) for h in names[:2]] for g, names in enumerate(lexicon.group_hypernyms)], 2)
    of_department = padded([[concept(h, department == d) for h in names[:2]] for d, names in enumerate(lexicon.department_hypernyms)], 2)
    shares = _NOUN_SHARES * (of_leaf >= 0)
    word = np.array([vocabulary.add(phrase) for phrase in known], np.int32)
    # Only names of single things get a plural form; hypernyms such as "electronics" have none.
    names = {noun for leaf in leaves for noun in leaf.nouns}
    plural = np.array([vocabulary.add(_plural(phrase)) if phrase in names else vocabulary.add(phrase) for phrase in known], np.int32)
    head = np.array([vocabulary.add(phrase.split()[-1]) for phrase in known], np.int32)
    cdf = np.cumsum(shares, axis=1) / shares.sum(axis=1, keepdims=True)
    return Concepts(np.array(masks), word, plural, head, of_leaf, cdf, of_group, of_department, np.full(len(masks), -1, np.int32))


def _plural(phrase: str) -> str:
    if phrase.endswith(("s", "mice", "tv", "hdd", "spf")):
        return phrase
    if phrase.endswith("knife"):
        return phrase[:-2] + "ves"
    if phrase.endswith("y") and phrase[-2] not in "aeiou":
        return phrase[:-1] + "ies"
    return phrase + ("es" if phrase.endswith(("sh", "ch", "x")) else "s")


def _brands_of_series(department: np.ndarray, brand_department: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A brand per series: nearly always one at home in the department, leading brands far more often."""
    brand = np.empty(len(department), np.int32)
    for d in np.unique(department):
        rows = np.flatnonzero(department == d)
        home = np.flatnonzero(brand_department == d)
        guests = rng.choice(len(brand_department), max(len(home) // 5, 1), replace=False)
        pool = np.concatenate([home, guests])
        weights = np.concatenate([_zipf(len(home), 0.8), 0.1 * _zipf(len(guests), 0.8)])
        brand[rows] = rng.choice(pool, len(rows), p=weights / weights.sum())
    return brand


def _item_values(lexicon: Lexicon, start: dict[str, tuple[int, int]], leaf: np.ndarray, types: int, rng: np.random.Generator) -> np.ndarray:
    values = np.full((len(leaf), 4), -1, np.int16)
    if types > 1:
        pick = (types * rng.random(len(leaf)) ** 1.5).astype(np.int16)
        values[:, 0] = np.where(pick > 0, start["type"][0] + pick - 1, -1)
    kinds = np.zeros((len(lexicon.leaves), 3, 2), np.int64)
    for i, one in enumerate(lexicon.leaves):
        for slot, kind in enumerate(one.kinds):
            kinds[i, slot] = start[kind]
    for slot in range(3):
        first, count = kinds[leaf, slot].T
        # Common values are common everywhere, but which one leads differs by leaf.
        pick = ((count * rng.random(len(leaf)) ** 1.6).astype(np.int64) + leaf % 3) % np.maximum(count, 1)
        values[:, slot + 1] = np.where(count > 0, first + pick, -1)
    return values
