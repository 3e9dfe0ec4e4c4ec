"""A stack that cannot work says so in one message that holds the fix."""

import os
import subprocess
import sys

import pytest

from tfebr import _stack


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs `code` in a fresh interpreter without this process's choice of Keras."""
    inherited = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | {"TF_CPP_MIN_LOG_LEVEL": "3"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_keras_3_already_loaded_is_one_clear_message():
    run = python(
        "import os, tensorflow as tf\n"
        "assert tf.keras.__version__.startswith('3')\n"
        "try:\n"
        "    import tfebr\n"
        "except ImportError as error:\n"
        "    print(error)\n"
        "print('TF_USE_LEGACY_KERAS' in os.environ)\n"
    )
    assert run.returncode == 0, run.stderr
    message, variable_left_behind = run.stdout.splitlines()
    assert "needs Keras 2" in message
    assert "already Keras 3" in message
    assert "Import tfebr before the first use of `tf.keras`" in message
    assert "TF_USE_LEGACY_KERAS=1" in message
    assert "restart the runtime" in message
    assert variable_left_behind == "False"


def test_tensorflow_loaded_without_keras_is_no_obstacle():
    run = python("import tensorflow as tf, tfebr; print(tf.keras.layers.Layer.__module__.split('.')[0])")
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "tf_keras"


def test_import_alone_loads_no_tensorflow():
    run = python("import sys, os, tfebr; print('tensorflow' in sys.modules, os.environ['TF_USE_LEGACY_KERAS'], tfebr.__version__)")
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["False", "1", _stack.version_of("tfebr")]


def installed(monkeypatch, **versions: str) -> None:
    monkeypatch.setattr(_stack, "version_of", lambda package: versions.get(package, "not installed"))


@pytest.mark.parametrize("tensorflow", ["2.21.0", "2.19.1", "2.2.0", "not installed"])
def test_tensorflow_that_does_not_match_scann_is_refused(monkeypatch, tensorflow):
    installed(monkeypatch, scann="1.4.2", tensorflow=tensorflow)
    with pytest.raises(ImportError) as caught:
        _stack.check_scann()
    for words in (
        "scann 1.4.2 works with TensorFlow 2.20 only",
        f"TensorFlow {tensorflow} is",
        'pip install "tensorflow==2.20.*" "scann==1.4.2"',
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "versions", [{"scann": "1.4.2", "tensorflow": "2.20.3"}, {"tensorflow": "2.21.0"}, {"scann": "9.9", "tensorflow": "9.9"}]
)
def test_matching_or_unknown_pairs_are_accepted(monkeypatch, versions):
    installed(monkeypatch, **versions)
    _stack.check_scann()


def test_versions_name_every_package_that_matters():
    versions = _stack.versions()
    assert {
        "tfebr",
        "tensorflow",
        "tf-keras",
        "tensorflow-recommenders",
        "tensorflow-text",
        "scann",
        "tensorflow-serving-api",
    } <= versions.keys()
    assert versions["tensorflow"].startswith("2.20.")
    assert _stack.version_of("no-such-package-anywhere") == "not installed"
