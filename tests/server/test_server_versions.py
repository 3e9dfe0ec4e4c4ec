"""Versions: which folder is served, how newer ones take over, what a bad one does, and ports."""

import concurrent.futures
import contextlib
import functools
import logging
import os
import shutil
import socket
import threading

import httpx
import pytest
import tensorflow as tf
from gated_servable import gated, wait_for
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2
from threads import in_thread
from tiny_servable import joined, write_tiny

from tfebr.client.client import Client
from tfebr.errors import ArtifactError, ConfigError, TfebrError
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


def publish(source, target):
    """Copies beside the target, then renames: as a servable is published."""
    partial = target.parent / f".{target.name}.partial"
    shutil.copytree(source, partial)
    os.rename(partial, target)


@pytest.fixture
def start():
    """Starts servers on free ports that look for versions all the time, and closes them."""
    servers = []

    def start(base, **settings):
        servers.append(Server(base, rest_port=0, grpc_port=0, poll_seconds=0.05, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def mark(server, protocol="rest"):
    with Client(server.rest_url if protocol == "rest" else server.grpc_target, server.name, protocol) as client:
        (result,) = client.query("lamp")
        return result.ids[1]


def states(server):
    found = httpx.get(f"{server.rest_url}/v1/models/{server.name}").json()["model_version_status"]
    return {int(status["version"]): status["state"] for status in found}


def rename_op(folder, old, new):
    file = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for function in saved.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            node.op = new if node.op == old else node.op
    file.write_bytes(saved.SerializeToString())


def test_newest_numeric_folder_is_served_and_all_others_are_ignored(base, written, start):
    shutil.copytree(written[2], base / "0010")
    shutil.copytree(written[3], base / ".11.partial")
    shutil.copytree(written[3], base / "12.old")
    shutil.copytree(written[3], base / "latest")
    shutil.copytree(written[3] / "variables", base / "13" / "variables")
    (base / "14").write_text("a file")
    server = start(base)
    assert server.name == "shop"
    assert mark(server) == mark(server, "grpc") == "mark 2"
    assert states(server)[10] == "AVAILABLE"
    # As at TensorFlow Serving, what has a number for a name is a version, if one that does not load.
    wait_for(lambda: states(server) == {10: "AVAILABLE", 13: "END", 14: "END"})
    assert mark(server) == "mark 2"


def test_one_version_folder_can_be_served(base, written, tmp_path, start):
    server = start(base / "1")
    assert (server.name, states(server)) == ("shop", {1: "AVAILABLE"})
    shutil.copytree(written[2], tmp_path / "mine")
    server = start(tmp_path / "mine", name="other")
    assert (server.name, states(server), mark(server)) == ("other", {1: "AVAILABLE"}, "mark 2")


def test_newer_version_takes_over_without_a_failed_request(base, written, start):
    server = start(base)

    def ask(protocol, seen, stop):
        with Client(server.rest_url if protocol == "rest" else server.grpc_target, "shop", protocol) as client:
            while not stop.is_set():
                (result,) = client.query("lamp", user={"age": "7"}, history=["a"])
                number = int(result.ids[1].removeprefix("mark "))
                assert result.ids[0] == joined("lamp", "7", ["", "a"]), "the client pads in front"
                assert result.scores == pytest.approx([number + 0.2] * 2)
                seen.append(number)

    answers = [[] for _ in range(4)]
    with contextlib.ExitStack() as asking:
        for protocol, seen in zip(("rest", "grpc") * 2, answers, strict=True):
            asking.enter_context(in_thread(functools.partial(ask, protocol, seen)))
        for version in (1, 2, 3):
            if version > 1:
                publish(written[version], base / str(version))
            wait_for(lambda version=version: all(seen[-1:] == [version] for seen in answers))
    for seen in answers:
        assert seen == sorted(seen)
        assert set(seen) == {1, 2, 3}
    assert states(server) == {3: "AVAILABLE", 2: "END", 1: "END"}
    answer = httpx.post(f"{server.rest_url}/v1/models/shop/versions/1:predict", json={"signature_name": "half", "inputs": [1]})
    assert answer.status_code == 404


def test_removing_the_newest_version_goes_back(base, written, start):
    shutil.copytree(written[2], base / "2")
    server = start(base)
    shutil.rmtree(base / "2")
    wait_for(lambda: mark(server) == "mark 1")


def test_bad_newer_version_leaves_the_old_one_until_it_is_repaired(base, written, start, caplog, monkeypatch):
    looks, look = [], Versions.refresh
    monkeypatch.setattr(Versions, "refresh", lambda self: look(self) or looks.append(1))
    server = start(base)
    bad = base.parent / "bad"
    shutil.copytree(written[2], bad)
    rename_op(bad, "StringJoin", "Unheard>Op")
    with caplog.at_level(logging.ERROR):
        publish(bad, base / "2")
        wait_for(lambda: states(server).get(2) == "END")
        seen = len(looks)
        wait_for(lambda: len(looks) > seen + 3)
    assert mark(server) == "mark 1"
    assert states(server) == {2: "END", 1: "AVAILABLE"}
    status = httpx.get(f"{server.rest_url}/v1/models/shop/versions/2").json()["model_version_status"][0]["status"]
    assert status["error_code"] == "UNKNOWN"
    assert "`Unheard>Op`" in status["error_message"]
    # Tried once, not at every look.
    assert sum("version 2 is not loaded" in record.getMessage() for record in caplog.records) == 1
    shutil.copy(written[2] / "saved_model.pb", base / "2" / "saved_model.pb")
    wait_for(lambda: states(server) == {2: "AVAILABLE", 1: "END"})
    assert mark(server) == "mark 2"


def test_missing_op_is_named(base):
    rename_op(base / "1", "StringJoin", "Unheard>Op")
    with pytest.raises(ArtifactError, match=r"shop/1: the servable needs the op `Unheard>Op`.*Install the versions"):
        Versions(base)


def test_ops_of_scann_and_tensorflow_text_are_registered(tmp_path):
    import tensorflow_text

    class Cuts(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def cut(self, text):
            return {"words": tensorflow_text.WhitespaceTokenizer().tokenize(text).to_tensor("")}

    model = Cuts()
    options = tf.saved_model.SaveOptions(namespace_whitelist=["TFText"])
    tf.saved_model.save(model, str(tmp_path / "1"), signatures={"serving_default": model.cut}, options=options)
    versions = Versions(tmp_path / "1")
    words = versions.get(versions.name).run("", {"text": tf.constant(["led lamp"]).numpy()})["words"]
    assert words.tolist() == [[b"led", b"lamp"]]
    from tensorflow.python.framework import op_def_registry

    assert op_def_registry.get("Scann>TensorsToScann") is not None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "saved_model.pb").write_bytes(b"\xff\xff"), "saved_model.pb: cannot be read"),
        (lambda folder: (folder / "saved_model.pb").write_bytes(b""), 'no graph with the tag "serve"'),
        (lambda folder: shutil.rmtree(folder / "variables"), "cannot be loaded"),
    ],
)
def test_damaged_version_is_refused_at_the_start(base, damage, message):
    damage(base / "1")
    with pytest.raises(ArtifactError, match=message):
        Versions(base)


def test_model_without_signatures_is_refused(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "1"))
    with pytest.raises(ArtifactError, match="no signatures"):
        Versions(tmp_path)


def test_folder_without_versions_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="none: is no folder"):
        Versions(tmp_path / "none")
    with pytest.raises(ArtifactError, match="holds no version"):
        Versions(tmp_path)


class _Counting(tf.Module):
    def __init__(self):
        super().__init__()
        self.calls = tf.Variable(0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, "x")])
    def add(self, x):
        return {"calls": self.calls.assign_add(tf.reduce_sum(x))}


def _with_warm_up(folder, inputs):
    model = _Counting()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.add})
    (folder / "assets.extra").mkdir()
    log = prediction_log_pb2.PredictionLog()
    for name, value in inputs.items():
        log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    with tf.io.TFRecordWriter(str(folder / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())
        writer.write(log.SerializeToString())


def test_recorded_requests_are_replayed_before_the_version_answers(tmp_path):
    _with_warm_up(tmp_path / "1", {"x": [3, 4]})
    versions = Versions(tmp_path / "1")
    assert versions.get(versions.name).run("", {"x": tf.constant([0]).numpy()})["calls"] == 14


def test_recorded_request_that_fails_refuses_the_version(tmp_path):
    _with_warm_up(tmp_path / "1", {"y": [3, 4]})
    with pytest.raises(ArtifactError, match=r"tf_serving_warmup_requests: a recorded request fails: .*unknown: y"):
        Versions(tmp_path / "1")


def test_close_frees_the_ports_and_ends_the_threads(base):
    before = set(threading.enumerate())
    with Server(base, rest_port=0, grpc_port=0) as server:
        mark(server)
        mark(server, "grpc")
        ports = [int(address.rsplit(":", 1)[1]) for address in (server.rest_url, server.grpc_target)]
    server.close()
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass
    with Server(base, rest_port=ports[0], grpc_port=ports[1]) as again:
        assert mark(again) == mark(again, "grpc") == "mark 1"
    wait_for(lambda: not [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("tfebr")])


def test_close_lets_a_request_under_way_finish(tmp_path):
    with gated(tmp_path) as (server, model), concurrent.futures.ThreadPoolExecutor(2) as threads:
        clients = [Client(server.rest_url, "slow", timeout=60), Client(server.grpc_target, "slow", "grpc", timeout=60)]
        asked = [threads.submit(client.predict, x=[number]) for number, client in enumerate(clients)]
        wait_for(lambda: sorted(model.asked) == [0, 1])
        with in_thread(lambda _: server.close()):
            wait_for(lambda: server._rest.should_exit)
            model.gate.set()
        assert [answer.result()["y"].tolist() for answer in asked] == [[0], [1]]
        for client in clients:
            client.close()


@pytest.mark.parametrize("which", ["rest_port", "grpc_port"])
def test_taken_port_is_named_and_the_other_one_freed(base, which):
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        port, other = taken.getsockname()[1], free.getsockname()[1]
        free.close()
        other_name = {"rest_port": "grpc_port", "grpc_port": "rest_port"}[which]
        with pytest.raises(TfebrError, match=f"127.0.0.1:{port}: .* cannot listen there.*Choose another port"):
            Server(base, **{which: port, other_name: other})
        with socket.create_server(("127.0.0.1", other)):
            pass


def test_foreign_host_and_impossible_port_are_refused(base):
    with pytest.raises(TfebrError, match="cannot listen there"):
        Server(base, host="203.0.113.7", rest_port=0, grpc_port=0)
    with pytest.raises(ConfigError, match="`rest_port` must be a port from 1 to 65535"):
        Server(base, rest_port=99_999, grpc_port=0)
    with pytest.raises(ConfigError, match="`grpc_port` must be a port"):
        Server(base, rest_port=0, grpc_port=-1)
