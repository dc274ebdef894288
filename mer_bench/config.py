"""Typed settings of models and of the trainer: defaults, legal ranges and search spaces in one place.

A plugin's settings are one frozen pydantic model, a child of `Settings`. The legal range stands
beside the default, and `Tune` beside it says how a study searches it::

    class GruConfig(Settings):
        hidden_dim: Annotated[int, Field(ge=32, le=512), Tune(low=64, high=256, step=64)] = 128
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)
from pydantic.fields import FieldInfo

from mer_bench.errors import SettingError, UnknownNameError

__all__ = [
    "Field",
    "Settings",
    "TrainerSettings",
    "Tune",
    "WrapperSettings",
    "merge_settings",
    "parse_assignment",
    "split_settings",
    "validated",
]


@dataclass(frozen=True)
class Tune:
    """How a study searches a setting. Written into the field's annotation.

    Numbers search `[low, high]` (left out: the legal range of the field), on a logarithmic scale
    with `log`, in multiples of `step` from `low`. Anything else searches `choices`; a Literal or a
    bool without `choices` searches all of its values. `when` names conditions on other settings of
    the same model, all of which must hold for this one to be searched: `{"fusion": "asymmetric"}`.
    """

    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None
    when: Mapping[str, Any] | None = None


class Settings(BaseModel):
    """Base of every settings class: frozen, and a name that no field has is an error.

    Attributes:
        added_later: Fields that a later version of the class added, whose default means what was done before there was
            such a field. At that default they are not written, so that earlier runs keep their identity.
    """

    added_later: ClassVar[frozenset[str]] = frozenset()

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_no_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        # Python counts True as 1, so that `epochs=true` would train for one epoch.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise ValueError("a number is wanted, not true or false")
        return value

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unsaid = {name for name in self.added_later if getattr(self, name) == fields[name].default}
        return {name: value for name, value in write(self).items() if name not in unsaid}

    @classmethod
    def tunables(cls) -> dict[str, tuple[FieldInfo, Tune]]:
        """The fields that a study may search, in the order of declaration."""
        found = {}
        for name, field in cls.model_fields.items():
            for item in field.metadata:
                if isinstance(item, Tune):
                    found[name] = (field, item)
        return found


class TrainerSettings(Settings):
    """How a model is trained. A model's card may change any default for a dataset.

    Attributes:
        optimizer: `adamw` decouples the weight decay from the gradient (Loshchilov & Hutter 2019).
        learning_rate: Step size at the height of the schedule.
        weight_decay: L2 coefficient (`adam`) or decoupled decay (`adamw`).
        batch_size: Dialogues in a batch.
        epochs: Passes over the train split at most.
        patience: Epochs without a better dev score after which training stops.
        schedule: Course of the learning rate after the warm-up: flat, or falling to zero along a
            cosine or a line at the last possible epoch.
        warmup: Share of all possible steps over which the learning rate rises from zero.
        clip: Largest norm of the gradient; 0 switches clipping off.
        class_weights: `none`, `inverse` (inverse train frequency, mean 1 over train utterances), or
            one number a class in the card's order.
        class_weight_power: Exponent on the inverse frequency: 1 makes every class count alike, 0.5 is
            the common square root, 0 is no weight.
        focal_gamma: Focusing exponent of the focal loss (Lin et al. 2017); 0 is cross-entropy.
        label_smoothing: Share of the target spread evenly over the classes.
        average_decay: Decay of an exponential moving average of the weights, which is what is
            scored and kept; 0 keeps the weights as they are.
        precision: `float32`, `bfloat16` mixed precision, or `float16` mixed precision (cuda).
        compile: Train through PyTorch's compiler. Sums may be taken in another order, so it decides the result.
        order_seed: Decides which dialogues form a batch and in which order batches come; left out: the run's own
            seed, which decides weights and dropout in any case. Seeds that are stacked share one.
    """

    added_later = frozenset({"compile", "order_seed"})

    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0, le=1), Tune(low=1e-4, high=1e-2, log=True)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=10), Tune(low=1e-5, high=1e-1, log=True)] = 1e-2
    batch_size: Annotated[int, Field(ge=1, le=4096), Tune(choices=(8, 16, 32, 64))] = 32
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 60
    patience: Annotated[int, Field(ge=1, le=10_000)] = 10
    schedule: Annotated[Literal["flat", "cosine", "linear"], Tune()] = "flat"
    warmup: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    clip: Annotated[float, Field(ge=0, le=1000)] = 1.0
    class_weights: Literal["none", "inverse"] | tuple[Annotated[float, Field(gt=0)], ...] = "none"
    class_weight_power: Annotated[
        float, Field(ge=0, le=1), Tune(low=0.0, high=1.0, step=0.25, when={"class_weights": "inverse"})
    ] = 1.0
    focal_gamma: Annotated[float, Field(ge=0, le=10)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1), Tune(low=0.0, high=0.2, step=0.05)] = 0.0
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    order_seed: Annotated[int | None, Field(ge=0)] = None


INNER = "inner."
"""What stands before the name of a setting of the model inside a wrapper: `--set inner.hidden_dim=128`."""


class WrapperSettings(Settings):
    """Base of the settings of a wrapper: a model that takes any registered model inside it.

    A child gives `inner` a default: the model that is inside where none is named.

    Attributes:
        inner: Name of the model inside.
        inner_settings: Its settings, complete: its card's for the dataset, and what `inner.NAME=value` says.
            Filled in by the run.
        inner_version: Version of its card. Filled in by the run.
    """

    inner: str
    inner_settings: dict[str, Any] = {}
    inner_version: Annotated[int, Field(ge=0)] = 0


FILLED_IN = ("inner_settings", "inner_version")
"""Fields of a wrapper that a run writes and no user does."""

SettingsType = TypeVar("SettingsType", bound=Settings)


def parse_assignment(text: str) -> tuple[str, Any]:
    """`key=value` as given on the command line; the value is JSON where it parses as such.

    Raises:
        SettingError: If there is no `=` or no name before it.

    >>> parse_assignment("learning_rate=5e-4")
    ('learning_rate', 0.0005)
    >>> parse_assignment("fusion=symmetric")
    ('fusion', 'symmetric')
    """
    name, sign, value = text.partition("=")
    name = name.strip()
    if not sign or not name:
        raise SettingError(f"a setting is written key=value, but '{text}' was given (from --set {text}).")
    try:
        return name, json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # text, or brackets nested without end
        return name, value.strip()


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def merge_settings(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later layers win: class defaults < card < dataset's part of the card < file < --set.

    >>> merge_settings({"layers": 1, "dropout": 0.3}, {"layers": 2})
    {'layers': 2, 'dropout': 0.3}
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    return merged


def split_settings(
    values: Mapping[str, Any], model: type[Settings], origin: str, prefix: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort one flat mapping into the model's fields and the trainer's.

    Of a wrapper, `inner.NAME` is a field of the model whatever NAME is: the model inside is to judge that.

    Args:
        origin: Where the values were written. prefix: What stood before their names there.

    Raises:
        UnknownNameError: For a name that neither has, with the nearest ones.
    """
    ours: dict[str, Any] = {}
    trainers: dict[str, Any] = {}
    for name, value in values.items():
        inside = name.startswith(INNER) and issubclass(model, WrapperSettings)
        if name in model.model_fields or inside:
            ours[name] = value
        elif name in TrainerSettings.model_fields:
            trainers[name] = value
        else:
            known = [prefix + each for each in model.model_fields] + ([] if prefix else [*TrainerSettings.model_fields])
            raise UnknownNameError("setting", prefix + name, known, f"mer-bench info MODEL ({origin})")
    return ours, trainers


def validated(
    settings: type[SettingsType], values: Mapping[str, Any], origin: str = "", prefix: str = ""
) -> SettingsType:
    """Build settings from raw values; the first fault becomes one sentence with the legal range.

    Args:
        origin: Where the values were written. prefix: What stood before their names there.

    Raises:
        SettingError: If a value has the wrong type or lies outside its range.
        UnknownNameError: If a name is not a field.
    """
    for name in values:
        if name not in settings.model_fields:
            raise UnknownNameError("setting", prefix + name, [prefix + known for known in settings.model_fields])
    try:
        return settings.model_validate(dict(values))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = str(fault["loc"][0]) if fault["loc"] else ""
        given = values.get(name, fault.get("input"))
        tail = f" ({origin})" if origin else ""
        if not name:
            raise SettingError(f"{fault['msg'].removeprefix('Value error, ')}{tail}.") from None
        rule = legal_values(settings.model_fields[name])
        raise SettingError(f"{prefix}{name} must {rule}, but is {_shown(given)}{tail}.") from None


@dataclass(frozen=True)
class Limits:
    """Legal interval of a number; an open end is not itself legal."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = True
    high_open: bool = True

    def hold(self, value: float) -> bool:
        """True where the value is legal."""
        above = value > self.low if self.low_open else value >= self.low
        return above and (value < self.high if self.high_open else value <= self.high)


def limits(field: FieldInfo) -> Limits:
    """The legal interval of a numeric field, infinite where it has no limits."""
    low, low_open, high, high_open = -math.inf, True, math.inf, True
    for item in field.metadata:
        if (bound := getattr(item, "ge", None)) is not None:
            low, low_open = bound, False
        if (bound := getattr(item, "gt", None)) is not None:
            low, low_open = bound, True
        if (bound := getattr(item, "le", None)) is not None:
            high, high_open = bound, False
        if (bound := getattr(item, "lt", None)) is not None:
            high, high_open = bound, True
    return Limits(low, high, low_open, high_open)


def legal_values(field: FieldInfo) -> str:
    """A field's legal values as a phrase that follows "must": `lie in [64, 512]`, `be true or false`."""
    annotation = field.annotation
    legal = limits(field)
    low, low_open, high, high_open = legal.low, legal.low_open, legal.high, legal.high_open
    if annotation is bool:
        return "be true or false"
    if annotation is str:
        return "be text"
    kind = "a whole number" if annotation in (int, int | None) else "a number" if annotation is float else ""
    if kind and (low, high) != (-math.inf, math.inf):
        interval = f"{'(' if low_open else '['}{_bound(low)}, {_bound(high)}{')' if high_open else ']'}"
        words = f"lie in {interval}" if annotation is float else f"be {kind} in {interval}"
        return f"{words} or null" if annotation == int | None else words
    if kind:
        return f"be {kind}"
    choices = getattr(annotation, "__args__", ())
    if getattr(annotation, "__origin__", None) is Literal:
        return "be one of " + ", ".join(str(choice) for choice in choices)
    phrases = []
    for choice in choices:
        if getattr(choice, "__origin__", None) is Literal:
            phrases += [str(value) for value in choice.__args__]
        elif getattr(choice, "__origin__", None) is tuple:
            phrases.append("a list of numbers above 0")
    return "be one of " + ", ".join(phrases) if phrases else f"be of type {annotation}"


def _bound(value: float) -> str:
    return "-inf" if value == -math.inf else "inf" if value == math.inf else f"{value:g}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def changed_fields(settings: Settings) -> dict[str, Any]:
    """The fields whose value differs from the class default, for short displays."""
    return {
        name: getattr(settings, name)
        for name, field in type(settings).model_fields.items()
        if getattr(settings, name) != field.default
    }


def names_in_both(left: Iterable[str], right: Iterable[str]) -> list[str]:
    """Names that occur in both, in order: a model field must not hide a trainer field."""
    taken = set(right)
    return [name for name in left if name in taken]
