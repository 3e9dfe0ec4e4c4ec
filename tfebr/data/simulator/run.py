"""Running a shop: draws it, lets its users search, and writes catalogue, log and oracle as a data folder."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfebr.data.dataset import DataFolder
from tfebr.data.log import SCHEMA, SHOWN, write_log
from tfebr.data.roles import ColumnRoles
from tfebr.data.simulator.cascade import act
from tfebr.data.simulator.oracle import MeaningTable, Oracle
from tfebr.data.simulator.population import Users, draw_users, draw_visits
from tfebr.data.simulator.queries import QueryWriter
from tfebr.data.simulator.search import ProductionSearch
from tfebr.data.simulator.settings import SimulatorConfig
from tfebr.data.simulator.shop import Shop, open_shop
from tfebr.data.simulator.titles import Titles, catalogue_of, numbered, write_titles
from tfebr.data.stage import Stage
from tfebr.errors import TfebrError
from tfebr.infrastructure.files import atomic_folder, write_json
from tfebr.infrastructure.progress import progress

_CHUNK = 8192


def simulate(config: SimulatorConfig, out: str | os.PathLike, quiet: bool = False) -> DataFolder:
    """Writes a simulated shop as a data folder, as a stream: the log is never held as a whole.

    Args:
        config: size, seed and noise of the shop.
        out: the folder to write; an earlier data folder there is replaced once the new one is complete.
        quiet: without progress.

    Returns:
        The data folder: `catalogue.parquet`, `log/`, `users.parquet`, `oracle/` (see `Oracle`) and `about.json`.

    Raises:
        TfebrError: `out` holds something that is not a data folder, or cannot be written.
    """
    out = Path(out)
    _refuse_foreign(out)
    shop_rng, title_rng, user_rng, query_rng, search_rng, act_rng = (np.random.default_rng([config.seed, part]) for part in range(6))
    shop = open_shop(config, shop_rng)
    titles = write_titles(shop, title_rng)
    catalogue = catalogue_of(shop, titles, title_rng)
    users = draw_users(shop, config, user_rng)
    meanings, counts = MeaningTable(shop.concepts), Counter[str]()
    user_table, item_ids = users.table(), catalogue.table["item_id"].combine_chunks()
    user_ids = user_table["user_id"].combine_chunks()
    with atomic_folder(out) as folder, progress("simulate", config.requests, "requests", quiet) as advance:
        catalogue.write(folder / "catalogue.parquet")
        pq.write_table(user_table, folder / "users.parquet", compression="zstd")
        log = _Log(shop, titles, users, config, user_ids, item_ids, meanings, counts)
        write_log(folder / "log", log.batches((user_rng, query_rng, search_rng, act_rng), advance))
        (folder / "oracle").mkdir()
        Oracle(shop.truth, users.tastes, user_ids, meanings.table()).write(folder / "oracle")
        about = {"source": "tfebr simulate", "config": dataclasses.asdict(config), "items": config.items, "users": config.users}
        columns = ColumnRoles.of(catalogue.table).to_json()
        write_json(folder / "about.json", {**about, **counts, "columns": columns})
    return DataFolder(out)


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not (out / "catalogue.parquet").exists() and not (out.is_dir() and not any(out.iterdir())):
        raise TfebrError(f"{out}: exists and is not a data folder, so it is not replaced. Choose another folder or remove it.")


@dataclasses.dataclass(frozen=True)
class _Log:
    """The log in the making; `meanings` and `counts` fill up while the batches are drawn."""

    shop: Shop
    titles: Titles
    users: Users
    config: SimulatorConfig
    user_ids: pa.Array
    item_ids: pa.Array
    meanings: MeaningTable
    counts: Counter[str]

    def batches(self, rngs: tuple[np.random.Generator, ...], advance: Callable[..., None]) -> Iterator[pa.RecordBatch]:
        user_rng, query_rng, search_rng, act_rng = rngs
        visits = draw_visits(self.shop, self.users, self.config, user_rng)
        writer = QueryWriter(self.shop, self.users, query_rng)
        search = ProductionSearch(self.shop, self.titles, self.config)
        for start in range(0, self.config.requests, _CHUNK):
            chunk = slice(start, start + _CHUNK)
            user = visits.user[chunk]
            requests = writer.write(user, visits.leaf[chunk], query_rng)
            self.meanings.add(requests.text, requests.asked)
            page = search.pages(requests, search_rng)
            stage = act(self.shop, self.users, self.config, user, requests, page, act_rng)
            self._count(page, stage)
            ids = numbered("r", len(user), start, width=9)
            columns = [ids, pa.array(visits.time[chunk]), self.user_ids.take(pa.array(user)), requests.text, self._items(page, stage)]
            yield pa.record_batch(columns, schema=SCHEMA)
            advance(len(user))

    def _items(self, page: np.ndarray, stage: np.ndarray) -> pa.ListArray:
        shown = page >= 0
        position = np.broadcast_to(np.arange(page.shape[1], dtype=np.int16), page.shape)
        offsets = np.concatenate([[0], np.cumsum(shown.sum(axis=1))]).astype(np.int32)
        flat = pa.StructArray.from_arrays(
            [self.item_ids.take(pa.array(page[shown])), pa.array(stage[shown]), pa.array(position[shown])], fields=list(SHOWN)
        )
        return pa.ListArray.from_arrays(pa.array(offsets), flat)

    def _count(self, page: np.ndarray, stage: np.ndarray) -> None:
        self.counts["requests"] += len(page)
        self.counts["impressions"] += int((page >= 0).sum())
        for name, least in (("clicks", Stage.CLICKED), ("carts", Stage.CARTED), ("orders", Stage.ORDERED)):
            self.counts[name] += int((stage >= least).sum())
        self.counts["requests_with_click"] += int((stage >= Stage.CLICKED).any(axis=1).sum())
