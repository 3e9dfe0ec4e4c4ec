"""The checks that every layer, loss, model and servable has to pass, each set in one call."""

import contextlib
import copy
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from program_state import unchanged

from tfebr.data.batches import evaluation_batches, training_batches
from tfebr.data.item_ids import ItemIds
from tfebr.data.names import atom, column_key
from tfebr.models.encoders import RawItemEncoder, RawQueryEncoder
from tfebr.models.run_folder import RunFolder


def run_layer_test(
    make: Callable[[], tf.keras.layers.Layer],
    inputs: Any,
    width: tuple[int, ...],
    folder: Path,
    config: bool = True,
    mixed: tf.DType = tf.bfloat16,
) -> None:
    """Checks a layer that treats the rows of a batch independently.

    Args:
        make: a fresh layer, not yet built.
        inputs: arrays with one leading batch dimension, at least 2 rows; nested as the layer takes them.
        width: shape of the output without the batch dimension.
        config: the layer can be made again from its config.
        mixed: dtype of the output under mixed precision.
    """
    layer, rows = make(), len(tf.nest.flatten(inputs)[0])
    tensors = tf.nest.map_structure(tf.constant, inputs)
    part = lambda start, stop: tf.nest.map_structure(lambda t: t[start:stop], tensors)  # noqa: E731
    outputs, gradients = _with_gradients(layer, tensors)
    assert outputs.shape == (rows, *width)
    assert outputs.dtype == tf.float32
    assert np.isfinite(outputs).all()
    _check_mixed_precision(make, layer, tensors, outputs, gradients, mixed)

    assert layer(part(0, 0)).shape == (0, *width)
    one_by_one = np.concatenate([layer(part(row, row + 1)) for row in range(rows)])
    np.testing.assert_allclose(one_by_one, outputs, rtol=1e-5, atol=1e-6, err_msg="a row depends on its batch")

    specs = tf.nest.map_structure(lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype), tensors)
    module = tf.Module()
    module.variables_of_layer = list(layer.variables)
    module.graph = tf.function(lambda x: layer(x), input_signature=[specs])
    np.testing.assert_allclose(module.graph(tensors), outputs, rtol=1e-5, atol=1e-6, err_msg="graph and eager differ")
    tf.saved_model.save(module, str(folder / "saved"))
    loaded = tf.saved_model.load(str(folder / "saved"))
    np.testing.assert_allclose(loaded.graph(tensors), module.graph(tensors), rtol=1e-6, atol=1e-6)

    other = make()
    assert np.shape(other(tensors)) == outputs.shape
    path = tf.train.Checkpoint(layer=layer).write(str(folder / "checkpoint"))
    tf.train.Checkpoint(layer=other).read(path).assert_consumed()
    np.testing.assert_allclose(other(tensors), outputs, rtol=1e-6, atol=1e-6, err_msg="a checkpoint restores another layer")
    if config:
        values = json.loads(json.dumps(layer.get_config()))
        again = type(layer).from_config(values)
        again(tensors)
        again.set_weights(layer.get_weights())
        np.testing.assert_allclose(again(tensors), outputs, rtol=1e-6, atol=1e-6, err_msg="the config describes another layer")
        assert json.loads(json.dumps(again.get_config())) == values
        # A layer's own policy is that of all that it is made of.
        own = type(layer).from_config(values | {"dtype": "mixed_bfloat16"})
        assert own(tensors).dtype == mixed
        own.set_weights(layer.get_weights())
        with global_policy("mixed_bfloat16"):
            made = make()
        made(tensors)
        made.set_weights(layer.get_weights())
        np.testing.assert_array_equal(tf.cast(own(tensors), tf.float32), tf.cast(made(tensors), tf.float32))


@contextlib.contextmanager
def global_policy(name: str) -> Iterator[None]:
    """Keras's global dtype policy, for as long as it lasts."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def _with_gradients(layer: tf.keras.layers.Layer, tensors: Any) -> tuple[tf.Tensor, np.ndarray]:
    """A layer's output, and the gradients of a sum of it by all weights, which must be there and finite, in one row."""
    with tf.GradientTape() as tape:
        outputs = layer(tensors)
        # A plain sum could have no gradient where outputs are normalised.
        total = tf.reduce_sum(tf.cast(outputs, tf.float32) * tf.range(1, outputs.shape[-1] + 1, dtype=tf.float32))
    assert layer.trainable_variables
    found = []
    for variable, gradient in zip(layer.trainable_variables, tape.gradient(total, layer.trainable_variables), strict=True):
        assert gradient is not None, f"{variable.name} gets no gradient"
        found.append(tf.convert_to_tensor(gradient).numpy().ravel())
        assert np.isfinite(found[-1]).all(), variable.name
    return outputs, np.concatenate(found)


def _check_mixed_precision(
    make: Callable[[], tf.keras.layers.Layer],
    layer: tf.keras.layers.Layer,
    tensors: Any,
    outputs: tf.Tensor,
    gradients: np.ndarray,
    mixed: tf.DType,
) -> None:
    """The same layer under mixed precision keeps its weights in float32 and is nearly the same, in value and gradient, eager and graph."""
    with global_policy("mixed_bfloat16"):
        other = make()
    # What it was made for, it keeps.
    other(tensors)
    other.set_weights(layer.get_weights())
    assert all(variable.dtype == tf.float32 for variable in other.variables)
    rounded, slopes = _with_gradients(other, tensors)
    assert rounded.dtype == mixed
    near = {"atol": 0.03 * np.abs(outputs).max(), "err_msg": "mixed precision gives something else"}
    np.testing.assert_allclose(tf.cast(rounded, tf.float32), outputs, **near)
    assert slopes @ gradients > 0.99 * np.linalg.norm(slopes) * np.linalg.norm(gradients)
    assert np.linalg.norm(slopes) == pytest.approx(np.linalg.norm(gradients), rel=0.05)
    graph = tf.function(lambda x: other(x))(tensors)
    np.testing.assert_allclose(tf.cast(graph, tf.float32), outputs, **near)


def run_loss_test(loss: Callable[..., tf.Tensor], oracle: Callable[..., float]) -> None:
    """Checks a loss over candidates, for random scores and masks: `f(scores [b, c], positive_scores [b], mask [b, c])` -> scalar.

    Args:
        loss: the loss; its mean is over all rows.
        oracle: the same in plain Python over nested lists.
    """

    specs = [tf.TensorSpec([None, None]), tf.TensorSpec([None]), tf.TensorSpec([None, None], tf.bool)]

    # One trace for all shapes: each costs more than all calls of it.
    @tf.function(input_signature=specs)
    def graph(scores: tf.Tensor, positives: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([scores, positives])
            value = loss(scores, positives, mask)
        assert value.shape == ()
        return value, *tape.gradient(value, [scores, positives], unconnected_gradients="zero")

    def value_and_gradients(*arrays: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, *gradients = graph(*arrays)
        return float(value), *(g.numpy() for g in gradients)

    numbers = st.floats(-4, 4, width=16)

    @given(st.data(), st.integers(1, 4), st.integers(1, 5), st.integers(0, 5), st.sampled_from([50.0, -50.0, np.inf, -np.inf]))
    @settings(max_examples=40)
    def check(data: st.DataObject, rows: int, candidates: int, column: int, extreme: float) -> None:
        scores = data.draw(hnp.arrays(np.float32, (rows, candidates), elements=numbers))
        positives = data.draw(hnp.arrays(np.float32, rows, elements=numbers))
        mask = data.draw(hnp.arrays(bool, (rows, candidates)) | st.just(np.zeros((rows, candidates), bool)))
        value, by_score, by_positive = value_and_gradients(scores, positives, mask)
        assert np.isfinite([value, *by_score.ravel(), *by_positive]).all()
        np.testing.assert_allclose(value, oracle(scores.tolist(), positives.tolist(), mask.tolist()), rtol=1e-4, atol=1e-5)
        assert not by_score[~mask].any(), "a masked candidate has a gradient"
        idle = ~mask.any(axis=1)
        assert not by_positive[idle].any(), "a row without candidates has a gradient"

        at = min(column, candidates)
        wider = np.insert(scores, at, extreme, axis=1), positives, np.insert(mask, at, False, axis=1)
        with_column, wide_by_score, wide_by_positive = value_and_gradients(*wider)
        np.testing.assert_allclose(with_column, value, rtol=1e-5, err_msg="a masked column changes the loss")
        np.testing.assert_allclose(np.delete(wide_by_score, at, axis=1), by_score, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(wide_by_positive, by_positive, rtol=1e-5, atol=1e-7)
        assert not wide_by_score[:, at].any()

        twice = value_and_gradients(np.tile(scores, [2, 1]), np.tile(positives, 2), np.tile(mask, [2, 1]))[0]
        np.testing.assert_allclose(twice, value, rtol=1e-5, atol=1e-6, err_msg="the loss is no mean over the batch")
        eager = loss(tf.constant(scores), tf.constant(positives), tf.constant(mask))
        assert eager.shape == ()
        np.testing.assert_allclose(eager, value, rtol=1e-5, atol=1e-6, err_msg="graph and eager differ")

    check()
    rng = np.random.default_rng(0)
    scores, positives = (tf.constant(rng.normal(size=size), tf.bfloat16) for size in ((3, 40), 3))
    mask = tf.constant(rng.random((3, 40)) < 0.7)
    half = loss(scores, positives, mask)
    assert half.dtype == tf.float32
    whole = loss(tf.cast(scores, tf.float32), tf.cast(positives, tf.float32), mask)
    np.testing.assert_allclose(half, whole, rtol=1e-5, err_msg="scores in bfloat16 are summed in bfloat16")


def run_model_test(run: RunFolder, folder: Path, heads: int, normalized: bool, width: int | None = None) -> None:
    """Checks the model of a prepared run folder: weights, loss, embeddings, checkpoints, and that serving equals training.

    Args:
        heads: vectors of a query.
        normalized: all vectors have length 1.
        width: of a vector, where it is not the config's `dim`.
    """
    width = width or run.config.dim
    with unchanged(7):
        model, shards = run.new_model(), run.shards("train")
    tf.keras.utils.set_random_seed(99)
    same = run.new_model()
    training = dataclasses.replace(run.config.training, seed=run.config.training.seed + 1)
    other_seed = run.model_class(dataclasses.replace(run.config, training=training), run.featurizer, run.table)
    assert [v.name for v in model.variables] == [v.name for v in same.variables]
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), same.get_weights(), strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(model.get_weights(), other_seed.get_weights(), strict=True))

    batch = next(iter(training_batches(shards, run.featurizer, 64, seed=5, epochs=1)))
    batch.pop("request_id")
    step, losses = tf.function(model.train_step), []
    assert not _stateful_draws(step.get_concrete_function(batch)), "training draws from a generator that no checkpoint holds"
    for _ in range(8):
        losses.append(float(step(batch)["loss"]))
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0], f"the loss does not fall on a repeated batch: {losses}"

    items = model.corpus_embeddings()
    assert items.shape == (model.items, width)
    assert np.isfinite(items).all()
    np.testing.assert_allclose(model.corpus_embeddings(block=97), items, rtol=1e-4, atol=1e-6)
    for row in (1, 2, model.items // 2, model.items):
        np.testing.assert_allclose(model.embed_items(tf.constant([row]))[0], items[row - 1], rtol=1e-4, atol=1e-6)
    queries = model.embed_queries(batch)
    assert queries.shape == (64, heads, width)
    alone = model.embed_queries({name: value[3:4] for name, value in batch.items()})
    np.testing.assert_allclose(alone[0], queries[3], rtol=1e-4, atol=1e-5)
    if normalized:
        np.testing.assert_allclose(np.linalg.norm(items, axis=-1), 1, rtol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(queries, axis=-1), 1, rtol=1e-4)

    path = tf.train.Checkpoint(model=model).write(str(folder / "checkpoint"))
    tf.train.Checkpoint(model=same).read(path).assert_existing_objects_matched()
    np.testing.assert_allclose(same.corpus_embeddings(), items, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(same.embed_queries(batch), queries, rtol=1e-5, atol=1e-6)
    _check_raw_encoders(run, model, items)


def run_precision_test(run: RunFolder, rounds: bool = True) -> None:
    """Checks the model of a prepared run folder in mixed precision against itself in float32, from the same weights.

    Args:
        rounds: there is a matrix product in the towers, so that the vectors are not the same.
    """

    def of(precision: str) -> Any:
        other = copy.copy(run)
        other.config = dataclasses.replace(run.config, training=dataclasses.replace(run.config.training, precision=precision))
        return other.new_model()

    models = {precision: of(precision) for precision in ("float32", "mixed_bfloat16")}
    assert tf.keras.mixed_precision.global_policy().name == "float32"
    batch = next(iter(training_batches(run.shards("train"), run.featurizer, 64, seed=5, epochs=1)))
    batch.pop("request_id")
    losses, gradients, vectors = {}, {}, {}
    for precision, model in models.items():
        vectors[precision] = np.concatenate([model.embed_queries(batch)[:, 0], model.corpus_embeddings()])
        assert vectors[precision].dtype == np.float32
        with tf.GradientTape() as tape:
            losses[precision] = model.compute_loss(batch, training=True)
        found = [tf.convert_to_tensor(g) for g in tape.gradient(losses[precision], model.trainable_variables)]
        gradients[precision] = np.concatenate([g.numpy().ravel() for g in found])
    (full, mixed), (slope, rounded), (loss, near) = (list(values.values()) for values in (vectors, gradients, losses))
    assert np.array_equal(full, mixed) is not rounds
    np.testing.assert_allclose(mixed, full, atol=0.02 * np.abs(full).max())
    assert near.dtype == tf.float32
    assert float(near) == pytest.approx(float(loss), rel=0.01)
    assert np.isfinite(rounded).all()
    assert rounded @ slope > 0.97 * np.linalg.norm(slope) * np.linalg.norm(rounded)

    model = models["mixed_bfloat16"]
    assert all(variable.dtype == tf.float32 for variable in model.trainable_variables)
    steps = [[float(m.train_step(batch)["loss"]) for m in models.values()] for _ in range(4)]
    assert min(near for _, near in steps[1:]) < steps[0][1], f"the loss does not fall on a repeated batch: {steps}"
    # Of the first loss: what is left of it after some steps on one batch is hardly more than rounding.
    np.testing.assert_allclose(*zip(*steps, strict=True), rtol=0, atol=0.1 * steps[0][0], err_msg="another course of training")
    _check_raw_encoders(run, model, model.corpus_embeddings(), atol=0.01)


def _stateful_draws(graph: Any) -> set[str]:
    """Operations of a traced function that draw at random from a state of their own."""
    definition = graph.graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    return {node.op for node in nodes if "seed2" in node.attr or node.op.startswith("StatefulRandom")}


def _check_raw_encoders(run: RunFolder, model: Any, items: np.ndarray, atol: float = 1e-5) -> None:
    """Strings through the encoders that are served give what ids through the towers give in training."""
    catalogue = run.data.catalogue()
    encoder = RawItemEncoder(model, run.featurizer, ItemIds(catalogue.item_ids))
    columns = {name: tf.constant(catalogue.table[column].to_pylist()[:50]) for name, column in encoder.columns.items()}
    np.testing.assert_allclose(encoder(columns), items[:50], rtol=1e-4, atol=atol)

    raw, batch = RawQueryEncoder(model, run.featurizer, ItemIds(catalogue.item_ids)), {}
    split = "test" if run.split_time is not None else "train"
    shards = run.shards(split)
    records = [tf.train.Example.FromString(r.numpy()).features.feature for r in tf.data.TFRecordDataset(shards.paths).take(64)]
    texts = lambda r, name: [b.decode() for b in r[name].bytes_list.value]  # noqa: E731
    for name, spec in raw.input_signature.items():
        if name in raw.columns:
            rows = [texts(r, f"user_{column_key(raw.columns[name])}") for r in records]
        elif name == "history_items":
            rows = [[catalogue.item_ids[i - 1] for i in r[name].int64_list.value] for r in records]
        elif spec.dtype == tf.string:
            rows = [texts(r, name) for r in records]
        else:
            rows = [list(r[name].int64_list.value) for r in records]
        batch[name] = tf.ragged.constant(rows, spec.dtype, ragged_rank=1).to_tensor() if spec.shape.rank == 2 else tf.constant(rows)[:, 0]
    (_, expected) = next(iter(model.query_embeddings(evaluation_batches(shards, run.featurizer, 64))))
    np.testing.assert_allclose(raw(batch), expected, rtol=1e-4, atol=atol)
    # TensorFlow Serving's batching wants lists to begin with padding, and appends more of it.
    around = {n: tf.pad(v, [[0, 0], [1, 3]], constant_values=tf.zeros([], v.dtype)) if len(v.shape) == 2 else v for n, v in batch.items()}
    np.testing.assert_allclose(raw(around), raw(batch), rtol=1e-5, atol=1e-6)


# No request may be an error; some of these are no text at all.
HOSTILE = [
    b"",
    b" \t\n",
    b"zzqx qqvv unknownword",
    b"a" * 10_000,
    b"red shoes " * 1_000,
    "\u8dd1\u6b65\u978b \u7537\u58eb".encode(),
    "\u8dd1".encode() * 10_000,
    "\U0001f3a7\U0001f381 \U0001f469\u200d\U0001f4bb".encode(),
    "\uff2c\uff25\uff24 12oz".encode(),
    b"nul \x00 nul",
    b"\xff\xfe led \xc3\x28 \xe8\xb7",
]
BATCH = 200


def run_servable_test(version: Path, item_ids: list[str]) -> None:
    """Checks a written version in a fresh process, as an export does, and asks what no shop expects: finite answers, never an error.

    Args:
        version: `servable/NAME/VERSION`.
        item_ids: all ids of the catalogue.
    """
    command = [sys.executable, __file__, str(version), item_ids[0]]
    ended = subprocess.run(command, capture_output=True, check=False, text=True, env={"PATH": "/usr/bin:/bin"}, cwd=version.parent)
    assert ended.returncode == 0, ended.stderr[-3000:]
    answers = json.loads(ended.stdout.splitlines()[-1])
    known, signatures = set(item_ids), {"serving_default", "search", "embed_query", "embed_items"}
    assert signatures <= set(answers)
    for signature in ("embed_query", "embed_items"):
        for batch, outputs in answers[signature].items():
            embedding = np.array(outputs["embedding"])
            assert len(embedding) == int(batch)
            assert np.isfinite(embedding).all(), f"{signature}, batch of {batch}"
    for signature in ("serving_default", "search"):
        for batch, outputs in answers[signature].items():
            _check_results(outputs, int(batch), known)
        alone, together = (answers[signature][str(n)]["scores"] for n in (1, BATCH))
        # A row is as wide as the batch's largest k.
        np.testing.assert_allclose(together[0][: len(alone[0])], alone[0], rtol=1e-4, atol=1e-5, err_msg="an answer depends on its batch")
    for batch, outputs in answers["search"].items():
        plain = answers["serving_default"][batch]
        for row, (expected, count) in enumerate(zip(outputs["expected"], outputs["num_results"], strict=True)):
            k, leaves, excludes = _asked(row)
            assert count == 0 or expected != "none", f"{outputs['applied_filter'][row]} matches something"
            assert count <= k or k <= 0
            assert not excludes or item_ids[0] not in outputs["ids"][row]
            if expected == "all" and not excludes and k <= 0 and leaves <= 0:
                assert count == plain["num_results"][row]
                np.testing.assert_allclose(outputs["scores"][row][:count], plain["scores"][row][:count], rtol=1e-4, atol=1e-5)


def _check_results(outputs: dict[str, list], batch: int, known: set[str]) -> None:
    ids, scores, counts = (outputs[name] for name in ("ids", "scores", "num_results"))
    assert len(ids) == len(scores) == len(counts) == batch
    assert np.isfinite(scores).all()
    for row, (row_ids, row_scores, count) in enumerate(zip(ids, scores, counts, strict=True)):
        # Without a filter there is always a result.
        assert ("expected" not in outputs or outputs["expected"][row] in ("none", "any")) or count > 0
        assert count <= len(row_ids)
        assert len(set(row_ids[:count])) == count
        assert set(row_ids[:count]) <= known
        assert set(row_ids[count:]) <= {""}
        assert row_scores[:count] == sorted(row_scores[:count], reverse=True)


def _asked(row: int) -> tuple[int, int, bool]:
    """What a row of `search` asks for: k, leaves to search, and whether it excludes the known item."""
    return (0, -1, 1, 0, 3, 2**31 - 1)[row % 6], (0, 0, -(2**31), 1, 2**31 - 1)[row % 5], row % 7 == 3


def _filters(model: Any, known_id: str) -> list[tuple[list[bytes], str]]:
    """Rows of clauses with what they must leave: "all" of the items, "some" (the known one at least) or "none"."""
    if "attributes" not in model.signatures:
        return [([b""], "all")]
    values = {name: value[0].numpy() for name, value in model.signatures["attributes"](item_ids=tf.constant([known_id])).items()}
    never = [text for text in HOSTILE if text] + [b"=", b"|", b"||=|", b"=x", b"no column=1", b"%7C", b"%2", b".."]
    some = []
    for name, value in values.items():
        column = atom(name, "").encode()
        never += [
            column + end for end in (b"", b"no such value", b"9..1", b"nan..nan", b"1e999..", b"..-1e999", b"1...2", b"1" * 9000 + b"..")
        ]
        if not isinstance(value, bytes):
            some += [column + b"%r..%r" % (float(value), float(value)), column + b".."]
        elif value:
            some.append(column + value.replace(b"%", b"%25").replace(b"|", b"%7C"))
    rows = [([b""], "all"), *(([clause], "some") for clause in some), *(([b"", clause], "none") for clause in never)]
    rows += [(some, "some"), ([*some, never[0]], "none"), ([b"|".join([*never, some[0], *never])], "some")]
    return rows


def _hostile_batch(specs: dict[str, tf.TensorSpec], size: int, known_id: str, filters: list) -> dict[str, tf.Tensor]:
    """`size` rows of hostile strings for every input; item ids of histories are unknown, hostile, or known, and too many."""
    texts = [HOSTILE[row % len(HOSTILE)] for row in range(size)]
    history = ["no such item", known_id, "", known_id, "\U0001f3a7"] * 100
    batch = {}
    for name, spec in specs.items():
        if name == "history_items":
            batch[name] = tf.constant([history if row % 2 == 0 else [""] * len(history) for row in range(size)])
        elif name in ("k", "leaves_to_search"):
            batch[name] = tf.constant([_asked(row)[0 if name == "k" else 1] for row in range(size)], tf.int32)
        elif name == "exclude":
            batch[name] = tf.constant(
                [[texts[row], known_id if _asked(row)[2] else "no such item", b"", known_id[:-1]] for row in range(size)]
            )
        elif name == "filter":
            rows = [filters[row % len(filters)][0] for row in range(size)]
            batch[name] = tf.ragged.constant(rows, tf.string).to_tensor("")
        elif spec.dtype == tf.int32:
            batch[name] = tf.constant([[0, -1, 3, 2**31 - 1, -(2**31), 86_400, row] for row in range(size)], tf.int32)
        elif spec.dtype == tf.bool:
            batch[name] = tf.constant([_automatic(row) for row in range(size)])
        elif spec.shape.rank == 2:
            batch[name] = tf.constant([[texts[row], b"", *HOSTILE[:3]] for row in range(size)])
        else:
            # The user is as hostile as the query, but not with the same text.
            batch[name] = tf.constant(texts if name == "query" else [HOSTILE[(row + 5) % len(HOSTILE)] for row in range(size)])
    return batch


def main(version: str, known_id: str) -> None:
    """The fresh process: prints the answers of every signature to batches of 0, 1, all hostile texts and 200, as one JSON line."""
    from tfebr.servable.check import check, load

    check(version)
    model, answers = load(version), {}
    filters = _filters(model, known_id)
    for signature, function in model.signatures.items():
        specs = function.structured_input_signature[1]
        answers[signature] = {}
        for size in (0, 1, len(HOSTILE), BATCH):
            outputs = function(**_hostile_batch(specs, size, known_id, filters)) if size else function(**_empty(specs))
            answers[signature][size] = {name: _plain(value) for name, value in outputs.items()}
            if signature == "search":
                expected = [filters[row % len(filters)][1] for row in range(size)]
                # What the query implies may leave less.
                loose = [
                    word != "none" and (_asked(row)[2] or ("automatic" in specs and _automatic(row))) for row, word in enumerate(expected)
                ]
                answers[signature][size]["expected"] = ["any" if any_ else word for any_, word in zip(loose, expected, strict=True)]
    print(json.dumps(answers))


def _automatic(row: int) -> bool:
    return row % 2 == 1


def _empty(specs: dict[str, tf.TensorSpec]) -> dict[str, tf.Tensor]:
    return {name: tf.zeros([0] * spec.shape.rank, spec.dtype) for name, spec in specs.items()}


def _plain(values: tf.Tensor) -> list:
    array = values.numpy()
    return (
        np.vectorize(lambda text: text.decode(errors="replace"), otypes=[object])(array).tolist()
        if array.dtype == object
        else array.tolist()
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
