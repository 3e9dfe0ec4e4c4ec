"""What an operator sees of the server: metrics, health, labels, logs; and damaged files."""

import importlib
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import weakref

import grpc
import httpx
import pytest
import tensorflow as tf
from native_lines import NATIVE_LOG
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc
from tiny_servable import write_tiny
from toy_servable import QUESTIONS, toy_servable

from tfebr.client.client import Client
from tfebr.errors import ArtifactError, RequestError
from tfebr.servable.check import complete_inputs
from tfebr.servable.version_folders import restore, roll_back
from tfebr.servable.write import write
from tfebr.server.prometheus import Handled, Metrics
from tfebr.server.request_log import JsonLines
from tfebr.server.server import Server
from tfebr.server.versions import Versions

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")

ROW = {"query": "lamp", "user_age": "30", "history_items": ["a"]}
SECRET = "my-secret-wish"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    base = tmp_path_factory.mktemp("servable") / "shop"
    for version in (1, 2, 3):
        write_tiny(base / str(version), mark=version)
    return base


@pytest.fixture
def server(tiny):
    with Server(tiny, rest_port=0, grpc_port=0, max_body_bytes=20_000, poll_seconds=0.05, labels={"stable": 1}) as server:
        yield server


def predict_over_rest(server, body=None, path=":predict"):
    return httpx.post(f"{server.rest_url}/v1/models/shop{path}", json=body or {"instances": [ROW]})


def grpc_request(signature="", label=None, query="lamp", version=None):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "shop", signature
    if label is not None:
        request.model_spec.version_label = label
    if version is not None:
        request.model_spec.version.value = version
    for name, value in {"query": [query], "user_age": [""], "history_items": [[""]]}.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def predict_over_grpc(server, **settings):
    with grpc.insecure_channel(server.grpc_target) as channel:
        return prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(grpc_request(**settings), timeout=60)


def samples(page):
    """{(name, labels): value} of a page in Prometheus' text format, read by its published grammar."""
    found = {}
    for line in page.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP [a-zA-Z_:][\w:]* .+|TYPE [a-zA-Z_:][\w:]* (counter|gauge|histogram))", line)
            continue
        name, labels, value = re.fullmatch(r"([a-zA-Z_:][\w:]*)\{(.*)\} (\S+)", line).groups()
        pairs = re.findall(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"(?:,|$)', labels)
        assert ",".join(f'{label}="{text}"' for label, text in pairs) == labels
        found[name, frozenset(pairs)] = float(value)
    return found


def metric(server, name, **labels):
    answer = httpx.get(f"{server.rest_url}/monitoring/prometheus/metrics")
    assert answer.headers["content-type"].replace(" ", "").startswith("text/plain;version=0.0.4")
    return samples(answer.text).get((name, frozenset(labels.items())), 0)


def test_requests_are_counted_by_signature_and_outcome(server):
    for _ in range(3):
        assert predict_over_rest(server).status_code == 200
    assert predict_over_rest(server, {"signature_name": "half", "inputs": [1.0]}).status_code == 200
    assert predict_over_rest(server, {"signature_name": SECRET, "inputs": [1.0]}).status_code == 400
    assert predict_over_rest(server, {"instances": [{**ROW, SECRET: 1}]}).status_code == 400
    assert httpx.post(f"{server.rest_url}/v1/models/{SECRET}:predict", json={}).status_code == 404
    assert predict_over_rest(server, {"inputs": "x" * 20_000}).status_code == 413
    predict_over_grpc(server)
    with pytest.raises(grpc.RpcError):
        predict_over_grpc(server, signature="half")

    count, own = ":tensorflow:serving:request_count", "tfebr_request_count"
    assert metric(server, count, model_name="shop", status="OK") == 5
    assert metric(server, count, model_name="shop", status="INVALID_ARGUMENT") == 3
    assert metric(server, count, model_name="", status="NOT_FOUND") == 1
    assert metric(server, count, model_name="", status="RESOURCE_EXHAUSTED") == 1
    rest = {"model_name": "shop", "entrypoint": "REST"}
    assert metric(server, own, signature_name="serving_default", status="OK", **rest) == 3
    assert metric(server, own, signature_name="half", status="OK", **rest) == 1
    assert metric(server, own, signature_name="", status="INVALID_ARGUMENT", **rest) == 1
    assert metric(server, own, model_name="shop", entrypoint="GRPC", signature_name="half", status="INVALID_ARGUMENT") == 1
    latency = ":tensorflow:serving:request_latency"
    assert metric(server, f"{latency}_count", model_name="shop", API="predict", entrypoint="REST") == 4
    assert metric(server, f"{latency}_count", model_name="shop", API="Predict", entrypoint="GRPC") == 1
    took = metric(server, f"{latency}_sum", model_name="shop", API="Predict", entrypoint="GRPC")
    assert 10 < took < 10e6
    assert metric(server, "tfebr_version_loaded", model_name="shop", version="3") == 1
    assert metric(server, "tfebr_version_loaded", model_name="shop", version="1") == 1, "by its label"
    assert metric(server, "tfebr_version_loaded", model_name="shop", version="2") == 0
    assert SECRET not in httpx.get(f"{server.rest_url}/monitoring/prometheus/metrics").text
    assert httpx.post(f"{server.rest_url}/monitoring/prometheus/metrics").status_code == 404


def test_buckets_are_cumulative_and_labels_escaped():
    metrics = Metrics()
    for microseconds in (5.0, 10.0, 11.0, 1e12):
        metrics.record(Handled("REST", "predict", 'a "b"\\\n\ud800', 1, "s", 1, "OK", microseconds))
    page = samples(metrics.page("m", [7]))
    own = [
        (dict(labels)["le"], value)
        for (name, labels), value in page.items()
        if name == "tfebr_request_latency_bucket" and dict(labels)["model_name"] == r"a \"b\"\\\n?"
    ]
    assert [own[0], own[1], own[-1]] == [("10", 2), ("18", 3), ("+Inf", 4)]
    assert [value for _, value in own] == sorted(value for _, value in own)
    assert len(own) == 34


def test_labels(server):
    assert predict_over_rest(server).json()["predictions"][0]["ids"][1] == "mark 3"
    assert predict_over_rest(server, path="/labels/stable:predict").json()["predictions"][0]["ids"][1] == "mark 1"
    answer = predict_over_grpc(server, label="stable")
    assert (answer.model_spec.version.value, answer.outputs["ids"].string_val[1]) == (1, b"mark 1")
    status = httpx.get(f"{server.rest_url}/v1/models/shop/labels/stable").json()["model_version_status"]
    assert [(state["version"], state["state"]) for state in status] == [("1", "AVAILABLE")]
    assert httpx.get(f"{server.rest_url}/v1/models/shop/labels/stable/metadata").json()["model_spec"]["version"] == "1"
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name, request.model_spec.version_label = "shop", "stable"
    with grpc.insecure_channel(server.grpc_target) as channel:
        (state,) = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=60).model_version_status
    assert state.version == 1
    for path in ("/labels/canary", "/labels/canary/metadata"):
        answer = httpx.get(f"{server.rest_url}/v1/models/shop{path}")
        assert answer.status_code == 400
        assert "Unrecognized servable version label: canary. This server has: stable." in answer.json()["error"]
    assert predict_over_rest(server, path="/labels/canary:predict").status_code == 400
    assert httpx.get(f"{server.rest_url}/v1/models/other/labels/stable").status_code == 404


def test_a_labelled_version_outlives_newer_ones(tiny, tmp_path):
    base = tmp_path / "shop"
    for number in (1, 2):
        shutil.copytree(tiny / str(number), base / str(number))
    versions = Versions(base, poll_seconds=60, labels={"stable": 1})
    shutil.copytree(tiny / "3", base / "3")
    versions.refresh()
    assert versions.loaded() == [1, 3]
    assert [versions.get("shop", label=label).version for label in (None, "stable")] == [3, 1]
    with pytest.raises(RequestError, match="Loaded is version 1, 3"):
        versions.get("shop", 2)
    versions.close()
    with pytest.raises(ArtifactError, match="the label `stable` names version 9, which is not there"):
        Versions(base, labels={"stable": 9})


def test_a_request_is_one_line_of_json_without_its_content(server, caplog):
    stream = io.StringIO()
    handler, logger = JsonLines(stream), logging.getLogger("tfebr")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        predict_over_rest(server, {"instances": [{**ROW, "query": SECRET}, ROW]})
        predict_over_rest(server, {"signature_name": SECRET, "inputs": [1.0]})
        httpx.get(f"{server.rest_url}/v1/models/shop")
        httpx.get(f"{server.rest_url}/{SECRET}")
        predict_over_grpc(server, query=SECRET)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    seen = [tuple(line[field] for field in ("entrypoint", "api", "model", "version", "signature", "rows", "status")) for line in lines]
    assert seen == [
        ("REST", "predict", "shop", 3, "serving_default", 2, "OK"),
        ("REST", "predict", "shop", 3, "", None, "INVALID_ARGUMENT"),
        ("REST", "status", "", None, "", None, "OK"),
        ("REST", "", "", None, "", None, "UNIMPLEMENTED"),
        ("GRPC", "predict", "shop", 3, "serving_default", 1, "OK"),
    ]
    assert all(line["microseconds"] > 0 and line["time"].endswith("+00:00") and line["level"] == "info" for line in lines)
    assert SECRET not in stream.getvalue()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


@pytest.fixture(scope="module")
def scann_version(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_check_in_fresh_process", lambda folder: {})
        return write(toy_servable("tree"), tmp_path_factory.mktemp("servable") / "toy", {}, QUESTIONS[:1])


DAMAGES = (
    ("assets/scann_hashed_dataset.bin", lambda path: path.write_bytes(b"x" + path.read_bytes()[1:])),
    ("assets/scann_hashed_dataset.bin", lambda path: path.write_bytes(path.read_bytes()[:10])),
    ("variables/variables.data-00000-of-00001", lambda path: path.write_bytes(path.read_bytes()[:-1])),
    ("saved_model.pb", lambda path: path.write_bytes(path.read_bytes() + b"\0")),
    ("assets/scann_datapoint_to_token.bin", lambda path: path.unlink()),
)


def test_a_damaged_file_is_refused_by_name_and_the_old_version_stays(scann_version, tmp_path, caplog):
    base = tmp_path / "toy"
    shutil.copytree(scann_version, base / "1")
    versions = Versions(base, poll_seconds=60)
    shutil.copytree(scann_version, base / "2")
    for file, damage in DAMAGES:
        caplog.clear()
        damage(base / "2" / file)
        versions.refresh()
        assert versions.loaded() == [1]
        (state,) = versions.status("toy", 2).model_version_status
        assert state.state == get_model_status_pb2.ModelVersionStatus.State.END
        assert str(base / "2" / file) in state.status.error_message
        assert sum(str(base / "2" / file) in record.getMessage() for record in caplog.records) == 1
        with pytest.raises(ArtifactError, match=re.escape(f"toy/2/{file}")):
            Versions(base / "2")
        shutil.copy(scann_version / file, base / "2" / file)
    (base / "2" / "assets.extra" / "models.config").write_text("# a team's own base_path is no damage")
    versions.refresh()
    assert versions.loaded() == [2]
    versions.close()


def test_a_version_that_is_replaced_gives_its_session_back(scann_version, tmp_path):
    """With it goes all that it took in memory: ScaNN's searcher, too, is a resource of the session."""
    base = tmp_path / "toy"
    shutil.copytree(scann_version, base / "1")
    versions = Versions(base, poll_seconds=60)
    model = versions.get("toy")
    model.run("serving_default", {name: value.numpy() for name, value in complete_inputs(model.inputs(""), {"query": ["a"]}).items()})
    ended = weakref.ref(model)
    shutil.copytree(scann_version, base / "2")
    versions.refresh()
    assert ended() is not None, "a request under way keeps hold of it"
    del model
    assert ended() is None
    versions.close()


def test_the_command_serves_logs_and_stops_gracefully(tiny):
    command = [sys.executable, "-m", "tfebr.cli", "serve", str(tiny), "--rest-port", "0", "--grpc-port", "0"]
    command += ["--label", "stable=2", "--log", "json"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert url, said
        for label, mark in (("", "mark 3"), ("/labels/stable", "mark 2")):
            answer = httpx.post(f"{url[0]}/v1/models/shop{label}:predict", json={"instances": [{**ROW, "query": SECRET}]}, timeout=120)
            assert answer.json()["predictions"][0]["ids"][1] == mark
        process.terminate()
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "stopped" in out
    assert not NATIVE_LOG.findall(errors)
    requests = [json.loads(line) for line in errors.splitlines() if line.startswith("{") and '"request"' in line]
    assert [(line["version"], line["status"]) for line in requests] == [(3, "OK"), (2, "OK")]
    assert SECRET not in out + errors


def test_the_client_sees_no_break_when_the_newest_version_is_rolled_back(tiny, tmp_path):
    base = tmp_path / "shop"
    for number in (1, 2):
        shutil.copytree(tiny / str(number), base / str(number))
    with Server(base, rest_port=0, grpc_port=0, poll_seconds=0.05) as server, Client(server.rest_url, "shop") as client:
        seen = []

        def until(mark):
            end = time.monotonic() + 60
            while not seen or seen[-1] != mark:
                assert time.monotonic() < end
                seen.append(client.query("lamp")[0].ids[1])

        until("mark 2")
        roll_back(base)
        until("mark 1")
        restore(base)
        until("mark 2")
    assert set(seen) == {"mark 1", "mark 2"}
