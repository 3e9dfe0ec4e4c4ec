"""Text to grains inside the TensorFlow graph: the same tokens for queries and titles, in training and in serving."""

import tensorflow as tf
import tensorflow_text as tf_text

# How much of a text is read: far beyond any title, and a bound on the work that a hostile query can cause.
MAX_CHARACTERS = 512


def normalize(texts: tf.Tensor) -> tf.Tensor:
    """[n] strings in any case and script -> [n] tokens joined by single spaces.

    NFKC and case folding ("ＬＥＤ" and "led" are one); invalid UTF-8 is replaced; digits part from letters ("12oz" -> "12 oz"); each Han
    character and each pictograph is a token of its own, as in the tokeniser that DPSR's authors published; other punctuation separates.
    """
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace", replacement_char=32)
    texts = tf.strings.substr(texts, 0, MAX_CHARACTERS, unit="UTF8_CHAR")
    texts = tf_text.case_fold_utf8(tf_text.normalize_utf8(texts, "NFKC"))
    texts = tf.strings.regex_replace(texts, r"['’`]", "")
    texts = tf.strings.regex_replace(texts, r"(\p{Han}|\p{So}|\p{N}+)", r" \1 ")
    texts = tf.strings.regex_replace(texts, r"[^\p{L}\p{M}\p{N}\p{So}]+", " ")
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
