"""The shop's production search: term match, popularity and category expansion, with errors of its own."""

import numpy as np

from tfebr.data.simulator.queries import Requests, zipf_ranks
from tfebr.data.simulator.settings import SimulatorConfig
from tfebr.data.simulator.shop import Shop
from tfebr.data.simulator.titles import Titles

# What the ranking adds up: matches by field, the predicted category, popularity, and what nobody can explain.
_NOUN, _BRAND, _SERIES, _VALUE, _CATEGORY, _POPULARITY, _NOISE = 1.0, 0.9, 1.0, 0.45, 0.7, 0.25, 0.35
_WRONG_CATEGORY = 0.05
_QUANTILES = 64


class ProductionSearch:
    """What was live when the log was written; neither the oracle nor a perfect ranker.

    Candidates come from the most selective posting list of the words that it could read (noun and brand, noun and attribute, noun, brand),
    from items whose title matches the noun's last word only, and from the predicted leaf category, popular items first. It knows no
    synonyms: what term match misses enters through the category, lower down, or through exploration.
    """

    def __init__(self, shop: Shop, titles: Titles, config: SimulatorConfig):
        self._shop, self._titles, self._config = shop, titles, config
        self._popularity = _standardised(np.log(shop.popularity)).astype(np.float32)
        self._stride = len(shop.vocabulary) + 1
        self._postings = self._index()
        self._leaves = _browse_lists(shop.leaf, shop.popularity)
        self._departments = _browse_lists(shop.leaf_department[shop.leaf], shop.popularity)
        weight = shop.concepts.leaves * shop.leaf_popularity
        cdf = np.cumsum(weight, axis=1) / weight.sum(axis=1, keepdims=True)
        middle = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
        # [concepts, _QUANTILES]: drawing a column at random draws a leaf category in proportion to its searches.
        self._leaf_quantiles = np.stack([np.searchsorted(row, middle) for row in cdf])

    def pages(self, requests: Requests, rng: np.random.Generator) -> np.ndarray:
        """Item rows shown for each request, [n, page_size], the first position first; -1 after the last when fewer were found."""
        category = self._predicted_category(requests.read_category, rng)
        candidates = np.sort(self._candidates(requests, category, rng), axis=1)
        score = self._score(requests, category, candidates, rng)
        score[:, 1:][candidates[:, 1:] == candidates[:, :-1]] = -np.inf
        score[candidates < 0] = -np.inf
        best = np.argsort(-score, axis=1)[:, : self._config.page_size]
        page = np.where(np.take_along_axis(score, best, axis=1) > -np.inf, np.take_along_axis(candidates, best, axis=1), -1)
        self._explore(page, category, rng)
        return page

    def _index(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Sorted keys, and each key's start and length in one array of item rows, popular items first."""
        popular_first = np.argsort(-self._shop.popularity).astype(np.int32)
        nouns, brand = self._titles.nouns[popular_first], self._titles.brand[popular_first]
        series, values = self._titles.series[popular_first], self._titles.values[popular_first]
        noun, always = nouns[:, 0], np.ones(len(popular_first), bool)
        fields = [(self._head_key(self._shop.concepts.head[noun]), always)]
        fields += [(self._key(-1, phrase), phrase >= 0) for phrase in (brand, series)]
        fields += [(self._key(nouns[:, slot], -1), nouns[:, slot] >= 0) for slot in range(3)]
        fields += [(self._key(nouns[:, slot], brand), (nouns[:, slot] >= 0) & (brand >= 0)) for slot in range(2)]
        fields += [(self._key(noun, value), value >= 0) for value in values.T]
        keys = np.concatenate([key[there] for key, there in fields])
        items = np.concatenate([popular_first[there] for _, there in fields])
        order = np.argsort(keys, kind="stable")
        unique, start, count = np.unique(keys[order], return_index=True, return_counts=True)
        return unique, start, count, items[order]

    def _key(self, concept: np.ndarray | int, phrase: np.ndarray | int) -> np.ndarray:
        """A number for (concept, phrase), where -1 means "any"."""
        return (np.asarray(concept, np.int64) + 1) * self._stride + phrase + 1

    def _head_key(self, phrase: np.ndarray) -> np.ndarray:
        return self._key(len(self._shop.concepts.word), phrase)

    def _find(self, key: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(start, length) of each key's posting list; length 0 where it is not wanted or not there."""
        unique, start, count, _ = self._postings
        at = np.minimum(np.searchsorted(unique, key), len(unique) - 1)
        return start[at], np.where(wanted & (unique[at] == key), count[at], 0)

    def _candidates(self, requests: Requests, category: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        noun, brand, page = requests.read_concept, requests.read_brand, self._config.page_size
        named = noun >= 0
        single = self._find(self._key(noun, -1), named)
        ways = [
            self._find(self._key(-1, requests.read_series), requests.read_series >= 0),
            self._find(self._key(noun, brand), named & (brand >= 0)),
            *(self._find(self._key(noun, value), named & (value >= 0)) for value in requests.read_values.T),
            single,
            self._find(self._key(-1, brand), brand >= 0),
        ]
        start, count = (column.copy() for column in ways[-1])
        for way_start, way_count in reversed(ways[:-1]):
            start, count = np.where(way_count > 0, way_start, start), np.where(way_count > 0, way_count, count)
        items = self._postings[3]
        head = self._find(self._head_key(self._shop.concepts.head[noun]), named)
        return np.concatenate(
            [
                _take(items, start, count, page, rng),
                _take(items, *single, page // 2, rng),
                _take(items, *head, page // 4, rng),
                self._browse(category, page, rng),
            ],
            axis=1,
        )

    def _predicted_category(self, concept: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[n] the concept whose leaf categories are expanded, -1 for none: the noun's, at times a wrong one."""
        wrong = rng.random(len(concept)) < _WRONG_CATEGORY
        anything = rng.integers(0, len(self._leaf_quantiles), len(concept))
        return np.where((concept >= 0) & wrong, anything, concept)

    def _browse(self, category: np.ndarray, width: int, rng: np.random.Generator) -> np.ndarray:
        """[n, about 1.5 width] popular items of the category's leaf categories, then of their departments to fill a short page."""
        column = rng.integers(0, _QUANTILES, (len(category), 4))
        leaf = np.repeat(self._leaf_quantiles[category[:, None], column], -(-width // 4), axis=1)
        browsed = []
        for (items, start, count), of in ((self._leaves, leaf), (self._departments, self._shop.leaf_department[leaf[:, ::2]])):
            browsed.append(items[start[of] + zipf_ranks(count[of], rng.random(of.shape))])
        return np.where(category[:, None] >= 0, np.concatenate(browsed, axis=1), -1)

    def _score(self, requests: Requests, category: np.ndarray, items: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        titles, shop = self._titles, self._shop
        noun, brand, series = requests.read_concept[:, None], requests.read_brand[:, None], requests.read_series[:, None]
        score = _NOISE * rng.standard_normal(items.shape, dtype=np.float32)
        score += np.float32(_POPULARITY) * self._popularity[items]
        nouns = [titles.nouns[:, slot][items] for slot in range(3)]
        score += np.float32(_NOUN) * ((noun >= 0) & ((nouns[0] == noun) | (nouns[1] == noun) | (nouns[2] == noun)))
        score += np.float32(_BRAND) * ((brand >= 0) & (titles.brand[items] == brand))
        score += np.float32(_SERIES) * ((series >= 0) & (titles.series[items] == series))
        for slot in range(4):
            shown = titles.values[:, slot][items]
            for asked in requests.read_values.T:
                score += np.float32(_VALUE) * ((asked[:, None] >= 0) & (shown == asked[:, None]))
        expanded = shop.concepts.leaves[category[:, None], shop.leaf[items]] & (category >= 0)[:, None]
        score += np.float32(_CATEGORY) * expanded
        return score

    def _explore(self, page: np.ndarray, category: np.ndarray, rng: np.random.Generator) -> None:
        """Replaces some slots by items from the category, popular or not; by any item at all where no category is known."""
        row, column = np.nonzero((rng.random(page.shape, dtype=np.float32) < self._config.exploration_share) & (page >= 0))
        concept = category[row]
        leaf = self._leaf_quantiles[concept, rng.integers(0, _QUANTILES, len(row))]
        items, start, count = self._leaves
        within = items[start[leaf] + (count[leaf] * rng.random(len(row))).astype(np.int64)]
        item = np.where(concept >= 0, within, rng.integers(0, len(self._shop.leaf), len(row)))
        _, first = np.unique(row * len(self._shop.leaf) + item, return_index=True)
        new = np.zeros(len(row), bool)
        new[first] = True
        new &= ~(page[row] == item[:, None]).any(axis=1)
        page[row[new], column[new]] = item[new]


def _take(items: np.ndarray, start: np.ndarray, count: np.ndarray, width: int, rng: np.random.Generator) -> np.ndarray:
    """[n, width] items of posting lists: the first half the most popular, the rest by a Zipf law; -1 past a list's end."""
    top = width // 2
    rank = np.broadcast_to(np.arange(width), (len(start), width)).copy()
    rest = np.maximum(count - top, 1)[:, None]
    # A list that fits is taken whole.
    drawn = top + zipf_ranks(np.broadcast_to(rest, (len(start), width - top)), rng.random((len(start), width - top)))
    rank[:, top:] = np.where((count > width)[:, None], drawn, rank[:, top:])
    inside = rank < count[:, None]
    return np.where(inside, items[np.where(inside, start[:, None] + rank, 0)], -1)


def _browse_lists(kind: np.ndarray, popularity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Item rows by kind, popular first within each, and each kind's start and length."""
    popular_first = np.argsort(-popularity)
    count = np.bincount(kind)
    return popular_first[np.argsort(kind[popular_first], kind="stable")], np.cumsum(count) - count, count


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()
