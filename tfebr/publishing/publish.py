"""From a trained run and a catalogue to the next version of its servable: as exported, refreshed with another catalogue, in shards."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from tfebr.data.batches import evaluation_batches
from tfebr.data.catalogue import Catalogue
from tfebr.data.item_ids import ItemIds
from tfebr.data.query_intent import IntentTables, QueryIntent
from tfebr.errors import ConfigError
from tfebr.index.attributes import ItemAttributes, filter_columns
from tfebr.index.recall import build
from tfebr.index.recipe import recipe_for
from tfebr.infrastructure.checks import check_number, conform
from tfebr.infrastructure.files import hidden_folder
from tfebr.infrastructure.progress import tell
from tfebr.models.encoders import RawItemEncoder, RawQueryEncoder
from tfebr.models.retrieval_model import RetrievalModel
from tfebr.models.run_folder import RunFolder
from tfebr.publishing.continuity import check_filters
from tfebr.publishing.embedding_cache import catalogue_vectors, run_identity
from tfebr.publishing.shards import publish_together, set_of, shard_names, shards_of
from tfebr.servable.check import complete_inputs
from tfebr.servable.filters import filter_clauses
from tfebr.servable.folders import check_name
from tfebr.servable.manifest import read_manifest
from tfebr.servable.module import RetrievalServable
from tfebr.servable.version_folders import version_folders
from tfebr.servable.write import latest, write

TARGET, K, HELD_OUT_QUERIES = 0.98, 100, 500
_QUERY_BLOCK = 100


@dataclasses.dataclass(frozen=True)
class Published:
    """What came of a refresh.

    Attributes:
        folders: the new version, or that of every shard.
        items: in the catalogue.
        embedded: how many of them were new or changed, and so went through the item tower.
    """

    folders: list[Path]
    items: int
    embedded: int


@dataclasses.dataclass(frozen=True)
class _Settings:
    """Of the index and of the artifacts; those of the version before are kept by a refresh."""

    name: str
    shards: int = 1
    target: float = TARGET
    k: int = K
    heldout_queries: int = HELD_OUT_QUERIES
    quiet: bool = False
    server: str = "scann"
    change_filters: bool = False

    def __post_init__(self):
        conform(self)
        check_number("target", self.target, "(0, 1]")
        for name in ("shards", "k", "heldout_queries"):
            check_number(name, getattr(self, name), "[1, inf)", whole=True)


def export(
    run: str | os.PathLike,
    name: str | None = None,
    target: float = TARGET,
    k: int = K,
    heldout_queries: int = HELD_OUT_QUERIES,
    quiet: bool = False,
    server: str = "scann",
    change_filters: bool = False,
) -> Path:
    """Writes `RUN/servable/NAME/VERSION/`: query tower, index, item ids and attributes in one SavedModel, checked in a fresh process.

    Args:
        name: of the model on the server; the model's own by default.
        target: recall@k of the index against exact search that must be measured.
        heldout_queries: how many requests recall is measured on.
        server: what the index will run on, "scann" or "stock"; see `tfebr.index.recipe.recipe_for`.
        change_filters: publish a version that lacks a filter of the version before, or has one of another kind.

    Raises:
        ConfigError: a setting or a name is impossible, `NAME` is there in shards, or the catalogue has changed since training.
        DataError: a filter of the version before would be gone or of another kind.
    """
    return export_shards(run, 1, name, target, k, heldout_queries, quiet, server, change_filters)[0]


def export_shards(
    run: str | os.PathLike,
    shards: int,
    name: str | None = None,
    target: float = TARGET,
    k: int = K,
    heldout_queries: int = HELD_OUT_QUERIES,
    quiet: bool = False,
    server: str = "scann",
    change_filters: bool = False,
) -> list[Path]:
    """Writes `RUN/servable/NAME-shard-I/VERSION/` for each of `shards` parts of the catalogue; see `export` for the rest.

    A shard holds a contiguous range of the catalogue's rows under the towers of the whole; `ShardedClient` merges what they find. All
    shards get the same version number, and appear together when the last one is checked. One shard is `NAME` itself, as by `export`.

    Raises:
        ConfigError: more shards than items, or `NAME` is there in another number of shards.
    """
    folder = RunFolder(run)
    name = check_name(folder.model_name if name is None else name)
    catalogue = folder.data.catalogue()
    folder.check_input(folder.data.catalogue_content(catalogue))
    settings = _Settings(name, shards, target, k, heldout_queries, quiet, server, change_filters)
    return _publish(folder, catalogue, catalogue, folder.data.path, settings).folders


def refresh(
    run: str | os.PathLike,
    catalogue: str | os.PathLike,
    name: str | None = None,
    target: float | None = None,
    heldout_queries: int = HELD_OUT_QUERIES,
    quiet: bool = False,
    change_filters: bool = False,
) -> Published:
    """Writes the next version from the same towers and another catalogue; neither training data nor examples are needed.

    Items whose text and categories are as before are not embedded again (see `embedding_cache`). Events of a user's history on items that
    training did not know are not read until the next training, and items that left the catalogue are still read there. The query's
    intents are as learned, without values that no item has any more. Recall is measured on held-out requests of the run's examples, or,
    when those are gone, on titles of the catalogue as queries; the manifest says on which.

    Args:
        run: trained; its data folder may be gone.
        catalogue: a Parquet file, a folder of them, or a data folder.
        name: which servable; it stays in as many shards as it is in.
        target: as in `export`; by default that of the version before, whose `k` and `server` are kept, too.
        change_filters: as in `export`.

    Raises:
        ConfigError: no servable can be called `name`.
        DataError: the catalogue is bad or lacks a column that the model reads, or a filter of the version before would be gone or of
            another kind.
        ArtifactError: the run has lost its copy of the catalogue that it was trained on.
    """
    folder = RunFolder(run)
    name = check_name(folder.model_name if name is None else name)
    found = Catalogue.read(catalogue)
    tell(found.notes)
    shards = shards_of(folder.path / "servable", name) or 1
    settings = _Settings(name, shards, heldout_queries=heldout_queries, quiet=quiet, change_filters=change_filters)
    base = folder.path / "servable" / shard_names(name, shards)[0]
    if version_folders(base):
        manifest = read_manifest(latest(base))
        # Of a version that was put there by hand, the manifest may say nothing of an index.
        known = {key: value for key, value in (manifest.get("index") or {}).items() if key in ("target", "k")}
        settings = dataclasses.replace(settings, server=manifest["about"].get("server", settings.server), **known)
    if target is not None:
        settings = dataclasses.replace(settings, target=target)
    return _publish(folder, folder.trained_on(), found, catalogue, settings)


def _publish(run: RunFolder, trained: Catalogue, catalogue: Catalogue, source: str | os.PathLike, settings: _Settings) -> Published:
    _check_settings(run, len(catalogue), settings)
    filterable = _filterable(run, catalogue)
    if not settings.change_filters:
        for name in shard_names(settings.name, settings.shards):
            check_filters(run.path / "servable" / name, filter_columns(filterable), source)
    model = run.trained_model()
    # Histories are read through the item table, and ids learned, by the rows of training.
    known = ItemIds(trained.item_ids)
    encoders = RawQueryEncoder(model, run.featurizer, known), RawItemEncoder(model, run.featurizer, known)
    vectors, embedded = catalogue_vectors(run, catalogue.table, encoders[1], settings.quiet)
    queries, measured_on = _heldout_queries(run, model, encoders[0], catalogue, settings.heldout_queries)
    intent = _intent(run, catalogue)
    about = {"model": run.model_name, "config": dataclasses.asdict(run.config), "catalogue": catalogue.content_hash()}
    about |= {"recall_measured_on": measured_on, "server": settings.server, "inputs": _made_up(*encoders)}
    same = about["catalogue"] == run.table.catalogue_hash

    def written(base: Path, part: slice, more: dict[str, Any]) -> Path:
        table = catalogue.table.slice(part.start, part.stop - part.start)
        item_ids = known if same and len(table) == len(catalogue) else ItemIds(catalogue.item_ids[part])
        index, report = build(vectors[part], queries, settings.k, settings.target, quiet=settings.quiet, server=settings.server)
        attributes = ItemAttributes(filterable.slice(part.start, len(table))) if filter_columns(filterable) else None
        # Of a shard, too, as many as of the whole: the client cuts what it has merged.
        default_k = min(settings.k, len(catalogue))
        servable = RetrievalServable(*encoders, index, item_ids, default_k, attributes, intent)
        return write(servable, base, about | more, _questions(table, attributes), report)

    base = run.path / "servable"
    if settings.shards == 1:
        folders = [written(base / settings.name, slice(0, len(catalogue)), {})]
    else:
        # Published together: a client that merges shards of two sets would miss items, and do so for as long as the rest takes.
        with hidden_folder(base / settings.name) as staging:
            edges = [len(catalogue) * i // settings.shards for i in range(settings.shards + 1)]
            decides = about | {"weights": run_identity(run).hex(), "shards": edges, "target": settings.target, "k": settings.k}
            shard_set, ready = set_of(**decides), []
            for i, (place, part) in enumerate(zip(shard_names(settings.name, settings.shards), map(slice, edges, edges[1:]), strict=True)):
                more = {"number": i, "of": settings.shards, "first_row": part.start, "items": part.stop - part.start, "set": shard_set}
                ready.append(written(staging / place, part, {"shard": more}))
            folders = publish_together(ready, base)
    return Published(folders, len(catalogue), embedded)


def _made_up(queries: RawQueryEncoder, items: RawItemEncoder) -> dict[str, str]:
    """By input, what a client calls its column, where that is another name."""
    called = {name: f"user_{column}" for name, column in queries.columns.items()} | items.columns
    return {name: column for name, column in called.items() if name != column}


def _heldout_queries(
    run: RunFolder, model: RetrievalModel, encoder: RawQueryEncoder, catalogue: Catalogue, count: int
) -> tuple[np.ndarray, str]:
    """[queries, heads, dim], at most `count`, and what they are."""
    split = "test" if run.split_time is not None else "train"
    if (run.path / "examples" / split).exists():
        batches = evaluation_batches(run.shards(split), run.featurizer, _QUERY_BLOCK).take(-(-count // _QUERY_BLOCK))
        queries = np.concatenate([embeddings for _, embeddings in model.query_embeddings(batches)])[:count]
        return queries, f"{len(queries)} requests of the run's {split} examples"
    rows = np.sort(np.random.default_rng(0).choice(len(catalogue), min(count, len(catalogue)), replace=False))
    # One by one: `take` would put all titles together first.
    titles = [catalogue.table["title"][int(row)].as_py() for row in rows]
    encode = tf.function(encoder.__call__)
    blocks = [titles[i : i + _QUERY_BLOCK] for i in range(0, len(titles), _QUERY_BLOCK)]
    parts = [encode(complete_inputs(encoder.input_signature, {"query": block})).numpy() for block in blocks]
    return np.concatenate(parts), f"{len(titles)} titles of the catalogue"


def _filterable(run: RunFolder, catalogue: Catalogue) -> pa.Table:
    """The columns that a filter can name."""
    return catalogue.table.select(run.roles.over(catalogue.table).filters)


def _intent(run: RunFolder, catalogue: Catalogue) -> QueryIntent | None:
    """What the run learned of queries, without clauses that no item of this catalogue matches."""
    folder, kinds = run.path / "intent", filter_columns(_filterable(run, catalogue))
    if not folder.exists() or not kinds:
        return None
    tables, there = IntentTables.read(folder), set[str]()
    for column, kind in kinds.items():
        values = [value for value in catalogue.table[column].unique().to_pylist() if value] if kind == "category" else []
        if values:
            there.update(filter_clauses({column: values}, kinds)[0].split("|"))

    def alive(clauses: list[str]) -> list[str]:
        return [clause if there.intersection(clause.split("|")) else "" for clause in clauses]

    return QueryIntent(
        dataclasses.replace(tables, name_clauses=alive(tables.name_clauses), category_clauses=alive(tables.category_clauses))
    )


def _questions(table: pa.Table, attributes: ItemAttributes | None) -> list[dict[str, list]]:
    titles = table["title"].slice(0, 2).to_pylist()
    questions: list[dict[str, list]] = [{"query": ["", titles[0], "unknownword"]}, {"query": titles}]
    if attributes is not None:
        first = {name: table[name][0].as_py() for name in attributes.columns}
        known = {name: value for name, value in first.items() if value != "" and value == value}
        clauses = filter_clauses(known, attributes.columns)
        questions.append({"query": titles, "filter": [clauses, []][: len(titles)]})
    return questions


def _check_settings(run: RunFolder, items: int, settings: _Settings) -> None:
    """One name is one servable in a fixed number of shards: servers and clients are set up for that."""
    if settings.shards > items:
        raise ConfigError(f"`shards` must be at most the number of items, {items}. Received: {settings.shards}.")
    # Refuses what is impossible before anything is embedded.
    recipe_for(items // settings.shards, settings.k, server=settings.server)
    whole = run.path / "servable" / settings.name
    there = shards_of(whole.parent, settings.name)
    if (settings.shards > 1 and (version_folders(whole) or there not in (0, settings.shards))) or (settings.shards == 1 and there):
        found = f"{there} shards" if there else "one folder"
        raise ConfigError(
            f"{whole.parent}: `{settings.name}` is there as {found} already. Choose another name for {settings.shards} "
            f"shard{'s' if settings.shards > 1 else ''}, or remove what is there."
        )
