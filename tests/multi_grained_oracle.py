"""A training step of MMSE's objective in NumPy, random or full, and its losses in plain Python."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from loss_checks import value_and_gradients

from tfebr.losses.label_smoothing import LabelSmoothing
from tfebr.tasks.candidates import Candidates
from tfebr.tasks.multi_grained_retrieval import MultiGrainedRetrieval

DIM = 3


class Step(NamedTuple):
    """A training step in NumPy; what the task takes, in its order."""

    queries: np.ndarray
    shown: np.ndarray
    shown_rows: np.ndarray
    shown_log: np.ndarray
    stages: np.ndarray
    pool: np.ndarray
    pool_rows: np.ndarray
    pool_log: np.ndarray
    known: np.ndarray
    confidence: np.ndarray
    teacher: np.ndarray

    def loss(self, task: MultiGrainedRetrieval, queries=None, shown=None, pool=None, sure: bool = True, taught: bool = False) -> tf.Tensor:
        queries, shown, pool = (mine if given is None else given for mine, given in zip(self._floats, (queries, shown, pool), strict=True))
        return task(
            queries[:, None],
            **Candidates(pool, tf.constant(self.pool_rows), tf.constant(self.pool_log)).arguments(),
            known_positives=tf.constant(self.known),
            shown=Candidates(shown, tf.constant(self.shown_rows), tf.constant(self.shown_log)),
            stages=tf.constant(self.stages),
            confidence=None if sure else tf.constant(self.confidence),
            teacher_scores=tf.constant(self.teacher) if taught else None,
        )

    def gradients(self, task: MultiGrainedRetrieval, **options) -> tuple[float, list[np.ndarray]]:
        """The loss, and its gradients by queries, shown items and pool."""
        return value_and_gradients(lambda q, s, p: self.loss(task, q, s, p, **options), *self._floats)

    def first(self, rows: int) -> "Step":
        """The first requests alone; the pool keeps their positives and the random ones."""
        batch = len(self.queries)
        kept = [*range(rows), *range(batch, len(self.pool))]
        pool = [values[kept] for values in (self.pool, self.pool_rows, self.pool_log)]
        teacher = self.teacher[:rows, [*range(self.stages.shape[1]), *(self.stages.shape[1] + at for at in kept)]]
        return Step(*(v[:rows] for v in self[:5]), *pool, self.known[:rows], self.confidence[:rows], teacher)

    @property
    def _floats(self) -> list[tf.Tensor]:
        return [tf.constant(values) for values in (self.queries, self.shown, self.pool)]


def step(seed: int, batch: int = 3, width: int = 5, random: int = 4, items: int = 9) -> Step:
    """Few items, so that copies and accidental hits are common; requests of every kind, down to those where nothing was shown."""
    rng = np.random.default_rng(seed)
    table = (rng.integers(-4, 5, (items + 1, DIM)) / 4).astype(np.float32)
    stages = rng.integers(-1, 4, (batch, width)).astype(np.int32)
    stages[rng.random(batch) < 0.2] = -1
    shown = np.where(stages >= 0, rng.integers(1, items + 1, (batch, width)), 0).astype(np.int32)
    drawn = [rng.choice(row[of >= 1]) if (of >= 1).any() else 0 for row, of in zip(shown, stages, strict=True)]
    pool = np.int32([*drawn, *rng.integers(0, items + 1, random)])
    known = np.concatenate([shown, rng.integers(0, items + 1, (batch, 1))], axis=1).astype(np.int32)
    number = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return Step(
        (rng.integers(-4, 5, (batch, DIM)) / 4).astype(np.float32),
        table[shown],
        shown,
        number(batch, width),
        stages,
        table[pool],
        pool,
        number(len(pool)),
        known,
        rng.choice([0.0, 0.5, 1.0, 3.0], (batch, width)).astype(np.float32),
        number(batch, width + len(pool)),
    )


def term(logits: list[float], log_probability: list[float], taught: list[float], smoothing: LabelSmoothing) -> float:
    """Cross-entropy of the softmax with the smoothed target, whose positive stands first."""
    spread = lambda values: [math.exp(v) / sum(math.exp(w) for w in values) for v in values]  # noqa: E731
    targets = [(1 - smoothing.total) * (at == 0) + smoothing.uniform / len(logits) for at in range(len(logits))]
    targets = [t + smoothing.sampling * q for t, q in zip(targets, spread(log_probability), strict=True)]
    targets = [t + smoothing.bootstrap * p for t, p in zip(targets, spread(taught), strict=True)]
    return -sum(t * math.log(p) for t, p in zip(targets, spread(logits), strict=True))


def row_of_terms(terms: list[tuple[float, float]], reduction: str) -> float:
    over = sum(weight for weight, _ in terms) if reduction == "mean" else 1.0
    return sum(weight * value for weight, value in terms) / over if over else 0.0


def plain_softmax(
    s: Step, temperature, lowest, weights, reduction="mean", unclicked=False, several=False, sure=True, smoothing=None, taught=False
) -> float:
    """The retrieval loss, or with `several` levels of candidates below each other the graded one; levels are stages + 1."""
    losses = []
    for i, query in enumerate(s.queries):
        width = len(s.stages[i])
        scores = [float(query @ item) / temperature for item in (*s.shown[i], *s.pool)]
        log_probability = [*s.shown_log[i].tolist(), *s.pool_log.tolist()]
        teacher = [t / temperature for t in s.teacher[i].tolist()] if taught else scores
        random = [width + j for j, row in enumerate(s.pool_rows) if row > 0 and row not in s.known[i]]
        terms = []
        for at, stage in enumerate(s.stages[i]):
            if stage + 1 < lowest:
                continue
            below = [k for k, other in enumerate(s.stages[i]) if 0 <= other < (stage if several else 1) and (several or unclicked)] + random
            if below:
                believed = 1.0 if sure else float(s.confidence[i, at])
                among = [[values[k] for k in (at, *below)] for values in (scores, log_probability, teacher)]
                terms.append((weights[stage + 1], believed * term(*among, smoothing or LabelSmoothing())))
        losses.append(row_of_terms(terms, reduction))
    return sum(losses) / len(losses)


def plain_ranking(s: Step, form: str, margin, temperature: float, sure: bool) -> float:
    """`margin` is a number, three steps, or a function of (row, a, b)."""
    losses = []
    for i, query in enumerate(s.queries):
        scores, stages, terms = [float(query @ item) for item in s.shown[i]], s.stages[i].tolist(), []
        for a, stage in enumerate(stages):
            believed = 1.0 if sure else float(s.confidence[i, a])
            earlier = [b for b, other in enumerate(stages) if 0 <= other < stage]
            if form == "listwise":
                gaps = [math.exp((scores[b] - scores[a]) / temperature) for b in earlier]
                terms += [(1.0, believed * math.log(1 + sum(gaps)))] if earlier else []
                continue
            for b in earlier:
                delta = margin(i, a, b) if callable(margin) else sum(margin[stages[b] : stage]) if isinstance(margin, tuple) else margin
                gap = scores[b] - scores[a]
                pair = max(0.0, delta + gap) if form == "hinge" else math.log(1 + math.exp(gap / temperature))
                terms.append((1.0, believed * pair))
        losses.append(row_of_terms(terms, "mean"))
    return sum(losses) / len(losses)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    product = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b) / float(product) if product else 0.0


def plain_adaptive(s: Step, temperature, alpha, margin, ranking_weight, anchor_weight, weights, reduction, sure) -> float:
    batch, rows, anchored = len(s.queries), [], 0.0
    negative = lambda i, j: s.pool_rows[j] > 0 and s.pool_rows[j] not in s.known[i]  # noqa: E731
    for i, query in enumerate(s.queries):
        terms = []
        for at, stage in enumerate(s.stages[i]):
            if stage >= 1:
                gaps = [
                    float(query @ (item - s.shown[i, at])) / (temperature * (1 + alpha * (1 - cosine(s.shown[i, at], item))))
                    for j, item in enumerate(s.pool)
                    if negative(i, j)
                ]
                believed = 1.0 if sure else float(s.confidence[i, at])
                terms.append((weights[stage - 1], believed * math.log(1 + sum(math.exp(gap) for gap in gaps))))
        rows.append(row_of_terms(terms, reduction))
    ranking = plain_ranking(s, "hinge", lambda i, a, b: margin + alpha * (1 - cosine(s.shown[i, a], s.shown[i, b])), 1.0, sure)
    for j in range(batch):
        gaps = [float((s.queries[i] - s.queries[j]) @ s.pool[j]) / temperature for i in range(batch) if negative(i, j)]
        anchored += math.log(1 + sum(math.exp(gap) for gap in gaps))
    return sum(rows) / batch + ranking_weight * ranking + anchor_weight * anchored / batch


def full(seed: int = 0) -> Step:
    """Two requests with items of every stage, no copies: the pool's rows are 1, 2 | 21, 22, 23, the shown ones 1, 11 .. and 2, 16 .."""
    s = step(seed, batch=2, width=5, random=3, items=30)
    shown = np.int32([[1, 11, 12, 13, 14], [2, 16, 17, 18, 19]])
    rows = np.int32([1, 2, 21, 22, 23])
    table = np.random.default_rng(seed).normal(size=(31, DIM)).astype(np.float32)
    stages = np.int32([[1, 0, 0, 2, 3], [3, 0, 1, 0, -1]])
    return s._replace(shown=table[shown], shown_rows=shown, stages=stages, pool=table[rows], pool_rows=rows, known=shown)
