"""What all models share: two towers, the item table they gather from, and embedding in bulk."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfebr.data.batches import Batch
from tfebr.data.features import FeatureSpec, Featurizer
from tfebr.data.item_table import ItemTable
from tfebr.data.names import column_key
from tfebr.errors import ConfigError
from tfebr.models.seeds import drawn_from

if TYPE_CHECKING:
    from typing_extensions import Self

    from tfebr.models.recommend import Recommendations, Recommender
    from tfebr.models.run_folder import RunFolder


def join_history(batch: Batch, columns: dict[str, tf.Tensor]) -> Batch:
    """Adds `history_KEY` [batch, history] for the given item table columns, gathered by `history_items`."""
    return batch | {f"history_{name}": tf.gather(ids, batch["history_items"]) for name, ids in columns.items()}


class RetrievalModel(tfrs.Model):
    """A query tower and an item tower over one item table.

    A subclass names its `Config`, sets `query_tower` (feature dict -> float32 [batch, heads, dim]) and `item_tower` (feature dict ->
    float32 [items, dim]), whose layers compute in the config's `training.precision`, and defines `compute_loss`. It gets item rows from
    batches and gathers everything else from the table.

    Args:
        featurizer: the featurizer that made the table.
        table: the item table.

    Attributes:
        reads_events: the query tower reads the stages and ages of a history's events, not their items alone.
        reads_item_ids: the item tower has a vector for each item's id.
        run: the folder of the model's data, for `fit` and `recommend`; None for one that was made of parts.
    """

    Config: type
    config: Any
    reads_events = False
    reads_item_ids = False
    run: "RunFolder | None" = None
    query_tower: tf.keras.Model
    item_tower: tf.keras.Model

    def __init__(self, featurizer: Featurizer, table: ItemTable):
        super().__init__()
        self.items = len(table)
        self.spec: FeatureSpec = featurizer.spec
        # Wrapped, so that Keras neither tracks nor checkpoints the table: it is data, and lies beside the checkpoint already.
        columns = table.tensors()
        self._columns = lambda: columns
        graphs: dict[str, Any] = {}
        self._graphs = lambda: graphs
        self._recommender: Recommender | None = None

    def build_towers(self, seed: int) -> None:
        """Creates all variables, their first values drawn from the seed, by embedding nothing."""
        spec = self.spec
        batch = {f"query_{g}": tf.zeros([0, n], tf.int32) for g, n in zip(spec.grains, spec.query_lengths, strict=True)}
        lengths = zip(spec.grains, spec.query_lengths, strict=True)
        batch |= {f"history_query_{g}": tf.zeros([0, spec.history_queries, n], tf.int32) for g, n in lengths}
        batch |= {name: tf.zeros([0, spec.history_items], tf.int32) for name in ("history_items", "history_stages", "history_ages")}
        batch |= {f"user_{column_key(c)}": tf.zeros([0], tf.int32) for c in spec.user_columns or ()}
        with drawn_from(seed):
            self.embed_queries(batch)
            self.embed_items(tf.zeros([0], tf.int32))

    def step_seed(self) -> tf.Tensor:
        """int64 [2]: the config's seed and the step. What else is random in training comes from here, so that a resumed run draws alike."""
        return tf.stack([tf.constant(self.config.training.seed, tf.int64), tf.cast(self.optimizer.iterations, tf.int64)])

    def history_columns(self) -> dict[str, tf.Tensor]:
        """The item table's columns that histories are read through, by their keys."""
        return {key: self._columns()[key] for key in map(column_key, self.spec.item_columns or ())}

    @classmethod
    def from_data(
        cls,
        catalogue: Any,
        log: Any,
        config: Any = None,
        *,
        users: Any = None,
        folder: str | os.PathLike | None = None,
        test_share: float = 0.1,
        quiet: bool = False,
    ) -> "Self":
        """A compiled model, not yet trained, from frames of pandas or polars, Arrow tables, dicts of columns or tf.data.Datasets.

        ```
        model = DPSR.from_data(items, clicks, DPSRConfig(heads=2))
        model.fit(epochs=3)
        print(model.recommend("red dress"))
        ```

        Args:
            catalogue, log, users: see `tfebr.data.write_frames`.
            config: an instance of `cls.Config`; its defaults when None.
            folder: a new folder for data and run, with which `tfebr evaluate FOLDER/run` and `tfebr export FOLDER/run` go on. By default a
                temporary one, for as long as the process lives.
            test_share: the last part of the log that is held out; 0 holds nothing out. Judgments have their own splits.

        Raises:
            ConfigError: the config is another model's, or a folder has content.
            DataError: naming the table, row and column that is refused.
        """
        from tfebr.models.from_data import model_from_data

        return model_from_data(cls, catalogue, log, config, users, folder, test_share, quiet)

    def compile(self, optimizer: Any = None, **kwargs: Any) -> None:
        """As Keras has it; the optimizer is by default that of the config: AdaGrad, with its learning rate and clipping."""
        super().compile(self.config.training.new_optimizer() if optimizer is None else optimizer, **kwargs)

    def fit(self, x: Any = None, *args: Any, epochs: int | None = None, **kwargs: Any) -> tf.keras.callbacks.History:
        """As Keras has it; without a dataset it trains on the training part of the model's data.

        Calls go on where the one before ended. Without a dataset the state is kept in the run folder at the end.

        Args:
            x: batches as `training_batches` of the run gives them; those of the run by default.
            epochs: passes over the data; by default the config's.
            *args, **kwargs: Keras's other arguments, such as `callbacks` and `validation_data` (`model.run.validation_batches()`).
        """
        epochs = self.config.training.epochs if epochs is None else epochs
        self._recommender = None
        if x is not None:
            return super().fit(x, *args, epochs=epochs, **kwargs)
        run = self._needs_run()
        steps, done = run.steps(), int(self.optimizer.iterations)
        kwargs["steps_per_epoch"] = steps
        history = super().fit(run.training_batches(-(-done // steps) + epochs, done), *args, epochs=epochs, **kwargs)
        run.save(self)
        return history

    def recommend(
        self,
        query: str,
        k: int = 10,
        *,
        user: Mapping[str, str] | None = None,
        history: Sequence[str] = (),
        history_queries: Sequence[str] = (),
    ) -> "Recommendations":
        """The best items for a query, by exact search over the model's own catalogue.

        Args:
            query: what is searched for.
            k: how many.
            user: profile columns of whom it is for.
            history: ids of the items clicked before, newest first.
            history_queries: what was searched for before, newest first.

        Raises:
            ConfigError: the model has no data, or `k` is not positive.
            RequestError: a profile column is unknown.
        """
        from tfebr.models.recommend import Recommender

        if self._recommender is None:
            self._recommender = Recommender(self, self._needs_run())
        return self._recommender(query, k, user or {}, history, history_queries)

    def _needs_run(self) -> "RunFolder":
        if self.run is None:
            raise ConfigError(
                f"{type(self).__name__}: has no data of its own. Make it with `from_data`, or load it with `tfebr.load(RUN)`."
            )
        return self.run

    def embed_queries(self, batch: Batch, training: bool = False, seed: tf.Tensor | None = None) -> tf.Tensor:
        """A batch of ids -> float [batch, heads, dim]; `seed`, int [2], is for towers that draw at random when training."""
        drawn = {} if seed is None else {"seed": seed}
        return self.query_tower(join_history(batch, self.history_columns()), training=training, **drawn)

    def embed_items(self, rows: tf.Tensor, training: bool = False) -> tf.Tensor:
        """int32 [n] item rows (from 1) -> float [n, dim]. The tower reads the table's columns and the row itself, as `item`."""
        return self.item_tower({"item": rows} | {n: tf.gather(ids, rows) for n, ids in self._columns().items()}, training=training)

    def corpus_embeddings(self, block: int = 4096) -> np.ndarray:
        """Embeds every item once: float32 [items, dim], in catalogue order."""
        embed = self._graph("embed_items", input_signature=[tf.TensorSpec([None], tf.int32)])
        found: np.ndarray | None = None
        for start in range(1, self.items + 1, block):
            values = embed(tf.range(start, min(start + block, self.items + 1))).numpy()
            if found is None:
                found = np.empty([self.items, values.shape[1]], np.float32)
            found[start - 1 : start - 1 + len(values)] = values
        assert found is not None
        return found

    def query_embeddings(self, batches: tf.data.Dataset) -> Iterator[tuple[list[str], np.ndarray]]:
        """Yields (request ids, float32 [batch, heads, dim]) for each batch."""
        embed = self._graph("embed_queries", reduce_retracing=True)
        for batch in batches:
            ids = [i.decode() for i in batch.pop("request_id").numpy()]
            yield ids, embed(batch).numpy()

    def _graph(self, method: str, **options: Any) -> Any:
        """`tf.function` of a method, the same in every call: tracing takes longer than embedding a small catalogue."""
        graphs = self._graphs()
        if method not in graphs:
            graphs[method] = tf.function(getattr(self, method), **options)
        return graphs[method]
