"""How a version says which published set of shards it belongs to: an entry among its signatures, which every server passes on.

TensorFlow Serving tells clients a model's signatures and nothing else. The entry has no inputs and cannot be asked, like the one that
every SavedModel has for its initialisation.
"""

from collections.abc import Mapping
from typing import Any

KEY = "__tfebr_shard_set"


def mark(signatures: Any, shard_set: str) -> None:
    """Enters the set into a protobuf map of SignatureDefs."""
    signatures[KEY].method_name = shard_set


def read(signatures: Mapping[str, Any]) -> str | None:
    """The set, from SignatureDefs in protobuf's JSON form; None where the version belongs to none."""
    return signatures.get(KEY, {}).get("method_name") or None
