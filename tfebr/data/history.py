"""Histories: what a user did and asked strictly before a request, newest first."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Windows:
    """For each request, a slice of the events of its user: `events[start:stop]`, oldest first, all strictly before the request."""

    start: np.ndarray
    stop: np.ndarray

    def newest_first(self, values: np.ndarray, request: int) -> np.ndarray:
        """The window of one request out of `values` (aligned with the events), newest event first."""
        return values[self.start[request] : self.stop[request]][::-1]


def windows(
    request_users: np.ndarray, request_times: np.ndarray, event_users: np.ndarray, event_times: np.ndarray, most: int
) -> tuple[np.ndarray, Windows]:
    """Finds each request's latest events in one pass of sorting and searching.

    Args:
        request_users: int64 [requests], user codes from 0; -1 (unknown user) has no history.
        request_times: int64 [requests], seconds.
        event_users: int64 [events], user codes from 0.
        event_times: int64 [events], seconds.
        most: how many events a window holds at most.

    Returns:
        (order, windows): `windows` slices the events in the order `order` (by user, then time, then position in the input).
    """
    order = np.lexsort((np.arange(len(event_times)), event_times, event_users))
    # By rank: a key of user and time is below (events + requests)^2 then, whatever the codes and the times are.
    users, times = (np.unique(np.concatenate(both)) for both in ((event_users, request_users), (event_times, request_times)))
    event_keys = np.searchsorted(users, event_users[order]) * len(times) + np.searchsorted(times, event_times[order])
    first_keys = np.searchsorted(users, request_users) * len(times)
    # "left": an event at the very second of the request is not before it.
    stop = np.searchsorted(event_keys, first_keys + np.searchsorted(times, request_times), side="left")
    begin_of_user = np.searchsorted(event_keys, first_keys, side="left")
    start = np.maximum(begin_of_user, stop - most)
    unknown = request_users < 0
    return order, Windows(np.where(unknown, 0, start), np.where(unknown, 0, stop))
