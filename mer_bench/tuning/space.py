"""What a study searches: the settings that a model and the trainer declare with `Tune`, and how they are narrowed.

Names are those of `--set`: a field of the model, of the trainer, or `inner.NAME` of the model inside a wrapper.
The starting point is what the model's card says for the dataset. Where that lies outside a declared range, the
range is widened to hold it, and where it lies between two steps, the step is made finer: a study can always begin
with the card's settings. Narrowing never goes the other way.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from mer_bench import registry
from mer_bench.config import INNER, Settings, TrainerSettings, Tune, WrapperSettings, limits
from mer_bench.errors import RequestError, SettingError, UnknownNameError
from mer_bench.request import Plan

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

Owner = Literal["model", "inner", "trainer"]

POINTS = 5
"""Values of a range without steps that a grid tries."""


@dataclass(frozen=True)
class Dimension:
    """A setting that is searched: an interval of numbers, or a list of choices.

    Attributes:
        name: As `--set` takes it.
        start: What the card says; always a value that may be suggested.
        low, high: Of an interval. step: Between its values; None is any number, or every whole one.
        declared_step: What the settings class says, counted from `declared_low`; `step` may be finer, to meet `start`.
        choices: Where it is no interval.
        when: Searched only where all of these settings have these values.
    """

    name: str
    owner: Owner
    start: Any
    low: float | int | None = None
    high: float | int | None = None
    step: float | int | None = None
    declared_low: float | int | None = None
    declared_step: float | int | None = None
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] | None = None
    when: Mapping[str, Any] = field(default_factory=dict)

    def suggest(self, trial: Trial) -> Any:
        """The value that a trial is to take."""
        if self.choices is not None:
            return self.decoded(trial.suggest_categorical(self.name, [encoded(choice) for choice in self.choices]))
        assert self.low is not None
        assert self.high is not None
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return self.decoded(trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log))

    def decoded(self, value: Any) -> Any:
        """What a study's value stands for: a choice, or a point of the grid without the rounding of three times 0.1."""
        if self.step is not None and isinstance(value, float):
            return round(value, 12)
        for choice in self.choices or ():
            if same(encoded(choice), value):
                return choice
        return value

    def holds(self, value: Any) -> bool:
        """Whether a value may be suggested."""
        if self.choices is not None:
            return any(same(choice, value) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or (self.whole and value != int(value)):
            return False
        assert self.low is not None
        assert self.high is not None
        if not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) <= 1e-6

    @property
    def distribution(self) -> BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices is not None:
            return CategoricalDistribution([encoded(choice) for choice in self.choices])
        assert self.low is not None
        assert self.high is not None
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    @property
    def points(self) -> tuple[Any, ...]:
        """The values that a grid tries: every choice, every declared step, or a few of an interval; `start` too."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None
        assert self.high is not None
        step = self.declared_step or (1 if self.whole and self.high - self.low < 2 * POINTS else None)
        if step:
            origin = self.low if self.declared_low is None or not self.declared_step else self.declared_low
            first = math.ceil((self.low - origin) / step - 1e-9)
            last = math.floor((self.high - origin) / step + 1e-9)
            values = [_tidy(origin + number * step) for number in range(first, last + 1)]
        elif self.log:
            ratio = math.log(self.high / self.low)
            values = [self.low * math.exp(ratio * number / (POINTS - 1)) for number in range(POINTS)]
        else:
            values = [_tidy(self.low + (self.high - self.low) * number / (POINTS - 1)) for number in range(POINTS)]
        # Rounding must not push an end out of the interval.
        kept = {min(max(round(each) if self.whole else each, self.low), self.high) for each in values}
        exact = {int(each) if self.whole else float(each) for each in kept}
        return tuple(sorted({*(each for each in exact if self.holds(each)), self.start}))

    def text(self) -> str:
        """What is searched, as a person reads it: `[0.0001, 0.01] logarithmic`, `8, 16, 32`."""
        if self.choices is not None:
            return ", ".join(_shown(choice) for choice in self.choices)
        step = f" in steps of {self.step:g}" if self.step else ""
        return f"[{self.low:g}, {self.high:g}]{step}{' logarithmic' if self.log else ''}"

    def as_json(self) -> dict[str, Any]:
        """What a study keeps of it."""
        told: dict[str, Any] = {"of": self.owner, "start": encoded(self.start)}
        if self.choices is not None:
            told["choices"] = [encoded(choice) for choice in self.choices]
        else:
            told |= {"low": self.low, "high": self.high, "step": self.step, "log": self.log}
        return told | ({"when": {name: encoded(value) for name, value in self.when.items()}} if self.when else {})


@dataclass(frozen=True)
class Space:
    """All that a study searches, and what is the same in every trial.

    Attributes:
        dimensions: Each after those that its condition names.
        fixed: Settings that the user fixed.
        base: Every setting of the card and the user by name: what conditions on settings that are not searched read.
    """

    dimensions: tuple[Dimension, ...]
    fixed: Mapping[str, Any]
    base: Mapping[str, Any]

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Values for a trial, of the settings whose condition holds and of no other."""
        return self._walk(lambda dimension: dimension.suggest(trial))

    def start(self) -> dict[str, Any]:
        """The card's settings, as far as they are searched, as Optuna takes them."""
        return {name: encoded(value) for name, value in self._walk(lambda dimension: dimension.start).items()}

    def settings_of(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a trial from the parameters that a study keeps of it, what was fixed included."""
        known = {dimension.name: dimension for dimension in self.dimensions}
        return {**self.fixed, **{name: known[name].decoded(value) for name, value in params.items() if name in known}}

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Every combination of grid points, as Optuna takes them; conditional settings only where they count."""
        yield from self._combined(0, {})

    def as_json(self) -> dict[str, Any]:
        """What a study keeps of it: the dimensions by name."""
        return {dimension.name: dimension.as_json() for dimension in self.dimensions}

    def holds(self, dimension: Dimension, chosen: Mapping[str, Any]) -> bool:
        """Whether a setting is searched, given the values of those before it."""
        searched = {each.name for each in self.dimensions}
        for name, wanted in dimension.when.items():
            if name in searched and name not in chosen:
                return False  # not searched itself here, so that it has no say
            if not same(chosen.get(name, self.base.get(name)), wanted):
                return False
        return True

    def _walk(self, value_of: Any) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        for dimension in self.dimensions:
            if self.holds(dimension, chosen):
                chosen[dimension.name] = value_of(dimension)
        return chosen

    def _combined(self, place: int, chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if place == len(self.dimensions):
            yield {name: encoded(value) for name, value in chosen.items()}
            return
        dimension = self.dimensions[place]
        if not self.holds(dimension, chosen):
            yield from self._combined(place + 1, chosen)
            return
        for point in dimension.points:
            yield from self._combined(place + 1, {**chosen, dimension.name: point})


def encoded(value: Any) -> Any:
    """A choice as a study keeps it: itself where it is a plain value, else its JSON."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else json.dumps(value)


def same(left: Any, right: Any) -> bool:
    """Equality by which true is not 1."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def space_of(plan: Plan, narrowed: Mapping[str, Any] | None = None) -> Space:
    """The search space of a plan; the settings that its request gives are fixed and not searched.

    Args:
        narrowed: From `--space`, by name: a list of choices, or a table with `low`, `high`, `step`, `log`.

    Raises:
        RequestError: If nothing is left to search.
        UnknownNameError, SettingError: For the first name or range that is wrong.
    """
    base = _base(plan)
    declared = dict(_declared(plan, base))
    for name, change in (narrowed or {}).items():
        if name in plan.request.settings:
            raise SettingError(
                f"{name} is both fixed (--fix {name}={_shown(plan.request.settings[name])}) and in --space."
            )
        if name not in declared:
            raise UnknownNameError("setting that is searched", name, declared, f"mer-bench info {plan.model} --space")
        declared[name] = narrow(declared[name], change)
    left = [dimension for name, dimension in declared.items() if name not in plan.request.settings]
    space = Space(tuple(_ordered(left)), dict(plan.request.settings), base)
    space = replace(space, dimensions=tuple(each for each in space.dimensions if _possible(space, each)))
    if not space.dimensions:
        raise RequestError(
            f"there is nothing to search: no setting of {plan.model} has a search space and is not fixed. "
            f"See: mer-bench info {plan.model} --space"
        )
    return space


def read_space_file(file: Path) -> dict[str, Any]:
    """The narrowed ranges in a TOML file: `hidden_dim = { low = 64, high = 128 }`, `batch_size = [16, 32]`.

    Raises:
        RequestError: If the file is not there or is not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RequestError(f"the space file {file} cannot be read: {reason}.") from None
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"the space file {file} is not valid TOML: {error}.") from None


def narrow(dimension: Dimension, change: Any) -> Dimension:
    """A dimension with less in it: every value that is left was there before.

    Where the card's value is not left, the study starts from the nearest one that is.

    Args:
        change: A list of values, or a table with any of `low`, `high`, `step` and `log`.

    Raises:
        SettingError: If the change is malformed, or reaches what the dimension does not hold.
    """
    if isinstance(change, list):
        return _narrowed_to(dimension, change)
    if not isinstance(change, dict):
        value = _shown(change)
        raise SettingError(
            f"{dimension.name} in --space must be a list of values or a table with low and high, but is {value}; "
            f"one value is given with --fix {dimension.name}={value}."
        )
    if dimension.choices is not None:
        raise SettingError(
            f"{dimension.name} in --space must be a list of some of {dimension.text()}, but a table was given."
        )
    unknown = [key for key in change if key not in ("low", "high", "step", "log")]
    if unknown:
        raise UnknownNameError(f"key of {dimension.name} in --space", unknown[0], ("low", "high", "step", "log"))
    return _within(dimension, change)


def _narrowed_to(dimension: Dimension, values: list[Any]) -> Dimension:
    outside = [value for value in values if not dimension.holds(value)]
    if outside or not values:
        given = f"holds {_shown(outside[0])}" if outside else "is empty"
        raise SettingError(f"{dimension.name} is searched in {dimension.text()}, but its list in --space {given}.")
    kept: list[Any] = []
    for value in values:
        exact = next((each for each in dimension.choices or () if same(each, value)), value)
        if dimension.choices is None:
            exact = int(value) if dimension.whole else float(value)
        if not any(same(exact, each) for each in kept):
            kept.append(exact)
    start = dimension.start if any(same(dimension.start, each) for each in kept) else kept[0]
    if dimension.choices is None:
        start = min(kept, key=lambda each: abs(each - dimension.start))
    return Dimension(dimension.name, dimension.owner, start, choices=tuple(kept), when=dimension.when)


def _within(dimension: Dimension, change: Mapping[str, Any]) -> Dimension:
    """An interval within another, on the other's own steps."""
    assert dimension.low is not None
    assert dimension.high is not None
    for key in ("low", "high", "step"):
        value = change.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise SettingError(f"{key} of {dimension.name} in --space must be a number, but is {_shown(value)}.")
    log = change.get("log", dimension.log)
    if not isinstance(log, bool):
        raise SettingError(f"log of {dimension.name} in --space must be true or false, but is {_shown(log)}.")
    wanted_low, wanted_high = change.get("low", dimension.low), change.get("high", dimension.high)
    if wanted_low < dimension.low or wanted_high > dimension.high or wanted_low > wanted_high:
        raise SettingError(
            f"{dimension.name} is searched in {dimension.text()}, but --space asks for "
            f"[{wanted_low:g}, {wanted_high:g}]; give low and high within that range."
        )
    finest = dimension.step or (1 if dimension.whole else None)
    step = change.get("step", finest)
    if step is not None and (step <= 0 or (finest is not None and _off(step, finest))):
        every = "above 0" if finest is None else f"a multiple of {finest:g}"
        raise SettingError(f"step of {dimension.name} in --space must be {every}, but is {step:g}.")
    if log and (step != (1 if dimension.whole else None) or wanted_low <= 0):
        raise SettingError(f"{dimension.name} in --space cannot be logarithmic: it has steps, or starts at 0.")
    low, high = wanted_low, wanted_high
    if finest is not None:
        low = _tidy(dimension.low + math.ceil((wanted_low - dimension.low) / finest - 1e-9) * finest)
    if step is not None:
        high = _tidy(low + math.floor((wanted_high - low) / step + 1e-9) * step)
    if low > high:
        raise SettingError(
            f"{dimension.name} is searched in {dimension.text()}, of which nothing lies in "
            f"[{wanted_low:g}, {wanted_high:g}], as --space asks."
        )
    start = min(max(dimension.start, low), high)
    if step is not None:
        start = min(_tidy(low + round((start - low) / step) * step), high)
    convert = int if dimension.whole else float
    keeps_step = "step" not in change and dimension.declared_step is not None
    return replace(
        dimension,
        start=convert(start),
        low=convert(low),
        high=convert(high),
        step=None if step is None or log else convert(step),
        declared_low=dimension.declared_low if keeps_step else convert(low),
        declared_step=dimension.declared_step if keeps_step else change.get("step"),
        log=log,
    )


def _off(value: float, step: float) -> bool:
    steps = value / step
    return abs(steps - round(steps)) > 1e-6 or round(steps) == 0


def _base(plan: Plan) -> dict[str, Any]:
    """Every setting by the name that `--set` has for it."""
    base = {**plan.training.model_dump(), **plan.settings.model_dump()}
    settings, prefix = plan.settings, ""
    while isinstance(settings, WrapperSettings):
        prefix += INNER
        inner = registry.settings_class(settings.inner).model_validate(settings.inner_settings)
        base |= {prefix + name: value for name, value in inner.model_dump().items()}
        settings = inner
    return base


def _declared(plan: Plan, base: Mapping[str, Any]) -> Iterator[tuple[str, Dimension]]:
    kind: type[Settings] = type(plan.settings)
    yield from _of_class(kind, "model", "", base)
    settings, prefix = plan.settings, ""
    while isinstance(settings, WrapperSettings):
        prefix += INNER
        kind = registry.settings_class(settings.inner)
        yield from _of_class(kind, "inner", prefix, base)
        settings = kind.model_validate(settings.inner_settings)
    if plan_trains(plan):
        yield from _of_class(TrainerSettings, "trainer", "", base)


def plan_trains(plan: Plan) -> bool:
    """Whether the trainer's settings have a say: of a model that is fitted at one go they have none."""
    from mer_bench.api import FittedModel

    return not issubclass(registry.load_model(plan.model).model_class, FittedModel)


def _of_class(
    kind: type[Settings], owner: Owner, prefix: str, base: Mapping[str, Any]
) -> Iterator[tuple[str, Dimension]]:
    for name, (declared, tune) in kind.tunables().items():
        full = prefix + name
        yield full, dimension_of(full, owner, declared, tune, base[full], prefix)


def dimension_of(name: str, owner: Owner, declared: FieldInfo, tune: Tune, start: Any, prefix: str = "") -> Dimension:
    """The dimension of a field, widened and refined where the start needs it."""
    when = {prefix + other: value for other, value in (tune.when or {}).items()}
    choices: Sequence[Any] | None = tune.choices
    if choices is None and declared.annotation is bool:
        choices = (False, True)
    elif choices is None and get_origin(declared.annotation) is Literal:
        choices = get_args(declared.annotation)
    if choices is not None:
        known = any(same(choice, start) for choice in choices)
        return Dimension(name, owner, start, choices=tuple(choices) if known else (*choices, start), when=when)
    legal = limits(declared)
    whole = declared.annotation is int
    low = min(legal.low if tune.low is None else tune.low, start)
    high = max(legal.high if tune.high is None else tune.high, start)
    step = tune.step
    if tune.step is not None:
        step = _step_through(tune.low if tune.low is not None else legal.low, tune.step, start)
    convert = int if whole else float
    return Dimension(
        name,
        owner,
        start,
        low=convert(low),
        high=convert(high),
        step=None if step is None else convert(step),
        declared_low=tune.low if tune.low is not None else legal.low,
        declared_step=None if tune.step is None else convert(tune.step),
        log=tune.log,
        whole=whole,
        when=when,
    )


def _step_through(low: float, step: float, value: float) -> float:
    """The largest step that divides the given one and, from `low`, meets a value."""
    divisor = Fraction(Decimal(repr(step)))
    rest = abs(Fraction(Decimal(repr(value))) - Fraction(Decimal(repr(low))))
    while rest:
        divisor, rest = rest, divisor % rest
    return float(divisor)


def _ordered(dimensions: Sequence[Dimension]) -> list[Dimension]:
    """Each after those that its condition names, else in the order of declaration."""
    left, done = list(dimensions), list[Dimension]()
    while left:
        waiting = {each.name for each in left}
        free = next((each for each in left if not waiting & set(each.when)), None)
        if free is None:
            raise SettingError(f"the conditions of {left[0].name} and {left[-1].name} wait for each other.")
        left.remove(free)
        done.append(free)
    return done


def _possible(space: Space, dimension: Dimension) -> bool:
    """Whether the condition of a setting can hold in this space at all."""
    by_name = {each.name: each for each in space.dimensions}
    return all(
        (by_name[name].holds(wanted) and _possible(space, by_name[name]))
        if name in by_name
        else same(space.base.get(name), wanted)
        for name, wanted in dimension.when.items()
    )


def _tidy(value: float) -> float:
    """A sum of steps without the dust of floating point."""
    return float(f"{value:.12g}")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value)
