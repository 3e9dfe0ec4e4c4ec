"""Grains of text: the same tokens as plain Python for ASCII, and sensible ones for every script (how spellings meet: test_spellings)."""

import itertools
import re
import unicodedata

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from text_oracle import without_separators

from tfebr.data import text

ALL = ("words", "bigrams", "trigrams")


def grains(*texts: str | bytes) -> list[dict[str, list[str]]]:
    found = text.grains(tf.constant(texts, tf.string), ALL)
    return [{g: [t.decode() for t in found[g][row].numpy()] for g in ALL} for row in range(len(texts))]


def words(one: str | bytes) -> list[str]:
    return grains(one)[0]["words"]


def plain(one: str) -> dict[str, list[str]]:
    """The same for ASCII text, without TensorFlow."""
    one = re.sub("['`]+(?=[a-z])", "", one[: text.MAX_CHARACTERS].lower())
    tokens = re.findall("[a-z]+|[0-9]+", re.sub("[0-9][0-9.,]*", without_separators, one))
    marked = ["^", *tokens, "$"]
    return {
        "words": tokens,
        "bigrams": [f"{a} {b}" for a, b in itertools.pairwise(marked)] if tokens else [],
        "trigrams": [f"#{t}#"[i : i + 3] for t in tokens for i in range(len(t))],
    }


ASCII = st.text(st.characters(max_codepoint=127), max_size=40) | st.from_regex(
    r"([A-Za-z]{0,4}[0-9]{0,3}['` .,-]{0,2}|[1-9][0-9]{0,2}(,[0-9]{3}){1,6}){0,6}", fullmatch=True
)


@given(st.lists(ASCII, min_size=1, max_size=5))
def test_ascii_text_equals_a_plain_oracle(texts):
    assert grains(*texts) == [plain(t) for t in texts]


@given(st.text(max_size=40))
def test_any_text_gives_clean_tokens(one):
    for token in words(one):
        assert token
        assert all(unicodedata.category(c)[0] in "LMN" or unicodedata.category(c) in ("So", "Cn") for c in token), token


@given(st.binary(max_size=30))
def test_any_bytes_give_utf8_tokens(raw):
    for tokens in grains(raw)[0].values():
        assert "" not in tokens


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("", []),
        (" \t\n ", []),
        ("!?.,;", []),
        ("12oz", ["12", "oz"]),
        ("LED Bulb 60W-E27", ["led", "bulb", "60", "w", "e", "27"]),
        ("men's Men\u2019s mens", ["mens"] * 3),
        ("\uff2c\uff25\uff24 \uff11\uff12\uff2f\uff3a", ["led", "12", "oz"]),
        ("\u8dd1\u6b65\u978b", ["\u8dd1", "\u6b65", "\u978b"]),
        ("Nike\u8dd1\u978b42\u7801", ["nike", "\u8dd1", "\u978b", "42", "\u7801"]),
        ("\u30e9\u30f3\u30cb\u30f3\u30b0 \u9774", ["\u30e9\u30f3\u30cb\u30f3\u30b0", "\u9774"]),
        ("\U0001f3a7headphones\U0001f381\U0001f381", ["\U0001f3a7", "headphones", "\U0001f381", "\U0001f381"]),
        ("STRASSE Stra\u00dfe", ["strasse"] * 2),
        ("cafe\u0301 caf\u00e9", ["cafe"] * 2),
        ("\u0444\u0443\u0442\u0431\u043e\u043b\u043a\u0430 XL", ["\u0444\u0443\u0442\u0431\u043e\u043b\u043a\u0430", "xl"]),
    ],
)
def test_scripts_units_and_symbols(raw, expected):
    assert words(raw) == expected


def test_chinese_characters_pairs_and_marks():
    (found,) = grains("\u8dd1\u978b")
    assert found["words"] == ["\u8dd1", "\u978b"]
    assert found["bigrams"] == ["^ \u8dd1", "\u8dd1 \u978b", "\u978b $"]
    assert found["trigrams"] == ["#\u8dd1#", "#\u978b#"]


def test_trigrams_never_cross_words():
    assert grains("led oz")[0]["trigrams"] == ["#le", "led", "ed#", "#oz", "oz#"]


def test_invalid_utf8_separates_and_keeps_the_rest():
    assert words(b"led\xff\xfebulb \xc3\x28 lamp") == ["led", "bulb", "lamp"]
    assert words(b"\xff\xff") == []


def test_only_the_beginning_of_a_long_text_is_read():
    assert "".join(words("\u8dd1" * 10_000)) == "\u8dd1" * text.MAX_CHARACTERS
    assert words("a " * 10_000) == ["a"] * (text.MAX_CHARACTERS // 2)


def test_same_tokens_in_a_graph_of_unknown_size():
    graph = tf.function(lambda t: text.grains(t, ALL), input_signature=[tf.TensorSpec([None], tf.string)])
    texts = tf.constant(["", "12oz \u8dd1\u978b \U0001f3a7", "LED bulb"])
    for name, tokens in graph(texts).items():
        assert tokens.to_list() == text.grains(texts, ALL)[name].to_list()
    assert all(tokens.shape[0] == 0 for tokens in graph(tf.constant([], tf.string)).values())
