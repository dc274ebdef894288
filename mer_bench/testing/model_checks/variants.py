"""Other settings: the limits of each one, and the tables that the card gives."""

from __future__ import annotations

from dataclasses import replace

from mer_bench.errors import RunError, SettingError
from mer_bench.testing.checks import Failed, NotApplicable
from mer_bench.testing.grids import trials
from mer_bench.testing.model_checks.invariance import check_causal
from mer_bench.testing.model_checks.outputs import (
    expect_labels_unread,
    expect_padding_harmless,
    expect_trainable,
    situated,
)
from mer_bench.testing.model_checks.subject import ModelSubject, model_check
from mer_bench.testing.samples import sample_split, whole


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
