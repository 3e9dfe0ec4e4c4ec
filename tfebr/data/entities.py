"""HTML entities in texts, as shops export them: `&amp;`, `&#xAE;`, `&amp;quot;`."""

import html
import html.entities
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfebr.data.place import Notes, Place

# With its semicolon: without one, "black&parallel" would be "black¶llel".
_ENTITY = r"&(?:#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,8}|[A-Za-z][A-Za-z0-9]{1,31});"
_COMPILED = re.compile(_ENTITY)
# What is exported twice is escaped twice; nobody exports more often than this.
_ROUNDS = 8


def decoded(values: pa.StringArray, place: Place, notes: Notes) -> pa.StringArray:
    """The texts without entities, however often they were escaped, so that decoding again changes nothing."""
    held = pc.fill_null(pc.match_substring_regex(values, _ENTITY), False).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(held)
    before = values.take(pa.array(rows)).to_pylist()
    after = [_decoded(text) for text in before]
    if None in after:
        raise place.refuse(int(rows[after.index(None)]), f"HTML entities in entities, more than {_ROUNDS} deep. Repair the text.")
    changed = sum(old != new for old, new in zip(before, after, strict=True))
    if not changed:
        return values
    notes.add(place.column, "values held HTML entities; they were decoded", changed)
    return pc.replace_with_mask(values, pa.array(held), pa.array(after, pa.string()))


def _decoded(text: str) -> str | None:
    for _ in range(_ROUNDS):
        plain = _COMPILED.sub(_character, text)
        if plain == text:
            return text
        text = plain
    return None


def _character(entity: re.Match) -> str:
    name = entity[0][1:]
    return html.unescape(entity[0]) if name[0] == "#" or name in html.entities.html5 else entity[0]
