"""No path is read as a pattern: runs and servables in folders of any name leave their neighbours alone and come back whole."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from servable.toy_servable import QUESTIONS, toy_servable, write_unchecked

from tfebr import pipeline
from tfebr.errors import ConfigError
from tfebr.infrastructure.literal_paths import literal
from tfebr.models.run_folder import RunFolder
from tfebr.models.training import fit
from tfebr.servable import check
from tfebr.servable.manifest import verify_files
from tfebr.servable.write import write
from tfebr.server.loaded import Model

# Each beside names that it matches as a pattern.
NAMES = {
    "run[12]": ["run1", "run2"],
    "run[!a]": ["run1"],
    "a*b": ["a1b", "ab"],
    "a?b": ["a1b"],
    "a\\b": ["ab"],
    "[": [],
    "white space": [],
    "zażółć 漢字": [],
    "new\nline": [],
    "%s {0} $HOME ~": [],
}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def save(folder: Path, values: list[float]) -> None:
    variable = tf.Variable(0.0)
    folder.mkdir()
    with literal(folder) as path:
        manager = tf.train.CheckpointManager(tf.train.Checkpoint(v=variable), path, max_to_keep=2)
        for value in values:
            variable.assign(value)
            manager.save()


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_of_neighbours_stay_and_own_ones_come_back(tmp_path, name):
    for neighbour in NAMES[name]:
        save(tmp_path / neighbour, [1.0, 2.0])
    before = [content(tmp_path / neighbour) for neighbour in NAMES[name]]
    save(tmp_path / name, [3.0, 4.0, 5.0, 6.0])
    assert [content(tmp_path / neighbour) for neighbour in NAMES[name]] == before
    assert len(list(os.scandir(tmp_path / name))) == 5, "two checkpoints and the list of them"
    variable = tf.Variable(0.0)
    with literal(tmp_path / name) as path:
        tf.train.Checkpoint(v=variable).restore(tf.train.latest_checkpoint(path)).assert_consumed()
    assert float(variable) == 6.0


def test_a_plain_path_is_its_own(tmp_path):
    with literal(tmp_path) as path:
        assert path == str(tmp_path)
    with pytest.raises(FileNotFoundError), literal(tmp_path / "no[t]hing"):
        pass


def test_a_system_without_names_for_descriptors_refuses_patterns(tmp_path, monkeypatch):
    monkeypatch.setattr("tfebr.infrastructure.literal_paths._DESCRIPTORS", tmp_path / "nothing")
    (tmp_path / "run[1]").mkdir()
    with pytest.raises(ConfigError, match=r"run\[1\]: holds one of the characters .*Rename the folder"), literal(tmp_path / "run[1]"):
        pass


def test_a_run_trains_beside_one_that_its_name_matches(tiny_run, tmp_path):
    for name in ("run1", "run[12]"):
        shutil.copytree(tiny_run.path, tmp_path / name)
    for path in (tmp_path / "run[12]" / "checkpoints").iterdir():
        path.unlink()
    before = content(tmp_path / "run1")
    run = RunFolder(tmp_path / "run[12]")
    assert run.latest_checkpoint() is None
    fit(run, quiet=True, checkpoint_seconds=0.0)
    assert content(tmp_path / "run1") == before
    assert {path.suffix for path in run.checkpoints.iterdir()} == {"", ".index", ".data-00000-of-00001"}
    assert len(list(run.checkpoints.iterdir())) == 5
    np.testing.assert_allclose(run.trained_model().corpus_embeddings(), tiny_run.trained_model().corpus_embeddings(), atol=1e-4)
    reports = pipeline.evaluate([run.path], max_requests=20)
    assert reports["dpsr"].means()["mrr"] > 0
    assert content(tmp_path / "run1") == before


@pytest.mark.parametrize("name", ["run[12]", "a\\b", "new\nline"])
def test_a_servable_is_written_and_loaded_where_its_name_says(tmp_path, name):
    folder = write_unchecked(toy_servable("scann"), tmp_path / name / "toy")
    assert folder == tmp_path / name / "toy" / "1"
    verify_files(folder)
    query = check.complete_inputs(check.load(folder).signatures["serving_default"].structured_input_signature[1], QUESTIONS[0])
    expected = check.load(folder).signatures["serving_default"](**query)["scores"]
    found = Model(folder, 1).run("serving_default", {key: value.numpy() for key, value in query.items()})
    np.testing.assert_allclose(found["scores"], expected, rtol=1e-5)


def test_the_check_in_a_fresh_process_takes_such_a_name(tmp_path):
    assert write(toy_servable(), tmp_path / "a[b]*?\\ c" / "toy", {"model": "toy"}, QUESTIONS).is_dir()
