"""Every loss, task and layer names what is wrong with its arguments, and none is left out: what is public must have its example here."""

import functools
import importlib
import pkgutil

import pytest
import tensorflow as tf
from refusals import Example, all_public, parameters, run_refusals_test

from tfebr.errors import ConfigError
from tfebr.losses import adaptive, graded_infonce, label_smoothing, multi_grained, pairwise_hinge, sampled_softmax
from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.tasks import candidates, frequency, mixing, multi_grained_retrieval, pairwise_retrieval, scoring, softmax_retrieval, stages
from tfebr.tasks.candidates import Candidates

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
POOL = Candidates("float [candidates, dim]", "int [candidates]", "float [candidates]")
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
    "margin": ((0.1, 0.2), (0.1, -0.2, 0.1)),
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
}
LOSSES = {
    sampled_softmax.sampled_softmax: Example(ROWS | {"temperature": 0.5, "weights": "float [batch]"}),
    sampled_softmax.SampledSoftmax: Example(LABELS, {"temperature": 0.5}),
    adaptive.adaptive_margin: Example({"similarity": "float [..., dim]", "base": 0.1, "alpha": 0.5}),
    adaptive.adaptive_temperature: Example({"similarity": "float [..., dim]", "base": 0.1, "alpha": 0.5}),
    adaptive.adaptive_softmax: Example(ROWS | {"temperatures": "float [batch, candidates]", "weights": "float [batch]"}),
    adaptive.item_anchored: Example(
        {"loss": sampled_softmax.sampled_softmax, "scores": "float [batch, candidates]", "mask": "bool [batch, candidates]", "weight": 0.1}
    ),
    pairwise_hinge.pairwise_hinge: Example(ROWS | {"margin": 0.1, "weights": "float [batch, candidates]", "reduction": "sum"}),
    graded_infonce.graded_infonce: Example(
        {"scores": "float [batch, candidates]", "levels": "int [batch, candidates]"}
        | LEVELS
        | {"confidence": "float [batch, candidates]"}
        | SMOOTH
        | OF_CANDIDATES
    ),
    graded_infonce.GradedInfoNCE: Example(LABELS, LEVELS),
    multi_grained.multi_grained: Example(RETRIEVAL | {"ranking_weight": 0.1, "ranking_temperature": 0.1} | RANKING),
    multi_grained.retrieval_loss: Example(RETRIEVAL),
    multi_grained.ranking_loss: Example(SHOWN | RANKING | {"temperature": 0.1, "confidence": "float [batch, shown]"}),
    label_smoothing.soft_cross_entropy: Example(
        {"scores": "float [batch, candidates]", "targets": "float [batch, candidates]", "mask": "bool [batch, candidates]"}
        | {"temperature": 0.5, "weights": "float [batch]"}
    ),
    LabelSmoothing(0.1, 0.1, 0.1).targets: Example(SMOOTHED),
    LabelSmoothing(0.1, 0.1, 0.1).row_losses: Example(SMOOTHED),
}
TASKS = {
    candidates.random_negatives_for: Example({"alpha": 0.5, "batch_size": 8}),
    candidates.uniform_rows: Example({"count": 3, "items": 9} | SEED),
    candidates.negative_mask: Example({"candidate_rows": "int [candidates]", "known_positives": "int [batch, n]"}),
    frequency.pool_log_probability: Example({"expected_draws": "float [...]", "random": 3, "items": 9}),
    frequency.StreamingFrequency(9).update: Example({"rows": "int [n]", "step": "int []"}),
    frequency.StreamingFrequency(9).expected_draws: Example({"rows": "int [...]"}),
    functools.partial(frequency.StreamingFrequency): Example({"items": 9, "rate": 0.1, "name": None}),
    mixing.mixed_negatives: Example(ROWS | {"hard": 2, "low": 0.4, "high": 0.6} | SEED),
    scoring.soft_attention_scores: Example(
        {"query": "float [batch, heads, dim]", "candidates": "float [candidates, dim]", "beta": 0.1, "stop_weights": False}
    ),
    stages.mine_stages: Example(
        {"items": "int [batch, shown]", "stages": "int [batch, shown]", "positions": "int [batch, shown]"}
        | {"ordered": 1, "clicked": 1, "unclicked": 1, "near": 3}
        | SEED
    ),
    multi_grained_retrieval.shown_and_pool_scores: Example(
        {"queries": "float [batch, dim]", "shown": "float [batch, n, dim]", "pool": "float [candidates, dim]"}
    ),
    pairwise_retrieval.PairwiseRetrieval: Example(
        {"query_embeddings": "float [batch, heads, dim]", "candidates": POOL, "known_positives": "int [batch, n]"}
        | {"explicit_negatives": Candidates("float [explicit, dim]", "int [explicit]", None), "explicit_mask": "bool [batch, explicit]"},
        {"margin": 0.1, "beta": 0.1, "in_batch": True, "reduction": "sum", "stop_weights": False, "explicit_weight": 1.0},
    ),
    softmax_retrieval.SoftmaxRetrieval: Example(
        {"query_embeddings": "float [batch, 1, dim]", "candidates": POOL, "known_positives": "int [batch, n]"}
        | SEED
        | {"teacher_scores": "float [batch, candidates]", "weights": "float [batch]"},
        {"temperature": 2.0, "mix": (0.4, 0.6), "hard": 2, "stop_gradient": False, "logq": True, "in_batch": True} | SMOOTH,
    ),
    multi_grained_retrieval.MultiGrainedRetrieval: Example(
        {"query_embeddings": "float [batch, 1, dim]"}
        | {"shown": Candidates("float [batch, n, dim]", "int [batch, n]", "float [batch, n]"), "stages": "int [batch, n]", "pool": POOL}
        | {"known_items": "int [batch, m]", "confidence": "float [batch, n]", "teacher_scores": "float [batch, 6]"},
        {"objective": "multi_grained", "temperature": 0.1, "weights": (1.0, 1.0, 1.0), "row_reduction": "mean", "ranking_weight": 0.1}
        | RANKING
        | {"ranking_temperature": 0.1, "unclicked_as": "negatives", "lowest_positive": 2, "adaptive": None, "anchor_weight": 0.1}
        | SMOOTH,
    ),
}
# The same name has another range there.
OUTSIDE_ELSEWHERE = {"adaptive_margin": ("base", "alpha"), "adaptive_temperature": ("alpha",)}
# What the public functions are made of: they are given what was checked.
PARTS = {"masked_logsumexp", "masked_softmax", "to_logits", "at_least_float32", "check_margin", "check_mix"}
# Records, and a base that adds no argument.
RECORDS = {"LabelSmoothing", "Candidates", "Mined", "FullPrecisionRetrieval"}
EXAMPLES = LOSSES | TASKS


def named(target) -> str:
    return getattr(target, "__qualname__", None) or target.func.__qualname__


@pytest.mark.parametrize("target", EXAMPLES, ids=named)
def test_what_is_wrong_with_an_argument_is_named(target):
    example = EXAMPLES[target]
    outside = {n: v for n, v in OUTSIDE.items() if n not in (OUTSIDE_ELSEWHERE.get(named(target), ()))}
    run_refusals_test(target, example._replace(outside=outside))


@pytest.mark.parametrize("target", EXAMPLES, ids=named)
def test_an_example_gives_every_argument(target):
    example = EXAMPLES[target]
    assert set(example.arguments) | set(example.settings or ()) == parameters(target)


@pytest.mark.parametrize("room", ["losses", "tasks"])
def test_no_loss_or_task_is_left_out(room):
    package = importlib.import_module(f"tfebr.{room}")
    modules = [importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)]
    public = {name for module in modules for name, _ in all_public(module)}
    with_examples = {named(target).split(".")[0] for target in EXAMPLES}
    assert public - PARTS - RECORDS <= with_examples


def test_the_adaptive_objective_refuses_the_same():
    example = TASKS[multi_grained_retrieval.MultiGrainedRetrieval]
    settings = example.settings | {"adaptive": 0.5, "smoothing": None, "unclicked_as": "left_out"}
    run_refusals_test(multi_grained_retrieval.MultiGrainedRetrieval, example._replace(settings=settings))


def test_positives_of_another_rank_are_refused_while_a_graph_is_made():
    mask = tf.ones([3, 4], tf.bool)
    with pytest.raises(ConfigError, match=r"`positive_scores` must have shape \[batch\]\. Received: shape \[3, 1\]\."):
        sampled_softmax.sampled_softmax(tf.ones([3, 4]), tf.ones([3, 1]), mask)
    specs = [tf.TensorSpec([None, None]), tf.TensorSpec([None, 1]), tf.TensorSpec([None, None], tf.bool)]
    with pytest.raises(ConfigError, match=r"`positive_scores` must have shape \[batch\]\. Received: shape \[None, 1\]\."):
        tf.function(sampled_softmax.sampled_softmax, input_signature=specs).get_concrete_function()
