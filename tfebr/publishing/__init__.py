"""From a run and a catalogue to the next version of its servable: export, refresh, shards."""

from tfebr import _public

__getattr__, __dir__, __all__ = _public.attach(__name__, __file__)
