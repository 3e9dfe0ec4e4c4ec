"""Models the Keras way: from frames to answers, with Keras's own callbacks, on the same data and steps as the command line."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from harness import global_policy

import tfebr
from tfebr.errors import ArtifactError, ConfigError, DataError, RequestError
from tfebr.models import DPSR, MMSE, DPSRConfig, RunFolder, TrainingConfig, TwoTower, TwoTowerConfig

COLOURS, THINGS = ["red", "blue", "green", "black", "white", "grey"], ["dress", "lamp", "chair", "shoe", "bag", "table", "coat", "phone"]
ITEMS = pd.DataFrame(
    [(f"{colour}-{thing}", f"{colour} {thing}", thing) for thing in THINGS for colour in COLOURS], columns=["item_id", "title", "kind"]
)


def clicks(repeats: int = 12) -> pd.DataFrame:
    """Everybody clicks what the query says; queries turn the words around."""
    rows = [(f"{thing} {colour}", f"{colour}-{thing}") for thing in THINGS for colour in COLOURS] * repeats
    order = np.random.default_rng(0).permutation(len(rows))
    return pd.DataFrame([rows[i] for i in order], columns=["query", "item_id"])


CONFIG = TwoTowerConfig(dim=16, training=TrainingConfig(epochs=3, batch_size=32, learning_rate=0.1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TwoTower:
    model = TwoTower.from_data(ITEMS, clicks(), CONFIG, folder=tmp_path_factory.mktemp("front") / "shop", quiet=True)
    model.fit(epochs=2, verbose=0, validation_data=model.run.validation_batches())
    return model


def test_from_frames_to_answers(trained):
    found = trained.recommend("lamp green", k=3)
    assert found[0].item_id == "green-lamp"
    assert found[0].title == "green lamp"
    assert [result.score for result in found] == sorted((result.score for result in found), reverse=True)
    assert len(trained.recommend("lamp", k=10_000)) == len(ITEMS)


def test_answers_print_as_a_table_and_titles_are_text(trained):
    lines = str(trained.recommend("lamp green", k=2)).splitlines()
    assert lines[0] == "lamp green"
    assert lines[1].split()[:2] == ["1", "green-lamp"]
    assert len(lines) == 3
    assert "<b>" not in trained.recommend("<b>lamp</b>", k=1)._repr_html_()


def test_histories_of_keras_have_both_losses(trained):
    losses = trained.history.history
    assert losses["loss"][1] < losses["loss"][0]
    assert np.isfinite(losses["val_loss"]).all()


def test_a_second_fit_goes_on_and_the_run_folder_has_its_state(trained):
    before = int(trained.optimizer.iterations)
    seen = []
    trained.fit(epochs=1, verbose=0, callbacks=[tf.keras.callbacks.LambdaCallback(on_batch_end=lambda step, logs: seen.append(step))])
    assert int(trained.optimizer.iterations) - before == len(seen) == trained.run.steps()
    again = tfebr.load(trained.run.path)
    np.testing.assert_allclose(again.corpus_embeddings(), trained.corpus_embeddings(), atol=1e-6)
    assert again.recommend("coat red", k=5).item_ids == trained.recommend("coat red", k=5).item_ids


def test_it_takes_the_steps_of_the_command_line(tiny_shop, tiny_run, tmp_path):
    from tfebr.models.run_folder import prepare_run

    run = prepare_run(tmp_path / "run", "dpsr", tiny_run.config, tiny_shop, tiny_run.split_time, quiet=True)
    model = run.new_model()
    model.fit(verbose=0)
    np.testing.assert_allclose(model.corpus_embeddings(), tiny_run.trained_model().corpus_embeddings(), atol=1e-4)


def test_judgments_and_users_and_histories(tmp_path):
    judged = clicks(1).assign(relevance=1.0)
    model = DPSR.from_data(ITEMS, judged, DPSRConfig(dim=8, heads=2, query_hidden=(8,), item_hidden=(8,)), quiet=True)
    model.fit(epochs=1, verbose=0)
    log = clicks(4).assign(user_id=lambda frame: np.where(frame.index % 2, "u", "v"))
    users = pd.DataFrame({"user_id": ["u", "v"], "age": ["18-24", "65+"]})
    config = DPSRConfig(dim=8, heads=2, query_hidden=(8,), item_hidden=(8,))
    model = DPSR.from_data(ITEMS, log, config, users=users, test_share=0, quiet=True)
    model.fit(epochs=1, verbose=0)
    plain = model.recommend("lamp", k=48)
    other = model.recommend("lamp", k=48, user={"age": "65+"}, history=["red-dress"], history_queries=["dress red"])
    assert {r.item_id: r.score for r in plain} != {r.item_id: r.score for r in other}
    with pytest.raises(RequestError, match=r"`user` must name columns of the profiles: age\. Received: 'city'\."):
        model.recommend("lamp", user={"city": "Oslo"})


def test_a_program_with_mixed_precision_gets_it():
    with global_policy("mixed_bfloat16"):
        model = DPSR.from_data(ITEMS, clicks(), DPSRConfig(dim=16, heads=1, query_hidden=(16,), item_hidden=(16,)), quiet=True)
        losses = model.fit(epochs=2, verbose=0).history["loss"]
        assert np.isfinite(losses).all()
        assert model.recommend("lamp green", k=1)[0].item_id == "green-lamp"
    assert model.config.training.precision == model.query_tower.dtype_policy.name == "mixed_bfloat16"
    assert model.corpus_embeddings().dtype == np.float32


def test_the_optimizer_is_a_choice():
    model = TwoTower.from_data(ITEMS, clicks(2), CONFIG, quiet=True)
    assert isinstance(model.optimizer, tf.keras.optimizers.Adagrad)
    model.compile(optimizer=tf.keras.optimizers.Adam(0.01))
    model.fit(epochs=1, verbose=0)
    assert isinstance(TrainingConfig(optimizer="adam").new_optimizer(), tf.keras.optimizers.Adam)
    assert isinstance(TrainingConfig(optimizer="sgd", clip_norm=1.0).new_optimizer(), tf.keras.optimizers.SGD)
    with pytest.raises(ConfigError, match="`optimizer` must be one of adagrad, adam, sgd"):
        TrainingConfig(optimizer="lion")


def test_what_cannot_be_is_refused(tmp_path, trained):
    with pytest.raises(ConfigError, match=r"`config` must be a MMSEConfig\. Received: TwoTowerConfig\."):
        MMSE.from_data(ITEMS, clicks(2), CONFIG)
    with pytest.raises(ConfigError, match=r"`folder` must be a new or an empty folder\."):
        TwoTower.from_data(ITEMS, clicks(2), CONFIG, folder=trained.run.path)
    with pytest.raises(DataError, match="column `title` is missing"):
        TwoTower.from_data(ITEMS.drop(columns="title"), clicks(2), CONFIG)
    with pytest.raises(ConfigError, match=r"`k` must be a whole number of at least 1"):
        trained.recommend("lamp", k=0)
    with pytest.raises(ArtifactError, match="not a run folder"):
        tfebr.load(tmp_path)
    parts = RunFolder(trained.run.path)
    alone = TwoTower(parts.config, parts.featurizer, parts.table)
    alone.compile()
    with pytest.raises(ConfigError, match=r"has no data of its own\. Make it with `from_data`"):
        alone.fit()


def test_a_folder_is_free_again_when_the_frames_were_bad(tmp_path):
    bad = clicks(2)
    bad.loc[0, "item_id"] = "nobody knows"
    with pytest.raises(DataError, match="'nobody knows' is not in the catalogue"):
        TwoTower.from_data(ITEMS, bad, CONFIG, folder=tmp_path / "shop", quiet=True)
    assert not (tmp_path / "shop").exists()
    assert TwoTower.from_data(ITEMS, clicks(2), CONFIG, folder=tmp_path / "shop", quiet=True).items == len(ITEMS)
