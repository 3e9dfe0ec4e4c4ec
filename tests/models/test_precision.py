"""Mixed precision by the whole path: switched on by the program's policy or by a setting, as good as float32, exported and asked."""

import dataclasses
import shutil

import numpy as np
import pytest
from harness import global_policy

from tfebr import pipeline
from tfebr.data.batches import evaluation_batches
from tfebr.data.item_ids import ItemIds
from tfebr.errors import ConfigError
from tfebr.models.encoders import RawQueryEncoder
from tfebr.models.run_folder import RunFolder
from tfebr.models.training_config import TrainingConfig
from tfebr.publishing.publish import export
from tfebr.servable import check


@pytest.fixture(scope="module")
def mixed_run(tiny_shop, tiny_config, made_once) -> RunFolder:
    """The tiny run once more, by a program that has set Keras's policy."""

    def train(folder):
        with global_policy("mixed_bfloat16"):
            pipeline.train(tiny_shop.path, folder, "dpsr", tiny_config, quiet=True)

    return RunFolder(made_once("mixed-run", train))


def test_a_run_keeps_the_precision_that_it_was_trained_in(mixed_run, tiny_run):
    assert mixed_run.config.training.precision == "mixed_bfloat16"
    assert tiny_run.config.training.precision == "float32"
    with global_policy("mixed_bfloat16"):
        assert TrainingConfig().precision == "mixed_bfloat16"
        assert RunFolder(tiny_run.path).config.training.precision == "float32"


def test_the_setting_decides_whatever_the_policy(mixed_run):
    batch = next(iter(evaluation_batches(mixed_run.shards("test"), mixed_run.featurizer, 8)))
    batch.pop("request_id")
    found = {}
    for precision in ("float32", "mixed_bfloat16"):
        training = dataclasses.replace(mixed_run.config.training, precision=precision)
        config = dataclasses.replace(mixed_run.config, training=training)
        for policy in ("float32", "mixed_bfloat16"):
            with global_policy(policy):
                model = mixed_run.model_class(config, mixed_run.featurizer, mixed_run.table)
                found[precision, policy] = model.embed_queries(batch).numpy()
    for precision in ("float32", "mixed_bfloat16"):
        np.testing.assert_array_equal(found[precision, "float32"], found[precision, "mixed_bfloat16"])
    assert not np.array_equal(found["float32", "float32"], found["mixed_bfloat16", "float32"])


def test_recall_is_that_of_float32(mixed_run, tiny_run):
    evaluation = pipeline.Evaluation.of(tiny_run.data, tiny_run.split_time)
    near, full = (pipeline.measure_model(run, evaluation)[1].to_json()["means"] for run in (mixed_run, tiny_run))
    assert near["clicked_recall@100"] == pytest.approx(full["clicked_recall@100"], abs=0.05)


def test_it_is_exported_and_answers_as_the_model_does(mixed_run, tmp_path):
    """The export's own check asks it in a fresh process, which knows no policy."""
    run = RunFolder(shutil.copytree(mixed_run.path, tmp_path / "run"))
    served, model = check.load(export(run.path, quiet=True)), run.trained_model()
    given = {"query": ["red shoes", "led lamp", "zzqx"]}
    embed, find = (served.signatures[name] for name in ("embed_query", "serving_default"))
    vectors = embed(**check.complete_inputs(embed.structured_input_signature[1], given))["embedding"].numpy()
    inputs = check.complete_inputs(embed.structured_input_signature[1], given)
    expected = RawQueryEncoder(model, run.featurizer, ItemIds(run.data.catalogue().item_ids))(inputs)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=0.01)
    answer = find(**check.complete_inputs(find.structured_input_signature[1], given))
    items = dict(zip(run.data.catalogue().item_ids, model.corpus_embeddings(), strict=True))
    for row, ids in enumerate(answer["ids"].numpy().astype(str)):
        best = np.max([vectors[row] @ items[item] for item in ids if item], axis=1)
        np.testing.assert_allclose(answer["scores"][row][: len(best)], best, atol=0.02)


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_another_policy_is_refused_by_name(policy):
    with (
        global_policy(policy),
        pytest.raises(ConfigError, match=rf"`precision` must be one of float32, mixed_bfloat16\. Received: '{policy}'"),
    ):
        TrainingConfig()
