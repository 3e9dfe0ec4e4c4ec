"""Which index for how many items and which server, before anything is measured."""

import dataclasses
import math
from typing import Any

from tfebr.errors import ConfigError
from tfebr.infrastructure.checks import check_choice, check_number, conform, require

KINDS = ("exact", "hash", "tree", "ivf")
# The kinds whose search needs ScaNN's operations in the server.
SCANN_KINDS = ("hash", "tree")
_WITH_LEAVES = ("tree", "ivf")
SERVERS = ("scann", "stock")
VECTORS = ("float32", "int8")
# Asymmetric hashing trains 16 centres a block and ScaNN refuses fewer points than that.
FEWEST_ITEMS_FOR_SCANN = 16
_EXACT_BELOW, _HASH_BELOW = 20_000, 100_000


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How an index is built and searched.

    Attributes:
        kind: "exact" scores every item; "hash" scores every item's quantised code (ScaNN's asymmetric hashing) and reorders the best;
            "tree" does so only in the partitions nearest to the query; "ivf" (inverted file) scores every item of the nearest partitions,
            with core TensorFlow operations only.
        leaves: number of partitions, about sqrt(items) for a tree and 4 sqrt(items) for an IVF; 0 for the kinds without. They are on one
            level: among the partitions of 10^7 items, choosing takes a small share of a search, and a larger catalogue goes into shards.
        leaves_to_search: partitions that one query looks into; changeable for each search.
        reorder: candidates per head whose full score is computed; changeable for each search. Fewer than 3k cost recall. Like the next
            two, of "hash" and "tree" only.
        dims_per_block: dimensions that share one 4-bit code.
        anisotropic_threshold: weight of quantisation errors parallel to the vector (Guo et al., ICML 2020), a share of its norm.
        vectors: the full vectors of the kinds but "exact", "float32" or "int8" (a quarter of the memory, scores rounded to about 0.5 %).

    Raises:
        ConfigError: a field is unknown or impossible.
    """

    kind: str
    leaves: int = 0
    leaves_to_search: int = 0
    reorder: int = 300
    dims_per_block: int = 2
    anisotropic_threshold: float = 0.2
    vectors: str = "float32"

    def __post_init__(self) -> None:
        conform(self)
        check_choice("kind", self.kind, KINDS)
        check_choice("vectors", self.vectors, VECTORS)
        check_number("reorder", self.reorder, "[1, inf)", whole=True)
        check_number("dims_per_block", self.dims_per_block, "[1, inf)", whole=True)
        check_number("anisotropic_threshold", self.anisotropic_threshold, "[0, 1)")
        if self.kind in _WITH_LEAVES:
            # Items that are all the same make one partition.
            fewest = 2 if self.kind == "tree" else 1
            require(self.leaves >= fewest, "leaves", f"at least {fewest} for kind {self.kind!r}", self.leaves)
            require(
                1 <= self.leaves_to_search <= self.leaves, "leaves_to_search", f"in [1, `leaves` = {self.leaves}]", self.leaves_to_search
            )
        else:
            for name in ("leaves", "leaves_to_search"):
                require(getattr(self, name) == 0, name, f"0 for kind {self.kind!r}, which has no partitions", getattr(self, name))

    def check_items(self, items: int) -> None:
        """Raises ConfigError when this recipe cannot be built over so few items."""
        fewest = max(FEWEST_ITEMS_FOR_SCANN if self.kind in SCANN_KINDS else 1, self.leaves)
        if items < fewest:
            raise ConfigError(
                f"Recipe.kind {self.kind!r} with {self.leaves} leaves needs at least {fewest} items. "
                f"Received {items}. Use Recipe(kind='exact') or recipe_for({items})."
            )

    def check_server(self, server: str) -> None:
        """Raises ConfigError when the server lacks the operations that this recipe's search needs."""
        check_choice("server", server, SERVERS)
        if server == "stock" and self.kind in SCANN_KINDS:
            raise ConfigError(
                f"Recipe.kind {self.kind!r} needs ScaNN's operations, which the stock image does not have (server = 'stock'). "
                "Use kind 'ivf' or 'exact', or a server with ScaNN's operations linked in (server = 'scann')."
            )

    def as_dict(self) -> dict[str, Any]:
        """The fields that mean something for this kind, as plain values; `Recipe(**fields)` gives a recipe that builds the same."""
        fields = {"exact": ("kind",), "ivf": ("kind", "leaves", "leaves_to_search", "vectors")}
        everything = dataclasses.asdict(self)
        return {name: everything[name] for name in fields.get(self.kind, tuple(everything))}


def recipe_for(items: int, k: int = 100, vectors: str = "float32", server: str = "scann") -> Recipe:
    """The starting point for a catalogue; `reason_for` says why it is of its kind.

    For a server with ScaNN's operations: exact below 20,000 items, hashing below 100,000, a tree of sqrt(items) leaves above, of which a
    tenth is searched. For the stock server: exact below 20,000 items, above an IVF of 4 sqrt(items) leaves, of which a hundredth is
    searched.

    Args:
        items: size of the catalogue.
        k: results that a query wants; 3k candidates, at least 300, are reordered.
        vectors: see `Recipe.vectors`.
        server: what it will run on: "scann", TF Serving with ScaNN's operations linked in or `tfebr serve`; or "stock", the public
            `tensorflow/serving` image, which has core operations only.

    Raises:
        ConfigError: a size is not positive, or vectors or server are unknown.
    """
    check_number("k", k, "[1, inf)", whole=True)
    check_choice("vectors", vectors, VECTORS)
    kind, _ = _kind_for(items, server)
    reorder = max(3 * k, 300)
    if kind == "exact":
        return Recipe("exact")
    if kind == "hash":
        return Recipe("hash", reorder=reorder, vectors=vectors)
    if kind == "ivf":
        leaves = round(4 * math.sqrt(items))
        return Recipe("ivf", leaves=leaves, leaves_to_search=math.ceil(leaves / 100), vectors=vectors)
    leaves = round(math.sqrt(items))
    return Recipe("tree", leaves=leaves, leaves_to_search=math.ceil(leaves / 10), reorder=reorder, vectors=vectors)


def reason_for(items: int, server: str = "scann") -> str:
    """One sentence, for people: why `recipe_for` chooses the kind that it does."""
    return _kind_for(items, server)[1]


def _kind_for(items: int, server: str) -> tuple[str, str]:
    check_number("items", items, "[1, inf)", whole=True)
    check_choice("server", server, SERVERS)
    if items < _EXACT_BELOW:
        return "exact", f"Fewer than {_EXACT_BELOW:,} items ({items:,}): scoring every one takes less than a millisecond, on any server."
    if server == "stock":
        return "ivf", (
            f"{items:,} items are too many to score every one, and the stock tensorflow/serving image has core operations only: partitions "
            "searched with these."
        )
    if items < _HASH_BELOW:
        return "hash", (
            f"{items:,} items are too many to score every vector and few enough to score every code, and the server has ScaNN's operations."
        )
    return "tree", f"{items:,} items are too many to score every code, and the server has ScaNN's operations: its tree of partitions."
