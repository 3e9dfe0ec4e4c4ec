"""Results for people: tables of systems, of found items and of published versions."""

import math
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

# Output into a file or a pipe has no width of its own; tables should not be squeezed into 80 columns there.
console = Console(width=None if sys.stdout.isatty() else 140)


def show_reports(reports: dict[str, Any]) -> None:
    """Prints the table of systems, and paired tests of each against BM25 and of the best model against the other ones."""
    from tfebr.evaluation.significance import paired_test
    from tfebr.evaluation.table import comparison_table

    wanted = ["ordered_recall@100", "clicked_recall@100", "p_good@100", "ordered_recall@100/tail", "mrr"]
    judged = ["recall@10", "recall@100", "mrr@10", "ndcg@10"]
    have = next(iter(reports.values())).names
    metrics = [m for m in wanted if m in have] or judged
    # A metric that no request defines (P_good without an oracle) has no place in the table.
    metrics = [m for m in metrics if any(v == v for v in (r.means().get(m, float("nan")) for r in reports.values()))]
    console.print(comparison_table(reports, metrics))
    main = metrics[0] if metrics[0] in wanted else "recall@100"
    models = [name for name in reports if name != "bm25"]
    best = max(models, key=lambda name: reports[name].means()[main])
    pairs = [(name, "bm25") for name in models] + [(best, name) for name in models if name != best]
    for system, other in pairs:
        test = paired_test(reports[system].values(main), reports[other].values(main))
        console.print(
            f"{system} - {other}, {main}: {test.difference:+.3f} (95 % interval {test.low:+.3f} to {test.high:+.3f}, "
            f"p = {test.p_value:.4f}, {test.n:,} requests)",
            highlight=False,
            markup=False,
        )


def results_table(title: str, ids: list[str], scores: list[float], catalogue: Any = None) -> Table:
    """Results as a table: rank, score, id and, where there is a catalogue, the title, its first category and its first number."""
    from tfebr.data.roles import ColumnRoles

    table = Table(title=escape(title), title_justify="left", title_style="bold")
    table.add_column("#", justify="right")
    table.add_column("score", justify="right")
    table.add_column("item")
    roles = ColumnRoles.of(catalogue.table) if catalogue is not None else ColumnRoles(text=())
    details = [*roles.text, *roles.category[:1], *roles.number[:1]]
    for column in details:
        table.add_column(escape(column), justify="right" if column in roles.number else "left", max_width=70)
    rows = catalogue.rows_of(ids) if catalogue is not None else [-1] * len(ids)
    for rank, (item, score, row) in enumerate(zip(ids, scores, rows, strict=True), 1):
        cells = [catalogue.table[c][int(row)].as_py() if row >= 0 else "" for c in details]
        table.add_row(str(rank), f"{score:.3f}", *map(escape, (item, *map(_cell, cells))))
    return table


def _cell(value: Any) -> str:
    """Nothing for a number that the catalogue does not have."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.2f}"
    return str(value)


def versions_table(versions: list[Any]) -> Table:
    """Published versions (`tfebr.servable.version_folders.Version`), a row each."""
    table = Table("version", "state", "model", "created (UTC)", "MiB", "items", "recall")
    for version in versions:
        size = "" if version.bytes is None else f"{version.bytes / 2**20:.1f}"
        items = "" if version.items is None else f"{version.items:,}"
        recall = "" if version.recall is None else f"{version.recall:.4f}"
        table.add_row(str(version.number), version.state, version.model or "", f"{version.created:%Y-%m-%d %H:%M}", size, items, recall)
    return table
