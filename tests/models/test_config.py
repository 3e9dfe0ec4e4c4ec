"""Configs from plain values: unknown and impossible fields are refused by name."""

import dataclasses
import json
import re

import pytest
from typer.testing import CliRunner

from tfebr.cli import app
from tfebr.errors import ConfigError
from tfebr.models.config import from_dict
from tfebr.models.dpsr import DPSRConfig
from tfebr.models.two_tower import TwoTowerConfig
from tfebr.models.zoo import MODELS, model_class


@pytest.mark.parametrize("kind", [DPSRConfig, TwoTowerConfig])
def test_every_config_survives_json(kind):
    config = from_dict(kind, {"dim": 8, "training": {"epochs": 3}, "features": {"item_columns": ["brand"], "history_items": 7}})
    again = from_dict(kind, json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config
    assert (again.dim, again.training.epochs, again.features.item_columns, again.features.history_items) == (8, 3, ("brand",), 7)


@pytest.mark.parametrize("kind", [DPSRConfig, TwoTowerConfig])
def test_nothing_given_is_the_default(kind):
    assert from_dict(kind, {}) == kind()


def test_a_nested_change_keeps_the_models_own_defaults():
    default = TwoTowerConfig()
    changed = from_dict(TwoTowerConfig, {"training": {"epochs": 9}})
    assert changed == dataclasses.replace(default, training=dataclasses.replace(default.training, epochs=9))
    assert changed.training.learning_rate != DPSRConfig().training.learning_rate


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head": 2}, r"model: unknown field `head`\. Did you mean `heads`\?.*Known fields: dim, column_dim, heads"),
        ({"training": {"epoch": 2}}, r"model\.training: unknown field `epoch`\. Did you mean `epochs`\?"),
        ({"features": {"grain": ["words"]}}, r"model\.features: unknown field `grain`\. Did you mean `grains`\?"),
        ({"qqq": 2}, r"unknown field `qqq`\. Known fields"),
        ({"dim": "8"}, r"model: `dim` must be a whole number\. Received: '8'"),
        ({"dim": 8.5}, "model: `dim` must be a whole number"),
        ({"dim": True}, "model: `dim` must be a whole number"),
        ({"dim": None}, r"model: `dim` must be a whole number\. Received: None"),
        ({"use_user": 1}, "model: `use_user` must be true or false"),
        ({"query_hidden": 16}, "model: `query_hidden` must be a list of whole numbers"),
        ({"query_hidden": [16, "8"]}, r"model: `query_hidden` must be a list of whole numbers\. Received: \[16, '8'\]"),
        ({"training": 3}, r"model\.training: must be an object of fields and their values\. Received: 3"),
        ({"features": {"item_columns": [1]}}, r"model\.features: `item_columns` must be a list of strings, or null"),
        ({"margin": "wide"}, r"model: `margin` must be a finite number\. Received: 'wide'"),
        (["dim"], r"model: must be an object of fields and their values\. Received: \['dim'\]"),
    ],
)
def test_unknown_fields_and_wrong_types_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(DPSRConfig, values, "model")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 0}, "`dim` must be at least 1.*0"),
        ({"heads": -1}, "`heads`"),
        ({"beta": 0.0}, "`beta` must be above 0"),
        ({"beta": float("nan")}, "config: `beta` must be a finite number.*nan"),
        ({"beta": float("inf")}, "config: `beta` must be a finite number.*inf"),
        ({"margin": 0}, "`margin`"),
        ({"alpha": 1.5}, r"`alpha` must be in \[0, 1\].*1\.5"),
        ({"reduction": "max"}, "`reduction` must be one of sum, mean, mean_active.*'max'"),
        ({"explicit_negatives": -1}, "`explicit_negatives`"),
        ({"explicit_weight": 0}, "`explicit_weight`"),
        ({"query_hidden": [0]}, r"`query_hidden` must be widths of at least 1\. Received: \(0,\)"),
        ({"item_hidden": [8, -1]}, r"`item_hidden` must be widths of at least 1\. Received: \(8, -1\)"),
        ({"training": {"batch_size": 0}}, r"config\.training: `batch_size` must be at least 1"),
        ({"training": {"epochs": 0}}, "`epochs`"),
        ({"training": {"learning_rate": 0}}, "`learning_rate` must be above 0"),
        ({"training": {"learning_rate": float("inf")}}, r"config\.training: `learning_rate` must be a finite"),
        ({"training": {"initial_accumulator": 0}}, "`initial_accumulator`"),
        ({"training": {"supervision_share": 1.0}}, "`supervision_share`"),
        ({"training": {"seed": -1}}, "`seed`"),
        ({"features": {"min_count": 0}}, "`min_count`"),
    ],
)
def test_impossible_values_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(DPSRConfig, values)


def test_settings_of_the_command_line_are_refused_by_name(tmp_path):
    run = lambda *options: CliRunner().invoke(app, ["train", "shop", str(tmp_path / "run"), *options]).exception  # noqa: E731
    (tmp_path / "list.json").write_text("[1]")
    for options, message in (
        (["--set", "training=3", "--set", "training.epochs=2"], r"`training` has fields and is no value itself"),
        (["--config", str(tmp_path / "list.json"), "--set", "dim=3"], r"list\.json: must be a JSON object"),
    ):
        error = run(*options)
        assert isinstance(error, ConfigError)
        assert re.search(message, str(error))


def test_whole_numbers_are_fractions_too():
    assert isinstance(from_dict(DPSRConfig, {"margin": 1}).margin, float)


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DPSRConfig().dim = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", MODELS)
def test_models_by_name(name):
    assert model_class(name) is MODELS[name]


def test_an_unknown_model_is_named():
    with pytest.raises(ConfigError, match=r"unknown model 'dprs'.*dpsr, mgdspr, mmse, two_tower"):
        model_class("dprs")
