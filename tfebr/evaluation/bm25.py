"""The term-match baseline: BM25 over item texts, cut into the tokens that the models read, with stemming."""

import itertools
import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import Stemmer
import tensorflow as tf

from tfebr.data import text
from tfebr.errors import ConfigError, DataError
from tfebr.evaluation.ranking import Ranking, ordering_keys
from tfebr.infrastructure.checks import check_number

# The library lowers its logger to DEBUG when it is imported; what the program has set for it is to stay.
_logger = logging.getLogger("bm25s")
_level = _logger.level
import bm25s  # noqa: E402

_logger.setLevel(_level)

_TEXTS_AT_ONCE = 8192
# Scripts that put no space between words, or, as Korean, join to a word what others put beside it.
_UNSPACED = r"([\p{Han}\p{Hiragana}\p{Katakana}ー\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*)"
# Before each of their characters; no token has it.
_MARK = "\1"


class BM25:
    """BM25 in Lucene's form with bm25s' defaults, k1 = 1.5 and b = 0.75, over the tokens of `tfebr.data.text.normalize`.

    Stop words are dropped and the others stemmed. Text in a script without spaces between words (Chinese, Japanese, Thai, ...) and Korean
    is searched by its characters and by pairs of neighbours, as Lucene's analyser for them does.

    Args:
        titles: `[items]` text of each catalogue row; other fields are searched too when they are joined to it.
        language: language of the stop words that are dropped and of the Snowball stemmer; None keeps every word as it is.

    Raises:
        ConfigError: there is no stemmer or no stop word list for the language.
        DataError: there are no titles.

    Source: Lu, "BM25S: Orders of magnitude faster lexical search via eager sparse scoring", arXiv 2407.03618.
    """

    def __init__(self, titles: Sequence[str], language: str | None = "english"):
        if not len(titles):
            raise DataError("BM25 needs at least one title.")
        if language is not None and language not in Stemmer.algorithms():
            raise ConfigError(f"`language` must be one of {', '.join(Stemmer.algorithms())} or None. Received: {language!r}.")
        self._stemmer = Stemmer.Stemmer(language) if language else None
        self._stop_words = _stop_words(language) if language else pa.array([], pa.string())
        terms, rows = self._terms(titles)
        self._index = None
        if len(terms):
            encoded = terms.dictionary_encode()
            vocabulary = {term: number for number, term in enumerate(encoded.dictionary.to_pylist())}
            documents = np.split(encoded.indices.to_numpy(), np.searchsorted(rows, np.arange(1, len(titles))))
            self._index = bm25s.BM25()
            self._index.index(([document.tolist() for document in documents], vocabulary), show_progress=False)

    def rank(self, queries: Sequence[str], k: int) -> Ranking:
        """The k best items of each query; an item that shares no term with the query is no result. Equal scores rank the lower row first.

        Raises:
            ConfigError: `k` is not positive.
        """
        check_number("k", k, "[1, inf)", whole=True)
        terms, query = self._terms(queries)
        bounds = np.searchsorted(query, np.arange(len(queries) + 1))
        of_query = (terms.slice(start, end - start).to_pylist() for start, end in itertools.pairwise(bounds))
        parts = [Ranking.from_keys(self._keys(one)[None], k) for one in of_query]
        rows = [np.empty((0, k), np.int64), *(part.item_rows for part in parts)]
        return Ranking(np.concatenate(rows), np.concatenate([np.empty((0, k), np.float32), *(part.scores for part in parts)]))

    def _keys(self, terms: list[str]) -> np.ndarray:
        if self._index is None:
            return np.empty(0, np.int64)
        scores = self._index.get_scores_from_ids(self._index.get_tokens_ids(terms))
        rows = np.flatnonzero(scores > 0)
        return ordering_keys(scores[rows], rows)

    def _terms(self, texts: Sequence[str]) -> tuple[pa.Array, np.ndarray]:
        """Every term of the texts, and which text has it, in order of the texts."""
        found = [self._terms_of(texts[start : start + _TEXTS_AT_ONCE]) for start in range(0, len(texts), _TEXTS_AT_ONCE)]
        rows = [np.empty(0, np.int64), *(of + block * _TEXTS_AT_ONCE for block, (_, of) in enumerate(found))]
        return pa.chunked_array([terms for terms, _ in found], pa.string()).combine_chunks(), np.concatenate(rows)

    def _terms_of(self, texts: Sequence[str]) -> tuple[pa.Array, np.ndarray]:
        tokens = _tokens(tf.constant(texts, tf.string))
        rows = np.repeat(np.arange(len(texts)), tokens.row_lengths().numpy())
        encoded = pa.array(tokens.flat_values.numpy(), pa.binary()).cast(pa.string()).dictionary_encode()
        words, codes = encoded.dictionary, encoded.indices.to_numpy()
        unspaced = pc.starts_with(words, _MARK).to_numpy(zero_copy_only=False)[codes]
        plain = pc.replace_substring(words, _MARK, "")
        kept = pc.invert(pc.is_in(plain, self._stop_words)).to_numpy(zero_copy_only=False)[codes]
        pair = np.flatnonzero(unspaced[:-1] & unspaced[1:] & (rows[:-1] == rows[1:]))
        pairs = pc.binary_join_element_wise(plain.take(pa.array(codes[pair])), plain.take(pa.array(codes[pair + 1])), "")
        if self._stemmer:
            plain = pa.array(self._stemmer.stemWords(plain.to_pylist()), pa.string())
        terms, of = pa.concat_arrays([plain.take(pa.array(codes[kept])), pairs]), np.concatenate([rows[kept], rows[pair]])
        order = np.argsort(of, kind="stable")
        return terms.take(pa.array(order)), of[order]


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def _tokens(texts: tf.Tensor) -> tf.RaggedTensor:
    return text.words(tf.strings.regex_replace(text.normalize(texts), _UNSPACED, rf" {_MARK}\1 "))


def _stop_words(language: str) -> pa.Array:
    """As they are after normalisation, like the words that they are compared with."""
    try:
        listed = bm25s.tokenization.Tokenizer(stopwords=language).stopwords
    except ValueError as error:
        raise ConfigError(f"`language` = {language!r}: {error}. Use None for text without stop words and stemming.") from None
    return pa.array(text.normalize(tf.constant(listed)).numpy(), pa.binary()).cast(pa.string())
