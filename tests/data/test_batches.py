"""Batches: every request once an epoch, in an order that the seed and the epoch decide; padding, positives and labelled shares."""

import collections

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from tfebr.data.batches import SHOWN_ITEMS, evaluation_batches, steps_of, training_batches
from tfebr.data.catalogue import Catalogue
from tfebr.data.examples import write_examples
from tfebr.data.features import FeatureSpec, Featurizer, write_vocabularies
from tfebr.data.log import SCHEMA

ITEMS, REQUESTS = 90, 203
# Of the first positions; what is further down counts as the last.
PROPENSITIES = np.array([2.0, 1.0, 0.5, 0.05])
CATALOGUE = Catalogue(
    pa.table({"item_id": [f"i{i}" for i in range(ITEMS)], "title": [f"title {i}" for i in range(ITEMS)], "brand": ["b"] * ITEMS})
)
SPEC = FeatureSpec(
    grains=("words",), query_lengths=(3,), title_lengths=(3,), min_count=1, oov_buckets=2, item_columns=("brand",), user_columns=("age",),
    history_items=4, history_queries=2,
)  # fmt: skip
USERS = pa.table({"user_id": [f"u{i}" for i in range(7)], "age": [str(i) for i in range(7)]})


def requests(prefix: str, count: int, seed: int, users: bool = True) -> list[dict]:
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        shown = rng.permutation(ITEMS)[: rng.integers(1, 12) if n else ITEMS]
        stages = rng.integers(0, 4, len(shown))
        stages[rng.integers(len(shown))] = 1
        # Of every ninth request, the positions are not known.
        positions = np.arange(len(shown)) if n % 9 else np.full(len(shown), -1)
        items = [{"item_id": f"i{i}", "stage": int(s), "position": int(p)} for p, i, s in zip(positions, shown, stages, strict=True)]
        user = f"u{rng.integers(7)}" if users else ""
        rows.append({"request_id": f"{prefix}{n}", "time": n // 3, "user_id": user, "query": f"title {n}", "items": items})
    return rows


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    log, labels = requests("r", REQUESTS, 1), requests("label", 11, 2, users=False)
    write = lambda rows, name, **s: write_examples(  # noqa: E731
        [pa.RecordBatch.from_pylist(rows, SCHEMA)], CATALOGUE, USERS, folder / name, {"all": (None, None)}, total=len(rows), quiet=True, **s
    )["all"]
    write_vocabularies(SPEC, CATALOGUE, [pa.array([r["query"] for r in log])], USERS, folder / "vocabulary")
    return (
        write(log, "log"),
        write(labels, "labels", labelled=True),
        Featurizer(SPEC, folder / "vocabulary"),
        {r["request_id"]: r for r in log + labels},
    )


def ids(batches) -> list[list[str]]:
    return [[i.decode() for i in b["request_id"].numpy()] for b in batches]


def plain(batches) -> list[dict[str, list]]:
    return [{name: value.numpy().tolist() for name, value in b.items()} for b in batches]


def test_every_request_once_an_epoch(made):
    shards, _, featurizer, _ = made
    found = ids(training_batches(shards, featurizer, 20, seed=1, epochs=1))
    flat = [i for batch in found for i in batch]
    assert {len(batch) for batch in found} == {20}
    assert len(found) == REQUESTS // 20
    assert len(set(flat)) == len(flat)
    whole = ids(training_batches(shards, featurizer, REQUESTS, seed=1, epochs=1))
    assert sorted(whole[0]) == sorted(f"r{i}" for i in range(REQUESTS))


def test_a_small_set_gives_its_one_short_batch(made):
    _, labels, featurizer, _ = made
    assert len(ids(training_batches(labels, featurizer, 64, 0, 1))[0]) == labels.examples


def test_seed_and_epoch_decide_everything(made):
    shards, _, featurizer, _ = made
    first = plain(training_batches(shards, featurizer, 20, seed=1, epochs=1))
    assert plain(training_batches(shards, featurizer, 20, seed=1, epochs=1)) == first
    steps = steps_of(shards, 20)
    both = plain(training_batches(shards, featurizer, 20, seed=1, epochs=2))
    assert both[:steps] == first
    for other in (both[steps:], plain(training_batches(shards, featurizer, 20, seed=2, epochs=1))):
        assert len(other) == steps
        assert [b["request_id"] for b in other] != [b["request_id"] for b in first]


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("supervised", [False, True])
def test_a_resumed_run_continues_exactly(made, supervised, seed):
    shards, labels, featurizer, _ = made
    more = {"supervision": labels, "supervision_share": 0.3} if supervised else {}
    # The program's own seed must not matter, and 0 has a meaning of its own to TensorFlow.
    tf.keras.utils.set_random_seed(seed)
    whole = plain(training_batches(shards, featurizer, 20, seed, 3, **more))
    assert len(whole) == 3 * steps_of(shards, 20)
    for done in (1, 7, 10, 17):
        tf.keras.utils.set_random_seed(seed + done)
        assert plain(training_batches(shards, featurizer, 20, seed, 3, done, **more)) == whole[done:]


def test_positives_are_drawn_among_the_clicked(made):
    shards, _, featurizer, log = made
    drawn = collections.defaultdict(set)
    for batch in plain(training_batches(shards, featurizer, 64, 3, 6)):
        for name, positive, known in zip(batch["request_id"], batch["positive"], batch["known_positives"], strict=True):
            clicked = {int(i["item_id"][1:]) + 1 for i in log[name.decode()]["items"] if i["stage"] >= 1}
            if name != b"r0":  # shown more items than a batch keeps
                assert set(known) - {0} == clicked
            assert positive in clicked
            drawn[name].add(positive)
    assert np.mean([len(d) > 1 for d in drawn.values()]) > 0.5


def test_clicked_items_are_kept_first_of_a_very_long_page(made):
    shards, _, featurizer, log = made
    (batch,) = [b for b in plain(evaluation_batches(shards, featurizer, 1)) if b["request_id"] == [b"r0"]]
    stages = {int(i["item_id"][1:]) + 1: i["stage"] for i in log["r0"]["items"]}
    assert len(batch["items"][0]) == SHOWN_ITEMS < ITEMS
    assert batch["stages"][0] == sorted(stages.values(), reverse=True)[:SHOWN_ITEMS]
    assert [stages[i] for i in batch["items"][0]] == batch["stages"][0]


def test_items_stages_and_positions_stand_side_by_side(made):
    shards, _, featurizer, log = made
    padded = 0
    for batch in [*plain(evaluation_batches(shards, featurizer, 64)), *plain(training_batches(shards, featurizer, 64, 1, 1))]:
        for name, *shown in zip(*(batch[key] for key in ("request_id", "items", "stages", "positions")), strict=True):
            expected = {(int(i["item_id"][1:]) + 1, i["stage"], i["position"]) for i in log[name.decode()]["items"]}
            found = list(zip(*shown, strict=True))
            assert set(found) - {(0, -1, -1)} <= expected
            assert len(set(found) - {(0, -1, -1)}) == min(len(expected), SHOWN_ITEMS)
            padded += (0, -1, -1) in found
    assert padded > REQUESTS


def test_without_propensities_every_click_is_believed(made):
    shards, _, featurizer, _ = made
    for batch in training_batches(shards, featurizer, 64, 1, 1):
        assert batch["confidence"].dtype == batch["positive_confidence"].dtype == tf.float32
        np.testing.assert_array_equal(batch["confidence"], np.ones_like(batch["items"]))
        np.testing.assert_array_equal(batch["positive_confidence"], np.ones(64))


def test_confidence_is_the_inverse_propensity_of_the_position(made):
    shards, labels, featurizer, log = made
    seen = set()
    for batch in plain(training_batches(shards, featurizer, 20, 1, 2, 0, labels, 0.3, PROPENSITIES)):
        for row, name in enumerate(batch["request_id"]):
            positions = {int(i["item_id"][1:]) + 1: i["position"] for i in log[name.decode()]["items"]}
            drawn = []
            for item, confidence in zip(batch["items"][row], batch["confidence"][row], strict=True):
                position = positions.get(item, -1)
                # At most ten times that of the first position; labelled pairs, padding and unknown positions are plainly believed.
                expected = {-1: 1.0, 0: 0.5, 1: 1.0, 2: 2.0}.get(position, 5.0)
                assert confidence == (1.0 if name.startswith(b"label") else expected)
                drawn += [confidence] if item == batch["positive"][row] else []
                seen.add((name[:1], confidence))
            assert drawn == [batch["positive_confidence"][row]]
    assert seen == {(b"l", 1.0), (b"r", 1.0), (b"r", 0.5), (b"r", 2.0), (b"r", 5.0)}


def test_propensities_change_nothing_else(made):
    shards, _, featurizer, _ = made
    without, with_them = (plain(training_batches(shards, featurizer, 64, 2, 1, propensities=p)) for p in (None, PROPENSITIES))
    for a, b in zip(without, with_them, strict=True):
        assert {n for n in a if a[n] != b[n]} == {"confidence", "positive_confidence"}


def test_evaluation_reads_every_example_once_in_order(made):
    shards, _, featurizer, _ = made
    order = [tf.train.Example.FromString(r.numpy()).features.feature["request_id"].bytes_list.value[0].decode() for r in
             tf.data.TFRecordDataset(shards.paths)]  # fmt: skip
    assert [i for batch in ids(evaluation_batches(shards, featurizer, 64)) for i in batch] == order
    assert len(order) == REQUESTS


def test_features_of_a_request(made):
    shards, _, featurizer, log = made
    seen = 0
    for batch in evaluation_batches(shards, featurizer, 64):
        query = featurizer.query(tf.constant([log[i.decode()]["query"] for i in batch["request_id"].numpy()]))["words"]
        np.testing.assert_array_equal(batch["query_words"], query)
        age = [log[i.decode()]["user_id"][1:] for i in batch["request_id"].numpy()]
        np.testing.assert_array_equal(batch["user_column_age"], featurizer.user({"age": tf.constant(age)})["user_column_age"])
        assert batch["history_items"].shape[1:] == batch["history_ages"].shape[1:] == [4]
        assert batch["history_query_words"].shape[1:] == [2, 3]
        for row, name in enumerate(batch["request_id"].numpy()):
            request = log[name.decode()]
            past = [
                r for r in log.values() if r["user_id"] == request["user_id"] and r["time"] < request["time"] and r["request_id"][0] == "r"
            ]
            clicked = [i for r in past for i in r["items"] if i["stage"] >= 1][-4:][::-1]
            expected = [int(i["item_id"][1:]) + 1 for i in clicked]
            assert batch["history_items"][row].numpy().tolist() == expected + [0] * (4 - len(expected))
            asked = [*[r["query"] for r in past][-2:][::-1], "", ""]
            np.testing.assert_array_equal(batch["history_query_words"][row], featurizer.query(tf.constant(asked[:2]))["words"])
            seen += bool(expected)
    assert seen > REQUESTS / 2


def test_supervision_takes_its_share_over_and_over(made):
    shards, labels, featurizer, _ = made
    found = [i for b in ids(training_batches(shards, featurizer, 10, 4, 1, 0, labels, 0.4)) for i in b]
    counts = collections.Counter(i for i in found if i.startswith("label"))
    assert 0.3 < sum(counts.values()) / len(found) < 0.5
    assert max(counts.values()) > 1
    assert len(counts) == labels.examples
    log = [i for i in found if i.startswith("r")]
    assert len(set(log)) == len(log)


def test_labelled_negatives_are_padded(made):
    shards, labels, featurizer, log = made
    (batch,) = plain(training_batches(labels, featurizer, 64, 0, 1))
    for name, negatives in zip(batch["request_id"], batch["negatives"], strict=True):
        expected = {int(i["item_id"][1:]) + 1 for i in log[name.decode()]["items"] if i["stage"] == 0}
        assert set(negatives) - {0} == expected
    (logged,) = plain(training_batches(shards, featurizer, 1000, 0, 1))
    assert not np.any(logged["negatives"])
