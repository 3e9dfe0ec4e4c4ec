"""Query intents: known answers on hand-made catalogues and logs, a plain recomputation on a simulated shop, hostile texts, saving."""

import collections
import dataclasses
import itertools
import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfebr.data import intent_learning, text
from tfebr.data.catalogue import Catalogue
from tfebr.data.intent_learning import learn_intent
from tfebr.data.log import SCHEMA, clicked_items
from tfebr.data.query_intent import IntentTables, QueryIntent
from tfebr.data.roles import ColumnRoles
from tfebr.data.stage import Stage
from tfebr.errors import ArtifactError, ConfigError

# id: title, brand, leaf category
ITEMS = {
    "phone": ("Apple phone 64gb", "Apple", "phones"),
    "fruit": ("apple, red and sweet", "Farm", "fruit"),
    "can": ("Red Bull energy", "Red Bull", "drinks"),
    "bell": ("cow bell by Bull", "Bull", "bells"),
    "cola": ("Coca-Cola zero", "Coca-Cola", "drinks"),
    "cola2": ("Coca Cola classic", "COCA COLA", "drinks"),
    "lamp": ("Lamp of Lamp", "Lamp", "lamps"),
    "desk": ("desk lamp", "Zenith", "lamps"),
    "mug": ("coffee mug", "Farm", "mugs"),
    "maker": ("coffee maker", "Zenith", "makers"),
    "beans": ("coffee beans", "Farm", "beans"),
    "odd": ("thing", "50%|50%7C", "bits|bobs 100%"),
    "mi": ("\u5c0f\u7c73\u624b\u673a", "\u5c0f\u7c73", "\u624b\u673a"),
    "plain": ("something", "", ""),
}
Clicks = list[tuple[str, str, int]]


def catalogue(columns: tuple[str, ...] = ("brand", "leaf_category"), items: dict[str, tuple[str, str, str]] = ITEMS) -> Catalogue:
    rows = list(items.items())
    table = {"item_id": [i for i, _ in rows], "title": [v[0] for _, v in rows]}
    return Catalogue(pa.table(table | {c: [v[1 + (c == "leaf_category")] for _, v in rows] for c in columns}))


def log(clicks: Clicks) -> pa.RecordBatch:
    """One request for each click, a second apart; the item "plain" is shown above it and not clicked."""
    rows = []
    for query, item, times in clicks:
        for _ in range(times):
            shown = [("plain", Stage.UNCLICKED, 0), (item, Stage.CLICKED, 1)]
            items = [{"item_id": i, "stage": int(stage), "position": p} for i, stage, p in shown]
            rows.append({"request_id": str(len(rows)), "time": len(rows), "user_id": "", "query": query, "items": items})
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def ask(tables: IntentTables, *queries: str) -> list[tuple[str, ...]]:
    return [tuple(c.decode() for c in row) for row in QueryIntent(tables)(tf.constant(queries, tf.string)).numpy()]


def learned(folder, clicks: Clicks, *queries: str, columns: tuple[str, ...] = ("brand", "leaf_category"), **settings) -> list:
    given = columns if len(columns) == 2 else ()
    return ask(learn_intent(catalogue(columns), [log(clicks)], folder, *given, quiet=True, **settings), *queries)


def brand_of(folder, clicks: Clicks, *queries: str) -> list[str]:
    return [brand for brand, _ in learned(folder, clicks, *queries)]


def category_of(folder, clicks: Clicks, *queries: str, **settings) -> list[str]:
    return [category for _, category in learned(folder, clicks, *queries, **settings)]


def test_an_ambiguous_name_is_an_intent_only_where_the_whole_query_says_so(tmp_path):
    clicks = [("apple", "fruit", 20), ("apple", "phone", 20), ("apple phone", "phone", 15), ("sweet apple", "fruit", 9)]
    found = brand_of(tmp_path, clicks, "apple", "Apple PHONE!", "sweet apple", "apple gadget")
    assert found == ["", "brand=Apple", "", ""]


@pytest.mark.parametrize(("others", "expected"), [(4, "brand=Apple"), (5, "")])
def test_seven_of_ten_clicks_make_a_name_an_intent(tmp_path, others, expected):
    assert brand_of(tmp_path, [("apple x", "phone", 10), ("apple y", "fruit", others)], "apple z") == [expected]


def test_a_whole_query_is_judged_by_its_own_clicks_from_ten_on(tmp_path):
    sure = [("apple phone", "phone", 90)]
    assert brand_of(tmp_path / "a", [*sure, ("apple pie", "fruit", 10)], "apple pie", "apple pies") == ["", "brand=Apple"]
    assert brand_of(tmp_path / "b", [*sure, ("apple pie", "fruit", 9)], "apple pie") == ["brand=Apple"]


def test_the_longest_name_counts(tmp_path):
    clicks = [("red bull", "can", 20), ("bull bell", "bell", 20)]
    found = brand_of(tmp_path, clicks, "cheap RED-BULL 6 cans", "a bull bell", "red bell", "bull red", "red bull bull bell")
    assert found == ["brand=Red Bull", "brand=Bull", "", "brand=Bull", ""]


def test_brands_of_one_name_are_joined(tmp_path):
    assert brand_of(tmp_path, [("coca cola", "cola", 6), ("coca cola", "cola2", 6)], "coca-cola") == ["brand=COCA COLA|brand=Coca-Cola"]


def test_two_different_brands_are_no_intent_and_one_named_twice_is(tmp_path):
    found = brand_of(tmp_path, [], "zenith coca cola", "zenith zenith", "cola zenith")
    assert found == ["", "brand=Zenith", "brand=Zenith"]


def test_names_never_asked_for_count_unless_they_are_words_of_others(tmp_path):
    assert brand_of(tmp_path, [], "zenith tv", "lamp", "apple", "coca cola") == ["brand=Zenith", "", "", "brand=COCA COLA|brand=Coca-Cola"]


def test_ten_clicks_outweigh_the_titles(tmp_path):
    assert brand_of(tmp_path / "a", [("zenith", "mug", 9)], "zenith tv") == ["brand=Zenith"]
    assert brand_of(tmp_path / "b", [("zenith", "mug", 10)], "zenith tv") == [""]
    assert brand_of(tmp_path / "c", [("lamp", "lamp", 10)], "lamp shade") == ["brand=Lamp"]


def test_an_unsure_name_does_not_hide_a_sure_one(tmp_path):
    assert brand_of(tmp_path, [], "zenith lamp") == ["brand=Zenith"]


def test_the_category_of_a_whole_query_and_of_unseen_queries_with_known_words(tmp_path):
    clicks = [("coffee", i, 40) for i in ("mug", "maker", "beans")] + [("coffee maker", "maker", 40), ("mug", "mug", 40)]
    asked = ("coffee", "MUG", "good mug", "best coffee maker", "coffee spoon", "spoon", "maker of coffee")
    all_three = "leaf_category=beans|leaf_category=makers|leaf_category=mugs"
    makers, mugs = "leaf_category=makers", "leaf_category=mugs"
    assert category_of(tmp_path, clicks, *asked) == [all_three, mugs, mugs, makers, all_three, "", makers]


def test_noise_categories_do_not_enter(tmp_path):
    assert category_of(tmp_path / "a", [("mug", "mug", 1000), ("mug", "lamp", 3)], "mug") == ["leaf_category=mugs"]
    assert category_of(tmp_path / "b", [("mug", "mug", 1000), ("mug", "lamp", 4)], "mug") == ["leaf_category=lamps|leaf_category=mugs"]


@pytest.mark.parametrize(("clicks", "expected"), [((29,), ""), ((30,), "mugs"), ((36, 1, 1, 1), ""), ((37, 1, 1, 1), "4")])
def test_a_category_needs_thirty_clicks_and_ten_for_each_category(tmp_path, clicks, expected):
    found = category_of(tmp_path, [("cup", i, n) for i, n in zip(("mug", "lamp", "fruit", "cola"), clicks, strict=False)], "cup")[0]
    assert {"": "", "leaf_category=mugs": "mugs"}.get(found, str(len(found.split("|")))) == expected


def test_at_most_so_many_categories(tmp_path):
    clicks = [("coffee", i, 40) for i in ("mug", "maker", "beans")]
    assert category_of(tmp_path, clicks, "coffee", max_categories=2) == [""]
    assert category_of(tmp_path, clicks, "coffee", max_categories=3) != [""]


def test_a_brand_s_name_does_not_settle_the_category(tmp_path):
    assert learned(tmp_path, [("apple", "phone", 50)], "apple", "apple watch") == [("brand=Apple", "")] * 2


def test_items_without_brand_or_category_are_asked_for_by_none(tmp_path):
    assert learned(tmp_path, [("something", "plain", 60), ("something", "mug", 60)], "something", "") == [("", "")] * 2


def test_bars_and_percent_signs_are_escaped(tmp_path):
    found = learned(tmp_path, [("thing", "odd", 40)], "50 50 7c thing")
    assert found == [("brand=50%25%7C50%257C", "leaf_category=bits%7Cbobs 100%25")]


def test_chinese(tmp_path):
    clicks = [("\u5c0f\u7c73\u624b\u673a", "mi", 40)]
    both = ("brand=\u5c0f\u7c73", "leaf_category=\u624b\u673a")
    assert learned(tmp_path, clicks, "\u5c0f\u7c73\u624b\u673a", "\u4e70\u624b\u673a", "\u7c73") == [both, ("", both[1]), ("", both[1])]


@pytest.mark.parametrize("columns", [(), ("brand",), ("leaf_category",)])
def test_a_clause_of_a_missing_column_is_empty(tmp_path, columns):
    brand, category = learned(tmp_path, [("apple mug", "phone", 40)], "apple mug", columns=columns)[0]
    assert (brand != "", category != "") == ("brand" in columns, "leaf_category" in columns)


def test_other_columns(tmp_path):
    table = catalogue().table.rename_columns(["item_id", "title", "maker|a=b", "100%"])
    tables = learn_intent(Catalogue(table), [log([("mug", "mug", 30)])], tmp_path, "maker|a=b", "100%", quiet=True)
    assert ask(tables, "zenith mug") == [("maker%7Ca%3Db=Zenith", "100%25=mugs")]


RENAMED = {"brand": "marke", "leaf_category": "warengruppe", "category": "bereich", "shop": "laden"}


def test_columns_need_no_special_names(tiny_shop, shop_tables, tmp_path):
    """The same intents of a shop whose columns have other names and stand in another order."""
    table = tiny_shop.catalogue().table
    renamed = table.rename_columns([RENAMED.get(name, name) for name in table.column_names])
    renamed = renamed.select(["item_id", "title", "laden", "bereich", "warengruppe", "price", "marke"])
    found = learn_intent(Catalogue(renamed), tiny_shop.log().batches(), tmp_path, quiet=True)
    named = dataclasses.asdict(shop_tables[0])
    assert {clause.split("=")[0] for clause in found.name_clauses + found.category_clauses} == {"marke", "warengruppe"}
    for field in ("name_clauses", "category_clauses"):
        named[field] = [clause.replace("leaf_category=", "warengruppe=").replace("brand=", "marke=") for clause in named[field]]
    for field, value in named.items():
        np.testing.assert_array_equal(getattr(found, field), value, err_msg=field)


def test_what_is_no_category_is_no_intent(tiny_shop, tmp_path):
    roles = ColumnRoles.of(tiny_shop.catalogue().table, {"ignored": ["brand", "leaf_category"], "text": ["shop"]})
    found = learn_intent(tiny_shop.catalogue(), tiny_shop.log().batches(), tmp_path, roles=roles, quiet=True)
    assert {clause.split("=")[0] for clause in found.name_clauses + found.category_clauses} == {"category"}


@pytest.mark.parametrize("order", [("maker", "kind", "part"), ("part", "kind", "maker")])
def test_clicks_choose_what_is_named_and_what_is_settled(tmp_path, monkeypatch, order):
    """ "kind" is settled by words that are not its names; "part", which each item has of its own, is neither."""
    items = {
        f"{maker}-{kind}-{n}": (maker, kind) for maker in ("bosch", "hilti", "makita") for kind in ("drills", "saws") for n in range(4)
    }
    columns = {
        "maker": [m for m, _ in items.values()],
        "kind": [k for _, k in items.values()],
        "part": [f"p{n}x" for n in range(len(items))],
    }
    shop = Catalogue(pa.table({"item_id": list(items), "title": ["tool"] * len(items)} | {name: columns[name] for name in order}))
    clicks = [
        (query, item, 4)
        for item, (maker, kind) in items.items()
        for query in (f"{maker} tool", "boring" if kind == "drills" else "cutting")
    ]
    batches = [log(clicks).slice(start, 10) for start in range(0, 4 * len(clicks), 10)]
    whole = learn_intent(shop, batches, tmp_path / "whole", quiet=True)
    assert ask(whole, "hilti boring", "cutting") == [("maker=hilti", "kind=drills"), ("", "kind=saws")]
    monkeypatch.setattr(intent_learning, "_CHOOSING_CLICKS", 150)
    assert ask(learn_intent(shop, batches, tmp_path / "early", quiet=True), "hilti boring", "cutting") == ask(
        whole, "hilti boring", "cutting"
    )


def test_requests_from_the_end_time_on_are_left_out(tmp_path):
    clicks = [("mug", "mug", 30), ("lamp", "desk", 30)]
    assert category_of(tmp_path / "a", clicks, "mug", "lamp", end_time=59) == ["leaf_category=mugs", ""]
    assert category_of(tmp_path / "b", clicks, "mug", "desk lamp", end_time=60) == ["leaf_category=mugs", "leaf_category=lamps"]


def test_the_rarest_terms_are_forgotten_beyond_the_limit(tmp_path):
    clicks = [("mug", "mug", 90), ("desk", "desk", 30), ("energy", "can", 60)]
    assert category_of(tmp_path / "a", clicks, "mug", "desk", "energy") == [f"leaf_category={c}" for c in ("mugs", "lamps", "drinks")]
    # Each query is counted as a word and as a whole.
    found = category_of(tmp_path / "b", clicks, "mug", "desk", pairs_in_memory=5)
    assert found == ["leaf_category=mugs", ""]


def test_clicks_on_items_that_left_the_catalogue_say_nothing(tmp_path):
    batch = log([("mug", "mug", 30), ("mug", "phone", 30)])
    items = {i: v for i, v in ITEMS.items() if i != "phone"}
    assert ask(learn_intent(catalogue(items=items), [batch], tmp_path, quiet=True), "mug") == [("", "leaf_category=mugs")]


def test_settings_that_make_no_sense_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"`brand_column` should name a categorical column.*'colour'.*brand, leaf_category"):
        learn_intent(catalogue(), [], tmp_path, brand_column="colour")
    with pytest.raises(ConfigError, match=r"`max_categories` must be a whole number of at least 1\. Received: 0"):
        learn_intent(catalogue(), [], tmp_path, max_categories=0)


def test_missing_and_damaged_tables_are_named(tmp_path):
    with pytest.raises(ArtifactError, match="no tables of query intents"):
        QueryIntent(tmp_path / "nowhere")
    learn_intent(catalogue(), [], tmp_path / "t", quiet=True)
    (tmp_path / "t" / "tables.npz").write_bytes(b"PK\x03\x04 not much")
    with pytest.raises(ArtifactError, match=r"are damaged.*Learn them again"):
        QueryIntent(tmp_path / "t")


@pytest.fixture(scope="module")
def shop_tables(tiny_shop, tmp_path_factory) -> tuple[IntentTables, str]:
    folder = tmp_path_factory.mktemp("intent") / "tables"
    return learn_intent(tiny_shop.catalogue(), tiny_shop.log().batches(), folder, quiet=True), str(folder)


@pytest.fixture(scope="module")
def shop_queries(tiny_shop) -> list[str]:
    """The log's queries, and as many new ones that cross two of them."""
    queries = sorted({q for batch in tiny_shop.log().batches() for q in batch["query"].to_pylist()})
    return queries + [f"{a.split()[0]} {b.split()[-1]}" for a, b in zip(queries, queries[1:] + queries[:1], strict=True)]


def test_streaming_equals_whole_and_reading_equals_writing(tiny_shop, shop_tables, tmp_path):
    in_parts = learn_intent(tiny_shop.catalogue(), tiny_shop.log().batches(97), tmp_path / "parts", quiet=True)
    for other in (in_parts, IntentTables.read(tmp_path / "parts")):
        for field in dataclasses.fields(IntentTables):
            np.testing.assert_array_equal(getattr(other, field.name), getattr(shop_tables[0], field.name), err_msg=field.name)


def test_every_clause_names_known_columns_and_values(tiny_shop, shop_tables, shop_queries):
    table = tiny_shop.catalogue().table
    found = ask(shop_tables[0], *shop_queries)
    for clauses in found:
        for clause, column in zip(clauses, ("brand", "leaf_category"), strict=True):
            for atom in filter(None, clause.split("|")):
                name, value = atom.split("=", 1)
                assert name == column
                assert value.replace("%7C", "|").replace("%25", "%") in table[column].to_pylist()
    for place in (0, 1):
        share = np.mean([clauses[place] != "" for clauses in found])
        assert 0.02 < share < 0.99, "the test needs queries of both kinds"


def test_equals_a_plain_recomputation_on_a_simulated_shop(tiny_shop, shop_tables, shop_queries):
    clicks = []
    items = {row["item_id"]: row for row in tiny_shop.catalogue().table.to_pylist()}
    for batch in tiny_shop.log().batches():
        rows, ids = clicked_items(batch)
        queries = batch["query"].to_pylist()
        clicks += [(queries[row], items[i]) for row, i in zip(rows, ids.to_pylist(), strict=True)]
    words_of = {}
    everything = [*shop_queries, *(i["brand"] for i in items.values()), *(i["title"] + " " + i["leaf_category"] for i in items.values())]
    for raw, tokens in zip(everything, text.words(text.normalize(tf.constant(everything))).to_list(), strict=True):
        words_of[raw] = [t.decode() for t in tokens]
    brand_clauses = _plain_brands(clicks, list(items.values()), words_of)
    category_clauses = _plain_categories(clicks, words_of, brand_clauses)
    for query, (brand, category) in zip(shop_queries, ask(shop_tables[0], *shop_queries), strict=True):
        assert brand == _plain_brand(query, words_of, brand_clauses), query
        # Terms of equal entropy and equal clicks are equally good.
        assert category in category_clauses(query), query


def _plain_brands(clicks, items, words_of):
    """What to answer for whole queries (by their words) and for names alone; the shop's brand names have one word each."""
    names = {" ".join(words_of[i["brand"]]): i["brand"] for i in items}
    assert all(" " not in name for name in names)
    on_name, on_query = collections.defaultdict(list), collections.defaultdict(list)
    for query, item in clicks:
        for name in set(words_of[query]) & set(names):
            on_name[name].append(names[name] == item["brand"])
            on_query[tuple(words_of[query]), name].append(names[name] == item["brand"])
    whole = {}
    for (query, name), hits in on_query.items():
        if len(hits) >= 10:
            whole[query] = f"brand={names[name]}" if np.mean(hits) >= 0.7 else whole.get(query, "")
    sure = {}
    for name, brand in names.items():
        in_texts = [i["brand"] == brand for i in items if name in words_of[i["title"] + " " + i["leaf_category"]]]
        by_text = not in_texts or np.mean(in_texts) >= 0.9
        if np.mean(on_name[name]) >= 0.7 if len(on_name[name]) >= 10 else by_text:
            sure[name] = f"brand={brand}"
    return whole, sure


def _plain_brand(query, words_of, brands):
    whole, sure = brands
    own = {sure[w] for w in words_of[query] if w in sure}
    return whole.get(tuple(words_of[query]), own.pop() if len(own) == 1 else "")


def _plain_terms(words):
    return {*words, *itertools.pairwise(words), ("whole", *words, "whole")}


def _plain_categories(clicks, words_of, brands):
    counts = collections.defaultdict(collections.Counter)
    for query, item in clicks:
        for term in _plain_terms(words_of[query]):
            counts[term][item["leaf_category"]] += 1

    def rank(term):
        total = sum(counts[term].values()) if term in counts else 0
        kept = {c: n for c, n in counts[term].items() if n >= 0.003 * total} if total else {}
        if total < max(30, 10 * len(kept)) or len(kept) > 16 or {term, " ".join(term[1:-1])} & set(brands[1]):
            return None
        shares = [n / sum(kept.values()) for n in kept.values()]
        clause = "|".join(f"leaf_category={c}" for c in sorted(kept))
        return (round(-sum(s * math.log(s) for s in shares), 9) + 0.0, -total), clause

    def clauses(query):
        ranked = [r for r in map(rank, _plain_terms(words_of[query])) if r]
        return {clause for key, clause in ranked if key == min(k for k, _ in ranked)} or {""}

    return clauses


HOSTILE = [b"", b" ", b"x" * 10_000, b"a b " * 2_500, b"\xff\xfe\x00 \xc3", b"|=%7C", "\u0130\ufb01\u200d\U0001f600".encode(), b"\x00" * 50]


def test_hostile_texts_are_no_error(shop_tables):
    intent = QueryIntent(shop_tables[0])
    found = intent(tf.constant(HOSTILE))
    assert found.shape == (len(HOSTILE), 2)
    assert all(clause == b"" for clause in found.numpy().ravel())
    assert intent(tf.zeros([0], tf.string)).shape == (0, 2)


@given(st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=20).map(lambda t: t.encode(errors="replace"))), min_size=1, max_size=4))
def test_a_query_s_answer_does_not_depend_on_the_batch(shop_tables, queries):
    intent = _cached(shop_tables[0])
    together = intent(tf.constant([b"black dress", *queries])).numpy()[1:]
    np.testing.assert_array_equal(together, np.concatenate([intent(tf.constant([q])).numpy() for q in queries]))


_INTENTS: dict[int, QueryIntent] = {}


def _cached(tables: IntentTables) -> QueryIntent:
    return _INTENTS.setdefault(id(tables), QueryIntent(tables))


def test_the_graph_equals_eager_and_travels_with_a_saved_model(shop_tables, shop_queries, tmp_path):
    folder = tmp_path / "tables"
    shutil.copytree(shop_tables[1], folder)
    asked = shop_queries[::7] + [h.decode(errors="surrogateescape") for h in HOSTILE if b"\xff" not in h]
    module = tf.Module()
    module.intent = QueryIntent(folder)
    module.clauses = tf.function(lambda q: module.intent(q), input_signature=[tf.TensorSpec([None], tf.string)])
    eager = [[c.decode() for c in row] for row in module.intent(tf.constant(asked)).numpy()]
    assert [[c.decode() for c in row] for row in module.clauses(tf.constant(asked)).numpy()] == eager
    tf.saved_model.save(module, str(tmp_path / "saved"), options=tf.saved_model.SaveOptions(namespace_whitelist=["TFText"]))
    shutil.rmtree(folder)
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    code = (
        "import json, sys, tensorflow as tf, tensorflow_text\n"
        "loaded = tf.saved_model.load(sys.argv[1])\n"
        "found = loaded.clauses(tf.constant(json.load(open(sys.argv[2])))).numpy()\n"
        "print(json.dumps([[c.decode() for c in row] for row in found]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "moved"), str(tmp_path / "asked.json")]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    assert json.loads(process.stdout.splitlines()[-1]) == eager
