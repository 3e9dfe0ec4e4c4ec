"""Inputs of different numbers of rows are refused by name, in the graph, by every signature and over every way to ask."""

import importlib

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
from toy_servable import COLUMNS, QUESTIONS, ToyIntent, ToyItems, toy_servable

from tfebr.client.client import Client
from tfebr.errors import RequestError
from tfebr.servable import check
from tfebr.servable.input_arrays import SAME_ROWS
from tfebr.servable.same_rows import with_same_rows
from tfebr.servable.tensors import to_proto
from tfebr.servable.write import write
from tfebr.server.server import Server

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")


class TwoColumns(ToyItems):
    """Items of two inputs: one of a single input has nothing to compare."""

    input_signature = ToyItems.input_signature | {"brand": tf.TensorSpec([None], tf.string)}


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    servable = toy_servable(columns=COLUMNS, intent=ToyIntent(), item_encoder=TwoColumns())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_check_in_fresh_process", lambda folder: {"ok": True})
        return write(servable, tmp_path_factory.mktemp("rows") / "toy", {}, QUESTIONS)


@pytest.fixture(scope="module")
def signatures(version):
    """As loaded: a server runs the written graph."""
    return check.load(version).signatures


@pytest.fixture(scope="module")
def server(version):
    with Server(version.parent, rest_port=0, grpc_port=0) as server:
        yield server


def inputs_of(function, rows):
    """Inputs by name with so many rows each, or as many as `rows` says by name."""
    specs = function.structured_input_signature[1]
    count = rows if isinstance(rows, dict) else dict.fromkeys(specs, rows)
    return {n: tf.zeros([count[n], *(size or 1 for size in spec.shape[1:])], spec.dtype) for n, spec in specs.items()}


SIGNATURES = {
    "serving_default": ["query", "user_age", "history_items", "prices"],
    "embed_query": ["query", "user_age", "history_items", "prices"],
    "search": ["query", "user_age", "history_items", "prices", "k", "exclude", "leaves_to_search", "filter", "automatic"],
    "embed_items": ["title", "brand"],
}


@pytest.mark.parametrize(("signature", "name"), [(signature, name) for signature, names in SIGNATURES.items() for name in names])
def test_an_input_of_another_number_of_rows_is_refused_by_name(signatures, signature, name):
    function = signatures[signature]
    assert set(function.structured_input_signature[1]) == set(SIGNATURES[signature]), "every input is tried"
    for rows, others in ((1, 2), (2, 1), (0, 1), (3, 2)):
        with pytest.raises(tf.errors.InvalidArgumentError) as refused:
            function(**inputs_of(function, {n: rows if n == name else others for n in SIGNATURES[signature]}))
        assert f"{name}: {rows}" in str(refused.value)
        assert all(f"{n}: {others}" in str(refused.value) for n in SIGNATURES[signature] if n != name)
        assert SAME_ROWS in str(refused.value)


@pytest.mark.parametrize("signature", [*SIGNATURES, "attributes"])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_as_many_rows_as_each_other_are_answered(signatures, signature, rows):
    outputs = signatures[signature](**inputs_of(signatures[signature], rows))
    assert {len(value) for value in outputs.values()} == {rows}


@given(
    st.dictionaries(
        st.text("abc", min_size=1), st.tuples(st.integers(0, 3), st.integers(1, 3), st.sampled_from(["", 0, False])), min_size=1
    )
)
def test_any_inputs_pass_where_their_rows_are_equal(given):
    tensors = {name: tf.fill([rows] + [2] * (rank - 1), value) for name, (rows, rank, value) in given.items()}
    equal = len({rows for rows, _, _ in given.values()}) == 1
    if equal:
        passed = with_same_rows(tensors)
        assert {name: value.numpy().tolist() for name, value in passed.items()} == {n: v.numpy().tolist() for n, v in tensors.items()}
    else:
        with pytest.raises(tf.errors.InvalidArgumentError, match="same number of rows"):
            with_same_rows(tensors)


BATCH = {
    "query": 1,
    "user_age": 1,
    "history_items": 1,
    "prices": 1,
    "k": 1,
    "leaves_to_search": 1,
    "exclude": 2,
    "filter": 1,
    "automatic": 1,
}


def test_servers_answer_with_the_numbers_of_rows_and_what_to_do(server, signatures):
    arrays = {name: value.numpy() for name, value in inputs_of(signatures["search"], BATCH).items()}
    columns = {name: np.vectorize(lambda x: x.decode() if isinstance(x, bytes) else x, [object])(v).tolist() for name, v in arrays.items()}
    url = f"{server.rest_url}/v1/models/toy:predict"
    answer = httpx.post(url, json={"signature_name": "search", "inputs": columns}, timeout=120)
    assert answer.status_code == 400
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "toy", "search"
    for name, array in arrays.items():
        request.inputs[name].CopyFrom(to_proto(array))
    with grpc.insecure_channel(server.grpc_target) as channel, pytest.raises(grpc.RpcError) as refused:
        prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=120)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    for said in (answer.json()["error"], refused.value.details()):
        assert said.startswith("All inputs need the same number of rows. Received: automatic: 1, exclude: 2, filter: 1,")
        assert SAME_ROWS.rstrip(".") in said


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_client_refuses_before_it_asks(server, protocol, monkeypatch):
    with Client({"rest": server.rest_url, "grpc": server.grpc_target}[protocol], "toy", protocol) as client:
        assert len(client.predict("search", query=["a", "b"], k=3)["ids"]) == 2, "one value stands for all rows"
        monkeypatch.setattr(client._transport, "predict", None)
        for name, value in {"k": [3], "exclude": [["sku-1"]], "filter": [["brand=LG"]], "automatic": [True], "user_age": ["1"]}.items():
            with pytest.raises(RequestError) as refused:
                client.predict("search", query=["a", "b"], **{name: value})
            assert f"Field `{name}` has 1 rows, but `query` has 2. {SAME_ROWS}" in str(refused.value)


def test_whoever_completes_a_batch_is_told_the_same():
    with pytest.raises(RequestError) as refused:
        check.complete_inputs(ToyItems.input_signature | {"brand": tf.TensorSpec([None], tf.string)}, {"title": ["a", "b"], "brand": ["x"]})
    assert f"Received: title: 2, brand: 1. {SAME_ROWS}" in str(refused.value)
