"""The data folder: catalogue, search log, judgments, the simulator, public data sets, and the one input pipeline of every model."""

from tfebr import _public

__getattr__, __dir__, __all__ = _public.attach(__name__, __file__)
