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
    first = min(event_times.min(initial=0), request_times.min(initial=0))
    span = max(event_times.max(initial=0), request_times.max(initial=0)) - first + 1
    event_keys = event_users[order].astype(np.int64) * span + (event_times[order] - first)
    # "left": an event at the very second of the request is not before it.
    stop = np.searchsorted(event_keys, request_users.astype(np.int64) * span + (request_times - first), side="left")
    begin_of_user = np.searchsorted(event_keys, request_users.astype(np.int64) * span, side="left")
    start = np.maximum(begin_of_user, stop - most)
    unknown = request_users < 0
    return order, Windows(np.where(unknown, 0, start), np.where(unknown, 0, stop))
