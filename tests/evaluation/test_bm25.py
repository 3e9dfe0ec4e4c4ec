import gzip
import itertools
import math
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfebr.data.catalogue import Catalogue
from tfebr.data.judgments import QRELS, QUERIES, Judgments
from tfebr.errors import ConfigError, DataError
from tfebr.evaluation.bm25 import BM25
from tfebr.evaluation.judged import evaluate_judged

HOME_DEPOT = Path(__file__).parents[2] / ".." / "shared" / "data" / "homedepot"


def plain_terms(text: str) -> list[str]:
    """Words and numbers without accents; of Chinese and Thai, characters with their marks, and pairs of neighbours."""
    units = []
    for c in re.findall(r"[a-z]+|[0-9]+|[^\sa-z0-9!]", text.lower().replace("ä", "a")):
        if unicodedata.category(c[0])[0] == "M":
            units[-1] += c
        else:
            units.append(c)
    return units + [a + b for a, b in itertools.pairwise(units) if not a.isascii() and not b.isascii()]


def plain_scores(titles: list[str], query: str, k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Lucene's BM25 in plain Python: `sum idf * tf / (tf + k1 (1 - b + b length / mean length))`."""
    documents = [plain_terms(title) for title in titles]
    mean_length = sum(map(len, documents)) / len(documents)
    frequency = Counter(term for document in documents for term in set(document))
    scores = []
    for document in documents:
        score = 0.0
        for term in plain_terms(query):
            idf = math.log(1 + (len(documents) - frequency[term] + 0.5) / (frequency[term] + 0.5))
            tf = document.count(term)
            score += idf * tf / (tf + k1 * (1 - b + b * len(document) / mean_length)) if tf else 0.0
        scores.append(score)
    return scores


TEXT = st.lists(st.sampled_from(["red", "LED", "bulb", "60w", "läufer", "商品目录", "商品x录", "รองเท้า", "a", "!"]), max_size=6).map(
    " ".join
)


@settings(max_examples=60, deadline=None)
@given(titles=st.lists(TEXT, min_size=1, max_size=8), queries=st.lists(TEXT, min_size=1, max_size=3), k=st.integers(1, 10))
def test_equals_lucenes_formula_and_lists_only_what_matches(titles, queries, k):
    ranking = BM25(titles, language=None).rank(queries, k)
    assert ranking.item_rows.shape == (len(queries), k)
    for rows, scores, query in zip(ranking.item_rows.tolist(), ranking.scores.tolist(), queries, strict=True):
        expected = plain_scores(titles, query)
        matching = sorted((s for s in expected if s > 0), reverse=True)[:k]
        found = [row for row in rows if row >= 0]
        assert len(found) == len(matching)
        assert [expected[row] for row in found] == pytest.approx(matching, rel=1e-5)
        assert scores[: len(found)] == pytest.approx(matching, rel=1e-5)


def test_equal_scores_rank_the_lower_row_first():
    ranking = BM25(["blue cup", "red cup", "red cup", "green hat", "red cup"]).rank(["red"], 2)
    assert ranking.item_rows.tolist() == [[1, 2]]


def test_the_language_stems_and_drops_stop_words():
    titles = ["drills for walls", "the table", "Bohrer", "der Tisch"]
    assert BM25(titles).rank(["drill", "the"], 1).item_rows.tolist() == [[0], [-1]]
    assert BM25(titles, language=None).rank(["drill", "the"], 1).item_rows.tolist() == [[-1], [1]]
    assert BM25(titles, language="german").rank(["Bohrern", "der"], 1).item_rows.tolist() == [[2], [-1]]
    # A stop word with an umlaut, which is compared without.
    assert BM25(["Lampe für Bäder", "Bad"], language="german").rank(["für"], 1).item_rows.tolist() == [[-1]]


@pytest.mark.parametrize("query", ["", "   ", "!!! ??", "🛒", "zzzunknown", "x" * 10_000, "\u0000", "the of and"])
def test_a_query_without_a_known_term_has_no_results(query):
    assert BM25(["led bulb", "table"]).rank([query], 3).item_rows.tolist() == [[-1, -1, -1]]


def test_other_forms_of_the_same_characters_match():
    assert BM25(["hat", "café ＬＥＤ"]).rank(["cafe\u0301", "led"], 1).item_rows.tolist() == [[1], [1]]


SPELLINGS = [
    ("跑鞋", "耐克跑步鞋", "Nike跑鞋42码"),
    ("シューズ", "ランニング", "ランニングシューズ 26cm"),
    ("รองเท้า", "เสื้อกันฝน", "รองเท้าวิ่งผู้ชาย"),
    ("운동화", "티셔츠", "여성운동화"),
    ("ab 1234", "ab 99", "Bosch AB1234"),
    ("AB1234", "AB 99", "bosch ab-1234"),
    ("headphones", "telephones", "wireless head\u00adphones"),
    ("1/2 pipe", "2 pipe", "½ pipe"),
    ("1000 lumen", "100 lumen", "1,000 lumen"),
    ("mens boot", "women's boot", "men’s boot"),
    ("60w", "60", "60 W"),
]


@pytest.mark.parametrize(("query", "other", "wanted"), SPELLINGS)
def test_what_the_models_can_read_it_reads_too(query, other, wanted):
    """A baseline that loses by how it cuts text says nothing of a model."""
    assert BM25(["unrelated thing", other, wanted]).rank([query], 1).item_rows.tolist() == [[2]]


def test_pairs_of_characters_are_of_one_text():
    """The last character of one text and the first of the next are no neighbours."""
    ranking = BM25(["鞋跑", "跑鞋", "跑", "鞋"], language=None).rank(["跑鞋"], 4)
    assert ranking.item_rows[0, 0] == 1
    assert sorted(ranking.item_rows[0].tolist()) == [0, 1, 2, 3]


def test_titles_without_any_term_are_never_results():
    assert BM25(["", "!", "a"]).rank(["a", ""], 2).item_rows.tolist() == [[-1, -1], [-1, -1]]


def test_no_queries_give_an_empty_ranking():
    assert BM25(["led bulb"]).rank([], 4).item_rows.shape == (0, 4)


def test_it_is_quiet(capfd):
    BM25(["led bulb"] * 50).rank(["led"] * 50, 3)
    assert capfd.readouterr() == ("", "")


def test_impossible_settings_are_refused():
    for language in ("klingon", "basque"):
        with pytest.raises(ConfigError, match=f"`language` .*'{language}'"):
            BM25(["led bulb"], language=language)
    with pytest.raises(DataError, match="at least one title"):
        BM25([])
    with pytest.raises(ConfigError, match="`k` must be a whole number of at least 1"):
        BM25(["led bulb"]).rank(["led"], 0)


def columns_of(name: str) -> list[list[str]]:
    with gzip.open(HOME_DEPOT / name, "rt", encoding="utf-8", newline="") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    return [list(column) for column in zip(*rows[1:], strict=True)]


@pytest.mark.skipif(not HOME_DEPOT.is_dir(), reason="the Home Depot files are not at ../shared/data/homedepot")
def test_home_depot_is_not_below_the_reference_figures():
    """Those of bm25s with its own tokens and stop words; these tokens are better."""
    item_ids, titles = columns_of("products.tsv.gz")
    query_ids, item_of, relevance, _ = columns_of("qrels.tsv.gz")
    qrels = pa.table([query_ids, item_of, np.array(relevance, np.float64)], schema=QRELS)
    test = Judgments(pa.table(columns_of("queries.tsv.gz"), schema=QUERIES), qrels, relevant_from=2.5).split("test")
    ranking = BM25(titles).rank(test.queries["query"].to_pylist(), 100)
    means = evaluate_judged(ranking, test, Catalogue(pa.table({"item_id": item_ids, "title": titles}))).means()
    reference = {"recall@10": 0.446, "recall@100": 0.757, "mrr@10": 0.379}
    assert {name: means[name] >= value for name, value in reference.items()} == dict.fromkeys(reference, True), means
