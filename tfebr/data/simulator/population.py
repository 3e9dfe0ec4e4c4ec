"""The people who search: profiles, the tastes that go with them, and when each comes back for what."""

import dataclasses

import numpy as np
import pyarrow as pa

from tfebr.data.simulator.settings import SimulatorConfig
from tfebr.data.simulator.shop import LATENT, Shop
from tfebr.data.simulator.titles import numbered
from tfebr.data.simulator.truth import INTERESTS, Tastes

PROFILE = {
    "age": ("18-24", "25-34", "35-44", "45-59", "60+"),
    "gender": ("f", "m", "unknown"),
    "power": ("low", "medium", "high"),
    "region": ("north", "south", "east", "west", "centre", "islands"),
}
_PROFILE_SHARES = {
    "age": (0.18, 0.3, 0.24, 0.19, 0.09),
    "gender": (0.46, 0.42, 0.12),
    "power": (0.35, 0.45, 0.2),
    "region": (0.25, 0.22, 0.2, 0.15, 0.13, 0.05),
}
# How a user's searches divide over the leaf categories of interest.
_INTEREST_SHARES = np.array([0.42, 0.25, 0.16, 0.1, 0.07])
_IMPULSE = 0.15  # sessions about something outside the user's interests
_STAY = 0.85  # requests of a session that stay with its leaf category
_START = 1_704_067_200  # 2024-01-01 00:00 UTC
_HOURS = np.array([2, 1, 1, 1, 1, 2, 3, 5, 6, 7, 8, 8, 9, 8, 7, 7, 7, 8, 10, 12, 13, 12, 8, 4], np.float64)
_BLOCK = 50_000


@dataclasses.dataclass(frozen=True)
class Users:
    """Profiles as codes into `PROFILE` ([users] each), tastes, and [users] share of all sessions."""

    profile: dict[str, np.ndarray]
    tastes: Tastes
    activity: np.ndarray

    def table(self) -> pa.Table:
        """`user_id` and the profile columns as strings."""
        columns = {name: pa.array(PROFILE[name]).take(pa.array(codes)) for name, codes in self.profile.items()}
        return pa.table({"user_id": numbered("u", len(self.activity)), **columns})


@dataclasses.dataclass(frozen=True)
class Visits:
    """Who asks when about what: [requests] user row, time in seconds since 1970 (ascending), leaf category in mind."""

    user: np.ndarray
    time: np.ndarray
    leaf: np.ndarray


def draw_users(shop: Shop, config: SimulatorConfig, rng: np.random.Generator) -> Users:
    """Draws people whose tastes follow their profiles with much of their own: a profile alone tells little, a history more."""
    n, departments = config.users, len(shop.lexicon.departments)
    profile = {name: rng.choice(len(values), n, p=_PROFILE_SHARES[name]).astype(np.int8) for name, values in PROFILE.items()}
    by_profile = {name: rng.normal(0, 0.6, (len(values), LATENT + departments)) for name, values in PROFILE.items()}
    common = sum((by_profile[name][codes] for name, codes in profile.items()), np.zeros((n, LATENT + departments)))
    latent = (common[:, :LATENT] + rng.normal(0, 0.8, (n, LATENT))).astype(np.float32)
    latent /= np.float32(np.sqrt(LATENT * (4 * 0.36 + 0.64)))
    liking = common[:, LATENT:] + rng.normal(0, 0.7, (n, departments))
    price_z = np.array([-0.7, 0.0, 0.8])[profile["power"]] + rng.normal(0, 0.4, n)
    activity = np.exp(rng.normal(0, 1.2, n))
    tastes = Tastes(
        latent=latent,
        favourite=_favourites(shop, latent, rng),
        price_z=price_z.astype(np.float32),
        interest=_interests(shop, liking, rng),
        department_liking=(1 / (1 + np.exp(-liking))).astype(np.float32),
    )
    return Users(profile, tastes, activity / activity.sum())


def draw_visits(shop: Shop, users: Users, config: SimulatorConfig, rng: np.random.Generator) -> Visits:
    """Sessions of one and more requests, long-tailed over users, with the hours of a day; most return to a user's interests."""
    n = config.requests
    sizes = rng.geometric(0.42, n)
    sessions = int(np.searchsorted(np.cumsum(sizes), n)) + 1
    session = np.repeat(np.arange(sessions), sizes[:sessions])[:n]
    who = _pick(users.activity, sessions, rng)
    hour = rng.choice(24, sessions, p=_HOURS / _HOURS.sum())
    begin = rng.integers(0, config.days, sessions) * 86_400 + hour * 3_600 + rng.integers(0, 3_600, sessions)
    leaf = _leaf_in_mind(shop, users, who, rng)
    gap = np.cumsum(rng.exponential(45.0, n)).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(sizes[: sessions - 1])])
    time = _START + begin[session] + gap - gap[first][session]
    order = np.argsort(time, kind="stable")
    stays = rng.random(n) < _STAY
    in_mind = np.where(stays, leaf[session], _leaf_in_mind(shop, users, who[session], rng))
    return Visits(who[session][order].astype(np.int32), time[order], in_mind[order].astype(np.int16))


def _leaf_in_mind(shop: Shop, users: Users, who: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    slot = _pick(_INTEREST_SHARES, len(who), rng)
    impulse = rng.random(len(who)) < _IMPULSE
    return np.where(impulse, _pick(shop.leaf_popularity, len(who), rng), users.tastes.interest[who, slot])


def _interests(shop: Shop, liking: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[users, INTERESTS] leaf categories without repetition, drawn by popularity and liking (Gumbel top-k)."""
    chosen = []
    for start in range(0, len(liking), _BLOCK):
        block = liking[start : start + _BLOCK]
        weight = np.log(shop.leaf_popularity) + 1.2 * block[:, shop.leaf_department]
        weight = weight.astype(np.float32) - np.log(rng.exponential(1, weight.shape).astype(np.float32))
        chosen.append(np.argsort(-weight, axis=1)[:, :INTERESTS].astype(np.int16))
    return np.concatenate(chosen)


def _favourites(shop: Shop, latent: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[users, departments] the most appealing of three brands met in the department, where leading brands are met more."""
    favourite = np.zeros((len(latent), len(shop.lexicon.departments)), np.int32)
    department = shop.leaf_department[shop.leaf]
    for d in range(favourite.shape[1]):
        met = rng.choice(shop.brand[department == d], (len(latent), 3))
        appeal = np.einsum("nd,nkd->nk", latent, shop.brand_latent[met])
        favourite[:, d] = met[np.arange(len(latent)), appeal.argmax(axis=1)]
    return favourite


def _pick(shares: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    cumulative = np.cumsum(shares)
    return np.searchsorted(cumulative / cumulative[-1], rng.random(count), side="right")
