"""Every loss, task and layer names what is wrong with its arguments, and none is left out: what is public must have its example here."""

import functools
import importlib
import pkgutil

import pytest
import tensorflow as tf
from refusals import Example, all_public, parameters, run_refusals_test

from tfebr import layers, losses, tasks
from tfebr.errors import ConfigError
from tfebr.layers import EmbeddingBag, TextBag
from tfebr.layers.windows import cut_windows, places_of
from tfebr.losses import LabelSmoothing, sampled_softmax
from tfebr.losses.adaptive import item_anchored
from tfebr.tasks import Candidates, MultiGrainedRetrieval, StreamingFrequency
from tfebr.tasks.frequency import pool_log_probability
from tfebr.tasks.multi_grained_retrieval import shown_and_pool_scores
from tfebr.tasks.stages import mine_stages

ROWS = {"scores": "float [batch, candidates]", "positive_scores": "float [batch]", "mask": "bool [batch, candidates]"}
SMOOTH = {"smoothing": LabelSmoothing(0.1, 0.1, 0.1)}
OF_CANDIDATES = {"log_probability": "float [batch, candidates] or [candidates]", "teacher_scores": "float [batch, candidates]"}
OF_ALL = {"log_probability": "float [batch, 6] or [6]", "teacher_scores": "float [batch, 6]"}
SHOWN = {"shown_scores": "float [batch, shown]", "stages": "int [batch, shown]"}
RETRIEVAL = SHOWN | {
    "negative_scores": "float [batch, candidates]",
    "negative_mask": "bool [batch, candidates]",
    "temperature": 0.5,
    "weights": (1.0, 1.0, 1.0),
    "row_reduction": "sum",
    "confidence": "float [batch, shown]",
    **SMOOTH,
    **OF_ALL,
    "unclicked_negatives": True,
}
RANKING = {"form": "hinge", "margin": 0.1}
OF_TFRS = {
    "candidate_embeddings": "float [candidates, dim]",
    "sample_weight": "float [batch]",
    "candidate_sampling_probability": "float [candidates]",
    "candidate_ids": "id [candidates]",
    "score_mask": "bool [batch, candidates]",
    "known_positives": "id [batch, n]",
}
LABELS = {"y_true": "any [batch, candidates]", "y_pred": "float [batch, candidates]"}
LEVELS = {"num_levels": 3, "temperature": 0.5, "lowest_positive": 1, "weights": (1.0, 1.0, 1.0), "row_reduction": "sum"}
SMOOTHED = {"scores": "float [batch, candidates]", "positive": "int [batch]", "mask": "bool [batch, candidates]", "temperature": 0.5}
SMOOTHED |= OF_CANDIDATES
SEED = {"seed": "int [2]"}
OUTSIDE = {
    "temperature": (0, 0.0),
    "ranking_temperature": (0,),
    "beta": (0,),
    "weights": ((1.0, 2.0), "abc", 3.0),
    "margin": ((0.1, 0.2), (0.1, -0.2, 0.1), tf.constant(-0.5)),
    "num_levels": (0, 1),
    "lowest_positive": (0, 4),
    "alpha": (1.5,),
    "rate": (0, 1),
    "items": (0,),
    "batch_size": (0,),
    "hard": (0,),
    "mix": ((0.6, 0.4), (0.4, 1.1), (0.5,), 0.5),
    "adaptive": (0,),
    "base": (0,),
    "heads": (0, 3),
    "depth": (-1,),
    "dropout": (1.0,),
    "dim": (0,),
    "layers": (0,),
    "units": (0,),
    "size": (0,),
    "length": (0,),
    "word_length": (0,),
    "hidden": (0, (0,), ("6",), (6, 2.5)),
    "scale": (0,),
}
LOSSES = {
    sampled_softmax: Example(ROWS | {"temperature": 0.5, "weights": "float [batch]"}),
    losses.SampledSoftmax: Example(LABELS, {"temperature": 0.5}),
    losses.adaptive_margin: Example({"similarity": "float [..., dim]", "base": 0.1, "alpha": 0.5}),
    losses.adaptive_temperature: Example({"similarity": "float [..., dim]", "base": 0.1, "alpha": 0.5}),
    losses.adaptive_softmax: Example(ROWS | {"temperatures": "float [batch, candidates]", "weights": "float [batch]"}),
    item_anchored: Example(
        {"loss": sampled_softmax, "scores": "float [batch, candidates]", "mask": "bool [batch, candidates]", "weight": 0.1}
    ),
    losses.pairwise_hinge: Example(
        ROWS | {"margin": 0.1, "weights": "float [batch, candidates]", "reduction": "sum", "sample_weight": "float [batch]"}
    ),
    losses.graded_infonce: Example(
        {"scores": "float [batch, candidates]", "levels": "int [batch, candidates]"}
        | LEVELS
        | {"confidence": "float [batch, candidates]"}
        | SMOOTH
        | OF_CANDIDATES
    ),
    losses.GradedInfoNCE: Example(LABELS, LEVELS),
    losses.multi_grained: Example(RETRIEVAL | {"ranking_weight": 0.1, "ranking_temperature": 0.1} | RANKING),
    losses.retrieval_loss: Example(RETRIEVAL),
    losses.ranking_loss: Example(SHOWN | RANKING | {"temperature": 0.1, "confidence": "float [batch, shown]"}),
    losses.soft_cross_entropy: Example(
        {"scores": "float [batch, candidates]", "targets": "float [batch, candidates]", "mask": "bool [batch, candidates]"}
        | {"temperature": 0.5, "weights": "float [batch]"}
    ),
    LabelSmoothing(0.1, 0.1, 0.1).targets: Example(SMOOTHED),
    LabelSmoothing(0.1, 0.1, 0.1).row_losses: Example(SMOOTHED),
}
TASKS = {
    tasks.random_negatives_for: Example({"alpha": 0.5, "batch_size": 8}),
    tasks.uniform_rows: Example({"count": 3, "items": 9} | SEED),
    tasks.negative_mask: Example({"candidate_rows": "id [candidates]", "known_positives": "id [batch, n]"}),
    pool_log_probability: Example({"expected_draws": "float [...]", "random": 3, "items": 9}),
    StreamingFrequency(9).update: Example({"rows": "int [n]", "step": "int []"}),
    StreamingFrequency(9).expected_draws: Example({"rows": "int [...]"}),
    functools.partial(StreamingFrequency): Example({"items": 9, "rate": 0.1, "name": None}),
    tasks.mixed_negatives: Example(ROWS | {"hard": 2, "low": 0.4, "high": 0.6} | SEED),
    tasks.soft_attention_scores: Example(
        {"query": "float [batch, heads, dim]", "candidates": "float [candidates, dim]", "beta": 0.1, "stop_weights": False}
    ),
    mine_stages: Example(
        {"items": "int [batch, shown]", "stages": "int [batch, shown]", "positions": "int [batch, shown]"}
        | {"ordered": 1, "clicked": 1, "unclicked": 1, "near": 3}
        | SEED
    ),
    shown_and_pool_scores: Example({"queries": "float [batch, dim]", "shown": "float [batch, n, dim]", "pool": "float [candidates, dim]"}),
    tasks.PairwiseRetrieval: Example(
        {"query_embeddings": "float [batch, heads, dim]"} | OF_TFRS | {"negative_weights": "float [batch, candidates]"},
        {"margin": 0.1, "beta": 0.1, "in_batch": True, "reduction": "sum", "stop_weights": False},
    ),
    tasks.SoftmaxRetrieval: Example(
        {"query_embeddings": "float [batch, 1, dim]"} | OF_TFRS | SEED | {"teacher_scores": "float [batch, candidates]"},
        {"temperature": 2.0, "mix": (0.4, 0.6), "hard": 2, "stop_gradient": False, "logq": True, "in_batch": True} | SMOOTH,
    ),
    MultiGrainedRetrieval: Example(
        {"query_embeddings": "float [batch, 1, dim]"}
        | OF_TFRS
        | {"shown": Candidates("float [batch, shown, dim]", "id [batch, shown]", "float [batch, shown]"), "stages": "int [batch, shown]"}
        | {"confidence": "float [batch, shown]", "teacher_scores": "float [batch, 6]"},
        {"objective": "multi_grained", "temperature": 0.1, "weights": (1.0, 1.0, 1.0), "row_reduction": "mean", "ranking_weight": 0.1}
        | RANKING
        | {"ranking_temperature": 0.1, "unclicked_as": "negatives", "lowest_positive": 2, "adaptive": None, "anchor_weight": 0.1}
        | SMOOTH,
    ),
}
SEQUENCE = {"inputs": "float [batch, length, dim]", "mask": "bool [batch, length]"}
TABLE = EmbeddingBag(9, 8)
TEXT = TextBag({"words": 9, "trigrams": 9}, 8)
HISTORY = {"history_items": "int [batch, events]", "history_stages": "int [batch, events]"}
LAYERS = {
    layers.attend: Example(
        {"queries": "float [..., rows, dim]", "keys": "float [..., length, dim]", "mask": "bool [..., length]", "zero_row": True}
    ),
    layers.SelfAttention: Example(SEQUENCE, {"heads": 2, "residual": True}, called=("heads",)),
    layers.TransformerLayer: Example(SEQUENCE, {"heads": 2, "hidden": 5, "scale": 1.0}, called=("heads",)),
    layers.RealTimeEncoder: Example(
        {"events": "float [batch, length, dim]", "mask": "bool [batch, length]", "training": True} | SEED,
        {"dim": 8, "layers": 1, "dropout": 0.2, "heads": 2},
        called=("inputs",),
    ),
    layers.ShortTermEncoder: Example(SEQUENCE, {"heads": 2, "residual": True}, called=("heads",)),
    layers.long_term: Example(
        {"query_rows": "float [batch, rows, dim]", "pooled": {"brand": "float [batch, n, dim]"}, "present": "bool [batch, n]"}
    ),
    layers.EmbeddingBag: Example({"ids": "int [..., length]"}, {"size": 9, "dim": 8}),
    layers.TextBag: Example(
        {"ids": {"words": "int [..., length]"}}, {"sizes": {"words": 9, "trigrams": 9}, "dim": 8}, {"sizes": ({"words": 0},)}, ("ids",)
    ),
    layers.ClsFusion: Example({"rows": "float [batch, rows, dim]"}, {"heads": 2, "residual": True}, called=("heads",)),
    layers.HeadsDense: Example(
        {"inputs": "float [batch, 2, dim] or [batch, 1, dim]"},
        {"heads": 2, "units": 4, "activation": None, "shared": False, "scale": 1.0},
        {"heads": (0,)},
    ),
    layers.MultiHeadEncoder: Example(
        {"parts": ["float [batch, 8]", "float [batch, n]"]},
        {"heads": 2, "hidden": [6], "dim": 8, "share_mlp": False, "gates": [1.0, None], "normalize": True},
        {"heads": (0,), "gates": (("1", None), (float("nan"), None))},
    ),
    layers.ItemEncoder: Example(
        {"features": {"title_words": "int [batch, length]", "brand": "int [batch]"}},
        {"text": TEXT, "columns": {"brand": TABLE}, "hidden": [6], "dim": 8, "gated": True, "normalize": True},
    ),
    layers.LSTMStack: Example(SEQUENCE | {"training": True} | SEED, {"units": 8, "layers": 1, "dropout": 0.2}),
    layers.PostFusion: Example(
        {"inputs": ["float [batch, dim]", "float [batch, dim]"]}, {"fusion": "late", "normalize": True}, called=("query", "user")
    ),
    layers.QueryUnit: Example(
        {
            "one_gram": "int [batch, n]",
            "two_gram": "int [batch, m]",
            "words": "int [batch, length]",
            "history_words": "int [batch, rows, explicit]",
        },
        {"one_gram": TABLE, "two_gram": TABLE, "words": TABLE, "word_length": 5, "heads": 2, "depth": 1},
    ),
    layers.TextEncoder: Example(
        {"ids": {"words": "int [batch, length]", "trigrams": "int [batch, n]"}},
        {"text": TEXT, "words": "words", "length": 5, "depth": 1, "heads": 2, "hidden": [6], "gated": True},
    ),
    layers.UserEncoder: Example(
        {"inputs": {"query": "float [batch, dim]", "user_age": "int [batch]"} | HISTORY},
        {"events": {"items": TABLE}, "profile": {"age": TABLE}, "dim": 8},
    ),
    cut_windows: Example(
        {"present": "bool [batch, events]", "stages": "int [batch, events]", "ages": "int [batch, events]"}
        | {"seconds": (10, 20, 30), "lengths": (5, 5, 5)},
        outside={"seconds": ((30, 20, 10),), "lengths": ((5, 5, 0),)},
    ),
    places_of: Example({"mask": "bool [batch, n]", "oldest_first": False}),
}
# The same name has another range there.
OUTSIDE_ELSEWHERE = {
    "adaptive_margin": ("base", "alpha"),
    "adaptive_temperature": ("alpha",),
    "HeadsDense": ("heads",),
    "MultiHeadEncoder": ("heads",),
}
# What the public functions are made of: they are given what was checked.
PARTS = {"pack", "unpack", "map_groups", "at_least_float32", "softmax", "to_length", "mean_of_present"}
PARTS |= {"masked_logsumexp", "masked_softmax", "to_logits", "check_margin", "check_mix"}
# Records, and a base that adds no argument.
RECORDS = {"Packed", "Windows", "Places", "LabelSmoothing", "Candidates", "Mined", "RetrievalTask"}
EXAMPLES = LOSSES | TASKS | LAYERS


def named(target) -> str:
    return getattr(target, "__qualname__", None) or target.func.__qualname__


@pytest.mark.parametrize("target", EXAMPLES, ids=named)
def test_what_is_wrong_with_an_argument_is_named(target):
    example = EXAMPLES[target]
    outside = {n: v for n, v in OUTSIDE.items() if n not in OUTSIDE_ELSEWHERE.get(named(target), ())}
    run_refusals_test(target, example._replace(outside=outside | (example.outside or {})))


@pytest.mark.parametrize("target", EXAMPLES, ids=named)
def test_an_example_gives_every_argument(target):
    example = EXAMPLES[target]
    assert set(example.arguments) | set(example.settings or ()) == parameters(target)


@pytest.mark.parametrize("room", ["losses", "tasks", "layers"])
def test_no_loss_task_or_layer_is_left_out(room):
    package = importlib.import_module(f"tfebr.{room}")
    modules = [importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)]
    public = {name for module in modules for name, _ in all_public(module)}
    with_examples = {named(target).split(".")[0] for target in EXAMPLES}
    assert public - PARTS - RECORDS <= with_examples


def test_the_adaptive_objective_refuses_the_same():
    example = TASKS[MultiGrainedRetrieval]
    settings = example.settings | {"adaptive": 0.5, "smoothing": None, "unclicked_as": "left_out"}
    run_refusals_test(MultiGrainedRetrieval, example._replace(settings=settings))


def test_positives_of_another_rank_are_refused_while_a_graph_is_made():
    mask = tf.ones([3, 4], tf.bool)
    with pytest.raises(ConfigError, match=r"`positive_scores` must have shape \[batch\]\. Received: shape \[3, 1\]\."):
        sampled_softmax(tf.ones([3, 4]), tf.ones([3, 1]), mask)
    specs = [tf.TensorSpec([None, None]), tf.TensorSpec([None, 1]), tf.TensorSpec([None, None], tf.bool)]
    with pytest.raises(ConfigError, match=r"`positive_scores` must have shape \[batch\]\. Received: shape \[None, 1\]\."):
        tf.function(sampled_softmax, input_signature=specs).get_concrete_function()
