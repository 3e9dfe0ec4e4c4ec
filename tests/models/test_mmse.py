"""MMSE: the towers against the equations in NumPy, what a step compares with what, and the effect of every setting."""

import dataclasses

import layer_oracles as plain
import numpy as np
import pytest
import tensorflow as tf

from tfebr.data.batches import training_batches
from tfebr.data.log import split_time
from tfebr.data.stage import Stage
from tfebr.errors import ConfigError
from tfebr.models.config import from_dict
from tfebr.models.mmse import MMSE, MMSEConfig
from tfebr.models.run_folder import prepare_run
from tfebr.tasks import Candidates

# Whatever a test reads is set here: defaults are tuned.
TINY = (
    {"dim": 16, "heads": 2, "depth": 1, "column_dim": 4, "query_hidden": [12], "item_hidden": [12], "gated": True, "normalize": True}
    | {"use_user": True, "use_history": True, "item_ids": True, "fusion": "gated", "objective": "multi_grained"}
    | {"ordered": 1, "clicked": 2, "unclicked": 4, "click_only": False, "near": None, "unclicked_as": "left_out"}
    | {"temperature": 0.1, "weights": [1.0, 1.0, 1.0], "row_reduction": "mean", "lowest_positive": 2, "adaptive": None}
    | {"ranking_weight": 0.5, "form": "hinge", "margins": [0.1], "ranking_temperature": 0.1, "random_negatives": 50}
    | {"smoothing": {"uniform": 0.0, "sampling": 0.0, "bootstrap": 0.0}, "teacher_decay": None, "debias": False}
    | {"features": {"history_items": 10, "history_queries": 0}, "training": {"epochs": 1, "batch_size": 64, "seed": 3}}
)
# Where the towers do not matter: a fraction of the operations.
PLAIN = {"depth": 0, "use_history": False, "use_user": False}


@pytest.fixture(scope="module")
def run(tiny_shop, tmp_path_factory):
    config = from_dict(MMSEConfig, TINY)
    return prepare_run(tmp_path_factory.mktemp("mmse") / "run", "mmse", config, tiny_shop, split_time(tiny_shop.log()), quiet=True)


@pytest.fixture(scope="module")
def batch(run):
    found = next(iter(training_batches(run.shards("train"), run.featurizer, 64, seed=5, epochs=1)))
    found.pop("request_id")
    assert set(np.unique(found["stages"])) == {-1, *Stage}
    assert int(tf.reduce_sum(tf.cast(found["history_items"] > 0, tf.int32))) > 100
    return found


def build(run, scale: float = 1.0, rate: float = 0.05, **changes) -> MMSE:
    config = dataclasses.replace(from_dict(MMSEConfig, TINY | changes), features=run.config.features)
    tf.keras.utils.set_random_seed(config.training.seed)
    model = MMSE(config, run.featurizer, run.table)
    model.compile(tf.keras.optimizers.Adagrad(rate, 1e-6))
    # Fresh weights are small: larger ones tell terms of the equations apart.
    for variable in model.trainable_variables if scale != 1 else ():
        variable.assign(variable * scale + 0.1 * (variable.shape.rank < 2))
    return model


def whole_corpus(model: MMSE) -> np.ndarray:
    """All items at once: for so few, cheaper than in a graph."""
    return model.embed_items(tf.range(1, model.items + 1)).numpy()


class Captured(Exception):
    """What a step gives to the task."""


def task_arguments(model: MMSE, batch: dict) -> tuple:
    """Queries, shown items, their stages, the pool, known items, confidence and teacher scores."""

    def capture(queries, **given):
        draws = given["candidate_sampling_probability"]
        logs = None if draws is None else tf.math.log(draws)
        pool = Candidates(given["candidate_embeddings"], given["candidate_ids"], logs)
        rest = (given[name] for name in ("known_positives", "confidence", "teacher_scores"))
        raise Captured((queries, given["shown"], given["stages"], pool, *rest))

    model.count_draws(batch["positive"])
    task, model.task = model.task, capture
    with pytest.raises(Captured) as caught:
        model.compute_loss(batch)
    model.task = task
    return caught.value.args[0]


@pytest.mark.parametrize("fusion", ["late", "gated", "score"])
@pytest.mark.parametrize("changes", [{}, {"normalize": False, "depth": 0, "use_user": False}])
def test_query_tower_is_its_equations(run, batch, fusion, changes):
    model = build(run, 3.0, fusion=fusion, **changes)
    tower, found = model.query_tower, model.embed_queries(batch)[:, 0].numpy()
    joined = {name: value.numpy() for name, value in batch.items()}
    joined |= {f"history_{c}": ids.numpy()[joined["history_items"]] for c, ids in model.history_columns().items()}
    for at in range(0, 64, 3):
        row = {name: value[at] for name, value in joined.items()}
        query = plain.text_encoder({grain: row[f"query_{grain}"] for grain in run.featurizer.grains}, tower.text)
        expected = plain.post_fusion(query, plain.user_encoder(query, row, tower.user), tower.fusion)
        np.testing.assert_allclose(found[at], expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("changes", [{}, {"item_ids": False, "normalize": False, "gated": False}, {"fusion": "score"}])
def test_item_tower_is_its_equations(run, changes):
    model, rows = build(run, 3.0, **changes), np.array([1, 7, 500])
    tower, columns = model.item_tower, run.table.columns
    encoders = [tower.encoder, *([tower.personal] if tower.personal else [])]
    assert len(encoders) == 1 + (model.config.fusion == "score")
    assert model.reads_item_ids == model.config.item_ids == ("item" in tower.encoder.columns)
    for row, found in zip(rows, model.embed_items(tf.constant(rows, tf.int32)).numpy(), strict=True):
        parts = [plain.pooled(tower.encoder.text.bags, {grain: columns[f"title_{grain}"][row] for grain in run.featurizer.grains})]
        for column, bag in tower.encoder.columns.items():
            parts.append(plain.pooled({column: bag}, {column: row if column == "item" else columns[column][row]}))
        expected = np.concatenate([plain.one_head(parts, encoder.encoder) for encoder in encoders])
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("objective", ["multi_grained", "graded"])
@pytest.mark.parametrize("fusion", ["late", "gated", "score"])
def test_every_fusion_learns_every_objective(run, batch, fusion, objective):
    model = build(run, fusion=fusion, objective=objective, depth=0)
    losses = [float(model.train_step(batch)["loss"]) for _ in range(4)]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


@pytest.mark.parametrize(
    "changes",
    [
        {"adaptive": 0.5, "margins": [0.01]},
        {"form": "listwise", "unclicked_as": "negatives", "near": 2},
        {"smoothing": {"uniform": 0.05, "sampling": 0.05, "bootstrap": 0.1}, "teacher_decay": 0.9},
        {"click_only": True, "unclicked": 0, "ranking_weight": 0.0},
    ],
)
def test_every_way_learns(run, batch, changes):
    model = build(run, **PLAIN | changes)
    losses = [float(model.train_step(batch)["loss"]) for _ in range(4)]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


def test_the_teacher_and_the_draws_are_kept_and_read(run, batch):
    smoothing = {"smoothing": {"uniform": 0.0, "sampling": 0.1, "bootstrap": 0.5}, "teacher_decay": 0.9}
    model = build(run, 3.0, **PLAIN | smoothing)
    arguments = task_arguments(model, batch)
    queries, shown, _, pool, _, _, taught = arguments
    assert shown.log_probability.shape == shown.rows.shape
    assert len(np.unique(pool.log_probability)) > 1
    # The teacher is the model at its start, before its weights were scaled.
    teacher = build(run, **PLAIN | smoothing)
    expected = task_arguments(teacher, batch)
    by_shown = np.einsum("bd,bnd->bn", expected[0][:, 0], expected[1].embeddings)
    by_pool = expected[0][:, 0].numpy() @ expected[3].embeddings.numpy().T
    np.testing.assert_allclose(taught, np.concatenate([by_shown, by_pool], axis=1), rtol=1e-4, atol=1e-5)
    own = np.einsum("bd,bnd->bn", queries[:, 0], shown.embeddings)
    assert np.abs(taught[:, : own.shape[1]] - own).max() > 0.01


@pytest.mark.parametrize("fusion", ["late", "gated", "score"])
def test_served_vectors_have_the_scores_of_training(run, batch, fusion):
    model = build(run, fusion=fusion, depth=0)
    queries, shown, _, pool, *_ = task_arguments(model, batch)
    vectors, corpus = model.embed_queries(batch)[:, 0].numpy(), whole_corpus(model)
    found = vectors @ corpus.T
    scores = queries[:, 0].numpy() @ pool.embeddings.numpy().T
    np.testing.assert_allclose(found[:, pool.rows.numpy() - 1], scores, rtol=1e-4, atol=1e-5)
    at, place = np.nonzero(shown.rows.numpy())
    of_shown = np.einsum("bd,bnd->bn", queries[:, 0], shown.embeddings)
    np.testing.assert_allclose(found[at, shown.rows.numpy()[at, place] - 1], of_shown[at, place], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_score_fusion_is_one_inner_product_of_two(run, batch, normalize):
    model, rows = build(run, 2.0, fusion="score", normalize=normalize), tf.range(1, 40)
    tower, norm = model.query_tower, plain.to_length if normalize else lambda x: x
    joined = batch | {f"history_{c}": tf.gather(ids, batch["history_items"]) for c, ids in model.history_columns().items()}
    text = tower.text({grain: batch[f"query_{grain}"] for grain in run.featurizer.grains})
    t, h = (np.array([norm(row) for row in values.numpy()]) for values in (text, tower.user(joined | {"query": text})))
    features = {"item": rows} | {name: tf.gather(ids, rows) for name, ids in model._columns().items()}
    v1, v2 = (encoder(features).numpy() for encoder in (model.item_tower.encoder, model.item_tower.personal))
    share = 1 / (1 + np.exp(-float(tower.fusion.balance)))
    assert share > 0.51
    found = model.embed_queries(batch)[:, 0].numpy() @ model.embed_items(rows).numpy().T
    np.testing.assert_allclose(found, share * t @ v1.T + (1 - share) * h @ v2.T, rtol=1e-3, atol=1e-4)


def test_score_fusion_without_users_is_the_query_alone(run, batch):
    model = build(run, fusion="score", use_user=False, use_history=False)
    assert model.embed_queries(batch).shape[2] == model.embed_items(tf.range(1, 4)).shape[1]
    assert np.isfinite(model.compute_loss(batch))


def test_a_step_compares_shown_items_with_what_was_not_shown(run, batch):
    model = build(run, **PLAIN, ordered=2, clicked=3, unclicked=5, random_negatives=30)
    _, shown, stages, pool, known, confidence = task_arguments(model, batch)[:6]
    items, of_items = batch["items"].numpy(), batch["stages"].numpy()
    assert shown.rows.shape == stages.shape == (64, 10)
    assert confidence is None
    for at in range(64):
        for row, stage in zip(shown.rows[at].numpy(), stages[at].numpy(), strict=True):
            assert stage == (of_items[at][items[at] == row].max() if row else -1)
        ordered, unclicked = ((of_items[at] == stage).sum() for stage in (Stage.ORDERED, Stage.UNCLICKED))
        assert (stages[at].numpy() == Stage.ORDERED).sum() == min(2, ordered)
        assert (stages[at].numpy() == Stage.UNCLICKED).sum() == min(5, unclicked)
    np.testing.assert_array_equal(pool.rows[:64], batch["positive"])
    assert len(pool.rows) == 94
    assert 1 <= pool.rows[64:].numpy().min() <= pool.rows[64:].numpy().max() <= model.items
    np.testing.assert_array_equal(known, items)


def test_each_step_draws_other_items_and_a_seed_the_same_ones(run, batch):
    model, same = build(run, **PLAIN), build(run, **PLAIN)
    first = task_arguments(model, batch)
    np.testing.assert_array_equal(first[1].rows, task_arguments(same, batch)[1].rows)
    np.testing.assert_array_equal(first[3].rows, task_arguments(same, batch)[3].rows)
    model.train_step(batch)
    after = task_arguments(model, batch)
    for found, before in ((after[1].rows[:, 3:], first[1].rows[:, 3:]), (after[3].rows[64:], first[3].rows[64:])):
        assert np.mean(found != before) > 0.3


def test_click_only_makes_orders_count_like_clicks(run, batch):
    flat = batch | {"stages": tf.minimum(batch["stages"], int(Stage.CLICKED))}
    assert not np.array_equal(flat["stages"], batch["stages"])
    for objective in ("multi_grained", "graded"):
        clicks, stages = (
            build(run, **PLAIN, objective=objective, weights=[1.0, 2.0, 4.0], row_reduction="sum", click_only=only)
            for only in (True, False)
        )
        np.testing.assert_allclose(clicks.compute_loss(batch), clicks.compute_loss(flat), rtol=1e-6)
        assert not np.isclose(stages.compute_loss(batch), stages.compute_loss(flat), rtol=1e-3)
        assert set(np.unique(task_arguments(clicks, batch)[2])) == {-1, 0, 1}


def test_debias_gives_each_shown_item_its_confidence(run, batch):
    sure = batch | {"confidence": tf.cast(batch["items"], tf.float32) / 100}
    model = build(run, **PLAIN, debias=True)
    _, shown, _, _, _, confidence = task_arguments(model, sure)[:6]
    there = shown.rows.numpy() > 0
    np.testing.assert_allclose(confidence.numpy()[there], shown.rows.numpy()[there] / 100, rtol=1e-6)
    assert not np.isclose(model.compute_loss(sure), build(run, **PLAIN).compute_loss(sure), rtol=1e-3)


def order_accuracy(model: MMSE, batch: dict) -> tuple[float, float]:
    """Of all pairs of shown items of a request: how many clicked ones score above an unclicked one, and how many ordered above clicked."""
    queries, corpus = model.embed_queries(batch)[:, 0].numpy(), whole_corpus(model)
    right: dict[int, list[bool]] = {Stage.UNCLICKED: [], Stage.CLICKED: []}
    for query, items, stages in zip(queries, batch["items"].numpy(), batch["stages"].numpy(), strict=True):
        scores = corpus[items - 1] @ query
        for a, b in np.argwhere((stages[:, None] > stages[None]) & (stages[None] >= 0)):
            right[stages[b]].append(scores[a] > scores[b])
    assert min(map(len, right.values())) >= 40
    return float(np.mean(right[Stage.UNCLICKED])), float(np.mean(right[Stage.CLICKED]))


def test_the_ranking_loss_and_the_graded_loss_order_the_stages_of_a_request(run, batch):
    """Requests with an order below one click, and above another one."""
    few = {name: value[:24] for name, value in batch.items()}
    stages = tf.constant([1, 0, 3, 1] + [0] * (few["items"].shape[1] - 4))
    few |= {"stages": tf.where(few["items"] > 0, stages, -1), "positive": few["items"][:, 0]}
    found = {}
    for name, changes in {
        "ranking": {"ranking_weight": 10.0},
        "without": {"ranking_weight": 0.0},
        "graded": {"objective": "graded"},
    }.items():
        model = build(run, **PLAIN, **{"margins": [0.2, 0.1, 0.1], "unclicked": 8, "clicked": 4} | changes)
        for _ in range(12):
            model.train_step(few)
        found[name] = order_accuracy(model, few)
    for name in ("ranking", "graded"):
        assert found[name][0] > found["without"][0], name
        assert found[name][1] > found["without"][1] + 0.15, name
        assert found[name][1] > 0.85, name


@pytest.mark.parametrize(
    ("inputs", "changes"),
    [
        (("user_column_age", "user_column_gender"), {"use_user": False}),
        (("history_items", "history_stages"), {"use_history": False}),
        (("query_words", "query_trigrams"), None),
    ],
)
def test_what_the_query_tower_reads(run, batch, inputs, changes):
    other = batch | {name: tf.reverse(batch[name], [0]) for name in inputs}
    for reads, settings in ((True, {}), *([(False, changes)] if changes else [])):
        model = build(run, 3.0, **settings)
        same = np.allclose(model.embed_queries(batch), model.embed_queries(other), atol=1e-5)
        assert same is not reads


def test_empty_queries_and_histories_are_finite(run, batch):
    empty = {n: tf.zeros_like(v) if n.startswith(("query_", "history_", "user_")) else v for n, v in batch.items()}
    short = {n: v[:, :0] if n.startswith("history_") else v for n, v in batch.items()}
    model = build(run)
    without = {n: tf.zeros_like(v) if n.startswith("history_") else v for n, v in batch.items()}
    np.testing.assert_allclose(model.embed_queries(short), model.embed_queries(without), rtol=1e-4, atol=1e-5)
    for _ in range(3):
        assert np.isfinite(model.train_step(empty)["loss"])
    assert np.isfinite(model.embed_queries(empty)).all()
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


@pytest.mark.parametrize(
    ("changes", "against"),
    [
        ({"temperature": 0.3}, {}),
        ({"weights": [1.0, 2.0, 4.0]}, {}),
        ({"row_reduction": "sum"}, {}),
        ({"ranking_weight": 0.0}, {}),
        ({"margins": [0.3]}, {}),
        ({"margins": [0.1, 0.2, 0.3]}, {}),
        ({"form": "logistic"}, {}),
        ({"form": "logistic", "ranking_temperature": 0.5}, {"form": "logistic"}),
        ({"form": "listwise"}, {}),
        ({"unclicked_as": "negatives"}, {}),
        ({"near": 0}, {}),
        ({"near": 0}, {"near": 1}),
        ({"ordered": 0}, {}),
        ({"clicked": 1}, {}),
        ({"unclicked": 1}, {}),
        ({"random_negatives": 10}, {}),
        ({"adaptive": 0.5}, {}),
        ({"objective": "graded"}, {}),
        ({"objective": "graded", "lowest_positive": 1}, {"objective": "graded"}),
        ({"smoothing": {"uniform": 0.1}}, {}),
        ({"smoothing": {"sampling": 0.6}}, {"smoothing": {"uniform": 0.6}}),
        ({"gated": False}, {}),
        ({"query_hidden": []}, {}),
        ({"item_hidden": []}, {}),
    ],
)
def test_every_setting_changes_the_loss(loss_of, changes, against):
    assert not np.isclose(loss_of(changes), loss_of(against), rtol=1e-4)


@pytest.fixture(scope="module")
def loss_of(run, batch):
    """The first step's loss of a model with such settings, computed once."""
    known: dict[str, float] = {}

    def loss(changes: dict) -> float:
        if str(changes) not in known:
            model = build(run, 2.0, **PLAIN | changes)
            model.count_draws(batch["positive"])
            known[str(changes)] = float(model.compute_loss(batch))
        return known[str(changes)]

    return loss


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "`heads` must be a divisor of `dim`"),
        ({"fusion": "early"}, "`fusion` must be one of late, gated, score"),
        ({"objective": "softmax"}, "`objective` must be one of multi_grained, graded"),
        ({"form": "huber"}, "`form` must be one of"),
        ({"row_reduction": "max"}, "`row_reduction` must be one of"),
        ({"unclicked_as": "noise"}, "`unclicked_as` must be one of"),
        ({"margins": [0.1, 0.2]}, "`margins` must be one or three numbers"),
        ({"weights": [1.0]}, "`weights` must be three numbers"),
        ({"near": -1}, "`near` must be at least 0, or null"),
        ({"adaptive": 0.0}, "`adaptive` must be above 0, or null"),
        ({"temperature": 0.0}, "`temperature` must be above 0"),
        ({"clicked": 0}, "`clicked` must be at least 1"),
        ({"unclicked": -1}, "`unclicked` must be at least 0"),
        ({"lowest_positive": 3}, "`lowest_positive` must be 1 or 2"),
        ({"teacher_decay": 0.9}, "`teacher_decay` must be null where"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(MMSEConfig, TINY | changes)
