"""Progress: a live bar on a terminal, few plain lines elsewhere, nothing when quiet."""

import io

import pytest
from rich.console import Console

from tfebr.infrastructure import progress as progress_module
from tfebr.infrastructure.progress import progress


def fail_half_way() -> None:
    with progress("reading", 3, "rows") as advance:
        advance()
        raise ValueError("broken")


@pytest.fixture
def no_terminal(monkeypatch):
    monkeypatch.setattr(progress_module, "console", Console(file=io.StringIO(), force_terminal=False))


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves: seconds in `clock[0]`."""
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    return now


def test_plain_output_is_one_line_at_the_end(no_terminal, clock, capsys):
    with progress("reading", 4000, "rows") as advance:
        for _ in range(4):
            advance(1000)
        clock[0] += 2
        assert capsys.readouterr().err == ""
    assert capsys.readouterr() == ("", "reading: 4,000 rows in 2.0 s, 2,000 rows/s\n")


def test_plain_output_tells_the_remaining_time_now_and_then(no_terminal, clock, capsys):
    with progress("training", 100, "steps") as advance:
        for _ in range(4):
            clock[0] += 10
            advance(10, note="loss 0.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 20 of 100 steps, 1 steps/s, 80 s left loss 0.5"
    assert lines[1] == "training: 40 of 100 steps, 1 steps/s, 60 s left loss 0.5"
    assert lines[2] == "training: 40 steps in 40.0 s, 1 steps/s loss 0.5"


def test_unknown_total_has_no_remaining_time(no_terminal, clock, capsys):
    with progress("reading", None, "rows") as advance:
        clock[0] += 20
        advance(5)
    assert capsys.readouterr().err.splitlines()[0] == "reading: 5 rows, 0 rows/s"


def test_quiet_says_nothing(capsys):
    with progress("reading", 3, "rows", quiet=True) as advance:
        advance()
        advance(2, note="x")
    assert capsys.readouterr() == ("", "")


def test_failed_work_is_not_reported_as_done(no_terminal, capsys):
    with pytest.raises(ValueError, match="broken"):
        fail_half_way()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("total", [3, None])
def test_terminal_gets_a_bar(monkeypatch, total):
    screen = io.StringIO()
    monkeypatch.setattr(progress_module, "console", Console(file=screen, force_terminal=True, width=140))
    with progress("reading", total, "rows") as advance:
        advance(1)
        advance(2, note="almost")
    shown = screen.getvalue()
    for words in ("reading", "3/3" if total else "3/?", "rows/s", "almost"):
        assert words in shown
