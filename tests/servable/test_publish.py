"""Versions: what a polling reader sees while they are written, killed, rolled back, restored and pruned."""

import contextlib
import datetime
import importlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from threads import in_thread
from toy_servable import EMBEDDINGS, QUESTIONS, toy_servable
from typer.testing import CliRunner

from tfebr import cli
from tfebr.errors import ArtifactError, ConfigError
from tfebr.index.recall import build
from tfebr.servable.manifest import verify_files
from tfebr.servable.version_folders import next_version, prune, restore, roll_back, versions
from tfebr.servable.write import write

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One version, as `write` leaves it."""
    base = tmp_path_factory.mktemp("servable") / "toy"
    _, report = build(EMBEDDINGS, EMBEDDINGS[:20, None, :], k=10, quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_check_in_fresh_process", lambda folder: {})
        return write(toy_servable(), base, {"model": "toy"}, QUESTIONS[:1], report)


@pytest.fixture
def base(tmp_path, written):
    base = tmp_path / "toy"
    for number in (1, 2, 3):
        shutil.copytree(written, base / str(number))
    return base


def names(base):
    return sorted(path.name for path in base.iterdir())


def states(base):
    return {version.number: version.state for version in versions(base)}


class Reader:
    """Looks at a base folder again and again; every folder with a number must be whole at once."""

    def __init__(self, base):
        self.base, self.faults, self.looks, self.seen = base, [], 0, set()

    def look_until(self, stop):
        while not stop.wait(0.002):
            self.looks += 1
            for path in self.base.iterdir():
                if path.name.isdecimal():
                    self.seen.add(path.name)
                    try:
                        verify_files(path)
                    except ArtifactError as error:
                        self.faults.append(str(error))


@contextlib.contextmanager
def reading(base):
    reader = Reader(base)
    with in_thread(reader.look_until):
        yield reader


def test_a_reader_never_sees_a_part_whatever_moment_the_export_is_killed_at(tmp_path, written):
    base, template = tmp_path / "toy", tmp_path / "template"
    shutil.copytree(written, base / "1")
    shutil.copytree(written, template, ignore=shutil.ignore_patterns("assets.extra"))
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(Path(__file__).with_name("killed_export.py")), str(base), str(template)]
    with reading(base) as reader:
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stderr[-2000:]
    killed = int(ended.stdout.splitlines()[-1])
    assert killed >= 20, "every writing operation of an export is a moment"
    assert reader.faults == []
    assert reader.looks > killed
    verify_files(base / "2")
    # Each export cleared up after the one that was killed before it, the last one too.
    assert names(base) == ["1", "2"]


def test_a_whole_process_that_is_killed_leaves_what_the_next_export_clears_up(tmp_path, monkeypatch):
    base = tmp_path / "toy"
    script = (
        "import signal, sys, tfebr\n"
        "import importlib; writing = importlib.import_module('tfebr.servable.write')\n"
        "from toy_servable import QUESTIONS, toy_servable\n"
        "writing._check_in_fresh_process = lambda folder: (print('checking', flush=True), signal.pause())\n"
        "writing.write(toy_servable(), sys.argv[1], {}, QUESTIONS[:1])\n"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(base)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "checking\n"
        (left,) = names(base)
        assert left.startswith(".1.")
        assert left.endswith(".partial")
        monkeypatch.setattr(writing, "_check_in_fresh_process", lambda folder: {})
        assert write(toy_servable(), base, {}, QUESTIONS[:1]) == base / "1"
        assert names(base) == [left, "1"], "its owner lives"
        process.send_signal(signal.SIGKILL)
    assert write(toy_servable(), base, {}, QUESTIONS[:1]) == base / "2"
    assert names(base) == ["1", "2"]


def test_versions_are_listed_newest_first(base, written):
    found = versions(base)
    assert [(version.number, version.state) for version in found] == [(3, "served"), (2, "older"), (1, "older")]
    newest = found[0]
    assert (newest.model, newest.items, newest.recall, newest.folder) == ("toy", 300, 1.0, base / "3")
    assert abs(datetime.datetime.now(datetime.timezone.utc) - newest.created) < datetime.timedelta(minutes=5)
    files = sum(path.stat().st_size for path in written.rglob("*") if path.is_file())
    assert newest.bytes == files - (written / "assets.extra" / "manifest.json").stat().st_size


def test_a_foreign_model_is_listed_with_what_is_known(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "saved_model.pb").write_bytes(b"")
    (found,) = versions(tmp_path)
    assert (found.number, found.state, found.model, found.recall, found.items, found.bytes) == (7, "served", None, None, None, None)
    assert found.created.tzinfo is not None


def test_rolled_back_versions_are_hidden_and_come_back_in_order(base):
    assert roll_back(base) == base / "2"
    assert names(base) == [".3.rolled-back", "1", "2"]
    assert states(base) == {3: "rolled back", 2: "served", 1: "older"}
    assert roll_back(base) == base / "1"
    with pytest.raises(ArtifactError, match="no earlier version to go back to"):
        roll_back(base)
    assert restore(base) == base / "2"
    assert restore(base) == base / "3"
    assert states(base) == {3: "served", 2: "older", 1: "older"}
    with pytest.raises(ArtifactError, match="no version was rolled back since version 3"):
        restore(base)
    for number in "123":
        verify_files(base / number)


def test_a_number_that_was_rolled_back_is_not_given_again(base, monkeypatch):
    monkeypatch.setattr(writing, "_check_in_fresh_process", lambda folder: {})
    roll_back(base)
    assert next_version(base) == 4
    assert write(toy_servable(), base, {}, QUESTIONS[:1]) == base / "4"
    assert states(base) == {4: "served", 3: "rolled back", 2: "older", 1: "older"}
    with pytest.raises(ArtifactError, match="no version was rolled back since version 4"):
        restore(base)


def test_a_reader_sees_whole_versions_while_others_come_and_go(base):
    with reading(base) as reader:
        for _ in range(30):
            roll_back(base)
            restore(base)
    assert reader.seen <= {"1", "2", "3"}
    # A folder may go between being seen and being read, as a whole: nothing is ever half there.
    assert all("manifest.json is missing" in fault or "missing, though" in fault for fault in reader.faults)


def test_nobody_is_rolled_back_to_a_damaged_version(base):
    (base / "2" / "variables" / "variables.index").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"toy/2/variables/variables.index: damaged"):
        roll_back(base)
    assert names(base) == ["1", "2", "3"]


@pytest.mark.parametrize(("keep", "left"), [(1, ["3"]), (2, ["2", "3"]), (3, ["1", "2", "3"]), (9, ["1", "2", "3"])])
def test_prune_keeps_the_newest(base, keep, left):
    assert prune(base, keep) == sorted({1, 2, 3} - set(map(int, left)))
    assert names(base) == left


def test_prune_never_takes_the_served_one_nor_what_can_be_restored(base):
    roll_back(base)
    assert prune(base, 1) == [1]
    assert states(base) == {3: "rolled back", 2: "served"}
    assert prune(base, 1) == []
    restore(base)
    roll_back(base)
    os.rename(base / ".3.rolled-back", base / ".1.rolled-back")
    assert prune(base, 5) == [1], "older than the served one, it could not be served again"
    assert names(base) == ["2"]
    with pytest.raises(ConfigError, match=r"`keep` must be a whole number of at least 1\. Received: 0"):
        prune(base, 0)


def test_what_a_killed_prune_leaves_is_cleared_up(base, monkeypatch):
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prune(base, 2)
    monkeypatch.undo()
    assert names(base)[1:] == ["2", "3"]
    monkeypatch.setattr(writing, "_check_in_fresh_process", lambda folder: {})
    write(toy_servable(), base, {}, QUESTIONS[:1])
    assert names(base) == ["2", "3", "4"]


def test_a_folder_without_versions_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="none: holds no servable version yet"):
        versions(tmp_path / "none")
    with pytest.raises(ArtifactError, match="no earlier version"):
        roll_back(tmp_path / "none")
    with pytest.raises(ArtifactError, match="nothing to restore"):
        restore(tmp_path / "none")
    assert prune(tmp_path / "none", 1) == []


def test_the_command(base):
    def run(*arguments):
        result = CliRunner().invoke(cli.app, ["versions", str(base), *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    assert "served" in run()
    assert "rolled back" in run("--rollback")
    assert "rolled back" not in run("--restore")
    assert "deleted: 1, 2" in run("--prune", "1")
    result = CliRunner().invoke(cli.app, ["versions", str(base), "--rollback", "--prune", "1"])
    assert isinstance(result.exception, ConfigError)
