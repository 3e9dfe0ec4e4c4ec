"""The documentation works: every Python block runs, page by page, and every page can be reached."""

import importlib
import re
from pathlib import Path

import pytest

from tfebr.models import zoo

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INCLUDED = re.compile(r'^--8<-- "(.*)"$\n', re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def text_of(page: Path) -> str:
    """A page with the files that it shows."""
    return INCLUDED.sub(lambda found: (ROOT / found[1]).read_text(encoding="utf-8"), page.read_text(encoding="utf-8"))


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(text_of(page))], ids=name)
def test_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What a page registers is gone with it.
    monkeypatch.setattr(zoo, "MODELS", dict(zoo.MODELS))
    text, names = text_of(page), {"__name__": "page"}
    for block in BLOCK.finditer(text):
        line = text[: block.start()].count("\n") + 1
        # Blank lines in front, so that a traceback names the page's own line.
        exec(compile("\n" * line + block[1], name(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/.-]+\.md", navigation.split("\nnav:\n")[1]))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}


@pytest.mark.parametrize("page", sorted((ROOT / "docs/api").glob("*.md")), ids=name)
def test_the_reference_of_a_room_has_its_public_names(page):
    listed = re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    room = importlib.import_module(f"tfebr.{page.stem}")
    assert sorted(listed) == sorted(f"{getattr(room, public).__module__}.{public}" for public in room.__all__)
