"""HTML entities are decoded wherever they stand, and nothing else is changed."""

import html

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfebr.data.entities import decoded
from tfebr.data.place import Notes, Place
from tfebr.errors import DataError

HERE = Place.of("shop.parquet", "title")
# Without "&" and ";" in the alphabet, hypothesis would hardly ever write an entity.
TEXTS = st.lists(st.one_of(st.none(), st.text(st.sampled_from("a<>\"'&;# ü漢x1"), max_size=12)), max_size=6)


def read(texts: list[str | None]) -> tuple[list[str | None], list[str]]:
    notes = Notes("catalogue")
    return decoded(pa.array(texts, pa.string()), HERE, notes).to_pylist(), notes.lines


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("black &amp; white", "black & white"),
        ("Brand&#xAE; &#174;&reg;", "Brand® ®®"),
        ("15&quot; &lt;new&gt;", '15" <new>'),
        ("5&#39;6 &frac12;", "5'6 ½"),
        ("&amp;amp;quot;twice&amp;quot;", '"twice"'),
        ("&#38;#8364;", "€"),
        ("&#55296;&#x110000;", "\ufffd\ufffd"),
        ("H&M, AT&T; R&D &unknown; black&parallel &amp", None),
        ("&", None),
    ],
)
def test_entities_become_what_they_stand_for(written, meant):
    found, notes = read(["plain", written, None])
    assert found == ["plain", meant if meant is not None else written, None]
    assert notes == ([] if meant is None else ["catalogue: column `title`: 1 values held HTML entities; they were decoded"])


@given(TEXTS)
def test_decoding_again_changes_nothing(texts):
    once, _ = read(texts)
    assert read(once) == (once, [])
    assert [text is None for text in once] == [text is None for text in texts]


@given(TEXTS, st.integers(1, 3))
def test_what_was_escaped_comes_back(texts, times):
    plain, _ = read(texts)
    written = plain
    for _ in range(times):
        written = [None if text is None else html.escape(text) for text in written]
    assert read(written)[0] == plain


def test_hostile_nesting_is_refused_by_row():
    with pytest.raises(DataError, match=r"shop\.parquet: row 1, column `title`: HTML entities in entities"):
        read(["fine", "&" + "amp;" * 100 + "lt;"])
