"""Writing files and folders so that a reader sees the old content or the new, never a part."""

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfebr.errors import TfebrError


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


def _sibling(target: Path) -> Path:
    """A hidden name next to `target`, on the same file system, so that a rename is atomic."""
    return target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.partial"


@contextlib.contextmanager
def atomic_file(target: str | os.PathLike) -> Iterator[Path]:
    """Yields a path to write; on success it replaces `target`, on any failure it is removed and `target` stays as it was."""
    target = Path(target)
    with _clear_disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _sibling(target)
        try:
            yield partial
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: str | os.PathLike) -> Iterator[Path]:
    """Yields an empty folder to fill; on success it takes the place of `target`, on any failure it is removed."""
    target = Path(target)
    with _clear_disk_errors(target):
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(target))
        target.parent.mkdir(parents=True, exist_ok=True)
        partial, old = _sibling(target), _sibling(target)
        partial.mkdir()
        try:
            yield partial
            if target.exists():
                os.rename(target, old)
            os.rename(partial, target)
        finally:
            if old.exists() and not target.exists():
                os.rename(old, target)
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


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
