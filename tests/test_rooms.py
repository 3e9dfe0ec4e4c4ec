"""Who may import whom: dependencies go in one direction, a file is read in one sitting, and one name is one thing."""

import ast
import collections
from pathlib import Path

import pytest

import tfebr

PACKAGE = Path(tfebr.__file__).parent
# A room, and the rooms that it may import from; everybody may import `errors`, `infrastructure` and `_public`.
MAY_IMPORT = {
    "infrastructure": set(),
    "data": set(),
    "layers": {"data"},
    "losses": {"data", "layers"},
    "tasks": {"data", "layers", "losses"},
    "models": {"data", "layers", "losses", "tasks"},
    "index": {"data"},
    "evaluation": {"data"},
    "servable": {"data", "index"},
    "publishing": {"data", "models", "index", "servable"},
    "server": {"data", "servable"},
    "client": {"data", "servable"},
}
FREE = {"errors", "infrastructure", "_public"}
MOST_LINES = 300


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(file: Path) -> set[str]:
    """First part of each module of the package that a file imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "tfebr":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tfebr."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("tfebr.")}
    return found


def test_every_room_is_in_the_table():
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == MAY_IMPORT.keys()


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_from_those_below_it_alone(room):
    allowed = MAY_IMPORT[room] | FREE | {room}
    against = {str(file.relative_to(PACKAGE)): imported(file) - allowed for file in (PACKAGE / room).rglob("*.py")}
    assert {file: names for file, names in against.items() if names} == {}


def test_the_table_has_one_direction():
    above = {room: set(below) for room, below in MAY_IMPORT.items()}
    while above:
        ground = {room for room, below in above.items() if not below}
        assert ground, f"these rooms import each other: {sorted(above)}"
        above = {room: below - ground for room, below in above.items() if room not in ground}


def test_a_client_and_the_checks_need_no_tensorflow():
    for file in [*(PACKAGE / "client").glob("*.py"), PACKAGE / "errors.py"]:
        if file.name == "grpc_transport.py":  # the messages of gRPC are TensorFlow Serving's own
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert "tensorflow" not in names, file


def test_a_file_is_read_in_one_sitting():
    lines = {str(file.relative_to(PACKAGE)): len(file.read_text(encoding="utf-8").splitlines()) for file in modules()}
    assert {file: count for file, count in lines.items() if count > MOST_LINES} == {}


def test_no_two_files_have_one_name():
    counts = collections.Counter(file.name for file in modules())
    assert {name for name, count in counts.items() if count > 1} == {"__init__.py"}
