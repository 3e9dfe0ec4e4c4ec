"""tf.data batches of ids from example shards: the one input pipeline of every model."""

import numpy as np
import tensorflow as tf

from tfebr.data.examples import Shards
from tfebr.data.features import Featurizer
from tfebr.data.names import column_key
from tfebr.data.propensity import inverse_propensity
from tfebr.data.stage import Stage

Batch = dict[str, tf.Tensor]

# Shown items that are kept of a request: a search page; clicked items come first, so that none is lost.
SHOWN_ITEMS = 64
# What is known of shown items, and what stands for none.
_SHOWN = {"items": 0, "stages": -1, "positions": -1}
# A click is worth at most this many at the first position: the bound of `inverse_propensity`.
_LARGEST_CONFIDENCE = 10.0
_HISTORY = ("history_items", "history_stages", "history_ages")
# Reading record by record costs several times what the record itself does; blocks of this many are read at once and shuffled singly.
_RECORDS_AT_ONCE = 64
# Shards were shuffled when they were written; this many records are held to bring them into another order each epoch.
_SHUFFLED = 20_000


def training_batches(
    shards: Shards,
    featurizer: Featurizer,
    batch_size: int,
    seed: int,
    epochs: int,
    done: int = 0,
    supervision: Shards | None = None,
    supervision_share: float = 0.0,
    propensities: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Shuffled batches of several epochs; in each epoch every request once, with one of its clicked items drawn as the positive.

    The order depends on the seed and the epoch alone, so a resumed run continues where it stopped.
    The last batch of an epoch is dropped when it is not full, unless it is the only one (`steps_of` counts them).

    Args:
        done: steps of the whole run that are left out, because an interrupted run has taken them.
        supervision: labelled pairs to draw `supervision_share` of the examples from, over and over, in place of the log's.
        propensities: float [positions], how likely each position is examined, as `RunFolder.propensities` gives them: in a unit in which
            the log's clicks have a mean confidence of 1.

    Returns:
        The dataset; each batch has, beside the model's features, `items`, `stages` and `positions` int32 [batch, shown] (padded with 0, -1
        and -1), `positive` int32 [batch] (an item row), `known_positives` int32 [batch, shown] (all rows that were clicked, 0 elsewhere),
        `negatives` int32 [batch, n] (labelled negatives, padded with 0), `confidence` float32 [batch, shown], how far to believe a click on
        each shown item, and `positive_confidence` float32 [batch], that of the positive. Confidence is the inverse propensity of the item's
        position, at most 10 times that of the first; 1 for labelled pairs and padding, and for everything without propensities.
    """
    steps = steps_of(shards, batch_size)
    by_position = None
    if propensities is not None:
        by_position = inverse_propensity(propensities, np.arange(len(propensities)), _LARGEST_CONFIDENCE / propensities[0])

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        # Of this function's own graph: it would inherit the program's seed, every order would depend on that, and a shuffle seeded by a
        # tensor fails where it is 0.
        tf.compat.v1.set_random_seed(1)
        records = _shuffled_records(shards, seed, number, labelled=False)
        if supervision is not None:
            labelled = _shuffled_records(supervision, seed, number, labelled=True).repeat()
            shares = [1 - supervision_share, supervision_share]
            records = tf.data.Dataset.sample_from_datasets([records, labelled], shares, seed * 1021 + number, True)
        return records.batch(batch_size, drop_remainder=shards.examples >= batch_size).take(steps)

    # One data set for all epochs: to build one costs as much as thousands of examples.
    batched = tf.data.Dataset.range(done // steps, epochs).flat_map(epoch).enumerate(done // steps * steps).skip(done % steps)

    def parse(step: tf.Tensor, records: tuple[tf.Tensor, tf.Tensor]) -> Batch:
        serialized, labelled = records
        batch = _featurize(_parse(serialized, featurizer), featurizer)
        clicked = tf.where(batch["stages"] >= int(Stage.CLICKED), batch["items"], 0)
        drawn = _draw(clicked, tf.stack([seed * 1019, step]))
        confidence = _confidence(batch["positions"], labelled, by_position)
        batch |= {"known_positives": clicked, "confidence": confidence}
        return batch | {
            "positive": tf.gather(clicked, drawn, batch_dims=1),
            "positive_confidence": tf.gather(confidence, drawn, batch_dims=1),
        }

    return batched.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(4)


def steps_of(shards: Shards, batch_size: int) -> int:
    """Batches of an epoch."""
    return max(1, shards.examples // batch_size)


def evaluation_batches(shards: Shards, featurizer: Featurizer, batch_size: int = 512) -> tf.data.Dataset:
    """Every example once, in the order of the shards, with `request_id`."""
    records = tf.data.TFRecordDataset(shards.paths)

    def parse(serialized: tf.Tensor) -> Batch:
        return _featurize(_parse(serialized, featurizer), featurizer)

    return records.batch(batch_size).map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def _parse(serialized: tf.Tensor, featurizer: Featurizer) -> Batch:
    """[batch] serialized examples -> what the spec reads of them."""
    names = ["items", "stages", "positions", "negatives"]
    if featurizer.spec.history_items:
        names += _HISTORY
    spec = {name: tf.io.RaggedFeature(tf.int64) for name in names}
    spec |= {name: tf.io.FixedLenFeature([], tf.string) for name in ("request_id", "query")}
    spec |= {f"user_{column_key(c)}": tf.io.FixedLenFeature([], tf.string) for c in featurizer.user_columns}
    if featurizer.spec.history_queries:
        spec |= {"history_queries": tf.io.RaggedFeature(tf.string)}
    parsed = tf.io.parse_example(serialized, spec)
    for name in names:
        parsed[name] = tf.cast(parsed[name], tf.int32)
    return parsed


def _featurize(parsed: Batch, featurizer: Featurizer) -> Batch:
    """Dense tensors: lists padded with 0 or "" and cut to the spec's lengths."""
    spec, count = featurizer.spec, tf.shape(parsed["query"])[0]
    batch = {"request_id": parsed["request_id"], "negatives": parsed["negatives"].to_tensor(0)}
    batch |= _first_shown({name: parsed[name].to_tensor(padding) for name, padding in _SHOWN.items()})
    for name in _HISTORY:
        read = name in parsed
        batch[name] = parsed[name].to_tensor(0, shape=[None, spec.history_items]) if read else tf.zeros([count, 0], tf.int32)
    past = tf.zeros([count, 0], tf.string)
    if "history_queries" in parsed:
        past = parsed["history_queries"].to_tensor("", shape=[None, spec.history_queries])
    batch |= query_features(featurizer, parsed["query"], past)
    return batch | featurizer.user({c: parsed[f"user_{column_key(c)}"] for c in featurizer.user_columns})


def _first_shown(shown: Batch) -> Batch:
    """At most SHOWN_ITEMS of each request, the latest stages first where there are more."""
    stages = shown["stages"]

    def cut() -> Batch:
        first = tf.argsort(stages, axis=1, direction="DESCENDING", stable=True)[:, :SHOWN_ITEMS]
        return {name: tf.gather(values, first, batch_dims=1) for name, values in shown.items()}

    return tf.cond(tf.shape(stages)[1] > SHOWN_ITEMS, cut, lambda: shown)


def _confidence(positions: tf.Tensor, labelled: tf.Tensor, by_position: np.ndarray | None) -> tf.Tensor:
    """float32 [batch, shown] of positions [batch, shown]; `labelled` is bool [batch]."""
    if by_position is None:
        return tf.ones_like(positions, tf.float32)
    found = tf.gather(by_position, tf.clip_by_value(positions, 0, len(by_position) - 1))
    # Whoever labels a pair looks at it wherever it stands.
    return tf.where((positions < 0) | labelled[:, None], 1.0, found)


def query_features(featurizer: Featurizer, queries: tf.Tensor, history_queries: tf.Tensor) -> Batch:
    """[batch] queries and [batch, n] past queries -> `query_GRAIN` [batch, length] and `history_query_GRAIN` [batch, n, length]."""
    spec = featurizer.spec
    count = tf.shape(queries)[0]
    features = {}
    # One pass of the tokeniser over current and past queries, each text once: users repeat themselves, and much is padding.
    texts, place = tf.unique(tf.reshape(tf.concat([queries[:, None], history_queries], axis=1), [-1]))
    for grain, found in featurizer.query(texts).items():
        ids = tf.reshape(tf.gather(found, place), [count, 1 + spec.history_queries, found.shape[-1]])
        features[f"query_{grain}"] = ids[:, 0]
        features[f"history_query_{grain}"] = ids[:, 1:]
    return features


def _shuffled_records(shards: Shards, seed: int, epoch: tf.Tensor, labelled: bool) -> tf.data.Dataset:
    """Serialized examples, each beside whether it is a labelled pair."""
    files = tf.data.Dataset.from_tensor_slices(shards.paths).shuffle(len(shards.paths), seed=seed * 1009 + epoch)
    blocks = files.interleave(
        lambda file: tf.data.TFRecordDataset(file).batch(_RECORDS_AT_ONCE).map(lambda r: (r, tf.fill(tf.shape(r), labelled))),
        cycle_length=4,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return blocks.unbatch().shuffle(min(shards.examples, _SHUFFLED), seed=seed * 1013 + epoch)


def _draw(rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """[batch, n] -> [batch]: the column of one of the entries that are not 0, uniformly at random."""
    noise = tf.random.stateless_uniform(tf.shape(rows), seed)
    return tf.argmax(tf.where(rows > 0, noise, -1.0), axis=1, output_type=tf.int32)
