"""What every room stands on: whole files, progress, checks of settings and shapes, TensorFlow's own messages."""

from tfebr import _public

__getattr__, __dir__, __all__ = _public.attach(__name__, __file__)
