"""Histories hold what came strictly before the request, newest first, as a plain loop finds it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfebr.data.history import windows

# Few users and few seconds, so that events of the same second are common.
EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), max_size=30)
REQUESTS = st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 9)), max_size=12)
OFFSETS = st.sampled_from([0, -5, 1_700_000_000])


def arrays(pairs, offset) -> tuple[np.ndarray, np.ndarray]:
    users, times = (np.array([p[i] for p in pairs], np.int64) for i in (0, 1))
    return users, times + offset


def found(requests, events, most, offset=0) -> list[list[int]]:
    order, view = windows(*arrays(requests, offset), *arrays(events, offset), most)
    assert sorted(order) == list(range(len(events)))
    return [view.newest_first(np.arange(len(events))[order], r).tolist() for r in range(len(requests))]


@given(REQUESTS, EVENTS, st.integers(1, 6), OFFSETS)
def test_equals_a_plain_loop(requests, events, most, offset):
    for (user, time), history in zip(requests, found(requests, events, most, offset), strict=True):
        earlier = [(t, i) for i, (u, t) in enumerate(events) if u == user and t < time]
        assert history == [i for _, i in sorted(earlier, reverse=True)[:most]]


@given(REQUESTS, EVENTS, st.integers(1, 6))
def test_nothing_at_or_after_the_request_and_nobody_elses(requests, events, most):
    for (user, time), history in zip(requests, found(requests, events, most), strict=True):
        assert all(events[i][1] < time for i in history)
        assert all(events[i][0] == user for i in history)
        assert len(history) <= most
        assert user >= 0 or not history


@given(REQUESTS, EVENTS, st.integers(0, 9))
def test_later_events_change_no_history(requests, events, cut):
    before = [e for e in events if e[1] < cut]
    early = [r for r in requests if r[1] <= cut]
    assert [[events[i] for i in h] for h in found(early, events, 5)] == [[before[i] for i in h] for h in found(early, before, 5)]


def test_same_second_is_not_before():
    assert found([(0, 5), (0, 6)], [(0, 5), (0, 4)], 5) == [[1], [0, 1]]


def test_users_do_not_mix_at_extreme_times():
    assert found([(1, 0), (0, 10**10)], [(0, 10**10), (1, 0), (0, 0)], 5) == [[], [2]]


@given(REQUESTS, EVENTS, st.integers(1, 6), st.sampled_from([10**3, 10**6, 10**9]))
def test_the_unit_of_time_changes_no_history(requests, events, most, parts):
    start = 1_700_000_000
    fine = [[(user, (start + time) * parts) for user, time in pairs] for pairs in (requests, events)]
    assert found(*fine, most) == found(requests, events, most)


EXTREMES = st.sampled_from([-(2**63), -(2**62), -1, 0, 1, 2**31, 1_704_067_200_000_000_000, 2**62, 2**63 - 1])


@given(
    st.lists(st.tuples(EXTREMES.filter(lambda user: user >= 0), EXTREMES), max_size=20),
    st.lists(st.tuples(EXTREMES.filter(lambda user: user >= -1), EXTREMES), max_size=10),
    st.integers(1, 4),
)
def test_no_user_code_and_no_time_overflows(events, requests, most):
    for (user, time), history in zip(requests, found(requests, events, most), strict=True):
        earlier = [(t, i) for i, (u, t) in enumerate(events) if u == user and t < time]
        assert history == [i for _, i in sorted(earlier, reverse=True)[:most]]
