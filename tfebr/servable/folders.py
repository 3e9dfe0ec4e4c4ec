"""Where servables lie, RUN/servable/NAME/VERSION, and what NAME can be."""

import os
import re
from pathlib import Path

from tfebr.errors import ArtifactError, ConfigError

# Of a folder's name, less what is put around it while a version is written.
_LONGEST_NAME = 200


def check_name(name: str) -> str:
    """The name of a servable: a folder, a part of addresses and a word in shells and configuration, so that it has to fit all of these.

    Raises:
        ConfigError: it does not.
    """
    if not re.fullmatch(r"\w[\w.-]*", name) or len(name.encode()) > _LONGEST_NAME:
        raise ConfigError(
            "`name` must be made of letters, digits, `_`, `-` and `.`, begin with a letter, a digit or `_`, and be at most "
            f"{_LONGEST_NAME} bytes long. Received: `name` = {name[:60]!r}."
        )
    return name


def only_servable(folder: str | os.PathLike, purpose: str, name: str | None = None) -> Path:
    """The folder of a run folder's only servable; any other folder is itself.

    Args:
        purpose: what it is wanted for, for the message.
        name: which servable of the run folder.

    Raises:
        ArtifactError: a run folder has no servable, or several and none is named, or not that one.
        ConfigError: no servable can have that name.
    """
    if name is not None:
        check_name(name)
    below = Path(folder, "servable")
    if not below.is_dir():
        return Path(folder)
    if name is not None:
        if not (below / name).is_dir():
            raise ArtifactError(f"{below}: holds no servable `{name}`. There are: {', '.join(_names(below)) or 'none'}.")
        return below / name
    names = _names(below)
    if len(names) != 1:
        listed = ", ".join(str(below / name) for name in names) or "none; export first"
        raise ArtifactError(f"{folder}: a run folder, but not with one servable: name the one to {purpose}. Found: {listed}.")
    return below / names[0]


def _names(below: Path) -> list[str]:
    return sorted(path.name for path in below.iterdir() if path.is_dir() and not path.name.startswith("."))
