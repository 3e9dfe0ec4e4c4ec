"""The C program loads and queries a version folder, and says what is missing without ScaNN's library."""

import gc
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toy_servable import IDS, QUESTIONS, toy_servable

from tfebr.servable import check, manifest
from tfebr.servable.write import write

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")

SOURCE = Path(__file__).parents[2] / "export" / "load_check"
pytestmark = pytest.mark.skipif(
    not (sys.platform == "linux" and shutil.which("make") and shutil.which("cc")), reason="needs Linux with make and a C compiler (cc)"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    build = tmp_path_factory.mktemp("load_check")
    subprocess.run(["make", "-s", f"PYTHON={sys.executable}", f"BUILD={build}"], cwd=SOURCE, check=True)
    return build / "load_check"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A version folder over ScaNN and one of core operations."""
    base = tmp_path_factory.mktemp("servable")
    with pytest.MonkeyPatch.context() as patch:
        # This program is the check here.
        patch.setattr(writing, "_check_in_fresh_process", lambda folder: {"ok": True})
        path, core = write(toy_servable("tree"), base / "toy", {}, QUESTIONS), write(toy_servable(), base / "core", {}, QUESTIONS)
    gc.collect()
    # Another place, and the process that wrote it has let go of its own files: the folder must stand alone.
    return path.rename(tmp_path_factory.mktemp("moved") / "1"), core


def _run(program, folder, *arguments):
    ended = subprocess.run([program, folder, *arguments], capture_output=True, text=True, check=False)
    lines = dict(line.split(": ", 1) for line in ended.stdout.splitlines())
    return ended, lines


def test_it_answers_like_python(program, folders):
    libraries = manifest.op_libraries(manifest.read_manifest(folders[0])["ops_outside_tensorflow"])
    assert [path.name for path in libraries] == ["_scann_ops.so"]
    flags = [flag for path in libraries for flag in ("-l", str(path))]
    ended, lines = _run(program, folders[0], *flags, "query=red shoes", "history_items=sku-4")
    assert ended.returncode == 0, ended.stderr
    find = check.load(folders[0]).signatures["serving_default"]
    answer = find(**check.complete_inputs(find.structured_input_signature[1], {"query": ["red shoes"], "history_items": [["sku-4"]]}))
    assert lines["ids"].split() == [i.decode() for i in answer["ids"].numpy()[0, :10]]
    assert lines["num_results"] == "20"
    assert [float(s) for s in lines["scores"].split()] == pytest.approx(answer["scores"].numpy()[0, :10].tolist(), rel=1e-4)
    assert float(lines["load_seconds"]) > 0


def test_inputs_not_given_are_empty(program, folders):
    libraries = manifest.op_libraries(["Scann>TensorsToScann"])
    ended, lines = _run(program, folders[0], "-l", str(libraries[0]))
    assert ended.returncode == 0, ended.stderr
    assert set(lines["ids"].split()) <= set(IDS)


def test_without_scanns_library_it_fails_with_the_servers_words(program, folders):
    ended, _ = _run(program, folders[0], "query=red shoes")
    assert ended.returncode == 1
    assert "Op type not registered 'Scann>TensorsToScann'" in ended.stderr


def test_a_core_model_needs_no_library(program, folders):
    ended, lines = _run(program, folders[1], "query=red shoes")
    assert ended.returncode == 0, ended.stderr
    assert len(lines["ids"].split()) == 10


def test_a_wrong_call_is_told(program, tmp_path):
    ended, _ = _run(program, tmp_path)
    assert ended.returncode == 2
    assert "signature.txt" in ended.stderr
