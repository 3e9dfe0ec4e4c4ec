"""The errors that a user can act on; the command prints their message alone, without a traceback."""


class TfebrError(Exception):
    """Something the user gave, or the machine, stands in the way; the message says what, where and what to do."""

    # ValueError's would do, but AutoGraph keeps the type of an error raised in a graph only if it knows the constructor.
    __init__ = Exception.__init__


class DataError(TfebrError, ValueError):
    """A catalogue, log, judgment or shard does not keep its contract; the message names file, row or field."""


class ConfigError(TfebrError, ValueError):
    """A setting is unknown or impossible; the message names the field and what is allowed."""


class ArtifactError(TfebrError):
    """A run folder or servable folder is incomplete, foreign or damaged."""


class RequestError(TfebrError, ValueError):
    """A request to a server is not answerable; the message names the field."""
