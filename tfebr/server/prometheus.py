"""Counters and latency histograms of the local server, as the Prometheus page that TensorFlow Serving has at the same address.

The first two metrics carry TensorFlow Serving's own names, labels and buckets, so that its dashboards work; the others say which signature
was asked. No label holds anything that a request could choose freely.
"""

import bisect
import dataclasses
import threading
from collections.abc import Iterable

import grpc
import tensorflow as tf

PATH = "/monitoring/prometheus/metrics"
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Microseconds, from 10 up by 1.8 each: TensorFlow Serving's.
_LIMITS = [10 * 1.8**power for power in range(33)]
_Labels = tuple[tuple[str, str], ...]


@dataclasses.dataclass
class Handled:
    """What metrics and log know of a request: never its inputs.

    Attributes:
        entrypoint: "REST" or "GRPC".
        api: "predict", "metadata", "status", or "" for an address that is none of them.
        model: the name, once it is known to be one that is served.
        version: that answers.
        signature: that is asked, once it is known to be one of the model's.
        rows: of the request.
        status: how it ended, by the name of the gRPC code; "OK" when it was answered.
        microseconds: from the whole request being read to the answer being ready.
    """

    entrypoint: str
    api: str = ""
    model: str = ""
    version: int | None = None
    signature: str = ""
    rows: int | None = None
    status: str = "OK"
    microseconds: float = 0.0


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(_LIMITS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect.bisect_left(_LIMITS, value)] += 1
        self.sum += value


class Metrics:
    """Counts the predict requests of all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[_Labels, int]] = {_COUNT: {}, _OWN_COUNT: {}}
        self._histograms: dict[str, dict[_Labels, _Histogram]] = {_LATENCY: {}, _OWN_LATENCY: {}}

    def record(self, handled: Handled) -> None:
        """Counts a request; what is no prediction is not counted."""
        if handled.api != "predict":
            return
        model, status = ("model_name", handled.model), ("status", handled.status)
        # TensorFlow Serving writes it so.
        api = ("API", "predict" if handled.entrypoint == "REST" else "Predict")
        own = (model, ("signature_name", handled.signature), ("entrypoint", handled.entrypoint), status)
        with self._lock:
            _increment(self._counters[_COUNT], (model, status))
            _increment(self._counters[_OWN_COUNT], own)
            self._histograms[_OWN_LATENCY].setdefault(own, _Histogram()).add(handled.microseconds)
            if handled.status == "OK":
                answered = (model, api, ("entrypoint", handled.entrypoint))
                self._histograms[_LATENCY].setdefault(answered, _Histogram()).add(handled.microseconds)

    def page(self, model: str, versions: Iterable[int]) -> str:
        """The page in Prometheus' text format 0.0.4.

        Args:
            model: the name of the served model.
            versions: that are loaded.
        """
        lines: list[str] = []
        with self._lock:
            for name, counters in self._counters.items():
                lines += _head(name, "counter")
                lines += [f"{name}{_braces(labels)} {count}" for labels, count in sorted(counters.items())]
            for name, histograms in self._histograms.items():
                lines += _head(name, "histogram")
                for labels, histogram in sorted(histograms.items(), key=lambda item: item[0]):
                    lines += _histogram_lines(name, labels, histogram)
        lines += _head(_LOADED, "gauge")
        lines += [f"{_LOADED}{_braces((('model_name', model), ('version', str(version))))} 1" for version in versions]
        return "\n".join(lines) + "\n"


_COUNT = ":tensorflow:serving:request_count"
_LATENCY = ":tensorflow:serving:request_latency"
_OWN_COUNT = "tfebr_request_count"
_OWN_LATENCY = "tfebr_request_latency"
_LOADED = "tfebr_version_loaded"
_HELP = {
    _COUNT: "Predict requests by how they ended.",
    _LATENCY: "Wall time of answered predict requests in microseconds.",
    _OWN_COUNT: "Predict requests by signature, protocol and how they ended.",
    _OWN_LATENCY: "Wall time of predict requests in microseconds, by signature, protocol and how they ended.",
    _LOADED: "1 for every version that answers requests.",
}


def code_name(error: tf.errors.OpError) -> str:
    """The gRPC name of a TensorFlow error's code: the numbers are the same."""
    return next((code.name for code in grpc.StatusCode if code.value[0] == error.error_code), "INTERNAL")


def _increment(counter: dict[_Labels, int], labels: _Labels) -> None:
    counter[labels] = counter.get(labels, 0) + 1


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} {kind}"]


def _histogram_lines(name: str, labels: _Labels, histogram: _Histogram) -> list[str]:
    lines, seen = [], 0
    for limit, count in zip([*_LIMITS, None], histogram.counts, strict=True):
        seen += count
        le = "+Inf" if limit is None else f"{limit:.9g}"
        lines.append(f"{name}_bucket{_braces((*labels, ('le', le)))} {seen}")
    return [*lines, f"{name}_sum{_braces(labels)} {histogram.sum:.9g}", f"{name}_count{_braces(labels)} {seen}"]


def _braces(labels: _Labels) -> str:
    escaped = (
        (label, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").encode(errors="replace").decode())
        for label, value in labels
    )
    return "{" + ",".join(f'{label}="{value}"' for label, value in escaped) + "}"
