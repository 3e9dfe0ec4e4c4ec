"""`prepare` writes a whole data folder or none, and never removes what is not a data folder."""

import errno
import json

import pytest

from tfebr.data.dataset import DataFolder
from tfebr.data.readers import READERS, prepare
from tfebr.errors import ConfigError, DataError, TfebrError


@pytest.fixture
def download(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "clicks.tsv").write_text(
        "user\tsku\tcategory\tquery\tclick_time\tquery_time\nu\t1\tc\thalo\t2011-08-11 04:00:17\t2011-08-11 04:00:00\n"
    )
    (folder / "sku_name.tsv").write_text("sku\tname\n1\tHalo\n2\tHalo 2\n")
    return folder


def test_about_tells_source_counts_and_licence(tmp_path, download):
    prepare("bestbuy", download, tmp_path / "out", quiet=True)
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    notes = about.pop("notes")
    assert any("UTC" in note for note in notes)
    assert about == {
        "source": "bestbuy",
        "title": READERS["bestbuy"].title,
        "licence": READERS["bestbuy"].licence,
        "items": 2,
        "columns": {"text": ["title"], "category": ["category"], "number": [], "ignored": []},
        "requests": 1,
    }
    (download / "products.tsv").write_text("product_uid\tproduct_title\n1\tSaw\n")
    (download / "queries.tsv").write_text("query_id\tquery\tsplit\nq\tsaw\ttrain\n")
    (download / "qrels.tsv").write_text("query_id\tproduct_uid\trelevance\nq\t1\t3\n")
    prepare("homedepot", download, tmp_path / "out", quiet=True)
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert (about["source"], about["items"], about["queries"], about["judgments"], about["relevant_from"]) == ("homedepot", 1, 1, 1, 2.5)
    # The other set's log is gone with the old folder.
    assert not DataFolder(tmp_path / "out").has_log


def test_unknown_source_lists_the_known_ones(tmp_path):
    with pytest.raises(
        ConfigError, match=r"unknown source 'amazon'\. Known sources: homedepot, chorus, bestbuy, jdsearch, behaviour, trivago\."
    ):
        prepare("amazon", tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("homedepot", ["train.csv", "attributes.csv", "products.tsv.gz", "home-depot-product-search-relevance", "kaggle.com"]),
        ("chorus", ["products.jsonl.gz", "queries.tsv.gz", "qrels.tsv.gz", "github.com/querqy/chorus"]),
        ("bestbuy", ["train.csv", "clicks.tsv.gz", "sku_name.tsv.gz", "acm-sf-chapter-hackathon-small", "kaggle.com"]),
        ("jdsearch", ["user_behavior_data.txt", "product_meta_data.txt", "_sample", "github.com/rucliujn/JDsearch"]),
        ("behaviour", ["ecomm_edge_train.txt", "ecomm_item_feature.txt", "ecomm_user_feature.txt", "tianchi.aliyun.com"]),
        ("trivago", ["train.csv", "item_metadata.csv", "sessions.csv", "recsys.trivago.cloud"]),
    ],
)
def test_missing_files_tell_what_is_expected_and_where_it_comes_from(tmp_path, source, words):
    (tmp_path / "empty").mkdir()
    for path, state in ((tmp_path / "empty", "the files are not (all) here"), (tmp_path / "nowhere", "no such file or folder")):
        with pytest.raises(DataError) as caught:
            prepare(source, path, tmp_path / "out", quiet=True)
        for word in [str(path), state, READERS[source].title, *words]:
            assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_full_disk_keeps_the_old_folder(tmp_path, download, monkeypatch):
    prepare("bestbuy", download, tmp_path / "out", quiet=True)
    (download / "sku_name.tsv").write_text("sku\tname\n1\tNew\n")

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    for place in ("tfebr.data.catalogue.pq.write_table", "tfebr.data.log.pq.ParquetWriter", "tfebr.infrastructure.files.json.dumps"):
        with monkeypatch.context() as patch:
            patch.setattr(place, full)
            with pytest.raises(TfebrError) as caught:
                prepare("bestbuy", download, tmp_path / "out", quiet=True)
        assert str(caught.value).startswith(f"{tmp_path / 'out'}: not written: No space left on device. Free some space")
        assert DataFolder(tmp_path / "out").catalogue().titles == ["Halo", "Halo 2"]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    assert prepare("bestbuy", download, tmp_path / "out", quiet=True).catalogue().titles == ["New"]


def test_output_never_replaces_other_files(tmp_path, download):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("kept")
    with pytest.raises(DataError, match="home: a folder with something else"):
        prepare("bestbuy", download, home, quiet=True)
    with pytest.raises(TfebrError, match=r"thesis\.txt: not written: Not a directory"):
        prepare("bestbuy", download, home / "thesis.txt", quiet=True)
    assert (home / "thesis.txt").read_text() == "kept"
    (tmp_path / "catalogue.parquet").touch()
    for out in (download, tmp_path):
        for path in (download, download / "clicks.tsv"):
            with pytest.raises(DataError, match="holds the input"):
                prepare("bestbuy", path, out, quiet=True)
    assert sorted(p.name for p in download.iterdir()) == ["clicks.tsv", "sku_name.tsv"]


def test_an_empty_folder_may_be_the_output(tmp_path, download):
    (tmp_path / "out").mkdir()
    assert len(prepare("bestbuy", download, tmp_path / "out", quiet=True).catalogue()) == 2


def test_progress_is_told_unless_quiet(tmp_path, download, capsys):
    prepare("bestbuy", download, tmp_path / "out", quiet=True)
    assert capsys.readouterr() == ("", "")
    prepare("bestbuy", download, tmp_path / "out")
    assert "reading Best Buy: 1 clicks" in capsys.readouterr().err
