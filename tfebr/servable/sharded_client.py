"""Asks all shards of a catalogue at the same time and merges what they find, as if they were one servable."""

import concurrent.futures
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfebr.errors import ConfigError, RequestError
from tfebr.servable.client import Client, Result
from tfebr.servable.transports import ServerError
from tfebr.ties import order_of_results

# Calls from several threads share the workers, and one slow shard must not hold up the calls to the others.
_CALLS_AT_ONCE = 16


class ShardedClient:
    """Asks the shards that `tfebr export --shards N` wrote; may be shared between threads; also a context manager.

    The merged results of exact shards are those of the whole catalogue in one servable: best score first, and among scores that are
    equal up to `tfebr.ties.TIE_TOLERANCE` the item that comes first in the catalogue. A tie may be cut at the last place.

    Args:
        shards: one for each shard, in their order: an address for `Client`, where shard I is asked as the model `NAME-shard-I`; or a
            `Client`, for a server that calls it otherwise.
        name: NAME, where there are addresses.
        protocol: "rest" or "grpc", of the addresses.
        timeout: seconds for a whole call, whatever the timeouts of the clients.

    Raises:
        ConfigError: no shard, an address without a name, or what `Client` raises.
    """

    def __init__(self, shards: Sequence[str | Client], name: str = "", protocol: str = "rest", timeout: float = 10.0):
        if isinstance(shards, str) or not shards:
            raise ConfigError(f"`shards` must be a list with an address or a Client for each shard. Received: {shards!r}.")
        if not name and any(isinstance(shard, str) for shard in shards):
            raise ConfigError("`name` is needed with addresses: shard I is asked as the model NAME-shard-I.")
        clients = [s if isinstance(s, Client) else Client(s, f"{name}-shard-{i}", protocol, timeout) for i, s in enumerate(shards)]
        self._clients = clients
        self._labels = [f"shard {i} of {len(shards)}" + (f" ({s})" if isinstance(s, str) else "") for i, s in enumerate(shards)]
        self._timeout = timeout
        self._default_k: int | None = None
        self._pool = concurrent.futures.ThreadPoolExecutor(_CALLS_AT_ONCE * len(clients), thread_name_prefix="tfebr-shards")

    def query(self, text: str | Sequence[str], *args: Any, k: int | Sequence[int] | None = None, **kwargs: Any) -> list[Result]:
        """Searches all shards for one or several queries of one user; takes what `Client.query` takes.

        Args:
            text: a query, or several for the same user and history.
            k: how many results, of each query where it is a list; by default as many as the servable's `serving_default` gives. Shards are
                asked for this many, which needs a servable that takes `k`.
            *args, **kwargs: as in `Client.query`.

        Returns:
            One result for each query, in order. An item that moves from one shard to another while they change to a new version is
            returned once.

        Raises:
            RequestError, ServerError: of the first shard that fails, naming it; a ServerError when one does not answer in time.
        """
        end = time.monotonic() + self._timeout
        given = kwargs if k is None else {**kwargs, "k": k}
        found = self._all(lambda client: client.query(text, *args, **given), end)
        if not found[0]:
            return []
        depth = self._results_by_default(end) if k is None else k
        depths = [depth] * len(found[0]) if isinstance(depth, int | np.integer) else list(depth)
        return [_merged(results, int(most)) for results, most in zip(zip(*found, strict=True), depths, strict=True)]

    def filter_columns(self) -> dict[str, str]:
        """What a filter can name, as `Client.filter_columns`; the same in every shard."""
        return self._clients[0].filter_columns()

    def close(self) -> None:
        """Closes the connections, those of clients that were given, too."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for client in self._clients:
            client.close()

    def __enter__(self) -> "ShardedClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _all(self, ask: Any, end: float) -> list[Any]:
        """What `ask` gives for each client; all at the same time, and before `end`."""
        calls = [self._pool.submit(ask, client) for client in self._clients]
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

    def _results_by_default(self, end: float) -> int:
        """How many results `serving_default` has a place for; a shard may hold fewer items than that."""
        if self._default_k is None:
            self._default_k = max(ids.shape[1] for ids in self._all(lambda client: client.predict(query=[""])["ids"], end))
        return self._default_k


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
