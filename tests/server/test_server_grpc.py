"""gRPC: TensorFlow Serving's services, messages and status codes."""

import logging

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tiny_servable import joined, serving_tiny

LIMIT = 50_000
INPUTS = {"query": ["lamp", "söfa"], "user_age": ["30", ""], "history_items": [["a", "b"], ["c", ""]]}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving_tiny(tmp_path_factory.mktemp("servable"), LIMIT) as server:
        yield server


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.grpc_target) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def models(server):
    with grpc.insecure_channel(server.grpc_target) as channel:
        yield model_service_pb2_grpc.ModelServiceStub(channel)


def request(inputs=None, name="shop", signature="", version=None, label=None, output_filter=()):
    message = predict_pb2.PredictRequest(output_filter=output_filter)
    message.model_spec.name, message.model_spec.signature_name = name, signature
    if version is not None:
        message.model_spec.version.value = version
    if label is not None:
        message.model_spec.version_label = label
    for key, value in (INPUTS if inputs is None else inputs).items():
        message.inputs[key].CopyFrom(value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(value))
    return message


def refused(call, message, code):
    with pytest.raises(grpc.RpcError) as caught:
        call(message, timeout=60)
    assert caught.value.code() == code
    return caught.value.details()


def test_predict(stub):
    answer = stub.Predict(request(version=3), timeout=60)
    assert (answer.model_spec.name, answer.model_spec.version.value, answer.model_spec.signature_name) == ("shop", 3, "serving_default")
    assert set(answer.outputs) == {"ids", "scores", "num_results"}
    assert tf.make_ndarray(answer.outputs["ids"]).tolist() == [
        [joined("lamp", "30", ["a", "b"]).encode(), b"mark 3", b""],
        [joined("söfa", "", ["c", ""]).encode(), b"mark 3", b""],
    ]
    # Clients in the field read the typed fields, which TensorFlow Serving fills.
    np.testing.assert_array_equal(answer.outputs["scores"].float_val, np.full(6, 3.2, np.float32))
    assert list(answer.outputs["num_results"].int_val) == [2, 2]


def test_every_type_comes_back(stub):
    inputs = {
        "small": np.array([-(2**31)], np.int32),
        "large": np.array([2**63 - 1], np.int64),
        "flag": np.array([True]),
        "fine": np.array([1e-300]),
        "pair": np.array([[1, np.nan]], np.float32),
        "blob": [b"\xff\x00"],
    }
    outputs = stub.Predict(request(inputs, signature="echo"), timeout=60).outputs
    for name, value in inputs.items():
        np.testing.assert_array_equal(tf.make_ndarray(outputs[f"out_{name}"]), np.array(value, dtype=getattr(value, "dtype", object)))


def test_output_filter(stub):
    assert set(stub.Predict(request(output_filter=["ids"]), timeout=60).outputs) == {"ids"}
    assert "colour" in refused(stub.Predict, request(output_filter=["ids", "colour"]), grpc.StatusCode.INVALID_ARGUMENT)
    assert "twice" in refused(stub.Predict, request(output_filter=["ids", "ids"]), grpc.StatusCode.INVALID_ARGUMENT)


def proto(dtype=types_pb2.DT_STRING, sizes=(1,), **values):
    message = tensor_pb2.TensorProto(dtype=dtype, **values)
    for size in sizes:
        message.tensor_shape.dim.add().size = size
    return message


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (request(name=""), "model_spec"),
        (request(label="stable"), "version label: stable"),
        (request({**INPUTS, "colour": ["red"]}), "unknown: colour"),
        (request({"query": ["lamp"]}), "missing: history_items, user_age"),
        (request({**INPUTS, "query": [1, 2]}), "`query` must be string. Received: int32"),
        (request({**INPUTS, "query": proto(dtype=999)}), "unknown dtype 999"),
        (request({**INPUTS, "query": [["lamp"]]}), "`query` must have the shape [None]"),
        (request({**INPUTS, "query": proto(sizes=[-1], string_val=[b"a"])}), "does not declare its shape"),
        (request({**INPUTS, "query": proto(sizes=[10**12], string_val=[b"a"])}), f"at most {LIMIT}"),
        (request({**INPUTS, "query": proto(sizes=[3], string_val=[b"a", b"b", b"c", b"d"])}), "not hold as many values"),
        (request({**INPUTS, "user_age": ["a", "b", "c"]}), "hapes"),
        (request({"x": proto(types_pb2.DT_FLOAT, [2], tensor_content=b"abc")}, signature="half"), "not hold as many values"),
    ],
)
def test_bad_input_is_invalid_argument(stub, message, said):
    assert said in refused(stub.Predict, message, grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize("message", [request(name="other"), request(version=4)])
def test_unknown_model_or_version_is_not_found(stub, message):
    refused(stub.Predict, message, grpc.StatusCode.NOT_FOUND)


def test_too_large_a_message_is_refused(stub):
    inputs = {**INPUTS, "query": ["x" * LIMIT, ""]}
    refused(stub.Predict, request(inputs), grpc.StatusCode.RESOURCE_EXHAUSTED)


def test_metadata(stub):
    message = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    message.model_spec.name = "shop"
    answer = stub.GetModelMetadata(message, timeout=60)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert answer.model_spec.version.value == 3
    history = signatures.signature_def["serving_default"].inputs["history_items"]
    assert history.dtype == types_pb2.DT_STRING
    assert [dim.size for dim in history.tensor_shape.dim] == [-1, -1]


@pytest.mark.parametrize("fields", [[], ["warm_up"]])
def test_metadata_of_another_field_is_refused(stub, fields):
    message = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    message.model_spec.name = "shop"
    assert "metadata_field" in refused(stub.GetModelMetadata, message, grpc.StatusCode.INVALID_ARGUMENT)


def test_status(models):
    message = get_model_status_pb2.GetModelStatusRequest()
    message.model_spec.name = "shop"
    (status,) = models.GetModelStatus(message, timeout=60).model_version_status
    assert status.version == 3
    assert status.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
    message.model_spec.version.value = 4
    refused(models.GetModelStatus, message, grpc.StatusCode.NOT_FOUND)


def test_nothing_of_a_request_is_logged(stub, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    secret = "my-secret-wish"
    stub.Predict(request({**INPUTS, "query": [secret, secret]}), timeout=60)
    refused(stub.Predict, request({**INPUTS, secret: [secret]}), grpc.StatusCode.INVALID_ARGUMENT)
    refused(stub.Predict, request({**INPUTS, "user_age": [secret] * 3}), grpc.StatusCode.INVALID_ARGUMENT)
    said = capfd.readouterr()
    assert secret not in caplog.text + said.out + said.err
