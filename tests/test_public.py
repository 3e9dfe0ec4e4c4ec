"""The public names: what a room promises, free to import, found by dir(), and helpful when misspelt."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tfebr

ROOMS = {
    "data": "Catalogue ColumnRoles DataFolder FeatureSpec Featurizer ItemTable Judgments SearchLog Shards Stage Vocabulary "
    "evaluation_batches split_time training_batches write_examples write_frames write_log",
    "layers": "ClsFusion EmbeddingBag HeadsDense ItemEncoder LSTMStack MultiHeadEncoder PostFusion QueryUnit RealTimeEncoder "
    "SelfAttention ShortTermEncoder TextBag TextEncoder TransformerLayer UserEncoder attend long_term",
    "losses": "GradedInfoNCE LabelSmoothing SampledSoftmax adaptive_margin adaptive_softmax adaptive_temperature graded_infonce "
    "multi_grained pairwise_hinge ranking_loss retrieval_loss sampled_softmax soft_cross_entropy",
    "tasks": "Candidates MultiGrainedRetrieval PairwiseRetrieval RetrievalTask SoftmaxRetrieval StreamingFrequency mixed_negatives "
    "negative_mask random_negatives_for soft_attention_scores uniform_rows",
    "models": "DPSR DPSRConfig MGDSPR MGDSPRConfig MMSE MMSEConfig Recommendations RetrievalModel RunFolder TrainingConfig TwoTower "
    "TwoTowerConfig register",
    "index": "ExactIndex IndexReport IndexTopK ItemAttributes PortableIndex Recipe ScannIndex build index_of measure_recall recipe_for",
    "evaluation": "BM25 Comparison HeldOut Ranking Report comparison_table draw_comparison evaluate_judged evaluate_requests held_out "
    "paired_test rank_exact read_qrels read_run stage_order write_qrels write_run",
    "servable": "RetrievalServable Version inspect prune restore roll_back write",
    "publishing": "Published export export_shards refresh",
    "server": "Server",
    "client": "Client Result ShardedClient",
    "infrastructure": "",
}
PACKAGE = Path(tfebr.__file__).parent


def room(name: str):
    return importlib.import_module(f"tfebr.{name}")


def test_every_room_says_what_is_public():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == ROOMS.keys()
    assert (PACKAGE / "py.typed").exists()


@pytest.mark.parametrize("name", ROOMS)
def test_names_of_a_room(name):
    assert sorted(room(name).__all__) == sorted(ROOMS[name].split())
    assert sorted(dir(room(name))) == sorted(room(name).__all__)


@pytest.mark.parametrize("name", ROOMS)
def test_a_public_name_is_a_documented_class_or_function_of_its_room(name):
    for public in room(name).__all__:
        value = getattr(room(name), public)
        assert inspect.isclass(value) or inspect.isfunction(value), public
        assert value.__module__.startswith(f"tfebr.{name}."), public
        assert inspect.getdoc(value), public


def test_importing_the_rooms_loads_nothing_heavy():
    rooms = ", ".join(f"tfebr.{name}" for name in ROOMS)
    code = f"import sys, {rooms}; print([m for m in ('tensorflow', 'numpy', 'pyarrow', 'matplotlib', 'grpc') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "misspelt", "meant"),
    [("losses", "SampledSoftMax", "SampledSoftmax"), ("models", "Dpsr", "DPSR"), ("index", "ScaNNIndex", "ScannIndex")],
)
def test_a_misspelt_name_suggests_the_near_ones(name, misspelt, meant):
    with pytest.raises(AttributeError, match=rf"`tfebr.{name}` has no public name `{misspelt}`\. Did you mean .*{meant}"):
        getattr(room(name), misspelt)


def test_a_name_like_no_other_lists_what_there_is():
    with pytest.raises(AttributeError, match=r"has no public name `xyz`\. It has: DPSR, DPSRConfig, "):
        room("models").xyz  # noqa: B018
