"""Text to grains inside the TensorFlow graph: the same tokens for queries and titles, in training and in serving."""

import tensorflow as tf
import tensorflow_text as tf_text

from tfebr.data.folding import folded

# How much of a text is read: far beyond any title, and a bound on the work that a hostile query can cause.
MAX_CHARACTERS = 512


# What runs hold that were learned from text read in another way: raise it with every change of the tokens.
VERSION = 2

# Not seen: soft hyphen, zero-width characters, marks of direction, joiners, variation selectors, fillers.
_INVISIBLE = (
    r"[\x{AD}\x{34F}\x{61C}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}\x{200B}-\x{200F}\x{202A}-\x{202E}"
    r"\x{2060}-\x{206F}\x{3164}\x{FE00}-\x{FE0F}\x{FEFF}\x{FFA0}\x{E0000}-\x{E0FFF}]+"
)
# Letters to Unicode, apostrophes to who types them; then the apostrophes, primes, accents and quotes that stand for one.
_LETTER_APOSTROPHES = r"\x{2B9}\x{2BB}-\x{2BD}\x{A78C}"
_APOSTROPHES = rf"['`\x{{B4}}\x{{5F3}}\x{{2018}}\x{{2019}}\x{{201B}}\x{{2032}}\x{{FF07}}{_LETTER_APOSTROPHES}]"
# A whole run of digits, points and commas is matched: either a number with its thousands apart and perhaps a decimal part, or any other.
_THOUSANDS = (
    r"([1-9][0-9]{0,2})[,\x{66C}]([0-9]{3})"
    + r"(?:[,\x{66C}]([0-9]{3}))?" * 4
    + r"((?:\.[0-9]+)?[.,\x{66C}]*(?:[^0-9.,\x{66C}]|$))"
    + r"|([0-9][0-9.,\x{66C}]*)"
)
# Marks of letters that were folded, or of no letter at all; Arabic's stretching stroke and its vowel signs, which are rarely written.
_LOOSE_MARKS = r"(^|[\p{Latin}\p{Greek}\p{Cyrillic}]|[^\p{L}\p{M}])\p{M}+|[\x{640}\x{64B}-\x{652}\x{670}]+"


def normalize(texts: tf.Tensor) -> tf.Tensor:
    """[n] strings in any case and script -> [n] tokens joined by single spaces.

    Two spellings of one thing meet: NFKC and case folding ("ＬＥＤ" is "led", "STRASSE" is "straße"); letters of Latin, Greek and Cyrillic
    without accents and strokes ("Łódź" is "lodz", "İ" and "ı" are "i", "й" is "и"), while the marks of other scripts, which are letters
    there, stay; Arabic without tatweel and vowel signs; æ, œ and þ as two letters; an apostrophe before a letter is left out ("men's" is
    "mens"); invisible characters and ™, ®, ©, ℠ are not there; invalid UTF-8 is replaced.

    Numbers: digits of every script are 0 to 9 and part from letters ("12oz" is "12 oz"). Digits that stood apart are never joined
    ("2½" is "2 1 2" as "2 1/2" is, "10³" is "10 3", "5'6" is "5 6"), save the groups of three of a number with thousands separators:
    "1,000" is "1000". "2.5" and "2,5" are both "2 5": whether a comma lists or divides cannot be told.

    Each Han character and each pictograph is a token of its own, as in the tokeniser that DPSR's authors published; all else separates.
    """
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace", replacement_char=32)
    texts = tf.strings.substr(texts, 0, MAX_CHARACTERS, unit="UTF8_CHAR")
    texts = tf.strings.regex_replace(texts, _INVISIBLE, "")
    texts = tf.strings.regex_replace(texts, _APOSTROPHES + r"+(\p{L})", r"\1")
    # NFKC makes digits of these, and letters of trade marks.
    texts = tf.strings.regex_replace(texts, r"[™®©℠]|([\p{No}\p{Nl}\p{So}])", r" \1 ")
    texts = folded(tf_text.case_fold_utf8(tf_text.normalize_utf8(texts, "NFKC")))
    for ligature, letters in (("æ", "ae"), ("œ", "oe"), ("þ", "th")):
        texts = tf.strings.regex_replace(texts, ligature, letters)
    texts = tf.strings.regex_replace(texts, _THOUSANDS, r"\1\2\3\4\5\6\7\8")
    texts = tf.strings.regex_replace(texts, r"(\p{Han}|\p{So}|\p{N}+)", r" \1 ")
    texts = tf.strings.regex_replace(texts, _LOOSE_MARKS, r"\1")
    texts = tf.strings.regex_replace(texts, rf"(?:[^\p{{L}}\p{{M}}\p{{N}}\p{{So}}]|[{_LETTER_APOSTROPHES}])+", " ")
    return tf.strings.strip(texts)


def words(normalized: tf.Tensor) -> tf.RaggedTensor:
    """[n] normalised texts -> [n, (words)]. For Chinese text these are the single characters."""
    return tf.strings.split(normalized)


def bigrams(tokens: tf.RaggedTensor) -> tf.RaggedTensor:
    """[n, (words)] -> [n, (bigrams)] of neighbours with begin and end marks: "^ led", "led bulb", "bulb $"; none for an empty text.

    For Chinese text these are the character pairs. Source: the bigram op of the tokeniser published by DPSR's authors.
    """
    lengths = tokens.row_lengths()
    # Without the empty texts, which would have marks, too.
    filled, _ = tf.unique(tokens.row_splits)
    grams = _ngrams(tokens.flat_values, filled, 2, separator=" ", left_pad="^", right_pad="$", pad_width=1).ngrams
    return tf.RaggedTensor.from_row_lengths(grams, tf.where(lengths > 0, lengths + 1, 0), validate=False)


def trigrams(tokens: tf.RaggedTensor) -> tf.RaggedTensor:
    """[n, (words)] -> [n, (character trigrams)] over "#word#": "#le", "led", "ed#".

    Source: the letter trigrams of the tokeniser published by DPSR's authors; here for every script.
    """
    marked = tf.strings.join(["#", tokens.flat_values, "#"])
    points = tf.raw_ops.UnicodeDecode(input=marked, input_encoding="UTF-8")
    single = tf.range(tf.size(points.char_values, tf.int64) + 1)
    characters = tf.raw_ops.UnicodeEncode(input_values=points.char_values, input_splits=single, output_encoding="UTF-8")
    grams = _ngrams(characters, points.row_splits, 3, separator="", left_pad="", right_pad="", pad_width=0)
    return tf.RaggedTensor.from_row_splits(grams.ngrams, tf.gather(grams.ngrams_splits, tokens.row_splits), validate=False)


def _ngrams(values: tf.Tensor, splits: tf.Tensor, width: int, **marks: str | int):
    """N-grams of ragged rows and where each row's begin. The operation itself: ragged helpers put a hundred nodes of checks around it."""
    return tf.raw_ops.StringNGrams(data=values, data_splits=splits, ngram_widths=[width], preserve_short_sequences=False, **marks)


GRAINS = {"words": lambda tokens: tokens, "bigrams": bigrams, "trigrams": trigrams}


def grains(texts: tf.Tensor, names: tuple[str, ...]) -> dict[str, tf.RaggedTensor]:
    """[n] raw strings -> the named grains, each [n, (tokens)]. Known names: "words", "bigrams", "trigrams"."""
    tokens = words(normalize(texts))
    return {name: GRAINS[name](tokens) for name in names}
