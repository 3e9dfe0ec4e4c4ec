"""Numbers in intervals, and every frozen config by its own annotations: a field of another type is refused, however it was given."""

import dataclasses
import typing

import numpy as np
import pytest

from tfebr.data.features import FeatureSpec
from tfebr.data.simulator.settings import SimulatorConfig
from tfebr.errors import ConfigError
from tfebr.index.recipe import Recipe
from tfebr.infrastructure.checks import check_choice, check_number, check_numbers, conform
from tfebr.models.config import from_dict
from tfebr.models.zoo import MODELS

TOP = {kind.__name__: kind for kind in (*(model.Config for model in MODELS.values()), SimulatorConfig)}
OTHERS = {"Recipe": lambda **fields: Recipe(**{"kind": "hash"} | fields), "FeatureSpec": FeatureSpec}
# Of each annotated type, values of others: what JSON, a command line or a program may give in its place.
WRONG = {
    int: ["3", True, 2.5, None, [3], float("nan")],
    float: ["0.5", True, None, [0.5], float("nan"), float("inf"), 10**400],
    bool: [1, 0, "true", None],
    str: [3, True, None, ["a"]],
    tuple: [3, "12", {"a": 1}],
}


def nested(kind: type) -> dict[str, type]:
    """The config dataclasses among a config's fields, by field."""
    return {name: hint for name, hint in typing.get_type_hints(kind).items() if dataclasses.is_dataclass(hint)}


def wrong_values(hint: object) -> list:
    nullable = type(None) in typing.get_args(hint)
    hint = next(h for h in typing.get_args(hint) if h is not type(None)) if nullable else hint
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        found = [*WRONG[tuple], *([value] for value in WRONG[element])]
    else:
        found = WRONG[hint]
    return [value for value in found if value is not None or not nullable] + ([] if nullable else [None])


FIELDS = [
    (name, kind, field)
    for top in TOP.values()
    for name, kind in {"": top, **nested(top)}.items()
    for field in typing.get_type_hints(kind)
    if field not in nested(kind)
]


@pytest.mark.parametrize(("where", "kind", "field"), {(w, k.__name__, f): (w, k, f) for w, k, f in FIELDS}.values(), ids=str)
def test_a_field_of_another_type_is_refused_by_its_name(where, kind, field):
    top = kind if not where else next(k for k in TOP.values() if nested(k).get(where) is kind)
    for value in wrong_values(typing.get_type_hints(kind)[field]):
        with pytest.raises(ConfigError, match=rf"^`{field}` must be .*Received: "):
            kind(**{field: value})
        plain = {where: {field: value}} if where else {field: value}
        with pytest.raises(ConfigError, match=rf"^shop.json{'.' + where if where else ''}: `{field}` must be .*Received: "):
            from_dict(top, plain, "shop.json")


@pytest.mark.parametrize("name", OTHERS)
def test_configs_that_are_made_by_programs_refuse_the_same(name):
    make = OTHERS[name]
    for field, hint in typing.get_type_hints(type(make())).items():
        for value in wrong_values(hint):
            with pytest.raises(ConfigError, match=rf"`{field}` must be .*Received: "):
                make(**{field: value})


def test_a_config_is_the_same_however_its_values_came():
    kind = MODELS["dpsr"].Config
    plain = kind(dim=8, query_hidden=(16, 8), margin=1.0)
    assert kind(dim=np.int64(8), query_hidden=[16, np.int32(8)], margin=np.float32(1)) == plain
    assert from_dict(kind, {"dim": 8, "query_hidden": [16, 8], "margin": 1}) == plain
    assert hash(kind(query_hidden=[16])) == hash(kind(query_hidden=(16,)))


def test_a_config_of_no_known_type_is_a_program_s_fault_and_seen():
    @dataclasses.dataclass(frozen=True)
    class Settings:
        sizes: tuple[int, ...] | None = None
        share: float = 0.5

        def __post_init__(self):
            conform(self)

    assert Settings([1, 2], 1) == Settings((1, 2), 1.0)
    with pytest.raises(ConfigError, match=r"`sizes` must be a list of whole numbers, or null\. Received: \[1\.5\]"):
        Settings([1.5])


@pytest.mark.parametrize(
    ("value", "interval", "whole", "allowed"),
    [
        (0, "(0, inf)", False, "a finite number above 0"),
        (-1e-9, "[0, inf)", False, "a finite number of at least 0"),
        (1.0, "[0, 1)", False, r"a finite number in \[0, 1\)"),
        (2, "[1, 2)", True, r"a whole number in \[1, 2\)"),
        (1.0, "[1, 2)", True, r"a whole number in \[1, 2\)"),
        (float("inf"), "(-inf, inf)", False, "a finite number"),
        (float("nan"), "[0, 1]", False, r"a finite number in \[0, 1\]"),
        (np.float32("nan"), "[0, 1]", False, "a finite number"),
        (True, "[0, 1]", False, "a finite number"),
        ("1", "[0, 1]", False, "a finite number"),
        (10**400, "[0, inf)", True, "a whole number"),
        (None, "[0, inf)", True, "a whole number"),
    ],
)
def test_a_number_outside_its_interval_is_named(value, interval, whole, allowed):
    with pytest.raises(ConfigError, match=rf"^`tau` must be {allowed}"):
        check_number("tau", value, interval, whole)


@pytest.mark.parametrize(
    ("value", "interval", "whole"),
    [(0, "[0, 1)", False), (1, "[0, 1]", True), (np.float32(0.5), "(0, 1)", False), (np.int64(3), "[1, inf)", True)],
)
def test_a_number_inside_its_interval_passes(value, interval, whole):
    check_number("tau", value, interval, whole)
    check_numbers("taus", (value, value), 2, interval, whole)


def test_sequences_and_words_are_named_too():
    with pytest.raises(ConfigError, match=r"`weights` must be 3 finite numbers of at least 0\. Received: \(1, 2\)"):
        check_numbers("weights", (1, 2), 3, "[0, inf)")
    with pytest.raises(ConfigError, match="`weights` must be 3 finite numbers"):
        check_numbers("weights", "abc", 3)
    for word in ("max", None, 3):
        with pytest.raises(ConfigError, match="`reduction` must be one of sum, mean"):
            check_choice("reduction", word, ("sum", "mean"))
