"""From frames to a model that is ready to be trained: a data folder, a run folder, and the model over both."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from tfebr.data.frames import write_frames
from tfebr.data.log import split_time
from tfebr.errors import ConfigError, TfebrError
from tfebr.infrastructure.files import remove
from tfebr.models.retrieval_model import RetrievalModel
from tfebr.models.run_folder import prepare_run
from tfebr.models.zoo import name_of

Model = TypeVar("Model", bound=RetrievalModel)


def model_from_data(
    kind: type[Model],
    catalogue: Any,
    log: Any,
    config: Any,
    users: Any,
    folder: str | os.PathLike | None,
    test_share: float,
    quiet: bool,
) -> Model:
    """See `RetrievalModel.from_data`."""
    config = kind.Config() if config is None else config
    if not isinstance(config, kind.Config):
        raise ConfigError(f"`config` must be a {kind.Config.__name__}. Received: {type(config).__name__}.")
    name = name_of(kind)
    if folder is None:
        folder = tempfile.mkdtemp(prefix="tfebr-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    elif Path(folder).exists() and any(Path(folder).iterdir()):
        raise ConfigError(f"`folder` must be a new or an empty folder. Received: {folder}.")
    new = not Path(folder).exists()
    try:
        data = write_frames(Path(folder) / "data", catalogue, log, users)
        split = split_time(data.log(), test_share) if data.has_log and test_share else None
        run = prepare_run(Path(folder) / "run", name, config, data, split, quiet=quiet)
    except TfebrError:
        # Free for the data when it is mended.
        for made in ("data", "run"):
            remove(Path(folder) / made)
        if new and Path(folder).exists():
            Path(folder).rmdir()
        raise
    return run.new_model()  # type: ignore[return-value]
