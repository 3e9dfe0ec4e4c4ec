"""Chorus: Icecat products as JSON lines and graded judgments."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tfebr.data.readers import prepare
from tfebr.errors import DataError

REAL = Path(__file__).parents[4] / "shared" / "data" / "chorus_icecat"
PRODUCTS = [
    {"id": "1", "title": "Xerox toner", "supplier": "Xerox", "price": 4995, "attr_t_type": "Original", "attr_t_product_type": "Toner"},
    {"id": 2, "title": "Pavilion Ü", "price": 10995.5, "attr_t_type": "Notebook", "attr_b_wifi": True},
    {"id": "3", "title": "Cable", "supplier": None, "price": 0},
]
QUERIES = "query_id\tquery\nc1\ttoner\nc2\tnotebook\n"
QRELS = "query_id\tproduct_id\trelevance\nc1\t1\t3\nc1\t2\t0\nc2\t2\t2\n"


def download(folder: Path, products=PRODUCTS, queries=QUERIES, qrels=QRELS) -> Path:
    folder.mkdir()
    text = products if isinstance(products, str) else "\n".join(json.dumps(p, ensure_ascii=False) for p in products) + "\n\n"
    for name, content in (("products.jsonl", text), ("queries.tsv", queries), ("qrels.tsv", qrels)):
        (folder / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    return folder


def test_products_and_judgments(tmp_path):
    data = prepare("chorus", download(tmp_path / "in"), tmp_path / "out", quiet=True)
    assert data.catalogue().table.to_pydict() == {
        "item_id": ["1", "2", "3"],
        "title": ["Xerox toner", "Pavilion Ü", "Cable"],
        "brand": ["Xerox", "", ""],
        "category": ["Toner", "Notebook", ""],
        "price": [4995.0, 10995.5, 0.0],
    }
    assert not data.has_log
    judgments = data.judgments()
    assert judgments.queries["split"].to_pylist() == ["test", "test"]
    assert judgments.qrels["relevance"].to_pylist() == [3.0, 0.0, 2.0]
    assert judgments.relevant_from == 2.0


@pytest.mark.parametrize("price", [{}, {"price": None}])
def test_a_product_may_have_no_price(tmp_path, price):
    data = prepare("chorus", download(tmp_path / "in", [*PRODUCTS, {"id": "4", "title": "Unpriced"} | price]), tmp_path / "out", quiet=True)
    assert np.array_equal(data.catalogue().table["price"].to_numpy(), [4995.0, 10995.5, 0.0, np.nan], equal_nan=True)
    notes = json.loads((tmp_path / "out" / "about.json").read_text())["notes"]
    assert notes == ["catalogue: column `price`: 1 items have no number there; a filter by a range leaves them out"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "9", "title": "half', "line 2: not JSON"),
        ('["9", "list"]', "line 2: expected a JSON object"),
        ('{"title": "no id"}', "line 2, field `id`: expected a text. Received: None"),
        ('{"id": "9"}', "line 2, field `title`: expected a text"),
        ('{"id": "", "title": "x"}', "line 2, column `id`: empty"),
        ('{"id": "1", "title": "x"}', "line 2, column `id`: '1' repeats line 1"),
        ('{"id": "9", "title": "x", "price": NaN}', "line 2, field `price`: not a finite number: nan"),
        ('{"id": "9", "title": "x", "price": "12 EUR"}', "line 2, field `price`: not a finite number: '12 EUR'"),
    ],
)
def test_bad_products_are_named(tmp_path, line, words):
    text = json.dumps(PRODUCTS[0]) + "\n" + line + "\n"
    with pytest.raises(DataError) as caught:
        prepare("chorus", download(tmp_path / "in", text), tmp_path / "out", quiet=True)
    assert f"products.jsonl.gz: {words}" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("grade", ["4", "-1", "nan", ""])
def test_bad_grades_are_named(tmp_path, grade):
    with pytest.raises(DataError, match=r"qrels\.tsv\.gz: line 2, column `relevance`.*from 0 to 3"):
        prepare(
            "chorus", download(tmp_path / "in", qrels=f"query_id\tproduct_id\trelevance\nc1\t1\t{grade}\n"), tmp_path / "out", quiet=True
        )


def test_no_products_are_refused(tmp_path):
    with pytest.raises(DataError, match="the catalogue is empty"):
        prepare("chorus", download(tmp_path / "in", ""), tmp_path / "out", quiet=True)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the Chorus files in ../shared/data/chorus_icecat")
def test_the_real_set(tmp_path):
    data = prepare("chorus", REAL, tmp_path / "out", quiet=True)
    judgments = data.judgments()
    assert (len(data.catalogue()), judgments.queries.num_rows, judgments.qrels.num_rows) == (19_406, 74, 1_812)
    assert data.catalogue().number_columns == ["price"]
    assert sum(judgments.qrels["relevance"].to_numpy() >= judgments.relevant_from) == 878 + 68
