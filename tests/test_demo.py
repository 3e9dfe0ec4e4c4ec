"""The demonstration from end to end, in the smallest shop."""

import json

from tfebr import demo


def test_the_demonstration_ends_with_readable_results(tmp_path, capsys):
    out = tmp_path / "demo"
    demo.run(out, "tiny")
    printed = capsys.readouterr().out
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
