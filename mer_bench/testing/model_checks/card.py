"""The card and the settings: complete, and legal as they are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mer_bench.api import TrainerSettings
from mer_bench.config import names_in_both, validated
from mer_bench.model_settings import settle
from mer_bench.testing.checks import Failed, expect_excusable
from mer_bench.testing.folders import check_folder
from mer_bench.testing.grids import grid_faults
from mer_bench.testing.model_checks.subject import MODEL_CHECKS, ModelSubject, model_check


@model_check("card", excusable=False)
def check_card(subject: ModelSubject) -> None:
    """The card is complete: words, citations, and settings that the code accepts."""
    card = subject.loaded.plugin.card
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
        settle(card, subject.loaded.settings_class, dataset, values, f"{name} of the card")


@model_check("folder")
def check_model_folder(subject: ModelSubject) -> None:
    """Reading the card and the settings runs no heavy code: no torch, no scikit-learn."""
    check_folder(subject.loaded.plugin, subject.card.config.partition(":")[0])


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
