"""Checks, before anything imports TensorFlow's Keras, that the installed stack can work together."""

import importlib.metadata
import os
import sys

# scann's TensorFlow ops are compiled against one minor version of TensorFlow.
_SCANN_NEEDS = {"1.4.2": "2.20"}
SHOWN = ("tensorflow", "tf-keras", "tensorflow-recommenders", "tensorflow-text", "scann", "tensorflow-serving-api")


def version_of(package: str) -> str:
    """The installed version of `package`, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Installed versions of every package whose version decides whether tfebr works, by package name."""
    return {name: version_of(name) for name in ("tfebr", *SHOWN, "numpy", "pyarrow")}


def check_scann() -> None:
    """Raises ImportError when the installed TensorFlow is not the one scann's ops were compiled for."""
    needed, found = _SCANN_NEEDS.get(version_of("scann")), version_of("tensorflow")
    if needed and not found.startswith(needed + "."):
        raise ImportError(
            f"scann {version_of('scann')} works with TensorFlow {needed} only, but TensorFlow {found} is installed. "
            f'Install the matching pair: pip install "tensorflow=={needed}.*" "scann=={version_of("scann")}"'
        )


def select_keras_2() -> None:
    """Makes `tf.keras` mean Keras 2, which TFRS needs; raises ImportError when Keras 3 has already been chosen."""
    tensorflow_loaded = "tensorflow" in sys.modules
    chosen_before = os.environ.get("TF_USE_LEGACY_KERAS")
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    if not tensorflow_loaded:
        return
    import tensorflow as tf

    version = tf.keras.__version__ if hasattr(tf.keras, "__version__") else "2"
    if version.startswith("3"):
        if chosen_before is None:
            del os.environ["TF_USE_LEGACY_KERAS"]
        raise ImportError(
            f"tfebr needs Keras 2, but `tf.keras` is already Keras {version} in this process. "
            "Import tfebr before the first use of `tf.keras`, or set the environment variable TF_USE_LEGACY_KERAS=1 "
            "at the very top; in a notebook, restart the runtime first."
        )
