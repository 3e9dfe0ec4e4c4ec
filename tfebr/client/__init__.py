"""Clients over REST and gRPC, for one server and for shards; importing them loads no TensorFlow."""

from tfebr import _public

__getattr__, __dir__, __all__ = _public.attach(__name__, __file__)
