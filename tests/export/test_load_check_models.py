"""The C program loads and queries every model: over ScaNN, on core operations with TensorFlow Text's, and the index with no op library."""

import dataclasses
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from toy_servable import QUESTIONS, toy_servable

from tfebr.data.item_ids import ItemIds
from tfebr.data.log import split_time
from tfebr.index.kinds import index_of
from tfebr.index.recipe import Recipe
from tfebr.models.config import from_dict
from tfebr.models.encoders import RawItemEncoder, RawQueryEncoder
from tfebr.models.run_folder import RunFolder, prepare_run
from tfebr.models.zoo import model_class
from tfebr.servable import manifest
from tfebr.servable.check import complete_inputs
from tfebr.servable.module import RetrievalServable

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")

FOLDER = Path(__file__).parents[2] / "export" / "load_check"
pytestmark = pytest.mark.skipif(
    not (sys.platform == "linux" and shutil.which("make") and shutil.which("cc")), reason="needs Linux with make and a C compiler (cc)"
)
K = 20
TREE, IVF = Recipe("tree", leaves=4, leaves_to_search=4, reorder=100), Recipe("ivf", leaves=8, leaves_to_search=3)
# MGDSPR reads other grains of the query than the rest, so that it needs a run folder of its own.
MGDSPR = {"dim": 16, "heads": 2, "column_dim": 2, "random_negatives": 10, "hard": 5, "lengths": [3, 4, 5]}
MODELS = {"dpsr": {"dim": 8, "heads": 2}, "two_tower": {"dim": 8}, "mmse": {"dim": 8}, "mgdspr": MGDSPR}

# What does not differ by model, such as how a missing library is told, is asked of this one only.
ONE = "dpsr"


@dataclasses.dataclass
class Model:
    """A model with the weights that it begins with: what it finds is arbitrary, but the same wherever the folder is loaded."""

    run: RunFolder
    network: tf.keras.Model
    encoders: tuple[RawQueryEncoder, RawItemEncoder]
    inputs: dict[str, list]

    def servable(self, recipe: Recipe) -> RetrievalServable:
        known = ItemIds(self.run.data.catalogue().item_ids)
        return RetrievalServable(*self.encoders, index_of(recipe, self.network.corpus_embeddings()), known, K)


@pytest.fixture(scope="module", autouse=True)
def _unchecked():
    """This program is the check here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_check_in_fresh_process", lambda folder: {"ok": True})
        yield


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    build = tmp_path_factory.mktemp("load_check")
    subprocess.run(["make", "-s", f"PYTHON={sys.executable}", f"BUILD={build}"], cwd=FOLDER, check=True)
    return build / "load_check"


@pytest.fixture(scope="module")
def prepared(tiny_shop, tmp_path_factory):
    """Run folders of the tiny shop by the model they are made for."""
    split = split_time(tiny_shop.log())
    return {
        name: prepare_run(
            tmp_path_factory.mktemp("runs") / name, name, from_dict(model_class(name).Config, MODELS[name]), tiny_shop, split, quiet=True
        )
        for name in ("dpsr", "mgdspr")
    }


@pytest.fixture(scope="module", params=MODELS)
def model(request, prepared):
    shared = prepared.get(request.param, prepared["dpsr"])
    kind, run = model_class(request.param), RunFolder(shared.path)
    run.model_name, run.model_class = request.param, kind
    run.config = dataclasses.replace(from_dict(kind.Config, MODELS[request.param]), features=shared.config.features)
    network, catalogue = run.new_model(), run.data.catalogue()
    known = ItemIds(catalogue.item_ids)
    inputs = {"query": [catalogue.table["title"][7].as_py()], "history_items": [[catalogue.item_ids[3]]]}
    encoders = RawQueryEncoder(network, run.featurizer, known), RawItemEncoder(network, run.featurizer, known)
    return Model(run, network, encoders, inputs)


def _ask(program, folder, libraries, *inputs):
    flags = [flag for library in libraries for flag in ("-l", str(library))]
    ended = subprocess.run([program, folder, *flags, *inputs], capture_output=True, text=True, check=False)
    return ended, dict(line.split(": ", 1) for line in ended.stdout.splitlines())


def _check_same(ended, lines, answer):
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert lines["num_results"] == str(K)
    assert lines["ids"].split() == [item_id.decode() for item_id in answer["ids"].numpy()[0, :10]]
    assert [float(s) for s in lines["scores"].split()] == pytest.approx(answer["scores"].numpy()[0, :10].tolist(), rel=1e-3, abs=1e-6)


def _query(model):
    return [f"query={model.inputs['query'][0]}", f"history_items={model.inputs['history_items'][0][0]}"]


def _write(servable, model, folder):
    """The version, what it should answer, and the ops that it needs beside TensorFlow's."""
    functions = servable.signature_functions()
    given = complete_inputs(functions["serving_default"].structured_input_signature[1], model.inputs)
    answer, vectors = functions["serving_default"](**given), functions["embed_query"](**given)["embedding"].numpy()
    version = writing.write(servable, folder, {}, [model.inputs])
    return version, answer, vectors, manifest.read_manifest(version)["ops_outside_tensorflow"]


def test_over_scann_it_finds_what_python_finds(program, model, tmp_path):
    version, answer, _, ops = _write(model.servable(TREE), model, tmp_path / "shop")
    _check_same(*_ask(program, version, manifest.op_libraries(ops), *_query(model)), answer)
    if model.run.model_name != ONE:
        return
    text_only = [path for path in manifest.op_libraries(ops) if "tensorflow_text" in path.parts]
    assert 0 < len(text_only) < len(manifest.op_libraries(ops))
    ended, _ = _ask(program, version, text_only, *_query(model))
    assert ended.returncode == 1
    assert "Op type not registered 'Scann>TensorsToScann'" in ended.stderr


def test_portable_needs_text_ops_and_its_index_none(program, model, tmp_path, monkeypatch):
    version, answer, vectors, ops = _write(model.servable(IVF), model, tmp_path / "shop")
    assert {library.split("/")[0] for library in ops.values()} == {"tensorflow_text"}
    _check_same(*_ask(program, version, manifest.op_libraries(ops), *_query(model)), answer)
    monkeypatch.syspath_prepend(FOLDER)
    index = importlib.import_module("index_only").write_index(model.run, model.network, tmp_path / "index", K, IVF)
    assert manifest.read_manifest(index)["ops_outside_tensorflow"] == {}
    vectors.tofile(tmp_path / "query.float32")
    _check_same(*_ask(program, index, [], f"query=@{tmp_path / 'query.float32'}"), answer)
    if model.run.model_name != ONE:
        return
    ended, _ = _ask(program, version, [], *_query(model))
    assert ended.returncode == 1
    assert re.search(f"Op type not registered '({'|'.join(ops)})'", ended.stderr)
    (tmp_path / "short").write_bytes((tmp_path / "query.float32").read_bytes()[:-4])
    ended, _ = _ask(program, index, [], f"query=@{tmp_path / 'short'}")
    assert ended.returncode == 2
    assert "not as many numbers as the input takes" in ended.stderr


def test_make_check_finds_the_libraries(program, tmp_path):
    version = writing.write(toy_servable("tree"), tmp_path / "toy", {}, QUESTIONS)
    asked = ["make", "-s", "check", f"PYTHON={sys.executable}", f"BUILD={program.parent}", f"FOLDER={version}", 'INPUTS="query=red shoes"']
    ended = subprocess.run(asked, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert re.search("^num_results: 20$", ended.stdout, re.MULTILINE)
    ended = subprocess.run([*asked, "LIBRARIES="], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert "Op type not registered 'Scann>TensorsToScann'" in ended.stderr
