"""tfebr: embedding-based retrieval for e-commerce, from a shop's search log to one servable folder."""

import os

from tfebr import _stack

_stack.check_scann()
_stack.select_keras_2()
# Below 3, TensorFlow reports on a machine without a GPU as if that were an error; what fails is raised anyway.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = _stack.version_of("tfebr")
versions = _stack.versions
