"""Requests that no client should send, over REST and gRPC: never a crash, never a 5xx or NaN, never a result that its request forbids."""

import base64
import importlib
import json

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from search_oracle import check_answer
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from toy_servable import COLUMNS, IDS, QUESTIONS, K, ToyIntent, ToyQueries, toy_servable

from tfebr.servable.tensors import to_proto
from tfebr.servable.write import write
from tfebr.server.server import Server

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")

LIMIT = 300_000
SIGNATURES = ("serving_default", "search", "embed_query", "embed_items", "attributes")
REQUESTS = {"broken": 300, "rest": 1200, "grpc": 600}
EXAMPLES = {name: settings(max_examples=count, suppress_health_check=list(HealthCheck)) for name, count in REQUESTS.items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_check_in_fresh_process", lambda folder: {"ok": True})
        base = tmp_path_factory.mktemp("fuzz") / "toy"
        write(toy_servable("tree", columns=COLUMNS, intent=ToyIntent()), base, {}, QUESTIONS)
    with Server(base, rest_port=0, grpc_port=0, max_body_bytes=LIMIT) as server:
        yield server


@pytest.fixture(scope="module")
def rest(server):
    with httpx.Client(base_url=server.rest_url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.grpc_target) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


INT32 = st.one_of(st.integers(-3, 30), st.integers(-(2**31), 2**31 - 1))
# Every text but halves of surrogate pairs, which have no UTF-8.
TEXT = st.one_of(
    st.sampled_from(["red shoes", "cheap sony", "", "sku-1", "nan"]), st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
)
ITEM = st.one_of(st.sampled_from(IDS), TEXT)
CLAUSE = st.one_of(
    st.sampled_from(
        ["brand=Sony", "brand=a%7Cb|brand=LG", "price=3..40", "price=..0", "price=1e1..", "Größe in %25=S", "=", "price=9..1", ""]
    ),
    st.builds("{}={}".format, st.sampled_from(["brand", "price", "x"]), st.from_regex(r"[-+0-9.eE|%naif]{0,12}", fullmatch=True)),
)
FIELDS = {
    "query": TEXT,
    "user_age": TEXT,
    "history_items": st.lists(ITEM, max_size=4),
    "prices": st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3),
    "k": INT32,
    "exclude": st.one_of(st.lists(ITEM, max_size=4), st.sampled_from([IDS, IDS * 4, ["unknown"] * 1000, IDS[3:]])),
    "leaves_to_search": INT32,
    "filter": st.lists(CLAUSE, max_size=3),
    "automatic": st.booleans(),
    "title": TEXT,
    "item_ids": ITEM,
}
INPUTS = {
    "serving_default": list(ToyQueries.input_signature),
    "embed_query": list(ToyQueries.input_signature),
    "search": [*ToyQueries.input_signature, "k", "exclude", "leaves_to_search", "filter", "automatic"],
    "embed_items": ["title"],
    "attributes": ["item_ids"],
}
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from([2**31, 2**63, 1e39, "\ud800"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["b64", "a", ""]), inner, max_size=2),
        st.builds(lambda text: {"b64": text}, st.sampled_from(["/w==", "!", "YQ", "YQ=="])),
    ),
    max_leaves=5,
)


@st.composite
def rows_of(draw, signature, most=4):
    """Rows that the signature takes; lists are padded to the length of the longest, as they must be."""
    rows = [{name: draw(FIELDS[name]) for name in INPUTS[signature]} for _ in range(draw(st.integers(1, most)))]
    for name in {"history_items", "exclude", "filter"} & set(INPUTS[signature]):
        width = max(len(row[name]) for row in rows)
        for row in rows:
            row[name] = [*row[name], *[""] * (width - len(row[name]))]
    return rows


@st.composite
def bodies(draw):
    """A request in either form: a good one, or one with up to two things wrong."""
    signature = draw(st.sampled_from(SIGNATURES + ("search",) * 4))
    rows = draw(rows_of(signature))
    form = draw(st.sampled_from(["instances", "inputs"]))
    sent = [dict(row) for row in rows] if form == "instances" else {name: [row[name] for row in rows] for name in rows[0]}
    body = {"signature_name": signature, form: sent}
    for change in draw(st.lists(st.sampled_from(["value", "value", "missing", "more", "ragged", "name", "both", "none"]), max_size=2)):
        place = draw(st.sampled_from(sent)) if form == "instances" else sent
        name = draw(st.sampled_from(INPUTS[signature]))
        if change == "value":
            place[name] = draw(JUNK)
        elif change == "missing":
            place.pop(name, None)
        elif change == "more":
            place[draw(st.text(max_size=4))] = draw(JUNK)
        elif change == "ragged" and isinstance(place.get(name), list):
            place[name] = [*place[name], draw(JUNK)]
        elif change == "name":
            body["signature_name"] = draw(
                st.one_of(JUNK, st.sampled_from(["", "serving", "Search", "__saved_model_init_op", "embed_items"]))
            )
        elif change == "both":
            body["instances"], body["inputs"] = draw(JUNK), draw(JUNK)
        elif change == "none":
            body.pop(draw(st.sampled_from(["instances", "inputs"])), None)
    return body


def _no_constant(text):
    raise AssertionError(f"{text} is not JSON")


def _checked(answer):
    """The answer's JSON; it is an error of the request or holds what it should."""
    value = json.loads(answer.content.decode("utf-8"), parse_constant=_no_constant)
    assert answer.status_code in (200, 400, 404, 413), (answer.status_code, value)
    if answer.status_code != 200:
        assert isinstance(value["error"], str)
        assert value["error"]
    return value


def _read(leaf):
    """A value of a request as the model sees it."""
    if isinstance(leaf, list):
        return [_read(one) for one in leaf]
    if not isinstance(leaf, dict):
        return leaf
    # White space does not count, and padding may be left out.
    return base64.b64decode("".join(leaf["b64"].split()).rstrip("=") + "===").decode("utf-8", "replace")


PATHS = st.sampled_from(["/v1/models/toy:predict"] * 12 + ["/v1/models/toy/versions/1:predict"] * 3 + [
    "/v1/models/toy/versions/2:predict", f"/v1/models/toy/versions/{'9' * 30}:predict", "/v1/models/other:predict", "/v1/models/toy",
    "/v1/models/toy:classify", "/",
])  # fmt: skip


@EXAMPLES["rest"]
@given(body=bodies(), path=PATHS)
def test_rest(rest, body, path):
    answer = rest.post(path, content=json.dumps(body).encode())
    value = _checked(answer)
    if answer.status_code != 200:
        return
    column_form = "inputs" in body
    sent = body["inputs" if column_form else "instances"]
    if not isinstance(sent, dict) and not isinstance(sent[0], dict):
        return
    # Columns that the signature lacks are not read, as in TensorFlow Serving.
    columns = INPUTS[body.get("signature_name") or "serving_default"]
    rows = (
        [{n: _read(values[i]) for n, values in sent.items() if n in columns} for i in range(len(sent["query"]))]
        if column_form and "query" in sent
        else sent
    )
    if body.get("signature_name") == "search":
        found = value["outputs"] if column_form else {n: [row[n] for row in value["predictions"]] for n in value["predictions"][0]}
        _check_search([{name: _read(leaf) for name, leaf in row.items()} for row in rows], found)


def _check_search(rows, found):
    width = len(found["ids"][0])
    for row, ids, scores, count in zip(rows, found["ids"], found["scores"], found["num_results"], strict=True):
        assert len(ids) == len(scores) == width
        assert ids[count:] == [""] * (width - count)
        assert np.isfinite(scores).all()
        check_answer(row, ids[:count], K)


@EXAMPLES["broken"]
@given(
    body=st.one_of(
        st.binary(max_size=60),
        st.text(st.sampled_from('{}[]":,\\u0d8e+-NaN1 instancesinputs'), max_size=40).map(str.encode),
        st.builds(lambda body, at, more: json.dumps(body).encode()[:at] + more, bodies(), st.integers(0, 200), st.binary(max_size=3)),
        st.builds(lambda deep: b'{"instances":' + b"[" * deep + b"]" * deep + b"}", st.sampled_from([2, 200, 100_000])),
        st.builds(lambda size: b'{"instances":["' + b"a" * size + b'"]}', st.sampled_from([LIMIT - 100, LIMIT + 1])),
    ),
    path=PATHS,
)
def test_broken_bodies(rest, body, path):
    _checked(rest.post(path, content=body))


@st.composite
def protos(draw):
    """(signature, rows or None, request): rows where nothing is wrong with the request."""
    signature = draw(st.sampled_from(SIGNATURES + ("search",) * 4))
    rows = draw(rows_of(signature, most=3))
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "toy", signature
    dtypes = {"k": np.int32, "leaves_to_search": np.int32, "automatic": bool, "prices": np.float32}
    for name in INPUTS[signature]:
        values = [row[name] for row in rows]
        if name not in dtypes:
            values = [[text.encode() for text in row] if isinstance(row, list) else row.encode() for row in values]
        if name == "prices":
            values[0] = [draw(st.sampled_from([values[0][0], np.nan, np.inf, -np.inf])), *values[0][1:]]
        array = np.array(values, dtypes.get(name, object))
        request.inputs[name].CopyFrom(to_proto(array if array.size or array.ndim > 1 else array.reshape(len(rows), -1)))
    changes = draw(st.lists(st.sampled_from(["dtype", "shape", "missing", "bytes", "name", "version", "filter", "rows"]), max_size=1))
    for change in changes:
        tensor = request.inputs[draw(st.sampled_from(INPUTS[signature]))]
        if change == "dtype":
            tensor.dtype = draw(st.integers(0, 30))
        elif change == "shape":
            del tensor.tensor_shape.dim[:]
            for size in draw(st.lists(st.sampled_from([-1, 0, 1, 2, 7, 2**40, 2**62]), max_size=3)):
                tensor.tensor_shape.dim.add(size=size)
        elif change == "missing":
            request.inputs.pop(draw(st.sampled_from(INPUTS[signature])))
        elif change == "bytes":
            tensor.string_val.extend(draw(st.lists(st.binary(max_size=4), max_size=3)))
            tensor.tensor_content = draw(st.binary(max_size=9))
        elif change == "name":
            request.model_spec.signature_name = draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
        elif change == "version":
            request.model_spec.version.value = draw(st.sampled_from([0, -1, 2, 2**62]))
        elif change == "filter":
            request.output_filter.extend(draw(st.lists(st.sampled_from(["ids", "scores", "none", ""]), max_size=3)))
        elif change == "rows":
            request.inputs["query"].CopyFrom(to_proto(np.array([b"x"] * 5, object)))
    return signature, None if changes else rows, request


OURS = {getattr(grpc.StatusCode, name) for name in ("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION")}


@EXAMPLES["grpc"]
@given(case=protos())
def test_grpc(stub, case):
    signature, rows, request = case
    call = stub.Predict.future(request, timeout=30)
    if call.exception() is not None:
        assert call.code() in OURS, call.details()
        assert rows is None, call.details()
        return
    outputs = {name: tf.make_ndarray(proto) for name, proto in call.result().outputs.items()}
    for values in outputs.values():
        assert values.dtype == object or np.isfinite(values).all()
    if rows is not None and signature == "search":
        found = {name: values.tolist() for name, values in outputs.items()}
        found["ids"] = [[item.decode() for item in row] for row in found["ids"]]
        _check_search(rows, found)


def test_there_are_enough_requests():
    assert sum(REQUESTS.values()) >= 2000


def test_ten_megabytes_are_refused(rest, stub):
    answer = rest.post("/v1/models/toy:predict", content=b'{"instances":["' + b"a" * 10_000_000 + b'"]}')
    assert answer.status_code == 413
    assert str(LIMIT) in answer.json()["error"]
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "toy"
    request.inputs["query"].CopyFrom(tf.make_tensor_proto([b"a" * 10_000_000]))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
