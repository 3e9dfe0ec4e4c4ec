"""Search with a number of results, a filter and exclusions for each row of a batch: approximate where many items are left, else exact."""

import functools

import numpy as np
import tensorflow as tf

from tfebr.index import base
from tfebr.index.attributes import ItemAttributes
from tfebr.index.base import Index
from tfebr.index.scann import ScannIndex

# Matching items are all scored while their vectors have at most so many values: 65,000 items of width 64 take 5 ms, about as long as to
# look for the best of them among a million.
_EXACT_VALUES = 2**22
# Values of vectors that are gathered at one time: 16 MB.
_VALUES_AT_ONCE = 2**22
_SMALLEST_BLOCK = 1024
# Of the candidates that an index would reorder without a filter, so many times as many are looked for among the matching items.
_MARGIN = 1.5
# More candidates lie in more leaves, but not in as many more. Among a million items of which 10 % match, recall@100 is 0.991 with a
# power of a third of the candidates' factor, 0.998 with this one and 0.999, in a fifth more time, with a power of 1.
_LEAVES_POWER = 2 / 3


def filtered_search(
    index: Index,
    attributes: ItemAttributes | None,
    queries: tf.Tensor,
    k: int | tf.Tensor,
    clauses: tf.Tensor | None = None,
    excluded: tf.Tensor | None = None,
    leaves: int | tf.Tensor = 0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds for each query the k best of the items that match and are not excluded; always k of them where there are k.

    The result of a row does not depend on the other rows, whatever these ask for: rows are searched together where their searches go
    equally deep, see `Index.effort`.

    A row without clauses is searched as `Index.search` does, for as many more results as it excludes. For one with clauses the matching
    items are counted. Few are all scored. For many the index looks for more candidates, in inverse proportion to the share that matches,
    and those that do not match are dropped before any full score is computed; when fewer remain than the index would reorder without a
    filter, because the matching items are not those near to the query, all matching items are scored after all. So it goes with a row
    without clauses, too, whose partitions hold fewer than k items.

    Args:
        index: what is searched.
        attributes: the values of its items; needed for `clauses`.
        queries: [batch, heads, dim] float32.
        k: how many results, at least 1: as in `Index.search`, or int32 [batch].
        clauses: [batch, n] strings, padded with "": see `tfebr.index.attributes`.
        excluded: [batch, m] int32 rows of items that are not to be found; repeated and negative ones do not count.
        leaves: partitions to look into, one number or int32 [batch]; 0 or less stands for the recipe's, more than there are for all.

    Returns:
        (scores, rows) as `Index.search` does, as wide as the largest k; in a row of a smaller k the rest is empty.
    """
    batch = tf.shape(queries)[0]
    widest = k if isinstance(k, int) or k.shape.rank == 0 else tf.reduce_max(tf.concat([k, [0]], 0))
    k, leaves = tf.broadcast_to(k, [batch]), tf.broadcast_to(leaves, [batch])
    clauses = tf.zeros([batch, 0], tf.string) if clauses is None else clauses
    excluded = _each_once(tf.zeros([batch, 0], tf.int32) if excluded is None else excluded)
    has_filter = tf.reduce_any(clauses != "", axis=1)
    plain, filtered = tf.where(~has_filter)[:, 0], tf.where(has_filter)[:, 0]
    of_plain = functools.partial(tf.gather, indices=plain)
    scores, rows, short = _search_plain(index, of_plain(queries), of_plain(k), of_plain(excluded), of_plain(leaves), widest)
    one_by_one = tf.concat([filtered, tf.boolean_mask(plain, short)], 0)

    def one(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = _search_one(index, attributes, queries[row][None], k[row], clauses[row], excluded[row], leaves[row])
        scores, rows = base.finish(*found, widest)
        return scores[0], rows[0]

    # One at a time: each holds a flag for every item.
    static_k = tf.get_static_value(widest)
    spec = (tf.TensorSpec([static_k], tf.float32), tf.TensorSpec([static_k], tf.int32))
    more_scores, more_rows = tf.cond(
        tf.size(one_by_one) > 0,
        lambda: tf.map_fn(one, one_by_one, parallel_iterations=1, fn_output_signature=spec),
        lambda: (tf.zeros([0, widest], tf.float32), tf.zeros([0, widest], tf.int32)),
    )
    place = tf.argsort(tf.concat([tf.boolean_mask(plain, ~short), one_by_one], 0))
    scores, rows = (
        tf.gather(tf.concat([tf.boolean_mask(first, ~short), more], 0), place) for first, more in ((scores, more_scores), (rows, more_rows))
    )
    return scores, rows


def _search_plain(
    index: Index, queries: tf.Tensor, k: tf.Tensor, excluded: tf.Tensor, leaves: tf.Tensor, widest: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Scores and rows [batch, widest] without any filter, and [batch] which rows have fewer results than there are."""
    without = tf.reduce_sum(tf.cast(excluded >= 0, tf.int32), axis=1)
    wanted = tf.maximum(tf.minimum(k + without, index.items), 1)
    depth, leaves = index.effort(wanted, leaves)
    efforts = tf.unique(tf.cast(depth, tf.int64) * 2**32 + tf.cast(leaves, tf.int64))

    def add_equals(i: tf.Tensor, scores: tf.Tensor, rows: tf.Tensor, order: tf.Tensor) -> tuple:
        own = tf.cast(tf.where(efforts.idx == i)[:, 0], tf.int32)
        found = index.search(tf.gather(queries, own), tf.reduce_max(tf.gather(wanted, own)), leaves[own[0]])
        more = _without(*found, tf.gather(excluded, own), tf.gather(k, own), widest)
        return i + 1, tf.concat([scores, more[0]], 0), tf.concat([rows, more[1]], 0), tf.concat([order, own], 0)

    matrix, nothing = tf.TensorShape([None, tf.get_static_value(widest)]), tf.zeros([0, widest])
    _, scores, rows, order = tf.while_loop(
        lambda i, *_: i < tf.size(efforts.y),
        add_equals,
        (0, nothing, tf.cast(nothing, tf.int32), tf.zeros([0], tf.int32)),
        shape_invariants=(tf.TensorShape([]), matrix, matrix, tf.TensorShape([None])),
        parallel_iterations=1,
    )
    scores, rows = (tf.gather(part, tf.argsort(order)) for part in (scores, rows))
    any_usable = tf.reduce_any(base.usable_heads(queries)[1], axis=1)
    found = tf.reduce_sum(tf.cast(rows >= 0, tf.int32), axis=1)
    return scores, rows, any_usable & (found < tf.minimum(k, index.items - without))


def _without(scores: tf.Tensor, rows: tf.Tensor, excluded: tf.Tensor, k: tf.Tensor, widest: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The first k results of each row that are not excluded, padded to `widest`."""
    place = tf.minimum(tf.searchsorted(excluded, rows), tf.shape(excluded)[1] - 1)
    kept = (rows >= 0) & (tf.gather(excluded, place, batch_dims=1) != rows)
    kept &= tf.cumsum(tf.cast(kept, tf.int32), axis=1) <= k[:, None]
    scores, places = tf.math.top_k(tf.where(kept, scores, -np.inf), tf.minimum(tf.shape(scores)[1], widest))
    return base.finish(scores, tf.gather(rows, places, batch_dims=1), widest)


def _each_once(excluded: tf.Tensor) -> tf.Tensor:
    """[batch, m + 1] rows in ascending order, -1 in the place of each that is negative or repeats another; there is one -1 at least."""
    ordered = tf.sort(tf.pad(tf.maximum(excluded, -1), [[0, 0], [1, 0]], constant_values=-1), axis=1)
    repeats = tf.pad(ordered[:, 1:] == ordered[:, :-1], [[0, 0], [1, 0]])
    return tf.sort(tf.where(repeats, -1, ordered), axis=1)


def _search_one(
    index: Index,
    attributes: ItemAttributes | None,
    query: tf.Tensor,
    k: tf.Tensor,
    clauses: tf.Tensor,
    excluded: tf.Tensor,
    leaves: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The results of one [1, heads, dim] query, at most k."""
    matches = tf.ones([index.items], tf.bool) if attributes is None else attributes.matches(clauses)
    excluded = tf.boolean_mask(excluded, excluded >= 0)[:, None]
    matches = tf.tensor_scatter_nd_update(matches, excluded, tf.zeros_like(excluded[:, 0], tf.bool))

    def all_matching() -> tf.Tensor:
        return tf.cast(tf.where(matches)[:, 0], tf.int32)

    if not isinstance(index, ScannIndex):
        return _best(index, query, all_matching(), k)
    count = tf.reduce_sum(tf.cast(matches, tf.int32))
    reorder = tf.maximum(index.recipe.reorder, k)
    leaves = index.effort(k[None], leaves[None])[1][0]
    rows = tf.cond(
        count <= _EXACT_VALUES // index.dim, all_matching, lambda: _near_and_matching(index, query, matches, count, reorder, leaves)
    )
    return _best(index, query, tf.cond(tf.size(rows) < tf.minimum(reorder, count), all_matching, lambda: rows), k)


def _near_and_matching(
    index: ScannIndex, query: tf.Tensor, matches: tf.Tensor, count: tf.Tensor, reorder: tf.Tensor, leaves: tf.Tensor
) -> tf.Tensor:
    """Matching rows near to the query, each once: the candidates of the index that match."""
    factor = _MARGIN * tf.cast(index.items / count, tf.float32)
    wanted = tf.cast(tf.math.ceil(tf.cast(reorder, tf.float32) * factor), tf.int32)
    leaves = tf.cast(tf.math.ceil(tf.cast(leaves, tf.float32) * factor**_LEAVES_POWER), tf.int32)
    leaves = tf.clip_by_value(leaves, 1, max(index.recipe.leaves, 1))
    rows = index.candidates(query, tf.minimum(wanted, index.items), leaves)[0]
    rows = tf.boolean_mask(rows, rows >= 0)
    return tf.unique(tf.boolean_mask(rows, tf.gather(matches, rows))).y


def _best(index: Index, query: tf.Tensor, rows: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The best of these rows by full score, at most k, a block at a time so that memory stays bounded."""
    query, usable = base.usable_heads(query)
    block = max(_VALUES_AT_ONCE // index.dim, _SMALLEST_BLOCK)

    def scores_of(first: tf.Tensor) -> tf.Tensor:
        return base.best_head(tf.matmul(query, index.vectors(rows[first : first + block]), transpose_b=True), usable)

    scores, places = base.best_in_blocks(scores_of, tf.size(rows), block, tf.minimum(k, tf.size(rows)))
    return scores, tf.gather(rows, places)
