"""mkdocs: the pictures beside the benchmarks' results, where pages that are also read in the repository link to them."""

from pathlib import Path

from mkdocs.structure.files import File

_RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
_IN_REPOSITORY, _IN_SITE = "](../benchmarks/results/", "](pictures/"


def on_files(files, config):
    for picture in sorted(_RESULTS.glob("*.png")):
        files.append(File.generated(config, f"pictures/{picture.name}", content=picture.read_bytes()))
    return files


def on_page_markdown(markdown, page, config, files):
    return markdown.replace(_IN_REPOSITORY, _IN_SITE)
