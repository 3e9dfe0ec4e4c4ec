"""A shop whose columns are called as they like goes the whole way: every column is read by its own name, and nothing else is."""

import functools
import importlib
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hostile_columns import CATEGORIES, ITEMS, NUMBERS, PROFILE, catalogue, write_shop
from rich.console import Console
from typer.testing import CliRunner

from tfebr import cli, pipeline
from tfebr.client.client import Client
from tfebr.data.batches import training_batches
from tfebr.data.catalogue import Catalogue
from tfebr.data.item_ids import ItemIds
from tfebr.data.log import split_time
from tfebr.models.config import from_dict
from tfebr.models.encoders import RawItemEncoder, RawQueryEncoder
from tfebr.models.run_folder import prepare_run
from tfebr.models.zoo import model_class
from tfebr.servable import check, manifest
from tfebr.servable.describe import show
from tfebr.servable.inspect import inspect
from tfebr.server.server import Server

writing = importlib.import_module("tfebr.servable.write")
TRAINING = {"training": {"batch_size": 32, "epochs": 1}}
MODELS = {
    "dpsr": {"dim": 8, "column_dim": 2, "heads": 2},
    "two_tower": {"dim": 8},
    "mgdspr": {"dim": 32, "column_dim": 1, "heads": 2, "random_negatives": 10, "hard": 5},
    "mmse": {"dim": 8, "column_dim": 2, "heads": 2, "random_negatives": 10},
}
DAY = 86_400


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return write_shop(tmp_path_factory.mktemp("names") / "shop")


@pytest.fixture(scope="module")
def encoders_of(shop, tmp_path_factory):
    """Both encoders of a model after one step, by its name."""

    @functools.cache
    def make(name):
        config = from_dict(model_class(name).Config, MODELS[name] | TRAINING)
        run = prepare_run(tmp_path_factory.mktemp("names") / name, name, config, shop, split_time(shop.log()), quiet=True)
        model = run.new_model()
        batch = next(iter(training_batches(run.shards("train"), run.featurizer, 32, seed=1, epochs=1)))
        batch.pop("request_id")
        assert np.isfinite(model.train_step(batch)["loss"])
        known = ItemIds(shop.catalogue().item_ids)
        return RawQueryEncoder(model, run.featurizer, known), RawItemEncoder(model, run.featurizer, known)

    return make


@pytest.fixture(scope="module")
def exported(shop, tmp_path_factory):
    """An MMSE run, trained, measured and exported; it reads profile, history and the items' ids. The servers below are its check."""
    run = pipeline.train(shop.path, tmp_path_factory.mktemp("names") / "deep" / "run", "mmse", MODELS["mmse"] | TRAINING, quiet=True)
    pipeline.evaluate([run.path])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_check_in_fresh_process", lambda folder: {"ok": True})
        return run, pipeline.export(run.path, heldout_queries=5, quiet=True)


@pytest.fixture(scope="module")
def server(exported):
    with Server(exported[1].parent, rest_port=0, grpc_port=0) as running:
        yield running


@pytest.fixture(scope="module", params=["rest", "grpc"])
def client(request, server):
    with Client(server.rest_url if request.param == "rest" else server.grpc_target, server.name, request.param) as asking:
        yield asking


def embed(encoder, rows):
    """Rows of inputs by column, as a matrix of embeddings."""
    named = {column: name for name, column in encoder.columns.items()}
    given = {named.get(name, name): [row[name] for row in rows] for name in rows[0]}
    return encoder(check.complete_inputs(encoder.input_signature, given)).numpy().reshape(len(rows), -1)


def assert_all_differ(vectors):
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    assert (distances[~np.eye(len(vectors), dtype=bool)] > 1e-6).all()


@pytest.mark.parametrize("model", MODELS)
def test_every_column_of_an_item_is_read(encoders_of, model):
    items = encoders_of(model)[1]
    plain = {"title": "lamp", **({"item_id": "i9"} if "item_id" in items.columns else {}), **dict.fromkeys(CATEGORIES, "")}
    assert_all_differ(embed(items, [plain, *(plain | {name: f"v1={name[:3]}|%"} for name in CATEGORIES)]))


@pytest.mark.parametrize("model", ["dpsr", "mmse"])
def test_every_column_of_a_profile_is_read(encoders_of, model):
    plain = {"query": "lamp", **dict.fromkeys(PROFILE, "")}
    assert_all_differ(embed(encoders_of(model)[0], [plain, *(plain | {name: f"{name[:3]}1"} for name in PROFILE)]))


def test_a_column_called_ages_leaves_those_of_the_history_alone(encoders_of):
    row = {"query": "lamp", "history_items": ["i3", "i4"], "history_stages": [1, 1]}
    ages = [[60, 60], [60, 2 * DAY], [60, 20 * DAY], [2 * DAY, 20 * DAY]]
    assert_all_differ(embed(encoders_of("mgdspr")[0], [row | {"history_ages": of_events} for of_events in ages]))


@pytest.mark.parametrize("model", ["mgdspr", "mmse"])
def test_columns_called_item_and_items_leave_the_ids_alone(encoders_of, model):
    """Twins differ in nothing but the id."""
    queries, items = encoders_of(model)
    row = {"query": "lamp", "history_stages": [1], "history_ages": [60]}
    assert_all_differ(embed(queries, [row | {"history_items": [twin]} for twin in ("i0", "i1", "no such item")]))
    twin = {name: catalogue().table[name][0].as_py() for name in ("title", *CATEGORIES)}
    assert_all_differ(embed(items, [twin | {"item_id": item_id} for item_id in ("i0", "i1", "no such item")]))


def test_nothing_is_written_beside_the_folder(exported):
    run = exported[0]
    top = run.path.parent.parent
    assert {path.name for path in top.iterdir()} == {"deep"}
    assert {path.name for path in run.path.parent.iterdir()} == {"run"}
    files = [str(path.relative_to(run.path)) for path in run.path.rglob("*")]
    assert len({file.lower() for file in files}) == len(files), "some file systems do not tell upper from lower case"
    assert all(file.isascii() and file.isprintable() and max(map(len, Path(file).parts)) <= 64 for file in files)


def items_where(name, holds):
    table = catalogue().table
    return {item for item, value in zip(table["item_id"].to_pylist(), table[name].to_pylist(), strict=True) if holds(value)}


def test_a_filter_by_any_column_finds_its_items(client):
    for name in CATEGORIES:
        for value in (f"v0={name[:3]}|%", f"v3={name[:3]}|%"):
            (result,) = client.query("lamp", filter={name: value}, k=ITEMS)
            assert set(result.ids) == items_where(name, lambda v: v == value), name  # noqa: B023
            (again,) = client.query("lamp", filter=result.applied_filter, k=ITEMS)
            assert again.ids == result.ids, name
    for name in NUMBERS:
        (result,) = client.query("lamp", filter={name: (10, 30)}, k=ITEMS)
        assert set(result.ids) == items_where(name, lambda v: 10 <= v <= 30), name


def test_a_client_asks_by_the_columns_own_names(client):
    assert client.filter_columns() == dict.fromkeys(CATEGORIES, "category") | dict.fromkeys(NUMBERS, "number")
    table = catalogue().table
    found = client.predict("attributes", item_ids=["i5", "no such item"])
    for name in (*CATEGORIES, *NUMBERS):
        assert found[name].tolist() == [table[name][5].as_py(), "" if name in CATEGORIES else 0.0]
    vectors = [client.predict("embed_items", title="lamp", **{name: "v1=" + name[:3] + "|%"})["embedding"] for name in CATEGORIES]
    assert_all_differ(np.concatenate(vectors))
    scores = [client.query("lamp", user={name: f"{name[:3]}1"})[0].scores for name in PROFILE]
    assert_all_differ(np.array(scores))


def test_the_command_asks_by_the_columns_own_names(server):
    def scores(*more):
        asked = [
            "query",
            "lamp",
            "--server",
            server.rest_url,
            "--name",
            server.name,
            "--k",
            str(ITEMS),
            "--filter",
            "a%3Db=v1=a=b%7C%25",
            *more,
        ]
        ended = CliRunner().invoke(cli.app, asked)
        assert ended.exit_code == 0, ended.output
        rows = re.findall(r"(-?\d\.\d{3})\W+(i\d+)\b", ended.output)
        assert {item for _, item in rows} == items_where("a=b", lambda value: value == "v1=a=b|%")
        return [score for score, _ in rows]

    assert scores("--user", "größe (cm)=grö1") != scores()
    assert scores("--user", "AGE=AGE1") != scores("--user", "age=age1") != scores()


def test_inspect_says_how_inputs_are_called(exported):
    about = inspect(exported[1])
    assert {*about["inputs"].values()} == {
        "BRAND",
        "class",
        "尺寸",
        "../up",
        "a=b",
        "50%|nul\0",
        "/etc/passwd",
        "user_AGE",
        "user_größe (cm)",
    }
    inputs = about["signatures"]["serving_default"]["inputs"].keys() | about["signatures"]["embed_items"]["inputs"].keys()
    assert about["inputs"].keys() <= inputs
    assert {"user_age", "user_id", "brand", "ages", "item", "items", "title_words", "query", "k"} <= inputs
    console = Console(file=io.StringIO(), width=200)
    show(about, console)
    assert "user_größe (cm)" in console.file.getvalue()


def test_the_c_program_asks_by_the_names_in_the_signature(exported, server, tmp_path):
    if not (sys.platform == "linux" and shutil.which("make") and shutil.which("cc")):
        pytest.skip("needs Linux with make and a C compiler (cc)")
    source = Path(__file__).parents[1] / "export" / "load_check"
    subprocess.run(["make", "-s", f"PYTHON={sys.executable}", f"BUILD={tmp_path}"], cwd=source, check=True)
    version, (name,) = exported[1], [name for name, column in inspect(exported[1])["inputs"].items() if column == "user_größe (cm)"]
    libraries = manifest.op_libraries(manifest.read_manifest(version)["ops_outside_tensorflow"])
    flags = [flag for path in libraries for flag in ("-l", str(path))]
    ended = subprocess.run(
        [tmp_path / "load_check", version, *flags, "query=lamp", f"{name}=grö1"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("scores:")]
    with Client(server.rest_url, server.name) as asking:
        expected = asking.query("lamp", user={"größe (cm)": "grö1"})[0].scores
    assert list(map(float, line.split()[1:])) == pytest.approx(expected[:10], rel=1e-4)


def test_refresh_embeds_what_changed_in_any_column(exported, tmp_path, monkeypatch):
    run = shutil.copytree(exported[0].path, tmp_path / "run")
    monkeypatch.setattr(writing, "_check_in_fresh_process", lambda folder: {"ok": True})
    next_one = catalogue(changed=3)
    table = next_one.table
    Catalogue(table.select(table.column_names[::-1])).write(tmp_path / "next.parquet")
    published = pipeline.refresh(run, tmp_path / "next.parquet", heldout_queries=5, quiet=True)
    assert published.embedded == 3
    search = check.load(published.folders[0]).signatures["search"]
    found = search(**check.complete_inputs(search.structured_input_signature[1], {"query": ["lamp"], "filter": [["../up=another"]]}))
    assert {item.decode() for item in found["ids"].numpy().ravel()} - {""} == {"i2", "i3", "i4"}
