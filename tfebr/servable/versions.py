"""The versions of one servable: the newest numeric folder is loaded, newer ones are picked up, old ones are let go."""

import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from tfebr.errors import ArtifactError, RequestError
from tfebr.servable.loaded import Model

_log = logging.getLogger(__name__)
_State = get_model_status_pb2.ModelVersionStatus.State


class NotServedError(RequestError):
    """The model or version that a request asks for is not loaded here."""


class Versions:
    """Keeps the newest version below a folder loaded, and those that a label names.

    Args:
        base: `servable/<name>` with numeric version folders, or one version folder.
        name: what requests call the model; by default the folder's name.
        poll_seconds: how often the folder is looked at for another newest version.
        labels: names for version numbers, as `version_labels` of TensorFlow Serving's models.config.

    Raises:
        ArtifactError: there is no version, or the newest one or one with a label is not there or cannot be loaded.
    """

    def __init__(
        self, base: str | os.PathLike, name: str | None = None, poll_seconds: float = 2.0, labels: Mapping[str, int] | None = None
    ):
        self.base = Path(base).resolve()
        self._single = (self.base / "saved_model.pb").is_file()
        named = self.base.parent if self._single and _is_version(self.base) else self.base
        self.name = name or named.name
        self._labels = dict(labels or {})
        self._states: dict[int, get_model_status_pb2.ModelVersionStatus] = {}
        self._failed: dict[int, object] = {}
        found = self._folders()
        if not found:
            what = (
                "holds no version: a folder with a number for a name and a saved_model.pb inside" if self.base.is_dir() else "is no folder"
            )
            raise ArtifactError(f"{self.base}: {what}. Export a model first, or name the folder servable/<name> of a finished run.")
        for label, number in self._labels.items():
            if number not in found:
                raise ArtifactError(f"{self.base}: the label `{label}` names version {number}, which is not there: {sorted(found)}.")
        wanted = {max(found), *self._labels.values()}
        self._models = {number: self._load(found[number], number) for number in sorted(wanted)}
        self._current = self._models[max(found)]
        for number in self._models:
            self._set_state(number, _State.AVAILABLE)
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll, args=(poll_seconds,), name="tfebr-versions", daemon=True)
        if not self._single:
            self._poller.start()

    def get(self, name: str, version: int | None = None, label: str | None = None) -> Model:
        """The loaded model; raises NotServedError when it has another name or version, RequestError when no version has the label."""
        models, current = self._models, self._current
        if name != self.name:
            raise NotServedError(f"Servable not found for request: Latest({name[:60]}). This server has the model `{self.name}`.")
        if label is not None:
            version = self._labelled(label)
        if version is None:
            return current
        if version not in models:
            loaded = ", ".join(map(str, sorted(models)))
            raise NotServedError(f"Servable not found for request: Specific({name}, {version}). Loaded is version {loaded}.")
        return models[version]

    def metadata(self, name: str, version: int | None = None, label: str | None = None) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a loaded model as TensorFlow Serving describes them."""
        model = self.get(name, version, label)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = name
        response.model_spec.version.value = model.version
        response.metadata["signature_def"].Pack(model.signature_defs)
        return response

    def status(self, name: str, version: int | None = None, label: str | None = None) -> get_model_status_pb2.GetModelStatusResponse:
        """The state of one version, or of every version seen, newest first; raises NotServedError when there is none."""
        states = self._states
        if label is not None and name == self.name:
            version = self._labelled(label)
        found = [states[number] for number in sorted(states, reverse=True) if version in (None, number)] if name == self.name else []
        if not found:
            which = "any versions" if version is None else f"version {version}"
            raise NotServedError(f"Could not find {which} of model {name[:60]}. This server has the model `{self.name}`.")
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=found)

    def loaded(self) -> list[int]:
        """The numbers of the versions that answer requests."""
        return sorted(self._models)

    def close(self) -> None:
        """Stops looking for newer versions."""
        self._stop.set()
        if self._poller.is_alive():
            self._poller.join()

    def refresh(self) -> None:
        """Loads the newest version folder when it is not the loaded one; on failure the loaded one stays."""
        found = self._folders()
        if not found:
            return
        newest = max(found)
        missing = sorted({newest, *self._labels.values()} & (found.keys() - self._models.keys()))
        added = [number for number in missing if self._added(found[number], number)]
        old = self._current
        if newest in self._models and newest != old.version:
            self._current = self._models[newest]
            _log.info("%s: version %d replaces version %d", self.name, newest, old.version)
        # After the switch: who reads that a version is available gets its answers, and nobody is sent to one that is gone.
        for number in added:
            self._set_state(number, _State.AVAILABLE)
        wanted = {self._current.version, *self._labels.values()}
        for number in self._models.keys() - wanted:
            self._models = {other: model for other, model in self._models.items() if other != number}
            self._set_state(number, _State.END)

    def _poll(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                self.refresh()
            except Exception as error:
                # Whatever a foreign folder does, the loaded version goes on answering and the next look may succeed.
                _log.error("%s: looking for a newer version failed: %s", self.base, type(error).__name__)

    def _added(self, folder: Path, number: int) -> bool:
        # A folder that failed is tried again only after something in it has changed.
        content = _content(folder)
        if self._failed.get(number) == content:
            return False
        try:
            model = self._load(folder, number)
        except ArtifactError as error:
            self._failed[number] = content
            _log.error("version %d is not loaded, version %d stays: %s", number, self._current.version, error)
            return False
        self._failed.pop(number, None)
        self._models = {**self._models, number: model}
        return True

    def _folders(self) -> dict[int, Path]:
        if self._single:
            return {int(self.base.name) if _is_version(self.base) else 1: self.base}
        if not self.base.is_dir():
            return {}
        # Without saved_model.pb a folder is still being copied.
        return {int(path.name): path for path in self.base.iterdir() if _is_version(path) and (path / "saved_model.pb").is_file()}

    def _labelled(self, label: str) -> int:
        if label not in self._labels:
            known = ", ".join(sorted(self._labels)) or "no labels"
            raise RequestError(f"Unrecognized servable version label: {label[:60]}. This server has: {known}.")
        return self._labels[label]

    def _load(self, folder: Path, version: int) -> Model:
        self._set_state(version, _State.LOADING)
        try:
            return Model(folder, version)
        except ArtifactError as error:
            self._set_state(version, _State.END, str(error))
            raise

    def _set_state(self, version: int, state: int, error: str = "") -> None:
        status = get_model_status_pb2.ModelVersionStatus(version=version, state=state)
        status.status.error_code = error_codes_pb2.UNKNOWN if error else error_codes_pb2.OK
        status.status.error_message = error
        # Replaced, never changed in place: requests read it from other threads.
        self._states = {**self._states, version: status}


def _is_version(path: Path) -> bool:
    return path.name.isascii() and path.name.isdecimal()


def _content(folder: Path) -> frozenset:
    return frozenset((path, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file())
