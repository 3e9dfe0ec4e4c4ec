"""A catalogue published in shards: `servable/NAME-shard-I/VERSION` for each part, all of one set under one number."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from tfebr.errors import ArtifactError
from tfebr.infrastructure.files import sync
from tfebr.servable.version_folders import next_version


def shard_names(name: str, shards: int) -> list[str]:
    """What the servables of a name are called; one shard has the name itself."""
    return [name] if shards == 1 else [f"{name}-shard-{number}" for number in range(shards)]


def shards_of(servables: Path, name: str) -> int:
    """How many shards a name was published in; 0 where there is none, though a publication may have been killed before it began to show."""
    shard = re.compile(re.escape(f"{name}-shard-") + "[0-9]+")
    there = [path for path in servables.iterdir() if shard.fullmatch(path.name)] if servables.is_dir() else []
    return len(there) if any(next_version(path) > 1 for path in there) else 0


def set_of(**published: Any) -> str:
    """The name of a published set: what all of its shards say, and no shard of other weights, another catalogue or another index does.

    Args:
        published: what decides the answers of the set as a whole; plain JSON values.
    """
    return hashlib.sha256(json.dumps(published, sort_keys=True).encode()).hexdigest()[:32]


def publish_together(ready: list[Path], servables: Path) -> list[Path]:
    """Moves every shard's checked folder to the same next version number; all of them or none.

    Between the first rename and the last, a kill leaves a set of which some shards are there. Servers that watch their own shard load it,
    but no client merges answers of two sets, `versions` names what is missing, and the next publication has a number beyond it.

    Args:
        ready: `ANYWHERE/NAME-shard-I/VERSION` of each shard, on the file system of `servables`.

    Returns:
        The folders where they are now.

    Raises:
        ArtifactError: one cannot be moved; the others are as before.
    """
    places = [servables / folder.parent.name for folder in ready]
    for place in places:
        place.mkdir(exist_ok=True)
    number = str(max(map(next_version, places)))
    moved: list[Path] = []
    try:
        for folder, place in zip(ready, places, strict=True):
            os.rename(folder, place / number)
            moved.append(place / number)
    except OSError as error:
        for folder in moved:
            shutil.rmtree(folder)
        raise ArtifactError(f"{place / number}: not published, nor is any other shard: {error.strerror}. Export again.") from error
    for place in places:
        sync(place)
    return moved
