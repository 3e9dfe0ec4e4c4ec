"""tfebr: embedding-based retrieval for e-commerce, from a shop's search log to one servable folder."""

from tfebr import _stack

_stack.check_scann()
_stack.select_keras_2()

__version__ = _stack.version_of("tfebr")
versions = _stack.versions


def load(folder):
    """The trained model of a run folder, ready for `recommend`.

    Args:
        folder: a path, as `tfebr train` or `from_data(..., folder=...)` wrote it.

    Raises:
        ArtifactError: it is no run folder, or its checkpoint is damaged or missing.
    """
    from tfebr.models.run_folder import RunFolder

    return RunFolder(folder).trained_model()
