"""Writing files and folders so that a reader sees the old content or the new, never a part, whether a process or a machine stops."""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfebr.errors import TfebrError


class TakenError(TfebrError):
    """A folder that should be new is there already."""


class _NotWritten(TfebrError):
    """The disk or its permissions refused a write."""


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)


@contextlib.contextmanager
def _clear_disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, _NotWritten) as error:
        # What is written inside an atomic folder has a hidden name there: the outermost target is the one the user knows.
        cause = error.__cause__ if isinstance(error, _NotWritten) else error
        if isinstance(cause, OSError) and cause.errno in _DISK:
            raise _NotWritten(
                f"{target}: not written: {os.strerror(cause.errno)}. Free some space or choose another folder; "
                "what was there before is unchanged."
            ) from cause
        raise


_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)
_NO_LOCKS = (errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EBADF)
# What a process that was killed may leave: a folder that it was filling, and the old content that it was about to replace.
_LEFT = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>partial|old)")


def _sibling(target: Path, kind: str = "partial") -> Path:
    """A hidden name next to `target`, on the same file system, so that a rename is atomic."""
    # Arrow takes a relative path with a colon for an address.
    return target.absolute().parent / f".{target.name}.{uuid.uuid4().hex[:8]}.{kind}"


@contextlib.contextmanager
def atomic_file(target: str | os.PathLike) -> Iterator[Path]:
    """Yields a path to write; on success it replaces `target`, on any failure it is removed and `target` stays as it was."""
    target = Path(target)
    with _clear_disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _sibling(target)
        try:
            yield partial
            sync(partial)
            os.replace(partial, target)
            sync(target.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: str | os.PathLike, replace: bool = True) -> Iterator[Path]:
    """Yields an empty folder to fill; on success it takes the place of `target`, on any failure it is removed.

    A killed process leaves the hidden folder that it was filling; the next write of the same target removes it. Was it killed between
    putting the old content aside and putting the new in its place, the next write finds the old content back where it was.

    Args:
        target: the folder to write.
        replace: whether a folder that is there already may be replaced.

    Raises:
        TakenError: not `replace`, and `target` is there when it should be put in place.
        TfebrError: the disk is full or not writable.
    """
    target = Path(target)
    with _clear_disk_errors(target):
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target))
        with hidden_folder(target) as partial:
            yield partial
            for folder, _, files in os.walk(partial):
                for name in (*files, "."):
                    sync(os.path.join(folder, name))
            _put_in_place(partial, target, replace)
            sync(target.parent)


@contextlib.contextmanager
def hidden_folder(target: str | os.PathLike) -> Iterator[Path]:
    """Yields an empty folder with a hidden name beside `target`; it is removed at the end, after a kill by the next one of this target."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target.parent, target.name)
    hidden = _sibling(target)
    lock = _make_locked(hidden)
    try:
        yield hidden
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        os.close(lock)


def remove_abandoned(folder: str | os.PathLike, name: str | None = None) -> None:
    """Clears up in `folder` after processes that were killed while they wrote a folder; what a live process is writing stays.

    Args:
        folder: where the targets are.
        name: of the only target to clear up for; all of them by default.
    """
    for path in sorted(Path(folder).iterdir()):
        left = _LEFT.fullmatch(path.name)
        if left is None or name not in (None, left["name"]) or not path.is_dir():
            continue
        lock = _lock(path, wait=False)
        if lock is None:
            continue
        if left["kind"] == "old":
            _put_back(path, path.with_name(left["name"]))
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def held(folder: str | os.PathLike) -> Iterator[bool]:
    """Holds a folder's lock to the end of the block or of the process; yields False, at once, where another one holds it.

    On a file system without locks everybody is alone.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _locked(descriptor, wait=False) is not False
    finally:
        os.close(descriptor)


def remove(path: str | os.PathLike) -> None:
    """Removes a file or a folder with all that is in it, where there is one."""
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: str | os.PathLike) -> None:
    """Has a file or the names in a folder on the disk: a rename may get there before the content of what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # A file system that cannot be asked to.
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


def _put_in_place(partial: Path, target: Path, replace: bool) -> None:
    while True:
        # Whoever moves a target away holds its lock: of several processes that replace it, each replaces what the one before has put there.
        lock, old = _lock(target, wait=True) if replace else None, _sibling(target, "old")
        try:
            if lock is not None:
                os.rename(target, old)
            _rename_to_new(partial, target)
            return
        except TakenError:
            # Another process has found the place empty, at first or between the two renames, and was faster.
            if not replace:
                raise
        finally:
            if lock is not None:
                _put_back(old, target)
                shutil.rmtree(old, ignore_errors=True)
                os.close(lock)


def _rename_to_new(partial: Path, target: Path) -> None:
    try:
        # Refused by the system, in one step, where the target is a folder that holds something.
        os.rename(partial, target)
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise
        raise TakenError(f"{target}: there already, written by another process meanwhile.") from error


def _put_back(old: Path, target: Path) -> None:
    """What was put aside comes back, unless something else is in its place."""
    if not old.exists() or target.exists():
        return
    try:
        os.rename(old, target)
    except OSError as error:
        if error.errno not in _OCCUPIED:
            raise


def _make_locked(folder: Path) -> int:
    """Makes a folder that nobody takes for abandoned before the returned descriptor is closed, if only by the end of this process."""
    while True:
        folder.mkdir()
        lock = _lock(folder, wait=True)
        # Whoever clears up may have come between the two steps.
        if lock is not None:
            return lock


def _lock(folder: Path, wait: bool) -> int | None:
    """A descriptor that holds the lock of the folder that has this name now; None when another one holds it or there is no such folder."""
    while True:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        try:
            locked = _locked(descriptor, wait)
            # On a file system without locks there is nothing to hold, and nothing is ever taken for abandoned.
            if locked is False or (locked is None and not wait):
                os.close(descriptor)
                return None
            if locked is None or _is_at(descriptor, folder):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        # While this process waited, the folder was renamed or removed: its lock says nothing about what has the name now.
        os.close(descriptor)


def _locked(descriptor: int, wait: bool) -> bool | None:
    """Whether the lock could be taken; None on a file system that has none. The system frees it with the process, never before."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        if error.errno != errno.EWOULDBLOCK:
            raise
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def write_json(target: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    with atomic_file(target) as path:
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file; raises TfebrError naming the file when it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TfebrError(f"{path}: no such file.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise TfebrError(f"{path}: not a JSON file: {error}.") from error
