"""Shards behind servers on loopback, merged: the same as the whole catalogue in one servable, ties included."""

import contextlib
import re
import threading

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from toy_servable import DIM, ToyItems, ToyQueries
from typer.testing import CliRunner

from tfebr import cli
from tfebr.client.client import Client, Result
from tfebr.client.sharded_client import ShardedClient
from tfebr.client.transports import ServerError
from tfebr.data.item_ids import ItemIds
from tfebr.errors import ConfigError, RequestError
from tfebr.index.attributes import ItemAttributes
from tfebr.index.exact import ExactIndex
from tfebr.servable.module import RetrievalServable
from tfebr.server.server import Server

# 90 items with 25 different vectors: nearly every place of a ranking is tied, within shards and across them. A quarter holds fewer than K.
ITEMS, K = 90, 40
VECTORS = np.random.default_rng(7).normal(size=(25, DIM)).astype(np.float32)[np.arange(ITEMS) % 25]
IDS = np.array([f"sku-{i}" for i in range(ITEMS)])
TABLE = pa.table({"brand": [["Sony", "LG"][i % 3 == 0] for i in range(ITEMS)], "only": ["x"] * 3 + [""] * (ITEMS - 3)})
QUERIES = ["red shoes", "lamp", "", "a b c"]


def last_bits(values, seed):
    """The float32 values, each as it is or one step off: what another order of additions or another processor makes of a result."""
    values = np.asarray(values, np.float32)
    steps = [values, np.nextafter(values, np.float32(-np.inf)), np.nextafter(values, np.float32(np.inf))]
    return np.choose(np.random.default_rng(seed).integers(0, 3, values.shape), steps)


def save(folder, queries, start, stop):
    vectors = last_bits(VECTORS[start:stop], seed=start + stop)
    assert np.unique(vectors, axis=0).shape[0] == stop - start
    parts = ExactIndex(vectors), ItemIds(IDS[start:stop])
    servable = RetrievalServable(queries, ToyItems(), *parts, K, ItemAttributes(TABLE.slice(start, stop - start)))
    tf.saved_model.save(servable, str(folder), signatures=servable.signature_functions())


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """{shards: their servers}, one of which is the whole."""
    folder = tmp_path_factory.mktemp("shards")
    # Histories are read through the whole catalogue's ids in every shard.
    queries = ToyQueries(ItemIds(np.array([f"sku-{i}" for i in range(300)])))
    with contextlib.ExitStack() as stack:
        found: dict = {}
        for count in (1, 2, 3, 4):
            edges = [ITEMS * i // count for i in range(count + 1)]
            for i in range(count):
                base = folder / str(count) / f"toy-shard-{i}"
                save(base / "1", queries, edges[i], edges[i + 1])
                found.setdefault(count, []).append(stack.enter_context(Server(base, rest_port=0, grpc_port=0)))
        yield found


def sharded(servers, protocol="rest", **settings):
    targets = [server.rest_url if protocol == "rest" else server.grpc_target for server in servers]
    # A first query of a server takes long on a busy machine.
    return ShardedClient(targets, "toy", protocol, **{"timeout": 120, **settings})


def whole(servers):
    return Client(servers[1][0].rest_url, "toy-shard-0", timeout=120)


ASKED = [
    ({}, K),
    ({"history": ["sku-3", "sku-80"]}, K),
    ({"filter": {"brand": "LG"}}, 30),
    ({"filter": ["only=x"]}, 3),
    ({"k": 7}, 7),
    ({"k": [85, 1, 9, 2], "exclude": ["sku-4", "sku-88", "elsewhere"]}, 85),
    ({"k": 1000, "exclude": ["sku-4"]}, ITEMS - 1),
]


def rows_of(result):
    return [int(item_id.removeprefix("sku-")) for item_id in result.ids]


def assert_same(found, expected):
    """The same items in the same places, but for a tie that is cut at the end: of it so many. Scores are the same up to their last bits."""
    for result, other in zip(found, expected, strict=True):
        assert result.applied_filter == other.applied_filter
        assert result.scores == sorted(result.scores, reverse=True)
        np.testing.assert_allclose(result.scores, other.scores, rtol=1e-5, atol=1e-5)
        rows, wanted = rows_of(result), rows_of(other)
        last_tie = sum(score > other.scores[-1] + 1e-5 for score in other.scores)
        assert rows[:last_tie] == wanted[:last_tie]
        assert rows[last_tie:] == sorted(set(rows[last_tie:]))


@pytest.mark.parametrize(("shards", "protocol"), [(1, "rest"), (2, "rest"), (3, "grpc"), (4, "rest")])
def test_results_are_those_of_the_whole(servers, shards, protocol):
    with sharded(servers[shards], protocol) as client, whole(servers) as one:
        for asked, results in ASKED:
            expected = one.query(QUERIES, **asked)
            assert len(expected[0].ids) == results
            assert_same(client.query(QUERIES, **asked), expected)
        assert_same(client.query("lamp"), one.query("lamp"))
        assert client.query([]) == []
        assert client.filter_columns() == one.filter_columns()


@pytest.mark.parametrize("shards", [1, 4])
def test_ties_are_in_the_order_of_the_catalogue(servers, shards):
    """Each score by plain Python; items of one vector are one tie, though the servers' scores of them differ in the last bits."""
    table = np.random.default_rng(6).normal(size=(64, DIM)).astype(np.float32)
    query = table[int(tf.strings.to_hash_bucket_fast("lamp", 64))].tolist()
    scores = [max(0.0, sum(q * v for q, v in zip(query, vector, strict=True))) for vector in VECTORS.tolist()]
    expected = sorted(range(ITEMS), key=lambda row: (-scores[row], row))
    assert len({scores[row] for row in expected[:K]}) < K / 2
    with sharded(servers[shards]) as client:
        found = client.query("lamp") + client.query("lamp", k=ITEMS)
    for result, k in zip(found, (K, ITEMS), strict=True):
        assert_same([result], [Result([f"sku-{row}" for row in expected[:k]], [scores[row] for row in expected[:k]])])
        np.testing.assert_allclose(result.scores, [scores[row] for row in rows_of(result)], rtol=1e-5, atol=1e-5)


class Stub(Client):
    """A client that answers without a server."""

    def __init__(self, results, gate=None):
        self.results, self.gate, self.asked, self.closed = results, gate, [], False

    def query(self, text, *args, **kwargs):
        self.asked.append((text, args, kwargs))
        if self.gate:
            assert self.gate.wait(60)
        if isinstance(self.results, Exception):
            raise self.results
        return self.results

    def predict(self, signature="serving_default", **columns):
        return {"ids": np.full((1, 3), "", object)}

    def close(self):
        self.closed = True


def test_k_and_everything_else_is_passed_on():
    stubs = [Stub([Result(["a", "b"], [3.0, 1.0]), Result(["a"], [1.0])]), Stub([Result(["c", "d"], [3.0, 2.0]), Result(["c"], [2.0])])]
    client = ShardedClient(stubs)
    assert client.query(["x", "y"], {"age": "1"}, k=[3, 1], exclude=["z"]) == [
        Result(["a", "c", "d"], [3.0, 3.0, 2.0]),
        Result(["c"], [2.0]),
    ]
    for stub in stubs:
        assert stub.asked == [(["x", "y"], ({"age": "1"},), {"k": [3, 1], "exclude": ["z"]})]
    assert [len(result.ids) for result in client.query(["x", "y"], k=1)] == [1, 1]
    assert [len(result.ids) for result in client.query(["x", "y"])] == [3, 2]
    assert "k" not in stubs[0].asked[-1][2]
    client.close()
    assert all(stub.closed for stub in stubs)


@given(
    st.lists(st.lists(st.integers(-6, 6), max_size=7), min_size=1, max_size=4),
    st.sampled_from([1e-3, 0.25, 3e4]),
    st.integers(1, 20),
    st.integers(0, 99),
)
def test_merging_ranks_by_score_then_catalogue_whatever_the_last_bits(shards, unit, most, seed):
    catalogue = [(value * unit, f"{shard}-{row}") for shard, values in enumerate(shards) for row, value in enumerate(values)]
    expected = sorted(catalogue, key=lambda item: -item[0])[:most]
    stubs = []
    for shard in range(len(shards)):
        own = sorted((item for item in catalogue if item[1].startswith(f"{shard}-")), key=lambda item: -item[0])
        # A server gives its best first, ties in order; the noise is the order of additions.
        noisy = np.sort(last_bits([score for score, _ in own], seed + shard))[::-1]
        stubs.append(Stub([Result([item_id for _, item_id in own], noisy.tolist())]))
    with ShardedClient(stubs) as client:
        (found,) = client.query("x", k=most)
    assert found.ids == [item_id for _, item_id in expected]
    np.testing.assert_allclose(found.scores, [score for score, _ in expected], rtol=1e-6, atol=1e-6 * unit)
    assert found.scores == sorted(found.scores, reverse=True)


def test_what_differs_by_more_than_rounding_is_no_tie():
    stubs = [Stub([Result(["a", "b"], [1.0, 0.5])]), Stub([Result(["c", "d"], [1.00001, 1e-5])])]
    with ShardedClient(stubs) as client:
        assert client.query("x", k=4)[0].ids == ["c", "a", "b", "d"]


def test_an_item_on_two_shards_is_returned_once():
    client = ShardedClient([Stub([Result(["a", "b"], [2.0, 1.0])]), Stub([Result(["a", "c"], [2.0, 1.0])])])
    assert client.query("x") == [Result(["a", "b", "c"], [2.0, 1.0, 1.0])]


@pytest.mark.parametrize("error", [RequestError("no field `age`"), ServerError("gone")])
def test_the_shard_that_fails_is_named(error):
    client = ShardedClient([Stub([Result([], [])]), Stub(error)])
    with pytest.raises(type(error), match=f"shard 1 of 2: {error}"):
        client.query("x")


def test_a_server_that_is_not_there_is_named(servers):
    client = ShardedClient([servers[2][0].rest_url, "http://127.0.0.1:9"], "toy")
    with client, pytest.raises(ServerError, match=r"shard 1 of 2 \(http://127.0.0.1:9\): .*no server answers REST there"):
        client.query("lamp")


def test_the_whole_call_has_one_deadline():
    gate = threading.Event()
    with ShardedClient([Stub([Result([], [])]), Stub([Result([], [])], gate)], timeout=0.2) as client:
        with pytest.raises(ServerError, match=r"^shard 1 of 2: no answer within 0.2 seconds"):
            client.query("x")
        # The gate is still closed: the shard has not answered yet.
        gate.set()


@pytest.mark.parametrize(("shards", "name", "message"), [("a", "n", "`shards`"), ([], "n", "`shards`"), (["a:1"], "", "`name`")])
def test_what_cannot_be_asked_is_refused(shards, name, message):
    with pytest.raises(ConfigError, match=message):
        ShardedClient(shards, name)


def test_the_command_asks_several_servers(servers):
    addresses = ",".join(server.rest_url for server in servers[2])
    done = CliRunner().invoke(cli.app, ["query", "lamp", "--server", addresses, "--name", "toy", "--k", "5"])
    assert done.exit_code == 0, done.output
    with whole(servers) as one:
        (expected,) = one.query("lamp")
    assert re.findall(r"sku-\d+", done.output) == expected.ids[:5]
