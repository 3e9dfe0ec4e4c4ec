"""Whose a run folder is: of one model, config, data and content of that data, from the first checkpoint on."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfebr.data import text
from tfebr.data.content import differences
from tfebr.errors import ArtifactError, ConfigError, DataError, TfebrError
from tfebr.infrastructure.files import held, read_json, remove, remove_abandoned, write_json
from tfebr.models.config import from_dict
from tfebr.models.zoo import model_class

CONFIG = "config.json"
# What is made from the data before the first step, and can be made again.
_PREPARED = (CONFIG, "catalogue", "examples", "intent", "item_table", "propensities.json", "supervision", "vocabulary")


@contextlib.contextmanager
def only_training(path: Path) -> Iterator[None]:
    """Holds a run folder against other processes; one that was missing is made, and does not stay behind empty.

    Raises:
        ConfigError: `path` is a file.
        TfebrError: another process trains into it.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path}: is a file, where a folder is needed. Choose a new folder.")
    new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    with held(path) as alone:
        if not alone:
            raise TfebrError(f"{path}: another process is training into this folder. Wait for its end, or choose another folder.")
        try:
            yield
        finally:
            if new and not any(path.iterdir()):
                path.rmdir()


@contextlib.contextmanager
def claimed(path: Path, about: dict[str, Any]) -> Iterator[None]:
    """Writes config.json for the preparation inside, or checks that the folder's own says the same.

    Until something was trained, a folder is bound to nothing: other settings or other data replace what was prepared, and where the data
    or a setting prove bad inside, nothing of it stays.

    Raises:
        ConfigError: the folder belongs to another run, naming what is not the same, or it is no run folder.
    """
    file, new = path / CONFIG, not path.exists()
    found = read_json(file) if file.exists() else None
    # A file of this name may be anybody's.
    if (found is None and not new and any(path.iterdir())) or (found is not None and "model" not in found):
        raise ConfigError(f"{path}: is not empty and not a run folder. Choose a new folder.")
    trained = not new and not all(_can_be_made_again(child) for child in path.iterdir())
    if found is not None:
        try:
            check_text(path, found)
            _check_same(path, found, about)
        except TfebrError:
            if trained:
                raise
            _clear(path)
            found = None
    if found is None:
        write_json(file, about)
    try:
        yield
    except (DataError, ConfigError):
        if not trained:
            _clear(path)
            if new and not any(path.iterdir()):
                path.rmdir()
        raise


def check_text(path: Path, about: dict[str, Any]) -> None:
    """Refuses a run whose vocabularies and weights are of other tokens than today's."""
    was = about.get("text", 1)
    if was != text.VERSION:
        raise ArtifactError(
            f"{path}: was trained on text cut into tokens by version {was} of the treatment, and this is version {text.VERSION}. Train "
            "again into a new folder. Servables that were exported go on as they are: they hold their own."
        )


def _check_same(path: Path, found: dict[str, Any], about: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(about))  # as it reads back: tuples are lists
    for key in ("model", "data", "split_time", "supervision"):
        if found.get(key) != plain[key]:
            raise ConfigError(
                f"{path}: belongs to another run: its `{key}` is {found.get(key)!r}, not {plain[key]!r}. Choose a new folder."
            )
    changed = differences(found.get("content", {}), {name: {} for name in found.get("content", {})} | plain["content"])
    if changed:
        raise ConfigError(
            f"{path}: its data has changed since it was trained: {changed}. Choose a new folder to train on what is there now."
        )
    if found.get("columns") != plain["columns"]:
        raise ConfigError(
            f"{path}: belongs to another run: its `columns` is {found.get('columns')!r}, not {plain['columns']!r}. Choose a new folder."
        )
    # Fields that came after the folder was written had their default.
    kind = model_class(about["model"]).Config
    before = json.loads(json.dumps(dataclasses.asdict(from_dict(kind, found["config"], str(path / CONFIG)))))
    for field, value in plain["config"].items():
        was = before[field]
        if was != value:
            raise ConfigError(f"{path}: was trained with `{field}` = {was!r}, now {value!r}. Choose a new folder or give the same config.")


def _can_be_made_again(child: Path) -> bool:
    return child.name in _PREPARED or child.name.startswith(".") or (child.name == "checkpoints" and not any(child.iterdir()))


def _clear(path: Path) -> None:
    remove_abandoned(path)
    for name in _PREPARED:
        remove(path / name)
