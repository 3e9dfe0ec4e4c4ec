"""A run is tied to the content of its data, and a folder to a run only once something was trained."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfebr import pipeline
from tfebr.data.dataset import DataFolder
from tfebr.data.judgments import Judgments
from tfebr.data.log import split_time, write_log
from tfebr.errors import ConfigError, DataError, TfebrError
from tfebr.infrastructure.files import held
from tfebr.models.run_folder import RunFolder, input_content


def catalogue_change(column: str, change):
    """Another value in every row of a column; ids and rows as they were."""

    def apply(data: Path) -> None:
        table = pq.read_table(data / "catalogue.parquet")
        values = pa.array([change(v) for v in table[column].to_pylist()], table.schema.field(column).type)
        pq.write_table(table.set_column(table.column_names.index(column), column, values), data / "catalogue.parquet")

    return apply


def log_change(change):
    def apply(data: Path) -> None:
        batches = list(DataFolder(data).log().batches())
        rows = [row for batch in batches for row in batch.to_pylist()]
        for row in rows:
            change(row)
        write_log(data / "log", [pa.RecordBatch.from_pylist(rows, batches[0].schema)])

    return apply


def users_change(data: Path) -> None:
    table = pq.read_table(data / "users.parquet")
    name = next(n for n in table.column_names if n != "user_id")
    turned = pa.array(table[name].to_pylist()[::-1], table.schema.field(name).type)
    pq.write_table(table.set_column(table.column_names.index(name), name, turned), data / "users.parquet")


def unbuy(row: dict) -> None:
    for item in row["items"]:
        item["stage"] = min(item["stage"], 1)


CHANGES = {
    "titles": (catalogue_change("title", lambda t: " ".join(t.split()[::-1])), "catalogue: column `title`"),
    "brands": (catalogue_change("brand", str.upper), "catalogue: column `brand`"),
    "prices": (catalogue_change("price", lambda p: p + 1), "catalogue: column `price`"),
    "queries": (log_change(lambda row: row.update(query=row["query"][::-1])), "log: column `query`"),
    "labels": (log_change(unbuy), "log: column `items`"),
    "users": (users_change, "users: column "),
}


@pytest.fixture
def corrected(tiny_shop, tiny_run, tmp_path):
    """A copy of the tiny shop, and of the run that was trained on it, which takes the copy for its data."""
    shutil.copytree(tiny_shop.path, tmp_path / "shop")
    shutil.copytree(tiny_run.path, tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"data": str((tmp_path / "shop").resolve())}))
    return tmp_path / "shop", tmp_path / "run"


@pytest.mark.parametrize("what", CHANGES)
def test_corrected_data_under_the_same_ids_and_times_is_refused_by_name(corrected, tiny_config, what):
    shop, run = corrected
    change, name = CHANGES[what]
    change(shop)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match=rf"run: its data has changed since it was trained: .*{name}.*Choose a new folder"):
        pipeline.train(shop, run, "dpsr", tiny_config, quiet=True)
    with pytest.raises(ConfigError, match=rf"shop: the (data|catalogue) has changed since .*run was trained: {name}.*Train again"):
        pipeline.evaluate([run])
    if name.startswith("catalogue"):
        with pytest.raises(ConfigError, match=rf"{name}.*or publish the new catalogue .*`tfebr refresh .*run .*shop`"):
            pipeline.export(run, quiet=True)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_the_same_content_written_otherwise_goes_on(corrected, tiny_config):
    shop, run = corrected
    table = pq.read_table(shop / "catalogue.parquet")
    pq.write_table(table, shop / "catalogue.parquet", compression="none", row_group_size=9, use_dictionary=False)
    rows = list(DataFolder(shop).log().batches())
    write_log(shop / "log", rows, rows_per_file=700)
    pipeline.train(shop, run, "dpsr", tiny_config, quiet=True)
    assert pipeline.evaluate([run])["dpsr"].means()["mrr"] > 0


def test_what_nothing_reads_may_change(corrected, tiny_config):
    shop, run = corrected
    table = pq.read_table(shop / "catalogue.parquet")
    for number in range(2):
        url = pa.array([f"{number}/{i}" for i in range(table.num_rows)])
        pq.write_table(table.append_column("url", url), shop / "catalogue.parquet")
        about = json.loads((shop / "about.json").read_text())
        (shop / "about.json").write_text(json.dumps(about | {"columns": {"ignored": ["url"]}}))
        found = input_content(DataFolder(shop).check(quiet=True))
        assert found == RunFolder(run).content


def judged_copy(source: DataFolder, target: Path, change=None) -> DataFolder:
    """The judged data with judgments that `change` has gone over, as (queries, qrels) of plain rows."""
    if not target.exists():
        shutil.copytree(source.path, target)
    judgments = source.judgments()
    queries, qrels = judgments.queries.to_pylist(), judgments.qrels.to_pylist()
    if change is not None:
        change(queries, qrels)
    schemas = judgments.queries.schema, judgments.qrels.schema
    tables = [pa.Table.from_pylist(rows, schema) for rows, schema in zip((queries, qrels), schemas, strict=True)]
    Judgments(*tables, judgments.relevant_from).write(target / "judgments")
    return DataFolder(target)


def of_split(split: str, names: list[dict]) -> set[str]:
    return {q["query_id"] for q in names if q["split"] == split}


def relabel(split: str):
    def change(queries: list[dict], qrels: list[dict]) -> None:
        there = of_split(split, queries)
        for row in qrels:
            if row["query_id"] in there:
                row["relevance"] = 3.0 - row["relevance"]

    return change


def reword(split: str):
    def change(queries: list[dict], qrels: list[dict]) -> None:
        for row in queries:
            if row["split"] == split:
                row["query"] = row["query"][::-1]

    return change


@pytest.fixture(scope="module")
def judged_run(judged_data, tiny_config, tmp_path_factory) -> RunFolder:
    folder = tmp_path_factory.mktemp("judged")
    judged_copy(judged_data, folder / "data")
    return pipeline.train(folder / "data", folder / "run", "dpsr", tiny_config | {"training": {"epochs": 1, "batch_size": 64}}, quiet=True)


@pytest.mark.parametrize("change", [relabel("train"), reword("train")])
def test_corrected_training_judgments_are_refused(judged_run, judged_data, tmp_path, tiny_config, change):
    data = judged_copy(judged_data, tmp_path / "data", change)
    with pytest.raises(ConfigError, match=r"judgments of 'train': column `(qrels|queries)\."):
        pipeline.evaluate([judged_run.path], data=data.path)


def test_corrected_test_judgments_are_measured_as_they_are_now(judged_run, judged_data, tmp_path):
    """Their queries are embedded anew: what an earlier evaluation has written is of other text."""
    shutil.copytree(judged_run.path, tmp_path / "run")
    before = pipeline.evaluate([tmp_path / "run"])["dpsr"]
    for change in (relabel("test"), reword("test"), None):
        data = judged_copy(judged_data, tmp_path / "data", change)
        after = pipeline.evaluate([tmp_path / "run"], data=data.path)["dpsr"]
        fresh = tmp_path / "fresh"
        shutil.copytree(judged_run.path, fresh)
        expected = pipeline.evaluate([fresh], data=data.path)["dpsr"]
        shutil.rmtree(fresh)
        assert after.means() == expected.means()
        assert (after.means() == before.means()) == (change is None)


def test_corrected_supervision_is_refused(judged_data, tiny_shop, tiny_config, tmp_path):
    labels = judged_copy(judged_data, tmp_path / "labels")
    config = tiny_config | {"training": {"epochs": 1, "batch_size": 512}}
    pipeline.train(tiny_shop.path, tmp_path / "run", "dpsr", config, labels.path, quiet=True)
    pipeline.train(tiny_shop.path, tmp_path / "run", "dpsr", config, labels.path, quiet=True)
    judged_copy(judged_data, tmp_path / "labels", relabel("test"))
    pipeline.train(tiny_shop.path, tmp_path / "run", "dpsr", config, labels.path, quiet=True)
    judged_copy(judged_data, tmp_path / "labels", relabel("train"))
    with pytest.raises(ConfigError, match=r"its data has changed .*supervision: column `qrels\.relevance`"):
        pipeline.train(tiny_shop.path, tmp_path / "run", "dpsr", config, labels.path, quiet=True)


def bad_row(data: Path) -> None:
    (data / "log" / "part-99999.parquet").write_bytes(b"no parquet")


def unknown_item(data: Path) -> None:
    log_change(lambda row: [item.update(item_id="nobody knows") for item in row["items"]])(data)


def no_clicks_at_the_end(data: Path) -> None:
    last = split_time(DataFolder(data).log())
    log_change(lambda row: [item.update(stage=0) for item in row["items"]] if row["time"] >= last else None)(data)


@pytest.mark.parametrize("fault", [bad_row, unknown_item, no_clicks_at_the_end])
@pytest.mark.parametrize("there", [False, True])
def test_a_first_training_that_fails_leaves_the_folder_free(tiny_shop, tmp_path, tiny_config, fault, there):
    shutil.copytree(tiny_shop.path, tmp_path / "shop")
    fault(tmp_path / "shop")
    if there:
        (tmp_path / "run").mkdir()
    with pytest.raises(DataError):
        pipeline.train(tmp_path / "shop", tmp_path / "run", "dpsr", tiny_config, quiet=True)
    assert (tmp_path / "run").exists() == there
    assert not there or not list((tmp_path / "run").iterdir())


def test_until_something_was_trained_other_data_and_settings_replace_what_was_prepared(tiny_shop, tiny_run, tiny_config, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run.path, run, ignore=shutil.ignore_patterns("checkpoints", "metrics.json", "runs"))
    (run / "checkpoints").mkdir()
    shutil.copytree(tiny_shop.path, tmp_path / "shop")
    CHANGES["titles"][0](tmp_path / "shop")
    small = {"dim": 8, "training": {"epochs": 1, "batch_size": 512}}
    again = pipeline.train(tmp_path / "shop", run, "two_tower", small, quiet=True)
    assert again.model_name == "two_tower"
    assert again.table.catalogue_hash == DataFolder(tmp_path / "shop").catalogue().content_hash()
    assert again.trained_on().titles == DataFolder(tmp_path / "shop").catalogue().titles
    fresh = pipeline.train(tmp_path / "shop", tmp_path / "fresh", "two_tower", small, quiet=True)
    for name, values in fresh.table.columns.items():
        np.testing.assert_array_equal(again.table.columns[name], values)
    with pytest.raises(ConfigError, match="belongs to another run: its `model` is 'two_tower'"):
        pipeline.train(tiny_shop.path, run, "dpsr", tiny_config, quiet=True)


@pytest.mark.parametrize("found", ["{}", '{"model_type": "bert"}'])
def test_a_config_of_something_else_is_left_alone(tiny_shop, tiny_config, tmp_path, found):
    (tmp_path / "config.json").write_text(found)
    with pytest.raises(ConfigError, match="is not empty and not a run folder"):
        pipeline.train(tiny_shop.path, tmp_path, "dpsr", tiny_config, quiet=True)
    assert (tmp_path / "config.json").read_text() == found


def test_one_process_at_a_time_trains_into_a_folder(tiny_shop, tiny_config, tmp_path):
    with held(tmp_path), pytest.raises(TfebrError, match="another process is training into this folder"):
        pipeline.train(tiny_shop.path, tmp_path, "dpsr", tiny_config, quiet=True)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file: is a file, where a folder is needed"):
        pipeline.train(tiny_shop.path, tmp_path / "file", "dpsr", tiny_config, quiet=True)
