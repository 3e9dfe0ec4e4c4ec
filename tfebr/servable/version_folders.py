"""The published versions of a servable: listed, rolled back, restored and pruned by renames that a polling server can watch.

TensorFlow Serving's default policy serves the largest number below the base folder and ignores every name that is not a number. So a
rollback hides the newest folder under the name `.N.rolled-back`: at its next look the server loads the version before it, and lets go of
the hidden one only then. Restoring is the same rename backwards.
"""

import dataclasses
import datetime
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

from tfebr.errors import ArtifactError
from tfebr.infrastructure.checks import check_number
from tfebr.servable.manifest import MANIFEST, read_manifest, verify_files

_ROLLED_BACK = re.compile(r"\.(\d+)\.rolled-back")
_VERSION = re.compile(r"\.?(\d+)(?:\.rolled-back)?")


@dataclasses.dataclass(frozen=True)
class Version:
    """One version of a servable.

    Attributes:
        number: the version.
        folder: where it lies.
        state: "served" (the largest number), "older" or "rolled back".
        model: the model's name, None for a SavedModel without a manifest of this library.
        created: when it was written, in UTC.
        bytes: of its files, as the manifest lists them.
        items: in its index, None where the manifest does not say.
        recall: of its index against exact search, as measured when it was built; None where it was not.
        problem: what is wrong with its manifest, naming the file, or which other shards do not have it, as a publication that was killed
            leaves a set; None where it is good, or there is none.
    """

    number: int
    folder: Path
    state: str
    model: str | None
    created: datetime.datetime
    bytes: int | None
    items: int | None
    recall: float | None
    problem: str | None = None


def versions(base: str | os.PathLike) -> list[Version]:
    """All versions of `servable/<name>`, newest first; raises ArtifactError when there is none or something else is among them."""
    visible, hidden = version_folders(base), _rolled_back(Path(base))
    if not visible and not hidden:
        raise ArtifactError(f"{base}: holds no servable version yet. Write one with `tfebr export`.")
    newest = max(visible, default=None)
    found = [_described(number, path, "served" if number == newest else "older") for number, path in visible.items()]
    found += [_described(number, path, "rolled back") for number, path in hidden.items()]
    return sorted(found, key=lambda version: version.number, reverse=True)


def roll_back(base: str | os.PathLike) -> Path:
    """Hides the newest version and returns the folder of the one before, which servers go back to at their next look.

    Raises:
        ArtifactError: there is no earlier version, or it is damaged, or other shards do not have it.
    """
    visible = sorted(version_folders(base).items())
    if len(visible) < 2:
        raise ArtifactError(f"{base}: there is no earlier version to go back to. Export another one.")
    (_, before), (number, newest) = visible[-2:]
    if (before / MANIFEST).is_file():
        verify_files(before)
        lacking = lacking_shards(before)
        if lacking:
            raise ArtifactError(f"{before}: {', '.join(lacking)} does not have this version, so that no client could merge. Export again.")
    _rename(newest, newest.with_name(f".{number}.rolled-back"))
    return before


def restore(base: str | os.PathLike) -> Path:
    """Undoes the last rollback: the smallest hidden number beyond the one that is served comes back. Returns its folder.

    Raises:
        ArtifactError: nothing was rolled back, or a newer version was published since.
    """
    newest = max(version_folders(base), default=0)
    above = {number: path for number, path in _rolled_back(Path(base)).items() if number > newest}
    if not above:
        raise ArtifactError(f"{base}: no version was rolled back since version {newest} was published, so there is nothing to restore.")
    number = min(above)
    folder = Path(base, str(number))
    _rename(above[number], folder)
    return folder


def prune(base: str | os.PathLike, keep: int) -> list[int]:
    """Deletes all but the newest `keep` versions, never the one that is served; returns the numbers that are gone.

    A version that was rolled back and is older than the served one goes too; a newer one stays, so that it can be restored. A server that
    pins an older number, by a label or by its configuration, is not known here: keep as many as it needs.

    Raises:
        ConfigError: `keep` is not positive.
    """
    check_number("keep", keep, "[1, inf)", whole=True)
    visible = version_folders(base)
    going = {number: visible[number] for number in sorted(visible)[:-keep]}
    superseded = {number: path for number, path in _rolled_back(Path(base)).items() if visible and number < max(visible)}
    for number, folder in sorted((going | superseded).items()):
        # Out of sight in one step; what a kill leaves of it, the next export clears up.
        doomed = folder.with_name(f".{number}.{uuid.uuid4().hex[:8]}.partial")
        _rename(folder, doomed)
        shutil.rmtree(doomed)
    return sorted(going | superseded)


def version_folders(base: str | os.PathLike) -> dict[int, Path]:
    """The folders that a server sees, by number; raises ArtifactError for anything visible that is not a version."""
    base = Path(base)
    if not base.exists():
        return {}
    if not base.is_dir():
        raise ArtifactError(f"{base}: a file, where a folder of versions is needed. Choose another place.")
    found = {}
    for child in sorted(base.iterdir()):
        if child.name.startswith("."):
            continue
        if not child.name.isdecimal() or not (child / "saved_model.pb").is_file():
            raise ArtifactError(
                f"{child}: not a servable version. Only folders 1, 2, 3 ... may be in {base}; move it or choose another place."
            )
        found[int(child.name)] = child
    return found


def next_version(base: str | os.PathLike) -> int:
    """The number after all that were ever published and not pruned: one that was rolled back keeps its own."""
    return max([0, *version_folders(base), *_rolled_back(Path(base))]) + 1


def lacking_shards(folder: str | os.PathLike) -> tuple[str, ...]:
    """Names of the shards that lie beside this version's, and do not have it; those that other machines hold are not looked for.

    Raises:
        ArtifactError: the folder has no manifest, or a bad one.
    """
    folder = Path(folder).absolute()
    shard = read_manifest(folder)["about"].get("shard", {})
    number = _VERSION.fullmatch(folder.name)
    prefix = folder.parent.name.removesuffix(str(shard.get("number")))
    if "set" not in shard or number is None or prefix == folder.parent.name:
        return ()
    beside = re.compile(re.escape(prefix) + r"\d+")
    others = sorted(path for path in folder.parent.parent.iterdir() if beside.fullmatch(path.name) and path.is_dir())
    return tuple(other.name for other in others if _set_of(other, number[1]) != shard["set"])


def _set_of(base: Path, number: str) -> str | None:
    """The set of one version, rolled back or not; None where there is no such version."""
    for name in (number, f".{number}.rolled-back"):
        if (base / name / MANIFEST).is_file():
            return read_manifest(base / name)["about"].get("shard", {}).get("set")
    return None


def _rolled_back(base: Path) -> dict[int, Path]:
    if not base.is_dir():
        return {}
    return {int(match[1]): path for path in base.iterdir() if (match := _ROLLED_BACK.fullmatch(path.name))}


def _described(number: int, folder: Path, state: str) -> Version:
    manifest: dict[str, Any] = {}
    problem = None
    if (folder / MANIFEST).exists():
        try:
            manifest = read_manifest(folder)
            lacking = lacking_shards(folder)
            problem = f"{folder}: its set is not whole: {', '.join(lacking)} does not have this version. Export again." if lacking else None
        except ArtifactError as error:
            problem = str(error)
    index = manifest.get("index") or {}
    if "created" in manifest:
        created = datetime.datetime.fromisoformat(manifest["created"])
    else:
        modified = (folder / "saved_model.pb").stat().st_mtime
        created = datetime.datetime.fromtimestamp(modified, datetime.timezone.utc)
    model = manifest.get("about", {}).get("model")
    return Version(number, folder, state, model, created, manifest.get("bytes"), index.get("items"), index.get("recall"), problem)


def _rename(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        raise ArtifactError(
            f"{source}: cannot be renamed to {target.name}: {error.strerror}. Another command may be at work in the folder; look again."
        ) from error
