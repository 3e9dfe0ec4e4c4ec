"""Home Depot Product Search Relevance (Kaggle, 2016): a judged set of home improvement products, without users."""

import hashlib
from pathlib import Path

import pyarrow as pa

from tfebr.data.catalogue import Catalogue
from tfebr.data.judgments import QRELS, QUERIES, Judgments
from tfebr.data.readers.judged_tables import read_judgments
from tfebr.data.readers.reader import Prepared, Reader, missing_files
from tfebr.data.readers.rows import check_new, find, number, rows
from tfebr.errors import DataError
from tfebr.infrastructure.progress import progress

RELEVANT_FROM = 2.5
_GRADES = (1.0, 3.0)
_TITLE = "Home Depot Product Search Relevance"
_FILES = (
    "Kaggle's train.csv (optionally with attributes.csv beside it), from the competition `home-depot-product-search-relevance` on "
    "kaggle.com, or from a folder with products.tsv.gz, queries.tsv.gz and qrels.tsv.gz made from its labelled part."
)


def read(path: Path, quiet: bool = False) -> Prepared:
    """Reads a folder with `products.tsv`, `queries.tsv`, `qrels.tsv`, or Kaggle's `train.csv` (each also as .gz or .zip).

    Kaggle's file has no splits: `split_of` divides its queries. Repeated judgments of a pair are averaged. With `attributes.csv` in the
    folder the catalogue gets a `brand`, "" where the file names none.
    """
    folder = path if path.is_dir() else path.parent
    tables = [find(path, name) for name in ("products.tsv", "queries.tsv", "qrels.tsv")]
    train = path if path.is_file() else find(path, "train.csv")
    with progress("reading Home Depot", None, "rows", quiet) as advance:
        if tables[0] and tables[1] and tables[2]:
            titles = _read_titles(tables[0])
            judgments = read_judgments(tables[1], tables[2], "product_uid", titles, _GRADES, RELEVANT_FROM)
            notes: tuple[str, ...] = ()
        elif train:
            titles, judgments = _read_train(train)
            notes = ("queries were split 80/10/10 into train, dev and test by a hash of their text",)
        else:
            raise missing_files(path, _TITLE, _FILES)
        advance(len(titles) + judgments.qrels.num_rows)
        columns = {"item_id": list(titles), "title": list(titles.values())}
        attributes = find(folder, "attributes.csv")
        if attributes:
            brands = _read_brands(attributes)
            columns["brand"] = [brands.get(i, "") for i in titles]
    return Prepared(Catalogue(pa.table(columns), str(path)), judgments, notes=notes)


def split_of(query: str) -> str:
    """The split of a query by its text alone: 80 % train, 10 % dev, 10 % test; letter case and spacing make no difference."""
    key = " ".join(query.casefold().split())
    tenth = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 10
    return "train" if tenth < 8 else "dev" if tenth == 8 else "test"


def _read_titles(path: Path) -> dict[str, str]:
    titles: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, (uid, title) in rows(path, ("product_uid", "product_title")):
        check_new(uid, lines, "product_uid", path, line)
        titles[uid] = title
    if not titles:
        raise DataError(f"{path}: no product after the header. Download the file again.")
    return titles


def _read_train(path: Path) -> tuple[dict[str, str], Judgments]:
    titles: dict[str, str] = {}
    grades: dict[str, dict[str, list[float]]] = {}
    # Kaggle's file is Latin-1.
    for line, (uid, title, term, grade) in rows(path, ("product_uid", "product_title", "search_term", "relevance"), "latin-1"):
        query = " ".join(term.split())
        for column, value in (("product_uid", uid), ("search_term", query)):
            if not value:
                raise DataError(f"{path}: line {line}, column `{column}`: empty. Remove the line.")
        titles.setdefault(uid, title)
        grades.setdefault(query, {}).setdefault(uid, []).append(number(grade, "relevance", *_GRADES, path, line))
    if not grades:
        raise DataError(f"{path}: no row after the header. Download the file again.")

    ids = {query: f"HD{n:05d}" for n, query in enumerate(grades)}
    qrels = [(ids[query], uid, sum(g) / len(g)) for query, judged in grades.items() for uid, g in judged.items()]
    return titles, Judgments(
        pa.table([list(ids.values()), list(ids), [split_of(q) for q in ids]], schema=QUERIES),
        pa.table([list(column) for column in zip(*qrels, strict=True)], schema=QRELS),
        RELEVANT_FROM,
    )


def _read_brands(path: Path) -> dict[str, str]:
    brands: dict[str, str] = {}
    for _, (uid, name, value) in rows(path, ("product_uid", "name", "value"), "latin-1"):
        # Kaggle's file has rows in which every field is empty.
        if uid and name == "MFG Brand Name":
            brands.setdefault(uid, value)
    return brands


READER = Reader(_TITLE, "Kaggle competition rules: no redistribution; see the competition's page.", _FILES, read)
