"""Phrases with ids, invented names and misspellings, and joining ids to text without a Python loop."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ONSETS = [*"bcdfghjklmnprstvwz", "br", "cl", "dr", "fl", "gr", "pr", "qu", "st", "tr"]
_VOWELS = [*"aaaeeeiiooouu", "ai", "ea", "io"]
_ENDS = ["", "", "n", "r", "x", "l", "s", "nd", "m", "t"]


class Vocabulary:
    """Phrases in order of arrival; an id is a place in `phrases`, and -1 means "no phrase here"."""

    def __init__(self):
        self.phrases: list[str] = []
        self._ids: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.phrases)

    def __contains__(self, phrase: str) -> bool:
        return phrase in self._ids

    def add(self, phrase: str) -> int:
        """The id of `phrase`, new or known."""
        found = self._ids.setdefault(phrase, len(self.phrases))
        if found == len(self.phrases):
            self.phrases.append(phrase)
        return found


def invent_names(count: int, rng: np.random.Generator, vocabulary: Vocabulary) -> list[str]:
    """`count` pronounceable names that are not in `vocabulary` and differ from one another."""
    names: dict[str, None] = {}
    while len(names) < count:
        for syllables, end in zip(
            rng.integers(0, len(_ONSETS) * len(_VOWELS), (count, 3)), rng.integers(0, len(_ENDS), count), strict=True
        ):
            short = syllables[: 2 + (syllables[0] % 3 == 0)]
            name = "".join(_ONSETS[s % len(_ONSETS)] + _VOWELS[s // len(_ONSETS)] for s in short) + _ENDS[end]
            if name not in vocabulary:
                names[name] = None
    return list(names)[:count]


def misspellings(phrase: str, count: int, rng: np.random.Generator) -> list[str]:
    """Up to `count` slips of one key in the longest word: letters swapped, dropped or doubled; none for words under four letters."""
    words = phrase.split()
    longest = max(range(len(words)), key=lambda i: len(words[i]))
    word = words[longest]
    if len(word) < 4 or not word.isalpha():
        return []
    slips = []
    for kind, at in zip(rng.integers(0, 3, count), rng.integers(1, len(word) - 1, count), strict=True):
        if kind == 0:
            slip = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        elif kind == 1:
            slip = word[:at] + word[at + 1 :]
        else:
            slip = word[: at + 1] + word[at:]
        if slip != word:
            slips.append(" ".join([*words[:longest], slip, *words[longest + 1 :]]))
    return slips


def join_phrases(phrases: pa.Array, ids: np.ndarray) -> pa.Array:
    """Texts [n] of phrase ids [n, slots], separated by one space; -1 is skipped."""
    columns = [phrases.take(pa.array(column, mask=column < 0)) for column in np.ascontiguousarray(ids.T)]
    return pc.binary_join_element_wise(*columns, " ", null_handling="skip")
