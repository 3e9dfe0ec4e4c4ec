"""Learning query intents: what the clicks on a query's words say about its brand and its category."""

import os
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfebr.data.catalogue import Catalogue
from tfebr.data.intent_counts import Categories, Names, blocks
from tfebr.data.log import clicked_items
from tfebr.data.query_intent import IntentTables, terms_of
from tfebr.data.roles import ColumnRoles
from tfebr.errors import ConfigError
from tfebr.infrastructure.checks import check_number
from tfebr.infrastructure.progress import progress

# So many clicks choose the columns; from there on only those two are counted.
_CHOOSING_CLICKS = 100_000
# What names are worth more than settled categories: a column whose values are always named, and nothing else, is one of names.
_SURER = 1.01


def learn_intent(
    catalogue: Catalogue,
    log_batches: Iterable[pa.RecordBatch],
    folder: str | os.PathLike,
    brand_column: str | None = None,
    category_column: str | None = None,
    roles: ColumnRoles | None = None,
    end_time: int | None = None,
    max_categories: int = 16,
    pairs_in_memory: int = 8_000_000,
    quiet: bool = False,
) -> IntentTables:
    """Streams the log once and writes the tables of a `QueryIntent` into `folder`, atomically.

    Of the columns of categories, whatever their names, one becomes the brand: that whose values queries name; and another the category:
    that which the words of a query settle. The clicks choose the two whose clauses tell most: of each click on what a clause leaves,
    log2(items / items left). Without such clicks, the brand is the column whose values stand in their own items' texts.

    Brand: a name is an intent when at least 70 % of the clicks on queries that hold it fall on its brands; a whole query that holds a name
    and has 10 clicks is judged likewise by its own. With fewer than 10 clicks on a name, at least 90 % of the items whose texts or
    category hold it must be its brands'.
    Category: a word, word pair or whole query settles the category when it has at least 30 clicks, and 10 for each of at most
    `max_categories` categories; categories with less than 0.3 % of its clicks are noise. Of several such terms in a query the one with the
    least entropy decides. A category with few clicks is kept on purpose: relevant items that are rarely shown get few, and dropping such
    categories costs more relevant items than it keeps out others.

    Args:
        log_batches: batches of `log.SCHEMA`, of the training part; empty where there is no log, and then only names are learned.
        brand_column, category_column: columns of strings to take in place of those that the clicks choose.
        roles: what the catalogue's columns are for; by their types where it is None.
        end_time: requests from this time (seconds since 1970) on are left out.
        max_categories: longest category condition.
        pairs_in_memory: counts of (term, category) or (query, brand name) that are held; beyond, the terms or queries with the fewest
            clicks are forgotten.

    Raises:
        ConfigError: a column is not a categorical column of the catalogue, or `max_categories` or `pairs_in_memory` is not positive.
    """
    for setting, value in (("max_categories", max_categories), ("pairs_in_memory", pairs_in_memory)):
        check_number(setting, value, "[1, inf)", whole=True)
    roles, given, clicks = roles or ColumnRoles.of(catalogue.table), (brand_column, category_column), 0
    brands = {c: Names(catalogue, c, pairs_in_memory) for c in _columns(catalogue, roles, "brand_column", brand_column)}
    categories = {c: Categories(catalogue, c, pairs_in_memory) for c in _columns(catalogue, roles, "category_column", category_column)}
    with progress("query intents", None, "requests", quiet) as advance:
        for batch in log_batches:
            if end_time is not None:
                batch = batch.filter(pc.less(batch["time"], end_time))
            request, item_ids = clicked_items(batch)
            item = catalogue.rows_of(item_ids)
            # An item that has left the catalogue says nothing on what is there now.
            request, item = request[item >= 0], item[item >= 0]
            asked, query = np.unique(request, return_inverse=True)
            encoded = batch["query"].take(pa.array(asked)).dictionary_encode()
            query = encoded.indices.to_numpy()[query]
            for grams, whole, rows in blocks(encoded.dictionary):
                mine = (query >= rows.start) & (query < rows.stop)
                for names in brands.values():
                    names.add(grams, whole, query[mine] - rows.start, item[mine])
                terms = terms_of(grams, whole).numpy()
                for settled in categories.values():
                    settled.add(terms, query[mine] - rows.start, item[mine])
            clicks += len(item)
            if clicks >= _CHOOSING_CLICKS and max(len(brands), len(categories)) > 1:
                brands, categories = _chosen(brands, categories, given, roles.text, max_categories)
            advance(batch.num_rows)
    brands, categories = _chosen(brands, categories, given, roles.text, max_categories)
    (brand,) = brands.values() or [Names(catalogue, None, pairs_in_memory)]
    (category,) = categories.values() or [Categories(catalogue, None, pairs_in_memory)]
    sure = brand.sure((*roles.text, *categories))
    # A brand's name says where the brand is strong, not what is asked for: the brand clause has that already.
    names = brand.terms()[np.tile(sure, 2)]
    query_fingerprints, query_name = brand.judged_queries()
    term_fingerprints, term_rank, rank_clause, clauses = category.settled(names, max_categories)
    tables = IntentTables(
        brand.fingerprints, brand.clauses(), sure, query_fingerprints, query_name, term_fingerprints, term_rank, rank_clause, clauses
    )
    tables.write(folder)
    return tables


def _columns(catalogue: Catalogue, roles: ColumnRoles, argument: str, given: str | None) -> tuple[str, ...]:
    """Those to choose from."""
    if given is None:
        return roles.category
    if given not in catalogue.categorical_columns:
        known = ", ".join(catalogue.categorical_columns) or "none"
        raise ConfigError(
            f"`{argument}` should name a categorical column of the catalogue. Received: {given!r}. Categorical columns: {known}."
        )
    return (given,)


def _chosen(
    brands: dict[str, Names],
    categories: dict[str, Categories],
    given: tuple[str | None, str | None],
    texts: Sequence[str],
    max_categories: int,
) -> tuple[dict[str, Names], dict[str, Categories]]:
    """One of each, or none where no column is worth anything; two different ones, unless one was given for both."""
    named: dict[str | None, float] = {None: 0.0} | {column: _SURER * names.bits() for column, names in brands.items()}
    settled: dict[str | None, float] = {None: 0.0} | {column: of.bits(max_categories) for column, of in categories.items()}
    pairs = [(b, c) for c in settled for b in named if b is None or b != c or None not in given]
    pairs = [pair for pair in pairs if all(asked in (None, column) for asked, column in zip(given, pair, strict=True))]
    brand, category = max(pairs, key=lambda pair: named[pair[0]] + settled[pair[1]])
    kept = {c: of for c, of in categories.items() if c == category}
    if brand is None:
        by_texts = {column: names.bits_of_texts((*texts, *kept)) for column, names in brands.items() if column != category}
        brand = max((column for column, bits in by_texts.items() if bits > 0), key=lambda column: by_texts[column], default=None)
    return {column: names for column, names in brands.items() if column == brand}, kept
