"""Indexes over item vectors, ScaNN's, exact and of core operations, and their measured recall."""

from tfebr import _public

__getattr__, __dir__, __all__ = _public.attach(__name__, __file__)
