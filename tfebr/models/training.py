"""The training loop: epochs over the shards, checkpoints, and resuming in the middle of an epoch."""

import sys
import time

import tensorflow as tf

from tfebr.data.batches import steps_of, training_batches
from tfebr.disk import tensorflow_disk_errors
from tfebr.errors import DataError, TfebrError
from tfebr.literal_paths import literal
from tfebr.models.devices import describe_devices
from tfebr.models.retrieval_model import RetrievalModel
from tfebr.models.run_folder import RunFolder
from tfebr.progress import progress

_CHECKPOINT_SECONDS = 60.0


def fit(run: RunFolder, quiet: bool = False, checkpoint_seconds: float = _CHECKPOINT_SECONDS) -> RetrievalModel:
    """Trains to the end of the config's epochs, from the latest checkpoint when there is one. Returns the trained model.

    The order of examples and the negatives depend on the seed and the step alone, so a killed run goes on to the same result.

    Raises:
        TfebrError: the loss is not finite (naming the step), or a checkpoint cannot be written.
        ArtifactError: the latest checkpoint is damaged.
        DataError: a shard cannot be read.
    """
    model = run.new_model()
    model.optimizer.build(model.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    run.checkpoints.mkdir(exist_ok=True)
    # The manager deletes old checkpoints by matching their names.
    with literal(run.checkpoints) as folder:
        manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=2)
        run.restore(checkpoint)
        _train(run, model, manager, quiet, checkpoint_seconds)
    return model


def _train(run: RunFolder, model: RetrievalModel, manager: tf.train.CheckpointManager, quiet: bool, checkpoint_seconds: float) -> None:
    settings, shards, supervision = run.config.training, run.shards("train"), run.supervision()
    train_step = tf.function(model.train_step, reduce_retracing=True)
    steps = steps_of(shards, settings.batch_size)
    done, total = int(model.optimizer.iterations), steps * settings.epochs
    last_saved = time.monotonic()
    share, propensities = settings.supervision_share, run.propensities()
    batches = training_batches(
        shards, run.featurizer, settings.batch_size, settings.seed, settings.epochs, done, supervision, share, propensities
    )
    if not quiet:
        print(f"training on {describe_devices()}", file=sys.stderr, flush=True)
    with progress(f"training {run.model_name}", total * settings.batch_size, "examples", quiet) as advance:
        advance(done * settings.batch_size)
        try:
            for step, batch in enumerate(batches, done + 1):
                batch.pop("request_id")
                loss = train_step(batch)["loss"]
                end_of_epoch = step % steps == 0
                if step % 20 == 0 or end_of_epoch:
                    _check_finite(loss, step)
                    advance((step - done) * settings.batch_size, f"epoch {-(-step // steps)}/{settings.epochs} loss {float(loss):.4f}")
                    done = step
                    if end_of_epoch or time.monotonic() - last_saved > checkpoint_seconds:
                        _save(manager, run)
                        last_saved = time.monotonic()
        except tf.errors.DataLossError as error:
            raise DataError(f"{shards.folder}: a shard is damaged: {error.message}. Remove the folder and run again.") from error
        if done != total:
            raise DataError(f"{shards.folder}: gave {done} batches where {total} were expected. Remove the folder and run again.")


def _save(manager: tf.train.CheckpointManager, run: RunFolder) -> None:
    with tensorflow_disk_errors(run.checkpoints):
        manager.save()


def _check_finite(loss: tf.Tensor, step: int) -> None:
    if not bool(tf.math.is_finite(loss)):
        raise TfebrError(f"the loss is {float(loss)} at step {step}. Lower training.learning_rate and train again.")
