"""Losses on scores and masks: pure functions, and their faces as Keras losses."""

from tfebr import _public

__getattr__, __dir__, __all__ = _public.attach(__name__, __file__)
