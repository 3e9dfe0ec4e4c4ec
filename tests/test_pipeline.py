"""The main job on a tiny shop and on a tiny judged set: train, evaluate, export, and what stays when something fails."""

import dataclasses
import errno
import importlib
import json
import shutil

import ir_measures
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from harness import run_servable_test

from tfebr import pipeline
from tfebr.data.catalogue import Catalogue
from tfebr.data.dataset import DataFolder
from tfebr.data.stage import Stage
from tfebr.errors import ConfigError, DataError, TfebrError
from tfebr.evaluation.ranking import Ranking
from tfebr.evaluation.runs import read_run
from tfebr.infrastructure.files import read_json, write_json
from tfebr.models.run_folder import RunFolder

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")


def own_copy(run: RunFolder, folder) -> RunFolder:
    shutil.copytree(run.path, folder)
    return RunFolder(folder)


@pytest.fixture(scope="module")
def measured(tiny_run, tmp_path_factory):
    run = own_copy(tiny_run, tmp_path_factory.mktemp("pipeline") / "run")
    return run, pipeline.evaluate([run.path])


@pytest.fixture(scope="module")
def judged_run(judged_data, tiny_config, tmp_path_factory):
    return pipeline.train(judged_data.path, tmp_path_factory.mktemp("judged") / "run", "dpsr", tiny_config, quiet=True)


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    """A run with one exported version, checked in a fresh process."""
    run = own_copy(tiny_run, tmp_path_factory.mktemp("export") / "run")
    return run, pipeline.export(run.path, quiet=True)


@pytest.fixture
def unchecked(monkeypatch):
    """Leaves out the fresh process, which takes seconds, where a test is about something else."""
    monkeypatch.setattr(writing, "_check_in_fresh_process", lambda folder: {"ok": True})


def test_metrics_and_runs_are_written(measured, tiny_shop):
    run, reports = measured
    assert list(reports) == ["dpsr", "bm25"]
    written = json.loads((run.path / "metrics.json").read_text())["test"]
    catalogue = tiny_shop.catalogue()
    evaluation = pipeline.Evaluation.of(tiny_shop, run.split_time)
    for name, report in reports.items():
        means = report.means()
        assert written[name]["requests"] == len(report) == len(evaluation.request_ids)
        assert written[name]["means"]["mrr"] == pytest.approx(means["mrr"])
        assert 0 < means["clicked_recall@10"] <= means["clicked_recall@100"] <= 1
        # The run file holds the very ranking that was measured; its depth is that of the longest result list.
        ranking = read_run(run.path / "runs" / f"{name}-test.run", evaluation.request_ids, list(catalogue.item_ids))
        padding = [(0, 0), (0, 100 - ranking.k)]
        ranking = Ranking(np.pad(ranking.item_rows, padding, constant_values=-1), np.pad(ranking.scores, padding))
        assert evaluation.report(ranking).means()["clicked_recall@100"] == pytest.approx(means["clicked_recall@100"])


def test_the_order_of_shown_items_is_reported_from_one_embedding_of_everything(measured, tiny_shop, monkeypatch):
    run, reports = measured
    evaluation = pipeline.Evaluation.of(tiny_shop, run.split_time, max_requests=50)
    embedded = []
    for name in ("query_embeddings", "corpus_embeddings"):
        of = getattr(run.model_class, name)
        monkeypatch.setattr(run.model_class, name, lambda *args, of=of, name=name: embedded.append(name) or of(*args))
    ranking, report = pipeline.measure_model(run, evaluation)
    assert sorted(embedded) == ["corpus_embeddings", "query_embeddings"]
    # Every score, from the ranking of the whole catalogue; the shown items, from the log.
    deep = pipeline.rank_model(run, dataclasses.replace(evaluation, k=(len(tiny_shop.catalogue()),)))
    assert np.array_equal(deep.item_rows[:, : ranking.k], ranking.item_rows)
    shown = {r["request_id"]: r["items"] for batch in tiny_shop.log().batches() for r in batch.to_pylist()}
    whole = dict(zip(reports["dpsr"].ids, reports["dpsr"].values("click_over_unclicked"), strict=True))
    for row, request_id in enumerate(evaluation.request_ids):
        scores = dict(zip(deep.item_rows[row].tolist(), deep.scores[row].tolist(), strict=True))
        rows = tiny_shop.catalogue().rows_of(pa.array([i["item_id"] for i in shown[request_id]])).tolist()
        clicked = [scores[at] for at, item in zip(rows, shown[request_id], strict=True) if item["stage"] >= Stage.CLICKED]
        others = [scores[at] for at, item in zip(rows, shown[request_id], strict=True) if item["stage"] == Stage.UNCLICKED]
        pairs = [(a > b) + (a == b) / 2 for a in clicked for b in others]
        expected = np.mean(pairs) if pairs else np.nan
        assert report.values("click_over_unclicked")[row] == pytest.approx(expected, abs=1e-9, nan_ok=True)
        assert whole[request_id] == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["a/run", "b/run"], ["a/run", "b/run"]),
        (["run", "a/run"], ["start/run", "a/run"]),
        (["a/run", "a/other", "b/run"], ["a/run", "other", "b/run"]),
        (["x/a/run", "y/a/run", "y/b/run"], ["x/a/run", "y/a/run", "b/run"]),
        (["bm25", "other"], ["start/bm25", "other"]),
    ],
)
def test_runs_of_one_model_have_different_names(tiny_run, tmp_path, folders, names):
    paths = [tmp_path / "start" / folder for folder in folders]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(shutil.copytree(tiny_run.path, tmp_path / "runs" / str(len(list(tmp_path.glob("runs/*"))))))
    assert pipeline._names([RunFolder(path) for path in paths]) == names


def test_no_report_is_lost_where_folders_have_one_name(tiny_run, tiny_shop, tmp_path):
    runs = [own_copy(tiny_run, tmp_path / name / "run").path for name in ("a", "b")]
    reports = pipeline.evaluate(runs, max_requests=30)
    assert list(reports) == ["a/run", "b/run", "bm25"]
    for run in runs:
        assert set(read_json(run / "metrics.json")["test"]) == {"dpsr", "bm25"}
    with pytest.raises(DataError, match=r"`runs`: '.*run' is given twice"):
        pipeline.evaluate([runs[0], tmp_path / "b" / ".." / "a" / "run"])


def test_metrics_are_written_whatever_becomes_of_the_run_files(tiny_run, tmp_path, monkeypatch):
    run = own_copy(tiny_run, tmp_path / "run")

    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(pipeline, "write_run", full)
    with pytest.raises(OSError, match="no space"):
        pipeline.evaluate([run.path], max_requests=30)
    assert set(read_json(run.path / "metrics.json")["test"]) == {"dpsr", "bm25"}


def test_repeated_request_ids_are_refused_before_one_is_taken_for_another(tiny_run, tiny_shop, monkeypatch):
    evaluation = pipeline.Evaluation.of(tiny_shop, tiny_run.split_time)
    ids = evaluation.request_ids
    with pytest.raises(DataError, match=f"request_id: {ids[0]!r} is given twice"):
        dataclasses.replace(evaluation.requests, request_ids=[*ids[:-1], ids[0]])
    batches = pipeline.evaluation_batches

    def repeated(*arguments, **settings):
        return batches(*arguments, **settings).map(lambda batch: batch | {"request_id": tf.fill(tf.shape(batch["request_id"]), "same")})

    monkeypatch.setattr(pipeline, "evaluation_batches", repeated)
    with pytest.raises(DataError, match="two test examples have the request id 'same'"):
        pipeline.rank_model(tiny_run, evaluation)


def test_held_out_requests_are_the_last_and_none_is_trained_on(measured, tiny_shop):
    run, reports = measured
    times = {r: t for b in tiny_shop.log().batches() for r, t in zip(b["request_id"].to_pylist(), b["time"].to_pylist(), strict=True)}
    assert min(times[i] for i in reports["dpsr"].ids) >= run.split_time
    assert sum(t >= run.split_time for t in times.values()) / len(times) == pytest.approx(pipeline.TEST_SHARE, abs=0.01)


def test_an_explicit_time_splits_the_log(tiny_shop, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "fit", lambda run, quiet: None)
    clicked = [
        time
        for batch in tiny_shop.log().batches()
        for time, items in zip(batch["time"].to_pylist(), batch["items"].to_pylist(), strict=True)
        if any(item["stage"] >= Stage.CLICKED for item in items)
    ]
    at = clicked[len(clicked) // 3]
    run = pipeline.train(tiny_shop.path, tmp_path / "run", "dpsr", tiny_config, quiet=True, test_from=at)
    assert run.split_time == at
    assert run.shards("train").examples == sum(time < at for time in clicked)
    assert run.shards("test").examples == sum(time >= at for time in clicked)


def test_a_sample_of_requests(tiny_run, tmp_path):
    run = own_copy(tiny_run, tmp_path / "run")
    assert len(pipeline.evaluate([run.path], max_requests=20)["dpsr"]) == 20


def test_bm25_reads_the_columns_that_the_data_folder_declares(judged_data, tmp_path):
    def ranked(name: str, table: pa.Table, columns: dict | None = None) -> list[list[int]]:
        folder = tmp_path / name
        shutil.copytree(judged_data.path / "judgments", folder / "judgments")
        Catalogue(table).write(folder / "catalogue.parquet")
        if columns is not None:
            write_json(folder / "about.json", {"columns": columns})
        evaluation = pipeline.Evaluation.of(DataFolder(folder), None)
        return pipeline.rank_bm25(dataclasses.replace(evaluation, k=(10,))).item_rows.tolist()

    table = judged_data.catalogue().table
    whole = ranked("whole", table)
    others = [name for name in table.column_names if name not in ("item_id", "title")]
    renamed = table.rename_columns([name if name not in others else f"spalte {others.index(name)}" for name in table.column_names])
    assert ranked("renamed", renamed) == whole
    bare = ranked("bare", table.select(["item_id", "title"]))
    assert bare != whole
    assert ranked("ignored", table, {"ignored": others}) == bare
    # What only a column of text says, in words in any order, is found; declared as ignored, it is not.
    text = pa.array([" ".join(reversed(title.split())) for title in table["title"].to_pylist()])
    untitled = table.select(["item_id"]).append_column("title", pa.array(["thing"] * len(table))).append_column("description", text)
    assert ranked("described", untitled, {"text": ["description"]})[0][0] >= 0
    assert ranked("undescribed", untitled, {"ignored": ["description"]})[0][0] == -1


def test_a_judged_set_takes_the_same_path(judged_run, judged_data):
    reports = pipeline.evaluate([judged_run.path])
    judgments = judged_data.judgments().split("test")
    qrels = [ir_measures.Qrel(q["query_id"], q["item_id"], int(q["relevance"] >= 2)) for q in judgments.qrels.to_pylist()]
    for name, report in reports.items():
        file = judged_run.path / "runs" / f"{name}-test.run"
        found = ir_measures.calc_aggregate([ir_measures.R @ 100], qrels, list(ir_measures.read_trec_run(str(file))))
        assert report.means()["recall@100"] == pytest.approx(found[ir_measures.R @ 100], abs=1e-6), name
    assert reports["dpsr"].means()["recall@100"] > 0.2
    assert {"train", "test"} >= set(json.loads((judged_run.path / "metrics.json").read_text()))
    train = pipeline.evaluate([judged_run.path], split="train")["dpsr"]
    assert len(train) > len(reports["dpsr"])


def test_the_name_of_a_split_is_no_path(judged_run, judged_data, tmp_path):
    run, split = own_copy(judged_run, tmp_path / "run"), "../../../../out"
    judgments, folder = judged_data.judgments(), tmp_path / "data"
    judged_data.catalogue().write(folder / "catalogue.parquet")
    splits = pa.array([{"test": split}.get(name, name) for name in judgments.queries["split"].to_pylist()])
    dataclasses.replace(judgments, queries=judgments.queries.set_column(2, "split", splits)).write(folder / "judgments")
    evaluation = pipeline.Evaluation.of(DataFolder(folder), None, split)
    assert len(pipeline.rank_model(run, evaluation)) == len(evaluation.queries)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "data"}


def test_labelled_pairs_join_the_log(tiny_shop, judged_data, tiny_config, tmp_path):
    config = tiny_config | {"explicit_negatives": 2, "training": {"epochs": 1, "batch_size": 64, "supervision_share": 0.5}}
    run = pipeline.train(tiny_shop.path, tmp_path / "run", "dpsr", config, supervision=judged_data.path, quiet=True)
    assert run.supervision().examples == judged_data.judgments().split("train").queries.num_rows
    assert run.trained_model().corpus_embeddings().shape == (len(tiny_shop.catalogue()), 16)


@pytest.mark.parametrize(
    ("model", "config"), [("two_tower", {"dim": 16}), ("mgdspr", {"dim": 32, "column_dim": 4, "random_negatives": 100, "hard": 80})]
)
def test_every_model_takes_the_same_path(tiny_shop, tmp_path, model, config, unchecked):
    run = pipeline.train(tiny_shop.path, tmp_path / "run", model, config | {"training": {"epochs": 1, "batch_size": 64}}, quiet=True)
    reports = pipeline.evaluate([run.path])
    assert list(reports) == [model, "bm25"]
    assert reports[model].means()["clicked_recall@100"] > 0.3
    version = pipeline.export(run.path, quiet=True)
    assert version == run.path / "servable" / model / "1"
    run_servable_test(version, list(tiny_shop.catalogue().item_ids))


def test_the_exported_version_answers_everything(exported, tiny_shop):
    run, version = exported
    assert version == run.path / "servable" / "dpsr" / "1"
    run_servable_test(version, list(tiny_shop.catalogue().item_ids))


def test_the_manifest_says_what_it_is(exported, tiny_run):
    manifest = json.dumps(json.loads((exported[1] / "assets.extra" / "manifest.json").read_text()))
    assert '"model": "dpsr"' in manifest
    assert tiny_run.table.catalogue_hash in manifest


def test_every_column_of_the_catalogue_can_be_filtered_by(exported, tiny_shop):
    manifest = json.loads((exported[1] / "assets.extra" / "manifest.json").read_text())
    catalogue = tiny_shop.catalogue()
    kinds = dict.fromkeys(catalogue.categorical_columns, "category") | dict.fromkeys(catalogue.number_columns, "number")
    assert manifest["filter_columns"] == kinds
    assert set(kinds) == set(manifest["signatures"]["attributes"]["outputs"])
    assert "filter" in manifest["signatures"]["search"]["inputs"]


def test_the_next_export_is_the_next_version(exported, unchecked):
    run, first = exported
    before = {p.relative_to(first): p.read_bytes() for p in first.rglob("*") if p.is_file()}
    second = pipeline.export(run.path, quiet=True)
    assert second == first.parent / "2"
    assert {p.relative_to(first): p.read_bytes() for p in first.rglob("*") if p.is_file()} == before
    shutil.rmtree(second)


@pytest.mark.parametrize("failure", ["disk", "check"])
def test_a_failing_export_leaves_what_was_there(exported, monkeypatch, failure):
    run, first = exported

    def fail(folder):
        if failure == "disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        raise TfebrError("another answer after loading")

    monkeypatch.setattr(writing, "_check_in_fresh_process", fail)
    before = sorted(first.parent.rglob("*"))
    with pytest.raises(TfebrError, match=r"No space left on device.*Free some space|another answer"):
        pipeline.export(run.path, quiet=True)
    assert sorted(first.parent.rglob("*")) == before
    assert [p.name for p in first.parent.iterdir()] == ["1"]


def test_a_changed_catalogue_is_refused(tiny_shop, tiny_config, tmp_path):
    shutil.copytree(tiny_shop.path, tmp_path / "shop")
    run = pipeline.train(
        tmp_path / "shop", tmp_path / "run", "dpsr", tiny_config | {"training": {"epochs": 1, "batch_size": 512}}, quiet=True
    )
    table = tiny_shop.catalogue().table
    Catalogue(pa.concat_tables([table.slice(1), table.slice(0, 1)])).write(tmp_path / "shop" / "catalogue.parquet")
    with pytest.raises(ConfigError, match=r"the catalogue has changed.*Train again"):
        pipeline.export(run.path, quiet=True)
    with pytest.raises(TfebrError, match="catalogue"):
        pipeline.evaluate([run.path])
    assert not (run.path / "servable").exists()


def test_a_full_disk_while_examples_are_written_leaves_nothing(tiny_shop, tiny_config, tmp_path, monkeypatch):
    real = pipeline.write_examples.__globals__["tf"].io.TFRecordWriter
    # A device that is always full: TensorFlow's own error for it.
    monkeypatch.setattr("tensorflow.io.TFRecordWriter", lambda path: real("/dev/full"))
    with pytest.raises(TfebrError, match=r"examples.*not written: .*Free some space"):
        pipeline.train(tiny_shop.path, tmp_path / "run", "dpsr", tiny_config, quiet=True)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["config.json"]
