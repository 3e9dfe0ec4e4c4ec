"""Shards are published together; what a kill leaves of a set is named, never rolled back to, and passed over by the next publication."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tfebr import cli
from tfebr.errors import ArtifactError
from tfebr.infrastructure.files import write_json
from tfebr.publishing.shards import publish_together, set_of, shard_names, shards_of
from tfebr.servable import shard_set
from tfebr.servable.version_folders import lacking_shards, next_version, prune, roll_back, versions
from tfebr.server.loaded import Model

SHARDS = 3


def ready(folder: Path, published_set: str | None, shards: int = SHARDS) -> list[Path]:
    """Shards as an export has written and checked them."""
    found = []
    for number, name in enumerate(shard_names("shop", shards)):
        version = folder / name / "1"
        (version / "assets.extra").mkdir(parents=True)
        (version / "saved_model.pb").touch()
        shard = {"number": number, "of": shards} | ({"set": published_set} if published_set else {})
        manifest = {name: {} for name in ("versions", "ops_outside_tensorflow", "files", "filter_columns")}
        write_json(version / "assets.extra" / "manifest.json", manifest | {"about": {"shard": shard}})
        found.append(version)
    return found


class Killed(BaseException):
    pass


def publish_killed(tmp_path: Path, servables: Path, monkeypatch, renames: int, published_set: str) -> None:
    """A publication that ends after so many of its renames, without a chance to clear up."""
    done, rename = [], os.rename

    def counted(source, target):
        if len(done) == renames:
            raise Killed
        rename(source, target)
        done.append(target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", counted)
        with pytest.raises(Killed):
            publish_together(ready(tmp_path / f"staging {published_set}", published_set), servables)


def states(servables: Path) -> list[list[tuple[int, bool]]]:
    """Of every shard, each version's number and whether it is said to be good, newest first."""
    return [[(v.number, v.problem is None) for v in versions(servables / name)] for name in shard_names("shop", SHARDS)]


def test_a_set_has_one_number_and_one_name(tmp_path):
    servables = tmp_path / "servable"
    servables.mkdir()
    assert shards_of(servables, "shop") == 0
    for number in (1, 2):
        folders = publish_together(ready(tmp_path / str(number), f"set {number}"), servables)
        assert folders == [servables / f"shop-shard-{i}" / str(number) for i in range(SHARDS)]
        assert [lacking_shards(folder) for folder in folders] == [()] * SHARDS
    assert shards_of(servables, "shop") == SHARDS
    assert shards_of(servables, "sho") == shards_of(servables, "shop-shard-1") == 0
    assert states(servables) == [[(2, True), (1, True)]] * SHARDS


@pytest.mark.parametrize("renames", range(SHARDS))
@pytest.mark.parametrize("first", [True, False])
def test_what_a_kill_leaves_of_a_set_is_named_and_passed_over(tmp_path, monkeypatch, renames, first):
    servables = tmp_path / "servable"
    servables.mkdir()
    if not first:
        publish_together(ready(tmp_path / "whole", "whole"), servables)
    publish_killed(tmp_path, servables, monkeypatch, renames, "torn")
    torn = 1 if first else 2
    for number in range(SHARDS):
        base = servables / f"shop-shard-{number}"
        if number < renames:
            newest = versions(base)[0]
            missing = ", ".join(f"shop-shard-{i}" for i in range(renames, SHARDS))
            assert newest.number == torn
            assert newest.problem == f"{base / str(torn)}: its set is not whole: {missing} does not have this version. Export again."
            # The table is made for eighty columns.
            output = " ".join(CliRunner().invoke(cli.app, ["versions", str(base)]).output.split())
            assert f"its set is not whole: {missing} does not have" in output
        elif not first:
            assert [(v.number, v.problem) for v in versions(base)] == [(1, None)]
    # A name that was never whole stays free for another number of shards only where nothing of it can be seen.
    assert shards_of(servables, "shop") == (0 if first and not renames else SHARDS)

    new = publish_together(ready(tmp_path / "next", "next"), servables)
    assert {folder.name for folder in new} == {str(torn + bool(renames))}
    assert [lacking_shards(folder) for folder in new] == [()] * SHARDS
    for number in range(renames):
        base = servables / f"shop-shard-{number}"
        with pytest.raises(ArtifactError, match=rf"{base.name}/{torn}: shop-shard-.* does not have this version"):
            roll_back(base)
        prune(base, 1)
        assert [v.problem for v in versions(base)] == [None]


def test_a_shard_that_was_rolled_back_is_there_and_one_of_another_set_is_not(tmp_path):
    servables = tmp_path / "servable"
    servables.mkdir()
    for number in (1, 2):
        publish_together(ready(tmp_path / str(number), f"set {number}"), servables)
    roll_back(servables / "shop-shard-1")
    assert states(servables) == [[(2, True), (1, True)]] * SHARDS
    shutil.rmtree(servables / "shop-shard-2" / "2")
    shutil.copytree(servables / "shop-shard-2" / "1", servables / "shop-shard-2" / "2")
    assert states(servables) == [[(2, False), (1, True)]] * 3


def test_shards_of_other_machines_and_of_other_times_are_not_looked_for(tmp_path):
    servables = tmp_path / "servable"
    servables.mkdir()
    publish_together(ready(tmp_path / "1", "one"), servables)
    shutil.move(servables / "shop-shard-1", tmp_path / "alone")
    for base in (servables / "shop-shard-0", tmp_path / "alone"):
        assert [v.problem for v in versions(base)] == [None]
    # Before sets had names.
    (before,) = ready(tmp_path / "before", None, 2)[:1]
    assert lacking_shards(before) == ()


def test_a_rename_that_fails_leaves_no_shard_of_the_set(tmp_path, monkeypatch):
    servables = tmp_path / "servable"
    servables.mkdir()
    rename = os.rename

    def full_at_the_last(source, target):
        if "shop-shard-2" in str(target):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", full_at_the_last)
    with pytest.raises(ArtifactError, match=r"shop-shard-2/1: not published, nor is any other shard: No space left"):
        publish_together(ready(tmp_path / "1", "one"), servables)
    assert [next_version(servables / name) for name in shard_names("shop", SHARDS)] == [1] * SHARDS
    assert shards_of(servables, "shop") == 0


def test_a_set_is_named_by_what_decides_its_answers():
    assert set_of(catalogue="a", k=1) == set_of(k=1, catalogue="a")
    assert re.fullmatch("[0-9a-f]{32}", set_of(catalogue="a", k=1))
    assert len({set_of(catalogue="a", k=1), set_of(catalogue="a", k=2), set_of(catalogue="b", k=1)}) == 3


def test_a_written_shard_says_its_set_among_its_signatures(tmp_path):
    """In the SavedModel itself: TensorFlow Serving passes on nothing else."""
    from google.protobuf.json_format import MessageToDict
    from servable.toy_servable import QUESTIONS, toy_servable
    from tensorflow.core.protobuf import saved_model_pb2

    from tfebr.servable.write import write

    folder = write(toy_servable(), tmp_path / "shop-shard-0", {"shard": {"number": 0, "of": 2, "set": "abc"}}, QUESTIONS)
    (graph,) = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs
    assert shard_set.read(MessageToDict(graph, preserving_proto_field_name=True)["signature_def"]) == "abc"
    # It answers as before, where the entry is one more that cannot be asked.
    model = Model(folder, 1)
    query = {
        "query": np.array(["red shoes"], object),
        "user_age": np.array([""], object),
        "history_items": np.array([["sku-4"]], object),
        "prices": np.zeros([1, 3], np.float32),
    }
    given = {name: query[name].astype(spec.dtype.as_numpy_dtype) for name, spec in model.inputs("serving_default").items()}
    assert len(model.run("serving_default", given)["ids"]) == 1
