"""Examples say what the log says, with the history a plain loop finds, however they were sorted; damage and strangers are named."""

import collections
from pathlib import Path

import pyarrow as pa
import pytest
import tensorflow as tf

from tfebr.data import examples
from tfebr.data.catalogue import Catalogue
from tfebr.data.examples import HISTORY_ITEMS, HISTORY_QUERIES, Shards, write_examples
from tfebr.data.judged_requests import requests_of
from tfebr.data.judgments import QRELS, QUERIES, Judgments
from tfebr.data.log import SCHEMA
from tfebr.data.stage import Stage
from tfebr.errors import ArtifactError, DataError

ALL = {"all": (None, None)}


def read(shards: Shards) -> dict[str, dict]:
    """Examples by request id; lists of ints, of strings, or one string."""
    found = {}
    for record in tf.data.TFRecordDataset(shards.paths):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        row = {n: list(f.int64_list.value) or [b.decode() for b in f.bytes_list.value] for n, f in features.items()}
        assert row["request_id"][0] not in found
        found[row["request_id"][0]] = row
    assert len(found) == shards.examples
    return found


def rows_of(folder) -> list[dict]:
    return [row for batch in folder.log().batches() for row in batch.to_pylist()]


def plain_examples(requests: list[dict], catalogue: Catalogue, profiles: dict[str, dict]) -> dict[str, dict]:
    """The same by walking through the log once."""
    item_row = {item: i + 1 for i, item in enumerate(catalogue.item_ids)}
    clicks, queries = collections.defaultdict(list), collections.defaultdict(list)
    expected = {}
    for r in requests:
        user, time = r["user_id"], r["time"]
        shown = [(item_row[i["item_id"]], i["stage"], i["position"]) for i in r["items"]]
        if any(stage >= Stage.CLICKED for _, stage, _ in shown):
            past = [e for e in clicks[user] if e[0] < time][-HISTORY_ITEMS:][::-1] if user else []
            asked = [q for t, q in queries[user] if t < time][-HISTORY_QUERIES:][::-1] if user else []
            expected[r["request_id"]] = {
                "request_id": [r["request_id"]],
                "user_id": [user],
                "time": [time],
                "query": [r["query"]],
                "items": [s[0] for s in shown],
                "stages": [s[1] for s in shown],
                "positions": [s[2] for s in shown],
                "negatives": [],
                "history_items": [item for _, item, _ in past],
                "history_stages": [stage for _, _, stage in past],
                "history_ages": [time - t for t, _, _ in past],
                "history_queries": asked,
                **{f"user_column_{c}": [v] for c, v in profiles.get(user, {}).items()},
            }
        clicks[user] += [(time, item, stage) for item, stage, _ in shown if stage >= Stage.CLICKED]
        queries[user].append((time, r["query"]))
    return expected


@pytest.fixture(scope="module")
def shop_examples(tiny_shop, tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("examples") / "out"
    shards = write_examples(tiny_shop.log().batches(), tiny_shop.catalogue(), tiny_shop.users(), folder, ALL, quiet=True)
    return read(shards["all"])


def test_examples_and_histories_equal_a_plain_walk_through_the_log(tiny_shop, shop_examples):
    profiles = {u.pop("user_id"): u for u in tiny_shop.users().to_pylist()}
    expected = plain_examples(rows_of(tiny_shop), tiny_shop.catalogue(), profiles)
    assert shop_examples == expected
    assert max(len(e["history_items"]) for e in expected.values()) > 5
    assert any(len(e["history_queries"]) > 0 for e in expected.values())


@pytest.mark.parametrize("at_once", [1500, 300])
def test_divided_by_user_on_disk_gives_the_same(tiny_shop, shop_examples, tmp_path, monkeypatch, at_once):
    log = tiny_shop.log()
    monkeypatch.setattr(examples, "_REQUESTS_IN_MEMORY", at_once)
    shards = write_examples(log.batches(), tiny_shop.catalogue(), tiny_shop.users(), tmp_path / "out", ALL, total=len(log), quiet=True)
    assert len(shards["all"].files) == -(-len(log) // at_once)
    assert read(shards["all"]) == shop_examples


def test_splits_by_time_share_histories(tiny_shop, shop_examples, tmp_path):
    times = [r["time"] for r in rows_of(tiny_shop)]
    cut = times[2500]
    ranges = {"train": (None, cut), "test": (cut, None)}
    shards = write_examples(tiny_shop.log().batches(), tiny_shop.catalogue(), tiny_shop.users(), tmp_path / "out", ranges, quiet=True)
    train, test = read(shards["train"]), read(shards["test"])
    assert train | test == shop_examples
    assert max(e["time"][0] for e in train.values()) < cut <= min(e["time"][0] for e in test.values())


def test_shuffled_by_seed(tiny_shop, tmp_path):
    orders = []
    for number, seed in enumerate((1, 1, 2)):
        shards = write_examples(tiny_shop.log().batches(), tiny_shop.catalogue(), None, tmp_path / str(number), ALL, seed, quiet=True)
        orders.append(list(read(shards["all"])))
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


CATALOGUE = Catalogue(pa.table({"item_id": ["a", "b", "c"], "title": ["x", "y", "z"]}))


def log(*requests: tuple[str, int, str, list[tuple[str, int]]]) -> list[pa.RecordBatch]:
    rows = [
        {
            "request_id": name,
            "time": time,
            "user_id": user,
            "query": f"query {name}",
            "items": [{"item_id": i, "stage": s, "position": p} for p, (i, s) in enumerate(items)],
        }
        for name, time, user, items in requests
    ]
    return [pa.RecordBatch.from_pylist(rows, SCHEMA)]


def write(requests: list[pa.RecordBatch], folder: Path, **settings) -> dict[str, dict]:
    return read(write_examples(requests, CATALOGUE, None, folder, ALL, quiet=True, **settings)["all"])


def test_users_without_a_name_have_no_history(tmp_path):
    found = write(log(("1", 1, "", [("a", 1)]), ("2", 2, "", [("b", 1)])), tmp_path / "out")
    assert found["2"]["history_items"] == found["2"]["history_queries"] == []


def test_anonymous_requests_survive_the_division(tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "_REQUESTS_IN_MEMORY", 2)
    requests = log(*((str(n), n, "u" if n % 3 == 0 else "", [("a", 1)]) for n in range(9)))
    assert write(requests, tmp_path / "divided", total=9) == write(requests, tmp_path / "whole")


def test_only_requests_with_a_click_unless_all(tmp_path):
    requests = log(("1", 1, "u", [("a", 0)]), ("2", 2, "u", [("b", 2)]), ("3", 3, "u", []))
    assert set(write(requests, tmp_path / "clicked")) == {"2"}
    assert set(write(requests, tmp_path / "all", all_requests=True)) == {"1", "2", "3"}


def test_an_item_that_the_catalogue_lacks_names_the_request(tmp_path):
    with pytest.raises(DataError, match=r"request 'r2'.*'stranger' is not in the catalogue"):
        write(log(("r1", 1, "u", [("a", 1)]), ("r2", 2, "u", [("b", 1), ("stranger", 0)])), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_split_without_clicks_is_named(tmp_path):
    with pytest.raises(DataError, match="split 'late' has no request with a click"):
        write_examples(log(("1", 1, "u", [("a", 1)])), CATALOGUE, None, tmp_path / "out", {"late": (5, None)}, quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_labelled_sets_have_explicit_negatives(tmp_path):
    judged = Judgments(
        pa.table([["q", "r"], ["text q", "text r"], ["train", "train"]], schema=QUERIES),
        pa.table([["q", "q", "q", "r"], ["a", "b", "c", "b"], [3.0, 1.0, 2.0, 3.0]], schema=QRELS),
        2.0,
    )
    found = write(list(requests_of(judged)), tmp_path / "labelled", labelled=True)
    assert (found["q"]["items"], found["q"]["stages"], found["q"]["negatives"]) == ([1, 3, 2], [1, 1, 0], [2])
    assert found["r"]["negatives"] == []
    assert write(list(requests_of(judged)), tmp_path / "plain")["q"]["negatives"] == []


@pytest.mark.parametrize("damage", ["truncated", "longer", "missing"])
def test_a_damaged_shard_is_named(tmp_path, damage):
    write(log(("1", 1, "u", [("a", 1)])), tmp_path / "out")
    file = tmp_path / "out" / "all" / "part-00000.tfrecord"
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-3] if damage == "truncated" else content + b"x")
    with pytest.raises(DataError, match=r"part-00000\.tfrecord: shard (is missing|has \d+ bytes instead of \d+).*Remove the folder"):
        Shards.read(tmp_path / "out" / "all", CATALOGUE.content_hash())


def test_shards_of_another_catalogue_are_refused(tmp_path):
    write(log(("1", 1, "u", [("a", 1)])), tmp_path / "out")
    with pytest.raises(ArtifactError, match="another catalogue"):
        Shards.read(tmp_path / "out" / "all", "0" * 16)


def test_nothing_is_left_in_the_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(examples.tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(examples, "_REQUESTS_IN_MEMORY", 1)
    write(log(("1", 1, "u", [("a", 1)]), ("2", 1, "v", [("a", 1)])), tmp_path / "out", total=2)
    assert list((tmp_path / "tmp").iterdir()) == []
