"""Versions with other columns under a client that lives on: it asks what the newest takes, and is told by name what that does not."""

import runpy
from pathlib import Path

import pytest
import tensorflow as tf
from toy_servable import ITEMS, QUESTIONS, ToyQueries, toy_servable, write_unchecked

from tfebr.client.client import Client
from tfebr.errors import RequestError
from tfebr.server.server import Server

NUMBERS = {"price": [i / 2 for i in range(ITEMS)]}
TEXTS = {"price": [str(i // 100) for i in range(ITEMS)], "colour": [["red", "blue"][i % 2] for i in range(ITEMS)]}


class Shy(ToyQueries):
    """Reads one input less, and one that the others do not have."""

    input_signature = {n: s for n, s in ToyQueries.input_signature.items() if n != "prices"} | {
        "user_region": tf.TensorSpec([None], tf.string)
    }

    def __call__(self, inputs):
        return super().__call__({"prices": tf.zeros([tf.shape(inputs["query"])[0], 3])} | inputs)


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Numbers, texts with another column, no columns, other inputs: moved to where a server looks one by one."""
    base = tmp_path_factory.mktemp("columns") / "aside" / "shop"
    for columns, encoder in ((NUMBERS, ToyQueries), (TEXTS, ToyQueries), (None, ToyQueries), (NUMBERS, Shy)):
        write_unchecked(toy_servable(columns=columns, query_encoder=encoder), base, QUESTIONS[:1])
    return base


@pytest.fixture
def served(versions, tmp_path):
    """A server of version 1, and what publishes the next one."""
    base = tmp_path / "shop"
    base.mkdir()

    def publish(number):
        (base / str(number)).symlink_to(versions / str(number))

    publish(1)
    with Server(base, rest_port=0, grpc_port=0, poll_seconds=3600) as server:

        def next_version(number):
            publish(number)
            server.versions.refresh()
            assert server.versions.loaded() == [number]

        yield server, next_version


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_living_client_knows_the_columns_of_the_version_that_answers(served, protocol):
    server, publish = served
    with Client({"rest": server.rest_url, "grpc": server.grpc_target}[protocol], "shop", protocol) as client:
        cheap = {f"sku-{i}" for i in range(6, 17)}
        (found,) = client.query("x", k=50, filter={"price": (3, 8)})
        assert set(found.ids) == cheap
        with pytest.raises(RequestError, match=r"no column `colour`\. It has: price"):
            client.query("x", filter={"colour": "red"})

        publish(2)
        (found,) = client.query("x", k=50, filter={"colour": "red", "price": "1"})
        assert set(found.ids) <= {f"sku-{i}" for i in range(100, 200, 2)}
        assert len(found.ids) == 50
        with pytest.raises(RequestError, match="column `price` holds strings: give one"):
            client.query("x", filter={"price": (3, 8)})

        publish(3)
        with pytest.raises(RequestError, match="takes no filter"):
            client.query("x", filter={"colour": "red"})
        assert len(client.query("x", k=5)[0].ids) == 5

        publish(4)
        (found,) = client.query("x", user={"region": "north"}, k=50, filter={"price": (3, 8)})
        assert set(found.ids) == cheap


def test_the_kind_of_a_column_that_changed_is_never_asked_in_the_old_way(served):
    """The first thing that is asked of a new version is what it does not take any more."""
    server, publish = served
    with Client(server.rest_url, "shop") as client:
        client.query("x", filter={"price": (3, 8)})
        publish(2)
        with pytest.raises(RequestError, match="column `price` holds strings: give one"):
            client.query("x", filter={"price": (3, 8)})
        assert client.filter_columns() == {"price": "category", "colour": "category"}


def test_the_plain_client_reads_inputs_anew(served):
    server, publish = served
    plain = runpy.run_path(str(Path(__file__).parents[2] / "export" / "clients" / "rest_client.py"))["RestClient"](server.rest_url, "shop")
    assert len(plain.search("x", 5, filters=["price=3..8"])) == 5
    with pytest.raises(ValueError, match="has no input `user_region`"):
        plain.search("x", 5, user_region="north")
    publish(4)
    assert len(plain.search("x", 5, user_region="north")) == 5
    assert "prices" not in plain.signatures()["search"][0]
    with pytest.raises(ValueError, match="has no input `prices`"):
        plain.search("x", 5, prices=[0, 0, 0])
