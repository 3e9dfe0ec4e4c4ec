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
    present = tf.cast(lengths > 0, lengths.dtype)
    begin = tf.RaggedTensor.from_row_lengths(tf.fill([tf.reduce_sum(present)], "^"), present)
    end = tf.RaggedTensor.from_row_lengths(tf.fill([tf.reduce_sum(present)], "$"), present)
    return tf_text.ngrams(tf.concat([begin, tokens, end], axis=1), 2, reduction_type=tf_text.Reduction.STRING_JOIN)


def trigrams(tokens: tf.RaggedTensor) -> tf.RaggedTensor:
    """[n, (words)] -> [n, (character trigrams)] over "#word#": "#le", "led", "ed#".

    Source: the letter trigrams of the tokeniser published by DPSR's authors; here for every script.
    """
    characters = tf.strings.unicode_split(tf.strings.join(["#", tokens.flat_values, "#"]), "UTF-8")
    grams = tf_text.ngrams(characters, 3, reduction_type=tf_text.Reduction.STRING_JOIN, string_separator="")
    return tf.RaggedTensor.from_row_splits(grams.flat_values, tf.gather(grams.row_splits, tokens.row_splits), validate=False)


GRAINS = {"words": lambda tokens: tokens, "bigrams": bigrams, "trigrams": trigrams}


def grains(texts: tf.Tensor, names: tuple[str, ...]) -> dict[str, tf.RaggedTensor]:
    """[n] raw strings -> the named grains, each [n, (tokens)]. Known names: "words", "bigrams", "trigrams"."""
    tokens = words(normalize(texts))
    return {name: GRAINS[name](tokens) for name in names}
