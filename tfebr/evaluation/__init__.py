"""Rankings, their metrics and significance, run files, and BM25 to compare with."""

from tfebr import _public

__getattr__, __dir__, __all__ = _public.attach(__name__, __file__)
