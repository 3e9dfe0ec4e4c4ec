"""The signature `search`: every request of a batch gets what it asks for, whatever stands beside it."""

import importlib
import json

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from search_oracle import check_answer
from toy_servable import COLUMNS, EMBEDDINGS, IDS, ITEMS, QUESTIONS, ToyIntent, ToyItems, ToyQueries, toy_servable

from tfebr.cli import app
from tfebr.client.client import Client
from tfebr.client.transports import Described
from tfebr.data.item_ids import ItemIds
from tfebr.errors import RequestError
from tfebr.index.attributes import ItemAttributes
from tfebr.index.kinds import index_of
from tfebr.index.recipe import Recipe
from tfebr.servable import module
from tfebr.servable.check import complete_inputs
from tfebr.servable.module import RetrievalServable
from tfebr.servable.write import write
from tfebr.server.server import Server

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")

K = 7
# Small depths and few partitions, so that what a row finds depends on how deep its own search goes.
RECIPES = {
    "exact": Recipe("exact"),
    "hash": Recipe("hash", reorder=12),
    "tree": Recipe("tree", leaves=12, leaves_to_search=3, reorder=12),
    "int8": Recipe("tree", leaves=12, leaves_to_search=3, reorder=12, vectors="int8"),
    "ivf": Recipe("ivf", leaves=12, leaves_to_search=3),
}


@pytest.fixture(scope="module", params=RECIPES)
def find(request):
    """`search` of one kind of index, taking rows as dicts; each row's answer as (ids, scores)."""
    ids = ItemIds(np.array(IDS))
    index = index_of(RECIPES[request.param], EMBEDDINGS)
    servable = RetrievalServable(ToyQueries(ids), ToyItems(), index, ids, K, ItemAttributes(pa.table(COLUMNS)), ToyIntent())
    return _asking(servable)


def _asking(servable):
    function = servable.signature_functions()["search"]
    specs = function.structured_input_signature[1]

    def ask(rows):
        names = {name for row in rows for name in row}
        empty = {name: [] if specs[name].shape.rank > 1 else {tf.string: "", tf.bool: False}.get(specs[name].dtype, 0) for name in names}
        given = {name: [row.get(name, empty[name]) for row in rows] for name in names}
        return _rows(function(**complete_inputs(specs, given)))

    return ask


def _rows(outputs):
    """Checks what holds for every answer."""
    ids, scores, counts = (outputs[name].numpy() for name in ("ids", "scores", "num_results"))
    assert ids.shape == scores.shape
    assert np.isfinite(scores).all()
    found = []
    for row_ids, row_scores, count in zip(ids, scores, counts, strict=True):
        assert (row_ids[:count] != b"").all()
        assert (row_ids[count:] == b"").all()
        assert (row_scores[count:] == 0).all()
        assert (np.diff(row_scores[:count]) <= 0).all()
        assert len(set(row_ids[:count])) == count
        found.append(([i.decode() for i in row_ids[:count]], row_scores[:count]))
    return found


ANY_ID = st.one_of(st.sampled_from(IDS), st.sampled_from(["", "sku-", "unknown", "sku-300", "Sku-1"]))
ROW = st.fixed_dictionaries(
    {"query": st.sampled_from(["a", "b", "red shoes", "cheap", "sony", ""])},
    optional={
        "k": st.one_of(st.integers(-2, 40), st.sampled_from([ITEMS - 1, ITEMS, ITEMS + 1, 2**31 - 1, -(2**31)])),
        "exclude": st.one_of(st.lists(ANY_ID, max_size=12), st.sampled_from([IDS[:200], IDS, [*IDS[50:], *IDS], ["x"] * 1000])),
        "leaves_to_search": st.sampled_from([-1, 0, 1, 2, 5, 12, 13, 2**31 - 1]),
        "filter": st.sampled_from([[], [""], ["brand=Sony"], ["", "price=10..60"], ["price=..1"], ["brand=none"], ["brand=LG|brand=Sony"]]),
        "automatic": st.booleans(),
        "history_items": st.sampled_from([[], ["sku-4"], ["", "sku-9", "sku-2"], ["unknown"]]),
        "user_age": st.sampled_from(["", "nan"]),
        "prices": st.sampled_from([[0, 0, 0], [1, 0, -1]]),
    },
)


@settings(max_examples=30)
@given(rows=st.lists(ROW, min_size=1, max_size=6))
def test_a_mixed_batch_equals_the_same_requests_sent_singly(find, rows):
    together = find(rows)
    for row, (ids, scores) in zip(rows, together, strict=True):
        ((single_ids, single_scores),) = find([row])
        np.testing.assert_allclose(scores, single_scores, rtol=1e-5, atol=1e-5)
        # Matrix products of other sizes round otherwise: two items may change places, or one the last place, where their scores are equal.
        singly = dict(zip(single_ids, single_scores, strict=True))
        expected = [singly.get(item_id, single_scores[-1]) for item_id in ids]
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
        assert len(ids) == len(single_ids)
        check_answer(row, ids, K)


def test_exact_results_are_the_best_of_what_is_allowed():
    servable = toy_servable(default_k=K)
    embed = servable.signature_functions()["embed_query"]
    ask = _asking(servable)
    rows = [
        {"query": "a", "history_items": ["sku-3"], "k": 4, "exclude": ["sku-3"]},
        {"query": "b", "k": ITEMS + 1, "exclude": [*IDS[:290], *IDS[:290], "unknown"]},
        {"query": "c", "k": 0},
    ]
    for row, (ids, scores) in zip(rows, ask(rows), strict=True):
        inputs = {name: [value] for name, value in row.items() if name not in ("k", "exclude")}
        heads = embed(**complete_inputs(embed.structured_input_signature[1], inputs))["embedding"].numpy()[0]
        best = (heads @ EMBEDDINGS.T).max(axis=0)
        order = [i for i in np.argsort(-best, kind="stable") if IDS[i] not in row.get("exclude", [])][: row["k"] or K]
        assert ids == [IDS[i] for i in order]
        np.testing.assert_allclose(scores, best[order], rtol=1e-5)


def test_leaves_to_search_decides_how_many_partitions_are_looked_into():
    recipe = Recipe("tree", leaves=30, leaves_to_search=2, reorder=ITEMS)
    ids = ItemIds(np.array(IDS))
    encoder = ToyQueries(ids)
    ask, exact = (_asking(RetrievalServable(encoder, ToyItems(), index_of(kind, EMBEDDINGS), ids, K)) for kind in (recipe, Recipe("exact")))
    # So few results that one partition has them: where it has not, the search goes on in more.
    queries = [{"query": f"query {i}", "k": 2} for i in range(30)]
    found = {leaves: ask([{**q, "leaves_to_search": leaves} for q in queries]) for leaves in (1, 0, 2, 30, 31)}
    overlap = {n: np.mean([len({*a} & {*b}) for (a, _), (b, _) in zip(found[n], found[30], strict=True)]) for n in found}
    assert overlap[1] < overlap[2] < overlap[30] == overlap[31] == 2
    assert [ids for ids, _ in found[0]] == [ids for ids, _ in found[2]], "0 is the recipe's"
    assert [ids for ids, _ in found[30]] == [ids for ids, _ in exact(queries)]


def test_rows_are_searched_together_where_their_searches_go_equally_deep(monkeypatch):
    ids, index = ItemIds(np.array(IDS)), index_of(RECIPES["tree"], EMBEDDINGS)
    searched = []
    real = index.search

    def counting(queries, k, leaves=None):
        tf.py_function(lambda n: searched.append(int(n)), [tf.shape(queries)[0]], [])
        return real(queries, k, leaves)

    monkeypatch.setattr(index, "search", counting)
    ask = _asking(RetrievalServable(ToyQueries(ids), ToyItems(), index, ids, K))
    ask(
        [
            {"query": "a", "k": 3, "exclude": ["sku-1", "sku-2"]},
            {"query": "b"},
            {"query": "c", "k": 12},
            {"query": "d", "leaves_to_search": 3},
        ]
    )
    assert searched == [4], "all within the recipe's 12 candidates of 3 leaves"
    searched.clear()
    ask([{"query": "a", "leaves_to_search": 1}, {"query": "b"}, {"query": "c", "k": 13}, {"query": "d", "leaves_to_search": 1}])
    assert sorted(searched) == [1, 1, 2]


def test_no_more_than_the_limit(monkeypatch):
    monkeypatch.setattr(module, "MAX_K", 30)
    for default_k, most in ((K, 30), (40, 40)):
        servable = toy_servable(default_k=default_k)
        ((ids, _),) = _asking(servable)([{"query": "a", "k": 2**31 - 1}])
        assert len(ids) == most


def test_an_empty_batch_and_no_columns():
    search = toy_servable(columns=COLUMNS).signature_functions()["search"]
    specs = search.structured_input_signature[1]
    nothing = search(
        **{name: tf.zeros([0] + [3 if name == "prices" else 0] * (spec.shape.rank - 1), spec.dtype) for name, spec in specs.items()}
    )
    assert {name: tuple(value.shape) for name, value in nothing.items()} == {
        "ids": (0, 0),
        "scores": (0, 0),
        "num_results": (0,),
        "applied_filter": (0, 0),
    }


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_check_in_fresh_process", lambda folder: {"ok": True})
        base = tmp_path_factory.mktemp("search") / "shop"
        return write(toy_servable("tree", columns=COLUMNS), base, {}, [*QUESTIONS, {"query": ["a"], "k": [3], "exclude": [["sku-1"]]}])


@pytest.fixture(scope="module")
def server(version):
    with Server(version.parent, rest_port=0, grpc_port=0) as server:
        yield server


@pytest.fixture(params=["rest", "grpc"])
def client(request, server):
    target = {"rest": server.rest_url, "grpc": server.grpc_target}[request.param]
    with Client(target, "shop", request.param) as client:
        yield client


def test_the_client_asks_for_what_each_query_needs(client):
    (all_found,) = client.query("x")
    (first,) = client.query("x", k=3)
    assert first.ids == all_found.ids[:3]
    (rest,) = client.query("x", k=3, exclude=[*first.ids, "unknown", first.ids[0]])
    assert rest.ids == all_found.ids[3:6]
    assert [len(result.ids) for result in client.query(["x", "y"], k=[5, 30])] == [5, 30]
    assert client.query("x", k=ITEMS + 50)[0].ids[:20] == all_found.ids
    assert len(client.query("x", k=ITEMS + 50)[0].ids) == ITEMS
    (filtered,) = client.query("x", k=2, exclude=IDS[:4], filter={"price": (None, 3)}, leaves_to_search=1)
    assert set(filtered.ids) < set(IDS[4:7])
    assert client.query("x", k=3, exclude=[i for i in IDS if i != "sku-7"] * 4)[0].ids == ["sku-7"], "a thousand exclusions"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 0}, "Field `k` must be at least 1. Received: 0"),
        ({"k": [3, -1]}, "Field `k` must be at least 1. Received: -1"),
        ({"k": [3]}, "Field `k` has 1 rows, but `query` has 2"),
        ({"k": 1.5}, "Field `k` must hold a whole number"),
        ({"k": 2**40}, "Field `k` holds a number outside the range of int32"),
        ({"leaves_to_search": 0}, "Field `leaves_to_search` must be at least 1"),
        ({"exclude": "sku-1"}, "Field `exclude` must be a list. Received: one string"),
        ({"exclude": [1]}, "Field `exclude` must hold a str for each value. Received: a int"),
        ({"k": 3, "signature": "serving_default"}, "Signature `serving_default` has no field `k`"),
    ],
)
def test_the_client_names_the_field_that_is_wrong(client, given, message):
    with pytest.raises(RequestError) as caught:
        client.query(["a", "b"], **given)
    assert message in str(caught.value)


def test_every_list_that_is_sent_begins_with_padding(client, monkeypatch):
    """What TensorFlow Serving's batching appends to a shorter list is its first element."""
    sent = {}
    real = client._transport.predict
    monkeypatch.setattr(
        client._transport, "predict", lambda signature, arrays, *rest: sent.update(arrays) or real(signature, arrays, *rest)
    )
    history = {"history": ["sku-2", "sku-3"], "exclude": ["sku-1"], "filter": {"price": (None, 90)}}
    found = client.query("x", **history)
    lists = {name: values for name, values in sent.items() if values.ndim == 2 and name != "prices"}
    assert set(lists) == {"history_items", "exclude", "filter"}
    assert all((values[:, 0] == b"").all() for values in lists.values())
    padded = {name: np.concatenate([values, np.repeat(values[:, :1], 5, axis=1)], axis=1) for name, values in lists.items()}
    again = real("search", {**sent, **padded}, ["ids", "scores", "num_results"], Described("shop", None, {}), 10.0)
    assert np.asarray(again["ids"]).astype(str).tolist()[0][: len(found[0].ids)] == found[0].ids


def test_the_command_asks_for_k_results_without_some(server):
    from typer.testing import CliRunner

    def ids(*arguments):
        shown = CliRunner().invoke(app, ["query", "x", "--server", server.rest_url, "--name", "shop", *arguments])
        assert shown.exit_code == 0, shown.output
        return [word for line in shown.output.splitlines() for word in line.split() if word.startswith("sku-")]

    first = ids()
    assert len(first) == 10
    assert ids("--k", "3") == first[:3]
    assert ids("--k", "3", "--exclude", f"{first[0]},{first[2]}") == [first[1], *first[3:5]]
    assert len(ids("--k", "25")) == 25


def test_the_check_asks_search_too(version):
    (asked,) = [q for q in json.loads((version / "assets.extra" / "check.json").read_text()) if q["signature"] == "search"]
    assert asked["expected"]["num_results"] == [3]
    assert "sku-1" not in asked["expected"]["ids"][0]
