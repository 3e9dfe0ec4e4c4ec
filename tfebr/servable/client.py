"""Asks a servable over REST or gRPC with columns by name; works with this package's server and with TensorFlow Serving."""

import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tfebr.errors import ConfigError, RequestError
from tfebr.servable.columns import SAME_ROWS, Tensor, from_answer, is_list, tensors_of, to_array
from tfebr.servable.filters import Filter, filter_clauses
from tfebr.servable.transports import RestTransport, ServerError, Transport, UnavailableError

_EVENTS = ("history_stages", "history_ages")
# What only the signature `search` takes.
_SEARCH = {"filter", "automatic", "k", "exclude", "leaves_to_search"}
# Seconds before the second attempt; twice as many before each further one, less up to a half so that clients do not return all at once.
_FIRST_PAUSE = 0.1


@dataclasses.dataclass(frozen=True)
class Result:
    """What one query found, best first.

    Attributes:
        ids: item ids.
        scores: one score for each id; higher is better.
        applied_filter: clauses that every result matches: those asked for and, when automatic, those that the query implies.
    """

    ids: list[str]
    scores: list[float]
    applied_filter: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _Signature:
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Client:
    """Asks one model of a server; may be shared between threads; also a context manager.

    Args:
        target: address of the server: `host:port`, or `http://host:port` for REST.
        name: the model's name on the server.
        protocol: "rest" or "grpc". REST needs no TensorFlow on the client's side.
        timeout: seconds that one call of a method may last, with all its attempts.
        retries: further attempts, each after a longer pause than the last, while the server cannot be reached or says that it is not
            available; any request may be repeated, as none changes anything.

    Raises:
        ConfigError: an unknown protocol, an address that cannot be read, or a negative number of retries.
    """

    def __init__(self, target: str, name: str, protocol: str = "rest", timeout: float = 10.0, retries: int = 3):
        if retries < 0:
            raise ConfigError(f"`retries` must be at least 0. Received: `retries` = {retries}.")
        self._transport = _transport(protocol, target, name)
        self._target, self._name, self._timeout, self._retries = target, name, timeout, retries
        self._signatures: dict[str, _Signature] = {}

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
            user: profile columns of the user; column `age` is the signature's input `user_age`.
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
        end = time.monotonic() + self._timeout
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
            "filter": filter_clauses(filter, self._filter_columns(end)) if filter else [],
        }
        for field, values in lists.items():
            # A bare string is a sequence too: of its letters.
            if isinstance(values, str | bytes):
                raise RequestError(f"Field `{field}` must be a list. Received: one string.")
            if len(values):
                # TensorFlow Serving's batching fills up shorter lists with the first element of the request's own: so that is padding.
                columns[field] = [[0 if field in _EVENTS else "", *values]] * len(texts)
        for field, value in (("k", k), ("leaves_to_search", leaves_to_search)):
            if value is not None:
                _check_positive(field, value)
                columns[field] = value
        if automatic:
            columns["automatic"] = True
        signature = signature or ("search" if columns.keys() & _SEARCH else "serving_default")
        found = self._predict(signature, columns, end)
        missing = {"ids", "scores", "num_results"} - found.keys()
        if missing:
            raise RequestError(f"Signature `{signature}` is no search: it lacks the output {', '.join(sorted(missing))}. Use `predict`.")
        applied = found.get("applied_filter", [()] * len(texts))
        return [
            Result(ids[:number].tolist(), scores[:number].tolist(), [clause for clause in row if clause])
            for ids, scores, number, row in zip(found["ids"], found["scores"], found["num_results"].tolist(), applied, strict=True)
        ]

    def filter_columns(self) -> dict[str, str]:
        """What a filter can name: "category" (values) or "number" (ranges) by column; read off the outputs of the signature `attributes`.

        Raises:
            RequestError: the model was exported without filters.
            ServerError: no answer.
        """
        return self._filter_columns(time.monotonic() + self._timeout)

    def _filter_columns(self, end: float) -> dict[str, str]:
        known = self._known_signatures(end)
        if "attributes" not in known:
            raise RequestError(
                f"Model `{self._name}` takes no filter: its catalogue had no column besides ids and titles when it was exported."
            )
        outputs = known["attributes"].outputs
        return {name: "category" if spec.dtype == "DT_STRING" else "number" for name, spec in outputs.items()}

    def predict(self, signature: str = "serving_default", **columns: Any) -> dict[str, np.ndarray]:
        """Runs any signature on named columns.

        Args:
            signature: its name.
            **columns: for each input a list or array with one entry for each row. Entries that are lists may differ in length: they are
                padded with "", 0 or False. One value instead of a list stands for every row. Inputs left out are all padding.

        Returns:
            Every output as an array of its dtype; strings as `str` in an object array, outputs named `..._bytes` as `bytes`.

        Raises:
            RequestError: naming the field that the signature does not have or that does not fit it.
            ServerError: no answer.
        """
        return self._predict(signature, columns, time.monotonic() + self._timeout)

    def _predict(self, signature: str, columns: Mapping[str, Any], end: float) -> dict[str, np.ndarray]:
        known = self._signature(signature, end)
        unknown = sorted(columns.keys() - known.inputs.keys())
        if unknown:
            raise RequestError(f"Signature `{signature}` has no field `{unknown[0]}`. It has: {', '.join(sorted(known.inputs))}.")
        lists = {name: value for name, value in columns.items() if is_list(value) and known.inputs[name].shape[:1] == (-1,)}
        rows = len(next(iter(lists.values()))) if lists else 1
        for name, value in lists.items():
            if len(value) != rows:
                raise RequestError(f"Field `{name}` has {len(value)} rows, but `{next(iter(lists))}` has {rows}. {SAME_ROWS}")
        arrays = {name: to_array(name, columns.get(name), spec, rows) for name, spec in known.inputs.items()}
        found = self._patiently(end, lambda left: self._transport.predict(signature, arrays, list(known.outputs), left))
        return {name: from_answer(name, found[name], spec) for name, spec in known.outputs.items()}

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
                pause = _FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.0)
                if attempt == self._retries or time.monotonic() + pause >= end:
                    raise
                time.sleep(pause)

    def _known_signatures(self, end: float) -> dict[str, _Signature]:
        if not self._signatures:
            described = self._patiently(end, self._transport.signatures)
            self._signatures = {
                key: _Signature(tensors_of(value.get("inputs", {})), tensors_of(value.get("outputs", {})))
                for key, value in described.items()
                # Every SavedModel lists its initialisation too, which nobody can ask for.
                if key != "__saved_model_init_op"
            }
        return self._signatures

    def _signature(self, name: str, end: float) -> _Signature:
        known = self._known_signatures(end)
        if name not in known:
            raise RequestError(f"Model `{self._name}` has no signature `{name}`. It has: {', '.join(sorted(known))}.")
        return known[name]


def _transport(protocol: str, target: str, name: str) -> Transport:
    if protocol == "rest":
        return RestTransport(target, name)
    if protocol == "grpc":
        # Here, because it needs TensorFlow, whose import takes seconds that a REST client should not pay.
        from tfebr.servable.grpc_transport import GrpcTransport

        return GrpcTransport(target, name)
    raise ConfigError(f'`protocol` must be "rest" or "grpc". Received: `protocol` = {protocol!r}.')


def _check_positive(field: str, value: int | Sequence[int]) -> None:
    for number in value if isinstance(value, list | tuple | np.ndarray) else [value]:
        if isinstance(number, int | np.integer) and number < 1:
            raise RequestError(f"Field `{field}` must be at least 1. Received: {number}. Leave it out for the model's own.")
