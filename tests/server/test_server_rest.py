"""REST: TensorFlow Serving's addresses, forms and codes."""

import base64
import json
import logging

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_servable import joined, serving_tiny

LIMIT = 20_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving_tiny(tmp_path_factory.mktemp("servable"), LIMIT) as server:
        yield server


@pytest.fixture(scope="module")
def http(server):
    with httpx.Client(base_url=server.rest_url) as client:
        yield client


def row(query="lamp", age="30", history=("a", "b")):
    return {"query": query, "user_age": age, "history_items": list(history)}


COLUMNS = {"query": ["lamp", "sofa"], "user_age": ["30", ""], "history_items": [["a", "b"], ["c", ""]]}


def predict(http, body, path="/v1/models/shop:predict"):
    return http.post(path, content=body if isinstance(body, str | bytes) else json.dumps(body))


@pytest.mark.parametrize("path", ["/v1/models/shop:predict", "/v1/models/shop/versions/3:predict", "/V1/Models/shop:Predict"])
def test_row_form_answers_one_object_for_each_row(http, path):
    answer = predict(http, {"instances": [row(), row("sofa", "", ["c", ""])]}, path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "predictions": [
            {"ids": [joined("lamp", "30", ["a", "b"]), "mark 3", ""], "num_results": 2, "scores": [3.2, 3.2, 3.2]},
            {"ids": [joined("sofa", "", ["c", ""]), "mark 3", ""], "num_results": 2, "scores": [3.2, 3.2, 3.2]},
        ]
    }


def test_column_form_answers_columns(http):
    answer = predict(http, {"signature_name": "serving_default", "inputs": COLUMNS})
    assert answer.json()["outputs"]["ids"] == [
        [joined("lamp", "30", ["a", "b"]), "mark 3", ""],
        [joined("sofa", "", ["c", ""]), "mark 3", ""],
    ]
    assert answer.json()["outputs"]["num_results"] == [2, 2]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"instances": [1.0, 3]}, {"predictions": [0.5, 1.5]}),
        ({"instances": [{"x": 1.0}, {"x": 3}]}, {"predictions": [0.5, 1.5]}),
        ({"inputs": [1.0, 3]}, {"outputs": [0.5, 1.5]}),
        ({"inputs": {"x": [1.0, 3]}}, {"outputs": [0.5, 1.5]}),
        ({"inputs": {"x": []}}, {"outputs": []}),
    ],
)
def test_single_input_may_be_plain_and_single_output_is_not_nested(http, body, expected):
    assert predict(http, {"signature_name": "half", **body}).json() == expected


def test_text_is_utf8_and_numbers_are_short(http):
    answer = predict(http, {"instances": [row("Größe 靴 👟", "", [""])]})
    assert "Größe 靴 👟" in answer.content.decode("utf-8")
    assert '"scores": [3.2, 3.2, 3.2]' in answer.text


def test_every_type_and_base64_both_ways(http):
    blob = base64.b64encode(b"\xff\x00text").decode()
    inputs = {
        "small": [-(2**31)],
        "large": [2**63 - 1],
        "flag": [True],
        "fine": [1e-300],
        "pair": [[1, 0.1]],
        "blob": [{"b64": blob}],
    }
    outputs = predict(http, {"signature_name": "echo", "inputs": inputs}).json()["outputs"]
    assert outputs == {
        "out_small": [-(2**31)],
        "out_large": [2**63 - 1],
        "out_flag": [True],
        "out_fine": [1e-300],
        "out_pair": [[1.0, 0.1]],
        "out_blob": ["\ufffd\x00text"],
        "out_blob_bytes": [{"b64": blob}],
    }


def test_outputs_without_a_row_for_each_instance_need_the_column_form(http):
    assert predict(http, {"signature_name": "total", "inputs": [1, 2, 3]}).json() == {"outputs": {"sum": 6, "largest": 3}}
    answer = predict(http, {"signature_name": "total", "instances": [1, 2, 3]})
    assert answer.status_code == 400
    assert "column form" in answer.json()["error"]


def echo(**changed):
    inputs = {"small": [1], "large": [1], "flag": [True], "fine": [1.0], "pair": [[1.0, 2.0]], "blob": ["x"]}
    return {"signature_name": "echo", "inputs": {**inputs, **changed}}


BAD = [
    ("", "JSON Parse error"),
    (b'{"inputs": \xff}', "JSON Parse error"),
    ("{", "JSON Parse error"),
    ("[" * 15_000, "nested too deeply"),
    ('{"inputs": {"x": [1' + "0" * 5000 + "]}}", "JSON Parse error"),
    ([], "must be a JSON object"),
    ({}, "exactly one of the keys"),
    ({"inputs": [], "instances": []}, "exactly one of the keys"),
    ({"instances": []}, "at least one row"),
    ({"instances": {}}, "at least one row"),
    ({"instances": ["lamp"]}, "several inputs: name them (history_items, query, user_age)"),
    ({"inputs": ["lamp"]}, "several inputs"),
    ({"instances": [row(), "lamp"]}, "Row 1"),
    ({"signature_name": "half", "instances": [1, {"x": 1}]}, "not both"),
    ({"instances": [{**row(), "colour": "red"}]}, "unknown: colour"),
    ({"instances": [row(), {"query": "lamp"}]}, "row 1"),
    ({"inputs": {"query": ["lamp"], "user_age": [""]}}, "missing: history_items"),
    ({"instances": [row(), row(history=["a"])]}, "`history_items` has rows of unequal length: 1 values in row 1, 2 in row 0. Pad"),
    ({"instances": [row(history=[["a"]])]}, "`history_items` must have the shape [None, None]"),
    ({"instances": [{**row(), "history_items": "a"}]}, "a list for each row"),
    ({"inputs": {**COLUMNS, "query": "lamp"}}, "`query` must have the shape [None]"),
    ({"inputs": {**COLUMNS, "query": ["lamp", ["sofa"]]}}, "`query` must hold strings"),
    ({"inputs": {**COLUMNS, "history_items": [["a"], "b"]}}, "`history_items` mixes lists and values"),
    ({"inputs": {**COLUMNS, "query": ["lamp", 7]}}, "`query` must hold strings"),
    ({"inputs": {**COLUMNS, "query": ["lamp", None]}}, "Received: null"),
    ({"inputs": {**COLUMNS, "query": ["lamp", {"b64": "?"}]}}, "not base64"),
    ({"inputs": {**COLUMNS, "query": ["lamp", "\ud800"]}}, "surrogate"),
    ({"inputs": {**COLUMNS, "user_age": ["a", "b", "c"]}}, "hapes"),
    ({"signature_name": "none", "inputs": COLUMNS}, '"none" not found. This model has: echo'),
    ({"signature_name": 5, "inputs": COLUMNS}, "must be a string"),
    ('{"signature_name": "half", "inputs": [1e999]}', "not finite"),
    ({"signature_name": "half", "inputs": [1e39]}, "not finite as float32"),
    ({"signature_name": "half", "inputs": [2**24 + 1]}, "without loss"),
    ({"signature_name": "half", "inputs": [True]}, "`x` must hold a number everywhere. Received: a boolean"),
    (echo(small=[1.5]), "`small` must hold a whole number everywhere. Received: a fraction"),
    (echo(small=[2**31]), "range of int32"),
    (echo(large=[2**63]), "range of int64"),
    (echo(flag=[1]), "true or false"),
    (echo(pair=[[1.0]]), "[None, 2]"),
    (echo(blob=[{"b64": "YQ==", "more": 1}]), "Received: an object"),
]


@pytest.mark.parametrize(("body", "message"), BAD)
def test_bad_input_is_400_and_says_what_is_wrong(http, body, message):
    answer = predict(http, body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/models/other:predict", 404),
        ("POST", "/v1/models/shop/versions/4:predict", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/v1/models/shop/versions/4", 404),
        ("GET", "/v1/models/shop/versions/4/metadata", 404),
        ("GET", "/v1/models/other/metadata", 404),
        ("GET", "/", 404),
        ("GET", "/v1/models/shop:predict", 400),
        ("POST", "/v1/models/shop", 400),
        ("POST", "/v1/models/shop:classify", 400),
        ("DELETE", "/v1/models/shop", 400),
        ("GET", f"/v1/models/shop/versions/{'9' * 30}", 400),
        ("POST", "/v1/models/%ED%A0%80:predict", 404),
    ],
)
def test_unknown_addresses(http, method, path, status):
    answer = http.request(method, path, content=json.dumps({"instances": [row()]}) if method == "POST" else None)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_status(http):
    expected = {"model_version_status": [{"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]}
    assert http.get("/v1/models/shop").json() == expected
    assert http.get("/v1/models/shop/versions/3").json() == expected


@pytest.mark.parametrize("path", ["/v1/models/shop/metadata", "/v1/models/shop/versions/3/metadata"])
def test_metadata(http, path):
    found = http.get(path).json()
    assert found["model_spec"]["name"] == "shop"
    assert found["model_spec"]["version"] == "3"
    signatures = found["metadata"]["signature_def"]["signature_def"]
    history = signatures["serving_default"]["inputs"]["history_items"]
    assert history["dtype"] == "DT_STRING"
    assert history["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}, {"size": "-1", "name": ""}], "unknown_rank": False}
    assert signatures["half"]["outputs"]["y"]["dtype"] == "DT_FLOAT"
    assert signatures["half"]["method_name"] == "tensorflow/serving/predict"


@pytest.mark.parametrize("times", [1.1, 3, 6])
@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_a_body_is_413(http, times, chunked):
    body = b'{"instances": ["' + b"x" * int(LIMIT * times) + b'"]}'
    answer = http.post("/v1/models/shop:predict", content=iter([body[:99], body[99:]]) if chunked else body)
    assert answer.status_code == 413
    assert str(LIMIT) in answer.json()["error"]


def test_body_of_exactly_the_limit_is_read(http):
    body = json.dumps({"instances": [row()]}).encode()
    assert predict(http, body + b" " * (LIMIT - len(body))).status_code == 200
    assert predict(http, body + b" " * (LIMIT - len(body) + 1)).status_code == 413


def test_nothing_of_a_request_is_logged(http, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    secret = "my-secret-wish"
    assert predict(http, {"instances": [row(secret)]}).status_code == 200
    assert predict(http, {"inputs": {**COLUMNS, "user_age": [secret] * 3}}).status_code == 400
    assert predict(http, {"inputs": {secret: 1}}).status_code == 400
    said = capfd.readouterr()
    server_log = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert secret not in "".join(server_log) + said.out + said.err


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.fixed_dictionaries({"b64": st.text(max_size=4)}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["query", "x", "user_age", "b64", ""]), inner, max_size=3),
    max_leaves=6,
)
NEARLY = st.fixed_dictionaries({"query": VALUES, "user_age": st.lists(st.text(max_size=3), max_size=2), "history_items": VALUES})
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": st.sampled_from(["serving_default", "half", "total", "echo", "none"]) | VALUES,
        "instances": st.lists(VALUES | NEARLY, max_size=2) | VALUES,
        "inputs": VALUES | NEARLY,
    },
)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=BODIES | VALUES)
def test_fuzzed_bodies_are_answered_or_refused(http, body):
    answer = predict(http, body)
    assert answer.status_code in (200, 400)
    assert next(iter(answer.json())) in ("predictions", "outputs") if answer.status_code == 200 else list(answer.json()) == ["error"]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=60))
def test_fuzzed_bytes_are_refused(http, body):
    assert predict(http, body).status_code == 400
