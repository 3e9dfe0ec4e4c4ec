"""The training loop: epochs over the shards, checkpoints, and resuming in the middle of an epoch."""

import math
import sys
import time
from collections.abc import Callable, Mapping

import tensorflow as tf

from tfebr.errors import DataError, TfebrError
from tfebr.infrastructure.disk import tensorflow_disk_errors
from tfebr.infrastructure.messages import first_line
from tfebr.infrastructure.progress import progress
from tfebr.models.devices import describe_devices
from tfebr.models.retrieval_model import RetrievalModel
from tfebr.models.run_folder import RunFolder

_CHECKPOINT_SECONDS = 60.0
_SHOWN_EVERY = 20


def fit(run: RunFolder, quiet: bool = False, checkpoint_seconds: float = _CHECKPOINT_SECONDS) -> RetrievalModel:
    """Trains to the end of the config's epochs, from the latest checkpoint when there is one. Returns the trained model.

    The order of examples and the negatives depend on the seed and the step alone, so a killed run goes on to the same result.

    Raises:
        TfebrError: the loss is not finite (naming the step), or a checkpoint cannot be written.
        ArtifactError: the latest checkpoint is damaged.
        DataError: a shard cannot be read.
    """
    model = run.new_model()
    with run.checkpoint_manager(model) as manager:
        run.restore(manager.checkpoint)
        _train(run, model, manager, quiet, checkpoint_seconds)
    return model


def _train(run: RunFolder, model: RetrievalModel, manager: tf.train.CheckpointManager, quiet: bool, checkpoint_seconds: float) -> None:
    settings, folder, steps = run.config.training, run.shards("train").folder, run.steps()
    done, total = int(model.optimizer.iterations), steps * settings.epochs
    if not quiet:
        print(f"training on {describe_devices()}", file=sys.stderr, flush=True)
    with progress(f"training {run.model_name}", total * settings.batch_size, "examples", quiet) as advance:
        advance(done * settings.batch_size)
        if done == total:
            return
        watch = _Watch(run, manager, advance, done, steps, checkpoint_seconds)
        callbacks = tf.keras.callbacks.CallbackList([watch], add_history=True, model=model, verbose=0, epochs=1, steps=total - done)
        # Keras would warn where a checkpoint takes longer than a step.
        callbacks._check_timing = False
        try:
            # One pass over what is left of all epochs: a resumed run begins in the middle of one.
            model.fit(run.training_batches(settings.epochs, done), epochs=1, steps_per_epoch=total - done, verbose=0, callbacks=callbacks)
        except tf.errors.DataLossError as error:
            raise DataError(f"{folder}: a shard is damaged: {first_line(error)}. Remove the folder and run again.") from error
        if watch.done != total:
            raise DataError(f"{folder}: gave {watch.done} batches where {total} were expected. Remove the folder and run again.")


class _Watch(tf.keras.callbacks.Callback):
    """Progress, checkpoints, and an end to a training that has gone wrong.

    Attributes:
        done: steps of the whole run.
    """

    # A loss is read when it is shown, not after every step.
    _supports_tf_logs = True

    def __init__(
        self,
        run: RunFolder,
        manager: tf.train.CheckpointManager,
        advance: Callable[..., None],
        done: int,
        steps: int,
        checkpoint_seconds: float,
    ):
        super().__init__()
        self._run, self._manager, self._advance = run, manager, advance
        self.done, self._shown, self._steps = done, done, steps
        self._checkpoint_seconds, self._last_saved = checkpoint_seconds, time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, tf.Tensor] | None = None) -> None:
        self.done += 1
        end_of_epoch = self.done % self._steps == 0
        if not (self.done % _SHOWN_EVERY == 0 or end_of_epoch):
            return
        loss, settings = float((logs or {})["loss"]), self._run.config.training
        if not math.isfinite(loss):
            raise TfebrError(f"the loss is {loss} at step {self.done}. Lower training.learning_rate and train again.")
        epoch = -(-self.done // self._steps)
        self._advance((self.done - self._shown) * settings.batch_size, f"epoch {epoch}/{settings.epochs} loss {loss:.4f}")
        self._shown = self.done
        if end_of_epoch or time.monotonic() - self._last_saved > self._checkpoint_seconds:
            with tensorflow_disk_errors(self._run.checkpoints):
                self._manager.save()
            self._last_saved = time.monotonic()
