"""Filters from a client's dict to the answers of a served version, over both protocols."""

import gc
import importlib
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_servable import COLUMNS, EMBEDDINGS, IDS, ITEMS, QUESTIONS, K, ToyIntent, ToyItems, ToyQueries, toy_servable

from tfebr.cli import app
from tfebr.client.client import Client
from tfebr.data.item_ids import ItemIds
from tfebr.errors import ConfigError, RequestError
from tfebr.index.exact import ExactIndex
from tfebr.servable import check, manifest
from tfebr.servable.filters import filter_clauses
from tfebr.servable.module import RetrievalServable
from tfebr.servable.write import write
from tfebr.server.server import Server

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")

KINDS = {"brand": "category", "Größe in %": "category", "price": "number"}
CHECKS = [*QUESTIONS, {"query": ["red shoes", "x"], "filter": [["brand=Sony", "price=..100"], []]}]


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    base = tmp_path_factory.mktemp("servable") / "shop"
    return write(toy_servable("tree", columns=COLUMNS, intent=ToyIntent()), base, {}, CHECKS)


@pytest.fixture(scope="module")
def clients(version):
    with Server(version.parent, rest_port=0, grpc_port=0) as server:
        with Client(server.rest_url, "shop") as rest, Client(server.grpc_target, "shop", protocol="grpc") as grpc:
            yield {"rest": rest, "grpc": grpc}


@pytest.fixture(params=["rest", "grpc"])
def client(request, clients):
    return clients[request.param]


def _expected(**keep):
    """The ids of a query whose history is the only head that differs between items, best first."""
    scores = np.maximum(EMBEDDINGS @ EMBEDDINGS[7], EMBEDDINGS @ WORDS["x"])
    rows = [row for row in np.argsort(-scores) if all(test(COLUMNS[name][row]) for name, test in keep.items())]
    return [IDS[row] for row in rows[:K]]


WORDS: dict = {}


@pytest.fixture(scope="module", autouse=True)
def words(version):
    """The query head of "x", read off the loaded version."""
    embed = check.load(version).signatures["embed_query"]
    embedding = embed(**check.complete_inputs(embed.structured_input_signature[1], {"query": ["x"]}))["embedding"]
    WORDS["x"] = embedding.numpy()[0, 0]


@pytest.mark.parametrize(
    ("wanted", "keep", "clauses"),
    [
        ({"brand": "Sony"}, {"brand": lambda v: v == "Sony"}, ["brand=Sony"]),
        ({"brand": ["Sony", "a|b"]}, {"brand": lambda v: v in ("Sony", "a|b")}, ["brand=Sony|brand=a%7Cb"]),
        ({"brand": "50%"}, {"brand": lambda v: v == "50%"}, ["brand=50%25"]),
        ({"Größe in %": "M"}, {"Größe in %": lambda v: v == "M"}, ["Größe in %25=M"]),
        ({"price": (10, 50.5)}, {"price": lambda v: 10 <= v <= 50.5}, ["price=10.0..50.5"]),
        ({"price": (None, 3)}, {"price": lambda v: v <= 3}, ["price=..3.0"]),
        ({"price": 7}, {"price": lambda v: v == 7}, ["price=7.0..7.0"]),
        ({"price": [(1, 2), (5, None)]}, {"price": lambda v: 1 <= v <= 2 or v >= 5}, ["price=1.0..2.0|price=5.0.."]),
        (
            {"brand": "LG", "price": (None, 60)},
            {"brand": lambda v: v == "LG", "price": lambda v: v <= 60},
            ["brand=LG", "price=..60.0"],
        ),
        (["brand=Sony|brand=LG", "price=..20"], {"brand": lambda v: v in ("Sony", "LG"), "price": lambda v: v <= 20}, None),
        ({"brand": "sony"}, {"brand": lambda v: False}, ["brand=sony"]),
    ],
)
def test_results_are_those_that_match(client, wanted, keep, clauses):
    (result,) = client.query("x", history=["sku-7"], filter=wanted)
    assert result.ids == _expected(**keep)
    assert result.applied_filter == (wanted if clauses is None else clauses)


def test_an_empty_filter_is_none(client):
    plain = client.query("x", history=["sku-7"])
    assert plain[0].applied_filter == []
    for nothing in (None, {}, [], [""]):
        assert client.query("x", history=["sku-7"], filter=nothing) == plain


def test_a_filter_holds_for_every_query(client):
    for result in client.query(["x", "y"], filter={"price": (None, 2)}):
        assert len(result.ids) == 5
        assert result.applied_filter == ["price=..2.0"]


def test_the_query_filters_when_asked_to(client):
    (result,) = client.query("cheap sony radio", automatic=True)
    assert result.applied_filter == ["price=..10", "brand=Sony"]
    assert sorted(result.ids) == sorted(
        i for i, b, p in zip(IDS, COLUMNS["brand"], COLUMNS["price"], strict=True) if b == "Sony" and p <= 10
    )
    (both,) = client.query("cheap sony radio", filter={"Größe in %": "S"}, automatic=True)
    assert both.applied_filter == ["Größe in %25=S", "price=..10", "brand=Sony"]
    assert set(both.ids) < set(result.ids)
    (plain,) = client.query("cheap sony radio", filter={"price": (0, None)})
    assert len(plain.ids) == K
    assert client.query("radio", automatic=True)[0].applied_filter == []


def test_what_is_asked_for_goes_before_what_the_query_implies(client):
    (found,) = client.query("cheap sony radio", filter={"brand": "LG"}, automatic=True)
    assert found.applied_filter == ["brand=LG", "price=..10"]
    assert set(found.ids) == {i for i, b, p in zip(IDS, COLUMNS["brand"], COLUMNS["price"], strict=True) if b == "LG" and p <= 10}


def test_rows_of_a_batch_are_filtered_each_for_itself(client):
    found = client.predict(
        "search",
        query=["x", "cheap", "cheap", "x"],
        filter=[["brand=LG"], [], ["", "price=100.."], ["garbage"]],
        automatic=[False, True, False, True],
    )
    applied = [[clause for clause in row if clause] for row in found["applied_filter"].tolist()]
    assert applied == [["brand=LG"], ["price=..10"], ["price=100.."], ["garbage"]]
    assert found["num_results"].tolist() == [K, K, K, 0]
    for row, clauses in enumerate(applied[:3]):
        single = client.predict("search", query=["x", "cheap", "cheap"][row : row + 1], filter=[clauses])
        assert found["ids"][row].tolist() == single["ids"][0].tolist()
    assert set(found["ids"][3]) == {""}
    assert set(found["scores"][3]) == {0.0}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"colour": "red"}, "catalogue has no column `colour`. It has: Größe in %, brand, price"),
        (["brand=Sony|colour=red"], "catalogue has no column `colour`"),
        (["Sony"], "must be written column=value or column=low..high. Received: 'Sony'"),
        (["brand=Sony||brand=LG"], "must be written column=value"),
        (["price=10"], "column `price` holds numbers: write price=low..high"),
        ("brand=Sony", "`filter` must be a dict"),
        ([1], "`filter` must be a dict"),
        (5, "`filter` must be a dict"),
        ({"brand": 5}, "column `brand` holds strings"),
        ({"brand": ""}, "column `brand` holds strings"),
        ({"brand": ("a", "b")}, "column `brand` holds strings"),
        ({"brand": []}, "column `brand` has an empty list"),
        ({"price": "10"}, "column `price` holds numbers"),
        ({"price": True}, "column `price` holds numbers"),
        ({"price": (None, None)}, "column `price` holds numbers"),
        ({"price": (1, 2, 3)}, "column `price` holds numbers"),
        ({"price": (1, float("nan"))}, "column `price` holds numbers"),
    ],
)
def test_filters_that_cannot_be_meant_are_refused(client, wanted, message):
    with pytest.raises(RequestError) as caught:
        client.query("x", filter=wanted)
    assert message in str(caught.value)


def test_the_client_refuses_a_filter_that_would_find_nothing_for_its_size(client):
    with pytest.raises(RequestError, match=r"`filter` must be at most 256 clauses\. Received: 257\. Put values"):
        client.query("x", filter=["brand=Sony"] * 257)
    with pytest.raises(RequestError, match=r"at most 65,536 bytes long\. Received: 110,\d+ bytes in 'brand=Sony"):
        client.query("x", filter={"brand": ["Sony"] * 10_000 + ["LG"] * 10})
    assert client.query("x", filter={"brand": ["Sony"] * 5000})[0].ids


def test_the_client_knows_the_columns(client):
    assert client.filter_columns() == KINDS
    found = client.predict("attributes", item_ids=["sku-2", "unknown", "sku-4"])
    assert found["brand"].tolist() == ["a|b", "", ""]
    assert found["Größe in %"].tolist() == ["L", "", "M"]
    assert found["price"].tolist() == [1.0, 0.0, 2.0]


def test_the_command_filters(version, capsys):
    with Server(version.parent, rest_port=0, grpc_port=0) as server:
        arguments = ["query", "cheap x", "--server", server.rest_url, "--name", "shop", "--k", "30"]
        filters = ["--filter", "brand=LG|brand=a%7Cb", "--filter", "Größe in %25=S|Größe in %25=M", "--automatic"]
        app([*arguments, *filters], standalone_mode=False)
        printed = capsys.readouterr().out
        with pytest.raises(RequestError, match="no column `colour`"):
            app([*arguments, "--filter", "colour=red"], standalone_mode=False)
    assert "filter: brand=LG|brand=a%7Cb, Größe in %25=S|Größe in %25=M, price=..10" in " ".join(printed.split())
    wanted = {"brand": ("LG", "a|b"), "Größe in %": ("S", "M")}
    kept = [i for i in range(ITEMS) if all(COLUMNS[c][i] in values for c, values in wanted.items()) and COLUMNS["price"][i] <= 10]
    assert sorted(re.findall(r"sku-\d+", printed)) == sorted(IDS[i] for i in kept)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


@given(
    names=st.lists(TEXT | st.text("=%|.37CD25", min_size=1, max_size=6), min_size=1, max_size=3, unique=True),
    values=st.lists(TEXT, min_size=1, max_size=3),
)
def test_escaping_is_undone_by_the_grammar(names, values):
    """The clauses of a dict are read again as what was meant."""
    clauses = filter_clauses({name: values for name in names}, dict.fromkeys(names, "category"))
    assert filter_clauses(clauses, dict.fromkeys(names, "category")) == clauses
    meant = {"%7C": "|", "%25": "%", "%3D": "="}
    atoms = [[atom.split("=", 1) for atom in clause.split("|")] for clause in clauses]
    read = [[tuple(re.sub("%7C|%25|%3D", lambda found: meant[found[0]], part) for part in atom) for atom in clause] for clause in atoms]
    assert read == [[(name, value) for value in values] for name in names]


@given(low=st.floats(allow_nan=False) | st.integers(), high=st.floats(allow_nan=False, width=32))
def test_bounds_are_written_as_they_are(low, high):
    if not (np.isinf(float(low)) and np.isinf(high)):
        (clause,) = filter_clauses({"price": (low, np.float32(high))}, KINDS)
        bounds = clause.removeprefix("price=").split("..")
        read = [float(bound) if bound else None for bound in bounds]
        assert read == [None if np.isinf(float(bound)) else float(bound) for bound in (low, high)]


def test_a_version_without_attributes_takes_no_filter(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_check_in_fresh_process", lambda folder: {"ok": True})
    version = write(toy_servable(), tmp_path / "shop", {}, QUESTIONS[:1])
    assert set(manifest.read_manifest(version)["signatures"]) == {"serving_default", "search", "embed_query", "embed_items"}
    assert manifest.read_manifest(version)["filter_columns"] == {}
    with Server(version.parent, rest_port=0, grpc_port=0) as server, Client(server.rest_url, "shop") as client:
        with pytest.raises(RequestError, match="Model `shop` takes no filter"):
            client.query("x", filter={"brand": "Sony"})
        with pytest.raises(RequestError, match="Signature `search` has no field `automatic`"):
            client.query("x", automatic=True)
    with pytest.raises(ConfigError, match="holds a filter, but the servable has no attributes"):
        write(toy_servable(), tmp_path / "other", {}, CHECKS)


def test_without_an_intent_there_is_nothing_automatic():
    find = toy_servable(columns=COLUMNS).signature_functions()["search"]
    specs = find.structured_input_signature[1]
    assert set(specs) == {*ToyQueries.input_signature, "filter", "k", "exclude", "leaves_to_search"}
    answer = find(**check.complete_inputs(specs, {"query": ["cheap"], "filter": [["price=140..", "brand=LG"]]}))
    kept = [i for i in range(ITEMS) if COLUMNS["price"][i] >= 140 and COLUMNS["brand"][i] == "LG"]
    assert answer["num_results"].numpy().tolist() == [len(kept)]
    assert {i.decode() for i in answer["ids"].numpy()[0]} == {IDS[i] for i in kept} | {""}


def test_the_manifest_and_the_check_know_filters(version):
    written = manifest.read_manifest(version)
    assert written["filter_columns"] == KINDS
    assert written["signatures"]["search"]["inputs"]["filter"] == {"dtype": "string", "shape": [-1, -1]}
    assert set(written["signatures"]["search"]["outputs"]) == {"ids", "scores", "num_results", "applied_filter"}
    questions = check.read_json(version / check.QUESTIONS)
    assert [question["signature"] for question in questions] == ["serving_default", "serving_default", "search"]
    assert questions[2]["expected"]["num_results"] == [K, K]


def test_a_version_from_elsewhere_stands_alone(version):
    gc.collect()
    search = check.load(version).signatures["search"]
    specs = search.structured_input_signature[1]
    answer = search(**check.complete_inputs(specs, {"query": ["x"], "filter": [["brand=50%25"]]}))
    assert answer["num_results"].numpy().tolist() == [K]


def test_parts_that_do_not_fit_are_refused():
    ids = ItemIds(np.array(IDS))
    with pytest.raises(ConfigError, match=r"`attributes` must hold the same items\. Received 300 and 2"):
        toy_servable(columns={"brand": ["a", "b"]})
    with pytest.raises(ConfigError, match="`intent` makes filters, which need `attributes`"):
        RetrievalServable(ToyQueries(ids), ToyItems(), ExactIndex(EMBEDDINGS), ids, intent=ToyIntent())
