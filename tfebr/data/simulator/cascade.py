"""The person before the page: position-biased examination, click, cart, order, and clicks that mean nothing."""

import numpy as np

from tfebr.data.simulator.population import Users
from tfebr.data.simulator.queries import Requests
from tfebr.data.simulator.settings import SimulatorConfig
from tfebr.data.simulator.shop import Shop
from tfebr.data.simulator.truth import RELEVANT_FROM, relevance_of, taste_of
from tfebr.data.stage import Stage

# P(examined at rank r) = r ** -eta; eta between 0.5 and 1 in studies of result lists (Joachims et al. 2007, Wang et al. 2018).
_ETA = 0.7
_CLICK = 0.43  # of examined items that are fully relevant and liked
_NOT_IN_MIND = 0.3  # appeal of items that answer the words but not what this person means by them
_SATISFIED = 0.35  # a click may end the search (dynamic Bayesian network model, Chapelle and Zhang 2009)
_CART, _ORDER = 0.35, 0.35


def act(
    shop: Shop, users: Users, config: SimulatorConfig, user: np.ndarray, requests: Requests, page: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """`Stage` of every shown item, int8 [n, page_size]; `page` is [n, page_size] item rows, -1 where nothing is shown."""
    shown = page >= 0
    relevance = relevance_of(shop.truth, requests.asked, page)
    meant = np.where(shop.leaf[page] == requests.leaf[:, None], 1.0, _NOT_IN_MIND)
    liking = taste_of(shop.truth, users.tastes, user, page)
    examined = np.arange(1, page.shape[1] + 1) ** -_ETA
    click_chance = _CLICK * examined * np.square(relevance) * meant * (0.1 + 0.9 * liking) * shown

    clicked = rng.random(page.shape) < click_chance
    satisfied = clicked & (rng.random(page.shape) < _SATISFIED * (0.5 + liking))
    before = np.cumsum(satisfied, axis=1) - satisfied
    clicked &= before == 0
    carted = clicked & (rng.random(page.shape) < _CART * (0.3 + liking) * relevance)
    ordered = carted & (rng.random(page.shape) < _ORDER * (0.3 + liking))
    noise = _noisy_clicks(shop, config, page, (relevance < RELEVANT_FROM) & shown, examined, clicked.sum(), rng)
    stage = np.where(clicked | noise, Stage.CLICKED, Stage.UNCLICKED)
    stage = np.where(carted, Stage.CARTED, stage)
    return np.where(ordered, Stage.ORDERED, stage).astype(np.int8)


def _noisy_clicks(
    shop: Shop,
    config: SimulatorConfig,
    page: np.ndarray,
    irrelevant: np.ndarray,
    examined: np.ndarray,
    genuine: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Clicks from curiosity or by mistake, in proportion to examination and to a weak power of popularity."""
    weight = examined * irrelevant * shop.popularity[page] ** 0.15
    wanted = config.noisy_click_share / (1 - config.noisy_click_share) * genuine
    chance = np.minimum(weight * wanted / max(weight.sum(), 1e-9), 0.8)
    return rng.random(page.shape) < chance
