"""The log's statistics stay where those of real logs are; bounds are wide, so that they pin behaviour and not a draw."""

import dataclasses
import re
from collections import Counter, defaultdict

import numpy as np
import pytest


def _tokens(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def _slope(counts: np.ndarray, ranks: slice) -> float:
    """The exponent of counts by rank, fitted on log-log axes."""
    ordered = np.sort(counts)[::-1]
    rank = np.arange(1, len(ordered) + 1)[ranks]
    return -np.polyfit(np.log(rank), np.log(ordered[ranks]), 1)[0]


def _relevant_clicks(shop) -> np.ndarray:
    log, clicked = shop.log, shop.log.stage > 0
    return shop.oracle.good(log.query[log.request[clicked]], log.item[clicked][:, None])[:, 0]


def test_click_through_falls_with_position(shop):
    rate = [(shop.log.stage[shop.log.position == p] > 0).mean() for p in range(20)]
    assert rate[0] > 1.5 * rate[1] > 1.5 * rate[4] > 1.5 * rate[10]
    assert rate[0] > 8 * rate[19] > 0


def test_clicks_carts_and_orders_are_as_rare_as_in_real_shops(shop):
    clicked = np.unique(shop.log.request[shop.log.stage > 0])
    ordered = np.unique(shop.log.request[shop.log.stage == 3])
    carts, orders = ((shop.log.stage >= least).sum() for least in (2, 3))
    assert 0.4 < len(clicked) / len(shop.log.query) < 0.6
    assert 0.05 < len(ordered) / len(clicked) < 0.15
    assert orders < carts / 2 < (shop.log.stage > 0).sum() / 4


def test_popularity_follows_a_zipf_law(shop):
    clicks = np.bincount(shop.log.item[shop.log.stage > 0], minlength=len(shop.catalogue))
    impressions = np.bincount(shop.log.item, minlength=len(shop.catalogue))
    assert 0.5 < _slope(clicks, slice(5, 800)) < 1.2
    assert 0.5 < _slope(impressions, slice(5, 1500)) < 1.2


def test_queries_have_a_head_and_a_long_tail(shop):
    count = np.sort(np.unique(shop.log.query, return_counts=True)[1])[::-1]
    assert count[: len(count) // 100].sum() > 0.15 * count.sum()
    assert 0.5 < (count == 1).mean() < 0.9


def test_users_are_long_tailed_and_come_back(shop):
    count = np.sort(np.unique(shop.log.user, return_counts=True)[1])[::-1]
    assert count[: len(count) // 10].sum() > 0.25 * count.sum()
    assert np.median(count) >= 3


def test_term_match_misses_a_share_of_the_relevant_items(shop):
    rng = np.random.default_rng(0)
    titles = [_tokens(title) for title in shop.catalogue.titles]
    queries = shop.log.query[rng.choice(len(shop.log.query), 250)]
    missed = []
    for query, good in zip(queries, shop.oracle.good(queries, np.tile(np.arange(len(titles)), (len(queries), 1))), strict=True):
        relevant = np.flatnonzero(good)
        assert len(relevant), f"{query!r} asks for something that the shop has"
        missed.append(np.mean([titles[item].isdisjoint(_tokens(query)) for item in relevant]))
    assert 0.1 < np.mean(missed) < 0.4


def test_items_without_a_shared_term_are_shown_and_clicked_at_times(shop):
    clicked = np.flatnonzero(shop.log.stage > 0)
    good = _relevant_clicks(shop)
    titles = shop.catalogue.titles
    shares = [_tokens(titles[shop.log.item[i]]).isdisjoint(_tokens(shop.log.query[shop.log.request[i]])) for i in clicked[good]]
    assert 0.05 < np.mean(shares) < 0.3


def test_exploration_share_lets_unmatched_items_in(run_shop, modest):
    unmatched = []
    for share in (0.0, 0.3):
        explored = run_shop(dataclasses.replace(modest, requests=5_000, exploration_share=share))
        log, titles = explored.log, [_tokens(title) for title in explored.catalogue.titles]
        query = [_tokens(text) for text in log.query]
        sample = np.random.default_rng(0).choice(len(log.item), 20_000)
        unmatched.append(np.mean([titles[log.item[i]].isdisjoint(query[log.request[i]]) for i in sample]))
    assert unmatched[1] > 1.2 * unmatched[0]


def test_history_predicts_the_next_order(shop):
    """Earlier clicks of the same user hold the ordered item's brand and leaf category more often than another user's."""
    log = shop.log
    brand = np.array(shop.catalogue.table["brand"].to_pylist())
    leaf = np.array(shop.catalogue.table["leaf_category"].to_pylist())
    clicks: dict[str, list[tuple[int, int]]] = {}
    for i in np.flatnonzero(log.stage > 0):
        clicks.setdefault(log.user[log.request[i]], []).append((log.request[i], log.item[i]))
    people = np.random.default_rng(0).permutation(list(clicks))
    stranger = dict(zip(people, np.roll(people, 1), strict=True))

    def overlap(user: str, request: int, item: int) -> tuple[bool, bool]:
        earlier = [clicked for at, clicked in clicks[user] if log.time[at] < log.time[request]]
        return brand[item] in brand[earlier], leaf[item] in leaf[earlier]

    orders = [(log.user[log.request[i]], log.request[i], log.item[i]) for i in np.flatnonzero(log.stage == 3)]
    own = np.mean([overlap(user, request, item) for user, request, item in orders], axis=0)
    others = np.mean([overlap(stranger[user], request, item) for user, request, item in orders], axis=0)
    assert (own > 2 * others).all(), (own, others)


def test_among_relevant_items_the_order_has_the_brand_that_the_user_clicks_most(shop):
    """The same with the query held fixed: the ordered item against all relevant items of several brands on its page."""
    log = shop.log
    brand, department = (np.array(shop.catalogue.table[name].to_pylist()) for name in ("brand", "category"))
    good = shop.oracle.good(log.query[log.request], log.item[:, None])[:, 0]
    starts = np.searchsorted(log.request, np.arange(len(log.query) + 1))
    clicked: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    gains = []
    for request, user in enumerate(log.user):
        rows = np.arange(starts[request], starts[request + 1])
        relevant = rows[good[rows]]
        brands = brand[log.item[relevant]]
        for row in relevant[log.stage[relevant] == 3]:
            history = clicked[user, department[log.item[row]]]
            if history and len(set(brands)) > 1:
                most = history.most_common(1)[0][0]
                gains.append(float(brand[log.item[row]] == most) - np.mean(brands == most))
        for row in rows[log.stage[rows] > 0]:
            clicked[user, department[log.item[row]]][brand[log.item[row]]] += 1
    assert len(gains) > 300
    assert np.mean(gains) > 3 * np.std(gains) / np.sqrt(len(gains))


def test_noisy_click_share_is_the_share_of_clicks_that_it_adds(run_shop, modest):
    quiet, noisy = (run_shop(dataclasses.replace(modest, requests=12_000, noisy_click_share=share)) for share in (0.0, 0.4))
    assert 1 - _relevant_clicks(quiet).mean() < 0.08
    assert 1 - _relevant_clicks(noisy).mean() > 0.3
    assert (noisy.log.stage > 0).sum() == pytest.approx((quiet.log.stage > 0).sum() / 0.6, rel=0.1)


def test_oracle_agrees_with_the_clicks(shop):
    log = shop.log
    sample = np.random.default_rng(0).choice(len(log.item), 60_000, replace=False)
    query, user = log.query[log.request[sample]], log.user[log.request[sample]]
    relevance = shop.oracle.relevance(query, log.item[sample][:, None])[:, 0]
    utility = shop.oracle.utility(user, query, log.item[sample][:, None])[:, 0]
    clicked, ordered = log.stage[sample] > 0, log.stage[sample] == 3
    assert relevance[clicked].mean() > 1.15 * relevance[~clicked].mean()
    assert utility[ordered].mean() > utility[clicked].mean() > 1.2 * utility[~clicked].mean()
    stranger = np.random.default_rng(1).permutation(user)
    assert utility[ordered].mean() > 1.15 * shop.oracle.utility(stranger[ordered], query[ordered], log.item[sample][ordered, None]).mean()
