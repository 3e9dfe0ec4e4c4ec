"""The term-match baseline: BM25 over item texts, with stemming."""

import logging
import unicodedata

import bm25s
import numpy as np
import Stemmer

from tfebr.errors import ConfigError, DataError
from tfebr.evaluation.ranking import Ranking, ordering_keys

# The library lowers its logger to DEBUG when it is imported.
logging.getLogger("bm25s").setLevel(logging.WARNING)


class BM25:
    """BM25 in Lucene's form with bm25s' defaults, k1 = 1.5 and b = 0.75; terms are runs of two or more word characters, lower case.

    Text is brought to Unicode form NFKC first. Scripts without spaces are not cut into words.

    Args:
        titles: `[items]` text of each catalogue row; other fields are searched too when they are joined to it.
        language: language of the stop words that are dropped and of the Snowball stemmer; None keeps every word as it is.

    Raises:
        ConfigError: there is no stemmer or no stop word list for the language.
        DataError: there are no titles.

    Source: Lu, "BM25S: Orders of magnitude faster lexical search via eager sparse scoring", arXiv 2407.03618.
    """

    def __init__(self, titles: list[str], language: str | None = "english"):
        if not len(titles):
            raise DataError("BM25 needs at least one title.")
        if language is not None and language not in Stemmer.algorithms():
            raise ConfigError(
                f"`language` should be one of {', '.join(Stemmer.algorithms())} or None. Received: `language` = {language!r}."
            )
        self._stemmer = Stemmer.Stemmer(language) if language else None
        self._stop_words = language
        terms = self._terms(titles)
        self._index = None
        if any(terms):
            self._index = bm25s.BM25()
            self._index.index(terms, show_progress=False)

    def rank(self, queries: list[str], k: int) -> Ranking:
        """The k best items of each query; an item that shares no term with the query is no result. Equal scores rank the lower row first.

        Raises:
            ConfigError: `k` is not positive.
        """
        if k < 1:
            raise ConfigError(f"`k` should be a positive integer. Received: `k` = {k}.")
        parts = [Ranking.from_keys(self._keys(terms)[None], k) for terms in self._terms(queries)]
        rows = [np.empty((0, k), np.int64), *(part.item_rows for part in parts)]
        return Ranking(np.concatenate(rows), np.concatenate([np.empty((0, k), np.float32), *(part.scores for part in parts)]))

    def _keys(self, terms: list[str]) -> np.ndarray:
        if self._index is None:
            return np.empty(0, np.int64)
        scores = self._index.get_scores_from_ids(self._index.get_tokens_ids(terms))
        rows = np.flatnonzero(scores > 0)
        return ordering_keys(scores[rows], rows)

    def _terms(self, texts: list[str]) -> list[list[str]]:
        texts = [unicodedata.normalize("NFKC", text) for text in texts]
        try:
            return bm25s.tokenize(texts, stopwords=self._stop_words, stemmer=self._stemmer, return_ids=False, show_progress=False)
        except ValueError as error:
            raise ConfigError(f"`language` = {self._stop_words!r}: {error}. Use None for text without stop words and stemming.") from None
