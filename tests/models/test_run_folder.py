"""Run folders belong to one model, config and data; what is missing or damaged is named."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from tfebr import pipeline
from tfebr.data import text
from tfebr.data.dataset import DataFolder
from tfebr.data.log import SCHEMA, write_log
from tfebr.data.propensity import inverse_propensity, position_propensities
from tfebr.errors import ArtifactError, ConfigError, DataError, TfebrError
from tfebr.infrastructure.files import read_json, write_json
from tfebr.models.config import from_dict
from tfebr.models.dpsr import DPSRConfig
from tfebr.models.mgdspr import MGDSPRConfig
from tfebr.models.run_folder import RunFolder, prepare_run


@pytest.fixture
def copied(tiny_run, tmp_path) -> RunFolder:
    shutil.copytree(tiny_run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def files_of(folder) -> dict:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_it_opens_as_it_was_trained(tiny_run, tiny_shop, tiny_config):
    again = RunFolder(tiny_run.path)
    assert again.model_name == "dpsr"
    assert again.config == tiny_run.config
    assert again.config.features.user_columns == tuple(c for c in tiny_shop.users().column_names if c != "user_id")
    assert again.data.path == tiny_shop.path
    assert len(again.table) == len(tiny_shop.catalogue())
    found, expected = again.trained_model().corpus_embeddings(), tiny_run.trained_model().corpus_embeddings()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_it_can_be_moved(copied, tiny_run):
    found, expected = copied.trained_model().corpus_embeddings(), tiny_run.trained_model().corpus_embeddings()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_training_text_alone_fills_the_vocabulary(tiny_run, tiny_shop):
    """A word of held-out queries only is out of vocabulary."""
    known = set((tiny_run.path / "vocabulary" / "grain-words.txt").read_text().split())
    early, late = set(), set()
    for batch in tiny_shop.log().batches():
        for time, query in zip(batch["time"].to_pylist(), batch["query"].to_pylist(), strict=True):
            (early if time < tiny_run.split_time else late).update(query.lower().split())
    titles = {w for title in tiny_shop.catalogue().titles for w in title.lower().split()}
    assert not {w for w in late - early - titles if w.isalpha()} & known
    assert known & early


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("two_tower", {}, "belongs to another run: its `model` is 'dpsr', not 'two_tower'"),
        ("dpsr", {"heads": 3}, "was trained with `heads` = 2, now 3"),
        ("dpsr", {"training": {"epochs": 2, "batch_size": 32}}, "was trained with `training` = .*'batch_size': 64.*now .*'batch_size': 32"),
    ],
)
def test_another_model_or_config_is_refused_by_name(copied, tiny_shop, tiny_config, model, changes, message):
    before = (copied.path / "config.json").read_bytes()
    config = tiny_config | changes if model == "dpsr" else {}
    with pytest.raises(ConfigError, match=message):
        pipeline.train(tiny_shop.path, copied.path, model, config, quiet=True)
    assert (copied.path / "config.json").read_bytes() == before


def test_other_data_is_refused_by_name(copied, tiny_shop, tiny_config, tmp_path):
    shutil.copytree(tiny_shop.path, tmp_path / "shop")
    with pytest.raises(ConfigError, match=r"its `data` is .*Choose a new folder"):
        pipeline.train(tmp_path / "shop", copied.path, "dpsr", tiny_config, quiet=True)
    with pytest.raises(ConfigError, match="its `split_time` is"):
        pipeline.train(tiny_shop.path, copied.path, "dpsr", tiny_config, test_share=0.4, quiet=True)


def test_a_folder_of_something_else_is_left_alone(tiny_shop, tiny_config, tmp_path):
    (tmp_path / "thesis.txt").write_text("chapter 1")
    with pytest.raises(ConfigError, match="is not empty and not a run folder"):
        pipeline.train(tiny_shop.path, tmp_path, "dpsr", tiny_config, quiet=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_interrupted_preparation_goes_on(tiny_run, tiny_shop, tiny_config, copied):
    shutil.rmtree(copied.path / "item_table")
    shutil.rmtree(copied.path / "vocabulary")
    config = from_dict(DPSRConfig, tiny_config)
    again = prepare_run(copied.path, "dpsr", config, tiny_shop, tiny_run.split_time, quiet=True)
    for name, values in tiny_run.table.columns.items():
        np.testing.assert_array_equal(again.table.columns[name], values)


def test_a_folder_from_before_a_setting_goes_on(tiny_shop, tiny_run, tiny_config, copied):
    file = copied.path / "config.json"
    about = json.loads(file.read_text())
    del about["config"]["beta"]
    file.write_text(json.dumps(about))
    assert RunFolder(copied.path).config == tiny_run.config
    pipeline.train(tiny_shop.path, copied.path, "dpsr", tiny_config, quiet=True)
    with pytest.raises(ConfigError, match=r"was trained with `beta` = 0\.1, now 0\.2"):
        pipeline.train(tiny_shop.path, copied.path, "dpsr", tiny_config | {"beta": 0.2}, quiet=True)


DEBIASED = {"features": {"history_items": 5, "history_queries": 0}, "debias": True}


def clicks(rows: list[dict]) -> np.ndarray:
    """Positions of all clicks."""
    return np.array([i["position"] for r in rows for i in r["items"] if i["stage"] >= 1])


def test_propensities_are_those_of_the_training_part(tiny_shop, tiny_run, tmp_path):
    config, split = from_dict(MGDSPRConfig, DEBIASED), tiny_run.split_time
    run = prepare_run(tmp_path / "run", "mgdspr", config, tiny_shop, split, quiet=True)
    rows = [row for batch in tiny_shop.log().batches() for row in batch.to_pylist()]
    early = [row for row in rows if row["time"] < split]
    assert 0 < len(early) < len(rows)
    expected, found = position_propensities([pa.RecordBatch.from_pylist(early, SCHEMA)], 64), run.propensities()
    np.testing.assert_allclose(found / found[0], expected, rtol=1e-6)
    whole = position_propensities([pa.RecordBatch.from_pylist(rows, SCHEMA)], 64)
    assert not np.allclose(found / found[0], whole, rtol=1e-3)
    weights = inverse_propensity(found, clicks(early), 10 / found[0])
    assert weights.mean() == pytest.approx(1, rel=1e-5)
    assert weights.max() > 1.5
    np.testing.assert_array_equal(RunFolder(run.path).propensities(), found)
    assert tiny_run.propensities() is None


@pytest.mark.parametrize("positions", [lambda p: 0, lambda p: -1, lambda p: p + 2])
def test_positions_that_tell_nothing_are_refused(tiny_shop, tiny_run, tmp_path, positions):
    shutil.copytree(tiny_shop.path, tmp_path / "shop", ignore=shutil.ignore_patterns("log"))
    rows = [row for batch in tiny_shop.log().batches() for row in batch.to_pylist()]
    for item in (item for row in rows for item in row["items"]):
        item["position"] = positions(item["position"])
    write_log(tmp_path / "shop" / "log", [pa.RecordBatch.from_pylist(rows, SCHEMA)])
    config = from_dict(MGDSPRConfig, DEBIASED)
    with pytest.raises(DataError, match=r"shop/log: its positions tell nothing.*`debias`.*Clicks by position: \[.*Set `debias` to false"):
        prepare_run(tmp_path / "run", "mgdspr", config, DataFolder(tmp_path / "shop"), tiny_run.split_time, quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_judged_set_has_no_positions(judged_data, tmp_path):
    with pytest.raises(ConfigError, match=r"`debias` needs a search log with positions, and .*data has none\. Set `debias` to false"):
        pipeline.train(judged_data.path, tmp_path / "run", "mgdspr", DEBIASED, quiet=True)
    assert not (tmp_path / "run").exists()


def test_not_a_run_folder(tmp_path):
    with pytest.raises(ArtifactError, match="not a run folder"):
        RunFolder(tmp_path)


def test_without_a_checkpoint(copied):
    shutil.rmtree(copied.checkpoints)
    with pytest.raises(ArtifactError, match="holds no checkpoint"):
        copied.trained_model()


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_checkpoint_is_named(copied, damage):
    data = max(copied.checkpoints.glob("*.data-*"))
    if damage == "missing":
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=r"checkpoints.*(damaged|missing)"):
        copied.trained_model()


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("vocabulary/grain-words.txt", r"grain-words\.txt: vocabulary file is missing"),
        ("item_table/title_words.npy", r"title_words\.npy: item table column is missing"),
        ("item_table/about.json", r"about\.json: no such file"),
    ],
)
def test_missing_parts_are_named(copied, lost, message):
    (copied.path / lost).unlink()
    with pytest.raises(TfebrError, match=message):
        RunFolder(copied.path)


def test_a_config_with_an_unknown_field_names_the_file(copied):
    file = copied.path / "config.json"
    about = json.loads(file.read_text())
    about["config"]["hedas"] = about["config"].pop("heads")
    file.write_text(json.dumps(about))
    with pytest.raises(ConfigError, match=r"config\.json: unknown field `hedas`\. Did you mean `heads`"):
        RunFolder(copied.path)


@pytest.mark.parametrize("version", [None, 1, text.VERSION + 1])
def test_a_run_of_other_tokens_is_refused_by_name(copied, tiny_shop, tiny_config, version):
    about = read_json(copied.path / "config.json")
    about.pop("text") if version is None else about.update(text=version)
    write_json(copied.path / "config.json", about)
    before = files_of(copied.path)
    for use in (
        lambda: RunFolder(copied.path),
        lambda: pipeline.train(tiny_shop.path, copied.path, "dpsr", tiny_config, quiet=True),
        lambda: pipeline.refresh(copied.path, tiny_shop.path, quiet=True),
    ):
        with pytest.raises(ArtifactError, match=f"cut into tokens by version {version or 1} .*, and this is version {text.VERSION}"):
            use()
    assert files_of(copied.path) == before


def test_a_lost_data_folder_is_named(copied):
    file = copied.path / "config.json"
    file.write_text(file.read_text().replace(str(copied.data.path), str(copied.path / "gone")))
    run = RunFolder(copied.path)
    with pytest.raises(DataError, match="gone: not a data folder"):
        run.data.catalogue()
