"""The same run gives the same servable: in any process, at any place, and however much a process has done before."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tfebr.servable import check
from tfebr.servable.manifest import read_manifest, verify_files
from tfebr.servable.warm_up import WARM_UP

SCRIPT = Path(__file__).with_name("repeated_exports.py")
KINDS = ("exact", "tree", "ivf")
# What was measured, which is never twice the same.
MEASURED = {"assets.extra/recall.png"}


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    """Two copies of a run in folders of unequal depth, each exported by a process of its own that hashes and counts otherwise."""
    folder = tmp_path_factory.mktemp("repeatable")
    runs, processes = [folder / "one", folder / "another" / "place" / "with spaces"], []
    for number, run in enumerate(runs):
        shutil.copytree(tiny_run.path, run)
        environment = os.environ | {"PYTHONHASHSEED": str(number + 1), "TF_NUM_INTRAOP_THREADS": str(number + 1)}
        command = [sys.executable, str(SCRIPT), str(run), str(number + 1)]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    for process in processes:
        said, _ = process.communicate()
        assert process.returncode == 0, said[-3000:]
    return runs


def versions_of(runs, name):
    return sorted(path for run in runs for path in (run / "servable" / name).iterdir())


@pytest.mark.parametrize("name", KINDS)
def test_every_file_is_the_same_but_for_what_was_measured(exported, name):
    versions = versions_of(exported, name)
    manifests = [read_manifest(version) for version in versions]
    assert len(versions) == (2 if name == "exact" else 3), "twice in one of the processes"
    for version, manifest in zip(versions, manifests, strict=True):
        verify_files(version)
        assert manifest["index"]["recipe"]["kind"] == name
        hashes = {file: about["sha256"] for file, about in manifest["files"].items() if file not in MEASURED}
        assert hashes == {file: manifests[0]["files"][file]["sha256"] for file in hashes}
        assert manifest["content"] == manifests[0]["content"]
        assert manifest["about"] == manifests[0]["about"]
        assert name == "exact" or len(manifest["index"]["curve"]) > 2, "settings were chosen"
    assert WARM_UP in hashes
    assert any(file.startswith("assets/scann_") for file in hashes) == (name == "tree")


def test_another_index_is_other_content(exported):
    assert len({read_manifest(versions_of(exported, name)[0])["content"] for name in KINDS}) == len(KINDS)


def test_no_file_names_the_place_where_it_was_made(exported):
    for name in KINDS:
        for version in versions_of(exported, name):
            for path in version.rglob("*"):
                if path.is_file():
                    assert not re.search(rb"/repeatable|with spaces|" + re.escape(str(Path.cwd()).encode()), path.read_bytes()), path


@pytest.mark.parametrize("name", KINDS)
def test_versions_of_one_run_and_of_others_answer_side_by_side(exported, name):
    """Tables and functions of equal names are of equal content: loaded into one process, none answers for another."""
    answers = []
    for version in versions_of(exported, name):
        find = check.load(version).signatures["search"]
        inputs = check.complete_inputs(find.structured_input_signature[1], {"query": ["red shoes", "lamp"], "k": [5, 5]})
        answers.append({key: value.numpy().tolist() for key, value in find(**inputs).items()})
    assert all(answer["ids"] == answers[0]["ids"] for answer in answers)
    assert answers[0]["num_results"] == [5, 5]
