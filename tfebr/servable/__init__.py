"""The exported folder: writing and checking it, reading it back, its versions, a local server and clients."""

from tfebr import _public

__getattr__, __dir__, __all__ = _public.attach(__name__, __file__)
