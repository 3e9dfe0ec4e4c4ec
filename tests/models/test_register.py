"""A model of one's own, by its name, in the process that defines it and in others."""

import subprocess
import sys
from pathlib import Path

import pytest

from tfebr.errors import ConfigError
from tfebr.models import RunFolder, TwoTower, register
from tfebr.models.zoo import MODELS, model_class, name_of, source_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_tower.py"


@pytest.fixture(autouse=True)
def _own_names():
    before = dict(MODELS)
    yield
    MODELS.clear()
    MODELS.update(before)


def test_a_registered_model_is_found_by_its_name():
    @register("mine")
    class Mine(TwoTower):
        pass

    assert model_class("mine") is Mine
    assert name_of(Mine) == "mine"
    # A cell of a notebook that is run again.
    again = type("Mine", (TwoTower,), {"__qualname__": Mine.__qualname__})
    assert register("mine")(again) is again
    assert model_class("mine") is again


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a:b", "..", "né"])
def test_names_are_words(name):
    with pytest.raises(ConfigError, match="must be made of letters, digits"):
        register(name)(type("Mine", (TwoTower,), {}))


def test_taken_names_and_what_is_no_model_are_refused():
    with pytest.raises(ConfigError, match=r"`name` of a model must be a new one\. Received: 'dpsr', which is DPSR\."):
        register("dpsr")(type("Mine", (TwoTower,), {}))
    with pytest.raises(ConfigError, match=r"must decorate a subclass of `tfebr\.models\.RetrievalModel`"):
        register("mine")(dict)
    with pytest.raises(ConfigError, match="must be registered"):
        name_of(type("Nobody", (TwoTower,), {}))


def test_unknown_names_suggest_and_unknown_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown model 'mgdsrp'\. Did you mean mgdspr\?"):
        model_class("mgdsrp")
    with pytest.raises(ConfigError, match=r"must be importable\. Received: .*none\.py"):
        model_class(f"{tmp_path}/none.py:mine")
    with pytest.raises(ConfigError, match=r"must be importable\. Received: no_such_module"):
        model_class("no_such_module:mine")
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_package\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        model_class(f"{broken}:mine")


def test_another_process_trains_evaluates_and_exports_it(tiny_shop, tmp_path):
    """Each command is a process of its own; only the first is told where the model is."""
    run, config = tmp_path / "run", '{"dim": 8, "training": {"epochs": 1, "batch_size": 128}}'
    (tmp_path / "config.json").write_text(config)
    tfebr = [sys.executable, "-m", "tfebr.cli"]
    for command in (
        ["train", tiny_shop.path, run, "--model", f"{EXAMPLE}:weighted", "--config", tmp_path / "config.json", "-q"],
        ["evaluate", run, "--max-requests", "20"],
        ["export", run, "-q"],
    ):
        done = subprocess.run([*tfebr, *map(str, command)], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    found = RunFolder(run)
    assert found.model_name == "weighted"
    assert type(found.trained_model()).__name__ == "Weighted"
    assert (run / "servable" / "weighted" / "1" / "saved_model.pb").exists()
    assert source_of(found.model_class)["file"] == str(EXAMPLE)
