"""The client: the same answers over both protocols, padding and defaults, and errors that name the field or the server."""

import concurrent.futures
import json
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from threads import answering
from tiny_servable import joined, serving_tiny, write_tiny

from tfebr.client.client import Client, Result
from tfebr.client.transports import ServerError
from tfebr.errors import ConfigError, RequestError
from tfebr.server.server import Server

SCORE = float(np.float32(3.2))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving_tiny(tmp_path_factory.mktemp("servable"), 200_000) as server:
        yield server


@pytest.fixture(scope="module")
def clients(server):
    with Client(server.rest_url, "shop") as rest, Client(server.grpc_target, "shop", protocol="grpc") as grpc:
        yield {"rest": rest, "grpc": grpc}


@pytest.fixture(params=["rest", "grpc"])
def client(request, clients):
    return clients[request.param]


def listed(*history):
    """A history as `query` sends it: TensorFlow Serving's batching fills up lists with their first element, which so is padding."""
    return ["", *history]


def result(first):
    return Result([first, "mark 3"], [SCORE, SCORE])


def test_query_returns_the_found_items_without_their_padding(client):
    assert client.query("lamp", user={"age": "30"}, history=["a", "b"]) == [result(joined("lamp", "30", listed("a", "b")))]


def test_stages_and_ages_of_a_history_are_inputs_of_their_own(client):
    for field in ("history_stages", "history_ages"):
        with pytest.raises(RequestError, match=f"has no field `{field}`"):
            client.query("lamp", history=["a"], **{field: [1]})
        assert client.query("lamp", history=["a"], **{field: []}) == [result(joined("lamp", "", listed("a")))]


def test_what_is_left_out_is_padding(client):
    assert client.query("lamp") == [result(joined("lamp"))]
    assert client.query("lamp", history=[], user={}) == [result(joined("lamp"))]


def test_several_queries_share_user_and_history(client):
    expected = [result(joined(query, "30", listed("a", "b"))) for query in ("lamp", "söfa 👟", "")]
    assert client.query(["lamp", "söfa 👟", ""], user={"age": "30"}, history=["a", "b"]) == expected
    assert client.query([]) == []


def test_further_inputs_go_by_name(client):
    assert client.query(["lamp", "sofa"], user_age=["1", "2"]) == [result(joined("lamp", "1")), result(joined("sofa", "2"))]


def test_predict_pads_unequal_lists(client):
    found = client.predict(query=["a", "b", "c"], user_age="7", history_items=[["x"], [], ["y", "z", "w"]])
    assert found["ids"][:, 0].tolist() == ["a|7|x,,", "b|7|,,", "c|7|y,z,w"]
    assert (found["ids"].dtype, found["scores"].dtype, found["num_results"].dtype) == (object, np.float32, np.int32)


def test_predict_takes_arrays_and_every_type(client):
    found = client.predict(
        "echo",
        small=np.array([1, -2]),
        large=[2**62, 0],
        flag=[True, False],
        fine=0.5,
        pair=[[1], (2, np.float32(0.1))],
        blob=[b"\xff\x00", "text"],
    )
    assert found["out_small"].tolist() == [1, -2]
    assert found["out_large"].tolist() == [2**62, 0]
    assert found["out_flag"].tolist() == [True, False]
    assert found["out_fine"].tolist() == [0.5, 0.5]
    np.testing.assert_array_equal(found["out_pair"], np.array([[1, 0], [2, 0.1]], np.float32))
    assert found["out_blob"].tolist() == ["\ufffd\x00", "text"]
    assert found["out_blob_bytes"].tolist() == [b"\xff\x00", b"text"]
    assert [found[f"out_{name}"].dtype for name in ("small", "large", "flag", "fine")] == [np.int32, np.int64, bool, np.float64]


def test_numbers_left_out_are_zero(client):
    found = client.predict("echo", small=[1, 2])
    assert found["out_large"].tolist() == [0, 0]
    assert found["out_flag"].tolist() == [False, False]
    assert found["out_pair"].tolist() == [[0, 0], [0, 0]]
    assert found["out_blob"].tolist() == ["", ""]


def test_signature_with_one_output_and_one_without_rows(client):
    assert client.predict("half", x=[1, 3.0])["y"].tolist() == [0.5, 1.5]
    assert {name: value.tolist() for name, value in client.predict("total", x=[1, 5]).items()} == {"sum": 6, "largest": 5}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.tuples(TEXT, TEXT, st.lists(TEXT, max_size=3)), min_size=1, max_size=3))
def test_both_protocols_give_what_plain_python_gives(clients, rows):
    queries, ages, histories = (list(column) for column in zip(*rows, strict=True))
    width = max(1, *map(len, histories))
    expected = [joined(query, age, [*history, *[""] * (width - len(history))]) for query, age, history in rows]
    for client in clients.values():
        found = client.predict(query=queries, user_age=ages, history_items=histories)
        assert found["ids"][:, 0].tolist() == expected
        np.testing.assert_array_equal(found["scores"], np.full([len(rows), 3], 3.2, np.float32))


@pytest.mark.parametrize(
    ("signature", "columns", "message"),
    [
        ("serving_default", {"query": ["a"], "colour": ["red"]}, "no field `colour`. It has: history_items, query, user_age"),
        ("none", {}, "Model `shop` has no signature `none`. It has: echo, half"),
        ("__saved_model_init_op", {}, "no signature `__saved_model_init_op`"),
        ("serving_default", {"query": ["a", "b"], "user_age": ["c"]}, "`user_age` has 1 rows, but `query` has 2"),
        ("serving_default", {"query": [1]}, "`query` must hold a str for each value. Received: a int"),
        ("serving_default", {"query": [["a"]]}, "`query` must hold a str for each value. Received: a list"),
        ("serving_default", {"query": ["a"], "history_items": ["b"]}, "`history_items` needs 2 levels of lists"),
        ("serving_default", {"query": ["a"], "history_items": "b"}, "`history_items` needs 2 levels of lists"),
        ("serving_default", {"query": ["\ud800"]}, "`query` holds half of a surrogate pair"),
        ("half", {"x": ["a"]}, "`x` must hold a number"),
        ("half", {"x": [True]}, "`x` must hold a number"),
        ("echo", {"small": [1.5]}, "`small` must hold a whole number"),
        ("echo", {"small": [2**40]}, "`small` holds a number outside the range of int32"),
        ("echo", {"flag": [1]}, "`flag` must hold True or False"),
        ("echo", {"pair": [[1, 2, 3]]}, "`pair` takes lists of at most 2 values. Received: 3"),
    ],
)
def test_bad_columns_are_refused_by_name(client, signature, columns, message):
    with pytest.raises(RequestError) as caught:
        client.predict(signature, **columns)
    assert message in str(caught.value)


def test_query_refuses_what_the_signature_lacks(client):
    with pytest.raises(RequestError, match="no field `user_colour`"):
        client.query("lamp", user={"colour": "red"})
    with pytest.raises(RequestError, match="no field `history_queries`"):
        client.query("lamp", history_queries=["sofa"])
    with pytest.raises(RequestError, match="`history_items` must be a list"):
        client.query("lamp", history="abc")
    with pytest.raises(RequestError, match="no field `query`"):
        client.query("lamp", signature="half")


def test_refusals_of_the_server_come_through(client):
    with pytest.raises(RequestError, match=r"200000.*(HTTP 413|gRPC RESOURCE_EXHAUSTED)"):
        client.predict(query=["x" * 300_000])


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_unknown_model_is_named(server, protocol):
    target = server.rest_url if protocol == "rest" else server.grpc_target
    with Client(target, "other shop", protocol) as client, pytest.raises(RequestError, match="This server has the model `shop`"):
        client.query("lamp")


def test_numbers_that_are_not_finite_come_as_they_are(client):
    assert client.predict("inverse", x=[0.0, -0.0, 2.0])["y"].tolist() == [np.inf, -np.inf, 0.5]
    assert np.isnan(client.predict("half", x=[np.nan])["y"]).all()


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_no_server_says_how_to_start_one(protocol):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        target = f"127.0.0.1:{closed.getsockname()[1]}"
    with Client(target, "shop", protocol) as client, pytest.raises(ServerError, match=f"{target}: no server answers.*tfebr serve FOLDER"):
        client.query("lamp")


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_silent_server_is_given_up(protocol):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        with (
            Client(target, "shop", protocol, timeout=0.2) as client,
            pytest.raises(ServerError, match=r"no answer within 0.2 seconds|no server"),
        ):
            client.query("lamp")


@pytest.mark.parametrize("answer", [b"<html>", b""])
def test_foreign_server_is_recognised(answer):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    foreign = HTTPServer(("127.0.0.1", 0), Handler)
    with answering(foreign), Client(f"127.0.0.1:{foreign.server_port}", "shop") as client:
        with pytest.raises(ServerError, match="is not JSON"):
            client.query("lamp")


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_kept_connection_survives_a_restart_of_the_server(tmp_path, protocol):
    base = tmp_path / "shop"
    write_tiny(base / "3", mark=3)
    with Server(base, rest_port=0, grpc_port=0) as first:
        ports = {"rest_port": int(first.rest_url.rsplit(":", 1)[1]), "grpc_port": int(first.grpc_target.rsplit(":", 1)[1])}
        client = Client(first.rest_url if protocol == "rest" else first.grpc_target, "shop", protocol)
        before = client.query("lamp")
    with Server(base, **ports):
        assert client.query("lamp") == before
        client.close()


def test_connections_are_kept(server):
    with Client(server.rest_url, "shop") as client:
        client.query("lamp")
        (connection,) = client._transport._idle.get()
        kept = connection.sock.getsockname()
        client.query("lamp")
        assert client._transport._idle.get()[0].sock.getsockname() == kept


def test_threads_may_share_a_client(client):
    def ask(number):
        return client.query(f"lamp {number}", history=[str(number)])[0].ids[0]

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(80))) == [joined(f"lamp {number}", "", listed(str(number))) for number in range(80)]


@pytest.mark.parametrize(
    ("target", "protocol", "message"),
    [
        ("127.0.0.1:8501", "http2", '`protocol` must be "rest" or "grpc"'),
        ("ftp://127.0.0.1:8501", "rest", "`target` must be host:port"),
        ("127.0.0.1:port", "rest", "`target` must be host:port"),
        ("http://127.0.0.1:8500", "grpc", "`target` must be host:port for gRPC"),
    ],
)
def test_impossible_settings_are_refused(target, protocol, message):
    with pytest.raises(ConfigError, match=message):
        Client(target, "shop", protocol)


def test_rest_client_needs_no_tensorflow(server):
    script = (
        "import json, sys; from tfebr.client.client import Client; "
        f"found = Client({server.rest_url!r}, 'shop').query('lamp'); "
        "print(json.dumps([found[0].ids, 'tensorflow' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[joined("lamp"), "mark 3"], False]
