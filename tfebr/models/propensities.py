"""How likely each position of a shop's page is examined, learned from the training part of its log."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from tfebr.data.batches import SHOWN_ITEMS
from tfebr.data.dataset import DataFolder
from tfebr.data.log import shown_items
from tfebr.data.propensity import position_propensities
from tfebr.data.stage import Stage
from tfebr.errors import DataError


def training_part(data: DataFolder, split_time: int | None) -> Iterator[pa.RecordBatch]:
    """The training part of the log."""
    for batch in data.log().batches():
        yield batch if split_time is None else batch.filter(pa.array(batch["time"].to_numpy() < split_time))


def learn_propensities(data: DataFolder, split_time: int | None) -> dict[str, list]:
    """Of each position in the training part of the log: `propensities`, the first is 1, and `clicks`.

    Raises:
        DataError: its positions tell nothing.
    """
    clicks = np.zeros(SHOWN_ITEMS, np.int64)

    def counted() -> Iterator[pa.RecordBatch]:
        for batch in training_part(data, split_time):
            _, _, stages, positions = shown_items(batch)
            known = positions[(stages >= Stage.CLICKED) & (positions >= 0)]
            clicks[:] += np.bincount(np.minimum(known, SHOWN_ITEMS - 1), minlength=SHOWN_ITEMS)
            yield batch

    problem = None
    try:
        propensities = position_propensities(counted(), SHOWN_ITEMS)
    except DataError as error:
        problem = error
    if problem or np.count_nonzero(clicks) < 2:
        raise DataError(
            f"{data.path / 'log'}: its positions tell nothing of how likely each is examined, which `debias` needs to know: it compares "
            f"clicks on one item at several positions for one query, position 0 among them. Clicks by position: {clicks[:20].tolist()}. "
            "Set `debias` to false, or give a longer log."
        ) from problem
    return {"propensities": propensities.tolist(), "clicks": clicks.tolist()}
