"""The demonstration from end to end, in the smallest shop, as the command that a user types."""

import json
import os
import re
import subprocess
import sys

from native_lines import NATIVE_LOG


def test_the_demonstration_ends_with_readable_results(tmp_path):
    out = tmp_path / "demo"
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-m", "tfebr.cli", "demo", str(out), "--preset", "tiny"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    # Simulated, trained, measured and exported without a line of the C++ libraries' own logs, and training says on what.
    assert not NATIVE_LOG.findall(ended.stderr)
    devices = re.findall(r"^training on (?:CPU \(\d+ cores?, \d+ threads?\)|GPU \(\d x .+\))", ended.stderr, re.MULTILINE)
    assert len(devices) == 3, ended.stderr
    printed = ended.stdout
    for system in ("dpsr", "mgdspr", "mmse", "bm25"):
        assert system in printed
    assert (out / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert str(out / "comparison.png") in printed
    means = {model: json.loads((out / model / "metrics.json").read_text())["test"][model]["means"] for model in ("dpsr", "mgdspr", "mmse")}
    best = max(means, key=lambda model: means[model]["ordered_recall@100"])
    pairs = [(model, "bm25") for model in means] + [(best, model) for model in means if model != best]
    assert all(f"{system} - {other}, ordered_recall@100: " in printed for system, other in pairs)
    assert [path.name for path in out.glob("*/servable/*")] == [best]
    assert (out / best / "servable" / best / "1" / "saved_model.pb").is_file()
    assert "price=..50" in printed
    assert f"next: tfebr serve {out / best}" in "".join(printed.split("\n")).replace("  ", " ")
