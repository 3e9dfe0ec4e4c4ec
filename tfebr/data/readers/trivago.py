"""trivago sessions (RecSys Challenge 2019): hotel searches with the list that was shown and the hotel that was clicked out to."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from tfebr.data.catalogue import Catalogue
from tfebr.data.readers.reader import Prepared, Reader, missing_files
from tfebr.data.readers.request_rows import Request, request_batches
from tfebr.data.readers.rows import check_new, find, number, rows
from tfebr.data.readers.time_order import in_order_of_time
from tfebr.data.stage import Stage
from tfebr.data.times import EARLIEST, LATEST
from tfebr.errors import DataError
from tfebr.infrastructure.progress import progress

_COLUMNS = (
    "user_id",
    "session_id",
    "timestamp",
    "action_type",
    "reference",
    "platform",
    "city",
    "current_filters",
    "impressions",
    "prices",
)
_CLICK_OUT = "clickout item"
_ACTIONS = (
    _CLICK_OUT,
    "interaction item rating",
    "interaction item info",
    "interaction item image",
    "interaction item deals",
    "change of sort order",
    "filter selection",
    "search for item",
    "search for destination",
    "search for poi",
)
_TITLE = "trivago sessions"
_FILES = (
    "train.csv, optionally with item_metadata.csv beside it, from the RecSys Challenge 2019 (recsys.trivago.cloud), or a part of it "
    "named sessions.csv; each also as .gz or .zip."
)


def read(path: Path, quiet: bool = False) -> Prepared:
    """Reads `train.csv` or `sessions.csv`; other actions than click-outs are checked and left out.

    A request is one click-out: the shown items are the impressions in their order, the hotel clicked out to is CLICKED, all others are
    UNCLICKED. The query is the city, the platform (a country's site) and the filters and sort orders that were set, as one text. A
    click-out to a hotel that is not in the list leaves a request without a click.

    The catalogue holds every hotel that was shown. The set tells neither its name nor a description: `title` and `city` are the city that
    it was shown for most often, followed in the title by its properties ("Wifi", "Pool" ...) where `item_metadata.csv` is there; `country`
    is the end of the city's name; `price` is the mean of its shown prices. City and price are taken over the whole file.

    The file is read twice as a stream and sorted on disk; the hotels are held in memory.
    """
    folder = path if path.is_dir() else path.parent
    source = path if path.is_file() else find(path, "sessions.csv", "train.csv")
    if source is None:
        raise missing_files(path, _TITLE, _FILES)
    hotels, elsewhere = _read_hotels(source, quiet)
    metadata = find(folder, "item_metadata.csv")
    properties = _read_properties(metadata, hotels) if metadata else {}
    notes: tuple[str, ...] = ("only click-outs are requests", "hotels have no names: the title is the city they were shown for")
    if elsewhere:
        notes += (f"{elsewhere} click-outs went to a hotel that was not in the list: their requests have no click",)
    log = in_order_of_time(request_batches(_requests(source, quiet)))
    return Prepared(_catalogue(hotels, properties, str(source)), log=log, notes=notes)


class _Hotel:
    """What the shown lists tell of one hotel."""

    __slots__ = ("cities", "prices", "shown")

    def __init__(self) -> None:
        self.cities: dict[str, int] = {}
        self.prices, self.shown = 0.0, 0


def _read_hotels(path: Path, quiet: bool) -> tuple[dict[str, _Hotel], int]:
    """The hotels by id in order of first appearance, and the number of click-outs that went elsewhere."""
    hotels: dict[str, _Hotel] = {}
    elsewhere = 0
    with progress("reading trivago", None, "click-outs", quiet) as advance:
        for line, row in _click_outs(path):
            shown, prices = row["impressions"].split("|"), row["prices"].split("|")
            if "" in shown:
                raise DataError(f"{path}: line {line}, column `impressions`: an empty hotel id. Repair the line.")
            if len(prices) != len(shown):
                raise DataError(
                    f"{path}: line {line}, column `prices`: {len(prices)} prices for {len(shown)} impressions. Repair the line."
                )
            for hotel_id, price in zip(shown, prices, strict=True):
                hotel = hotels.get(hotel_id) or hotels.setdefault(hotel_id, _Hotel())
                hotel.cities[row["city"]] = hotel.cities.get(row["city"], 0) + 1
                hotel.prices += number(price, "prices", 0, 1e9, path, line)
                hotel.shown += 1
            elsewhere += row["reference"] not in shown
            advance(1)
    if not hotels:
        raise DataError(f"{path}: no click-out after the header. Download the file again.")
    return hotels, elsewhere


def _read_properties(path: Path, hotels: dict[str, _Hotel]) -> dict[str, str]:
    properties: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, (hotel_id, names) in rows(path, ("item_id", "properties")):
        check_new(hotel_id, lines, "item_id", path, line)
        if hotel_id in hotels:
            properties[hotel_id] = names.replace("|", ", ")
    return properties


def _catalogue(hotels: dict[str, _Hotel], properties: dict[str, str], source: str) -> Catalogue:
    # The first city of equals is the one that came first.
    cities = [max(hotel.cities, key=hotel.cities.__getitem__) for hotel in hotels.values()]
    titles = [", ".join(filter(None, (city, properties.get(hotel_id)))) for hotel_id, city in zip(hotels, cities, strict=True)]
    table = {
        "item_id": list(hotels),
        "title": titles,
        "city": cities,
        "country": [city.rpartition(", ")[2] for city in cities],
        "price": np.array([hotel.prices / hotel.shown for hotel in hotels.values()]),
    }
    return Catalogue(pa.table(table), source)


def _requests(path: Path, quiet: bool) -> Iterator[Request]:
    with progress("sorting trivago", None, "click-outs", quiet) as advance:
        for line, row in _click_outs(path):
            time = int(number(row["timestamp"], "timestamp", EARLIEST, LATEST, path, line))
            query = " ".join(filter(None, (row["city"], row["platform"], *row["current_filters"].split("|"))))
            shown: dict[str, int] = dict.fromkeys(row["impressions"].split("|"), Stage.UNCLICKED)
            if row["reference"] in shown:
                shown[row["reference"]] = Stage.CLICKED
            # A few sessions of the set have two rows of one step: only the line tells them apart.
            yield Request(f"{row['session_id']}:{line}", time, row["user_id"], query, shown)
            advance(1)


def _click_outs(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    for line, values in rows(path, _COLUMNS):
        row = dict(zip(_COLUMNS, values, strict=True))
        if row["action_type"] not in _ACTIONS:
            raise DataError(
                f"{path}: line {line}, column `action_type`: unknown action {row['action_type']!r}. Known actions: {', '.join(_ACTIONS)}."
            )
        if row["action_type"] == _CLICK_OUT:
            for name in ("reference", "impressions"):
                if not row[name]:
                    raise DataError(f"{path}: line {line}, column `{name}`: empty. Every click-out needs one.")
            yield line, row


READER = Reader(_TITLE, "trivago's terms of the RecSys Challenge 2019: no redistribution; see the challenge's page.", _FILES, read)
