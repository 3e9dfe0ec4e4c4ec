"""Keeps what TensorFlow, ScaNN and their C++ libraries log for their own developers off a command's stderr, and nothing else.

C++ writes to file descriptor 2 itself, past Python. `TF_CPP_MIN_LOG_LEVEL` would hide the reason why a GPU is not used together with the
noise, and what is logged before flags are read escapes it. So the command gives its descriptor 2 to a process of its own, this file, which
passes lines on: one that outlives a crash, whose last words are the ones that matter. Python's own stderr goes straight to the terminal.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

# Severity and message of the two formats: TensorFlow's `2026-01-31 12:00:00.000000: W file.cc:12] message` and Abseil's
# `W0131 12:00:00.000000    1234 file.cc:12] message`, whose seconds are those since 1970 until it is initialised.
_LINE = re.compile(
    r"(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: ([IWEF]) |([IWEF])\d{4} \d\d:\d\d:\d+\.\d+ +\d+ )[^\s:]+:\d+\] ?(.*)", re.DOTALL
)
# Warnings and errors that say nothing is wrong; what informs only is left out anyway.
_HARMLESS = re.compile(
    # Libraries of one process that register the same plugin, since TensorFlow 2.16.
    r"Unable to register cu\w+ factory"
    r"|computation placer already registered"
    # Optional, and not used.
    r"|TF-TRT Warning: Could not find TensorRT"
    # An operation has a second implementation.
    r"|oneDNN supports \w+ only on platforms with .*\. Falling back to the default"
    # Grappler names nodes that it leaves as they are; tf.data, the end of a data set.
    r"|Skipping loop optimization for Merge node"
    r"|Input of GeneratorDatasetOp::Dataset will not be optimized"
    r"|The calling iterator did not fully read the dataset being cached"
    r"|Local rendezvous is aborting with status: OUT_OF_RANGE"
)
_HARMLESS_WITHOUT_PREFIX = re.compile(
    r"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    r"|To enable the following instructions: .* rebuild TensorFlow with the appropriate compiler flags"
)
# On a machine without a GPU it is no news that there is none; with one, why it is not used is what the user has to know.
_NO_GPU = re.compile(
    r"Could not find cuda drivers on your machine|failed call to cuInit: .*UNKNOWN ERROR \(303\)|Cannot dlopen some GPU libraries"
)
_GPU_FAULT = re.compile(
    r"(?=.*(?:gpu|rocm|cu(?:da|dnn|blas|fft|init)))(?=.*(?:cannot|could not|unable|fail|not be used|skipping))", re.IGNORECASE
)
_GPU_DEVICES = ("/proc/driver/nvidia", "/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_BEGINS_LIKE_A_LOG = re.compile(rb"\d{4}-\d\d-\d\d |[IWEF]\d{4} ")


def gpu_present() -> bool:
    """Whether the system has the driver of a GPU, used by TensorFlow or not."""
    return any(os.path.exists(path) for path in _GPU_DEVICES)


def is_noise(line: str, gpu: bool) -> bool:
    """Whether a line of C++ logs tells a user nothing.

    Args:
        line: without its end.
        gpu: the machine has a GPU.
    """
    found = _LINE.match(line)
    if not found:
        return bool(_HARMLESS_WITHOUT_PREFIX.match(line))
    severity, message = found[1] or found[2], found[3]
    if _HARMLESS.search(message):
        return True
    if gpu and _GPU_FAULT.search(line):
        return False
    return severity == "I" or bool(_NO_GPU.search(message))


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Filters file descriptor 2 from here to the end of the process; not where the user asks for everything by TF_CPP_MIN_LOG_LEVEL=0."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0" or not _writes_to_descriptor_2(sys.stderr):
        yield
        return
    before, real = sys.stderr, os.dup(2)
    process = subprocess.Popen([sys.executable, "-I", "-S", __file__], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
    sys.stderr = os.fdopen(real, "w", buffering=1, encoding=before.encoding, errors=before.errors)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(real, 2)
        sys.stderr.close()
        sys.stderr = before
        process.wait()


def _writes_to_descriptor_2(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() == 2
    except (OSError, ValueError):
        return False


def _pass_on(source: int, target: int, gpu: bool) -> None:
    """Copies until the source ends, at once but for what begins like a line of C++ logs: that waits for the end of its line."""
    pending, within = b"", False
    while chunk := os.read(source, 2**16):
        for part in (pending + chunk).splitlines(keepends=True):
            pending = b""
            whole = part.endswith((b"\n", b"\r"))
            if not within and not whole and _BEGINS_LIKE_A_LOG.match(part):
                pending = part
            elif within or not whole or not is_noise(part.decode(errors="replace").rstrip(), gpu):
                _write(target, part)
                within = not whole
    _write(target, pending)


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]


if __name__ == "__main__":
    import signal

    # Ctrl-C goes to all processes of a terminal: this one ends when the others have nothing more to say.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _pass_on(0, 2, gpu_present())
