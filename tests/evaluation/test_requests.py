import math
import random as plain_random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfebr.data.catalogue import Catalogue
from tfebr.data.log import SCHEMA, SearchLog, split_time, write_log
from tfebr.data.stage import Stage
from tfebr.errors import ConfigError, DataError
from tfebr.evaluation import requests
from tfebr.evaluation.ranking import Ranking
from tfebr.evaluation.requests import HeldOut, evaluate_requests, held_out

ITEMS = 12
START = 1_704_067_200  # 2024


def catalogue() -> Catalogue:
    return Catalogue(pa.table({"item_id": [f"i{row}" for row in range(ITEMS)], "title": ["title"] * ITEMS}))


def log_of(path, rows: list[tuple], rows_per_file: int = 500_000) -> SearchLog:
    """rows: (request id, time, user id, query, [(item id, stage)])."""
    records = [
        dict(
            zip(SCHEMA.names, (*row[:4], [{"item_id": i, "stage": int(s), "position": p} for p, (i, s) in enumerate(row[4])]), strict=True)
        )
        for row in rows
    ]
    batches = [pa.RecordBatch.from_pylist(records[i : i + 7], schema=SCHEMA) for i in range(0, len(records), 7)]
    write_log(path, batches, rows_per_file=rows_per_file)
    return SearchLog(path)


def random_rows(n: int, seed: int) -> list[tuple]:
    """Requests with Zipf-like queries, repeated and unknown items, and every stage."""
    random = plain_random.Random(seed)
    rows, time = [], START
    for i in range(n):
        time += random.choice([0, 0, 1, 5])
        shown = [(f"i{random.randrange(ITEMS + 3)}", random.choice([0, 0, 0, 1, 2, 3])) for _ in range(random.randrange(6))]
        rows.append((f"r{i}", time, random.choice(["", "u1", "u2"]), f"q{int(random.paretovariate(0.7)) % 40}", shown))
    return rows


def plain_held_out(rows: list[tuple], start: int, end: float = math.inf) -> list[tuple]:
    traffic = Counter(row[3] for row in rows if row[1] < start)
    total, before, bands = sum(traffic.values()), 0, {}
    for query in sorted(traffic, key=lambda q: (-traffic[q], q)):
        bands[query] = "head" if before < total / 3 else "torso" if before < 2 * total / 3 else "tail"
        before += traffic[query]
    expected = []
    for request_id, time, user_id, query, shown in rows:
        best: dict[int, int] = {}
        for item_id, stage in shown:
            row = int(item_id[1:])
            if stage >= 1 and row < ITEMS:
                best[row] = max(best.get(row, 0), stage)
        if start <= time < end and best:
            ordered = sorted(row for row, stage in best.items() if stage == 3)
            expected.append(
                (request_id, time, user_id, query, sorted(best), [best[r] for r in sorted(best)], ordered, bands.get(query, "tail"))
            )
    return expected


def as_tuples(held: HeldOut) -> list[tuple]:
    lists = [[array.tolist() for array in field] for field in (held.clicked, held.stages, held.ordered)]
    return list(zip(held.request_ids, held.times.tolist(), held.user_ids, held.queries, *lists, held.bands, strict=True))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bounded", [False, True])
def test_held_out_equals_a_plain_pass_over_the_log(tmp_path, monkeypatch, seed, bounded):
    monkeypatch.setattr(requests, "_REQUESTS_AT_ONCE", 13)
    rows = random_rows(300, seed)
    log = log_of(tmp_path / "log", rows, rows_per_file=100)
    # Both bounds are times of requests with a click: the first is inside, the second is not.
    with_click = plain_held_out(rows, 0)
    start, end = with_click[len(with_click) // 2][1], with_click[-5][1] if bounded else None
    held = held_out(log, catalogue(), start_time=start, end_time=end)
    expected = plain_held_out(rows, start, math.inf if end is None else end)
    assert as_tuples(held) == expected
    assert {row[-1] for row in expected} == {"head", "torso", "tail"}


def test_bands_split_the_earlier_traffic_in_thirds_and_ignore_later_requests(tmp_path):
    earlier = ["a"] * 3 + ["b"] * 3 + ["c"] * 2 + ["d"]
    click = [("i0", Stage.CLICKED)]
    rows = [(f"r{i}", START, "", query, []) for i, query in enumerate(earlier)]
    rows += [(f"h{i}", START + 10, "", query, click) for i, query in enumerate(["d"] * 50 + ["a", "b", "c", "new"])]
    held = held_out(log_of(tmp_path / "log", rows), catalogue(), start_time=START + 10)
    assert dict(zip(held.queries, held.bands, strict=True)) == {"a": "head", "b": "torso", "c": "tail", "d": "tail", "new": "tail"}


def test_a_sample_is_the_same_for_the_same_seed_and_any_batch_size(tmp_path, monkeypatch):
    log = log_of(tmp_path / "log", random_rows(300, 1))
    everything = held_out(log, catalogue(), START + 100)
    sample = held_out(log, catalogue(), START + 100, max_requests=20, seed=3)
    assert len(sample) == 20
    assert set(as_text(sample)) <= set(as_text(everything))
    assert sample.times.tolist() == sorted(sample.times.tolist())
    monkeypatch.setattr(requests, "_REQUESTS_AT_ONCE", 11)
    assert as_tuples(held_out(log, catalogue(), START + 100, max_requests=20, seed=3)) == as_tuples(sample)
    assert as_tuples(held_out(log, catalogue(), START + 100, max_requests=20, seed=4)) != as_tuples(sample)
    assert as_tuples(held_out(log, catalogue(), START + 100, max_requests=10_000)) == as_tuples(everything)


def as_text(held: HeldOut) -> list[str]:
    return [str(row) for row in as_tuples(held)]


def test_a_sample_is_uniform(tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "_REQUESTS_AT_ONCE", 5)
    rows = [(f"r{i}", START + i, "", "q", [("i1", Stage.CLICKED)]) for i in range(20)]
    log, shop = log_of(tmp_path / "log", rows), catalogue()
    drawn = Counter(r for seed in range(150) for r in held_out(log, shop, START, max_requests=5, seed=seed).request_ids)
    # 150 draws of 5 of 20: each request is expected 37.5 times with a standard deviation of 5.3.
    assert min(drawn[f"r{i}"] for i in range(20)) > 37.5 - 5 * 5.3
    assert max(drawn[f"r{i}"] for i in range(20)) < 37.5 + 5 * 5.3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start_time": 10, "end_time": 10}, ConfigError, "`end_time` must be after `start_time` = 10"),
        ({"start_time": 10, "max_requests": 0}, ConfigError, "`max_requests` must be a whole number of at least 1"),
        ({"start_time": START + 1}, DataError, f"no request at or after time {START + 1} has a click"),
    ],
)
def test_an_impossible_part_is_refused(tmp_path, options, error, message):
    log = log_of(tmp_path / "log", [("r", START, "", "q", [("i1", Stage.CLICKED)])])
    with pytest.raises(error, match=message):
        held_out(log, catalogue(), **options)


def test_a_log_of_another_catalogue_is_refused(tmp_path):
    log = log_of(tmp_path / "log", [("r", START, "", "q", [("elsewhere", Stage.ORDERED)])])
    with pytest.raises(DataError, match="belong together"):
        held_out(log, catalogue(), 0)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("rows_per_file", [40, 1000])
def test_split_time_holds_out_the_share(tmp_path, share, rows_per_file):
    rows = random_rows(200, 0)
    time = split_time(log_of(tmp_path / "log", rows, rows_per_file), share)
    times = [row[1] for row in rows]
    later = [t for t in times if t >= time]
    assert len(later) >= share * 200
    assert len([t for t in times if t > time]) < share * 200
    assert min(times) < time


def test_split_time_refuses_what_cannot_be_split(tmp_path):
    log = log_of(tmp_path / "log", [(f"r{i}", START, "", "q", []) for i in range(5)])
    with pytest.raises(DataError, match="no time splits this log of 5 requests"):
        split_time(log)
    for share in (0.0, 1.0):
        with pytest.raises(ConfigError, match="`test_share`"):
            split_time(log, share)


class PlainOracle:
    """Good is an item whose row shares the parity of the query's length."""

    def good(self, queries, item_rows):
        assert item_rows.shape[0] == len(queries)
        assert (item_rows >= 0).all(), "the oracle is asked about real items only"
        return item_rows % 2 == np.array([len(q) % 2 for q in queries])[:, None]


@st.composite
def rankings_and_requests(draw):
    n, depth = draw(st.integers(1, 6)), draw(st.integers(4, 10))
    rows, clicked, stages = [], [], []
    for _ in range(n):
        results = draw(st.permutations(range(ITEMS)))[: draw(st.integers(0, depth))]
        rows.append(list(results) + [-1] * (depth - len(results)))
        clicks = draw(st.dictionaries(st.integers(0, ITEMS - 1), st.integers(1, 3), min_size=1, max_size=6))
        clicked.append(np.array(sorted(clicks), np.int64))
        stages.append(np.array([clicks[c] for c in sorted(clicks)], np.int8))
    queries = [draw(st.sampled_from(["q", "qq", "qqq"])) for _ in range(n)]
    bands = [draw(st.sampled_from(["head", "torso", "tail"])) for _ in range(n)]
    held = HeldOut([f"r{i}" for i in range(n)], queries, [""] * n, np.arange(n), clicked, stages, bands)
    rows = np.array(rows)
    return Ranking(rows, -np.arange(depth, dtype=np.float32) * np.ones(rows.shape)), held


def plain_values(rows, clicked, stages, query, k, depth, popularity):
    """Every metric of one request in plain Python, None where it is not defined."""
    gains = dict(zip(clicked, stages, strict=True))
    ordered = [c for c in clicked if gains[c] == 3]
    top = [r for r in rows[:k] if r >= 0]
    dcg = sum(gains.get(r, 0) / math.log2(i + 2) for i, r in enumerate(top))
    ideal = sum(g / math.log2(i + 2) for i, g in enumerate(sorted(stages, reverse=True)[:k]))
    return {
        f"clicked_recall@{k}": sum(c in top for c in clicked) / len(clicked),
        f"ordered_recall@{k}": sum(o in top for o in ordered) / len(ordered) if ordered else None,
        f"ndcg@{k}": dcg / ideal,
        "mrr": next((1 / (i + 1) for i, r in enumerate(rows[:depth]) if r in gains), 0.0),
        f"p_good@{k}": sum(r % 2 == len(query) % 2 for r in top) / k,
        f"popularity@{k}": sum(popularity[r] for r in top) / len(top) if top else None,
    }


@settings(max_examples=60, deadline=None)
@given(rankings_and_requests())
def test_every_metric_equals_its_plain_definition(case):
    ranking, held = case
    popularity = [float(3 * row % 7) for row in range(ITEMS)]
    report = evaluate_requests(ranking, held, (2, 4), np.array(popularity), PlainOracle())
    plain = [
        plain_values(rows, c.tolist(), s.tolist(), q, 2, 4, popularity) | plain_values(rows, c.tolist(), s.tolist(), q, 4, 4, popularity)
        for rows, c, s, q in zip(ranking.item_rows.tolist(), held.clicked, held.stages, held.queries, strict=True)
    ]
    assert set(report.metrics) == set(plain[0])
    means = report.means()
    for name in plain[0]:
        expected = [math.nan if row[name] is None else row[name] for row in plain]
        assert np.allclose(report.values(name), expected, equal_nan=True), name
        for suffix, chosen in [
            ("", plain),
            *((f"/{b}", [p for p, q in zip(plain, held.bands, strict=True) if q == b]) for b in set(held.bands)),
        ]:
            defined = [row[name] for row in chosen if row[name] is not None]
            assert means[name + suffix] == pytest.approx(sum(defined) / len(defined)) if defined else math.isnan(means[name + suffix])


@settings(max_examples=60, deadline=None)
@given(rankings_and_requests(), st.permutations(range(ITEMS)))
def test_values_are_bounded_grow_with_k_and_ignore_how_items_are_numbered_or_padded(case, order):
    ranking, held = case
    report = evaluate_requests(ranking, held, (1, 2, 3, 4))
    for name, values in report.metrics.items():
        assert (np.isnan(values) | ((values >= 0) & (values <= 1 + 1e-12))).all(), name
    for name in ("clicked_recall", "ordered_recall"):
        steps = np.diff([np.nan_to_num(report.values(f"{name}@{k}")) for k in (1, 2, 3, 4)], axis=0)
        assert (steps >= 0).all()
    order = np.array(order)
    renumbered = Ranking(np.where(ranking.item_rows >= 0, order[ranking.item_rows], -1), ranking.scores)
    pairs = [(order[c], s) for c, s in zip(held.clicked, held.stages, strict=True)]
    relabelled = HeldOut(
        held.request_ids, held.queries, held.user_ids, held.times, [c for c, _ in pairs], [s for _, s in pairs], held.bands
    )
    padded = Ranking(np.pad(ranking.item_rows, ((0, 0), (0, 3)), constant_values=-1), np.pad(ranking.scores, ((0, 0), (0, 3))))
    for other in (evaluate_requests(renumbered, relabelled, (1, 2, 3, 4)), evaluate_requests(padded, held, (1, 2, 3, 4))):
        for name in report.metrics:
            assert np.allclose(report.values(name), other.values(name), equal_nan=True), name


def one_request(**changes) -> HeldOut:
    fields = {"request_ids": ["r"], "queries": ["q"], "user_ids": [""], "times": np.zeros(1, np.int64), "bands": ["tail"]}
    fields |= {"clicked": [np.array([3])], "stages": [np.array([1], np.int8)]}
    return HeldOut(**(fields | changes))


def test_a_request_without_an_order_has_no_ordered_recall():
    report = evaluate_requests(Ranking(np.array([[3]]), np.ones((1, 1))), one_request(), (1,))
    assert np.isnan(report.values("ordered_recall@1")).all()
    assert report.to_json()["means"]["ordered_recall@1"] is None
    assert report.to_json()["defined"]["ordered_recall@1"] == 0
    assert report.means()["clicked_recall@1/tail"] == 1.0


@pytest.mark.parametrize(
    ("rows", "k", "popularity", "error", "message"),
    [
        ([[1], [2]], (1,), None, DataError, "2 rows for 1 requests"),
        ([[1, 2]], (1, 5), None, ConfigError, "k = 5 need a ranking of that depth. Received: depth 2"),
        ([[1, 2]], (0,), None, ConfigError, "`k` must be whole numbers of at least 1"),
        ([[1, 9]], (2,), np.ones(5), DataError, "`item_popularity` has 5 items, but the ranking holds row 9"),
    ],
)
def test_a_ranking_that_does_not_fit_is_refused(rows, k, popularity, error, message):
    with pytest.raises(error, match=message):
        evaluate_requests(Ranking(np.array(rows), np.zeros(np.shape(rows))), one_request(), k, popularity)


def test_fields_of_unequal_length_are_refused():
    with pytest.raises(DataError, match="'queries': 2"):
        one_request(queries=["a", "b"])
