"""Shards of different published sets are never merged, whatever protocol tells the client of the set."""

import importlib
import json
import shutil
import threading
import time

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from toy_servable import QUESTIONS, K, toy_servable

from tfebr.client.client import Client
from tfebr.client.sharded_client import ShardedClient
from tfebr.client.transports import UnavailableError
from tfebr.servable.manifest import MANIFEST
from tfebr.server.loaded import Model
from tfebr.server.server import Server


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A version of set "A". Here, every shard holds the same items: which set they are of is all that matters."""
    module = importlib.import_module("tfebr.servable.write")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_check_in_fresh_process", lambda folder: {"ok": True})
        about = {"shard": {"number": 0, "of": 2, "set": "A"}}
        return module.write(toy_servable(), tmp_path_factory.mktemp("sets") / "toy-shard-0", about, QUESTIONS[:1])


def publish(written, target, shard_set):
    hidden = target.parent / f".{target.name}.incoming"
    shutil.copytree(written, hidden)
    manifest = json.loads((hidden / MANIFEST).read_text())
    manifest["about"]["shard"]["set"] = shard_set
    if shard_set is None:
        del manifest["about"]["shard"]
        graph = saved_model_pb2.SavedModel.FromString((hidden / "saved_model.pb").read_bytes())
        del graph.meta_graphs[0].signature_def["__tfebr_shard_set"]
        (hidden / "saved_model.pb").write_bytes(graph.SerializeToString())
        manifest["files"] = {}
    (hidden / MANIFEST).write_text(json.dumps(manifest))
    target.parent.mkdir(exist_ok=True)
    hidden.rename(target)


@pytest.fixture
def serve(tmp_path, written):
    """Servers of shards that are of the given sets, in folders with version 1."""
    servers = []

    def serve(*sets):
        for number, shard_set in enumerate(sets):
            base = tmp_path / f"toy-shard-{number}"
            publish(written, base / "1", shard_set)
            servers.append(Server(base, rest_port=0, grpc_port=0, poll_seconds=0.05))
        return servers

    yield serve
    for server in servers:
        server.close()


def sharded(servers, protocol="rest", **settings):
    return ShardedClient([s.rest_url if protocol == "rest" else s.grpc_target for s in servers], "toy", protocol, **settings)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_shards_of_one_set_are_merged_and_of_two_are_not(serve, protocol, written, tmp_path):
    servers = serve("A", "A")
    with sharded(servers, protocol) as client:
        (found,) = client.query("red shoes")
        assert (len(found.ids), found.version, found.shard_set) == (K, 1, "A")
    # Version 2 of one shard alone, as a copy that was broken off leaves it.
    publish(written, tmp_path / "toy-shard-1" / "2", "B")
    end = time.monotonic() + 30
    while servers[1].versions.loaded() != [2]:
        assert time.monotonic() < end
        time.sleep(0.01)
    with sharded(servers, protocol, timeout=1.0) as client:
        with pytest.raises(UnavailableError) as caught:
            client.query("red shoes")
        for said in ("shard 0 of 2", ": A, version 1", "shard 1 of 2", ": B, version 2", "export or refresh all shards again"):
            assert said in str(caught.value)


@pytest.mark.parametrize("sets", [("A", "B"), ("A", None), (None, "B")])
def test_the_same_version_number_is_not_enough(serve, sets):
    """Of two runs that were both exported once."""
    with sharded(serve(*sets), timeout=0.5) as client, pytest.raises(UnavailableError, match="were not published together"):
        client.query("red shoes")


def test_versions_without_a_set_are_merged(serve):
    """Of a library that did not know of sets."""
    with sharded(serve(None, None)) as client:
        (found,) = client.query("red shoes")
        assert (len(found.ids), found.shard_set) == (K, None)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_call_waits_while_servers_change_one_after_the_other(serve, protocol, written, tmp_path):
    with sharded(serve("A", "A"), protocol, timeout=60) as client:
        assert client.query("red shoes")[0].shard_set == "A"
        publish(written, tmp_path / "toy-shard-0" / "2", "B")
        later = threading.Timer(0.5, publish, (written, tmp_path / "toy-shard-1" / "2", "B"))
        later.start()
        end = time.monotonic() + 60
        seen = ["A"]
        while seen[-1] != "B":
            assert time.monotonic() < end
            seen.append(client.query(["red shoes", "lamp"], k=3)[1].shard_set)
        later.join()
        assert set(seen) == {"A", "B"}
        assert client.query("lamp")[0].version == 2


def test_the_set_is_in_the_model_itself_for_servers_that_read_no_manifest(written, tmp_path):
    """TensorFlow Serving passes on what the SavedModel says."""
    shutil.copytree(written, tmp_path / "toy" / "1")
    (tmp_path / "toy" / "1" / MANIFEST).unlink()
    with Server(tmp_path / "toy", rest_port=0, grpc_port=0) as server:
        for target, protocol in ((server.rest_url, "rest"), (server.grpc_target, "grpc")):
            with Client(target, "toy", protocol) as client:
                assert client.query("red shoes")[0].shard_set == "A"
                with pytest.raises(Exception, match="has no signature") as caught:
                    client.predict("__tfebr_shard_set")
                assert "__" not in str(caught.value).partition("It has:")[2]
    # TensorFlow's own loaders take it: the one of TensorFlow 2, and that of a session, as TensorFlow Serving's.
    assert set(tf.saved_model.load(str(written)).signatures) == {"serving_default", "search", "embed_query", "embed_items"}
    assert Model(written, 1).outputs("serving_default") == ["ids", "num_results", "scores"]
