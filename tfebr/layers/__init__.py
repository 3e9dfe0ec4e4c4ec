"""Keras layers of the three papers: tensors in, tensors out."""

from tfebr import _public

__getattr__, __dir__, __all__ = _public.attach(__name__, __file__)
