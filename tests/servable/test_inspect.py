"""`tfebr inspect`: what it says of every kind of folder, that it notices damage, and that hostile folders are one clear error."""

import contextlib
import importlib
import io
import json
import shutil
import sys
from typing import ClassVar

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tensorflow.core.protobuf import saved_model_pb2
from tiny_servable import write_tiny
from toy_servable import COLUMNS, EMBEDDINGS, IDS, ITEMS, QUESTIONS, K, ToyItems, ToyQueries, toy_servable

from tfebr import cli
from tfebr.data.item_ids import ItemIds
from tfebr.errors import ArtifactError, TfebrError
from tfebr.index.exact import ExactIndex
from tfebr.index.recall import build
from tfebr.servable import manifest
from tfebr.servable.describe import show
from tfebr.servable.inspect import inspect
from tfebr.servable.module import RetrievalServable
from tfebr.servable.warm_up import WARM_UP
from tfebr.servable.write import write

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")

STOCK = 0


class _EventQueries(ToyQueries):
    """Inputs and text operations as MGDSPR has them."""

    input_signature: ClassVar = ToyQueries.input_signature | {
        "history_stages": tf.TensorSpec([None, None], tf.int32),
        "history_ages": tf.TensorSpec([None, None], tf.int32),
    }

    def __call__(self, inputs):
        import tensorflow_text

        recent = tf.reduce_sum(tf.cast(inputs["history_stages"] * inputs["history_ages"], tf.float32), axis=1)
        folded = tensorflow_text.case_fold_utf8(inputs["query"])
        return super().__call__({**inputs, "query": folded}) + 1e-3 * recent[:, None, None]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Version folders by kind: over ScaNN with filters and a measured index, MGDSPR-like over core operations, and foreign."""
    folder = tmp_path_factory.mktemp("inspect")
    config = {"dim": 8, "heads": 2, "lengths": [50, 100], "training": {"epochs": 3}}
    _, report = build(EMBEDDINGS, EMBEDDINGS[:20, None, :], k=10, quiet=True)
    ids = ItemIds(np.array(IDS))
    events = RetrievalServable(_EventQueries(ids), ToyItems(), ExactIndex(EMBEDDINGS), ids, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_check_in_fresh_process", lambda folder: {"load_seconds": 0.25})
        about = {"model": "toy", "config": config}
        tree = write(toy_servable("tree", columns=COLUMNS), folder / "toy", about, QUESTIONS, report)
        return {
            "tree": tree,
            "events": write(events, folder / "run" / "servable" / "shop", {"model": "mgdspr"}, QUESTIONS),
            "tiny": write_tiny(folder / "tiny" / "7"),
        }


@pytest.fixture
def copy(written, tmp_path):
    """A version of a kind as the only one of a base folder, to be damaged."""

    def copy(kind, name="toy/1"):
        shutil.copytree(written[kind], tmp_path / name)
        return tmp_path / name

    return copy


def text(about):
    console = Console(file=io.StringIO(), width=140)
    show(about, console)
    return console.file.getvalue()


def rename_op(folder, old, new):
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for function in saved.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            node.op = new if node.op == old else node.op
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())


def test_a_version_over_scann(written):
    about = inspect(written["tree"])
    assert (about["name"], about["version"], about["model"]) == ("toy", 1, "toy")
    assert about["config"]["heads"] == 2
    assert about["versions"]["tensorflow"] == about["tensorflow"] == tf.__version__
    assert about["signatures"]["serving_default"]["inputs"]["prices"] == {"dtype": "float", "shape": [-1, 3]}
    assert set(about["signatures"]) == {"serving_default", "search", "attributes", "embed_query", "embed_items"}
    assert about["ops_outside_tensorflow"] == {"Scann>ScannSearchBatched": "scann", "Scann>TensorsToScann": "scann"}
    assert [server["runs"] for server in about["servers"]] == [False, True, True]
    assert "Scann>ScannSearchBatched" in about["servers"][STOCK]["advice"]
    assert (about["index"]["recall"], about["index"]["k"], about["index"]["recipe"]["kind"]) == (1.0, 10, "exact")
    assert about["results"] == {"default": K, "most": ITEMS}
    assert about["filter_columns"] == {"brand": "category", "Größe in %": "category", "price": "number"}
    on_disk = {p.relative_to(written["tree"]).as_posix(): p.stat().st_size for p in written["tree"].rglob("*") if p.is_file()}
    assert {name: file["bytes"] for name, file in about["files"].items()} == on_disk
    assert about["bytes"] == sum(on_disk.values())
    states = {name: file["state"] for name, file in about["files"].items()}
    assert states.pop(manifest.MANIFEST) == "list"
    assert set(states.values()) == {"ok"}
    assert about["damage"] == []
    assert about["warm_up"] == dict.fromkeys(sorted(about["signatures"]), 3)
    assert json.loads(json.dumps(about)) == about


def test_a_version_of_text_operations_runs_on_the_stock_image(written):
    about = inspect(written["events"])
    assert about["ops_outside_tensorflow"] == {"CaseFoldUTF8": "tensorflow_text"}
    assert [server["runs"] for server in about["servers"]] == [True, True, True]
    assert "2.20 or newer" in about["servers"][STOCK]["advice"]
    body = json.loads(about["requests"]["serving_default"]["curl"].split("'")[1])
    assert body["inputs"]["history_items"] == [["", *IDS[:5]]]
    assert body["inputs"]["history_stages"] == body["inputs"]["history_ages"] == [[0, 1, 1, 1, 1, 1]]


def test_a_foreign_saved_model(written):
    about = inspect(written["tiny"])
    assert (about["name"], about["version"], about["model"], about["index"], about["warm_up"]) == ("tiny", 7, None, None, None)
    assert {file["state"] for file in about["files"].values()} == {"unlisted"}
    assert all(server["runs"] for server in about["servers"])
    assert list(about["requests"]) == ["serving_default", "echo", "half", "inverse", "total"]
    assert '"query": ["your query"]' in about["requests"]["serving_default"]["curl"]
    assert "no manifest to compare with" in text(about)


def test_an_operation_of_nobody_has_no_server(copy):
    folder = copy("tiny")
    rename_op(folder, "StringJoin", "Unheard>Op")
    about = inspect(folder)
    assert about["ops_outside_tensorflow"] == {"Unheard>Op": None}
    assert not any(server["runs"] for server in about["servers"])
    assert all("Unheard>Op" in server["advice"] for server in about["servers"])


def test_the_model_is_not_loaded(written, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("loaded")

    for module, name in ((tf.saved_model, "load"), (tf, "load_op_library")):
        monkeypatch.setattr(module, name, refuse)
    assert inspect(written["tree"])["damage"] == []


def test_folders_above_stand_for_their_newest_version(written, tmp_path):
    base = tmp_path / "run" / "servable" / "shop"
    for name in ("2", "10", ".11.partial", "12.old"):
        shutil.copytree(written["events"], base / name)
    (base / "13").mkdir()
    (base / "models.config").write_text("")
    assert [inspect(folder)["version"] for folder in (base, tmp_path / "run", base / "2")] == [10, 10, 2]
    assert inspect(base)["name"] == "shop"
    shutil.copytree(base / "2", tmp_path / "taken")
    assert (inspect(tmp_path / "taken")["name"], inspect(tmp_path / "taken")["version"]) == ("taken", None)
    shutil.copytree(base, tmp_path / "run" / "servable" / "other")
    with pytest.raises(ArtifactError, match=r"name the one to inspect.*servable/other, .*servable/shop"):
        inspect(tmp_path / "run")


@pytest.mark.parametrize(
    "name", ["assets/scann_hashed_dataset.bin", "variables/variables.data-00000-of-00001", WARM_UP, manifest.SIGNATURE]
)
@pytest.mark.parametrize("damage", ["missing", "one bit", "shorter"])
def test_a_damaged_file_is_named(copy, name, damage):
    file = copy("tree") / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage == "one bit" else content[: len(content) // 2])
    about = inspect(file.parents[len(name.split("/")) - 1])
    (said,) = about["damage"]
    assert said.startswith(f"{file}: {'missing' if damage == 'missing' else 'damaged'}")
    assert about["files"][name]["state"] == ("missing" if damage == "missing" else "damaged")
    assert "1 damaged or missing" in text(about)


def test_a_file_more_is_no_damage(copy):
    folder = copy("tree")
    (folder / "notes.txt").write_text("mine")
    about = inspect(folder)
    assert about["files"]["notes.txt"] == {"bytes": 4, "state": "unlisted"}
    assert about["damage"] == []


def test_recorded_requests_that_no_longer_fit_are_damage(copy):
    folder = copy("tiny")
    (folder / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(folder / WARM_UP)) as writer:
        writer.write(b"\x32\x02\x0a\x00")
    (said,) = inspect(folder)["damage"]
    assert "tf_serving_warmup_requests: a recorded request fails" in said


def _run(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tfebr", "inspect", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def test_the_command_prints_tables_that_line_up(written, capsys, monkeypatch):
    code, out, err = _run(capsys, monkeypatch, written["tree"].parent)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    for wanted in ("toy, version 1", "dim 8, heads 2, lengths [50, 100]", "recall@10 1", "price (number)", "search 3"):
        assert any(wanted in line for line in lines), wanted
    start = next(number for number, line in enumerate(lines) if line.startswith("signature "))
    rows, column = lines[start + 1 : lines.index("", start)], lines[start].index("dtype")
    signatures = inspect(written["tree"])["signatures"]
    assert len(rows) == sum(len(sides["inputs"]) + len(sides["outputs"]) for sides in signatures.values())
    assert {row[column:].split()[0] for row in rows} == {"string", "float", "int32"}
    assert sum(line.startswith("curl ") for line in lines) == sum(line.startswith("grpcurl ") for line in lines) == len(signatures)


def test_the_command_prints_json_for_machines(written, capsys, monkeypatch):
    code, out, err = _run(capsys, monkeypatch, written["tree"], "--json")
    assert (code, err, json.loads(out)) == (0, "", inspect(written["tree"]))


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_the_command_fails_when_something_is_damaged(copy, capsys, monkeypatch, form):
    folder = copy("tree")
    (folder / "fingerprint.pb").unlink()
    code, out, err = _run(capsys, monkeypatch, folder, *form)
    assert code == 1
    assert "serving_default" in out
    assert "fingerprint.pb: missing" in err
    assert "Traceback" not in err


def _nested(folder):
    (folder / manifest.MANIFEST).write_text("[" * 100_000)


def _manifest(change):
    def damage(folder):
        path = folder / manifest.MANIFEST
        written = json.loads(path.read_text())
        change(written)
        path.write_text(json.dumps(written))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such folder"),
        (lambda folder: (shutil.rmtree(folder), folder.write_text("a file")), "no such folder"),
        (lambda folder: (folder / "saved_model.pb").unlink(), "holds no version"),
        (lambda folder: (folder / "saved_model.pb").write_bytes(b"\xff\xff"), r"saved_model\.pb: damaged"),
        (lambda folder: (folder / "saved_model.pb").write_bytes(b""), 'no graph with the tag "serve"'),
        (lambda folder: (folder / manifest.MANIFEST).write_text("{"), r"manifest\.json: damaged: .* not a JSON file"),
        (lambda folder: (folder / manifest.MANIFEST).write_text("[1]"), r"manifest\.json: damaged"),
        (_nested, r"manifest\.json: damaged"),
        (_manifest(lambda written: written.pop("files")), r"manifest\.json: damaged"),
        (_manifest(lambda written: written["files"].update({"../../x": {"bytes": 1, "sha256": ""}})), r"manifest\.json: damaged"),
        (_manifest(lambda written: written["files"].update({"/etc/hosts": {"bytes": 1, "sha256": ""}})), r"manifest\.json: damaged"),
        (_manifest(lambda written: written["files"].update({"x": {"bytes": "1"}})), r"manifest\.json: damaged"),
        (_manifest(lambda written: written["about"].update(config=[])), r"manifest\.json: damaged"),
    ],
)
def test_a_hostile_folder_is_one_clear_error(copy, damage, message):
    folder = copy("tree", "1")
    damage(folder)
    with pytest.raises(TfebrError, match=message):
        inspect(folder)


def test_a_run_folder_without_an_export_is_refused(tmp_path):
    (tmp_path / "servable").mkdir()
    with pytest.raises(ArtifactError, match="none; export first"):
        inspect(tmp_path)


def test_a_terminal_does_not_act_on_what_a_folder_says(copy):
    folder = copy("tree")
    _manifest(lambda written: written["about"].update(model="\x1b[31mred [bold]x[/bold]"))(folder)
    shown = text(inspect(folder))
    assert "\x1b" not in shown
    assert "[bold]x[/bold]" in shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(["recipe", "kind", "recall"]), inner),
    max_leaves=6,
)
OBJECT = st.dictionaries(st.sampled_from(["model", "config", "recipe", "recall", "k", "items", "fallback", "x"]), JSON, max_size=4)


@settings(max_examples=60)
@given(sections=st.fixed_dictionaries({name: OBJECT for name in ("about", "versions", "index", "filter_columns", "checked")}), whole=JSON)
def test_any_manifest_is_shown_or_refused(written, sections, whole):
    folder = written["tiny"]
    (folder / "assets.extra").mkdir(exist_ok=True)
    try:
        for value in ({**sections, "files": {}}, whole):
            (folder / manifest.MANIFEST).write_text(json.dumps(value))
            with contextlib.suppress(TfebrError):
                text(inspect(folder))
    finally:
        shutil.rmtree(folder / "assets.extra")
