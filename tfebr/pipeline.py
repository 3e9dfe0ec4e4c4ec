"""The main job in a few calls: train, evaluate, compare with baselines, export, refresh. Every command is one of these."""

import collections
import dataclasses
import functools
import itertools
import os
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from tfebr.data.batches import evaluation_batches
from tfebr.data.catalogue import Catalogue
from tfebr.data.content import Files
from tfebr.data.dataset import DataFolder
from tfebr.data.examples import Shards, write_examples
from tfebr.data.judged_requests import requests_of
from tfebr.data.judgments import Judgments
from tfebr.data.log import clicked_items, split_time
from tfebr.data.simulator import Oracle
from tfebr.errors import ConfigError, DataError
from tfebr.evaluation.bm25 import BM25
from tfebr.evaluation.judged import evaluate_judged
from tfebr.evaluation.ranking import Ranking, rank_exact
from tfebr.evaluation.report import Report, places_of
from tfebr.evaluation.requests import HeldOut, evaluate_requests, held_out
from tfebr.evaluation.runs import write_run
from tfebr.evaluation.stage_order import ShownItems, stage_order
from tfebr.infrastructure.files import read_json, write_json
from tfebr.infrastructure.progress import tell
from tfebr.models.claim import only_training
from tfebr.models.config import from_dict
from tfebr.models.retrieval_model import RetrievalModel
from tfebr.models.run_folder import RunFolder, input_content, prepare_run
from tfebr.models.training import fit
from tfebr.models.zoo import model_class, name_of
from tfebr.publishing.publish import export, export_shards, refresh

__all__ = [
    "TEST_SHARE",
    "Evaluation",
    "evaluate",
    "export",
    "export_shards",
    "measure_model",
    "rank_bm25",
    "rank_model",
    "refresh",
    "train",
]

TEST_SHARE = 0.1


def train(
    data: str | os.PathLike,
    run: str | os.PathLike,
    model: str = "dpsr",
    config: dict[str, Any] | None = None,
    supervision: str | os.PathLike | None = None,
    test_share: float = TEST_SHARE,
    quiet: bool = False,
    test_from: int | None = None,
) -> RunFolder:
    """Trains a model from a data folder into a run folder, or goes on where an interrupted run stopped.

    Args:
        data: a data folder; its log is split by time and the last `test_share` of the requests is held out; a judged set without a log
            trains on its "train" split.
        model: a name, or MODULE:NAME or FILE.py:NAME for one of your own; see `tfebr.models.register`.
        config: fields of the model's config that differ from the defaults.
        supervision: a judged data folder over the same catalogue, mixed in as labelled pairs.
        test_from: the time (seconds since 1970) from which on the log is held out, in place of `test_share`.
    """
    folder, kind = DataFolder(data), model_class(model)
    model = name_of(kind)
    settings: Any = from_dict(kind.Config, config or {}, model)
    labels = DataFolder(supervision) if supervision else None
    checked, checked_labels = folder.check(quiet), labels.check(quiet) if labels else None
    tell([*checked.notes, *(checked_labels.notes if checked_labels else ())])
    split = None
    if folder.has_log:
        split = split_time(folder.log(), test_share) if test_from is None else test_from
    with only_training(Path(run)):
        prepared = prepare_run(run, model, settings, folder, split, labels, quiet, input_content(checked, checked_labels))
        fit(prepared, quiet)
    return prepared


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What systems are measured on: held-out requests of a log, or the judgments of a split."""

    data: DataFolder
    catalogue: Catalogue
    requests: HeldOut | Judgments
    split: str
    popularity: np.ndarray | None
    k: tuple[int, ...]

    @classmethod
    def of(cls, data: DataFolder, start_time: int | None, split: str = "test", max_requests: int | None = None) -> "Evaluation":
        """The requests of a log from `start_time` on, or, where there is none, the judged `split`."""
        catalogue = data.catalogue()
        if start_time is None:
            return cls(data, catalogue, data.judgments().split(split), split, None, (10, 100))
        clicks = np.zeros(len(catalogue))
        for batch in data.log().batches():
            request, item_ids = clicked_items(batch)
            rows = catalogue.rows_of(item_ids)
            np.add.at(clicks, rows[(batch["time"].to_numpy()[request] < start_time) & (rows >= 0)], 1)
        found = held_out(data.log(), catalogue, start_time, max_requests=max_requests)
        return cls(data, catalogue, found, split, clicks, (10, 50, 100))

    @functools.cached_property
    def content(self) -> Files:
        """Digests of all that the data folder holds, for runs to compare with what they were trained on."""
        return self.data.check(quiet=True, catalogue=self.catalogue).content

    @property
    def request_ids(self) -> list[str]:
        return self.requests.request_ids if isinstance(self.requests, HeldOut) else self.requests.queries["query_id"].to_pylist()

    @property
    def queries(self) -> list[str]:
        return self.requests.queries if isinstance(self.requests, HeldOut) else self.requests.queries["query"].to_pylist()

    def report(self, ranking: Ranking, order: Report | None = None) -> Report:
        """Metrics of a ranking whose rows are the requests, in order; of held-out requests also those that `order` has for them."""
        if isinstance(self.requests, Judgments):
            return evaluate_judged(ranking, self.requests, self.catalogue, self.k)
        oracle = Oracle.read(self.data.path / "oracle") if self.data.has_oracle else None
        report = evaluate_requests(ranking, self.requests, self.k, self.popularity, oracle)
        if order is None:
            return report
        place = places_of(order.ids, "report of the shown items' order: request id")
        rows = [place[request_id] for request_id in report.ids]
        return dataclasses.replace(report, metrics=report.metrics | {name: values[rows] for name, values in order.metrics.items()})


def rank_model(run: RunFolder, evaluation: Evaluation, model: RetrievalModel | None = None) -> Ranking:
    """Ranks the whole corpus for every request of the evaluation; the corpus is embedded once."""
    return _rank_and_order(run, evaluation, model)[0]


def measure_model(run: RunFolder, evaluation: Evaluation, model: RetrievalModel | None = None) -> tuple[Ranking, Report]:
    """The same ranking, and its report; of held-out requests also the metrics of `tfebr.evaluation.stage_order.order_metrics`.

    Those are over the shown items that batches keep of a request, at most `tfebr.data.batches.SHOWN_ITEMS`.
    """
    ranking, order = _rank_and_order(run, evaluation, model)
    return ranking, evaluation.report(ranking, order)


def _rank_and_order(run: RunFolder, evaluation: Evaluation, model: RetrievalModel | None) -> tuple[Ranking, Report]:
    """The ranking of the corpus, and how the shown items are ordered, from one pass over the requests."""
    run.check_input(evaluation.content)
    model = model or run.trained_model()
    items = model.corpus_embeddings()
    found: dict[str, np.ndarray] = {}

    def embedded() -> Iterator[ShownItems]:
        embed, batches = itertools.tee(evaluation_batches(_evaluation_shards(run, evaluation), run.featurizer))
        for (ids, embeddings), batch in zip(model.query_embeddings(embed), batches, strict=True):
            _refuse_repeated(run, ids, found)
            found.update(zip(ids, embeddings, strict=True))
            yield ShownItems(ids, embeddings, *(batch[name].numpy() for name in ("items", "stages", "positions")))

    order = stage_order(embedded(), items)
    missing = [i for i in evaluation.request_ids if i not in found]
    if missing:
        raise DataError(f"{run.path}: request {missing[0]!r} is not among the test examples. Train again on this data.")
    return rank_exact(np.stack([found[i] for i in evaluation.request_ids]), items, max(evaluation.k)), order


def _refuse_repeated(run: RunFolder, ids: list[str], found: dict[str, np.ndarray]) -> None:
    """A request would be ranked by the embedding of another one."""
    repeated = [request_id for request_id, count in collections.Counter([*ids, *(i for i in ids if i in found)]).items() if count > 1]
    if repeated:
        raise DataError(f"{run.path}: two test examples have the request id {repeated[0]!r}. Make the log's ids unique and train again.")


def _evaluation_shards(run: RunFolder, evaluation: Evaluation) -> Shards:
    if isinstance(evaluation.requests, HeldOut):
        return run.shards("test")
    folder = run.path / "examples" / _file_name(f"judged-{evaluation.split}")
    made_from, content = folder / "content.json", dict(evaluation.requests.content())
    if not made_from.exists() or read_json(made_from) != content:
        requests = requests_of(evaluation.requests)
        write_examples(requests, evaluation.catalogue, None, folder, {"all": (None, None)}, labelled=True, all_requests=True, quiet=True)
        write_json(made_from, content)
    return Shards.read(folder / "all", evaluation.catalogue.content_hash())


def rank_bm25(evaluation: Evaluation) -> Ranking:
    """BM25 over the columns of text and of categories, which hold the words that a shop's inverted index would hold."""
    roles, table = evaluation.data.roles(evaluation.catalogue), evaluation.catalogue.table
    texts = pc.binary_join_element_wise(*(table[name] for name in (*roles.text, *roles.category)), " ")
    return BM25(texts.to_pylist()).rank(evaluation.queries, max(evaluation.k))


def evaluate(
    runs: Sequence[str | os.PathLike], split: str = "test", max_requests: int | None = None, data: str | os.PathLike | None = None
) -> dict[str, Report]:
    """Measures trained runs and BM25 on the same requests; writes `metrics.json` and a run file into each run folder.

    Args:
        runs: run folders trained on one data folder with one split of time.
        split: which judged split, where the data is a judged set without a log.
        max_requests: measure on a random sample of this many held-out requests.
        data: a data folder in place of the one the runs were trained on, for instance one that was moved.

    Returns:
        Reports by system: the model's name, or where several runs share a model, as much of the end of each folder's path as tells it from
        the others; last, "bm25", which has no metrics of the shown items' order.

    Raises:
        ConfigError: the runs are of different data or split times.
        DataError: a run is given twice.
    """
    folders = [RunFolder(run, data) for run in runs]
    if len({(folder.data.path, folder.split_time) for folder in folders}) != 1:
        raise ConfigError("the runs were trained on different data or split times, so that their figures cannot stand side by side.")
    evaluation = Evaluation.of(folders[0].data, folders[0].split_time, split, max_requests)
    # Before anything is measured.
    for folder in folders:
        folder.check_input(evaluation.content)
    names = _names(folders)
    bm25 = rank_bm25(evaluation)
    bm25_report = evaluation.report(bm25)
    item_ids = list(evaluation.catalogue.item_ids)
    reports = {}
    for name, folder in zip(names, folders, strict=True):
        ranking, reports[name] = measure_model(folder, evaluation)
        metrics = folder.path / "metrics.json"
        before = read_json(metrics) if metrics.exists() else {}
        write_json(metrics, before | {split: {folder.model_name: reports[name].to_json(), "bm25": bm25_report.to_json()}})
        for system, found in ((folder.model_name, ranking), ("bm25", bm25)):
            write_run(
                folder.path / "runs" / _file_name(f"{system}-{split}.run"), evaluation.request_ids, found, item_ids, f"tfebr-{system}"
            )
    return reports | {"bm25": bm25_report}


def _names(runs: list[RunFolder]) -> list[str]:
    """The runs' names in results, all different and none of them the baseline's."""
    models = [run.model_name for run in runs]
    if len(set(models)) == len(models):
        return models
    places_of([str(run.path.resolve()) for run in runs], "`runs`")
    paths = [Path(os.path.abspath(run.path)).parts for run in runs]
    ends = [[Path(*path[-length:]).as_posix() for length in range(1, len(path) + 1)] for path in paths]
    taken = collections.Counter(["bm25", *itertools.chain(*ends)])
    return [next(end for end in of_path if taken[end] == 1) for of_path in ends]


def _file_name(name: str) -> str:
    """A name that the data gave, as one of a file in the folder where it is written."""
    return urllib.parse.quote(name, safe=" ")
