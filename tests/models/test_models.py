"""Every model, in every way that its vectors are made, passes the one set of checks."""

import dataclasses

import pytest
from harness import run_model_test, run_precision_test

from tfebr import pipeline
from tfebr.data.log import split_time
from tfebr.models.config import from_dict
from tfebr.models.run_folder import RunFolder, prepare_run
from tfebr.models.zoo import model_class

WAYS = {
    "dpsr": ("dpsr", {}),
    "dpsr, everything else": (
        "dpsr",
        {"share_text": False, "share_head_mlp": True, "query_hidden": [16, 8], "alpha": 1.0, "reduction": "sum", "stop_attention": True},
    ),
    "dpsr, text only, not normalised": (
        "dpsr",
        {"heads": 1, "use_user": False, "use_history": False, "alpha": 0.0, "normalize": False}
        | {"training": {"batch_size": 64, "learning_rate": 0.05}},
    ),
    "two_tower": ("two_tower", {}),
    "mmse": ("mmse", {"fusion": "gated", "normalize": True, "training": {"batch_size": 64, "learning_rate": 0.05}}),
    "mmse, graded, score": (
        "mmse",
        {"fusion": "score", "objective": "graded", "depth": 0, "normalize": False, "temperature": 0.1, "item_ids": False}
        | {"training": {"batch_size": 64, "learning_rate": 0.05}},
    ),
}


@pytest.fixture(scope="module")
def prepared(tiny_run):
    """A run folder of the tiny shop with other settings; vocabularies, item table and examples are the tiny run's."""

    def make(model: str, changes: dict, tiny_config: dict) -> RunFolder:
        kind = model_class(model)
        known = {f.name for f in dataclasses.fields(kind.Config)}
        values = {name: value for name, value in (tiny_config | changes).items() if name in known}
        run = RunFolder(tiny_run.path)
        run.model_name, run.model_class = model, kind
        run.config = dataclasses.replace(from_dict(kind.Config, values), features=tiny_run.config.features)
        return run

    return make


@pytest.mark.parametrize("way", WAYS)
def test_model_contract(prepared, tiny_config, tmp_path, way):
    model, changes = WAYS[way]
    run = prepared(model, changes, tiny_config)
    heads = run.config.heads if model == "dpsr" else 1
    width = 2 * run.config.dim if changes.get("fusion") == "score" else run.config.dim
    run_model_test(run, tmp_path, heads, getattr(run.config, "normalize", False), width)


@pytest.mark.parametrize("way", ["dpsr", "dpsr, text only, not normalised", "two_tower", "mmse", "mmse, graded, score"])
def test_mixed_precision_is_nearly_the_same(prepared, tiny_config, way):
    model, changes = WAYS[way]
    run_precision_test(prepared(model, changes, tiny_config), rounds=model != "two_tower")


def test_a_judged_set_without_users_passes_too(tmp_path, judged_data, tiny_config):
    run = prepare_run(tmp_path / "run", "dpsr", from_dict(model_class("dpsr").Config, tiny_config), judged_data, None, quiet=True)
    assert (run.config.features.history_items, run.config.features.user_columns) == (0, ())
    run_model_test(run, tmp_path, heads=2, normalized=True)


def test_the_time_of_the_split_is_kept(tiny_run, tiny_shop):
    assert tiny_run.split_time == split_time(tiny_shop.log(), pipeline.TEST_SHARE)
