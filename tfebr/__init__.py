"""tfebr: embedding-based retrieval for e-commerce, from a shop's search log to one servable folder."""

from tfebr import _stack

_stack.check_scann()
_stack.select_keras_2()

__version__ = _stack.version_of("tfebr")
versions = _stack.versions
