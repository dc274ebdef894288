"""The settings of a model on a dataset: which layer wrote each value, and which layer wins.

Class defaults < card < the card's part for the dataset < a file < `--set`. A wrapper has the settings of the
model inside it as well: `inner.NAME`, settled by that model's own class and card in just the same way, while
the trainer's settings in the inner card lie below those in the wrapper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mer_bench import registry
from mer_bench.cards import ModelCard
from mer_bench.config import (
    FILLED_IN,
    INNER,
    Settings,
    TrainerSettings,
    WrapperSettings,
    merge_settings,
    split_settings,
    validated,
)
from mer_bench.errors import SettingError

DEPTH = 4
"""Wrappers in each other at most: more is a circle."""


@dataclass(frozen=True)
class Settled:
    """What a model is built and trained with.

    Attributes:
        card: What holds for the model with these settings: the card, or the wrapper's and the inner model's together.
        settings, training: Complete.
        inside: Names of the models inside it, the nearest first; none but in a wrapper.
        training_of_cards: The part of `training` that cards wrote.
    """

    card: ModelCard
    settings: Settings
    training: TrainerSettings
    inside: tuple[str, ...]
    training_of_cards: Mapping[str, Any]


def settle(
    card: ModelCard,
    kind: type[Settings],
    dataset: str,
    request: Mapping[str, Any],
    origin: str = "from --set or --settings",
) -> Settled:
    """The settings of a model on a dataset.

    Args:
        card, kind: The model's card and its settings class.
        request: Fields of the model and of the trainer by name, on top of the card's.
        origin: Where the request was written, for messages.

    Raises:
        UnknownNameError, SettingError: For the first name or value that is wrong, with the layer it was written in.
    """
    return _settle(card, kind, dataset, request, origin, prefix="", depth=0)


def _settle(
    card: ModelCard,
    kind: type[Settings],
    dataset: str,
    request: Mapping[str, Any],
    origin: str,
    prefix: str,
    depth: int,
) -> Settled:
    written = card.settings_for(dataset)
    for place, values in ((f"the card of {card.title}", written), (origin, request)):
        # Each layer is checked by itself, so that a wrong value is blamed on where it was written.
        ours, trainers = split_settings(values, kind, place, prefix)
        if prefix and trainers and values is request:
            name = next(iter(trainers))
            raise SettingError(f"{prefix}{name} is the trainer's, of which a run has one: write {name} ({place}).")
        validated(kind, _own(ours), place, prefix)
        validated(TrainerSettings, trainers, place)
    ours, trainers = split_settings(merge_settings(written, request), kind, "the card and the request together")
    of_cards = split_settings(written, kind, "card")[1]
    inside: tuple[str, ...] = ()
    if issubclass(kind, WrapperSettings):
        name, inner, ours = _filled_in(kind, dataset, ours, origin, prefix, depth)
        inside, card = (name, *inner.inside), _joined(card, inner.card)
        of_cards, trainers = {**inner.training_of_cards, **of_cards}, {**inner.training_of_cards, **trainers}
    return Settled(card, validated(kind, ours, "", prefix), validated(TrainerSettings, trainers), inside, of_cards)


def _own(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.startswith(INNER)}


def _filled_in(
    kind: type[WrapperSettings], dataset: str, ours: Mapping[str, Any], origin: str, prefix: str, depth: int
) -> tuple[str, Settled, dict[str, Any]]:
    """The model inside a wrapper, what it is built with, and the wrapper's settings with that filled in."""
    for name in FILLED_IN:
        if name in ours:
            raise SettingError(f"{prefix}{name} is filled in by the run: write {prefix}{INNER}NAME=value ({origin}).")
    name = validated(kind, _own(ours), "", prefix).inner
    if depth == DEPTH:
        raise SettingError(f"{prefix}inner={name} is the {DEPTH + 1}th model in another: wrappers stand in a circle.")
    plugin = registry.models().find(name)
    inside = {key.removeprefix(INNER): value for key, value in ours.items() if key.startswith(INNER)}
    inner_kind = registry.settings_class(name)
    inner = _settle(plugin.card, inner_kind, dataset, inside, origin, f"{prefix}{INNER}", depth + 1)
    completed = {**_own(ours), "inner_settings": inner.settings.model_dump(mode="json")}
    completed["inner_version"] = inner.card.version
    return name, inner, completed


def _joined(outer: ModelCard, inner: ModelCard) -> ModelCard:
    """What holds for a wrapper with a certain model inside: each promise only where both make it."""
    return outer.model_copy(
        update={
            "title": f"{outer.title} ({inner.title})",
            "modalities": tuple(name for name in inner.modalities if name in outer.modalities),
            "needs": tuple(dict.fromkeys((*outer.needs, *inner.needs))),
            "causal": outer.causal and inner.causal,
            "uses_speakers": outer.uses_speakers or inner.uses_speakers,
            "speaker_symmetric": _symmetric(outer) and _symmetric(inner),
            "memory": "quadratic" if "quadratic" in (outer.memory, inner.memory) else "linear",
        }
    )


def _symmetric(card: ModelCard) -> bool:
    return card.speaker_symmetric or not card.uses_speakers
