"""The models by name: the library's own, and those that users register."""

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tfebr.errors import ConfigError
from tfebr.models.dpsr import DPSR
from tfebr.models.mgdspr import MGDSPR
from tfebr.models.mmse import MMSE
from tfebr.models.retrieval_model import RetrievalModel
from tfebr.models.two_tower import TwoTower

MODELS: dict[str, type[RetrievalModel]] = {"dpsr": DPSR, "mgdspr": MGDSPR, "mmse": MMSE, "two_tower": TwoTower}
_OWN = frozenset(MODELS)
Model = TypeVar("Model", bound=type[RetrievalModel])


def register(name: str) -> Callable[[Model], Model]:
    """A decorator that lets `train`, `evaluate` and `export` find a model of yours by `name`, also in another process.

    ```
    @register("deep")
    class Deep(TwoTower): ...
    ```

    A run remembers the module, or the file, that the class was defined in. On the command line name both: `--model my_models.py:deep`.

    Raises:
        ConfigError: the name is taken by another class or is not a word of letters, digits, "_" and "-"; the class is no
            `RetrievalModel`, or has no dataclass `Config`.
    """

    def add(kind: Model) -> Model:
        if not name.replace("_", "").replace("-", "").isalnum() or not name.isascii():
            raise ConfigError(f"`name` of a model must be made of letters, digits, `_` and `-`. Received: {name!r}.")
        if not (inspect.isclass(kind) and issubclass(kind, RetrievalModel)):
            raise ConfigError(f"`register` must decorate a subclass of `tfebr.models.RetrievalModel`. Received: {kind!r}.")
        if not hasattr(kind, "Config"):
            raise ConfigError(f"{kind.__qualname__}: `Config` must be a frozen dataclass of the model's settings. Received: none.")
        # Run again, as a cell of a notebook is, it is the same model.
        if name in _OWN or (name in MODELS and MODELS[name].__qualname__ != kind.__qualname__):
            raise ConfigError(f"`name` of a model must be a new one. Received: {name!r}, which is {MODELS[name].__qualname__}.")
        MODELS[name] = kind
        return kind

    return add


def name_of(kind: type[RetrievalModel]) -> str:
    """The name that a model class is registered by; raises ConfigError when it is not."""
    for name, known in MODELS.items():
        if known is kind:
            return name
    raise ConfigError(f"{kind.__qualname__}: must be registered, so that runs can name it. Put `@tfebr.models.register(NAME)` above it.")


def model_class(name: str, source: dict[str, str] | None = None) -> type[RetrievalModel]:
    """The model of a name, or of `MODULE:NAME` or `FILE.py:NAME`, which is imported first.

    Args:
        source: where a run says that the class was defined, by `source_of`; imported when nobody has registered the name yet.

    Raises:
        ConfigError: nobody registered the name, naming the near ones, or what should register it cannot be imported.
    """
    where, _, short = name.rpartition(":")
    if where:
        name, source = short, {"file" if where.endswith(".py") else "module": where}
    if name not in MODELS and source is not None:
        _import(source)
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"unknown model {name!r}.{hint} Known models: {', '.join(MODELS)}. A model of your own is named MODULE:NAME or FILE.py:NAME."
        )
    return MODELS[name]


def source_of(kind: type[RetrievalModel]) -> dict[str, str] | None:
    """Where another process finds the class: `module`, and `file` where it has one; None for the library's own."""
    if name_of(kind) in _OWN:
        return None
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return {"module": kind.__module__} | ({"file": str(Path(file).resolve())} if file else {})


def _import(source: dict[str, str]) -> None:
    """Imports the module by its name, or its file where the name leads nowhere."""
    module, file = source.get("module", "__main__"), source.get("file")
    if module != "__main__" and module not in sys.modules:
        try:
            importlib.import_module(module)
            return
        except ModuleNotFoundError as error:
            if error.name != module and not module.startswith(f"{error.name}."):
                raise
    if file is None or not Path(file).is_file():
        raise ConfigError(
            f"the model's module must be importable. Received: {module if file is None else file}, which is not found. A model that was "
            "defined in a notebook or a shell is known there alone: move it to a file."
        )
    name = module if module != "__main__" else f"_tfebr_{Path(file).stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"the model's file must be Python. Received: {file}.")
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
