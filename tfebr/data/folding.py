"""Letters and digits that are written in several ways, as one: accents, strokes and the digits of other scripts."""

import functools
import sys
import unicodedata

import numpy as np
import tensorflow as tf

# An accent on a letter of these changes how it is read, and who searches leaves it out; in other scripts marks are letters themselves.
ACCENTED_SCRIPTS = ("LATIN", "GREEK", "CYRILLIC")
_LAST_ACCENTED = 0xABFF
# Turkish i without its dot, and letters that are another's by nothing in their names.
_OTHERS = {"ı": "i", "ȷ": "j", "ð": "d", "ſ": "s"}


def folded(texts: tf.Tensor) -> tf.Tensor:
    """[n] strings, NFKC and case folded -> the same with every letter of Latin, Greek and Cyrillic as its base letter, and decimal digits
    of every script as 0 to 9. One code point becomes one."""
    points = tf.raw_ops.UnicodeDecode(input=texts, input_encoding="UTF-8")
    written, read = (tf.constant(column) for column in _table())
    row = tf.raw_ops.LowerBound(sorted_inputs=written[None], values=points.char_values[None])[0]
    values = tf.where(tf.gather(written, row) == points.char_values, tf.gather(read, row), points.char_values)
    return tf.raw_ops.UnicodeEncode(input_values=values, input_splits=points.row_splits, output_encoding="UTF-8")


@functools.cache
def _table() -> tuple[np.ndarray, np.ndarray]:
    """Code points as written, ascending, and as read; the last is above all code points, so that a search always ends on a row."""
    found = {}
    for point in range(0x80, sys.maxunicode + 1):
        character = chr(point)
        if (digit := unicodedata.decimal(character, None)) is not None:
            found[point] = ord(str(digit))
        elif point <= _LAST_ACCENTED and character.islower() and (base := _base(character)) != character:
            found[point] = ord(base)
    found[sys.maxunicode + 1] = 0
    written = sorted(found)
    return np.array(written, np.int32), np.array([found[point] for point in written], np.int32)


def _base(character: str) -> str:
    """The letter under accents (those that decompose) and strokes, hooks and tails (those that only the Unicode name tells)."""
    if character in _OTHERS:
        return _OTHERS[character]
    name = unicodedata.name(character, "")
    if not name.startswith(ACCENTED_SCRIPTS):
        return character
    first, *marks = list(unicodedata.normalize("NFD", character))
    if marks and all(unicodedata.combining(mark) for mark in marks):
        return _base(first)
    plain, stroke, _ = name.partition(" WITH ")
    try:
        return _base(unicodedata.lookup(plain)) if stroke else character
    except KeyError:
        return character
