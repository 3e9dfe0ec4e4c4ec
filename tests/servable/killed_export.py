"""`python killed_export.py BASE TEMPLATE` exports version 2 into BASE again and again, killed at every writing operation in turn.

It prints how many exports were killed before one got to the end. The process that exports is forked off where `write` begins to
write, so that none of them has to load TensorFlow. The saved graph itself is copied from TEMPLATE, file by file: a forked process has no
TensorFlow threads to save it with.
"""

import importlib
import os
import shutil
import signal
import sys
from pathlib import Path

import tfebr  # noqa: F401  selects Keras 2

# The room's public function has the name of its module, which an import gives only sometimes.
writing = importlib.import_module("tfebr.servable.write")

_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.copyfile", "shutil.rmtree")


def main(base, template):
    from toy_servable import QUESTIONS, toy_servable

    real, published = writing.atomic_folder, Path(base, "2")

    def save(servable, functions, folder, target, shard_set):
        for path in sorted(Path(template).rglob("*")):
            here = folder / path.relative_to(template)
            here.mkdir() if path.is_dir() else shutil.copyfile(path, here)

    class ForkHere:
        """In the child, `atomic_folder` as it is; the parent ends when a child got as far as publishing."""

        def __init__(self, *arguments, **settings):
            self.real = real(*arguments, **settings)

        def __enter__(self):
            for point in range(1000):
                child = os.fork()
                if not child:
                    _die_at(point, base)
                    return self.real.__enter__()
                os.waitpid(child, 0)
                if published.exists():
                    print(point, flush=True)
                    os._exit(0)
            os._exit(1)

        def __exit__(self, *error):
            self.real.__exit__(*error)
            os._exit(0)

    writing.atomic_folder, writing._save = ForkHere, save
    writing._check_in_fresh_process = lambda folder: {}
    writing.write(toy_servable(), base, {"model": "toy"}, QUESTIONS[:1])


def _die_at(point, base):
    """Kills this process at its file operation number `point` below `base`."""
    seen = 0

    def hook(event, arguments):
        nonlocal seen
        reads = event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if event in _EVENTS and not reads and str(arguments[0]).startswith(base):
            if seen == point:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(hook)


if __name__ == "__main__":
    main(*sys.argv[1:3])
