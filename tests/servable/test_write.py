"""Writing versions: the folder, its manifest and checks, and what stays after a failure."""

import errno
import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from toy_servable import EMBEDDINGS, IDS, ITEMS, QUESTIONS, K, ToyItems, ToyQueries, toy_servable

from tfebr.data.item_ids import ItemIds
from tfebr.errors import ArtifactError, ConfigError, RequestError, TfebrError
from tfebr.index.exact import ExactIndex
from tfebr.index.recall import build
from tfebr.servable import check, manifest
from tfebr.servable.module import RetrievalServable
from tfebr.servable.write import latest, write

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A base folder with one version over ScaNN, and the servable it was written from."""
    base = tmp_path_factory.mktemp("servable") / "toy"
    servable = toy_servable("tree")
    _, report = build(EMBEDDINGS, EMBEDDINGS[:20, None, :], k=10, quiet=True)
    assert write(servable, base, {"model": "toy"}, QUESTIONS, report) == base / "1"
    return base, servable


@pytest.fixture
def unchecked(monkeypatch):
    """Leaves out the fresh process, which takes seconds, where a test is about something else."""
    monkeypatch.setattr(writing, "_check_in_fresh_process", lambda folder: {"ok": True})


@pytest.fixture(scope="module")
def loaded(published):
    return check.load(published[0] / "1")


def _ask(model, **given):
    find = model.signatures["serving_default"]
    return {name: value.numpy() for name, value in find(**check.complete_inputs(find.structured_input_signature[1], given)).items()}


def test_the_loaded_model_ranks_like_numpy(loaded, published):
    answer = _ask(loaded, query=["red shoes", "x"], history_items=[["sku-7", "unknown"], []])
    table = published[1].query_encoder.table.numpy()
    for row, (text, history) in enumerate((("red shoes", EMBEDDINGS[7]), ("x", np.zeros(8)))):
        words = table[int(tf.strings.to_hash_bucket_fast(text, 64))]
        scores = np.maximum(EMBEDDINGS @ words, EMBEDDINGS @ history)
        order = np.argsort(-scores)[:K]
        assert answer["ids"][row].astype(str).tolist() == [IDS[i] for i in order]
        np.testing.assert_allclose(answer["scores"][row], scores[order], rtol=1e-5)
    assert answer["num_results"].tolist() == [K, K]


def test_every_output_has_the_batch_first_and_is_finite(loaded):
    answer = _ask(loaded, query=["a", "b", "c"], user_age=["nan", "", "30"])
    assert answer["ids"].shape == answer["scores"].shape == (3, K)
    assert answer["num_results"].shape == (3,)
    assert np.isfinite(answer["scores"]).all()
    assert answer["num_results"][0] == K, "the history head still answers"
    embedded = loaded.signatures["embed_query"](
        query=tf.constant(["a"]), user_age=tf.constant(["nan"]), history_items=tf.zeros([1, 0], tf.string), prices=tf.zeros([1, 3])
    )["embedding"]
    assert embedded.shape == (1, 2, 8)
    assert np.isfinite(embedded).all()


@pytest.mark.parametrize("query", ["", "\u00e9\U0001f600" * 5000, "word " * 2000])
def test_odd_queries_get_an_answer(loaded, query):
    assert _ask(loaded, query=[query])["num_results"].tolist() == [K]


def test_a_batch_of_a_thousand(loaded):
    assert _ask(loaded, query=[f"q{i}" for i in range(1000)])["ids"].shape == (1000, K)


def test_items_are_embedded(loaded, published):
    embedding = loaded.signatures["embed_items"](title=tf.constant(["lamp", "nan"]))["embedding"].numpy()
    np.testing.assert_allclose(embedding[0], published[1].item_encoder({"title": tf.constant(["lamp"])})[0])
    assert np.isfinite(embedding).all()


def test_results_beyond_the_catalogue_are_empty_strings():
    ids = ItemIds(np.array(IDS[:3]))
    servable = RetrievalServable(ToyQueries(ids), ToyItems(), ExactIndex(EMBEDDINGS[:3]), ids, default_k=5)
    find = servable.signature_functions()["serving_default"]
    answer = find(**check.complete_inputs(ToyQueries.input_signature, {"query": ["x"]}))
    assert answer["ids"].numpy()[0, 3:].tolist() == [b"", b""]
    assert answer["scores"].numpy()[0, 3:].tolist() == [0.0, 0.0]
    assert answer["num_results"].numpy().tolist() == [3]


def test_the_manifest_tells_what_is_inside(published):
    written = manifest.read_manifest(published[0] / "1")
    assert written["about"] == {"model": "toy", "results": {"default": K, "most": ITEMS}}
    assert written["versions"]["tensorflow"] == tf.__version__
    assert set(written["ops_outside_tensorflow"]) == {"Scann>TensorsToScann", "Scann>ScannSearchBatched"}
    assert set(written["ops_outside_tensorflow"].values()) == {"scann/scann_ops/cc/_scann_ops.so"}
    assert written["index"]["recall"] == 1.0
    assert written["signatures"]["serving_default"]["inputs"]["history_items"] == {"dtype": "string", "shape": [-1, -1]}
    assert set(written["signatures"]["serving_default"]["outputs"]) == {"ids", "scores", "num_results"}
    assert {"load_seconds", "first_query_ms", "query_ms"} <= set(written["checked"])
    on_disk = {p.relative_to(published[0] / "1").as_posix() for p in (published[0] / "1").rglob("*") if p.is_file()}
    assert on_disk == set(written["files"]) | {manifest.MANIFEST}
    assert any(name.startswith("assets/") for name in on_disk), "the index must travel with the folder"


def test_a_model_of_core_operations_needs_no_library(tmp_path, unchecked):
    path = write(toy_servable(), tmp_path / "toy", {}, QUESTIONS[:1])
    assert manifest.read_manifest(path)["ops_outside_tensorflow"] == {}


def test_libraries_of_text_operations_are_found():
    import tensorflow_text  # noqa: F401

    libraries = manifest.op_libraries(["TFText>WhitespaceTokenizeWithOffsetsV2", "NormalizeUTF8", "MatMul", "Scann>TensorsToScann"])
    assert [path.name for path in libraries] == ["_scann_ops.so", "_normalize_ops.so", "_whitespace_tokenizer_v2.so"]
    with pytest.raises(ArtifactError, match="Acme>Rank"):
        manifest.op_libraries(["Acme>Rank"])


def test_versions_count_up_and_the_latest_is_found(published, tmp_path, unchecked):
    base = tmp_path / "toy"
    base.mkdir()
    shutil.copytree(published[0] / "1", base / "9")
    (base / ".10.1234abcd.partial").mkdir()
    assert write(toy_servable(), base, {}, QUESTIONS[:1]) == base / "10"
    assert latest(base) == base / "10"
    with pytest.raises(ArtifactError, match="no servable version yet"):
        latest(tmp_path / "none")


@pytest.mark.parametrize("foreign", ["notes.txt", "1/empty.txt", "model/saved_model.pb"])
def test_a_folder_with_other_things_is_refused(tmp_path, foreign):
    path = tmp_path / "toy" / foreign
    path.parent.mkdir(parents=True)
    path.write_text("x")
    with pytest.raises(ArtifactError, match="not a servable version"):
        write(toy_servable(), tmp_path / "toy", {}, QUESTIONS)
    assert path.read_text() == "x"


def _assert_untouched(base):
    assert [p.name for p in base.iterdir()] == ["1"]
    manifest.verify_files(base / "1")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), tf.errors.ResourceExhaustedError(None, None, "No space left on device")]
)
def test_a_full_disk_leaves_the_earlier_version(published, monkeypatch, error):
    def half_written(module, folder, **_):
        Path(folder, "saved_model.pb").write_bytes(b"half")
        raise error

    monkeypatch.setattr(tf.saved_model, "save", half_written)
    with pytest.raises(TfebrError, match=r"toy/2: not written: No space left on device"):
        write(published[1], published[0], {}, QUESTIONS)
    _assert_untouched(published[0])


def test_a_model_that_answers_differently_after_loading_is_not_published(published):
    class Stateful(ToyQueries):
        """Its answers depend on a Python value that the graph does not hold."""

        def __call__(self, inputs):
            return super().__call__(inputs) + tf.random.normal([8])

    ids = ItemIds(np.array(IDS))
    servable = RetrievalServable(Stateful(ids), ToyItems(), ExactIndex(EMBEDDINGS), ids, K)
    with pytest.raises(ArtifactError, match=r"check question 0 has another answer after loading: row 0 has scores"):
        write(servable, published[0], {}, QUESTIONS)
    _assert_untouched(published[0])


def test_a_custom_operation_of_nobody_is_refused(published, monkeypatch):
    monkeypatch.setattr(manifest, "_LIBRARY_FOLDERS", ())
    manifest._libraries.cache_clear()
    try:
        with pytest.raises(ArtifactError, match="Scann>ScannSearchBatched, which neither TensorFlow, ScaNN nor"):
            write(published[1], published[0], {}, QUESTIONS)
    finally:
        manifest._libraries.cache_clear()
    _assert_untouched(published[0])


def test_a_file_that_stays_behind_is_refused(published, tmp_path):
    stopwords = tmp_path / "stopwords.txt"
    stopwords.write_text("the")

    class Reading(ToyQueries):
        def __call__(self, inputs):
            return super().__call__(inputs) + tf.cast(tf.strings.length(tf.io.read_file(str(stopwords))), tf.float32)

    ids = ItemIds(np.array(IDS))
    servable = RetrievalServable(Reading(ids), ToyItems(), ExactIndex(EMBEDDINGS), ids, K)
    with pytest.raises(ArtifactError, match=r"stopwords\.txt on the server"):
        write(servable, published[0], {}, QUESTIONS)
    _assert_untouched(published[0])


def test_two_exports_at_once_do_not_overwrite(published, tmp_path, monkeypatch, unchecked):
    base = tmp_path / "toy"
    real = manifest.write_manifest

    def meanwhile(*arguments):
        shutil.copytree(published[0] / "1", base / "1")
        return real(*arguments)

    monkeypatch.setattr(manifest, "write_manifest", meanwhile)
    with pytest.raises(ArtifactError, match="another export published this version meanwhile"):
        write(toy_servable(), base, {}, QUESTIONS[:1])
    _assert_untouched(base)


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_check_names_a_damaged_file(published, tmp_path, capsys, damage):
    folder = tmp_path / "1"
    shutil.copytree(published[0] / "1", folder)
    victim = folder / "assets" / "scann_hashed_dataset.bin"
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(b"x" + victim.read_bytes()[1:])
    assert check.main([str(folder)]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is False
    assert "scann_hashed_dataset.bin" in result["problem"]


def test_check_refuses_what_is_no_servable(tmp_path, capsys):
    assert check.main([str(tmp_path)]) == 1
    assert "not a servable version folder" in json.loads(capsys.readouterr().out)["problem"]


def test_inputs_left_out_get_defaults():
    inputs = check.complete_inputs(ToyQueries.input_signature, {"query": ["a", "b"], "history_items": [["x"], ["y", "z"]]})
    assert inputs["history_items"].numpy().tolist() == [[b"x", b""], [b"y", b"z"]]
    assert inputs["user_age"].numpy().tolist() == [b"", b""]
    assert inputs["prices"].numpy().tolist() == [[0, 0, 0], [0, 0, 0]]
    assert check.complete_inputs(ToyQueries.input_signature, {"query": ["a"]})["history_items"].shape == (1, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quary": ["a"]}, "`quary` is not an input. Inputs are: history_items, prices, query, user_age"),
        ({"query": ["a", "b"], "user_age": ["1"]}, "query: 2, user_age: 1"),
        ({"query": [1.5]}, "`query` should hold string values"),
        ({"query": [["a"]]}, "`query` should hold string values"),
        ({"prices": [["x", "y", "z"]]}, "`prices` should hold float32 values"),
        ({"history_items": ["x"]}, "`history_items` should hold string values"),
    ],
)
def test_wrong_inputs_are_named(given, message):
    with pytest.raises(RequestError, match=message):
        check.complete_inputs(ToyQueries.input_signature, given)


def test_parts_that_do_not_fit_are_refused():
    ids = ItemIds(np.array(IDS[:5]))
    with pytest.raises(ConfigError, match="Received 300 and 5"):
        RetrievalServable(ToyQueries(ids), ToyItems(), ExactIndex(EMBEDDINGS), ids)
    with pytest.raises(ConfigError, match="default_k"):
        RetrievalServable(ToyQueries(ids), ToyItems(), ExactIndex(EMBEDDINGS[:5]), ids, default_k=0)
    queries = ToyQueries(ids)
    queries.input_signature = {"query": tf.TensorSpec([], tf.string)}
    with pytest.raises(ConfigError, match="`query` needs a leading batch dimension"):
        RetrievalServable(queries, ToyItems(), ExactIndex(EMBEDDINGS[:5]), ids)
