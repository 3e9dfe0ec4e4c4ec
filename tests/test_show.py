"""What people see: the columns that a catalogue has, whatever they are called, and every text as it is."""

import io

import pyarrow as pa
from rich.console import Console

from tfebr.data.catalogue import Catalogue
from tfebr.show import results_table


def shown(table) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue().splitlines()


def test_results_show_title_category_and_number_as_they_are():
    catalogue = Catalogue(
        pa.table(
            {
                "item_id": ["[a]", "b"],
                "preis": [2.5, None],
                "title": ["lamp [/red]", "desk"],
                "marke [x]": ["[bold]Acme", ""],
                "farbe": ["red", "blue"],
            }
        )
    )
    title, *rest = shown(results_table("lamp [b]", ["[a]", "b", "gone"], [0.5, 0.4, 0.25], catalogue))
    text = "\n".join(rest)
    assert title.strip() == "lamp [b]"
    assert all(part in text for part in ("marke [x]", "preis", "[a]", "lamp [/red]", "[bold]Acme", "2.50", "gone"))
    assert "farbe" not in text
    assert "nan" not in text


def test_results_without_a_catalogue_are_ids():
    assert "item" in "\n".join(shown(results_table("q", ["x"], [1.0])))
