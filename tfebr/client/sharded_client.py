"""Asks all shards of a catalogue at the same time and merges what they find, as if they were one servable."""

import concurrent.futures
import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfebr.client.client import Client, Result
from tfebr.client.forks import PerProcess
from tfebr.client.transports import ServerError, UnavailableError
from tfebr.errors import ConfigError, RequestError
from tfebr.infrastructure.ties import order_of_results

# Calls from several threads share the workers, and one slow shard must not hold up the calls to the others.
_CALLS_AT_ONCE = 16
# Seconds before shards that answer from different sets are asked again; twice as many each time, up to the second number.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5


class ShardedClient:
    """Asks the shards that `tfebr export --shards N` wrote; may be shared between threads and processes; also a context manager.

    The merged results of exact shards are those of the whole catalogue in one servable: best score first, and among scores that are
    equal up to `tfebr.infrastructure.ties.TIE_TOLERANCE` the item that comes first in the catalogue. A tie may be cut at the last place.

    Answers are merged only when they come from shards that were published together: while servers change to new versions one after the
    other, a call waits until all have, at most until its deadline.

    Args:
        shards: one for each shard, in their order: an address for `Client`, where shard I is asked as the model `NAME-shard-I`; or a
            `Client`, for a server that calls it otherwise.
        name: NAME, where there are addresses; without it each is asked for the only model that its server has.
        protocol: "rest" or "grpc", of the addresses.
        timeout: seconds for a whole call, whatever the timeouts of the clients.

    Raises:
        ConfigError: no shard, or what `Client` raises.
    """

    def __init__(self, shards: Sequence[str | Client], name: str | None = None, protocol: str = "rest", timeout: float = 10.0):
        if isinstance(shards, str) or not shards:
            raise ConfigError(f"`shards` must be a list with an address or a Client for each shard. Received: {shards!r}.")
        if name == "":
            raise ConfigError("`name` must be the name of the model whose shards these are, or None. Received: an empty name.")
        names = [None if name is None else f"{name}-shard-{i}" for i in range(len(shards))]
        clients = [s if isinstance(s, Client) else Client(s, n, protocol, timeout) for s, n in zip(shards, names, strict=True)]
        self._clients = clients
        self._labels = [f"shard {i} of {len(shards)}" + (f" ({s})" if isinstance(s, str) else "") for i, s in enumerate(shards)]
        self._timeout = timeout
        self._default_k: tuple[tuple[int | None, ...], int] | None = None
        workers = functools.partial(concurrent.futures.ThreadPoolExecutor, _CALLS_AT_ONCE * len(clients), "tfebr-shards")
        self._pool: PerProcess[concurrent.futures.ThreadPoolExecutor] = PerProcess(workers)

    def query(self, text: str | Sequence[str], *args: Any, k: int | Sequence[int] | None = None, **kwargs: Any) -> list[Result]:
        """Searches all shards for one or several queries of one user; takes what `Client.query` takes.

        Args:
            text: a query, or several for the same user and history.
            k: how many results, of each query where it is a list; by default as many as the servable's `serving_default` gives. Shards are
                asked for this many, which needs a servable that takes `k`.
            *args, **kwargs: as in `Client.query`.

        Returns:
            One result for each query, in order.

        Raises:
            RequestError, ServerError: of the first shard that fails, naming it; a ServerError when one does not answer in time.
            UnavailableError: until the deadline, shards answered from different published sets.
        """
        end = time.monotonic() + self._timeout
        given = kwargs if k is None else {**kwargs, "k": k}
        found = self._of_one_set(lambda client: client.query(text, *args, **given), end)
        if not found[0]:
            return []
        versions = tuple(results[0].version for results in found)
        depth = self._results_by_default(versions, end) if k is None else k
        depths = [depth] * len(found[0]) if isinstance(depth, int | np.integer) else list(depth)
        return [_merged(results, int(most)) for results, most in zip(zip(*found, strict=True), depths, strict=True)]

    def filter_columns(self) -> dict[str, str]:
        """What a filter can name, as `Client.filter_columns`; the same in every shard."""
        return self._clients[0].filter_columns()

    def close(self) -> None:
        """Closes the connections, those of clients that were given, too."""
        pool = self._pool.made()
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        for client in self._clients:
            client.close()

    def __enter__(self) -> "ShardedClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _of_one_set(self, ask: Any, end: float) -> list[list[Result]]:
        """What `ask` gives for each client, all from shards that were published together."""
        pause = _FIRST_PAUSE
        while True:
            found = self._all(ask, end)
            sets = [results[0].shard_set if results else None for results in found]
            if len(set(sets)) == 1:
                return found
            if time.monotonic() + pause >= end:
                said = "; ".join(
                    f"{label}: {shard_set or 'none'}, version {results[0].version}"
                    for label, shard_set, results in zip(self._labels, sets, found, strict=True)
                )
                raise UnavailableError(
                    f"The shards were not published together, so that their results cannot be merged. Published set of {said}. "
                    "Where this lasts, export or refresh all shards again, and see that every server has the newest version."
                )
            for client in self._clients:
                client.look_again()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _all(self, ask: Any, end: float) -> list[Any]:
        """What `ask` gives for each client; all at the same time, and before `end`."""
        calls = [self._pool.get().submit(ask, client) for client in self._clients]
        left = max(0.0, end - time.monotonic())
        done, late = concurrent.futures.wait(calls, left, return_when=concurrent.futures.FIRST_EXCEPTION)
        for label, call in zip(self._labels, calls, strict=True):
            error = call.exception() if call in done else None
            if error is not None:
                _cancel(late)
                if not isinstance(error, RequestError | ServerError):
                    raise error
                raise (RequestError if isinstance(error, RequestError) else ServerError)(f"{label}: {error}") from error
        if late:
            _cancel(late)
            slow = ", ".join(label for label, call in zip(self._labels, calls, strict=True) if call in late)
            raise ServerError(f"{slow}: no answer within {self._timeout:g} seconds. Allow more time, or see what holds the server up.")
        return [call.result() for call in calls]

    def _results_by_default(self, versions: tuple[int | None, ...], end: float) -> int:
        """How many results `serving_default` of these versions has a place for; a shard may hold fewer items than that."""
        known = self._default_k
        if known is None or known[0] != versions:
            most = max(ids.shape[1] for ids in self._all(lambda client: client.predict(query=[""])["ids"], end))
            self._default_k = known = versions, most
        return known[1]


def _merged(results: Sequence[Result], most: int) -> Result:
    best: dict[str, float] = {}
    for result in results:
        for item_id, score in zip(result.ids, result.scores, strict=True):
            best[item_id] = max(score, best.get(item_id, score))
    ids, scores = list(best), np.array(list(best.values()), np.float64)
    order = order_of_results(scores)[:most]
    # Inside a tie the places are exchanged, not the scores: those of a result never rise.
    return dataclasses.replace(results[0], ids=[ids[i] for i in order], scores=np.sort(scores)[::-1][:most].tolist())


def _cancel(calls: set[concurrent.futures.Future]) -> None:
    for call in calls:
        call.cancel()
