"""How far a shown item got in one search request."""

import enum


class Stage(enum.IntEnum):
    """Ordered stages of a shown item; a later stage implies the earlier ones."""

    UNCLICKED = 0
    CLICKED = 1
    CARTED = 2
    ORDERED = 3
