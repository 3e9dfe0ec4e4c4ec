"""Names of users' columns: as keys that are safe everywhere inside, as inputs of a servable, and in filters.

A column may have any name. Inside it goes by its key, which no internal name equals and which is fit for files, graphs and layers of every
system. Clients see the name itself wherever it is plain.
"""

import hashlib
import keyword
import re
from collections.abc import Collection

_SHORT = re.compile("[a-z0-9_]{1,40}")
_PLAIN = re.compile("[A-Za-z][A-Za-z0-9_]{0,63}")
# How a made-up name ends; a column that calls itself so gets a made-up name, too.
_DIGEST = re.compile("(?s).*_[0-9a-f]{16}")
# What stands for characters of the grammar of filters, in the order of decoding: "%" comes last, or "%253D" would be read twice.
ESCAPES = (("%3D", "="), ("%7C", "|"), ("%25", "%"))
# Of a filter: what has more finds nothing, so that no request takes the memory of a server or the time of other requests.
MOST_CLAUSES, LONGEST_CLAUSE = 256, 2**16


def column_key(column: str) -> str:
    """What a column is called inside, such as `column_brand`: at most 64 lower-case letters, digits and "_", all ASCII.

    Different columns have keys that differ by more than their case. All keys begin with `column_`; no internal name does, nor does one
    after `user_` or `history_`.
    """
    own = _SHORT.fullmatch(column) and not _DIGEST.fullmatch(column)
    return f"column_{column if own else made_up(column)}"


def made_up(name: str) -> str:
    """A name for what has no plain one: its letters and digits, and 64 bits of a hash. At most 48 characters, as in `column_key`."""
    words = re.sub("[^a-z0-9]+", "_", name.lower())[:24].strip("_")
    if not words[:1].isalpha():
        words = f"column_{words}".rstrip("_")
    return f"{words}_{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:16]}"


def input_names(names: Collection[str], taken: Collection[str] = ()) -> dict[str, str]:
    """By name, what a signature calls its input: the name itself where it is plain, else a made-up one. `find_input` finds it again.

    Plain is a letter with up to 63 letters, digits and "_" after it that is no keyword of Python. TensorFlow does not tell upper from lower
    case: of names that differ in nothing else, the one in lower case alone is itself.

    Args:
        names: `brand`, or `user_age` for a column of a profile.
        taken: names of the signature's other inputs.
    """
    lower = [name.lower() for name in {*names, *taken}]
    return {n: n if _is_plain(n) and (n.islower() or lower.count(n.lower()) == 1) else made_up(n) for n in names}


def find_input(name: str, inputs: Collection[str]) -> str | None:
    """The one of a signature's inputs that `input_names` has for this name, or that is called so; None where there is neither."""
    candidates = (name, made_up(name)) if _is_plain(name) else (made_up(name), name)
    return next((found for found in candidates if found in inputs), None)


def atom(column: str, value: str) -> str:
    """`column=value` as a filter's clause has it; see `tfebr.index.attributes`."""
    name = column.replace("%", "%25").replace("|", "%7C").replace("=", "%3D")
    return f"{name}={value.replace('%', '%25').replace('|', '%7C')}"


def split_atom(text: str) -> tuple[str, str] | None:
    """The column of an atom and its value, which is as it was written; None where there is no "="."""
    name, equals, value = text.partition("=")
    for escape, character in ESCAPES:
        name = name.replace(escape, character)
    return (name, value) if equals else None


def _is_plain(name: str) -> bool:
    # `self` and keywords are no names of arguments, which inputs are to TensorFlow.
    return bool(_PLAIN.fullmatch(name)) and not _DIGEST.fullmatch(name) and name != "self" and not keyword.iskeyword(name)
