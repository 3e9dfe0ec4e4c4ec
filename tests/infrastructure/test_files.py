"""Whatever interrupts a write, a reader sees the old content or the new."""

import contextlib
import errno
import fcntl
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfebr.errors import TfebrError
from tfebr.infrastructure import files
from tfebr.infrastructure.files import TakenError, atomic_file, atomic_folder, held, read_json, remove_abandoned, write_json

# The package itself would load TensorFlow.
STUB = "import sys, types\npackage = types.ModuleType('tfebr')\npackage.__path__ = [sys.argv[2]]\nsys.modules['tfebr'] = package\n"


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def write_half(target: Path) -> None:
    with atomic_file(target) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt


def fill_half(target: Path) -> None:
    with atomic_folder(target) as partial:
        (partial / "b").write_text("half")
        raise ValueError("broken")


def test_file_is_replaced_on_success_only(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with atomic_file(target) as partial:
        partial.write_text("old")
        assert not target.exists()
    assert target.read_text() == "old"
    with pytest.raises(KeyboardInterrupt):
        write_half(target)
    assert target.read_text() == "old"
    with atomic_file(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert names(target.parent) == ["file.txt"]


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """A power cut may keep a rename and lose what was written before it."""
    kept, named = set(), []
    fsync, moves = os.fsync, {name: getattr(os, name) for name in ("rename", "replace")}

    def keeping(descriptor):
        kept.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def moving(name):
        def move(source, target):
            below = [source, *(path for path in Path(source).rglob("*"))] if name == "rename" else [source]
            assert {Path(path).stat().st_ino for path in below} <= kept, f"{source} is moved before all of it is on the disk"
            moves[name](source, target)
            named.append(Path(target))
            kept.discard(tmp_path.stat().st_ino)

        return move

    monkeypatch.setattr(os, "fsync", keeping)
    for name in moves:
        monkeypatch.setattr(os, name, moving(name))
    with atomic_file(tmp_path / "file") as partial:
        partial.write_text("content")
    assert named.pop() == tmp_path / "file"
    assert tmp_path.stat().st_ino in kept, "the name is on the disk, too"
    with atomic_folder(tmp_path / "folder") as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "file").write_text("content")
        (partial / "empty").touch()
    assert named.pop() == tmp_path / "folder"
    assert tmp_path.stat().st_ino in kept


def test_a_file_system_that_cannot_sync_is_written_to_all_the_same(tmp_path, monkeypatch):
    def refuses(descriptor):
        raise OSError(errno.EINVAL, "no such thing here")

    monkeypatch.setattr(os, "fsync", refuses)
    write_json(tmp_path / "deep" / "file.json", {"a": 1})
    assert read_json(tmp_path / "deep" / "file.json") == {"a": 1}


def test_a_disk_that_fails_while_syncing_leaves_the_old_content(tmp_path, monkeypatch):
    write_json(tmp_path / "file.json", "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TfebrError, match=r"file\.json: not written: No space left"):
        write_json(tmp_path / "file.json", "new")
    assert read_json(tmp_path / "file.json") == "old"
    assert names(tmp_path) == ["file.json"]


def test_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "deep" / "folder"
    with atomic_folder(target) as partial:
        (partial / "a").write_text("old")
        assert not target.exists()
    with pytest.raises(ValueError, match="broken"):
        fill_half(target)
    assert names(target) == ["a"]
    with atomic_folder(target) as partial:
        (partial / "c").write_text("new")
        assert names(target) == ["a"]
    assert names(target) == ["c"]
    assert names(target.parent) == ["folder"]


def test_failed_rename_puts_the_old_folder_back(tmp_path, monkeypatch):
    target = tmp_path / "folder"
    with atomic_folder(target) as partial:
        (partial / "old").touch()
    rename = os.rename

    def refuse_the_new(source, destination):
        if Path(destination) == target and (Path(source) / "new").exists():
            raise OSError(errno.EIO, "Input/output error")
        rename(source, destination)

    monkeypatch.setattr(files.os, "rename", refuse_the_new)
    with pytest.raises(OSError, match="Input/output error"), atomic_folder(target) as partial:
        (partial / "new").touch()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("write", [atomic_file, atomic_folder])
def test_a_disk_that_refuses_is_one_clear_error(tmp_path, write, code):
    target = tmp_path / "target"
    with write(target) as partial:
        partial.mkdir(exist_ok=True) if write is atomic_folder else partial.write_text("old")
    with pytest.raises(TfebrError) as caught, write(target):
        raise OSError(code, "whatever the library said")
    assert str(caught.value).startswith(f"{target}: not written: {os.strerror(code)}. Free some space or choose another folder")
    assert names(tmp_path) == ["target"]


def test_error_inside_nested_writes_names_the_outer_target(tmp_path):
    target = tmp_path / "data"
    with (
        pytest.raises(TfebrError) as caught,
        atomic_folder(target) as outer,
        atomic_folder(outer / "log") as inner,
        atomic_file(inner / "x"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(caught.value).startswith(f"{target}: not written: No space left on device")
    assert names(tmp_path) == []


def test_other_errors_pass_unchanged(tmp_path):
    error = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output") as caught, atomic_file(tmp_path / "x"):
        raise error
    assert caught.value is error
    with pytest.raises(TfebrError, match=r"^mine$"), atomic_folder(tmp_path / "y"):
        raise TfebrError("mine")


def test_a_file_in_the_way_stays(tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    for target in (file, file / "below"):
        with pytest.raises(TfebrError, match=r"not written: (Not a directory|File exists)"), atomic_folder(target):
            pass
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(TfebrError, match="folder: not written: Is a directory"), atomic_file(folder) as partial:
        partial.write_text("new")
    assert file.read_text() == "kept"
    assert names(tmp_path) == ["file", "folder"]


def test_json_round_trip(tmp_path):
    value = {"name": "Müller 漢", "counts": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Müller 漢" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_unwritable_json_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"kept": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"bad": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"kept": 1}
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [b"{", b"", b'{"a": "\xff"}'])
def test_unreadable_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(TfebrError, match=r"a\.json: not a JSON file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(TfebrError, match=r"b\.json: no such file"):
        read_json(tmp_path / "b.json")


def leave_behind(folder: Path, statement: str) -> None:
    """Runs a statement inside `atomic_folder(folder)` in a process that is killed there."""
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom tfebr.infrastructure import files\n"
        "def die():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"with files.atomic_folder(sys.argv[1]) as partial:\n    (partial / 'new').touch()\n    {statement}\n"
    )
    ended = subprocess.run([sys.executable, "-c", STUB + script, str(folder), str(Path(files.__file__).parents[1])], check=False)
    assert ended.returncode == -signal.SIGKILL


def test_what_a_killed_process_was_filling_is_removed_by_the_next_write(tmp_path):
    target = tmp_path / "folder"
    leave_behind(target, "die()")
    (left,) = names(tmp_path)
    assert left.startswith(".folder.")
    leave_behind(tmp_path / "other", "die()")
    with atomic_folder(target) as partial:
        (partial / "a").touch()
    assert names(target) == ["a"]
    assert [name.split(".")[1] for name in names(tmp_path) if name.startswith(".")] == ["other"], "of its own target only"
    remove_abandoned(tmp_path)
    assert names(tmp_path) == ["folder"]


def test_a_process_killed_between_its_two_renames_loses_nothing(tmp_path):
    target = tmp_path / "folder"
    with atomic_folder(target) as partial:
        (partial / "old").touch()
    leave_behind(target, "files._rename_to_new = lambda *_: die()")
    assert not target.exists()
    remove_abandoned(tmp_path)
    assert names(tmp_path) == ["folder"]
    assert names(target) == ["old"]


def test_what_a_live_process_writes_is_not_abandoned(tmp_path):
    target = tmp_path / "folder"
    with atomic_folder(target) as first:
        (first / "a").touch()
        with atomic_folder(target) as second:
            (second / "b").touch()
        remove_abandoned(tmp_path)
        assert names(first) == ["a"]
        assert names(target) == ["b"]
    assert names(target) == ["a"]
    assert names(tmp_path) == ["folder"]


def test_other_hidden_names_are_nobodys_leftovers(tmp_path):
    kept = [".x.partial", ".x.12345678.partial.tar", ".git", "x.12345678.partial"]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / ".y.12345678.partial").write_text("a file")
    remove_abandoned(tmp_path)
    assert names(tmp_path) == sorted([*kept, ".y.12345678.partial"])


def test_a_folder_that_must_be_new_is_never_replaced(tmp_path):
    target = tmp_path / "folder"

    def meanwhile(partial: Path) -> None:
        (partial / "new").touch()
        target.mkdir()
        (target / "theirs").touch()

    with pytest.raises(TakenError, match="folder: there already"), atomic_folder(target, replace=False) as partial:
        meanwhile(partial)
    assert names(target) == ["theirs"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOLCK])
def test_without_locks_everything_is_written_and_nothing_cleared_up(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, "no locks here")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    left = tmp_path / ".folder.12345678.partial"
    left.mkdir()
    for name in ("old", "new"):
        with atomic_folder(tmp_path / "folder") as partial:
            (partial / name).touch()
    assert names(tmp_path) == [left.name, "folder"]
    assert names(tmp_path / "folder") == ["new"]


class Turns:
    """Runs jobs in threads, one at a time: each goes on, up to its next call of the system, when it is its turn."""

    def __init__(self, jobs, choices):
        self.jobs, self.choices = jobs, iter(choices)
        self.mine = [threading.Semaphore(0) for _ in jobs]
        self.back = threading.Semaphore(0)
        self.number: dict[int, int] = {}
        self.done: set[int] = set()
        self.errors: list[BaseException] = []

    def pause(self) -> None:
        number = self.number.get(threading.get_ident())
        if number is not None:
            self.back.release()
            self.mine[number].acquire()

    def run(self, look) -> None:
        threads = [threading.Thread(target=self._job, args=(number,)) for number in range(len(self.jobs))]
        for thread in threads:
            thread.start()
        alive = list(range(len(threads)))
        for turn in itertools.count():
            number = alive[next(self.choices, turn) % len(alive)]
            self.mine[number].release()
            self.back.acquire()
            look()
            if number in self.done:
                alive.remove(number)
            if not alive:
                break
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _job(self, number: int) -> None:
        self.mine[number].acquire()
        self.number[threading.get_ident()] = number
        try:
            self.jobs[number]()
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.done.add(number)
            self.back.release()


def write_whole(target: Path, token: str) -> None:
    with atomic_folder(target) as partial:
        (partial / "one").write_text(token)
        (partial / "two").write_text(token)


def token_of(target: Path) -> str:
    one, two = ((target / name).read_text() for name in ("one", "two"))
    assert one == two
    return one


@pytest.mark.parametrize("there", [False, True])
def test_several_writers_of_one_folder_in_any_order_of_their_steps(tmp_path, monkeypatch, there):
    flock, turns = fcntl.flock, None

    def in_turn(call):
        def called(*args, **kwargs):
            if turns is not None:
                turns.pause()
            return call(*args, **kwargs)

        return called

    def flock_in_turn(descriptor, operation):
        """Waits by giving the turn away, so that no order of steps hangs."""
        while True:
            turns.pause()
            try:
                return flock(descriptor, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                if operation & fcntl.LOCK_NB:
                    raise

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for name in ("rename", "open", "mkdir", "close"):
        monkeypatch.setattr(os, name, in_turn(getattr(os, name)))
    monkeypatch.setattr(files.fcntl, "flock", flock_in_turn)

    @given(st.lists(st.integers(0, 5), max_size=120))
    @settings(max_examples=150)
    def check(choices) -> None:
        nonlocal turns
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        target = folder / "folder"
        turns = None
        if there:
            target.mkdir()
            for name in ("one", "two"):
                (target / name).write_text("before")
        turns = Turns([functools.partial(write_whole, target, token) for token in "abc"], choices)

        def look() -> None:
            with contextlib.suppress(FileNotFoundError):
                token_of(target)

        turns.run(look)
        assert token_of(target) in "abc"
        assert names(folder) == ["folder"]

    check()


def test_processes_that_write_one_folder_at_once(tmp_path):
    target = tmp_path / "folder"
    script = (
        "import sys\nfrom pathlib import Path\nfrom tfebr.infrastructure import files\n"
        "for number in range(60):\n    with files.atomic_folder(sys.argv[1]) as partial:\n"
        "        for name in ('one', 'two'):\n            (partial / name).write_text(f'{sys.argv[3]} {number}')\n"
    )
    command = [sys.executable, "-c", STUB + script, str(target), str(Path(files.__file__).parents[1])]
    processes = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "abcd"]
    ends = [(process.communicate()[1], process.returncode) for process in processes]
    assert ends == [("", 0)] * 4
    assert token_of(target).split()[1] == "59"
    assert names(tmp_path) == ["folder"]


def test_a_folder_is_held_by_one_at_a_time(tmp_path, monkeypatch):
    with held(tmp_path) as first:
        with held(tmp_path) as second:
            assert (first, second) == (True, False)
    with held(tmp_path) as again:
        assert again
    monkeypatch.setattr(files.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no locks here")))
    with held(tmp_path) as without_locks, held(tmp_path) as other:
        assert without_locks
        assert other
