"""Recorded requests: what they hold, that they run, and that a version that loads replays them first."""

import importlib
import logging
import shutil

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import prediction_log_pb2
from toy_servable import COLUMNS, IDS, QUESTIONS, K, ToyIntent, ToyItems, ToyQueries, toy_servable

from tfebr.data.item_ids import ItemIds
from tfebr.errors import ArtifactError
from tfebr.index.exact import ExactIndex
from tfebr.servable import manifest
from tfebr.servable.module import RetrievalServable
from tfebr.servable.warm_up import WARM_UP, read_requests, representative_requests, write_requests
from tfebr.servable.write import write
from tfebr.server.loaded import Model
from tfebr.server.versions import Versions

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")

FILTERED = {"query": ["lamp"], "filter": [["brand=Sony", "price=..100"]]}
SIGNATURES = {"serving_default", "search", "attributes", "embed_query", "embed_items"}


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    base = tmp_path_factory.mktemp("warm") / "toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_check_in_fresh_process", lambda folder: {})
        return write(toy_servable("tree", columns=COLUMNS, intent=ToyIntent()), base, {"model": "toy"}, [*QUESTIONS, FILTERED])


@pytest.fixture(scope="module")
def logged(version):
    """The records as TensorFlow Serving reads them."""
    records = tf.data.TFRecordDataset(str(version / WARM_UP)).as_numpy_iterator()
    return [prediction_log_pb2.PredictionLog.FromString(record) for record in records]


@pytest.fixture(scope="module")
def model(version):
    versions = Versions(version)
    return versions.get(versions.name)


def test_every_signature_is_recorded_as_a_predict_request(version, logged):
    assert len(logged) <= 1000, "TensorFlow Serving refuses more"
    assert {log.WhichOneof("log_type") for log in logged} == {"predict_log"}
    specs = [log.predict_log.request.model_spec for log in logged]
    assert {spec.signature_name for spec in specs} == SIGNATURES
    assert {spec.name for spec in specs} == {"toy"}
    assert not any(spec.WhichOneof("version_choice") for spec in specs), "a version would be wrong in the next export"
    assert WARM_UP in manifest.read_manifest(version)["files"]


def test_every_recorded_request_runs_and_is_answered_in_full(version, model):
    specs = {name: model.inputs(name) for name in SIGNATURES}
    sizes = set()
    for signature, inputs in read_requests(version / WARM_UP, specs):
        (rows,) = {len(values) for values in inputs.values()}
        for values in model.run(signature, inputs).values():
            assert len(values) == rows
            assert values.dtype == object or np.isfinite(values).all()
        sizes.add((signature, rows))
    assert sizes == {(signature, rows) for signature in SIGNATURES for rows in (1, 4)}


def test_requests_are_like_those_to_come(version, model):
    found = list(read_requests(version / WARM_UP, {name: model.inputs(name) for name in SIGNATURES}))
    queries = {inputs["query"][0] for _, inputs in found if "query" in inputs}
    assert queries == {b"red shoes"}, "the first query of the check that is a text"
    searches = [inputs for signature, inputs in found if signature == "search"]
    histories = {tuple(row[row != b""]) for inputs in searches for row in inputs["history_items"]}
    assert histories == {(), tuple(item_id.encode() for item_id in IDS[:5])}, "with and without a history"
    clauses = {tuple(row[row != b""]) for inputs in searches for row in inputs["filter"]}
    assert clauses == {(), (b"brand=Sony", b"price=..100")}
    assert {value for inputs in searches for value in inputs["automatic"]} == {True, False}
    assert {value for inputs in searches for value in inputs["k"]} == {K}
    assert {value for inputs in searches for value in inputs["leaves_to_search"]} == {0}
    excluded = {tuple(row[row != b""]) for inputs in searches for row in inputs["exclude"]}
    assert excluded == {(), tuple(item_id.encode() for item_id in IDS[:5])}
    # TensorFlow Serving's batching pads with a tensor's first element, and refuses to pad what has none.
    lists = [values for _, inputs in found for values in inputs.values() if values.ndim == 2 and values.dtype == object]
    assert lists
    assert all(values.shape[1] > 0 and (values[:, 0] == b"").all() for values in lists)


def test_they_are_replayed_before_the_version_answers(version, tmp_path, caplog, monkeypatch):
    """What the first query would wait for happens while the version loads; `benchmarks` measures how long that is."""
    caplog.set_level(logging.INFO, logger="tfebr")
    cold, run = [], Model.run
    shutil.copytree(version, tmp_path / "1")
    (tmp_path / "1" / WARM_UP).unlink()
    ran = cold
    monkeypatch.setattr(Model, "run", lambda self, signature, inputs: ran.append((signature, inputs)) or run(self, signature, inputs))
    Versions(tmp_path / "1")
    assert cold == []
    ran = warm = []
    versions = Versions(version)
    model = versions.get(versions.name)
    recorded = list(read_requests(version / WARM_UP, model._inputs))
    assert [signature for signature, _ in warm] == [signature for signature, _ in recorded]
    assert {signature for signature, _ in warm} == SIGNATURES
    for (_, sent), (_, expected) in zip(warm, recorded, strict=True):
        for name, value in expected.items():
            np.testing.assert_array_equal(sent[name], value)
    (said,) = [record.getMessage() for record in caplog.records if "replayed" in record.getMessage()]
    assert said.startswith("version 1: recorded requests replayed in "), "loading takes longer, and the log says by how much"


def test_a_model_that_fails_on_such_a_request_is_not_published(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_check_in_fresh_process", lambda folder: {})

    class NoHistory(ToyQueries):
        def __call__(self, inputs):
            with tf.control_dependencies([tf.debugging.assert_less(tf.shape(inputs["history_items"])[1], 3, "too long a history")]):
                return tf.identity(super().__call__(inputs))

    ids = ItemIds(np.array(IDS))
    servable = RetrievalServable(NoHistory(ids), ToyItems(), ExactIndex(tf.random.normal([len(IDS), 8]).numpy()), ids, 5)
    with pytest.raises(ArtifactError, match=r"`embed_query` fails on a representative request: .*too long a history"):
        write(servable, tmp_path / "toy", {}, QUESTIONS[:1])
    assert not list(tmp_path.rglob("*.pb"))


def test_values_are_the_samples_where_there_are_some():
    specs = {name: tf.TensorSpec([None], tf.int32) for name in ("k", "leaves")}
    (_, alone), _, (_, together) = representative_requests({"search": specs}, {"search": {"k": [7, 9]}})
    assert [alone["k"].tolist(), alone["leaves"].tolist()] == [[7], [1]]
    assert [together["k"].tolist(), together["leaves"].tolist()] == [[7, 9, 7, 9], [1, 1, 1, 1]]


DTYPES = [tf.string, tf.bool, tf.int32, tf.int64, tf.uint8, tf.float32, tf.float64]
SPECS = st.builds(tf.TensorSpec, st.lists(st.sampled_from([None, 1, 3]), max_size=3), st.sampled_from(DTYPES))


@settings(max_examples=30)
@given(specs=st.dictionaries(st.sampled_from(["query", "k", "x"]), SPECS))
def test_requests_fit_any_signature_and_survive_being_recorded(tmp_path_factory, specs):
    requests = representative_requests({"any": specs}, {"any": {"query": ["a", "b"], "k": [7]}} if specs.get("query") == tf.string else {})
    assert len(requests) == 3
    path = tmp_path_factory.mktemp("any") / "requests"
    write_requests(path, "m", requests)
    for (_, made), (_, read) in zip(requests, read_requests(path, {"any": specs}), strict=True):
        for name, spec in specs.items():
            assert spec.shape.is_compatible_with(made[name].shape)
            assert made[name].dtype == (object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype)
            np.testing.assert_array_equal(made[name], read[name])


def _record(path, change):
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.signature_name = "find"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0, 2.0]))
    change(request)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(log.SerializeToString())


def _enlarge(request):
    request.inputs["x"].tensor_shape.dim[0].size = 10**12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda request: setattr(request.model_spec, "signature_name", "lost"), "no signature `lost`"),
        (lambda request: request.inputs["y"].CopyFrom(request.inputs["x"]), "unknown: y"),
        (lambda request: request.inputs["x"].CopyFrom(tf.make_tensor_proto(["a"])), "must be float32"),
        (_enlarge, "declares 1000000000000 elements"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(tmp_path, change, message):
    _record(tmp_path / "requests", change)
    with pytest.raises(ArtifactError, match=f"requests: a recorded request fails: .*{message}"):
        list(read_requests(tmp_path / "requests", {"find": {"x": tf.TensorSpec([None], tf.float32)}}))


def test_a_file_of_no_records_is_refused(tmp_path):
    (tmp_path / "requests").write_bytes(b"no TFRecord at all, but long enough for a header")
    with pytest.raises(ArtifactError, match="corrupted record"):
        list(read_requests(tmp_path / "requests", {}))
