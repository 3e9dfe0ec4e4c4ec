"""Refreshing: only what is new or changed is embedded, and the next version serves the new catalogue without training data."""

import functools
import importlib
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tfebr import cli, pipeline
from tfebr.data.catalogue import Catalogue
from tfebr.data.item_ids import ItemIds
from tfebr.data.log import split_time
from tfebr.data.query_intent import IntentTables
from tfebr.errors import ArtifactError, ConfigError, DataError
from tfebr.index.attributes import filter_columns
from tfebr.infrastructure.files import read_json, write_json
from tfebr.models.encoders import RawItemEncoder
from tfebr.models.mgdspr import MGDSPRConfig
from tfebr.models.run_folder import RunFolder, prepare_run
from tfebr.publishing import embedding_cache as embedding
from tfebr.publishing import publish
from tfebr.publishing.embedding_cache import catalogue_vectors, content_hashes, rows_of_hashes
from tfebr.servable import check
from tfebr.servable.manifest import read_manifest
from tfebr.servable.version_folders import next_version

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")

REMOVED, RENAMED = [0, 7, 499], [3, 250]
NEW = {"new-1": "zebra striped xylophone stand", "new-2": "gluten free quinoa crackers"}


def next_catalogue(catalogue: Catalogue) -> pa.Table:
    """Three items less, two with another title, two new ones without a price in front; in another order of columns."""
    rows = [row for number, row in enumerate(catalogue.table.to_pylist()) if number not in REMOVED]
    titles = {catalogue.item_ids[number]: f"renamed {catalogue.titles[number]}" for number in RENAMED}
    rows = [row | {"title": titles.get(row["item_id"], row["title"])} for row in rows]
    new = [rows[0] | {"item_id": item_id, "title": title, "brand": "Never Seen", "price": None} for item_id, title in NEW.items()]
    table = pa.Table.from_pylist([*new, *rows], schema=catalogue.table.schema)
    return table.select(list(reversed(table.column_names)))


def own_copy(run: RunFolder, folder) -> RunFolder:
    shutil.copytree(run.path, folder)
    return RunFolder(folder)


def encoder_of(run: RunFolder) -> RawItemEncoder:
    return RawItemEncoder(run.trained_model(), run.featurizer, ItemIds(run.data.catalogue().item_ids))


load = functools.cache(check.load)


def ask(version, signature="serving_default", **inputs):
    function = load(version).signatures[signature]
    outputs = function(**check.complete_inputs(function.structured_input_signature[1], inputs))
    return {name: value.numpy() for name, value in outputs.items()}


def save(run: RunFolder) -> None:
    """A checkpoint without training."""
    tf.train.CheckpointManager(tf.train.Checkpoint(model=run.new_model()), str(run.checkpoints), 1).save()


@pytest.fixture(scope="module")
def no_check():
    """Leaves out the fresh process, which takes seconds and has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_check_in_fresh_process", lambda folder: {"ok": True})
        yield


@pytest.fixture(scope="module")
def mgdspr(tiny_shop, tmp_path_factory) -> RunFolder:
    config = MGDSPRConfig(dim=32, heads=2, column_dim=4, random_negatives=100, hard=80)
    folder = tmp_path_factory.mktemp("mgdspr") / "run"
    run = prepare_run(folder, "mgdspr", config, tiny_shop, split_time(tiny_shop.log(), 0.1), quiet=True)
    save(run)
    return run


@pytest.fixture(scope="module")
def refreshed(tiny_run, tiny_shop, tmp_path_factory, no_check):
    """Version 1 from the data folder; version 2 when that, the examples and the training log are gone."""
    folder = tmp_path_factory.mktemp("refresh")
    run = own_copy(tiny_run, folder / "run")
    first = pipeline.export(run.path, "shop", target=0.9, k=30, quiet=True)
    write_json(run.path / "config.json", read_json(run.path / "config.json") | {"data": str(folder / "gone")})
    shutil.rmtree(run.path / "examples")
    table = next_catalogue(tiny_shop.catalogue())
    pq.write_table(table.append_column("__index_level_0__", pa.array(range(len(table)))), folder / "new.parquet")
    published = pipeline.refresh(run.path, folder / "new.parquet", "shop", quiet=True)
    return first, published


@pytest.mark.parametrize(("rows", "block"), [(100_000, 4096), (64, 10)])
def test_only_new_and_changed_items_are_embedded(tiny_run, tiny_shop, tmp_path, monkeypatch, rows, block):
    monkeypatch.setattr(embedding, "_SLICE", rows)
    monkeypatch.setattr(embedding, "_EMBED_BLOCK", block)
    run = own_copy(tiny_run, tmp_path / "run")
    catalogue, encoder = tiny_shop.catalogue(), encoder_of(run)
    vectors, embedded = catalogue_vectors(run, catalogue.table, encoder, quiet=True)
    assert embedded == len(catalogue)
    np.testing.assert_allclose(vectors, run.trained_model().corpus_embeddings(), rtol=1e-4, atol=1e-6)
    seen = []

    class Watched(RawItemEncoder):
        def __call__(self, inputs):
            tf.py_function(lambda titles: seen.extend(titles.numpy().tolist()), [inputs["title"]], [])
            return super().__call__(inputs)

    table = next_catalogue(catalogue)
    table = Catalogue(pa.concat_tables([table.slice(0, 70), table.slice(70)])).table
    watched = Watched(run.trained_model(), run.featurizer, ItemIds(catalogue.item_ids))
    found, embedded = catalogue_vectors(run, table, watched, quiet=True)
    assert embedded == len(seen) == len(NEW) + len(RENAMED)
    assert {title.decode() for title in seen} == {*NEW.values(), *(f"renamed {catalogue.titles[number]}" for number in RENAMED)}
    whole = encoder({name: tf.constant(table[name].to_pylist()) for name in encoder.input_signature})
    np.testing.assert_allclose(found, whole, rtol=1e-4, atol=1e-6)
    kept = [row for row in range(len(catalogue)) if row not in REMOVED + RENAMED]
    place = {item_id: row for row, item_id in enumerate(table["item_id"].to_pylist())}
    np.testing.assert_array_equal(found[[place[catalogue.item_ids[row]] for row in kept]], vectors[kept])
    assert catalogue_vectors(run, table, watched, quiet=True)[1] == 0
    assert len(seen) == embedded


def test_other_weights_take_nothing_from_before(tiny_run, tiny_shop, tmp_path):
    run, table = own_copy(tiny_run, tmp_path / "run"), tiny_shop.catalogue().table
    before, _ = catalogue_vectors(run, table, encoder_of(run), quiet=True)
    shutil.rmtree(run.checkpoints)
    save(run)
    after, embedded = catalogue_vectors(run, table, encoder_of(run), quiet=True)
    assert embedded == table.num_rows
    assert np.abs(after - before).max() > 0.01


@pytest.mark.parametrize("name", ["vectors.npy", "hashes.npy"])
def test_damaged_embeddings_are_made_anew(tiny_run, tiny_shop, tmp_path, name):
    run, table = own_copy(tiny_run, tmp_path / "run"), tiny_shop.catalogue().table
    before = np.array(catalogue_vectors(run, table, encoder_of(run), quiet=True)[0])
    os.truncate(run.path / "embeddings" / name, 300)
    after, embedded = catalogue_vectors(run, table, encoder_of(run), quiet=True)
    assert embedded == table.num_rows
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_an_item_that_training_did_not_know_has_no_id_vector(mgdspr, tiny_shop):
    catalogue, model, encoder = tiny_shop.catalogue(), mgdspr.trained_model(), encoder_of(mgdspr)
    assert "item_id" in encoder.input_signature
    vectors, _ = catalogue_vectors(mgdspr, catalogue.table, encoder, quiet=True)
    np.testing.assert_allclose(vectors, model.corpus_embeddings(), rtol=1e-4, atol=1e-6)
    ids = catalogue.table["item_id"].to_pylist()
    ids[5] = "another-id"
    table = catalogue.table.set_column(0, "item_id", pa.array(ids))
    found, embedded = catalogue_vectors(mgdspr, table, encoder, quiet=True)
    assert embedded == 1
    columns = {name: values[6:7] for name, values in mgdspr.table.columns.items()}
    np.testing.assert_allclose(found[5], model.item_tower({"item": np.zeros(1, np.int32)} | columns)[0], rtol=1e-4, atol=1e-6)
    assert np.abs(found[5] - vectors[5]).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns(["brand"]), "no column `brand`"),
        (lambda table: table.set_column(table.column_names.index("brand"), "brand", pa.array([1.0] * len(table))), "`brand` holds double"),
    ],
)
def test_a_catalogue_without_what_the_model_reads_is_refused(tiny_run, tiny_shop, tmp_path, change, message):
    run = own_copy(tiny_run, tmp_path / "run")
    Catalogue(change(tiny_shop.catalogue().table)).write(tmp_path / "new.parquet")
    with pytest.raises(DataError, match=message):
        pipeline.refresh(run.path, tmp_path / "new.parquet", quiet=True)
    assert not (run.path / "servable").exists()


FIELDS = st.lists(st.tuples(st.text("ab1:,é", max_size=4), st.text("ab1:,é", max_size=4)), min_size=1, max_size=30)


@given(FIELDS, FIELDS)
def test_hashes_are_equal_where_the_content_is(before, after):
    def hashes(rows, key=b"weights"):
        table = pa.table({"b": [row[1] for row in rows], "a": [row[0] for row in rows]})
        return content_hashes(table, ["a", "b"], key)

    known, wanted = hashes(before), hashes(after)
    assert len({tuple(row) for row in known.tolist()}) == len(set(before))
    assert not np.isin(known, hashes(before, b"other weights")).any()
    for row, found in zip(after, rows_of_hashes(known, wanted), strict=True):
        assert (before[found] == row) if found >= 0 else row not in before


def test_half_a_hash_is_no_match():
    known, wanted = np.array([[5, 1], [3, 2]]), np.array([[3, 1], [3, 2], [9, 9]])
    assert rows_of_hashes(known, wanted).tolist() == [-1, 1, -1]


def test_removed_items_are_gone_and_new_ones_found_by_title(refreshed, tiny_shop):
    first, published = refreshed
    (second,) = published.folders
    assert (second.parent, second.name) == (first.parent, "2")
    assert (published.items, published.embedded) == (499, len(NEW) + len(RENAMED))
    catalogue = tiny_shop.catalogue()
    removed = [catalogue.titles[row] for row in REMOVED]
    gone = {catalogue.item_ids[row].encode() for row in REMOVED}
    assert all(catalogue.item_ids[row].encode() in ids for row, ids in zip(REMOVED, ask(first, query=removed)["ids"], strict=True))
    assert not gone & set(ask(second, query=[*removed, *catalogue.titles[:200]])["ids"].ravel())
    assert ask(second, query=list(NEW.values()))["ids"][:, 0].tolist() == [item_id.encode() for item_id in NEW]
    ids = ask(second, "search", query=["stand"], filter=[["brand=Never Seen"]])["ids"]
    assert set(ids.ravel()) - {b""} == {item_id.encode() for item_id in NEW}


def test_an_item_without_a_price_is_found_but_in_no_range_and_row_numbers_are_no_filter(refreshed):
    (second,) = refreshed[1].folders
    new = {item_id.encode() for item_id in NEW}
    found = ask(second, "search", query=list(NEW.values()), filter=[["price=.."], ["price=-1e9..1e9"]])["ids"]
    assert not new & set(found.ravel())
    assert b"" not in found[:, 0]
    assert set(ask(second, "search", query=list(NEW.values()))["ids"][:, 0]) == new
    columns = load(second).signatures["attributes"].structured_outputs
    assert "price" in columns
    assert not any("index_level" in name for name in columns)


def test_settings_of_the_version_before_stay(refreshed):
    manifest = read_manifest(refreshed[1].folders[0])
    assert (manifest["index"]["k"], manifest["index"]["target"], manifest["about"]["server"]) == (30, 0.9, "scann")
    assert manifest["about"]["recall_measured_on"] == "499 titles of the catalogue"
    assert read_manifest(refreshed[0])["about"]["recall_measured_on"].endswith("requests of the run's test examples")


def test_histories_are_read_by_what_training_knew(refreshed, tiny_shop):
    ids = tiny_shop.catalogue().item_ids
    # Known and still there, known and removed, unknown, none.
    batch = {"query": ["red"] * 4, "history_items": [[ids[11]], [ids[7]], ["new-1"], []]}
    before, after = (ask(version, "embed_query", **batch)["embedding"] for version in (refreshed[0], refreshed[1].folders[0]))
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    assert np.abs(after[:2] - after[3]).max(axis=(1, 2)).min() > 1e-3
    np.testing.assert_allclose(after[2], after[3], rtol=1e-5, atol=1e-6)


def test_an_intent_whose_value_is_gone_implies_nothing(tiny_run, tiny_shop, tmp_path):
    tables = IntentTables.read(tiny_run.path / "intent")
    clause = next(clause for clause, sure in zip(tables.name_clauses, tables.name_sure, strict=True) if sure and "|" not in clause)
    brand = clause.removeprefix("brand=")
    catalogue = tiny_shop.catalogue()
    assert publish._intent(tiny_run, catalogue)(tf.constant([brand]))[0, 0].numpy().decode() == clause
    rows = [row for row in catalogue.table.to_pylist() if row["brand"] != brand]
    without = publish._intent(tiny_run, Catalogue(pa.Table.from_pylist(rows)))
    assert without(tf.constant([brand]))[0, 0].numpy() == b""
    others = sorted(set(catalogue.table["brand"].to_pylist()) - {brand})
    for intent in (without(tf.constant(others)), publish._intent(tiny_run, catalogue)(tf.constant(others))):
        assert any(value for value in intent[:, 0].numpy())


def test_filters_name_what_the_data_folder_declares(tiny_run, tiny_shop, tmp_path):
    """Neither text nor what is ignored; a column that came after training by its type."""
    run = own_copy(tiny_run, tmp_path / "run")
    about = read_json(run.path / "config.json")
    about["columns"] = {"text": ["title", "category"], "category": ["brand"], "number": ["price"], "ignored": ["shop", "leaf_category"]}
    write_json(run.path / "config.json", about)
    table = tiny_shop.catalogue().table
    coloured = Catalogue(table.append_column("colour", pa.array(["red"] * len(table))))
    assert set(filter_columns(publish._filterable(RunFolder(run.path), coloured))) == {"brand", "price", "colour"}


def test_a_run_whose_data_folder_is_gone_is_refreshed_before_any_export(tiny_run, tiny_shop, tmp_path, stub_write):
    run = own_copy(tiny_run, tmp_path / "run")
    write_json(run.path / "config.json", read_json(run.path / "config.json") | {"data": str(tmp_path / "gone")})
    Catalogue(tiny_shop.catalogue().table.slice(100)).write(tmp_path / "newer.parquet")
    published = pipeline.refresh(run.path, tmp_path / "newer.parquet", quiet=True)
    assert (published.items, published.embedded) == (400, 400)
    assert stub_write[run.model_name].item_ids.decode(tf.constant([0])).numpy()[0].decode() == tiny_shop.catalogue().item_ids[100]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.unlink(), "cannot be read. Bring it back, or train again"),
        (
            lambda file: Catalogue(Catalogue.read(file).table.slice(1)).write(file),
            "is not the catalogue that the run was trained on",
        ),
    ],
)
def test_a_run_that_lost_its_catalogue_says_so(tiny_run, tiny_shop, tmp_path, damage, said):
    run = own_copy(tiny_run, tmp_path / "run")
    damage(run.path / "catalogue" / "catalogue.parquet")
    with pytest.raises(ArtifactError, match=said):
        pipeline.refresh(run.path, tiny_shop.path, quiet=True)


def test_a_folder_of_files_is_one_catalogue(tiny_shop, tmp_path):
    table = tiny_shop.catalogue().table
    for number in range(3):
        Catalogue(table.slice(200 * number, 200)).write(tmp_path / f"part-{number}.parquet")
    assert Catalogue.read(tmp_path).table.equals(table)
    assert Catalogue.read(tiny_shop.path).table.equals(table)
    Catalogue(table.slice(5, 1)).write(tmp_path / "part-9.parquet")
    with pytest.raises(DataError, match="repeats row 5"):
        Catalogue.read(tmp_path)
    Catalogue(pa.table({"item_id": ["x"], "title": ["x"], "brand": [1.0]})).write(tmp_path / "part-9.parquet")
    with pytest.raises(DataError, match="do not have the same columns"):
        Catalogue.read(tmp_path)


@pytest.fixture
def stub_write(monkeypatch):
    """Writes a manifest where a SavedModel would be, whose graphs take seconds; returns what would be in it by name."""
    servables = {}

    def servable(query_encoder, item_encoder, index, item_ids, default_k, attributes, intent):
        assert index.items == attributes.items == len(item_ids)
        return SimpleNamespace(item_ids=item_ids, default_k=default_k, attributes=attributes)

    def write(servable, base, about, check_inputs, report):
        folder = base / str(next_version(base))
        (folder / "assets.extra").mkdir(parents=True)
        (folder / "saved_model.pb").touch()
        written = {name: {} for name in ("versions", "ops_outside_tensorflow", "files")}
        written |= {"about": about, "index": report.as_dict(), "filter_columns": servable.attributes.columns}
        write_json(folder / "assets.extra" / "manifest.json", written)
        servables[base.name] = servable
        return folder

    monkeypatch.setattr(publish, "RetrievalServable", servable)
    monkeypatch.setattr(publish, "write", write)
    return servables


def command(*arguments):
    done = CliRunner().invoke(cli.app, [*map(str, arguments), "--quiet"])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("shards", [1, 2])
def test_no_filter_goes_or_changes_its_kind_unless_it_is_asked_for(tiny_run, tiny_shop, tmp_path, stub_write, shards):
    run, table = own_copy(tiny_run, tmp_path / "run"), tiny_shop.catalogue().table
    as_text = table.set_column(table.column_names.index("price"), "price", table["price"].cast(pa.string()))
    catalogues = {
        "gone": table.drop_columns(["price"]),
        "text": as_text,
        "both": as_text.append_column("colour", pa.array(["red"] * len(table))),
        "more": table.append_column("colour", pa.array(["red"] * len(table))),
        "same": table,
    }
    for name, changed in catalogues.items():
        Catalogue(changed).write(tmp_path / f"{name}.parquet")
    pipeline.export_shards(run.path, shards, "shop", quiet=True)
    base = run.path / "servable" / ("shop" if shards == 1 else "shop-shard-1")
    kinds = lambda: read_manifest(base / str(next_version(base) - 1))["filter_columns"]  # noqa: E731
    before = kinds()
    assert before["price"] == "number"

    embedded = run.path / "embeddings" / "hashes.npy"
    written = embedded.stat().st_mtime_ns
    for name, said in (("gone", "`price`, which held numbers, is gone"), ("text", "`price`, which held numbers, holds strings")):
        with pytest.raises(DataError, match=rf"{name}\.parquet: clients of version 1 .*{said}.*--change-filters"):
            pipeline.refresh(run.path, tmp_path / f"{name}.parquet", "shop", quiet=True)
        done = CliRunner().invoke(cli.app, ["refresh", str(run.path), str(tmp_path / f"{name}.parquet"), "--name", "shop", "--quiet"])
        assert isinstance(done.exception, DataError)
    assert next_version(base) == 2
    assert embedded.stat().st_mtime_ns == written, "refused before anything is embedded"

    # More columns take nothing away; but back without them, a filter of the version before would be gone.
    pipeline.refresh(run.path, tmp_path / "more.parquet", "shop", quiet=True)
    assert kinds() == before | {"colour": "category"}
    for again in (
        lambda **given: pipeline.refresh(run.path, tmp_path / "same.parquet", "shop", quiet=True, **given),
        lambda **given: pipeline.export_shards(run.path, shards, "shop", quiet=True, **given),
    ):
        with pytest.raises(DataError, match=r"clients of version 2 .*`colour`, which held strings, is gone"):
            again()
    again(change_filters=True)
    assert kinds() == before

    command("refresh", run.path, tmp_path / "both.parquet", "--name", "shop", "--change-filters")
    assert kinds() == before | {"colour": "category", "price": "category"}
    command("export", run.path, "--shards", shards, "--name", "shop", "--change-filters")
    assert kinds() == before


def test_shards_hold_disjoint_ranges_and_step_together(tiny_run, tiny_shop, tmp_path, stub_write, monkeypatch):
    run = own_copy(tiny_run, tmp_path / "run")
    base = run.path / "servable"
    folders = [base / f"shop-shard-{i}" / "1" for i in range(3)]
    output = command("export", run.path, "--shards", 3, "--name", "shop", "--k", 200)
    assert all(f"published {folder} " in output for folder in folders)
    assert sorted(path.name for path in base.iterdir()) == [f"shop-shard-{i}" for i in range(3)]
    shards = [read_manifest(folder)["about"]["shard"] for folder in folders]
    assert [(s["number"], s["of"], s["first_row"], s["items"]) for s in shards] == [(0, 3, 0, 166), (1, 3, 166, 167), (2, 3, 333, 167)]
    held = [stub_write[f"shop-shard-{i}"] for i in range(3)]
    assert np.concatenate([s.item_ids.decode(tf.range(len(s.item_ids))).numpy() for s in held]).astype(str).tolist() == list(
        tiny_shop.catalogue().item_ids
    )
    assert [s.default_k for s in held] == [200] * 3

    # One shard was exported once more by hand: the numbers are the same again afterwards.
    shutil.copytree(folders[1], base / "shop-shard-1" / "4")
    Catalogue(next_catalogue(tiny_shop.catalogue())).write(tmp_path / "new.parquet")
    output = command("refresh", run.path, tmp_path / "new.parquet", "--name", "shop")
    assert "499 items, of which 4 were new or changed" in output
    assert "note: catalogue: column `price`: 2 items have no number there" in output
    assert all(f"published {base / f'shop-shard-{i}' / '5'} " in output for i in range(3))

    for shards, found in ((1, "3 shards"), (2, "3 shards")):
        with pytest.raises(ConfigError, match=f"`shop` is there as {found} already"):
            pipeline.export_shards(run.path, shards, "shop", quiet=True)
    with pytest.raises(ConfigError, match="`shards` must be at most the number of items, 500"):
        pipeline.export_shards(run.path, 501, quiet=True)

    real, before = os.rename, sorted(base.rglob("*"))

    def fail_at_the_last(source, target):
        if "shop-shard-2" in str(target):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(publish.os, "rename", fail_at_the_last)
    with pytest.raises(ArtifactError, match=r"shop-shard-2/6: not published, nor is any other shard: No space left"):
        pipeline.export_shards(run.path, 3, "shop", quiet=True)
    assert sorted(base.rglob("*")) == before


def test_the_server_decides_the_index(tiny_run, tiny_shop, tmp_path, stub_write, monkeypatch):
    run, asked = own_copy(tiny_run, tmp_path / "run"), []
    real = publish.build
    monkeypatch.setattr(publish, "build", lambda *given, **named: asked.append(named["server"]) or real(*given, **named))
    pipeline.export(run.path, "shop", quiet=True, server="stock")
    shutil.move(run.path / "servable" / "shop" / "1", run.path / "servable" / "shop" / "9")
    pipeline.refresh(run.path, tiny_shop.path, "shop", target=0.5, quiet=True)
    assert asked == ["stock", "stock"]
    assert read_manifest(run.path / "servable" / "shop" / "10")["index"]["target"] == 0.5
    with pytest.raises(ConfigError, match="server"):
        pipeline.export(run.path, "other", quiet=True, server="abacus")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shards": 0}, "`shards` must be a whole number of at least 1"),
        ({"shards": "2"}, "`shards` must be a whole number. Received: '2'"),
        ({"shards": 1, "target": 0.0}, r"`target` must be a finite number in \(0, 1\]"),
        ({"shards": 1, "target": float("nan")}, "`target` must be a finite number"),
        ({"shards": 1, "k": 0}, "`k` must be a whole number of at least 1"),
        ({"shards": 1, "heldout_queries": -1}, "`heldout_queries` must be a whole number of at least 1"),
    ],
)
def test_impossible_settings_of_an_export_are_refused(tiny_run, settings, message):
    with pytest.raises(ConfigError, match=message):
        pipeline.export_shards(tiny_run.path, quiet=True, **settings)
