"""Spellings of one thing meet, numbers stay what they were, and marks that are letters stay: against Python's own Unicode tables."""

import re
import unicodedata

import pytest
import tensorflow as tf
from hypothesis import assume, example, given
from hypothesis import strategies as st
from text_oracle import without_separators

from tfebr.data import text

INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufe0f"
DIGITS = [chr(c) for c in range(0x30, 0x20000) if unicodedata.category(chr(c)) == "Nd"]
# Fractions, superscripts, circled digits, digits with a point, and signs that hold a digit, as ㍘ and ㎡.
NUMBER_SIGNS = [
    chr(c)
    for c in range(0xA0, 0x20000)
    if unicodedata.category(chr(c)) in ("No", "So") and re.search("[0-9]", unicodedata.normalize("NFKC", chr(c)))
]
ACCENTED = [
    chr(c)
    for c in range(0xC0, 0x2000)
    if unicodedata.name(chr(c), "").startswith(("LATIN", "GREEK SMALL", "GREEK CAPITAL", "CYRILLIC"))
    and unicodedata.decomposition(chr(c))
    and "<" not in unicodedata.decomposition(chr(c))
    # Case folding itself makes an iota of the one under a letter.
    and "\u0345" not in unicodedata.normalize("NFD", chr(c))
]
LETTERS = "abcxyzABCXYZйцуЙЦУαβγΑΒΓ"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Tokens of one text, by training's own function, which must agree with the one that was saved for serving."""
    folder = str(tmp_path_factory.mktemp("saved"))
    module = tf.Module()
    module.normalize = tf.function(text.normalize, input_signature=[tf.TensorSpec([None], tf.string)])
    tf.saved_model.save(module, folder)
    served = tf.saved_model.load(folder).normalize

    def of(one: str) -> list[str]:
        (found,) = module.normalize(tf.constant([one])).numpy()
        assert [found] == served(tf.constant([one])).numpy().tolist()
        return found.decode().split()

    return of


def digit_runs(one: str) -> list[str]:
    """The numbers that a reader sees, in plain Python: digits that stand together, and the parts of a sign with digits in it."""
    one = "".join(c for c in one if c not in INVISIBLE)
    plain = ""
    for c in one:
        if c.isdecimal():
            plain += str(unicodedata.decimal(c))
        elif unicodedata.category(c) in ("No", "So"):
            plain += f" {unicodedata.normalize('NFKC', c)} "
        else:
            plain += unicodedata.normalize("NFKC", c)
    return re.findall("[0-9]+", re.sub("[0-9][0-9.,]*", without_separators, plain))


@given(
    st.lists(
        st.sampled_from(DIGITS) | st.sampled_from(NUMBER_SIGNS) | st.sampled_from("''’′″.,-/ abÅж跑्ـ️⃣ﹱ") | st.sampled_from(INVISIBLE),
        max_size=30,
    ).map("".join)
)
@example("2½ 1¾ 10³ 5'6 5′6″")
@example("1️⃣2️⃣")
@example("1ﹱ2ـ3")
def test_digits_that_stood_apart_are_never_joined(words, one):
    assert re.findall("[0-9]+", " ".join(words(one))) == digit_runs(one)


@given(st.integers(1, 10**18 - 1), st.sampled_from(["", "$", "a", "(", "x "]), st.sampled_from(["", "mAh", " ", ",", ".", ")", ", 7"]))
def test_thousands_separators_change_nothing(words, number, before, after):
    assert words(f"{before}{number:,}{after}") == words(f"{before}{number}{after}")


@given(st.lists(st.integers(0, 99) | st.integers(1000, 99999), min_size=2, max_size=6))
@example([1, 5])
@example([1, 2, 3])
@example([1, 1000, 2000])
@example([1000, 200, 300])
def test_lists_of_numbers_are_not_one_number(words, numbers):
    assert words(",".join(map(str, numbers))) == [str(n) for n in numbers]


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        ("2½", ["2", "1", "2"]),
        ("2 1/2", ["2", "1", "2"]),
        ("1¾", ["1", "3", "4"]),
        ("10³", ["10", "3"]),
        ("5'6", ["5", "6"]),
        ("1,000", ["1000"]),
        ("1٬000", ["1000"]),
        ("1,000.50", ["1000", "50"]),
        ("0,500", ["0", "500"]),
        ("1,2,000", ["1", "2", "000"]),
        ("2.5", ["2", "5"]),
        ("2,5", ["2", "5"]),
        ("H₂O 5㎡ 5m²", ["h", "2", "o", "5", "m", "2", "5", "m", "2"]),
        ("AB1234", ["ab", "1234"]),
        ("ab 1234", ["ab", "1234"]),
        ("٢٣ २३ ２３ 𝟐𝟑", ["23"] * 4),
    ],
)
def test_numbers(words, one, expected):
    assert words(one) == expected


def without_accents(one: str) -> str:
    """The oracle for letters that decompose: their first code point."""
    return "".join(unicodedata.normalize("NFD", c)[0] for c in one)


@given(st.lists(st.sampled_from(ACCENTED) | st.sampled_from(LETTERS), min_size=1, max_size=10).map("".join))
def test_accents_fold_however_they_are_written(words, one):
    bare = words(without_accents(one))
    assert words(one) == bare
    assert words(unicodedata.normalize("NFD", one)) == bare
    assert all(not unicodedata.combining(c) for token in bare for c in unicodedata.normalize("NFD", token))


@pytest.mark.parametrize(
    "spellings",
    [
        "İSTANBUL istanbul ıstanbul ISTANBUL",
        "كتاب كـــتاب كِتَاب ﻛﺘﺎﺏ",
        "Straße STRASSE strasse STRAẞE",
        "Łódź łódź LODZ",
        "smørrebrød SMØRREBRØD smorrebrod",
        "œuvre Œuvre oeuvre",
        "ærø aero Ǽrø",
        "Đặng dang",
        "ﬁlter ﬁlter filter ＦＩＬＴＥＲ",
        "men's men’s men‘s menʼs men´s men`s men＇s mens mens’",
        "ёлка елка",
        "йога иога",
        "Άλφα αλφα ΑΛΦΑ",
        "ΟΔΟΣ οδος οδοσ",
        "צ'יפס צ׳יפס",
        "Nike® Nike™ nike",
        "ｶﾞ ガ",
        "한 " + unicodedata.normalize("NFD", "한"),
    ],
)
def test_spellings_meet(words, spellings):
    assert len({tuple(words(one)) for one in spellings.split()}) == 1


@pytest.mark.parametrize(
    "one",
    [
        "हिन्दी में किताब",
        "สวัสดีครับ",
        "שָׁלוֹם",
        "বাংলা",
        "தமிழ்",
        "မြန်မာ",
        "ខ្មែរ",
        "ਪੰਜਾਬੀ",
        "آب أب",
    ],
)
def test_marks_that_are_letters_stay(words, one):
    assert words(one) == unicodedata.normalize("NFKC", one).split()


@given(st.text(st.characters(exclude_characters=INVISIBLE, exclude_categories=("Cs", "Cn")), max_size=20), st.data())
def test_what_cannot_be_seen_is_not_there(words, one, data):
    place = data.draw(st.integers(0, len(one)))
    assert words(one[:place] + data.draw(st.sampled_from(INVISIBLE)) + one[place:]) == words(one)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30))
def test_full_width_is_the_same(words, one):
    assume("`" not in one)
    assert words("".join(chr(ord(c) + 0xFEE0) for c in one)) == words(one)


@given(st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=20))
def test_tokens_are_read_as_themselves(words, one):
    once = words(one)
    assert words(" ".join(once)) == once


def test_every_code_point_is_read_as_itself():
    points = [chr(c) for c in range(0x20, 0x30000) if unicodedata.category(chr(c)) not in ("Cs", "Cn", "Co")]
    once = text.normalize(tf.constant(points))
    again = text.normalize(once).numpy()
    assert [p for p, a, b in zip(points, once.numpy(), again, strict=True) if a != b] == []
