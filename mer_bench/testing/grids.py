"""Checks of a settings class: its limits, its choices, and the grid that a study searches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from mer_bench.config import Settings, Tune, limits, validated
from mer_bench.errors import MerBenchError

LARGEST_TRIAL = 512
"""A whole number above this is not tried by building a model: too slow for a check."""


def grid_faults(kind: type[Settings]) -> list[str]:
    """What is wrong with the search grids of a settings class, one sentence each.

    Every default must lie on its own grid, so that a study can start from it.
    """
    faults = []
    for name, (field, tune) in kind.tunables().items():
        fault = _grid_fault(field, tune) or _condition_fault(kind, name, tune) or _choice_fault(kind, name, tune)
        if fault:
            faults.append(f"the search grid of {name} {fault}.")
    return faults


def _grid_fault(field: FieldInfo, tune: Tune) -> str | None:
    numeric = (tune.low, tune.high, tune.step) != (None, None, None) or tune.log
    if tune.choices is not None:
        if numeric:
            return "has choices as well as numbers; a setting has one or the other"
        return None if field.default in tune.choices else f"does not hold the default {field.default!r}"
    if field.annotation is bool or get_origin(field.annotation) is Literal:
        return "is numeric, but the setting is not" if numeric else None
    if field.annotation not in (int, float):
        return "needs choices, since the setting is neither a number nor a Literal"
    legal = limits(field)
    low = legal.low if tune.low is None else tune.low
    high = legal.high if tune.high is None else tune.high
    return _range_fault(field, low, high) or _spacing_fault(field, tune, low, high)


def _range_fault(field: FieldInfo, low: float, high: float) -> str | None:
    illegal = [end for end in (low, high) if not limits(field).hold(end)]
    if not (math.isfinite(low) and math.isfinite(high)):
        return "has no end: give low and high, or limits of the field"
    if not low < high:
        return f"is empty: low {low:g} is not below high {high:g}"
    if illegal:
        return f"reaches {illegal[0]:g}, which is not legal"
    if not low <= field.default <= high:
        return f"does not hold the default {field.default:g}: it covers [{low:g}, {high:g}]"
    return None


def _spacing_fault(field: FieldInfo, tune: Tune, low: float, high: float) -> str | None:
    if tune.log and (tune.step is not None or low <= 0):
        return f"is logarithmic, but starts at {low:g}" if low <= 0 else "has both log and step"
    if field.annotation is int and any(float(end) != int(end) for end in (low, high, tune.step or 1)):
        return "has ends or a step that are no whole numbers"
    if tune.step is None:
        return None
    if tune.step <= 0:
        return f"has the step {tune.step:g}, which is not above 0"
    for what, value in (("default", field.default), ("high end", high)):
        steps = (value - low) / tune.step
        if abs(steps - round(steps)) > 1e-6:
            return f"goes from {low:g} in steps of {tune.step:g}, which never meet the {what} {value:g}"
    return None


def _condition_fault(kind: type[Settings], name: str, tune: Tune) -> str | None:
    for other, value in (tune.when or {}).items():
        if other not in kind.model_fields or other == name:
            return f"depends on {other}, which is no other setting of the model"
        try:
            validated(kind, {other: value})
        except MerBenchError as error:
            return f"depends on {other}={value!r}, which is not legal: {error}"
    return None


def _choice_fault(kind: type[Settings], name: str, tune: Tune) -> str | None:
    for choice in tune.choices or ():
        try:
            validated(kind, {name: choice})
        except MerBenchError as error:
            return f"holds {choice!r}, which is not legal: {error}"
    return None


@dataclass(frozen=True)
class Trial:
    """A value of one setting that a model is tried with.

    Attributes:
        is_choice: True for one of few values, which switch parts of the model on and off; False for
            the end of an interval.
    """

    name: str
    value: Any
    is_choice: bool


def trials(kind: type[Settings]) -> Iterator[Trial]:
    """Every choice, limit and end of a search grid other than the defaults, one setting at a time."""
    tunables = kind.tunables()
    for name, field in kind.model_fields.items():
        tune = tunables[name][1] if name in tunables else Tune()
        choices: list[Any] = list(tune.choices or ())
        if field.annotation is bool:
            choices += [True, False]
        elif get_origin(field.annotation) is Literal:
            choices += get_args(field.annotation)
        # Not by equality: True == 1 and 1 == 1.0 are other choices all the same.
        tried = {repr(field.default)}
        for values, is_choice in ((choices, True), (_ends(field, tune), False)):
            for value in values:
                if repr(value) not in tried:
                    tried.add(repr(value))
                    yield Trial(name, value, is_choice)


def _ends(field: FieldInfo, tune: Tune) -> list[Any]:
    if field.annotation not in (int, float):
        return []
    legal = limits(field)
    ends = [end for end in (legal.low, legal.high, tune.low, tune.high) if end is not None and math.isfinite(end)]
    if field.annotation is int:
        ends = [int(end) for end in ends if end <= LARGEST_TRIAL]
    return [end for end in ends if legal.hold(end)]
