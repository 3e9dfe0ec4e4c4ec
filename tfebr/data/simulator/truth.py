"""What is relevant to a meaning, and what a person likes: two functions of the shop's and the users' true properties."""

import dataclasses

import numpy as np

RELEVANT_FROM = 0.5
_KIND_ALONE = 0.2  # relevance of the right kind of item that meets none of the constraints
# How strongly a user's interests are liked, the most searched leaf category first.
_LIKING = np.array([1.0, 0.8, 0.65, 0.5, 0.4], np.float32)
INTERESTS = len(_LIKING)


@dataclasses.dataclass(frozen=True)
class Truth:
    """True properties of items.

    Attributes:
        concept_leaves: [concepts, leaves] bool, the leaf categories that a noun or hypernym may mean.
        leaf_department: [leaves] department of each leaf category.
        brand_latent: [brands, dim] float32, what a user's latent taste is compared with.
        leaf, brand, series: [items]; `values`: [items, 4] attribute values, -1 padded.
        price_z: [items] place among the leaf category's prices, in standard deviations.
        quality: [items] standard normal.
    """

    concept_leaves: np.ndarray
    leaf_department: np.ndarray
    brand_latent: np.ndarray
    leaf: np.ndarray
    brand: np.ndarray
    series: np.ndarray
    values: np.ndarray
    price_z: np.ndarray
    quality: np.ndarray


@dataclasses.dataclass(frozen=True)
class Tastes:
    """True tastes of users.

    Attributes:
        latent: [users, dim] float32; its product with a brand's latent vector is the brand's general appeal.
        favourite: [users, departments] the brand that the user comes back to in each department.
        price_z: [users] the preferred place among a leaf category's prices, in standard deviations.
        interest: [users, INTERESTS] leaf categories that the user searches again and again, the most searched first.
        department_liking: [users, departments] float32 in [0, 1].
    """

    latent: np.ndarray
    favourite: np.ndarray
    price_z: np.ndarray
    interest: np.ndarray
    department_liking: np.ndarray


@dataclasses.dataclass(frozen=True)
class Meanings:
    """What queries ask for: [n] concept (noun or hypernym), brand and series, [n, 2] attribute values; -1 where nothing is asked."""

    concept: np.ndarray
    brand: np.ndarray
    series: np.ndarray
    values: np.ndarray


def relevance_of(truth: Truth, asked: Meanings, items: np.ndarray) -> np.ndarray:
    """Relevance of items [n, k] (rows, -1 gives 0) to meanings [n], float32 [n, k] in [0, 1]; relevant from `RELEVANT_FROM`.

    The concept's leaf categories decide first: another leaf category is 0. A query without a concept names a brand, and the brand
    decides. Then 0.2 + 0.8 x (weight of constraints met / weight of constraints), where brand and series weigh two and an attribute
    one; 1 without constraints. So "red brand dress" still accepts the brand's blue dress, but no other brand's red one.
    """
    of_brand, weight = truth.brand[items] == asked.brand[:, None], np.zeros(len(items), np.float32)
    met = np.zeros(items.shape, np.float32)
    for wanted, has in ((asked.brand, of_brand), (asked.series, truth.series[items] == asked.series[:, None])):
        weight += np.float32(2) * (wanted >= 0)
        met += np.float32(2) * (has & (wanted >= 0)[:, None])
    have = [truth.values[:, slot][items] for slot in range(truth.values.shape[1])]
    for wanted in asked.values.T:
        weight += wanted >= 0
        has = np.logical_or.reduce([value == wanted[:, None] for value in have])
        met += has & (wanted >= 0)[:, None]
    kind = np.where((asked.concept >= 0)[:, None], truth.concept_leaves[asked.concept[:, None], truth.leaf[items]], of_brand)
    share = np.where(weight[:, None] > 0, met / np.maximum(weight, 1)[:, None], np.float32(1))
    graded = np.float32(_KIND_ALONE) + np.float32(1 - _KIND_ALONE) * share
    return graded * (kind & (items >= 0))


def taste_of(truth: Truth, tastes: Tastes, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """How much users [n] like items [n, k], apart from any query, as float32 [n, k] in (0, 1).

    The logistic function of: brand (general appeal, and the favourite of the department), price (distance from the preferred price),
    category (repeated interest, else the liking of the department) and the item's quality.
    """
    leaf, brand = truth.leaf[items], truth.brand[items]
    department, person = truth.leaf_department[leaf], users[:, None]
    logit = np.float32(0.6) * np.einsum("nd,nkd->nk", tastes.latent[users], truth.brand_latent[brand])
    logit += np.float32(1.8) * (brand == tastes.favourite[person, department])
    logit -= np.float32(0.5) * np.square(truth.price_z[items] - tastes.price_z[person])
    category = np.float32(0.5) * tastes.department_liking[person, department]
    for slot, liking in enumerate(_LIKING):
        category = np.maximum(category, (leaf == tastes.interest[users, slot][:, None]) * liking)
    logit += np.float32(1.6) * category + np.float32(0.5) * truth.quality[items] - np.float32(0.6)
    return 1 / (1 + np.exp(-logit))
