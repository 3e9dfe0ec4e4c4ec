"""The models by name."""

from tfebr.errors import ConfigError
from tfebr.models.dpsr import DPSR
from tfebr.models.mgdspr import MGDSPR
from tfebr.models.mmse import MMSE
from tfebr.models.retrieval_model import RetrievalModel
from tfebr.models.two_tower import TwoTower

MODELS: dict[str, type[RetrievalModel]] = {"dpsr": DPSR, "mgdspr": MGDSPR, "mmse": MMSE, "two_tower": TwoTower}


def model_class(name: str) -> type[RetrievalModel]:
    """The model of that name; raises ConfigError listing the known ones."""
    if name not in MODELS:
        raise ConfigError(f"unknown model {name!r}. Known models: {', '.join(MODELS)}.")
    return MODELS[name]
