"""The picture of a comparison: what it draws is what the reports say, and it is written whole or not at all."""

import sys

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from tfebr.errors import ConfigError
from tfebr.evaluation.picture import draw_comparison
from tfebr.evaluation.report import BANDS, Report


def report(seed: int, n: int = 60, k: int = 100) -> Report:
    random = np.random.default_rng(seed)
    ordered = np.where(np.arange(n) % 7 < 4, random.random(n), np.nan)
    metrics = {f"clicked_recall@{k}": random.random(n), f"ordered_recall@{k}": ordered}
    return Report([f"r{i}" for i in range(n)], metrics, list(np.resize(BANDS, n)))


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written, to look into."""
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: figures.append(figure) or save(figure, *args, **kwargs))
    return figures


@pytest.mark.parametrize("k", [10, 100])
def test_bars_and_intervals_are_those_of_the_reports(tmp_path, drawn, k):
    reports = {name: report(seed, k=k) for seed, name in enumerate(["mgdspr", "mmse", "bm25"])}
    draw_comparison(reports, tmp_path / "picture.png", "a title", k)
    assert matplotlib.image.imread(tmp_path / "picture.png").shape[2] == 4
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]
    (figure,) = drawn
    assert figure._suptitle.get_text() == "a title"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(reports)
    for axes, metric in zip(figure.axes, (f"ordered_recall@{k}", f"clicked_recall@{k}"), strict=True):
        bars = [c for c in axes.containers if isinstance(c, BarContainer)]
        whiskers = [c for c in axes.containers if not isinstance(c, BarContainer)]
        for of, interval, one in zip(bars, whiskers, reports.values(), strict=True):
            groups = [one.values(metric + suffix) for suffix in ("", "/head", "/torso", "/tail")]
            groups = [values[~np.isnan(values)] for values in groups]
            assert np.allclose([bar.get_height() for bar in of], [values.mean() for values in groups])
            reach = [np.ptp(segment[:, 1]) / 2 for segment in interval.lines[2][0].get_segments()]
            assert np.allclose(reach, [1.96 * np.sqrt(values.var(ddof=1) / len(values)) for values in groups])
        counts = [label.get_text().split("\n")[1] for label in axes.get_xticklabels()]
        assert counts == [f"{len(values)} requests" for values in groups]
    assert len({of[0].get_facecolor() for of in bars}) == 3


def test_a_band_with_one_order_or_none_is_drawn(tmp_path, drawn):
    one = report(0, n=6)
    one.metrics["ordered_recall@100"][:] = [1, np.nan, np.nan, np.nan, 0.5, np.nan]
    draw_comparison({"dpsr": one}, tmp_path / "picture.png", "")
    heights = [bar.get_height() for bar in drawn[0].axes[0].containers[0]]
    assert np.array_equal(heights, [0.75, 1.0, 0.5, np.nan], equal_nan=True)


def test_intervals_stay_within_what_recall_can_be(tmp_path, drawn):
    sure = report(0, n=9)
    sure.metrics["clicked_recall@100"][:] = [1] * 8 + [0]
    draw_comparison({"dpsr": sure}, tmp_path / "picture.png", "")
    segments = drawn[0].axes[1].containers[1].lines[2][0].get_segments()
    assert segments[0][:, 1].max() == 1.0
    assert segments[0][:, 1].min() < 8 / 9


def test_nobody_elses_backend_is_changed(tmp_path):
    before = matplotlib.rcParams["backend"], "matplotlib.pyplot" in sys.modules
    draw_comparison({"dpsr": report(0)}, tmp_path / "picture.png", "")
    assert (matplotlib.rcParams["backend"], "matplotlib.pyplot" in sys.modules) == before


def test_a_failure_leaves_the_picture_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.write_bytes(b"before")

    def half(figure, file, **kwargs):
        file.write_bytes(b"half a picture")
        raise RuntimeError("no memory")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(RuntimeError, match="no memory"):
        draw_comparison({"dpsr": report(0)}, path, "")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("picture.png", b"before")]


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ({}, "no report to draw"),
        ({"dpsr": Report(["q"], {"recall@100": np.ones(1)})}, "'dpsr' has no ordered_recall@100: only reports on held-out"),
        ({"dpsr": Report(["q"], {f"{s}_recall@100": np.ones(1) for s in ("clicked", "ordered")})}, "'dpsr' has no bands"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, reports, message):
    with pytest.raises(ConfigError, match=message):
        draw_comparison(reports, tmp_path / "picture.png", "")
    assert not list(tmp_path.iterdir())
