"""What TensorFlow Serving accepts over REST and how it refuses, read from its documentation and sources: encodings, names, codes."""

import gzip
import json
import urllib.parse
import zlib

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_servable import joined, write_tiny

from tfebr.server.server import Server

LIMIT = 50_000
COLUMNS = {"query": ["lamp", "söfa"], "user_age": ["30", ""], "history_items": [["a"], ["b"]]}
BODY = json.dumps({"inputs": COLUMNS}, ensure_ascii=False).encode()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("servable") / "shop"
    for number in (1, 2, 3):
        write_tiny(base / str(number), mark=number)
    return base


@pytest.fixture(scope="module")
def server(base):
    with Server(base, rest_port=0, grpc_port=0, max_body_bytes=LIMIT, poll_seconds=0.05, labels={"as is/1:2": 2}) as server:
        yield server


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.rest_url) as client:
        yield client


def predict(http, body, path="/v1/models/shop:predict", **headers):
    return http.post(path, content=body if isinstance(body, bytes) else json.dumps(body).encode(), headers=headers)


def first_ids(answer):
    return [row[0] for row in answer.json()["outputs"]["ids"]]


def bare_deflate(body):
    made = zlib.compressobj(wbits=-15)
    return made.compress(body) + made.flush()


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("gzip", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
        ("deflate", zlib.compress),
        ("deflate", bare_deflate),
        ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
        ("identity", bytes),
        ("", bytes),
    ],
)
def test_bodies_may_be_compressed(http, encoding, encode):
    answer = predict(http, encode(BODY), **{"content-encoding": encoding})
    assert answer.status_code == 200, answer.text
    assert first_ids(answer) == [joined("lamp", "30", ["a"]), joined("söfa", "", ["b"])]


@pytest.mark.parametrize(
    ("encoding", "body", "status", "said"),
    [
        ("gzip", BODY, 400, "not what its Content-Encoding says"),
        ("gzip", gzip.compress(BODY)[:-12], 400, "ends before"),
        ("deflate", b"x", 400, "ends before"),
        ("br", BODY, 400, "must be gzip or deflate"),
        ("gzip", b"", 400, "document is empty"),
        ("gzip", gzip.compress(b" " * (LIMIT + 1)), 413, str(LIMIT)),
        ("gzip", gzip.compress(b" " * 10**7), 413, str(LIMIT)),
    ],
    ids=range(7),
)
def test_bad_compression_is_refused_before_it_takes_memory(http, encoding, body, status, said):
    answer = predict(http, body, **{"content-encoding": encoding})
    assert answer.status_code == status
    assert said in answer.json()["error"]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=60), encoding=st.sampled_from(["gzip", "deflate", "deflate, gzip", "gzip,,", "x"]))
def test_any_compressed_bytes_are_refused(http, body, encoding):
    assert predict(http, body, **{"content-encoding": encoding}).status_code == 400


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=latin-1", "text/plain", "application/x-www-form-urlencoded"]
)
def test_the_content_type_is_not_read(http, kind):
    """curl's default is that of a form; and a body is UTF-8 whatever it says."""
    assert first_ids(predict(http, BODY, **{"content-type": kind}))[1] == joined("söfa", "", ["b"])


def test_a_byte_order_mark_is_skipped(http):
    assert first_ids(predict(http, b"\xef\xbb\xbf" + BODY))[0] == joined("lamp", "30", ["a"])
    assert predict(http, BODY.decode().encode("utf-16")).status_code == 400


def test_bytes_that_are_no_text_reach_the_model(http):
    echo = {"small": [1], "large": [1], "flag": [True], "fine": [1.0], "pair": [[1, 2]], "blob": ["HERE"]}
    body = json.dumps({"signature_name": "echo", "inputs": echo}).encode().replace(b"HERE", b"\xff\xfe\xe9 \xed\xa0\x80")
    assert predict(http, body).json()["outputs"]["out_blob_bytes"] == [{"b64": "//7pIO2ggA=="}]


@pytest.mark.parametrize("text", ["bGFtcA==", "bGFtcA", "bGFt cA==", "bGFt\ncA"])
def test_base64_is_read_wherever_a_string_is(http, text):
    inputs = {**COLUMNS, "query": ["lamp", {"b64": text}], "history_items": [[{"b64": "YQ=="}], ["b"]]}
    assert first_ids(predict(http, {"inputs": inputs})) == [joined("lamp", "30", ["a"]), joined("lamp", "", ["b"])]
    row = {"query": {"b64": text}, "user_age": {"b64": ""}, "history_items": [{"b64": "YQ"}]}
    assert predict(http, {"instances": [row]}).json()["predictions"][0]["ids"][0] == joined("lamp", "", ["a"])


@pytest.mark.parametrize("text", ["b", "bGFt*A==", "bGFtc", "-_--"])
def test_what_is_no_base64_is_refused(http, text):
    assert predict(http, {"inputs": {**COLUMNS, "query": ["lamp", {"b64": text}]}}).status_code == 400


def test_numbers_that_are_not_finite_go_in_and_out(http):
    answer = predict(http, b'{"signature_name": "half", "instances": [NaN, Infinity, -Infinity, 3]}')
    assert "[NaN, Infinity, -Infinity, 1.5]" in answer.text
    assert predict(http, b'{"signature_name": "inverse", "inputs": [0.0, -0.0]}').text == '{"outputs": [Infinity, -Infinity]}'
    assert predict(http, b'{"signature_name": "half", "inputs": [1e999]}').status_code == 400
    assert predict(http, b'{"signature_name": "total", "inputs": [NaN]}').status_code == 400
    assert predict(http, b'{"signature_name": "half", "inputs": [100000000000000000000]}').json() == {"outputs": [5e19]}


def test_columns_that_the_signature_lacks_are_not_read_and_rows_are_refused(http):
    assert first_ids(predict(http, {"inputs": {**COLUMNS, "colour": "red"}}))[0] == joined("lamp", "30", ["a"])
    row = {name: column[0] for name, column in COLUMNS.items()}
    assert predict(http, {"instances": [{**row, "colour": "red"}]}).status_code == 400


def test_names_and_labels_are_decoded_after_the_address_is_taken_apart(http, base):
    label = urllib.parse.quote("as is/1:2", safe="")
    assert predict(http, BODY, f"/v1/models/%73hop/labels/{label}:predict").json()["outputs"]["ids"][0][1] == "mark 2"
    assert http.get(f"/v1/models/sho%70/labels/{label}").json()["model_version_status"][0]["version"] == "2"
    assert http.get("/v1/models/shop%2Fversions%2F3").status_code == 404
    with Server(base, name="été", rest_port=0, grpc_port=0) as other:
        assert httpx.get(f"{other.rest_url}/v1/models/%C3%A9t%C3%A9/metadata").json()["model_spec"]["name"] == "été"


def test_scripts_of_other_origins_are_allowed_where_that_is_asked_for(http, base):
    headers = ("access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers")
    assert not {name for name in headers if name in http.get("/v1/models/shop").headers}
    assert http.options("/v1/models/shop:predict").status_code == 400
    with Server(base, rest_port=0, grpc_port=0, cors=True) as server, httpx.Client(base_url=server.rest_url) as allowed:
        asked = [allowed.options("/v1/models/shop:predict"), predict(allowed, BODY), predict(allowed, b"{"), allowed.get("/v1/models/shop")]
        assert [answer.status_code for answer in asked] == [200, 200, 400, 200]
        for answer in asked:
            assert [answer.headers[name] for name in headers] == ["*", "POST, GET", "Content-Type"]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/v1/models/shop:classify", 400, "Expected classification signature method_name to be tensorflow/serving/classify. Was"),
        ("/v1/models/shop:regress", 400, "Expected regression signature method_name to be tensorflow/serving/regress. Was"),
        ("/v1/models/other:classify", 404, "Servable not found for request"),
        ("/v1/models/shop/versions/9:regress", 404, "Servable not found for request"),
        ("/v1/models/shop:rank", 400, "Malformed request: POST /v1/models/shop:rank"),
    ],
)
def test_methods_of_a_model_that_only_predicts(http, path, status, said):
    answer = predict(http, {"examples": [{"query": "lamp"}]}, path)
    assert answer.status_code == status
    assert said in answer.json()["error"]
