"""`python -m benchmarks [NAME ...]` runs all or the named benchmarks and writes their results; `--list` says what there is."""

import argparse
import ast
import importlib
import inspect
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from tfebr.infrastructure.files import write_json

FOLDER = Path(__file__).parent
NAMES = (
    "simulator_speed",
    "training_speed",
    "step_time",
    "gradient_norms",
    "serving_latency",
    "filtered_search",
    "serving_load",
    "serving_stress",
    "refresh",
    "quality",
    "ablation",
    "stages",
    "noise",
    "relevance_control",
    "history_limit",
    "homedepot",
    "bestbuy",
    "behaviour",
    "trivago",
)


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmarks of a command line; returns the exit code."""
    listing = "\n".join(f"  {name:<16} {summary(name)}" for name in NAMES)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=f"{__doc__}\n\n{listing}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="all when none is given")
    parser.add_argument("--list", action="store_true", help="say what there is and end")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs; results are not comparable")
    parser.add_argument("--out", type=Path, help="folder for results; benchmarks/results by default, and with --quick none")
    parser.add_argument("--data", type=Path, default=FOLDER.parents[1] / "shared" / "data", help="public data sets, a folder for each")
    parser.add_argument("--resume", type=Path, help="folder of finished trainings (ablation, stages, noise), to go on after a kill")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}. There are:\n{listing}")
    if chosen.list:
        print(listing)
        return 0
    out = chosen.out or (None if chosen.quick else FOLDER / "results")
    for name in chosen.names or NAMES:
        _run(name, {"quick": chosen.quick, "data": chosen.data, "resume": chosen.resume}, out)
    return 0


def summary(name: str) -> str:
    """The first line of a benchmark's docstring, without importing it."""
    docstring = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return docstring.splitlines()[0]


def _run(name: str, options: dict[str, Any], out: Path | None) -> None:
    from benchmarks.measure import machine

    for library in ("tensorflow", "bm25s"):
        logging.getLogger(library).setLevel(logging.ERROR)
    print(f"== {name}: {summary(name)}", flush=True)
    began = time.perf_counter()
    module = importlib.import_module(f"benchmarks.{name}")
    results = module.run(**{option: options[option] for option in inspect.signature(module.run).parameters})
    results |= {"seconds": round(time.perf_counter() - began, 1), "machine": machine()}
    if out is not None:
        write_json(out / f"{name}.json", results)
        if hasattr(module, "draw"):
            module.draw(results, out / f"{name}.png")
        print(f"wrote {out / name}.json after {results['seconds']} s", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
