"""Which index for how many items, before anything is measured."""

import dataclasses
import math

from tfebr.errors import ConfigError

KINDS = ("exact", "hash", "tree")
VECTORS = ("float32", "int8")
# Asymmetric hashing trains 16 centres a block and ScaNN refuses fewer points than that.
FEWEST_ITEMS_FOR_SCANN = 16


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How an index is built and searched.

    Attributes:
        kind: "exact" scores every item; "hash" scores every item's quantised code (ScaNN's asymmetric hashing) and reorders the best;
            "tree" does so only in the partitions nearest to the query.
        leaves: number of partitions of a tree, about sqrt(items); 0 without a tree.
        leaves_to_search: partitions that one query looks into; changeable for each search.
        reorder: candidates per head whose full score is computed; changeable for each search. Fewer than 3k cost recall.
        dims_per_block: dimensions that share one 4-bit code.
        anisotropic_threshold: weight of quantisation errors parallel to the vector (Guo et al., ICML 2020), a share of its norm.
        vectors: the full vectors for the reordering, "float32" or "int8" (a quarter of the memory, scores rounded to about 0.5 %).

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
        _require(self.kind in KINDS, "kind", self.kind, f"one of {', '.join(KINDS)}")
        _require(self.vectors in VECTORS, "vectors", self.vectors, f"one of {', '.join(VECTORS)}")
        _require(self.reorder >= 1, "reorder", self.reorder, "at least 1")
        _require(self.dims_per_block >= 1, "dims_per_block", self.dims_per_block, "at least 1")
        _require(0 <= self.anisotropic_threshold < 1, "anisotropic_threshold", self.anisotropic_threshold, "in [0, 1)")
        if self.kind == "tree":
            _require(self.leaves >= 2, "leaves", self.leaves, "at least 2 for a tree")
            _require(1 <= self.leaves_to_search <= self.leaves, "leaves_to_search", self.leaves_to_search, f"in 1..leaves ({self.leaves})")
        else:
            _require(self.leaves == 0, "leaves", self.leaves, f"0 for kind {self.kind!r}, which has no tree")
            _require(self.leaves_to_search == 0, "leaves_to_search", self.leaves_to_search, f"0 for kind {self.kind!r}, which has no tree")

    def check_items(self, items: int) -> None:
        """Raises ConfigError when this recipe cannot be built over so few items."""
        if self.kind != "exact" and items < max(FEWEST_ITEMS_FOR_SCANN, self.leaves):
            raise ConfigError(
                f"Recipe.kind {self.kind!r} with {self.leaves} leaves needs at least {max(FEWEST_ITEMS_FOR_SCANN, self.leaves)} items. "
                f"Received {items}. Use Recipe(kind='exact') or recipe_for({items})."
            )


def recipe_for(items: int, k: int = 100, vectors: str = "float32") -> Recipe:
    """The starting point for a catalogue: exact below 20,000 items, hashing below 100,000, a tree of sqrt(items) leaves above.

    Args:
        items: size of the catalogue.
        k: results that a query wants; 3k candidates, at least 300, are reordered.
        vectors: see `Recipe.vectors`.
    """
    _require(items >= 1, "items", items, "at least 1")
    _require(k >= 1, "k", k, "at least 1")
    reorder = max(3 * k, 300)
    if items < 20_000:
        return Recipe("exact")
    if items < 100_000:
        return Recipe("hash", reorder=reorder, vectors=vectors)
    leaves = round(math.sqrt(items))
    return Recipe("tree", leaves=leaves, leaves_to_search=math.ceil(leaves / 10), reorder=reorder, vectors=vectors)


def _require(good: bool, field: str, value: object, allowed: str) -> None:
    if not good:
        raise ConfigError(f"Recipe: `{field}` should be {allowed}. Received: {field} = {value!r}.")
