"""The catalogue's columns as arrays in the graph, and which items a filter's clauses leave.

A filter is a list of clauses that must all hold. A clause is one or more atoms with "|" between them, of which one must hold. An atom is
`column=value` for a column of strings, the value being the catalogue's to the letter, or `column=low..high` for a column of numbers, both
bounds inclusive and either of them optional, written as `12`, `-0.5` or `1e-3`; numbers are compared as float32. "%7C", "%25" and "%3D" in
an atom stand for "|", "%" and "="; the first "=" that is written as it is ends the column's name. An unknown column or value and whatever
else is no atom match nothing; so does every atom for an item that has no value. "" is padding, no clause.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfebr.data.item_ids import ItemIds
from tfebr.data.names import ESCAPES, LONGEST_CLAUSE, MOST_CLAUSES
from tfebr.errors import ConfigError

CATEGORY, NUMBER = "category", "number"
# So many digits are more than float64 has: no length of a request's text reaches the conversion.
_NUMBER = r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?"
_RANGE = rf"(?:{_NUMBER})?\.\.(?:{_NUMBER})?"
_ATOM = "(?s)[^=]*=.*"
_TO_THE_END = 2**31 - 1


def filter_columns(table: pa.Table) -> dict[str, str]:
    """The columns that a filter can name, with their kind, "category" or "number": all of strings and numbers but `item_id` and `title`."""
    kinds = {field.name: _kind(field.type) for field in table.schema if field.name not in ("item_id", "title")}
    return {name: kind for name, kind in kinds.items() if kind}


class ItemAttributes(tf.Module):
    """The items' values: 4 bytes for each item and column, and every distinct string once.

    Args:
        table: a catalogue's table, rows in the order of the index.

    Raises:
        ConfigError: there is no column to filter by; see `filter_columns`.
        DataError: the distinct values together exceed 2 GiB.
    """

    def __init__(self, table: pa.Table, name: str = "item_attributes"):
        super().__init__(name=name)
        kinds = filter_columns(table)
        if not kinds:
            raise ConfigError("`table` has no column to filter by besides item_id and title. Leave the attributes out.")
        self.items = table.num_rows
        self._names, self._kinds = tuple(kinds), tuple(kinds.values())
        keys: list[str] = []
        arrays = []
        for number, (column, kind) in enumerate(kinds.items()):
            arrays.append(_codes(f"{number}=", table[column], keys) if kind == CATEGORY else _numbers(table[column]))
        self._columns = [tf.Variable(array, trainable=False, name=f"column_{i}") for i, array in enumerate(arrays)]
        # No constant: one that is called as a file here would be taken for a path to it.
        self._asked = tf.Variable(self._names, trainable=False, dtype=tf.string, name="names")
        # One table for all columns: a value's key is `number of its column=value`, its code the key's row + 1. Code 0 is no value.
        self._keys = ItemIds(np.array(keys, object), name="values") if keys else None

    @property
    def columns(self) -> dict[str, str]:
        """Each column's kind, "category" or "number", by its name."""
        return dict(zip(self._names, self._kinds, strict=True))

    def matches(self, clauses: tf.Tensor) -> tf.Tensor:
        """Which items a filter leaves.

        Args:
            clauses: [n] strings, padded with "".

        Returns:
            [items] bool; all true where there is no clause, all false where there are more than 256 or one of more than 65,536 bytes.
        """
        clauses = tf.boolean_mask(clauses, clauses != "")
        short = (tf.size(clauses) <= MOST_CLAUSES) & tf.reduce_all(tf.strings.length(clauses) <= LONGEST_CLAUSE)
        clauses = tf.cond(short, lambda: clauses, lambda: tf.constant(["no atom"]))
        return _combined(tf.logical_and, tf.ones([self.items], tf.bool), tf.size(clauses), lambda i: self._clause(clauses[i]))

    def values(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """Every column's value of each row, in the shape of `rows`: "" or 0.0 where the item has none or the row is negative."""
        found = {}
        for number, (name, kind, column) in enumerate(zip(self._names, self._kinds, self._columns, strict=True)):
            values = tf.gather(column, tf.maximum(rows, 0))
            if kind == CATEGORY:
                codes = tf.where(rows >= 0, values, 0)
                keys = tf.fill(tf.shape(rows), "") if self._keys is None else self._keys.decode(codes - 1)
                found[name] = _from(keys, tf.where(codes > 0, len(f"{number}="), 0))
            else:
                found[name] = tf.where((rows >= 0) & tf.math.is_finite(values), values, 0.0)
        return found

    def _clause(self, clause: tf.Tensor) -> tf.Tensor:
        """[items] which items one clause leaves: its atoms are tried a column at a time."""
        columns, codes, lows, highs = self._atoms(clause)
        named = tf.unique(tf.boolean_mask(columns, columns >= 0)).y

        def column_holds(i: tf.Tensor) -> tf.Tensor:
            own = columns == named[i]
            own_codes, own_lows, own_highs = (tf.boolean_mask(values, own) for values in (codes, lows, highs))
            branches = [
                (lambda c=column: _one_of(c, own_codes, len(self._keys or ())))
                if kind == CATEGORY
                else (lambda c=column: _in_ranges(c, own_lows, own_highs))
                for column, kind in zip(self._columns, self._kinds, strict=True)
            ]
            return tf.switch_case(named[i], branches)

        return _combined(tf.logical_or, tf.zeros([self.items], tf.bool), tf.size(named), column_holds)

    def _atoms(self, clause: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Of every atom: its column, -1 when it can match nothing; its value's code; its range's bounds."""
        atoms = tf.strings.split(clause, "|")
        is_column = (columns_of(atoms)[:, None] == self._asked) & tf.strings.regex_full_match(atoms, _ATOM)[:, None]
        columns = tf.where(tf.reduce_any(is_column, 1), tf.argmax(is_column, 1, tf.int32), -1)
        values = _decoded(_from(atoms, tf.where(columns >= 0, tf.strings.length(_before_equals(atoms)) + 1, 0)))

        keys = tf.strings.join([tf.strings.as_string(columns), "=", values])
        codes = tf.zeros_like(columns) if self._keys is None else self._keys.lookup(keys)
        is_range = tf.strings.regex_full_match(values, _RANGE)
        bounds = tf.where(is_range, values, "..")
        lows = _bound(tf.strings.regex_replace(bounds, r"\.\..*", ""), -np.inf)
        highs = _bound(tf.strings.regex_replace(bounds, r".*\.\.", ""), np.inf)
        is_category = tf.gather(tf.constant([kind == CATEGORY for kind in self._kinds]), tf.maximum(columns, 0))
        return tf.where(tf.where(is_category, codes > 0, is_range), columns, -1), codes, lows, highs


def columns_of(atoms: tf.Tensor) -> tf.Tensor:
    """The column that each atom names, in the shape of `atoms`; of a clause, that of its first atom."""
    return _decoded(_before_equals(atoms))


def _before_equals(atoms: tf.Tensor) -> tf.Tensor:
    return tf.strings.regex_replace(atoms, "(?s)=.*", "")


def _decoded(texts: tf.Tensor) -> tf.Tensor:
    for escape, character in ESCAPES:
        texts = tf.strings.regex_replace(texts, escape, character)
    return texts


def _from(texts: tf.Tensor, starts: tf.Tensor) -> tf.Tensor:
    """The texts from a byte of each on."""
    return tf.strings.substr(texts, starts, tf.fill(tf.shape(texts), _TO_THE_END))


def _kind(arrow_type: pa.DataType) -> str:
    if pa.types.is_string(arrow_type) or pa.types.is_large_string(arrow_type):
        return CATEGORY
    return NUMBER if pa.types.is_integer(arrow_type) or pa.types.is_floating(arrow_type) else ""


def _codes(prefix: str, column: pa.ChunkedArray, keys: list[str]) -> np.ndarray:
    """[items] int32 codes of a column; the keys of its values, each after the prefix, are added to `keys`."""
    encoded = pa.chunked_array(column).combine_chunks().dictionary_encode()
    codes = np.zeros(len(encoded.dictionary) + 1, np.int32)
    for i, value in enumerate(encoded.dictionary.to_pylist()):
        # The empty string is no value.
        if value:
            keys.append(f"{prefix}{value}")
            codes[i] = len(keys)
    # A null has no index: it takes the last code, which is 0.
    return codes[encoded.indices.fill_null(len(codes) - 1).to_numpy(zero_copy_only=False)]


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """[items] float32 numbers, NaN where there is none."""
    with np.errstate(over="ignore"):
        return column.cast(pa.float64()).to_numpy().astype(np.float32)


def _bound(text: tf.Tensor, default: float) -> tf.Tensor:
    # By way of float64, as the catalogue's numbers go: the same number must be the same float32.
    numbers = tf.cast(tf.strings.to_number(tf.where(text == "", "0", text), tf.float64), tf.float32)
    return tf.where(text == "", default, numbers)


def _one_of(column: tf.Tensor, codes: tf.Tensor, values: int) -> tf.Tensor:
    """[items] which items have one of the codes."""
    return tf.cond(
        tf.size(codes) == 1,
        lambda: tf.equal(column, codes[0]),
        lambda: tf.gather(tf.scatter_nd(codes[:, None], tf.ones_like(codes), [values + 1]) > 0, column),
    )


def _in_ranges(column: tf.Tensor, lows: tf.Tensor, highs: tf.Tensor) -> tf.Tensor:
    """[items] which items lie in one of the ranges; NaN lies in none."""
    return _combined(
        tf.logical_or, tf.zeros(tf.shape(column), tf.bool), tf.size(lows), lambda i: (column >= lows[i]) & (column <= highs[i])
    )


def _combined(combine: Callable[..., tf.Tensor], first: tf.Tensor, count: tf.Tensor, part: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """`first` combined with part(0) ... part(count - 1), one after the other, so that no more than two are held."""
    _, held = tf.while_loop(
        lambda i, _: i < count, lambda i, held: (i + 1, combine(held, part(i))), (tf.constant(0), first), parallel_iterations=1
    )
    return held
