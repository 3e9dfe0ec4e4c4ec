"""The versions of one servable: those that the policy wants are loaded, newer ones are picked up, old ones are let go."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from tfebr.errors import ArtifactError, ConfigError, RequestError, TfebrError
from tfebr.infrastructure.messages import first_line
from tfebr.servable.folders import check_name
from tfebr.server.loaded import Model
from tfebr.server.version_policy import Policy

_log = logging.getLogger(__name__)
_State = get_model_status_pb2.ModelVersionStatus.State
_GRAPH = "saved_model.pb"


class NotServedError(RequestError):
    """The model or version that a request asks for is not loaded here."""


class UnavailableLabelError(RequestError):
    """A label is to be given to a version that is not loaded."""


class Versions:
    """Keeps the versions below a folder loaded that a policy wants, by default the newest one, and those that a label names.

    The folder is looked at as TensorFlow Serving does: by its path at each look, so that a link may be pointed elsewhere; a folder that
    is gone changes nothing, and one without any version lets go of all. A version that cannot be loaded ends with its error, while
    those that answer go on; it is tried again when something in its folder has changed.

    Args:
        base: `servable/<name>` with numeric version folders, or one version folder.
        name: what requests call the model; by default the folder's name.
        poll_seconds: how often the folder is looked at for another newest version.
        labels: names for version numbers, as `version_labels` of TensorFlow Serving's models.config.
        changed: called after every look, with whether any version answers.

    Raises:
        ArtifactError: there is no version, or the newest one or one with a label is not there or cannot be loaded.
        ConfigError: the name cannot stand in an address.
    """

    def __init__(
        self,
        base: str | os.PathLike,
        name: str | None = None,
        poll_seconds: float = 2.0,
        labels: Mapping[str, int] | None = None,
        changed: Callable[[bool], None] = lambda _: None,
    ):
        # The path itself: where a link points is looked up anew each time.
        self.base = Path(os.path.abspath(base))
        self._single = (self.base / _GRAPH).is_file()
        named = self.base.parent if self._single and _number(self.base.name) is not None else self.base
        self.name = _addressable(named) if name is None else check_name(name)
        self._policy, self._labels = Policy(), dict(labels or {})
        self._changed = changed
        self._states: dict[int, get_model_status_pb2.ModelVersionStatus] = {}
        self._failed: dict[int, object] = {}
        self._said: str | None = None
        self._models: dict[int, Model] = {}
        found = self._whole(self._folders()) if self.base.is_dir() else {}
        if not found:
            what = f"holds no version: a folder with a number for a name and a {_GRAPH} inside" if self.base.is_dir() else "is no folder"
            raise ArtifactError(f"{self.base}: {what}. Export a model first, or name the folder servable/<name> of a finished run.")
        for label, number in self._labels.items():
            if number not in found:
                raise ArtifactError(f"{self.base}: the label `{label}` names version {number}, which is not there: {sorted(found)}.")
        for number in sorted(self._policy.wanted(found) | set(self._labels.values())):
            self._models = {**self._models, number: self._load(found[number], number)}
            self._set_state(number, _State.AVAILABLE)
        self._stop, self._look = threading.Event(), threading.Event()
        self._poller = threading.Thread(target=self._poll, args=(poll_seconds,), name="tfebr-versions", daemon=True)
        if not self._single:
            self._poller.start()

    def get(self, name: str, version: int | None = None, label: str | None = None) -> Model:
        """The loaded model, the newest by default; raises NotServedError when there is none, RequestError when no version has the label."""
        models = self._models
        if name != self.name:
            raise NotServedError(f"Servable not found for request: Latest({name[:60]}). This server has the model `{self.name}`.")
        if label is not None:
            version = self._labelled(label)
        if not models:
            raise NotServedError(f"Servable not found for request: Latest({name}). No version of it is loaded.")
        if version is None:
            return models[max(models)]
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

    def configure(self, policy: Policy, labels: Mapping[str, int]) -> None:
        """Other versions and labels from now on; what is to be loaded comes with the next look, which is at once.

        Raises:
            UnavailableLabelError: a label names a version that is not loaded; nothing is changed.
        """
        for label, number in labels.items():
            if number not in self._models:
                raise UnavailableLabelError(
                    f"Request to assign label to version {number} of model {self.name}, which is not currently available for inference. "
                    f"Label: {label[:60]}. Loaded is version {', '.join(map(str, self.loaded()))}."
                )
        self._policy, self._labels = policy, dict(labels)
        self._look.set()

    def close(self) -> None:
        """Stops looking for newer versions."""
        self._stop.set()
        self._look.set()
        if self._poller.is_alive():
            self._poller.join()

    def refresh(self) -> None:
        """Looks at the folder once: loads what is wanted and not loaded, and lets go of what is not wanted any more."""
        try:
            folders = self._folders()
        except OSError as error:
            # Away for a moment, as a network drive may be.
            self._say(f"{self.base}: cannot be looked at: {error.strerror or error}; the versions that are loaded stay")
            return
        self._said = None
        found = self._whole(folders)
        for number in folders.keys() - found.keys() - self._models.keys():
            self._fail(number, _content(folders[number]), f"{folders[number]}: holds no {_GRAPH}.", error_codes_pb2.NOT_FOUND)
        for number in self._failed.keys() - folders.keys():
            del self._failed[number]
        wanted = self._policy.wanted(found) | (set(self._labels.values()) & (found.keys() | self._models.keys()))
        added = [number for number in sorted(wanted - self._models.keys()) if self._added(found[number], number)]
        # After the model is there to be asked: who reads that a version is available gets its answers.
        for number in added:
            _log.info("%s: version %d answers", self.name, number)
            self._set_state(number, _State.AVAILABLE)
        # A version that is wanted and cannot be loaded does not push out one that answers.
        if wanted & self._models.keys() or not folders:
            for number in self._models.keys() - wanted:
                self._models = {other: model for other, model in self._models.items() if other != number}
                self._set_state(number, _State.END)
                _log.info("%s: version %d is let go", self.name, number)
        self._changed(bool(self._models))

    def _poll(self, seconds: float) -> None:
        while True:
            self._look.wait(seconds)
            self._look.clear()
            if self._stop.is_set():
                return
            try:
                self.refresh()
            except Exception as error:
                # Whatever a foreign folder does, the loaded version goes on answering and the next look may succeed.
                self._say(f"{self.base}: looking for a newer version failed: {type(error).__name__}: {error}")

    def _say(self, problem: str) -> None:
        """Logs what keeps the folder from being looked at, once and not at every look."""
        if problem != self._said:
            _log.error("%s", problem)
        self._said = problem

    def _added(self, folder: Path, number: int) -> bool:
        content = _content(folder)
        if number in self._failed and self._failed[number] == content:
            return False
        try:
            model = self._load(folder, number)
        except ArtifactError as error:
            self._fail(number, content, str(error), error_codes_pb2.UNKNOWN)
            return False
        self._failed.pop(number, None)
        self._models = {**self._models, number: model}
        return True

    def _fail(self, number: int, content: object, problem: str, code: int) -> None:
        """Notes and logs why a version is not loaded, once for a state of its folder: it is tried again only after a change."""
        if number not in self._failed or self._failed[number] != content:
            self._set_state(number, _State.END, problem, code)
            _log.error("version %d is not loaded, version %s stays: %s", number, ", ".join(map(str, self.loaded())) or "none", problem)
        self._failed[number] = content

    def _folders(self) -> dict[int, Path]:
        """What has a number for a name; OSError when the folder cannot be looked at."""
        if self._single:
            number = _number(self.base.name)
            return {1 if number is None else number: self.base}
        found: dict[int, Path] = {}
        # In this order `1` comes after `01`: of two names for one number the last counts, as for TensorFlow Serving.
        for name in sorted(os.listdir(self.base)):
            number = _number(name)
            if number is not None:
                found[number] = self.base / name
        return found

    def _whole(self, folders: Mapping[int, Path]) -> dict[int, Path]:
        """Those that hold a graph; one without is still being copied, or never will be a version."""
        return {number: folder for number, folder in folders.items() if (folder / _GRAPH).is_file()}

    def _labelled(self, label: str) -> int:
        if label not in self._labels:
            known = ", ".join(sorted(self._labels)) or "no labels"
            raise RequestError(f"Unrecognized servable version label: {label[:60]}. This server has: {known}.")
        return self._labels[label]

    def _load(self, folder: Path, version: int) -> Model:
        self._set_state(version, _State.LOADING)
        try:
            return Model(folder, version)
        except TfebrError as error:
            raise ArtifactError(str(error)) from error
        except Exception as error:
            raise ArtifactError(f"{folder}: cannot be loaded: {type(error).__name__}: {first_line(error)}. Write it again.") from error

    def _set_state(self, version: int, state: int, error: str = "", code: int = error_codes_pb2.OK) -> None:
        status = get_model_status_pb2.ModelVersionStatus(version=version, state=state)
        status.status.error_code, status.status.error_message = code, error
        # Replaced, never changed in place: requests read it from other threads.
        self._states = {**self._states, version: status}


def _addressable(folder: Path) -> str:
    """The folder's name: whatever a foreign model is called, so that requests can call it that."""
    if not folder.name or ":" in folder.name:
        raise ConfigError(f"{folder}: cannot be what requests call the model, because an address ends a name at a colon. Give a `name`.")
    return folder.name


def _number(name: str) -> int | None:
    """The version that a name stands for, None where it is no number of 64 bits; zeros may lead."""
    number = int(name) if name.isascii() and name.isdecimal() else None
    return number if number is not None and number < 2**63 else None


def _content(folder: Path) -> object:
    """What changes when something in the folder does."""
    try:
        return frozenset((path, path.stat().st_size, path.stat().st_mtime_ns) for path in [folder, *folder.rglob("*")])
    except OSError:
        return None
