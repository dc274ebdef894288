"""The card and the settings: complete, legal, and usable as they are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mer_bench.api import TrainerSettings
from mer_bench.config import merge_settings, names_in_both, split_settings, validated
from mer_bench.errors import RunError, SettingError
from mer_bench.testing.checks import Failed, NotApplicable, expect_excusable
from mer_bench.testing.folders import check_folder
from mer_bench.testing.grids import grid_faults, trials
from mer_bench.testing.model_checks.invariance import check_causal
from mer_bench.testing.model_checks.outputs import (
    expect_labels_unread,
    expect_padding_harmless,
    expect_trainable,
    situated,
)
from mer_bench.testing.model_checks.subject import MODEL_CHECKS, ModelSubject, model_check
from mer_bench.testing.samples import sample_split, whole


@model_check("card", excusable=False)
def check_card(subject: ModelSubject) -> None:
    """The card is complete: words, citations, and settings that the code accepts."""
    card = subject.card
    for name in ("title", "summary"):
        if not getattr(card, name).strip():
            raise Failed(f"the card's {name} is empty.")
    if not (card.stated or card.ours):
        raise Failed("the card lists neither what follows the paper (stated) nor what was chosen here (ours).")
    if card.reported and card.paper is None:
        raise Failed("the card reports figures, but names no paper.")
    for dataset, reported in card.reported.items():
        if reported.weighted_f1 is None and reported.accuracy is None:
            raise Failed(f"reported.{dataset} holds no figure; leave it out.")
    expect_excusable(card.excused, MODEL_CHECKS)
    tables: dict[str, Mapping[str, Any]] = {f"settings.{key}": values for key, values in card.settings.items()}
    tables |= {f"published.{key}": values for key, values in card.published.items()}
    tables |= {f"ablations.{key}": ablation.settings for key, ablation in card.ablations.items()}
    for name, values in tables.items():
        if not values:
            raise Failed(f"{name} of the card is empty; leave it out.")
        dataset = name.partition(".")[2] if name.startswith("settings.") else "default"
        ours, trainers = split_settings(
            merge_settings(card.settings_for(dataset), values), subject.loaded.settings_class, f"{name} of the card"
        )
        validated(subject.loaded.settings_class, ours, f"{name} of the card")
        validated(TrainerSettings, trainers, f"{name} of the card")


@model_check("folder")
def check_model_folder(subject: ModelSubject) -> None:
    """Reading the card and the settings runs no heavy code: no torch, no scikit-learn."""
    check_folder(subject.loaded.plugin.package, subject.card.config.partition(":")[0])


@model_check("settings", excusable=False)
def check_settings(subject: ModelSubject) -> None:
    """Defaults are legal and on their own search grid; no field hides one of the trainer's."""
    kind = subject.loaded.settings_class
    hidden = names_in_both(kind.model_fields, TrainerSettings.model_fields)
    if hidden:
        raise Failed(f"the setting {hidden[0]} hides the trainer's; rename it.")
    for name, declared in kind.model_fields.items():
        if declared.is_required():
            raise Failed(f"the setting {name} has no default.")
    values = kind.model_construct().model_dump(mode="json")
    if validated(kind, json.loads(json.dumps(values)), "a default") != kind():
        raise Failed("the settings differ after a round trip through JSON, which is how a record keeps them.")
    for fault in grid_faults(kind):
        raise Failed(fault)


@model_check("setting-limits")
def check_setting_limits(subject: ModelSubject) -> None:
    """The model works at the limits of each setting, and with each choice ignores padding too."""
    spec = subject.spec()
    batch = whole(sample_split(spec))
    for trial in trials(subject.loaded.settings_class):
        situation = f"with {trial.name}={trial.value}"
        chosen = replace(subject, values={**subject.values, trial.name: trial.value})
        try:
            chosen.settings()
        except SettingError:
            continue  # the settings themselves refuse it beside the other defaults
        try:
            model = chosen.ready(spec)
            if trial.is_choice:
                expect_padding_harmless(model, batch, 6)
            expect_trainable(model, batch, situation)
        except Failed as found:
            raise Failed(f"{situation}: {found}") from found
        except RunError:
            continue  # it says in plain words why it cannot go on: "did not converge in 1 step"
        except Exception as error:
            raise Failed(f"{situation}, which is legal: {type(error).__name__}: {error}") from error


@model_check("variants")
def check_variants(subject: ModelSubject) -> None:
    """With the settings of each dataset, ablation and paper too: trains, takes gaps, ignores padding and labels."""
    variants = subject.variants()
    if not variants:
        raise NotApplicable("the card lists no settings other than those of the other checks")
    spec = subject.spec()
    batch = whole(sample_split(spec))
    for name, variant in variants.items():
        with situated(name):
            model = variant.ready(spec)
            expect_padding_harmless(model, batch, 6)
            expect_labels_unread(model, batch)
            expect_trainable(model, batch, "on a batch with gaps")
            if subject.card.causal:
                check_causal(variant)
