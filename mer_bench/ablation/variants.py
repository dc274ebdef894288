"""Which runs an ablation consists of: subsets of the modalities, and the ablations of the model's card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from mer_bench.config import merge_settings
from mer_bench.request import Plan, plan

TABLES = ("modalities", "missing", "settings")
WHOLE = "whole"
"""Name of the model as it is, which the rows of every table are compared with."""


@dataclass(frozen=True)
class Variant:
    """A model that is trained from scratch and compared with the whole one.

    Attributes:
        name: `text+audio`, or the name of an ablation.
        question: What it answers; "" where the name says it.
        changes: Settings that differ from the whole model's, by name.
        plan: Of the run, without regard to the seed.
    """

    name: str
    question: str
    changes: dict[str, Any]
    plan: Plan


@dataclass(frozen=True)
class Variants:
    """The variants of a table, and a sentence for each that there cannot be."""

    variants: tuple[Variant, ...]
    notes: tuple[str, ...]


def proper_subsets(modalities: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every non-empty subset but the whole, the larger ones first, each in the order of the run."""
    for size in range(len(modalities) - 1, 0, -1):
        yield from combinations(modalities, size)


def modality_variants(whole: Plan) -> Variants:
    """The model on every subset of the run's modalities that its card allows."""
    if len(whole.modalities) == 1:
        return Variants((), (f"{whole.model} reads {whole.modalities[0]} alone here, of which there is no subset.",))
    found, notes = [], []
    for subset in proper_subsets(whole.modalities):
        name = "+".join(subset)
        lacking = [need for need in whole.model_card.needs if need not in subset]
        if lacking:
            notes.append(f"{name} was left out: {whole.model} needs {', '.join(lacking)}.")
            continue
        found.append(Variant(name, "", {}, plan(replace(whole.request, modalities=subset))))
    return Variants(tuple(found), tuple(notes))


def setting_variants(whole: Plan) -> Variants:
    """The ablations of the model's card, on top of the request's own settings.

    Raises:
        SettingError, UnknownNameError: If an ablation of the card has a setting that is none.
    """
    ablations = whole.model_card.ablations
    if not ablations:
        return Variants((), (f"the card of {whole.model} lists no ablations.",))
    found, notes = [], []
    for name, ablation in ablations.items():
        settings = merge_settings(whole.request.settings, ablation.settings)
        planned = plan(replace(whole.request, modalities=whole.modalities, settings=settings))
        if (planned.settings, planned.training) == (whole.settings, whole.training):
            notes.append(f"{name} was left out: it is what the whole model's settings say already.")
            continue
        found.append(Variant(name, ablation.question, dict(ablation.settings), planned))
    return Variants(tuple(found), tuple(notes))
