"""The folder that a server watches, as TensorFlow Serving treats it at each look; and manifests that nobody wrote."""

import json
import logging
import os
import shutil
import time

import httpx
import numpy as np
import pytest
from tiny_servable import write_tiny
from toy_servable import toy_servable, write_unchecked
from typer.testing import CliRunner

from tfebr import cli
from tfebr.client.client import Client
from tfebr.errors import ArtifactError
from tfebr.servable.manifest import MANIFEST, read_manifest
from tfebr.servable.version_folders import versions as published
from tfebr.server import versions as versions_module
from tfebr.server.server import Server
from tfebr.server.versions import Versions


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    return {mark: write_tiny(folder / str(mark), mark) for mark in (1, 2, 3)}


@pytest.fixture
def base(tmp_path, written):
    base = tmp_path / "shop"
    shutil.copytree(written[1], base / "1")
    return base


@pytest.fixture
def looking():
    """Versions of a folder that are looked at only when a test says so."""
    made = []

    def make(base, **settings):
        made.append(Versions(base, poll_seconds=3600, **settings))
        return made[-1]

    yield make
    for versions in made:
        versions.close()


def states(versions):
    found = versions.status(versions.name).model_version_status
    return {status.version: status.State.Name(status.state) for status in found}


def problem(versions, number):
    (status,) = versions.status(versions.name, number).model_version_status
    return status.status.error_message


def test_a_folder_that_goes_and_comes_back_changes_nothing(base, looking, caplog):
    versions = looking(base)
    away = base.with_name("away")
    base.rename(away)
    for _ in range(3):
        versions.refresh()
    assert versions.loaded() == [1]
    assert sum("cannot be looked at" in record.getMessage() for record in caplog.records) == 1, "said once, not at every look"
    away.rename(base)
    versions.refresh()
    assert states(versions) == {1: "AVAILABLE"}
    base.rename(away)
    versions.refresh()
    assert sum("cannot be looked at" in record.getMessage() for record in caplog.records) == 2


def test_a_file_in_the_place_of_the_folder_changes_nothing(base, looking):
    versions = looking(base)
    base.rename(base.with_name("away"))
    base.write_text("not a folder")
    versions.refresh()
    assert versions.loaded() == [1]


def test_a_folder_without_any_version_lets_go_of_all(base, written, looking):
    told = []
    versions = looking(base, changed=told.append)
    (base / "1").rename(base / ".hidden")
    versions.refresh()
    assert (versions.loaded(), states(versions), told) == ([], {1: "END"}, [False])
    shutil.copytree(written[2], base / "2")
    versions.refresh()
    assert (states(versions), told) == ({2: "AVAILABLE", 1: "END"}, [False, True])


def test_without_a_version_requests_are_not_found_until_there_is_one(base):
    with Server(base, rest_port=0, grpc_port=0, poll_seconds=0.02) as server:
        (base / "1").rename(base / ".hidden")
        url = f"{server.rest_url}/v1/models/shop"
        end = time.monotonic() + 30
        while httpx.get(f"{url}/metadata").status_code != 404:
            assert time.monotonic() < end
        assert "Servable not found for request: Latest(shop)" in httpx.get(f"{url}/metadata").json()["error"]
        assert httpx.get(url).json()["model_version_status"][0]["state"] == "END"
        (base / ".hidden").rename(base / "1")
        while httpx.get(f"{url}/metadata").status_code != 200:
            assert time.monotonic() < end
        with Client(server.rest_url, "shop") as client:
            assert client.query("lamp")[0].ids[1] == "mark 1"


@pytest.mark.parametrize("name", ["2", "02", "0002"])
def test_zeros_may_lead_a_number(base, written, looking, name):
    shutil.copytree(written[2], base / name)
    assert states(looking(base)) == {2: "AVAILABLE"}


def test_of_two_names_for_one_number_the_last_counts(base, written, looking):
    """In the order of their names, as TensorFlow Serving reads them."""
    for name, mark in (("0007", 2), ("7", 3), ("07", 2)):
        shutil.copytree(written[mark], base / name)
    versions = looking(base)
    row = {"query": np.array([b"lamp"], object), "user_age": np.array([b""], object), "history_items": np.array([[b""]], object)}
    assert versions.get("shop", 7).run("", row)["ids"][0, 1] == b"mark 3"


@pytest.mark.parametrize("name", ["latest", "v2", "2.old", "2 ", "٣", "²", "-2", "+2", "1e3", str(2**63), "9" * 40, ".2.partial"])
def test_other_names_are_no_versions(base, written, looking, name):
    shutil.copytree(written[2], base / name)
    versions = looking(base)
    versions.refresh()
    assert states(versions) == {1: "AVAILABLE"}


def test_the_largest_number_is_a_version(base, written, looking):
    shutil.copytree(written[2], base / str(2**63 - 1))
    assert looking(base).loaded() == [2**63 - 1]


def test_links_are_followed_at_each_look(tmp_path, written, looking):
    """As a release is switched: the folder itself is a link, or a version in it."""
    for release, mark in (("a", 1), ("b", 2)):
        shutil.copytree(written[mark], tmp_path / release / str(mark))
    base = tmp_path / "shop"
    base.symlink_to("a")
    versions = looking(base)
    assert (versions.name, versions.loaded()) == ("shop", [1])
    other = tmp_path / "other"
    other.symlink_to("b")
    os.replace(other, base)
    versions.refresh()
    assert versions.loaded() == [2]
    (tmp_path / "b" / "3").symlink_to(written[3])
    (tmp_path / "b" / "4").symlink_to(tmp_path / "nowhere")
    versions.refresh()
    assert versions.loaded() == [3]
    assert "holds no saved_model.pb" in problem(versions, 4)


def test_a_number_without_a_graph_ends_with_an_error_until_it_has_one(base, written, looking):
    versions = looking(base)
    (base / "2" / "variables").mkdir(parents=True)
    (base / "3").write_text("a file")
    versions.refresh()
    assert states(versions) == {3: "END", 2: "END", 1: "AVAILABLE"}
    shutil.copytree(written[2], base / "2", dirs_exist_ok=True)
    versions.refresh()
    assert states(versions) == {3: "END", 2: "AVAILABLE", 1: "END"}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_unchecked(toy_servable(), tmp_path_factory.mktemp("servable") / "toy")


def changed(change):
    def damage(path):
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))

    return damage


def huge(path):
    with path.open("r+b") as file:
        file.truncate(2**30)


HOSTILE = {
    "list": lambda path: path.write_text("[1, 2]"),
    "null": lambda path: path.write_text("null"),
    "text": lambda path: path.write_text('"x"'),
    "number": lambda path: path.write_text("1"),
    "empty": lambda path: path.write_text(""),
    "empty object": lambda path: path.write_text("{}"),
    "half": lambda path: path.write_text(path.read_text()[:50]),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe{}"),
    "nested": lambda path: path.write_text("[" * 100_000),
    "huge": huge,
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "files is a list": changed(lambda manifest: manifest.update(files=["a"])),
    "files is null": changed(lambda manifest: manifest.update(files=None)),
    "a file is a number": changed(lambda manifest: manifest["files"].update({"saved_model.pb": 3})),
    "a size is text": changed(lambda manifest: manifest["files"]["saved_model.pb"].update(bytes="7")),
    "a size is negative": changed(lambda manifest: manifest["files"]["saved_model.pb"].update(bytes=-1)),
    "a hash is missing": changed(lambda manifest: manifest["files"]["saved_model.pb"].pop("sha256")),
    "a file outside": changed(lambda manifest: manifest["files"].update({"../../x": {"bytes": 0, "sha256": ""}})),
    "a file at the root": changed(lambda manifest: manifest["files"].update({"/dev/zero": {"bytes": 0, "sha256": ""}})),
    "a zero byte": changed(lambda manifest: manifest["files"].update({"a\0b": {"bytes": 0, "sha256": ""}})),
    "about is a list": changed(lambda manifest: manifest.update(about=[])),
    "no about": changed(lambda manifest: manifest.pop("about")),
    "ops is a number": changed(lambda manifest: manifest.update(ops_outside_tensorflow=1)),
    "index is text": changed(lambda manifest: manifest.update(index="x")),
    "items are text": changed(lambda manifest: manifest.update(index={"items": "many"})),
    "created is a number": changed(lambda manifest: manifest.update(created=5)),
    "created is no time": changed(lambda manifest: manifest.update(created="yesterday")),
    "bytes is a list": changed(lambda manifest: manifest.update(bytes=[1])),
    "shard is a number": changed(lambda manifest: manifest["about"].update(shard=7)),
    "a set is a number": changed(lambda manifest: manifest["about"].update(shard={"set": 7})),
}


@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_manifest_is_reported_by_name_and_older_versions_go_on(toy, tmp_path, looking, damage, caplog):
    base = tmp_path / "toy"
    shutil.copytree(toy, base / "1")
    versions = looking(base)
    shutil.copytree(toy, base / "2")
    damage(base / "2" / MANIFEST)
    with caplog.at_level(logging.ERROR):
        versions.refresh()
        versions.refresh()
    assert states(versions) == {2: "END", 1: "AVAILABLE"}
    assert str(base / "2" / MANIFEST) in problem(versions, 2)
    assert sum(str(base / "2" / MANIFEST) in record.getMessage() for record in caplog.records) == 1
    with pytest.raises(ArtifactError, match=r"manifest\.json: damaged"):
        Versions(base / "2")
    with pytest.raises(ArtifactError, match=r"manifest\.json: damaged"):
        read_manifest(base / "2")
    # The list of versions has them all, and says which one is damaged.
    found = {version.number: version for version in published(base)}
    assert found[1].problem is None
    assert str(base / "2" / MANIFEST) in found[2].problem
    shown = CliRunner().invoke(cli.app, ["versions", str(base)])
    assert shown.exit_code == 0, shown.output
    assert str(base / "2" / MANIFEST) in shown.output.replace("\n", "")
    shutil.rmtree(base / "2" / MANIFEST) if (base / "2" / MANIFEST).is_dir() else (base / "2" / MANIFEST).unlink()
    shutil.copy(toy / MANIFEST, base / "2" / MANIFEST)
    versions.refresh()
    assert states(versions) == {2: "AVAILABLE", 1: "END"}


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), RecursionError("x"), MemoryError("x"), RuntimeError("x")])
def test_whatever_loading_raises_ends_the_version_with_an_error(base, written, looking, error, monkeypatch):
    versions = looking(base)
    shutil.copytree(written[2], base / "2")

    def fail(folder, version):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(versions_module, "Model", fail)
        versions.refresh()
    assert states(versions) == {2: "END", 1: "AVAILABLE"}
    assert type(error).__name__ in problem(versions, 2)
    assert str(base / "2") in problem(versions, 2)
    with monkeypatch.context() as patch:
        patch.setattr(versions_module, "Model", fail)
        with pytest.raises(ArtifactError, match=type(error).__name__):
            Versions(base)
