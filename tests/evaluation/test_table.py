import io

import numpy as np
import pytest
from rich.console import Console

from tfebr.errors import ConfigError, DataError
from tfebr.evaluation.report import Report
from tfebr.evaluation.table import comparison_table


def report(**means: float) -> Report:
    return Report(["a", "b"], {name.replace("_at_", "@"): np.array([mean, np.nan]) for name, mean in means.items()}, ["tail", "head"])


REPORTS = {
    "DPSR": report(recall_at_10=0.6124, mrr=0.30001, popularity_at_10=1234.5),
    "BM25 [stemmed]": report(recall_at_10=0.5, mrr=0.3, popularity_at_10=7.0),
    "plain": report(recall_at_10=0.05),
}


def rendered(metrics: list[str], **options) -> str:
    out = io.StringIO()
    Console(file=out, width=120, **options).print(comparison_table(REPORTS, metrics))
    return out.getvalue()


def test_systems_are_rows_and_numbers_align_with_three_decimals():
    lines = rendered(["recall@10", "mrr", "recall@10/head"]).splitlines()
    rows = [line for line in lines if any(system in line for system in REPORTS)]
    assert [row.split("│")[1].strip() for row in rows] == list(REPORTS)
    assert [row.split("│")[2].strip() for row in rows] == ["0.612", "0.500", "0.050"]
    assert [row.split("│")[3].strip() for row in rows] == ["0.300", "0.300", "–"]
    assert [row.split("│")[4].strip() for row in rows] == ["–"] * 3
    assert len({row.index(cell) + len(cell) for row, cell in zip(rows, ["0.612", "0.500", "0.050"], strict=True)}) == 1


def test_the_best_value_of_each_metric_is_bold_and_all_that_read_the_same():
    table = comparison_table(REPORTS, ["recall@10", "mrr", "popularity@10"])
    bold = [[cell.style == "bold" for cell in column.cells] for column in table.columns[1:]]
    assert bold == [[True, False, False], [True, True, False], [False, False, False]]
    assert "\x1b[1m" in rendered(["recall@10"], force_terminal=True).split("DPSR")[1].splitlines()[0]


def test_an_unknown_metric_is_refused():
    with pytest.raises(ConfigError, match=r"no report has a metric 'recall@11'. They have: recall@10, recall@10/head"):
        comparison_table(REPORTS, ["recall@11"])


def test_values_of_the_wrong_length_are_refused():
    with pytest.raises(DataError, match="metric 'mrr' has 2 values for 1 requests"):
        Report(["a"], {"mrr": np.zeros(2)})


def test_a_report_knows_its_bands():
    found = Report(["a", "b", "c"], {"mrr": np.array([1.0, 0.5, np.nan])}, ["tail", "head", "tail"])
    assert found.values("mrr/tail").tolist()[0] == 1.0
    assert np.isnan(found.values("mrr/tail")[1:]).all()
    assert found.means() == pytest.approx({"mrr": 0.75, "mrr/head": 0.5, "mrr/torso": np.nan, "mrr/tail": 1.0}, nan_ok=True)
    assert found.to_json() == {
        "requests": 3,
        "means": {"mrr": 0.75, "mrr/head": 0.5, "mrr/torso": None, "mrr/tail": 1.0},
        "defined": {"mrr": 2, "mrr/head": 1, "mrr/torso": 0, "mrr/tail": 1},
    }
    with pytest.raises(ConfigError, match="no metric 'mrr/middle'"):
        found.values("mrr/middle")
