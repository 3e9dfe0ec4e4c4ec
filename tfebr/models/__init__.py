"""DPSR, MGDSPR, MMSE (reconstructed from its abstract) and a plain two-tower, with their configs and run folders."""

from tfebr import _public

__getattr__, __dir__, __all__ = _public.attach(__name__, __file__)
