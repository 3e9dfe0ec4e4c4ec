"""A table of several systems' reports side by side."""

import math

from rich.table import Table
from rich.text import Text

from tfebr.errors import ConfigError
from tfebr.evaluation.report import Report


def comparison_table(reports: dict[str, Report], metrics: list[str]) -> Table:
    """One row per system, one column per metric, three decimals; the best value of a metric is bold, all of them when equal.

    A system whose report lacks a metric, or defines it for no request, shows a dash. Popularity has no best value: more is not better.

    Raises:
        ConfigError: no report has one of the metrics.
    """
    means = {system: report.means() for system, report in reports.items()}
    known = dict.fromkeys(name for report in means.values() for name in report)
    for metric in metrics:
        if metric not in known:
            raise ConfigError(f"no report has a metric {metric!r}. They have: {', '.join(known)}.")
    table = Table()
    table.add_column("system")
    columns = []
    for metric in metrics:
        table.add_column(metric, justify="right")
        columns.append(_cells([report.get(metric, math.nan) for report in means.values()], ranked=not metric.startswith("popularity@")))
    for system, *cells in zip(means, *columns, strict=True):
        table.add_row(Text(system), *cells)
    return table


def _cells(values: list[float], ranked: bool) -> list[Text]:
    shown = ["–" if math.isnan(value) else f"{value:,.3f}" for value in values]
    best = max((value for value in values if not math.isnan(value)), default=math.nan)
    # Compared as shown: a reader cannot tell two equal figures apart.
    return [Text(text, style="bold" if ranked and text == f"{best:,.3f}" else "") for text in shown]
