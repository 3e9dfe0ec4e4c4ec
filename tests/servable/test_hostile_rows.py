"""One row's bad values are that row's: the others of its batch, another user's perhaps, get exactly what they get alone."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_servable import COLUMNS, EMBEDDINGS, IDS, ToyIntent, ToyItems, ToyQueries

from tfebr.data.item_ids import ItemIds
from tfebr.data.log import split_time
from tfebr.index.attributes import ItemAttributes
from tfebr.index.kinds import index_of
from tfebr.index.recipe import Recipe
from tfebr.models.encoders import RawItemEncoder, RawQueryEncoder
from tfebr.models.mgdspr import MGDSPRConfig
from tfebr.models.mmse import MMSEConfig
from tfebr.models.run_folder import prepare_run
from tfebr.servable.check import complete_inputs
from tfebr.servable.module import RetrievalServable

K = 7
CONFIGS = {
    "mmse": MMSEConfig(dim=16, heads=2, column_dim=4, query_hidden=(16,), item_hidden=(16,)),
    "mgdspr": MGDSPRConfig(dim=32, heads=2, column_dim=4, random_negatives=100, hard=80),
}
RECIPES = {
    "mmse": Recipe("tree", leaves=10, leaves_to_search=3, reorder=20),
    "mgdspr": Recipe("ivf", leaves=10, leaves_to_search=3),
    "toy": Recipe("exact"),
}


class Asked:
    """A servable's signatures, asked row by row or with several rows together."""

    def __init__(self, servable, ids):
        self.functions, self.ids = servable.signature_functions(), ids
        self.specs = {name: function.structured_input_signature[1] for name, function in self.functions.items()}

    def __call__(self, signature, rows):
        """Each row's outputs by name."""
        columns = {name: [row[name] for row in rows] for name in self.specs[signature]}
        outputs = self.functions[signature](**complete_inputs(self.specs[signature], columns))
        arrays = {name: value.numpy() for name, value in outputs.items()}
        return [{name: np.array(values[i], values.dtype) for name, values in arrays.items()} for i in range(len(rows))]


def of_model(name, shop, folder):
    """A servable of a model as it is before training, over the tiny shop."""
    run = prepare_run(folder, name, CONFIGS[name], shop, split_time(shop.log(), 0.1), quiet=True)
    catalogue, model = shop.catalogue(), run.new_model()
    ids = ItemIds(catalogue.item_ids)
    index = index_of(RECIPES[name], model.corpus_embeddings())
    encoders = RawQueryEncoder(model, run.featurizer, ids), RawItemEncoder(model, run.featurizer, ids)
    servable = RetrievalServable(*encoders, index, ids, K, ItemAttributes(catalogue.table), run.intent())
    return Asked(servable, list(catalogue.item_ids))


@pytest.fixture(scope="module", params=RECIPES)
def ask(request, tiny_shop, tmp_path_factory):
    if request.param != "toy":
        return of_model(request.param, tiny_shop, tmp_path_factory.mktemp("rows") / "run")
    ids = ItemIds(np.array(IDS))
    index = index_of(RECIPES["toy"], EMBEDDINGS)
    return Asked(RetrievalServable(ToyQueries(ids), ToyItems(), index, ids, K, ItemAttributes(pa.table(COLUMNS)), ToyIntent()), IDS)


ODD = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([b"\xff\xfe \xc3\x28", b"a\x00b", b"x" * 5000, b"\xed\xa0\x80", "\ufdfa".encode() * 600, b"=", b"|" * 50, b"%7C%"]),
    st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace")),
)
WHOLE = st.one_of(st.sampled_from([4, -1, 5, 1000, 2**31 - 1, -(2**31)]), st.integers(-(2**31), 2**31 - 1))
CLAUSE = st.one_of(
    ODD,
    st.builds(lambda name, value: name + b"=" + value, st.sampled_from([b"brand", b"price"]), st.one_of(ODD, st.just(b"1e999..-1e999"))),
)


def good_value(name, spec, ids):
    """What a sound client sends."""
    if name in ("history_items", "exclude"):
        return st.lists(st.sampled_from([ids[0], ids[3], ids[-1]]).map(str.encode), max_size=3)
    if name == "filter":
        return st.sampled_from([[], [b"price=1..60"]])
    if name == "item_ids":
        return st.sampled_from([ids[1].encode(), b"unknown"])
    if spec.dtype == tf.bool:
        return st.booleans()
    if spec.dtype == tf.float32:
        return st.lists(st.sampled_from([0.0, 1.0, -2.0]), min_size=3, max_size=3)
    if spec.dtype == tf.string:
        text = st.sampled_from([b"red shoes", b"cheap lamp", b""])
        return st.lists(text, max_size=3) if spec.shape.rank == 2 else text
    whole = {"history_stages": st.integers(0, 3), "history_ages": st.integers(0, 40 * 86_400)}.get(name, st.integers(0, 9))
    return st.lists(whole, max_size=3) if spec.shape.rank == 2 else whole


def bad_value(name, spec, ids):
    """What no client should send, and what only a few do."""
    if spec.dtype == tf.bool:
        return st.booleans()
    if spec.dtype == tf.float32:
        return st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 3e38, 1e-42]), min_size=3, max_size=3)
    kind = CLAUSE if name == "filter" else WHOLE if spec.dtype == tf.int32 else st.one_of(ODD, st.sampled_from(ids).map(str.encode))
    # Longer than any length that a model reads of a history.
    return st.one_of(st.lists(kind, max_size=6), kind.map(lambda value: [value] * 250)) if spec.shape.rank == 2 else kind


def rows_of(specs, ids, value):
    return st.fixed_dictionaries({name: value(name, spec, ids) for name, spec in specs.items()})


@settings(max_examples=25)
@given(data=st.data())
@pytest.mark.parametrize("signature", ["search", "serving_default", "embed_query", "embed_items", "attributes"])
def test_the_other_rows_get_what_they_get_alone(ask, signature, data):
    specs = ask.specs[signature]
    good = data.draw(st.lists(rows_of(specs, ask.ids, good_value), min_size=1, max_size=3))
    hostile = data.draw(rows_of(specs, ask.ids, bad_value))
    place = data.draw(st.integers(0, len(good)))
    together = ask(signature, [*good[:place], hostile, *good[place:]])
    check_finite(together)
    for row, found in zip(good, together[:place] + together[place + 1 :], strict=True):
        (alone,) = ask(signature, [row])
        assert_same(alone, found)


def check_finite(found):
    assert all(np.isfinite(value).all() for outputs in found for value in outputs.values() if value.dtype != object)


def assert_same(alone, found):
    """A row of a batch may be wider than the same alone: what is more is padding."""
    assert alone.keys() == found.keys()
    for name, value in alone.items():
        other = found[name]
        if value.dtype == object and name == "ids":
            count = int(alone["num_results"])
            assert set(other[count:].tolist()) <= {b""}
            mine, theirs = (dict(zip(o["ids"][:count].tolist(), o["scores"][:count].tolist(), strict=True)) for o in (alone, found))
            # Which candidates an approximate index looks at hangs on the last bits of the query, and those on the size of the batch.
            common = [item_id for item_id in mine if item_id in theirs]
            assert len(common) >= min(count - 1, 0.7 * count)
            np.testing.assert_allclose([mine[i] for i in common], [theirs[i] for i in common], rtol=1e-4, atol=1e-5)
        elif name == "scores":
            continue
        elif value.dtype == object:
            assert [v for v in np.atleast_1d(value).tolist() if v] == [v for v in np.atleast_1d(other).tolist() if v]
        else:
            cut = tuple(map(slice, value.shape))
            np.testing.assert_allclose(other[cut], value, rtol=1e-4, atol=1e-5)
            rest = np.array(other)
            rest[cut] = 0
            assert not rest.any()


@pytest.mark.parametrize("ask", CONFIGS, indirect=True)
def test_an_event_of_no_known_stage_is_a_click_and_one_from_the_future_is_new(ask):
    row = {name: [] if spec.shape.rank == 2 else "" for name, spec in ask.specs["embed_query"].items()}
    row |= {"query": "red shoes", "history_items": [i.encode() for i in ask.ids[:5]]}
    # MGDSPR reads the stages of events that are older than ten days.
    recent, old = [5, 9 * 86_400], [20 * 86_400]

    def embedded(stages, ages):
        return ask("embed_query", [row | {"history_stages": stages, "history_ages": ages}])[0]["embedding"]

    expected = embedded([1, 1, 2, 3, 1], [0, *recent, *old, *old])
    for odd in (4, -1, -(2**31), 2**31 - 1):
        np.testing.assert_allclose(embedded([odd, 1, 2, 3, odd], [-1, *recent, *old, *old]), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(embedded([odd, 1, 2, 3, odd], [-(2**31), *recent, *old, *old]), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(embedded([1, 1, 1, 1, 1], [0, *recent, *old, *old]) - expected).max() > 1e-5, "stages are read"
