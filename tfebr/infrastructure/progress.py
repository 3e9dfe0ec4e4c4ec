"""One progress display for everything that takes longer than a few seconds: throughput and remaining time."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)
_LINE_EVERY_SECONDS = 15.0


@contextlib.contextmanager
def progress(title: str, total: int | None, unit: str, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """Yields `advance(n, note="")`. A terminal gets a live bar; a file or a pipe gets a plain line now and then."""
    start, done, last_line = time.monotonic(), 0, time.monotonic()
    note_now = ""

    def rate() -> str:
        return f"{done / max(time.monotonic() - start, 1e-9):,.0f} {unit}/s"

    if quiet:
        yield lambda n=1, note="": None
        return
    if console.is_terminal:
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=total, rate="", note="")

            def advance(n: int = 1, note: str = "") -> None:
                nonlocal done
                done += n
                bar.update(task, advance=n, rate=rate(), note=note)

            yield advance
        return

    def advance_plain(n: int = 1, note: str = "") -> None:
        nonlocal done, last_line, note_now
        done, note_now = done + n, note or note_now
        now = time.monotonic()
        if now - last_line > _LINE_EVERY_SECONDS:
            last_line = now
            left = f", {(total - done) * (now - start) / max(done, 1):.0f} s left" if total else ""
            of = f" of {total:,}" if total else ""
            print(f"{title}: {done:,}{of} {unit}, {rate()}{left} {note_now}".rstrip(), file=sys.stderr, flush=True)

    yield advance_plain
    print(f"{title}: {done:,} {unit} in {time.monotonic() - start:.1f} s, {rate()} {note_now}".rstrip(), file=sys.stderr, flush=True)


def tell(notes: Iterable[str]) -> None:
    """Says on stderr, once each, what was done that the person did not ask for."""
    for note in dict.fromkeys(notes):
        console.print(f"[dim]note:[/dim] {escape(note)}", soft_wrap=True, highlight=False)
