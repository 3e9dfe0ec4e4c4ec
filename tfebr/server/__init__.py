"""The local server: TF Serving's REST and gRPC API over published folders."""

from tfebr import _public

__getattr__, __dir__, __all__ = _public.attach(__name__, __file__)
