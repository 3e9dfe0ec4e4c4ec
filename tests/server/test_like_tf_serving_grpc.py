"""What TensorFlow Serving accepts over gRPC and how it refuses, read from its sources: codes, tensors, health, reloading."""

import time

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from tiny_servable import joined, write_tiny

from tfebr.server.server import Server

ROW = {"query": "lamp", "user_age": "30", "history_items": ["a"]}
INVALID, FAILED, NOT_FOUND = (getattr(grpc.StatusCode, name) for name in ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("servable") / "shop"
    for number in (1, 2, 3):
        write_tiny(base / str(number), mark=number)
    return base


@pytest.fixture(scope="module")
def server(base):
    with Server(base, rest_port=0, grpc_port=0) as server:
        yield server


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc_target) as channel:
        yield channel


def refused(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=60)
    return caught.value.code(), caught.value.details()


def spec_of(request, name="shop", signature="", version=None):
    request.model_spec.name, request.model_spec.signature_name = name, signature
    if version is not None:
        request.model_spec.version.value = version
    return request


def test_status_codes_over_grpc(channel):
    stub, models = prediction_service_pb2_grpc.PredictionServiceStub(channel), model_service_pb2_grpc.ModelServiceStub(channel)
    assert refused(stub.Predict, spec_of(predict_pb2.PredictRequest(), signature="none"))[0] == FAILED
    for call, request in (
        (stub.Classify, classification_pb2.ClassificationRequest),
        (stub.Regress, regression_pb2.RegressionRequest),
    ):
        code, said = refused(call, spec_of(request()))
        assert (code, "Was: tensorflow/serving/predict" in said) == (INVALID, True)
        assert refused(call, spec_of(request(), signature="none"))[0] == INVALID
        assert refused(call, spec_of(request(), name="other"))[0] == NOT_FOUND
        assert refused(call, request())[0] == INVALID
    tasks = inference_pb2.MultiInferenceRequest()
    spec_of(tasks.tasks.add(method_name="tensorflow/serving/regress"))
    assert refused(stub.MultiInference, tasks)[0] == INVALID
    assert refused(stub.MultiInference, inference_pb2.MultiInferenceRequest())[0] == INVALID
    assert refused(models.GetModelStatus, get_model_status_pb2.GetModelStatusRequest())[0] == INVALID
    assert refused(models.GetModelStatus, spec_of(get_model_status_pb2.GetModelStatusRequest(), name="other"))[0] == NOT_FOUND
    metadata = get_model_metadata_pb2.GetModelMetadataRequest
    assert refused(stub.GetModelMetadata, spec_of(metadata()))[0] == INVALID
    twice = spec_of(metadata(metadata_field=["signature_def", "signature_def"]))
    assert stub.GetModelMetadata(twice, timeout=60).model_spec.version.value == 3


def tensor(dtype, sizes, **values):
    proto = tensor_pb2.TensorProto(dtype=dtype, **values)
    for size in sizes:
        proto.tensor_shape.dim.add().size = size
    return proto


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        (tensor(types_pb2.DT_FLOAT, [3], float_val=[2, 4, 6]), [1, 2, 3]),
        (tensor(types_pb2.DT_FLOAT, [3], tensor_content=np.array([2, 4, 6], "<f4").tobytes()), [1, 2, 3]),
        (tensor(types_pb2.DT_FLOAT, [3], float_val=[2, 4]), [1, 2, 2]),
        (tensor(types_pb2.DT_FLOAT, [3], float_val=[2]), [1, 1, 1]),
        (tensor(types_pb2.DT_FLOAT, [2]), [0, 0]),
        (tensor(types_pb2.DT_FLOAT, [0]), []),
    ],
    ids=["typed", "content", "last value repeated", "one value", "none are zeros", "empty"],
)
def test_both_encodings_of_tensors(channel, proto, expected):
    request = spec_of(predict_pb2.PredictRequest(), signature="half")
    request.inputs["x"].CopyFrom(proto)
    answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)
    assert list(answer.outputs["y"].float_val) == pytest.approx(expected)


def test_strings_in_tensor_content(channel):
    """As TensorFlow writes them: the lengths as varints, then the bytes."""
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    texts = [b"lamp", b"x" * 200]
    request = spec_of(predict_pb2.PredictRequest())
    request.inputs["query"].CopyFrom(tensor(types_pb2.DT_STRING, [2], tensor_content=b"\x04\xc8\x01" + b"".join(texts)))
    for name in ("user_age", "history_items"):
        request.inputs[name].CopyFrom(tf.make_tensor_proto([""] * 2 if name == "user_age" else [[""]] * 2))
    ids = tf.make_ndarray(stub.Predict(request, timeout=60).outputs["ids"])[:, 0].tolist()
    assert ids == [joined(text.decode()).encode() for text in texts]
    for content in (b"\x04\xc8\x01lamp", b"\xff" * 20, b"\x04"):
        request.inputs["query"].tensor_content = content
        assert refused(stub.Predict, request)[0] == INVALID


def test_health_has_the_names_of_tensorflow_serving_and_can_be_watched(server, channel, base):
    health = health_pb2_grpc.HealthStub(channel)
    names = ("", "PredictionService", "ModelService", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService", "shop")
    for name in names:
        assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=60).status == 1
    assert refused(health.Check, health_pb2.HealthCheckRequest(service="other"))[0] == NOT_FOUND
    with Server(base, rest_port=0, grpc_port=0) as other, grpc.insecure_channel(other.grpc_target) as watched:
        stub = health_pb2_grpc.HealthStub(watched)
        # More than the server has threads for such calls: a watch takes none.
        watches = [stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=60) for name in [*names, "unknown"] * 3]
        found = [next(watch).status for watch in watches]
        assert found == [1, 1, 1, 1, 1, 1, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN] * 3
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=60).status == 1
        other.close()
        # All are told, and the end of the server does not wait for them to leave.
        told = [[answer.status for answer in watch] for watch in watches]
        assert told == [*[[health_pb2.HealthCheckResponse.NOT_SERVING]] * len(names), []] * 3
        assert [watch.code() for watch in watches] == [grpc.StatusCode.OK] * len(watches)


def reload(base, name="shop", path=None, platform="tensorflow", **settings):
    request = model_management_pb2.ReloadConfigRequest()
    config = request.config.model_config_list.config.add(name=name, base_path=str(path or base), model_platform=platform)
    for label, version in settings.pop("labels", {}).items():
        config.version_labels[label] = version
    policy = config.model_version_policy
    if "specific" in settings:
        policy.specific.versions.extend(settings["specific"])
    if settings.get("every"):
        policy.all.SetInParent()
    if "latest" in settings:
        policy.latest.num_versions = settings["latest"]
    return request


def test_the_configuration_is_reloaded(base):
    with Server(base, rest_port=0, grpc_port=0, poll_seconds=0.05) as server, grpc.insecure_channel(server.grpc_target) as channel:
        models = model_service_pb2_grpc.ModelServiceStub(channel)

        def versions_are(numbers):
            end = time.monotonic() + 30
            while server.versions.loaded() != numbers:
                assert time.monotonic() < end, "waited in vain"
                time.sleep(0.01)

        assert server.versions.loaded() == [3]
        for settings, numbers in (({"every": True}, [1, 2, 3]), ({"latest": 2}, [2, 3]), ({"specific": [1, 3]}, [1, 3])):
            assert models.HandleReloadConfigRequest(reload(base, **settings), timeout=60).status.error_code == 0
            versions_are(numbers)
        assert models.HandleReloadConfigRequest(reload(base, specific=[1, 3], labels={"stable": 1}), timeout=60).status.error_code == 0
        answer = httpx.post(f"{server.rest_url}/v1/models/shop/labels/stable:predict", json={"instances": [ROW]})
        assert answer.json()["predictions"][0]["ids"][1] == "mark 1"
        code, said = refused(models.HandleReloadConfigRequest, reload(base, labels={"canary": 2}))
        assert (code, "assign label to version 2 of model shop, which is not currently available" in said) == (FAILED, True)
        for request in (
            model_management_pb2.ReloadConfigRequest(),
            reload(base, name="other"),
            reload(base, path="/models/shop"),
            reload(base, platform="caffe"),
        ):
            assert refused(models.HandleReloadConfigRequest, request)[0] == INVALID
        assert server.versions.loaded() == [1, 3], "what is refused changes nothing"
        models.HandleReloadConfigRequest(reload(base), timeout=60)
        versions_are([3])
