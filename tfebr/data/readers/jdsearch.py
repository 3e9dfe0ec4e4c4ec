"""JDsearch (Liu et al., SIGIR 2023): real searches at JD.com with shown products up to the purchase, and a year of each user's history."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tfebr.data.readers.jdsearch_products import read_products
from tfebr.data.readers.reader import Prepared, Reader, missing_files
from tfebr.data.readers.request_rows import Request, request_batches
from tfebr.data.readers.rows import bare_rows, find, number
from tfebr.data.readers.time_order import in_order_of_time
from tfebr.data.stage import Stage
from tfebr.errors import DataError
from tfebr.infrastructure.progress import progress

# Midnight (UTC) of the day on which every user's last search was made, 2022-10-17, as users of the full set report.
LAST_SEARCH = 1_665_964_800
_COLUMNS = (
    "query",
    "candidate_wid_list",
    "candidate_label_list",
    "history_qry_list",
    "history_wid_list",
    "history_type_list",
    "history_time_list",
)
_LABELS = {"0.0": Stage.UNCLICKED, "1.0": Stage.CLICKED, "2.0": Stage.CARTED, "3.0": Stage.ORDERED}
# A follow puts a product on a list of favourites: more than a click, but not a step to the order.
_BEHAVIOURS = {"CLICK": Stage.CLICKED, "FLW": Stage.CLICKED, "CART": Stage.CARTED, "ORD": Stage.ORDERED}
_NO_QUERY = "-1"
_TERMS = "\x18"
_VISIT_SECONDS = 30 * 60
_MOST_SECONDS = 1e9
_IDS_AT_ONCE = 1_000_000
_TITLE = "JDsearch"
_FILES = (
    "user_behavior_data.txt and product_meta_data.txt (or release_data.txt and product_data.txt, or their samples with `_sample` before "
    "the ending; each also as .gz or .zip), from github.com/rucliujn/JDsearch."
)
_NAMES = ("user_behavior_data.txt", "release_data.txt", "user_behavior_data_sample.txt", "release_data_sample.txt")
_NOTES = (
    "candidates are in a drawn order: the files list those with a label first, so the true positions are not known",
    f"the files have gaps of time alone: every user's last search is put at {LAST_SEARCH}, the history before it",
    "every user's last search has a request id that ends in `-last`; a test share of at most theirs holds out exactly these",
    "a query-less behaviour is a request with the query ''; a follow counts as a click",
    "texts are term ids, to be read by words (and bigrams), not by character trigrams",
)


def read(path: Path, quiet: bool = False) -> Prepared:
    """Reads a folder with both files, or the file of behaviours with the products beside it.

    A row of the file is one user: the last search, the products shown there, and all behaviours of the year before. It becomes
    requests of that user, so that the log has one form for all sources and histories are built from it as always:

    - The last search is a request at `LAST_SEARCH` with all candidates and their labels as stages. The files list labelled candidates
      first, which would tell the label by the position: they are shuffled, always in the same way.
    - Behaviours in a row with one query (or none), not more than half an hour apart, are one request with the products touched, each with
      its highest stage, in order of first touch. It is put as far before the last search as the gaps say, at its first behaviour.

    Terms (joined by character 0x18) are separated by spaces. Products without metadata have the title "". The behaviours are read twice
    as a stream and sorted on disk; the products are held in memory.
    """
    folder = path if path.is_dir() else path.parent
    source = path if path.is_file() else find(path, *_NAMES)
    products = find(folder, *(n.replace("user_behavior", "product_meta").replace("release", "product") for n in _NAMES))
    if source is None or products is None:
        raise missing_files(path, _TITLE, _FILES)
    catalogue, notes = read_products(products, _products_touched(source, quiet), quiet)
    log = in_order_of_time(request_batches(_requests(source, quiet)))
    return Prepared(catalogue, log=log, notes=_NOTES + notes)


def _products_touched(path: Path, quiet: bool) -> Iterator[pa.Array]:
    """Product ids of candidates and histories, in chunks without repetitions."""
    ids: list[str] = []
    users = 0
    with progress("reading JDsearch", None, "users", quiet) as advance:
        for line, values in bare_rows(path, _COLUMNS):
            for column in ("candidate_wid_list", "history_wid_list"):
                found = _list(values[_COLUMNS.index(column)])
                if "" in found:
                    raise DataError(f"{path}: line {line}, column `{column}`: an empty product id. Repair the line.")
                ids += found
            if len(ids) >= _IDS_AT_ONCE:
                yield pa.array(ids, pa.string()).unique()
                ids = []
            users += 1
            advance(1)
    if not users:
        raise DataError(f"{path}: no user after the header. Download the file again.")
    yield pa.array(ids, pa.string()).unique()


def _requests(path: Path, quiet: bool) -> Iterator[Request]:
    with progress("sorting JDsearch", None, "users", quiet) as advance:
        for number_of_user, (line, values) in enumerate(bare_rows(path, _COLUMNS)):
            yield from _requests_of(number_of_user, _Row(path, line, dict(zip(_COLUMNS, values, strict=True))))
            advance(1)


class _Row:
    """One line of the file; what is wrong in it is named."""

    def __init__(self, path: Path, line: int, values: dict[str, str]):
        self.path, self.line, self.values = path, line, values

    def entries(self, column: str, count: int | None = None) -> list[str]:
        found = _list(self.values[column])
        if count is not None and len(found) != count:
            raise DataError(
                f"{self.path}: line {self.line}, column `{column}`: {len(found)} entries instead of {count}. "
                "Repair the line or download the file again."
            )
        return found

    def stages(self, column: str, count: int, known: dict[str, Stage]) -> list[Stage]:
        found = self.entries(column, count)
        try:
            return [known[label] for label in found]
        except KeyError as error:
            label = error.args[0]
            raise DataError(
                f"{self.path}: line {self.line}, column `{column}`: unknown label {label!r}. Known labels: {', '.join(known)}."
            ) from None

    def seconds(self, column: str, count: int) -> list[int]:
        return [int(number(text, column, 0, _MOST_SECONDS, self.path, self.line)) for text in self.entries(column, count)]


def _requests_of(user: int, row: _Row) -> Iterator[Request]:
    """The visits of a user's history, oldest first, then the last search."""
    user_id = f"JD{user:06d}"
    products = row.entries("history_wid_list")
    stages = row.stages("history_type_list", len(products), _BEHAVIOURS)
    queries = row.entries("history_qry_list", len(products))
    # The first gap is that before the first behaviour, the last one that before the last search.
    gaps = row.seconds("history_time_list", len(products) + 1)
    time, visit, last_query = LAST_SEARCH - sum(gaps), 0, None
    request: Request | None = None
    for product, stage, query, gap in zip(products, stages, queries, gaps[:-1], strict=True):
        time += gap
        if request is None or query != last_query or gap > _VISIT_SECONDS:
            if request is not None:
                yield request
            request = Request(f"{user_id}-{visit:04d}", time, user_id, "" if query == _NO_QUERY else _text(query), {})
            visit, last_query = visit + 1, query
        _touch(request.shown, product, stage)
    if request is not None:
        yield request

    candidates = row.entries("candidate_wid_list")
    labels = row.stages("candidate_label_list", len(candidates), _LABELS)
    shown: dict[str, int] = {}
    for place in np.random.default_rng(user).permutation(len(candidates)):
        _touch(shown, candidates[place], labels[place])
    yield Request(f"{user_id}-last", LAST_SEARCH, user_id, _text(row.values["query"]), shown)


def _touch(shown: dict[str, int], product: str, stage: Stage) -> None:
    shown[product] = max(shown.get(product, stage), stage)


def _list(text: str) -> list[str]:
    return text.split("_") if text else []


def _text(terms: str) -> str:
    return terms.replace(_TERMS, " ")


READER = Reader(_TITLE, "CC BY-NC-SA 4.0: no commercial use; cite Liu et al., SIGIR 2023.", _FILES, read)
