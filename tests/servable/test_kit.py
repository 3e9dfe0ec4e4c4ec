"""What lies beside a version: configuration that the real protos read, and clients and shell lines that a server answers."""

import importlib
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import grpc
import httpx
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2
from toy_servable import COLUMNS, QUESTIONS, ToyIntent, toy_servable

from tfebr.servable import kit
from tfebr.servable.inspect import inspect
from tfebr.servable.write import write
from tfebr.server.server import Server

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")

# Quotes, letters and signs that a text proto, a URL, a shell and Python's source each treat in their own way.
NAME = 'toy\'s "größe" $row %20'
SIGNATURES = ["serving_default", "attributes", "embed_items", "embed_query", "search"]


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    base = tmp_path_factory.mktemp("kit") / NAME
    questions = [*QUESTIONS, {"query": ["lamp"], "filter": [["brand=a%7Cb", "Größe in %25=M"]]}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_check_in_fresh_process", lambda folder: {})
        return write(toy_servable(columns=COLUMNS, intent=ToyIntent()), base, {"model": "toy"}, questions)


@pytest.fixture(scope="module")
def server(version):
    with Server(version.parent, rest_port=0, grpc_port=0) as server:
        yield server


@pytest.fixture(scope="module")
def lines(version):
    return inspect(version)["requests"]


def test_models_config_is_a_model_server_config(version):
    config = text_format.Parse((version / kit.MODELS).read_text(encoding="utf-8"), model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == (NAME, f"/models/{NAME}", "tensorflow")


def _batching_parameters():
    """TensorFlow Serving's BatchingParameters by the names, numbers and types of its session_bundle_config.proto."""
    wrapper, plain = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, descriptor_pb2.FieldDescriptorProto.TYPE_BOOL
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", syntax="proto3", dependency=["google/protobuf/wrappers.proto"])
    message = file.message_type.add(name="BatchingParameters")
    names = ["max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"]
    for number, name in enumerate(names, 1):
        message.field.add(name=name, number=number, label=1, type=wrapper, type_name=".google.protobuf.Int64Value")
    message.field.add(name="pad_variable_length_inputs", number=7, label=1, type=plain)
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    descriptor_pool.Default().FindFileByName("google/protobuf/wrappers.proto").CopyToProto(wrappers)
    pool.Add(wrappers)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("BatchingParameters"))()


def test_batching_config_is_batching_parameters(version):
    parsed = text_format.Parse((version / kit.BATCHING).read_text(encoding="utf-8"), _batching_parameters())
    assert parsed.pad_variable_length_inputs, "without it, requests with histories of different lengths fail each other"
    assert parsed.max_batch_size.value >= 4, "the largest recorded request must fit"
    assert 0 < parsed.batch_timeout_micros.value < 5_000


def test_nothing_names_the_machine_that_wrote_it(version):
    for file in (version / "assets.extra").iterdir():
        content = file.read_bytes()
        for path in (version.parents[1], Path.home(), Path(kit.__file__).parents[2]):
            assert str(path).encode() not in content, file.name


def _default_ids(server, query):
    answer = httpx.post(
        f"{server.rest_url}/v1/models/{quote(NAME)}:predict",
        json={"instances": [{"query": query, "user_age": "", "history_items": [""], "prices": [0, 0, 0]}]},
    )
    (found,) = answer.raise_for_status().json()["predictions"]
    return found["ids"][: found["num_results"]]


def test_the_client_finds_what_the_model_finds(version, server):
    search = runpy.run_path(str(version / kit.CLIENT))["search"]
    found = search("led lamp", server.rest_url)
    assert [item_id for item_id, _ in found] == _default_ids(server, "led lamp")
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    liked = search("led lamp", server.rest_url, history_items=["", "sku-7"])
    assert liked[0][0] == "sku-7", "an item is nearest to itself, and outweighs the query"
    more = search("led lamp", server.rest_url, k=len(found) + 5)
    assert more[: len(found)] == found
    assert len(more) == len(found) + 5
    without = search("led lamp", server.rest_url, k=3, exclude=[found[0][0], found[2][0], "unknown"])
    assert [item_id for item_id, _ in without] == [found[i][0] for i in (1, 3, 4)]


def test_the_client_is_a_program_that_needs_only_python(version, server):
    # -I -S: no installed package can be found.
    ask = [sys.executable, "-I", "-S", str(version / kit.CLIENT)]
    ended = subprocess.run([*ask, "a chair", server.rest_url], capture_output=True, text=True, check=True)
    assert [line.split()[1] for line in ended.stdout.splitlines()] == _default_ids(server, "a chair")
    for arguments, said in (
        ([], "python client.py"),
        (["a", server.rest_url + "/nowhere"], "HTTP Error 404"),
        (["a", "http://[::1]:9"], "no answer"),
    ):
        ended = subprocess.run([*ask, *arguments], capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr


def test_curl_lines_are_answered(server, lines):
    assert list(lines) == SIGNATURES, "the one that most will ask comes first"
    for signature in SIGNATURES:
        command, *arguments, url = shlex.split(lines[signature]["curl"])
        assert command == "curl"
        body = json.loads(arguments[arguments.index("-d") + 1])
        assert body["signature_name"] == signature
        url = url.replace("http://127.0.0.1:8501", server.rest_url)
        answer = httpx.post(url, json=body)
        assert answer.status_code == 200, answer.text
        if signature == "search":
            assert answer.json()["outputs"]["num_results"][0] > 0, "the filter is one that items match"
    if shutil.which("curl"):
        ended = subprocess.run([command, *arguments, url], capture_output=True, text=True, check=True)
        assert json.loads(ended.stdout) == answer.json()


def test_grpcurl_lines_are_answered(server, lines):
    with grpc.insecure_channel(server.grpc_target) as channel:
        for signature in SIGNATURES:
            arguments = shlex.split(lines[signature]["grpcurl"])
            protoset = arguments[arguments.index("-protoset") + 1]
            pool = descriptor_pool.DescriptorPool()
            for file in descriptor_pb2.FileDescriptorSet.FromString(Path(protoset).read_bytes()).file:
                pool.Add(file)
            service, method = arguments[-1].split("/")
            call = pool.FindServiceByName(service).FindMethodByName(method)
            request = json_format.ParseDict(
                json.loads(arguments[arguments.index("-d") + 1]), message_factory.GetMessageClass(call.input_type)()
            )
            answer = channel.unary_unary(f"/{service}/{method}")(request.SerializeToString())
            outputs = message_factory.GetMessageClass(call.output_type).FromString(answer).outputs
            rest = json.loads(_body(lines[signature]["curl"]))
            expected = httpx.post(f"{server.rest_url}/v1/models/{quote(NAME)}:predict", json=rest).json()["outputs"]
            if signature == "search":
                found = [value.decode() for value in outputs["ids"].string_val]
                assert found == expected["ids"][0]
            assert arguments[-2] == "127.0.0.1:8500"


def _body(line):
    arguments = shlex.split(line)
    return arguments[arguments.index("-d") + 1]


def test_a_folder_without_descriptors_says_where_the_protos_are(version, tmp_path):
    shutil.copytree(version, tmp_path / "1")
    (tmp_path / "1" / kit.PROTOSET).unlink()
    line = inspect(tmp_path / "1")["requests"]["serving_default"]["grpcurl"]
    assert re.search(r"-import-path serving -import-path tensorflow -proto tensorflow_serving/apis/prediction_service\.proto", line)


def test_bytes_that_are_no_text_travel_as_base64():
    from tfebr.servable.sample_requests import curl

    body = json.loads(_body(curl("m", "s", {"x": tf.constant([b"ok", b"\xff"]).numpy(), "y": tf.constant([[1, 2]]).numpy()})))
    assert body["inputs"] == {"x": ["ok", {"b64": "/w=="}], "y": [[1, 2]]}
