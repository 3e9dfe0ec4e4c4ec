"""Asks a servable over REST or gRPC with columns by name; works with this package's server and with TensorFlow Serving."""

import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from tfebr.client.served import Served
from tfebr.client.transports import NotFoundError, RestTransport, ServerError, Transport, UnavailableError
from tfebr.errors import ConfigError, RequestError
from tfebr.infrastructure.checks import check_number
from tfebr.servable.filters import Filter, check_size, filter_clauses

_EVENTS = ("history_stages", "history_ages")
# What only the signature `search` takes.
_SEARCH = {"filter", "automatic", "k", "exclude", "leaves_to_search"}
# Seconds before the second attempt; twice as many before each further one, less up to a half so that clients do not return all at once.
_FIRST_PAUSE = 0.1
# Seconds for which a version that goes on being served beside a newer one is asked before the client looks again.
_FRESH = 5.0
# Versions may be replaced while a call is under way, but not so often.
_MOVES = 5
T = TypeVar("T")
# Of its own: the program's generator is left alone, and a forked process does not pause as its parent does.
_jitter = random.SystemRandom()


@dataclasses.dataclass(frozen=True)
class Result:
    """What one query found, best first.

    Attributes:
        ids: item ids.
        scores: one score for each id; higher is better.
        applied_filter: clauses that every result matches: those asked for and, when automatic, those that the query implies.
        version: of the model that answered, None where the server does not say; and the published set that it is a shard of, None where
            it is none. Two results are equal whatever these are.
    """

    ids: list[str]
    scores: list[float]
    applied_filter: list[str] = dataclasses.field(default_factory=list)
    version: int | None = dataclasses.field(default=None, compare=False)
    shard_set: str | None = dataclasses.field(default=None, compare=False)


class Client:
    """Asks one model of a server; also a context manager.

    It may be shared between threads, and used in processes that were forked or started from the one that made it: each has connections
    of its own. Every request is for the version whose signatures the client knows. When that version goes, or after some seconds, it reads
    what the server's newest one is, so that it goes on asking right when a version with other columns is published.

    Args:
        target: address of the server: `host:port`, or `http://host:port` for REST.
        name: the model's name on the server; by default the only model that `tfebr serve` has (TensorFlow Serving does not tell).
        protocol: "rest" or "grpc". REST needs no TensorFlow on the client's side.
        timeout: seconds that one call of a method may last, with all its attempts.
        retries: further attempts, each after a longer pause than the last, while the server cannot be reached or says that it is not
            available; any request may be repeated, as none changes anything.

    Raises:
        ConfigError: an unknown protocol, an address that cannot be read, an empty name, no time, or a negative number of retries.
    """

    def __init__(self, target: str, name: str | None = None, protocol: str = "rest", timeout: float = 10.0, retries: int = 3):
        check_number("timeout", timeout, "(0, inf)")
        check_number("retries", retries, "[0, inf)", whole=True)
        if name == "":
            raise ConfigError("`name` must be the name of a model, or None for the only one of `tfebr serve`. Received: an empty name.")
        self._transport = _transport(protocol, target)
        self._target, self._name, self._timeout, self._retries = target, name, timeout, retries
        self._last: Served | None = None
        self._held: tuple[Served, float] | None = None

    def query(
        self,
        text: str | Sequence[str],
        user: Mapping[str, str] | None = None,
        history: Sequence[str] = (),
        history_queries: Sequence[str] = (),
        history_stages: Sequence[int] = (),
        history_ages: Sequence[int] = (),
        filter: Filter | None = None,
        automatic: bool = False,
        k: int | Sequence[int] | None = None,
        exclude: Sequence[str] = (),
        leaves_to_search: int | Sequence[int] | None = None,
        signature: str | None = None,
        **inputs: Any,
    ) -> list[Result]:
        """Searches for one or several queries of one user.

        Args:
            text: a query, or several for the same user and history.
            user: profile columns of the user; column `age` is the signature's input `user_age`, and one whose name is not plain is found
                under its made-up name, see `tfebr.data.names`.
            history: item ids of the user's latest events, newest first: the input `history_items`.
            history_queries: the user's latest queries, newest first: the input of that name.
            history_stages, history_ages: of each event of `history`, for models that tell events apart: 1 clicked, 2 carted, 3 ordered;
                and the seconds from the event until now.
            filter: what every result must match. A dict of columns, all of which must hold: `{"brand": "Sony"}` is a value,
                `{"brand": ["Sony", "LG"]}` one of several, `{"price": (10, 50)}` a range with both bounds, of which one may be None. Or a
                list of clauses as `tfebr.index.attributes` explains them: `["brand=Sony|price=..10"]`.
            automatic: go by what the query itself implies, too, where the model was exported with that.
            k: how many results, at least 1, of each query where it is a list; by default as many as the model was exported with. There are
                never more than items, nor than the servable was built for: 10,000, as `tfebr inspect` says.
            exclude: ids of items that are not to be found; unknown ones do not matter.
            leaves_to_search: partitions of the index to look into, at least 1, for each query where it is a list: more find better items
                and take longer. By default as many as the index was built for; an index without partitions ignores it.
            signature: a signature with the outputs `ids`, `scores` and `num_results`; by default `serving_default` where neither a filter
                nor any of the arguments after it are given, else `search`.
            **inputs: further inputs of the signature by name, as in `predict`: one value for all queries, or a list with one for each.

        Returns:
            One result for each query, in order.

        Raises:
            RequestError: naming the field that the signature does not have or that does not fit it, or the column of the filter that the
                catalogue does not have.
            ServerError: no answer.
        """
        texts = [text] if isinstance(text, str) else list(text)
        if not texts:
            return []
        columns = {"query": texts, **{f"user_{column}": value for column, value in (user or {}).items()}, **inputs}
        lists: dict[str, Sequence[Any]] = {
            "history_items": history,
            "history_queries": history_queries,
            "history_stages": history_stages,
            "history_ages": history_ages,
            "exclude": exclude,
        }
        for field, values in lists.items():
            columns |= _in_every_row(field, values, len(texts))
        for field, value in (("k", k), ("leaves_to_search", leaves_to_search)):
            if value is not None:
                _check_positive(field, value)
                columns[field] = value
        if automatic:
            columns["automatic"] = True
        end = time.monotonic() + self._timeout

        def ask(model: Served) -> list[Result]:
            clauses = check_size(filter_clauses(filter, model.filter_columns())) if filter else []
            given = columns | _in_every_row("filter", clauses, len(texts))
            asked = signature or ("search" if given.keys() & _SEARCH else "serving_default")
            return _results(model, asked, self._predict(model, asked, given, end))

        return self._of_one_version(end, ask)

    def filter_columns(self) -> dict[str, str]:
        """What a filter can name: "category" (values) or "number" (ranges) by column; read off the outputs of the signature `attributes`.

        Raises:
            RequestError: the model was exported without filters.
            ServerError: no answer.
        """
        return self._model(time.monotonic() + self._timeout)[0].filter_columns()

    def predict(self, signature: str = "serving_default", /, **columns: Any) -> dict[str, np.ndarray]:
        """Runs any signature on named columns.

        Args:
            signature: its name.
            **columns: for each input a list or array with one entry for each row. Entries that are lists may differ in length: they are
                padded with "", 0 or False. One value instead of a list stands for every row. Inputs left out are all padding. Columns of
                the catalogue may be called by their own names, as the servable may not: `**{"size (cm)": ["30"]}` of `embed_items`.

        Returns:
            Every output as an array of its dtype; strings as `str` in an object array, outputs named `..._bytes` as `bytes`.

        Raises:
            RequestError: naming the field that the signature does not have or that does not fit it.
            ServerError: no answer.
        """
        end = time.monotonic() + self._timeout
        return self._of_one_version(end, lambda model: self._predict(model, signature, columns, end))

    def _predict(self, model: Served, signature: str, columns: Mapping[str, Any], end: float) -> dict[str, np.ndarray]:
        arrays, outputs = model.arrays(signature, columns), model.outputs(signature)
        found = self._patiently(end, lambda left: self._transport.predict(signature, arrays, outputs, model.version, left))
        return model.answer(signature, found)

    def look_again(self) -> None:
        """Has the next call read what the server's newest version is, however short ago that was last done."""
        self._held = None

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _patiently(self, end: float, ask: Callable[[float], Any]) -> Any:
        """What `ask`, called with the seconds that are left, gives; asked again while the server is not available."""
        for attempt in range(self._retries + 1):
            try:
                return ask(max(end - time.monotonic(), 0.0))
            except TimeoutError:
                said = f"{self._target}: no answer within {self._timeout:g} seconds. Allow more time, or send fewer rows in a request."
                raise ServerError(said) from None
            except UnavailableError:
                pause = _FIRST_PAUSE * 2**attempt * _jitter.uniform(0.5, 1.0)
                if attempt == self._retries or time.monotonic() + pause >= end:
                    raise
                time.sleep(pause)

    def _of_one_version(self, end: float, ask: Callable[[Served], T]) -> T:
        """What `ask` gives for the version that is served; asked again for the next one when that version goes meanwhile."""
        began = time.monotonic()
        for _ in range(_MOVES):
            model, read = self._model(end)
            try:
                return ask(model)
            except NotFoundError:
                # Where it is the model that is not there, the next look says so.
                self.look_again()
            except RequestError:
                # What the version of a while ago refuses, that of now may take.
                if read >= began:
                    raise
                self.look_again()
                if self._model(end)[0] is model:
                    raise
        return ask(self._model(end)[0])

    def _model(self, end: float) -> tuple[Served, float]:
        """The version to ask, and when it was read."""
        held = self._held
        if held is not None and time.monotonic() - held[1] <= _FRESH:
            return held
        version = self._patiently(end, lambda left: self._transport.describe(self._name, left))
        known = self._last if self._last is not None and self._last.version == version else Served(version)
        self._last, self._held = known, (known, time.monotonic())
        return self._held


def _results(model: Served, signature: str, found: Mapping[str, np.ndarray]) -> list[Result]:
    missing = {"ids", "scores", "num_results"} - found.keys()
    if missing:
        raise RequestError(f"Signature `{signature}` is no search: it lacks the output {', '.join(sorted(missing))}. Use `predict`.")
    applied = found.get("applied_filter", [()] * len(found["ids"]))
    number, shard_set = model.version.number, model.version.shard_set
    return [
        Result(ids[:results].tolist(), scores[:results].tolist(), [clause for clause in row if clause], number, shard_set)
        for ids, scores, results, row in zip(found["ids"], found["scores"], found["num_results"].tolist(), applied, strict=True)
    ]


def _in_every_row(field: str, values: Sequence[Any], rows: int) -> dict[str, list[list[Any]]]:
    """The same list for every row; nothing where it is empty."""
    # A bare string is a sequence too: of its letters.
    if isinstance(values, str | bytes):
        raise RequestError(f"Field `{field}` must be a list. Received: one string.")
    # TensorFlow Serving's batching fills up shorter lists with the first element of the request's own: so that is padding.
    return {field: [[0 if field in _EVENTS else "", *values]] * rows} if len(values) else {}


def _transport(protocol: str, target: str) -> Transport:
    if protocol == "rest":
        return RestTransport(target)
    if protocol == "grpc":
        # Here, because it needs TensorFlow, whose import takes seconds that a REST client should not pay.
        from tfebr.client.grpc_transport import GrpcTransport

        return GrpcTransport(target)
    raise ConfigError(f'`protocol` must be "rest" or "grpc". Received: `protocol` = {protocol!r}.')


def _check_positive(field: str, value: int | Sequence[int]) -> None:
    for number in value if isinstance(value, list | tuple | np.ndarray) else [value]:
        if isinstance(number, int | np.integer) and number < 1:
            raise RequestError(f"Field `{field}` must be at least 1. Received: {number}. Leave it out for the model's own.")
