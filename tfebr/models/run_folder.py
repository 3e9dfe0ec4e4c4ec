"""The run folder: config, vocabularies, item table, examples and checkpoints of one trained model."""

import contextlib
import dataclasses
import functools
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfebr.data import text
from tfebr.data.batches import Batch, steps_of, training_batches
from tfebr.data.catalogue import Catalogue
from tfebr.data.content import Columns, Files, differences
from tfebr.data.dataset import Checked, DataFolder
from tfebr.data.examples import Shards, write_examples
from tfebr.data.features import Featurizer, write_vocabularies
from tfebr.data.intent_learning import learn_intent
from tfebr.data.item_table import ItemTable, write_item_table
from tfebr.data.judged_requests import requests_of
from tfebr.data.propensity import inverse_propensity
from tfebr.data.query_intent import QueryIntent
from tfebr.data.roles import ColumnRoles
from tfebr.errors import ArtifactError, ConfigError, DataError
from tfebr.infrastructure.disk import tensorflow_disk_errors
from tfebr.infrastructure.files import read_json, write_json
from tfebr.infrastructure.literal_paths import literal
from tfebr.models.claim import CONFIG, check_text, claimed
from tfebr.models.config import from_dict
from tfebr.models.propensities import learn_propensities, training_part
from tfebr.models.retrieval_model import RetrievalModel
from tfebr.models.zoo import model_class, source_of

CATALOGUE = "catalogue"
TRAINING_JUDGMENTS = "judgments of 'train'"


class RunFolder:
    """All that is needed to go on with a model.

    Layout: `config.json`, `catalogue/` (a copy: the data folder's may change), `vocabulary/`, `item_table/`, `examples/train`,
    `examples/test`, `supervision/`, `intent/`, `propensities.json`, `checkpoints/`, `metrics.json`, `runs/`, `servable/NAME/VERSION/` and,
    from the first export on, `embeddings/`.

    Args:
        path: the run folder.
        data: where its data folder is now; by default where it was when the run was trained.
    """

    def __init__(self, path: str | os.PathLike, data: str | os.PathLike | None = None):
        self.path = Path(path)
        if not (self.path / CONFIG).exists():
            raise ArtifactError(f"{self.path}: not a run folder (no config.json). Make one with `tfebr train DATA {self.path}`.")
        about = read_json(self.path / CONFIG)
        check_text(self.path, about)
        self.model_name: str = about["model"]
        self.model_class = model_class(self.model_name, about.get("source"))
        self.config: Any = from_dict(self.model_class.Config, about["config"], f"{self.path / CONFIG}")
        self._data = data or about["data"]
        self.split_time: int | None = about["split_time"]
        self.content: Files = about["content"]
        self.roles = ColumnRoles(**{role: tuple(names) for role, names in about["columns"].items()})
        self.featurizer = Featurizer(self.config.features, self.path / "vocabulary")
        self.table = ItemTable.read(self.path / "item_table")

    @functools.cached_property
    def data(self) -> DataFolder:
        """The data folder; raises DataError when it is gone, which a run that is only refreshed does not mind."""
        return DataFolder(self._data)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def trained_on(self) -> Catalogue:
        """The catalogue whose rows item table and examples point to; raises ArtifactError when the run's copy is gone or changed."""
        folder = self.path / CATALOGUE
        try:
            catalogue = Catalogue.read(folder)
        except DataError as error:
            raise ArtifactError(
                f"{folder}: the catalogue that the run was trained on cannot be read. Bring it back, or train again."
            ) from error
        if catalogue.content_hash() != self.table.catalogue_hash:
            raise ArtifactError(f"{folder}: is not the catalogue that the run was trained on any more. Bring it back, or train again.")
        return catalogue

    def check_input(self, content: Files) -> None:
        """Refuses other content than the run was made from, where it was made from a file of that name; see `DataFolder.check`.

        Raises:
            ConfigError: naming the files and columns that have changed, and what to do.
        """
        changed = differences(self.content, {name: columns for name, columns in content.items() if name in self.content})
        if not changed:
            return
        what, other = "data", "Train again, into a new folder"
        if changed.startswith("catalogue: ") and "; " not in changed:
            what = "catalogue"
            command = shlex.join(["tfebr", "refresh", str(self.path), str(self.data.path)])
            other += f", or publish the new catalogue with the towers as they are: `{command}`"
        raise ConfigError(f"{self.data.path}: the {what} has changed since {self.path} was trained: {changed}. {other}.")

    def shards(self, split: str) -> Shards:
        """Example shards, of split "train" or "test" (test only where the data has a log)."""
        return Shards.read(self.path / "examples" / split, self.table.catalogue_hash)

    def supervision(self) -> Shards | None:
        """Labelled pairs used beside the log, or None."""
        folder = self.path / "supervision" / "train"
        return Shards.read(folder, self.table.catalogue_hash) if folder.exists() else None

    def intent(self) -> QueryIntent | None:
        """What a query says of brand and category, learned from the training part of the log; None where there was no log."""
        folder = self.path / "intent"
        return QueryIntent(folder) if folder.exists() else None

    def propensities(self) -> np.ndarray | None:
        """How likely each position is examined, float [positions], in a unit in which the training clicks' mean weight is 1.

        The weight is that of `inverse_propensity`. None where the config has no `debias`.
        """
        if not getattr(self.config, "debias", False):
            return None
        found = read_json(self.path / "propensities.json")
        propensities, clicks = np.array(found["propensities"]), np.array(found["clicks"])
        return propensities * np.average(inverse_propensity(propensities, np.arange(len(clicks))), weights=clicks)

    def new_model(self) -> RetrievalModel:
        """The model with fresh weights, drawn from the config's seed, and the config's optimizer; it knows this folder."""
        model = self.model_class(self.config, self.featurizer, self.table)  # type: ignore[call-arg]
        model.run = self
        model.compile()
        return model

    def training_batches(self, epochs: int, done: int = 0) -> tf.data.Dataset:
        """Batches of the training part as `fit` takes them: `epochs` passes from the beginning, without the first `done` steps."""
        training = self.config.training
        batches = training_batches(
            self.shards("train"),
            self.featurizer,
            training.batch_size,
            training.seed,
            epochs,
            done,
            self.supervision(),
            training.supervision_share,
            self.propensities(),
        )
        return batches.map(_without_ids)

    def steps(self) -> int:
        """Steps of an epoch."""
        return steps_of(self.shards("train"), self.config.training.batch_size)

    def validation_batches(self) -> tf.data.Dataset:
        """Batches of the held-out part, one pass, as `fit` takes them for `validation_data`."""
        training = self.config.training
        return training_batches(self.shards("test"), self.featurizer, training.batch_size, training.seed, epochs=1).map(_without_ids)

    @contextlib.contextmanager
    def checkpoint_manager(self, model: RetrievalModel) -> Iterator[tf.train.CheckpointManager]:
        """Of a model and its optimizer: writes into this folder, whatever its name, and keeps the last two."""
        model.optimizer.build(model.trainable_variables)
        self.checkpoints.mkdir(exist_ok=True)
        # The manager deletes old checkpoints by matching their names.
        with literal(self.checkpoints) as folder:
            checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
            yield tf.train.CheckpointManager(checkpoint, folder, max_to_keep=2)

    def save(self, model: RetrievalModel) -> None:
        """Keeps the state of a model and its optimizer as the latest checkpoint; a training of this folder goes on from it."""
        with self.checkpoint_manager(model) as manager, tensorflow_disk_errors(self.checkpoints):
            manager.save(checkpoint_number=model.optimizer.iterations)

    def trained_model(self) -> RetrievalModel:
        """The model with the weights of the latest checkpoint; raises ArtifactError when there is none or it is damaged."""
        model = self.new_model()
        if not self.restore(tf.train.Checkpoint(model=model)):
            raise ArtifactError(f"{self.path}: holds no checkpoint. Run `tfebr train` again: it goes on where it stopped.")
        return model

    def latest_checkpoint(self) -> Path | None:
        """The latest checkpoint, what its files' names begin with; None where there is none."""
        if not self.checkpoints.is_dir():
            return None
        with literal(self.checkpoints) as folder:
            found = tf.train.latest_checkpoint(folder)
        return None if found is None else self.checkpoints / Path(found).name

    def restore(self, checkpoint: tf.train.Checkpoint) -> bool:
        """Reads the latest checkpoint, or returns False when there is none; raises ArtifactError naming a damaged one."""
        latest = self.latest_checkpoint()
        if latest is None:
            return False
        try:
            with literal(self.checkpoints) as folder:
                checkpoint.restore(os.path.join(folder, latest.name)).expect_partial().assert_existing_objects_matched()
        except (tf.errors.OpError, RuntimeError, IndexError, ValueError, AssertionError) as error:
            problem = str(error).strip().split("\n")[0]
            raise ArtifactError(
                f"{latest}: checkpoint is damaged or a file of it is missing: {problem}. Remove {self.checkpoints} and train again."
            ) from error
        return True


def _without_ids(batch: Batch) -> Batch:
    return {name: values for name, values in batch.items() if name != "request_id"}


def prepare_run(
    path: str | os.PathLike,
    model_name: str,
    config: Any,
    data: DataFolder,
    split_time: int | None,
    supervision: DataFolder | None = None,
    quiet: bool = False,
    content: Files | None = None,
) -> RunFolder:
    """Writes what training reads into a new run folder, or opens the one that an interrupted run left.

    Args:
        config: the model's config; its columns may still be None.
        data: a log is split at `split_time`, and None holds nothing out; a judged set without a log trains on its "train" split.
        supervision: a data folder over the same catalogue whose "train" judgments are mixed in as labelled pairs.
        content: as of `input_content`, where the data has been read through already.

    Raises:
        ConfigError: the folder belongs to another model, config or data, or the config has `debias` and there is no log.
        DataError: the data is bad, or the config has `debias`, and the log's positions tell nothing.
    """
    debias = getattr(config, "debias", False)
    if debias and not data.has_log:
        raise ConfigError(f"`debias` needs a search log with positions, and {data.path} has none. Set `debias` to false.")
    path, catalogue, users = Path(path), data.catalogue(), data.users()
    content = content or input_content(data.check(quiet=True, catalogue=catalogue), supervision.check(quiet=True) if supervision else None)
    roles = data.roles(catalogue)
    features = config.features.resolved(roles, users, data.has_log)
    config = dataclasses.replace(config, features=features)
    about: dict[str, Any] = {
        "model": model_name,
        "config": dataclasses.asdict(config),
        "data": str(data.path.resolve()),
        "split_time": split_time,
    }
    about["supervision"] = str(supervision.path.resolve()) if supervision else None
    about |= {"text": text.VERSION, "columns": roles.to_json(), "content": content, "source": source_of(model_class(model_name))}
    with claimed(path, about):
        if debias and not (path / "propensities.json").exists():
            write_json(path / "propensities.json", learn_propensities(data, split_time))
        training = data.judgments().split("train") if not data.has_log else None
        if not (path / "examples").exists():
            if training is None:
                log = data.log()
                ranges = {"train": (None, split_time)} | ({} if split_time is None else {"test": (split_time, None)})
                write_examples(log.batches(), catalogue, users, path / "examples", ranges, config.training.seed, len(log), quiet=quiet)
            else:
                ranges = {"train": (None, None)}
                write_examples(requests_of(training), catalogue, None, path / "examples", ranges, labelled=True, quiet=quiet)
        if supervision is not None and not (path / "supervision").exists():
            labels = requests_of(supervision.judgments().split("train"))
            write_examples(labels, catalogue, users, path / "supervision", {"train": (None, None)}, labelled=True, quiet=quiet)
        if not (path / CATALOGUE).exists():
            catalogue.write(path / CATALOGUE / "catalogue.parquet")
        if not (path / "item_table").exists():
            queries = (b["query"] for b in training_part(data, split_time)) if training is None else iter(training.queries["query"].chunks)
            write_vocabularies(features, catalogue, queries, users, path / "vocabulary")
            write_item_table(catalogue, Featurizer(features, path / "vocabulary"), path / "item_table", quiet)
        if training is None and not (path / "intent").exists():
            learn_intent(catalogue, data.log().batches(), path / "intent", end_time=split_time, roles=roles, quiet=quiet)
        return RunFolder(path)


def input_content(data: Checked, supervision: Checked | None = None) -> dict[str, Columns]:
    """What a training reads of data folders that have been read through: the log, or without one the judgments of the training split."""
    read = ["catalogue", "users", "log" if "log" in data.content else TRAINING_JUDGMENTS]
    found = {name: data.content[name] for name in read if name in data.content}
    if supervision is not None:
        found["supervision"] = supervision.content.get(TRAINING_JUDGMENTS, {})
    return found
