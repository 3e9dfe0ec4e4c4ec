"""What every loss, task and layer must refuse, from one description of its arguments: see `Example`."""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfebr.errors import ConfigError
from tfebr.tasks import RetrievalTask

SIZES = {"batch": 3, "candidates": 4, "shown": 2, "n": 2, "m": 5, "explicit": 6, "dim": 8, "heads": 2, "rows": 3, "length": 5, "events": 5}
_TENSOR = re.compile(r"(float|int|id|bool|any) \[(.*?)\]( or .*)?$")
# No setting of the library is any of these; others are in `Example.outside`.
NO_NUMBERS = ("3", True, float("nan"), float("inf"), -1, -0.5)

# What a task's call makes for its loss, what Keras gives it, and TFRS's switches.
_OF_TASKS = {"queries", "pool", "scores", "mask", "training", "compute_metrics", "compute_batch_metrics"}


class Example(NamedTuple):
    """A call that is in order: its arguments by name, tensors as "float [batch, candidates]".

    Attributes:
        arguments: of the function, or of the layer's call.
        settings: of the constructor, where a class is called.
        outside: argument or setting -> values that are out of its range, beside `NO_NUMBERS`.
        called: what an error may call a tensor, beside its name.
    """

    arguments: dict[str, Any]
    settings: dict[str, Any] | None = None
    outside: dict[str, tuple] | None = None
    called: tuple[str, ...] = ()


def run_refusals_test(target: Callable, example: Example) -> None:
    """Every argument in turn is made wrong, which a ConfigError must name, and the call in order must pass."""
    leaves = dict(_leaves(example.arguments))
    tensors = {path: values_of(spec) for path, spec in leaves.items() if _is_tensor(spec)}
    call = lambda changed: _call(target, example, tensors | changed)  # noqa: E731
    call({})
    for path, spec in leaves.items():
        if path in tensors:
            for wrong, why in _wrong_tensors(path, leaves):
                # Of two sizes that differ, either may be the wrong one.
                names = [*(p[-1] for p in tensors), *example.called]
                _refused(lambda: call({path: wrong}), names, f"{path}: {spec} given {why}")  # noqa: B023
    for name, value in (example.arguments | (example.settings or {})).items():
        for wrong in () if _is_tensor(value) else (*_wrong_settings(value), *(example.outside or {}).get(name, ())):
            changed = example._replace(
                arguments=example.arguments | ({name: wrong} if name in example.arguments else {}),
                settings=None if example.settings is None else example.settings | ({name: wrong} if name in example.settings else {}),
            )
            _refused(lambda: _call(target, changed, tensors), [name], f"{name} = {wrong!r}")  # noqa: B023


def parameters(target: Callable) -> set[str]:
    """What a call of a function, or of a class and its instance, can be given."""
    functions, hidden = [target], {"self"}
    if inspect.isclass(target):
        functions = [target.__init__, target.call]
        if issubclass(target, RetrievalTask):
            functions, hidden = [*functions, target.compute_loss], hidden | _OF_TASKS
    named = {p for f in functions for p in inspect.signature(f).parameters.values() if p.kind is not p.VAR_KEYWORD}
    return {p.name for p in named} - hidden


def values_of(spec: str, **sizes: int) -> np.ndarray:
    """An array as described, of values that no function minds."""
    kind, shape, _ = _TENSOR.match(spec).groups()
    shape = [int(s) if s.isdigit() else (SIZES | sizes | {"...": 2})[s] for s in shape.split(", ") if s]
    filled = np.linspace(0.1, 0.9, int(np.prod(shape))).reshape(shape).astype(np.float32)
    ones = np.ones(shape, np.int32)
    return {"float": filled, "any": filled, "int": ones, "id": ones, "bool": ones.astype(bool)}[kind]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, str) and _TENSOR.match(value) is not None


def _leaves(arguments: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of everything in nested dicts, lists and named tuples; the last part of a path is what an error names."""
    if isinstance(arguments, dict):
        items = arguments.items()
    elif hasattr(arguments, "_asdict"):
        items = [(f"{path[-1]}.{name}", value) for name, value in arguments._asdict().items()]
    elif isinstance(arguments, list):
        items = [(f"{path[-1]}[{i}]", value) for i, value in enumerate(arguments)]
    else:
        yield path, arguments
        return
    for name, value in items:
        yield from _leaves(value, (*path, name))


def _filled(value: Any, tensors: dict[tuple[str, ...], np.ndarray], path: tuple[str, ...] = ()) -> Any:
    if isinstance(value, dict):
        return {name: _filled(v, tensors, (*path, name)) for name, v in value.items()}
    if hasattr(value, "_asdict"):
        return type(value)(*(_filled(v, tensors, (*path, f"{path[-1]}.{n}")) for n, v in value._asdict().items()))
    if isinstance(value, list):
        return [_filled(v, tensors, (*path, f"{path[-1]}[{i}]")) for i, v in enumerate(value)]
    return tf.constant(tensors[path]) if path in tensors else value


def _call(target: Callable, example: Example, tensors: dict[tuple[str, ...], np.ndarray]) -> Any:
    arguments = _filled(example.arguments, tensors)
    if example.settings is None:
        return target(**arguments)
    instance = target(**example.settings)
    return instance(**arguments) if isinstance(instance, RetrievalTask) else instance(*arguments.values())


def _wrong_tensors(path: tuple[str, ...], leaves: dict[tuple[str, ...], Any]) -> Iterator[tuple[np.ndarray, str]]:
    spec = leaves[path]
    kind, shape, other_shapes = _TENSOR.match(spec).groups()
    names, value = [s for s in shape.split(", ") if s], values_of(spec)
    others = {s for other, text in leaves.items() if other != path and _is_tensor(text) for s in _TENSOR.match(text).group(2).split(", ")}
    if "..." not in names or "..." in others:
        yield value[..., None], "a rank more"
        if names and not other_shapes:
            yield value[0], "a rank less"
    for axis, name in enumerate(names):
        if name != "..." and (name in others or name.isdigit()):
            yield np.concatenate([value, np.take(value, [0], axis)], axis), f"a longer {name}"
            if value.shape[axis] > 1 and not other_shapes:
                yield np.take(value, [0], axis), f"a {name} of 1"
    if kind == "any":
        return
    yield value.astype({"float": np.int32, "int": np.float32, "id": np.float32, "bool": np.int32}[kind]), "another dtype"
    if kind != "bool":
        yield value.astype(bool), "bool"


def _wrong_settings(value: Any) -> Iterator[Any]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield from NO_NUMBERS
        if isinstance(value, int):
            yield value + 0.5
    elif isinstance(value, str):
        yield from ("nonsense", 3, None)
    elif isinstance(value, tuple) and not hasattr(value, "_asdict"):
        yield from (value[:-1], (*value, 0.9), (*value[:-1], "3"), (*value[:-1], float("nan")), (*value[:-1], -1))


def _refused(call: Callable[[], Any], names: list[str], what: str) -> None:
    raised = None
    try:
        call()
    except ConfigError as error:
        raised = str(error)
    assert raised is not None, f"accepted in silence: {what}"
    wording = re.search(r"`([^`]+)` must (be|have) .*Received: ", raised, re.DOTALL)
    assert wording, f"{what}: {raised}"
    assert any(name in wording[1] for name in names), f"{what}: {raised}"


def all_public(module: Any) -> Iterator[tuple[str, Callable]]:
    """Functions and classes that a module defines under a public name."""
    for name, value in vars(module).items():
        defined = (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == module.__name__
        if defined and not name.startswith("_"):
            yield name, value
