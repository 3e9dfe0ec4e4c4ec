"""Order within a request equals plain definitions, ties give nobody an advantage, and the shown order of real lists is what is known."""

import importlib
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfebr.data.log import shown_items
from tfebr.data.readers import prepare
from tfebr.errors import DataError
from tfebr.evaluation.stage_order import METRICS, ShownItems, order_metrics, shown_order, shown_scores, stage_order

# The room's public function has the name of its module, which an import gives only sometimes.
module = importlib.import_module("tfebr.evaluation.stage_order")

REAL = Path(__file__).parents[3] / "shared" / "data" / "trivago_sessions"


def plain(scores: list[float], items: list[int], stages: list[int]) -> dict[str, float]:
    """Every metric of one request by its definition; the mrr as a mean over all orders that the scores allow."""
    latest: dict[int, tuple[int, float]] = {}
    for score, item, stage in zip(scores, items, stages, strict=True):
        if item and (item not in latest or stage > latest[item][0]):
            latest[item] = stage, score
    shown = list(latest.values())

    def share(above, below) -> float:
        found = [(x, y) for (s, x), (t, y) in itertools.product(shown, shown) if s > t and s in above and t in below]
        return sum(1.0 if x > y else 0.5 if x == y else 0.0 for x, y in found) / len(found) if found else math.nan

    ranks = []
    for order in itertools.permutations(shown):
        if all(x[1] >= y[1] for x, y in itertools.pairwise(order)):
            ranks += [1 / (i + 1) for i, (stage, _) in enumerate(order) if stage > 0][:1]
    return {
        "order_over_click": share({3}, {1, 2}),
        "click_over_unclicked": share({1, 2, 3}, {0}),
        "all_pairs": share({1, 2, 3}, {0, 1, 2}),
        "shown_mrr": sum(ranks) / len(ranks) if ranks else math.nan,
    }


@st.composite
def requests(draw):
    n, shown = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    rows = st.lists(st.integers(0, 7), min_size=shown, max_size=shown)
    items = np.array([draw(rows) for _ in range(n)])
    stages = np.array([draw(st.lists(st.integers(0, 3), min_size=shown, max_size=shown)) for _ in range(n)])
    # Few values make many ties; an item has one score wherever it stands.
    of_item = np.array([draw(st.lists(st.sampled_from([-1.5, 0.0, 0.25, 2.0]), min_size=8, max_size=8)) for _ in range(n)], np.float32)
    return np.take_along_axis(of_item, items, axis=1), items, np.where(items > 0, stages, -1)


@given(requests(), st.sampled_from([1, 30, 1 << 22]))
def test_every_metric_equals_its_definition(case, at_once):
    scores, items, stages = case
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_VALUES_AT_ONCE", at_once)
        found = order_metrics(scores, items, stages)
    assert tuple(found) == METRICS
    expected = [plain(*(array[row].tolist() for array in case)) for row in range(len(items))]
    for name in METRICS:
        assert np.allclose(found[name], [row[name] for row in expected], equal_nan=True), name


def test_padding_and_what_it_scores_change_nothing():
    random = np.random.default_rng(0)
    scores, items = random.normal(size=(20, 9)), np.argsort(random.random((20, 9))) + 1
    stages = random.integers(0, 4, (20, 9))
    wide = [np.pad(array, ((0, 0), (3, 2)), constant_values=value) for array, value in ((scores, np.inf), (items, 0), (stages, 3))]
    for name, values in order_metrics(scores, items, stages).items():
        assert np.array_equal(order_metrics(*wide)[name], values, equal_nan=True)


@pytest.mark.parametrize("clicks", [1, 3, 10])
def test_constant_scores_are_worth_a_random_order(clicks):
    random = np.random.default_rng(1)
    stages = (np.arange(10) < clicks).astype(int)[None]
    items = np.arange(1, 11)[None]
    tied = order_metrics(np.full((1, 10), 7.0), items, stages)
    orders = random.random((20_000, 10))
    mean = order_metrics(orders, np.tile(items, (20_000, 1)), np.tile(stages, (20_000, 1)))["shown_mrr"].mean()
    assert tied["shown_mrr"][0] == pytest.approx(mean, abs=0.01)
    assert np.array_equal(tied["all_pairs"], [0.5 if clicks < 10 else np.nan], equal_nan=True)


def test_a_model_is_scored_by_its_best_head_and_equal_items_are_tied():
    random = np.random.default_rng(2)
    embeddings = random.normal(size=(40, 37)).astype(np.float32)
    embeddings[20:] = embeddings[:20]
    queries = random.normal(size=(60, 4, 37)).astype(np.float32)
    items = random.integers(0, 41, (60, 23))
    scores = shown_scores(queries, items, embeddings)
    expected = np.einsum("qhd,id->qhi", queries.astype(np.float64), embeddings.astype(np.float64)).max(axis=1)
    expected = np.where(items > 0, np.take_along_axis(expected, np.maximum(items - 1, 0), axis=1), 0.0)
    assert np.allclose(scores, expected, atol=1e-4)
    assert (scores < 0).any()
    same = ((items[:, :, None] - 1) % 20 == (items[:, None, :] - 1) % 20) & (items[:, :, None] > 0) & (items[:, None, :] > 0)
    tied = np.abs(scores[:, :, None] - scores[:, None, :]) <= 1e-6 * np.abs(scores).max(axis=1)[:, None, None]
    assert np.array_equal(tied, same | (items[:, :, None] == items[:, None, :]))


def test_the_last_bits_of_scores_decide_no_metric():
    random = np.random.default_rng(5)
    scores = random.integers(-3, 4, (60, 5)) / 8
    items, stages = np.tile(np.arange(1, 6), (60, 1)), random.integers(0, 4, (60, 5))
    noisy = (scores * (1 + 1e-7 * random.uniform(-1, 1, scores.shape))).astype(np.float32)
    assert (noisy != scores).any()
    for name, values in order_metrics(noisy, items, stages).items():
        np.testing.assert_allclose(
            values, [plain(*row)[name] for row in zip(scores.tolist(), items.tolist(), stages.tolist(), strict=True)]
        )


@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_a_stream_has_the_values_of_the_whole(monkeypatch, batch_size):
    monkeypatch.setattr(module, "_VALUES_AT_ONCE", 100)
    random = np.random.default_rng(3)
    embeddings, queries = random.normal(size=(30, 8)), random.normal(size=(50, 2, 8))
    items = np.argsort(random.random((50, 12)))[:, :10]
    stages, positions = np.where(items > 0, random.integers(0, 4, (50, 10)), -1), np.tile(np.arange(10), (50, 1))
    ids = [f"r{i}" for i in range(50)]
    parts = [slice(start, start + batch_size) for start in range(0, 50, batch_size)]
    batches = [ShownItems(ids[p], queries[p], items[p], stages[p], positions[p]) for p in parts]
    for report, scores in (
        (stage_order(iter(batches), embeddings), shown_scores(queries, items, embeddings)),
        (shown_order(iter(batches)), -np.arange(10.0)[None].repeat(50, axis=0)),
    ):
        assert report.ids == ids
        for name, values in order_metrics(scores, items, stages).items():
            assert np.array_equal(report.values(name), values, equal_nan=True)


def test_no_requests_are_an_empty_report():
    report = stage_order([], np.zeros((3, 2)))
    assert (len(report), set(report.metrics)) == (0, set(METRICS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": np.zeros((2, 4))}, r"\[batch, heads, dim\].*\(2, 4\)"),
        ({"queries": np.zeros((2, 1, 5))}, r"\(2, 1, 5\).*\(3, 4\)"),
        ({"items": np.array([[1, 4], [1, 2]])}, "row 4, but there are embeddings of 3 items"),
        ({"stages": np.zeros((2, 3), int)}, r"all be \[batch, shown\].*\(2, 3\)"),
        ({"queries": np.array([[[0, 0, 0, 0]], [[0, 0, np.nan, 0]]])}, "row 1 has the score of a shown item that is not finite"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    fine = {
        "request_ids": ["a", "b"],
        "queries": np.zeros((2, 1, 4)),
        "items": np.array([[1, 2], [3, 0]]),
        "stages": np.array([[0, 1], [1, -1]]),
        "positions": np.zeros((2, 2), int),
    }
    assert len(stage_order([ShownItems(**fine)], np.ones((3, 4)))) == 2
    with pytest.raises(DataError, match=message):
        stage_order([ShownItems(**fine | changes)], np.ones((3, 4)))


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/trivago_sessions is not there")
def test_the_order_that_trivago_showed(tmp_path):
    """Two published figures of these lists: 0.450 as shown, and 0.172 for items without any order."""
    log = prepare("trivago", REAL, tmp_path / "out", quiet=True).log()
    batches = []
    for batch in log.batches():
        request, item_ids, stages, positions = shown_items(batch)
        rows = item_ids.dictionary_encode().indices.to_numpy() + 1
        shape = batch.num_rows, int(positions.max()) + 1
        items, stage = np.zeros(shape, np.int64), np.full(shape, -1)
        items[request, positions], stage[request, positions] = rows, stages
        clicked = (stage > 0).any(axis=1)
        places = np.tile(np.arange(shape[1]), (shape[0], 1))
        ids = batch["request_id"].to_pylist()
        chosen = np.flatnonzero(clicked)
        batches.append(ShownItems([ids[i] for i in chosen], np.zeros((len(chosen), 1, 2)), items[chosen], stage[chosen], places[chosen]))
    embeddings = np.zeros((max(int(b.items.max()) for b in batches), 2), np.float32)
    assert shown_order(batches).means()["shown_mrr"] == pytest.approx(0.450, abs=5e-4)
    assert stage_order(batches, embeddings).means()["shown_mrr"] == pytest.approx(0.172, abs=5e-3)
