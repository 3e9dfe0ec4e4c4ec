"""The picture of an index report, by what is drawn."""

import dataclasses
import json

import matplotlib.figure
import numpy as np
import pytest
from matplotlib.image import imread

from tfebr.errors import TfebrError
from tfebr.index.index_report import IndexReport, RecallPoint
from tfebr.index.recall_picture import draw_report
from tfebr.index.recipe import Recipe


def _points(*settings, vectors="float32"):
    return tuple(RecallPoint(leaves, reorder, vectors, recall, latency, 25.0) for leaves, reorder, recall, latency in settings)


IVF = IndexReport(
    recipe=Recipe("ivf", leaves=4000, leaves_to_search=40),
    items=1_000_000, dim=64, heads=4, queries=500, k=100, target=0.95, recall=0.97, latency_ms=1.5, memory_mb=253.0,
    curve=_points((40, 300, 0.97, 1.5), (3, 300, 0.8, 0.8), (10, 300, 0.9, 1.0), (20, 300, 0.94, 1.2)),
    reason="Why.", fallback="", build_seconds=10.0,
)  # fmt: skip
TREE = dataclasses.replace(
    IVF,
    recipe=Recipe("tree", leaves=1000, leaves_to_search=150, reorder=450),
    curve=_points((100, 300, 0.9, 1), (150, 300, 0.91, 1), (100, 450, 0.93, 1), (150, 450, 0.97, 1.5), (38, 450, 0.8, 1)),
)
HASH = dataclasses.replace(IVF, recipe=Recipe("hash", reorder=450), curve=_points((0, 300, 0.9, 1), (0, 450, 0.97, 1.5)))
EXACT = dataclasses.replace(IVF, recipe=Recipe("exact"), recall=1.0, curve=_points((0, 300, 1.0, 1.5)))
FALLBACK = dataclasses.replace(EXACT, curve=_points((40, 300, 0.5, 1), (60, 300, 0.6, 2), (0, 300, 1.0, 1.5)), fallback="Too little.")
INT8 = dataclasses.replace(
    IVF, curve=(*_points((40, 300, 0.9, 1.0), (60, 300, 0.91, 1.0), vectors="int8"), *_points((40, 300, 0.97, 1.5), (3, 300, 0.8, 1)))
)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws into a file and gives the figure."""
    figures = []
    real = matplotlib.figure.Figure.savefig

    def savefig(self, *args, **more):
        figures.append(self)
        real(self, *args, **more)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)

    def draw(report):
        assert draw_report(report, tmp_path / "recall.png") == tmp_path / "recall.png"
        return figures[-1].axes

    return draw


def _curve(axes):
    return [tuple(point) for line in axes.lines if line.get_linestyle() == "-" and line.get_marker() == "o" for point in line.get_xydata()]


@pytest.mark.parametrize(
    ("report", "recalls", "label"),
    [
        (IVF, [(3, 0.8), (10, 0.9), (20, 0.94), (40, 0.97)], "leaves searched for a query, of 4,000"),
        (TREE, [(38, 0.8), (100, 0.93), (150, 0.97)], "leaves searched for a query, of 1,000"),
        (HASH, [(300, 0.9), (450, 0.97)], "candidates reordered for a query"),
        (INT8, [(3, 0.8), (40, 0.97)], "leaves searched for a query, of 4,000"),
        (FALLBACK, [(40, 0.5), (60, 0.6)], "leaves searched for a query"),
        (EXACT, [], "every item is scored"),
    ],
    ids=["ivf", "tree", "hash", "int8", "fallback", "exact"],
)
def test_recall_and_latency_of_the_settings_that_differ_in_one_thing(drawn, report, recalls, label):
    for given in (report, json.loads(json.dumps(report.as_dict()))):
        left, right = drawn(given)
        assert _curve(left) == recalls
        assert [x for x, _ in _curve(right)] == [x for x, _ in recalls]
        assert left.get_xlabel() == right.get_xlabel() == label
        assert "recall@100" in left.get_ylabel()
        assert any(np.allclose(line.get_ydata(), report.target) for line in left.lines), "no line at the target"
        word = "exact search" if report.recipe.kind == "exact" else "chosen"
        assert f"{word}: {report.recall:.4f}" in [text.get_text() for text in left.texts]
        assert f"{word}: 1.50 ms" in [text.get_text() for text in right.texts]


def test_the_chosen_point_is_on_the_curve(drawn):
    for axes, value in zip(drawn(TREE), (0.97, 1.5), strict=True):
        assert (150, value) in _curve(axes)
        assert [tuple(line.get_xydata()[0]) for line in axes.lines if len(line.get_xydata()) == 1] == [(150, value)]


def test_the_picture_has_its_size_and_nothing_else_remains(tmp_path):
    draw_report(IVF, tmp_path / "deep" / "recall.png")
    assert imread(tmp_path / "deep" / "recall.png").shape[:2] == (630, 1500)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["recall.png"]
    draw_report(IVF, tmp_path / "recall.svg")
    assert "<svg" in (tmp_path / "recall.svg").read_text()


def test_what_was_there_stays_when_the_picture_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / "recall.png"
    path.write_text("old")

    def full(self, *_, **__):
        raise OSError(28, "no space")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", full)
    with pytest.raises(TfebrError, match="not written"):
        draw_report(IVF, path)
    assert path.read_text() == "old"
