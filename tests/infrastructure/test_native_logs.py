"""Noise of C++ logs is kept off a command's stderr; whatever may be a problem gets through, at a crash too."""

import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from tfebr.infrastructure.native_logs import is_noise
from tfebr.models import devices

AT, SINCE_1970 = "2026-01-31 12:00:00.123456:", "00:00:1769860800.123456    1234"
NOISE = [
    f"{AT} I external/local_xla/xla/tsl/cuda/cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used.",
    f"{AT} I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary is optimized to use available CPU",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the appropriate compiler flags.",
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    f"E0000 {SINCE_1970} cuda_dnn.cc:8310] Unable to register cuDNN factory: Attempting to register factory for plugin cuDNN",
    f"W0000 {SINCE_1970} computation_placer.cc:177] computation placer already registered. Please check linkage",
    f"E0000 {SINCE_1970} cuda_platform.cc:51] failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)",
    f"{AT} W tensorflow/core/common_runtime/gpu/gpu_device.cc:2341] Cannot dlopen some GPU libraries. Please make sure",
    "I0131 12:00:00.123456    1234 mlir_graph_optimization_pass.cc:425] MLIR V1 optimization pass is not enabled",
    f"{AT} W tensorflow/core/grappler/optimizers/loop_optimizer.cc:933] Skipping loop optimization for Merge node with "
    "control input: map/while/Merge",
    f"{AT} E tensorflow/core/util/util.cc:131] oneDNN supports DT_BOOL only on platforms with AVX-512. Falling back to the default",
    f"{AT} I scann/partitioning/partitioner_factory_base.cc:58] Size of sampled dataset for training partition: 500",
]
PROBLEMS = [
    f"E0000 {SINCE_1970} cuda_executor.cc:1228] failed call to cuInit: CUDA_ERROR_NO_DEVICE: no CUDA-capable device",
    f"F0000 {SINCE_1970} tensor.cc:852] Check failed: dtype() == expected_dtype (1 vs. 3)",
    f"{AT} W external/local_xla/xla/tsl/framework/bfc_allocator.cc:497] Allocator (GPU_0_bfc) ran out of memory",
    f"{AT} E tensorflow/core/framework/op_kernel.cc:1830] NOT_FOUND: Op type not registered 'Scann>TensorsToScann'",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "Traceback (most recent call last):",
    "ValueError: I0131 is no date",
    "",
]


@pytest.mark.parametrize("line", NOISE)
def test_noise_is_left_out(line):
    assert is_noise(line, gpu=False)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("line", PROBLEMS)
def test_problems_are_not(line, gpu):
    assert not is_noise(line, gpu)


def test_where_there_is_a_gpu_the_reason_why_it_is_not_used_stays():
    left = [line for line in NOISE if not is_noise(line, gpu=True)]
    assert [re.search(r"[a-z_]+\.cc", line)[0] for line in left] == ["cudart_stub.cc", "cuda_platform.cc", "gpu_device.cc"]


def start(code, **settings):
    """A fresh process in which `code` runs with the filter; `log` writes as C++ does."""
    imports = "import os, sys, tfebr\nfrom tfebr.infrastructure.native_logs import without_noise"
    script = f"{imports}\nlog = lambda text: os.write(2, text.encode())\n{code}"
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"} | settings.pop("environment", {})
    return subprocess.Popen([sys.executable, "-c", script], env=environment, text=True, **{"stderr": subprocess.PIPE} | settings)


def test_the_last_words_of_a_crash_are_not_lost():
    lines = "\n".join([*NOISE[1:4], *PROBLEMS, NOISE[-1], "and no end"])
    with start(f"with without_noise():\n print('said', file=sys.stderr); log({lines!r}); os.abort()") as process:
        _, shown = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGABRT
    said, *native = shown.split("\n")
    assert said == "said"
    assert native == [*PROBLEMS, "and no end"]


def test_what_is_no_log_comes_at_once_and_a_log_may_come_in_pieces():
    code = (
        "with without_noise():\n"
        " log('50 %\\r'); assert sys.stdin.read(1) == 'y'\n"
        f" log({NOISE[0][:70]!r}); log({NOISE[0][70:]!r} + '\\n'); log('100 %\\n')\n"
        "sys.exit('the end')"
    )
    with start(code, stdin=subprocess.PIPE) as process:
        assert os.read(process.stderr.fileno(), 100) == b"50 %\r"
        _, shown = process.communicate("y", timeout=60)
    assert (process.returncode, shown) == (1, "100 %\nthe end\n")


def test_who_asks_for_all_logs_gets_them():
    with start(f"with without_noise(): log({NOISE[0]!r})", environment={"TF_CPP_MIN_LOG_LEVEL": "0"}) as process:
        assert process.communicate(timeout=60)[1] == NOISE[0]


def test_python_still_writes_to_a_terminal():
    ours, theirs = pty.openpty()
    code = "with without_noise():\n print(sys.stderr.isatty(), file=sys.stderr)\nprint(sys.stderr.isatty(), file=sys.stderr)"
    with start(code, stderr=theirs) as process:
        assert process.wait(60) == 0
    assert os.read(ours, 100).split() == [b"True", b"True"]
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(
    ("environment", "gpu", "said"),
    [
        ({"TF_NUM_INTRAOP_THREADS": "1"}, False, r"CPU \(\d+ cores?, 1 thread\)"),
        ({}, True, r"CPU \(\d+ cores?, \d+ threads?\); this machine's GPU is not used: TensorFlow's log above says why .*"),
    ],
)
def test_the_device_is_named(monkeypatch, environment, gpu, said):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(devices, "gpu_present", lambda: gpu)
    monkeypatch.setattr(devices.tf.config, "list_physical_devices", lambda kind: [])
    assert re.fullmatch(said, devices.describe_devices())


def test_gpus_are_named(monkeypatch):
    monkeypatch.setattr(devices.tf.config, "list_physical_devices", lambda kind: ["first", "second"])
    monkeypatch.setattr(devices.tf.config.experimental, "get_device_details", lambda gpu: {"device_name": "NVIDIA A100"})
    assert devices.describe_devices() == "GPU (2 x NVIDIA A100)"
