"""Predictions that take long: nothing but predictions waits behind them, and those that nobody waits for are never run."""

import concurrent.futures
import json
import socket
import urllib.parse

import grpc
import httpx
import tensorflow as tf
from gated_servable import gated, wait_for
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

# As many as the server ever runs at the same time, and then some.
MANY = 40
PREDICT = "/v1/models/slow:predict"


def body(number):
    return json.dumps({"instances": [number]}).encode()


def predict_request(number):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "slow"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([number], tf.int32))
    return request


def sent_by_hand(server, number):
    """A connection on which a prediction was asked for."""
    address = urllib.parse.urlsplit(server.rest_url)
    connection = socket.create_connection((address.hostname, address.port))
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body(number))}\r\n\r\n"
    connection.sendall(head.encode() + body(number))
    return connection


def fill(server, model, stub):
    """Has all threads of the server that predict wait at the gate; returns what was asked for, in part still in the queue."""
    running = [stub.Predict.future(predict_request(number), timeout=120) for number in range(MANY)]
    assert server._pool._max_workers < MANY, "all of them would run at the same time: nothing waits"
    wait_for(lambda: len(model.asked) == server._pool._max_workers)
    return running


def test_only_predictions_wait_behind_predictions(tmp_path):
    with gated(tmp_path) as (server, model), grpc.insecure_channel(server.grpc_target) as channel, httpx.Client(timeout=10) as http:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        running = fill(server, model, stub)
        with concurrent.futures.ThreadPoolExecutor(MANY) as threads:
            over_rest = [threads.submit(httpx.post, server.rest_url + PREDICT, content=body(i), timeout=120) for i in range(MANY)]
            try:
                for _ in range(3):
                    base = f"{server.rest_url}/v1/models/slow"
                    for path in (base, f"{base}/metadata", f"{server.rest_url}/monitoring/prometheus/metrics"):
                        assert http.get(path).status_code == 200
                    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="slow"), timeout=10)
                    assert health.status == health_pb2.HealthCheckResponse.SERVING
                    status = get_model_status_pb2.GetModelStatusRequest()
                    status.model_spec.name = "slow"
                    assert model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status, timeout=10).model_version_status
                    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
                    metadata.model_spec.name = "slow"
                    assert stub.GetModelMetadata(metadata, timeout=10).model_spec.version.value == 1
                assert not any(call.done() for call in [*running, *over_rest])
            finally:
                model.gate.set()
            assert [call.result().json() for call in over_rest] == [{"predictions": [i]} for i in range(MANY)]
        assert [tf.make_ndarray(call.result().outputs["y"]).tolist() for call in running] == [[i] for i in range(MANY)]


def test_work_that_nobody_waits_for_is_never_run(tmp_path):
    with gated(tmp_path) as (server, model), grpc.insecure_channel(server.grpc_target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        running = fill(server, model, stub)
        # 1000 and on leave over REST, 2000 and on are cancelled, 3000 and on miss their deadline; 4000 waits on.
        connections = [sent_by_hand(server, 1000 + i) for i in range(10)]
        waiting = [stub.Predict.future(predict_request(2000 + i), timeout=120) for i in range(10)]
        late = [stub.Predict.future(predict_request(3000 + i), timeout=0.3) for i in range(10)]
        patient = stub.Predict.future(predict_request(4000), timeout=120)
        for connection in connections:
            connection.close()
        for call in waiting:
            call.cancel()
        for call in late:
            assert call.exception().code() == grpc.StatusCode.DEADLINE_EXCEEDED
        gone = 'status="CANCELLED"'
        wait_for(lambda: any(gone in line and line.endswith(" 10") for line in metrics(server)))
        model.gate.set()
        assert tf.make_ndarray(patient.result().outputs["y"]).tolist() == [4000]
        assert len([call.result() for call in running]) == MANY
        assert sorted(model.asked) == [*range(MANY), 4000]


def test_every_request_is_counted_once_however_it_ends(tmp_path):
    """Those that leave while they run, too: nothing is written for them any more."""
    with gated(tmp_path, rest_timeout=20) as (server, model), grpc.insecure_channel(server.grpc_target) as channel:
        connection = sent_by_hand(server, 1)
        call = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict.future(predict_request(2), timeout=60)
        wait_for(lambda: sorted(model.asked) == [1, 2])
        connection.close()
        call.cancel()
        wait_for(lambda: any('entrypoint="REST",status="CANCELLED"} 1' in line for line in metrics(server)))
        model.gate.set()
        assert httpx.post(server.rest_url + PREDICT, content=body(3)).json() == {"predictions": [3]}
        wait_for(lambda: len(metrics(server)) == 3)
        counts = {(line.split('entrypoint="')[1][:4], line.split('status="')[1].split('"')[0]): line[-2:] for line in metrics(server)}
        assert counts == {("REST", "CANCELLED"): " 1", ("GRPC", "CANCELLED"): " 1", ("REST", "OK"): " 1"}


def metrics(server):
    page = httpx.get(f"{server.rest_url}/monitoring/prometheus/metrics").text
    return [line for line in page.splitlines() if line.startswith("tfebr_request_count{")]


def test_rest_has_a_time_limit(tmp_path):
    with gated(tmp_path, rest_timeout=0.5) as (server, model), grpc.insecure_channel(server.grpc_target) as channel:
        running = fill(server, model, prediction_service_pb2_grpc.PredictionServiceStub(channel))
        answer = httpx.post(server.rest_url + PREDICT, content=body(1000), timeout=60)
        assert answer.status_code == 504
        assert "no result within 0.5 seconds" in answer.json()["error"]
        model.gate.set()
        assert len([call.result() for call in running]) == MANY
        assert httpx.post(server.rest_url + PREDICT, content=body(1001)).json() == {"predictions": [1001]}
        assert 1000 not in model.asked
        assert any('status="DEADLINE_EXCEEDED"' in line for line in metrics(server))
