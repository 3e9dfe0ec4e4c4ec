import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tfebr.data.log import write_log
from tfebr.data.simulator import PRESETS, SimulatorConfig, simulate
from tfebr.data.simulator.run import _CHUNK
from tfebr.errors import ConfigError, TfebrError

_TINY = dataclasses.replace(PRESETS["tiny"], requests=2_000)


def _content(path):
    """Every file's bytes below a folder; npz and Parquet hold no time of writing."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("items", 10),
        ("items", 500.0),
        ("requests", 0),
        ("users", -1),
        ("days", 0),
        ("seed", -1),
        ("page_size", 0),
        ("page_size", True),
        ("noisy_click_share", 1.0),
        ("noisy_click_share", float("nan")),
        ("exploration_share", "much"),
    ],
)
def test_impossible_field_is_named(field, value):
    with pytest.raises(ConfigError, match=f"`{field}`"):
        SimulatorConfig(**{field: value})


def test_presets_have_the_promised_sizes():
    sizes = {name: (config.items, config.requests) for name, config in PRESETS.items()}
    assert sizes == {"tiny": (500, 3_000), "small": (20_000, 100_000), "large": (1_000_000, 5_000_000)}


def test_same_seed_same_bytes_other_seed_other_shop(tmp_path):
    one, again = (_content(simulate(_TINY, tmp_path / name, quiet=True).path) for name in ("one", "again"))
    other = _content(simulate(dataclasses.replace(_TINY, seed=2), tmp_path / "other", quiet=True).path)
    assert one == again
    assert one.keys() == other.keys()
    # The list of user ids is "u0000000" and on for every seed.
    assert [name for name in one if one[name] == other[name]] == ["oracle/user_ids.parquet"]


def test_folder_keeps_the_contracts(shop):
    table = shop.catalogue.table
    assert table.column_names == ["item_id", "title", "brand", "leaf_category", "category", "shop", "price"]
    assert table["item_id"][1234].as_py() == "i0001234"
    assert min(table["price"].to_pylist()) > 0
    users = shop.folder.users()
    assert users.column_names == ["user_id", "age", "gender", "power", "region"]
    assert set(shop.log.user) <= set(users["user_id"].to_pylist())
    assert shop.log.item.min() >= 0, "every shown item is in the catalogue"
    assert (np.diff(shop.log.time) >= 0).all()
    assert len(np.unique(shop.log.request * len(shop.catalogue) + shop.log.item)) == len(shop.log.item), "no item twice on a page"
    assert not [name for name in table.column_names if "quality" in name or "popularity" in name], "the oracle's truth stays apart"


def test_about_counts_the_log(shop):
    about = json.loads((shop.folder.path / "about.json").read_text())
    stage = shop.log.stage
    assert about["requests"] == len(shop.log.query) == len(shop.folder.log())
    assert about["impressions"] == len(stage)
    assert [about["clicks"], about["carts"], about["orders"]] == [int((stage >= least).sum()) for least in (1, 2, 3)]
    assert about["requests_with_click"] == len(np.unique(shop.log.request[stage > 0]))
    assert SimulatorConfig(**about["config"]).seed == about["config"]["seed"]


def test_page_size_and_days_bound_the_log(run_shop):
    log = run_shop(dataclasses.replace(_TINY, page_size=7, days=2)).log
    assert log.position.max() == 6
    # A session that starts in the last minute may run past midnight.
    assert log.time.max() - log.time.min() < 2 * 86_400 + 3_600


def test_log_is_written_as_a_stream(tmp_path, monkeypatch):
    sizes = []

    def counted(batches):
        for batch in batches:
            sizes.append(batch.num_rows)
            yield batch

    def spy(path, batches):
        assert iter(batches) is batches, "batches are drawn one by one, not held in a list"
        return write_log(path, counted(batches))

    monkeypatch.setattr("tfebr.data.simulator.run.write_log", spy)
    folder = simulate(dataclasses.replace(_TINY, requests=2 * _CHUNK + 5), tmp_path / "shop", quiet=True)
    assert sizes == [_CHUNK, _CHUNK, 5]
    assert sum(pq.ParquetFile(file).metadata.num_rows for file in folder.log().files) == 2 * _CHUNK + 5


def test_foreign_folder_is_not_replaced_and_an_earlier_shop_is(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("keep")
    with pytest.raises(TfebrError, match="not a data folder"):
        simulate(_TINY, tmp_path / "letters", quiet=True)
    assert (tmp_path / "letters" / "love.txt").read_text() == "keep"
    before = _content(simulate(_TINY, tmp_path / "shop", quiet=True).path)
    after = _content(simulate(dataclasses.replace(_TINY, seed=9), tmp_path / "shop", quiet=True).path)
    assert before["catalogue.parquet"] != after["catalogue.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letters", "shop"]
