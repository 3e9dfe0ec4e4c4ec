"""Frames as users have them become the data folder that the same rows on disk would be."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import tensorflow as tf

from tfebr.data.frames import to_table, write_frames
from tfebr.data.stage import Stage
from tfebr.errors import DataError

CATALOGUE = {"item_id": ["a", "b", "c"], "title": ["red dress", "blue dress", "lamp"], "price": [10.0, 20.0, 5.5]}
EVENTS = {
    "request_id": ["r2", "r1", "r1", "r2"],
    "time": [1_700_000_200, 1_700_000_100, 1_700_000_100, 1_700_000_200],
    "user_id": ["u", "v", "v", "u"],
    "query": ["lamp", "dress", "dress", "lamp"],
    "item_id": ["c", "a", "b", "a"],
    "stage": [3, 0, 1, 0],
}
MAKERS = {
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "arrow": pa.table,
    "reader": lambda columns: pa.RecordBatchReader.from_batches(pa.table(columns).schema, pa.table(columns).to_batches()),
    "columns": dict,
    "dataset": tf.data.Dataset.from_tensor_slices,
    "batches": lambda columns: tf.data.Dataset.from_tensor_slices(columns).batch(2),
}
every_kind = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def rows_of(folder) -> list[dict]:
    return [row for batch in folder.log().batches() for row in batch.to_pylist()]


@every_kind
def test_events_become_requests_in_order_of_time(make, tmp_path):
    folder = write_frames(tmp_path / "shop", make(CATALOGUE), make(EVENTS))
    assert folder.catalogue().titles == CATALOGUE["title"]
    assert folder.catalogue().number_columns == ["price"]
    first, second = rows_of(folder)
    assert first == {
        "request_id": "r1",
        "time": 1_700_000_100,
        "user_id": "v",
        "query": "dress",
        "items": [{"item_id": "a", "stage": 0, "position": 0}, {"item_id": "b", "stage": 1, "position": 1}],
    }
    assert (second["request_id"], [item["item_id"] for item in second["items"]]) == ("r2", ["c", "a"])


@every_kind
def test_pairs_alone_are_clicks_in_their_order(make, tmp_path):
    pairs = {"query": ["dress", "lamp", "dress"], "item_id": ["a", "c", "b"]}
    rows = rows_of(write_frames(tmp_path / "shop", make(CATALOGUE), make(pairs)))
    assert [row["query"] for row in rows] == pairs["query"]
    assert [row["items"] for row in rows] == [[{"item_id": i, "stage": Stage.CLICKED, "position": 0}] for i in pairs["item_id"]]
    assert np.all(np.diff([row["time"] for row in rows]) > 0)
    assert len({row["request_id"] for row in rows}) == 3


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "arrow"])
def test_requests_with_their_lists(make, tmp_path):
    items = [[{"item_id": "a", "stage": 1, "position": 0}], [{"item_id": "c", "stage": 0, "position": 4}]]
    rows = rows_of(write_frames(tmp_path / "shop", make(CATALOGUE), make({"query": ["dress", "lamp"], "items": items})))
    assert [row["items"] for row in rows] == items


@every_kind
def test_judgments(make, tmp_path):
    judged = {
        "query": ["dress", "dress", "lamp"],
        "item_id": ["a", "c", "c"],
        "relevance": [2.0, 0.0, 1.0],
        "split": ["train"] * 2 + ["test"],
    }
    judgments = write_frames(tmp_path / "shop", make(CATALOGUE), make(judged)).judgments()
    assert judgments.split("train").qrels["relevance"].to_pylist() == [2.0, 0.0]
    assert judgments.split("test").queries["query"].to_pylist() == ["lamp"]


def test_time_of_any_unit_orders_the_events(tmp_path):
    times = pd.to_datetime(["2024-01-02T10:00:00Z", "2024-01-01T10:00:00Z"])
    pairs = pd.DataFrame({"query": ["dress", "lamp"], "item_id": ["a", "c"], "time": times}, index=["x", "y"])
    rows = rows_of(write_frames(tmp_path / "shop", pd.DataFrame(CATALOGUE, index=[7, 8, 9]), pairs))
    assert [(row["query"], row["time"]) for row in rows] == [("lamp", 1_704_103_200), ("dress", 1_704_189_600)]


def test_users(tmp_path):
    folder = write_frames(tmp_path / "shop", CATALOGUE, EVENTS, pd.DataFrame({"user_id": ["u", "v"], "age": ["18-24", "65+"]}))
    assert folder.users()["age"].to_pylist() == ["18-24", "65+"]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ({"query": ["dress"]}, r"`log`: column `item_id` is missing\. Received columns: query\."),
        ({"item_id": ["a"], "relevance": [1.0]}, r"`log`: column `query` is missing\."),
        ([1, 2], r"`log` must be a pandas or polars frame, .* Received: builtins\.list\."),
        ({"query": ["dress", "lamp"], "item_id": ["a"]}, r"`log`: not readable as a table"),
    ],
)
def test_what_is_no_log_is_refused_and_nothing_is_written(log, message, tmp_path):
    with pytest.raises(DataError, match=message):
        write_frames(tmp_path / "shop", CATALOGUE, log)
    assert not (tmp_path / "shop").exists()


def test_a_bad_row_is_refused_as_on_disk(tmp_path):
    with pytest.raises(DataError, match=r"`catalogue`: row 1, column `item_id`: .*repeats row 0"):
        write_frames(tmp_path / "shop", {"item_id": ["a", "a"], "title": ["x", "y"]}, EVENTS)
    with pytest.raises(DataError, match="unknown stage 9"):
        write_frames(tmp_path / "shop", CATALOGUE, EVENTS | {"stage": [9, 0, 0, 0]})
    assert not (tmp_path / "shop").exists()


def test_an_empty_dataset_is_an_empty_log(tmp_path):
    empty = tf.data.Dataset.from_tensor_slices(EVENTS).filter(lambda row: False)
    with pytest.raises(DataError, match="empty"):
        write_frames(tmp_path / "shop", CATALOGUE, empty)


def test_tables_pass_through_as_they_are():
    table = pa.table(CATALOGUE)
    assert to_table(table) is table
