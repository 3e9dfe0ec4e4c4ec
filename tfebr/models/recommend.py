"""Answers of a trained model in the process that trained it: every item scored exactly, with titles, for people to look at."""

import dataclasses
import html
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import tensorflow as tf

from tfebr.data.item_ids import ItemIds
from tfebr.errors import RequestError
from tfebr.infrastructure.checks import check_number
from tfebr.models.encoders import RawQueryEncoder

if TYPE_CHECKING:
    from tfebr.models.retrieval_model import RetrievalModel
    from tfebr.models.run_folder import RunFolder


class Recommendation(NamedTuple):
    """One result."""

    item_id: str
    title: str
    score: float


@dataclasses.dataclass(frozen=True)
class Recommendations(Sequence[Recommendation]):
    """The results for one query, the best first; prints as a table, also in a notebook."""

    query: str
    results: tuple[Recommendation, ...]

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index):  # type: ignore[override]  # of a slice, a tuple
        return self.results[index]

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.results)

    @property
    def item_ids(self) -> list[str]:
        """The ids alone."""
        return [result.item_id for result in self.results]

    def __str__(self) -> str:
        width = max((len(result.item_id) for result in self.results), default=0)
        lines = [f"{rank:>3}  {r.item_id:<{width}}  {r.score:>7.3f}  {r.title}" for rank, r in enumerate(self.results, 1)]
        return "\n".join([self.query, *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{rank}</td><td>{html.escape(r.item_id)}</td><td>{html.escape(r.title)}</td><td>{r.score:.3f}</td></tr>"
            for rank, r in enumerate(self.results, 1)
        )
        head = "<tr><th></th><th>item</th><th>title</th><th>score</th></tr>"
        return f"<table><caption>{html.escape(self.query)}</caption>{head}{rows}</table>"


class Recommender:
    """Ranks the whole catalogue of a run for raw queries. Items are embedded once, when it is made.

    Args:
        model: with its weights as they are to be used.
        run: of the model.
    """

    def __init__(self, model: "RetrievalModel", run: "RunFolder"):
        catalogue = run.trained_on()
        self._ids, self._titles = catalogue.item_ids, catalogue.table["title"]
        self._encoder = RawQueryEncoder(model, run.featurizer, ItemIds(catalogue.item_ids))
        self._items = tf.constant(model.corpus_embeddings())
        self._scores = tf.function(self._score)

    def __call__(
        self, query: str, k: int, user: Mapping[str, str], history: Sequence[str], history_queries: Sequence[str]
    ) -> Recommendations:
        """See `RetrievalModel.recommend`."""
        check_number("k", k, "[1, inf)", whole=True)
        given = {"query": query, "history_items": list(history), "history_queries": list(history_queries)}
        columns = self._encoder.columns
        unknown = [column for column in user if column not in columns.values()]
        if unknown:
            known = ", ".join(columns.values()) or "there are none"
            raise RequestError(f"`user` must name columns of the profiles: {known}. Received: {unknown[0]!r}.")
        given |= {name: user.get(column, "") for name, column in columns.items()}
        signature = self._encoder.input_signature
        inputs = {name: _row(spec, given.get(name), len(history)) for name, spec in signature.items()}
        scores, rows = tf.math.top_k(self._scores(inputs), min(k, len(self._ids)))
        found = zip(rows.numpy().tolist(), scores.numpy().tolist(), strict=True)
        return Recommendations(query, tuple(Recommendation(self._ids[row], self._titles[row].as_py(), score) for row, score in found))

    def _score(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """[items], by the best head."""
        return tf.reduce_max(tf.matmul(self._encoder(inputs)[0], self._items, transpose_b=True), axis=0)


def _row(spec: tf.TensorSpec, value: str | Sequence[str] | None, events: int) -> tf.Tensor:
    """A batch of one; what is not given is empty, and of each event 0."""
    if spec.shape.rank == 1:
        return tf.constant([value or ""], spec.dtype)
    if spec.dtype == tf.string:
        return tf.reshape(tf.constant(value or [], tf.string), [1, -1])
    return tf.zeros([1, events], spec.dtype)
