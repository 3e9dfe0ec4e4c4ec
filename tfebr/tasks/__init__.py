"""TFRS retrieval tasks: what joins the towers' vectors, candidates and a loss."""

from tfebr import _public

__getattr__, __dir__, __all__ = _public.attach(__name__, __file__)
