"""What came out of a study, for a screen, a page and programs: the best trials, what mattered, what went wrong."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mer_bench.tuning.kept import KeptStudy, seconds_of, settings_of, state_of
from mer_bench.tuning.workers import seconds_worked

FEWEST = 4
"""Complete trials without which importances say nothing."""


@dataclass(frozen=True)
class Importances:
    """What the settings contributed to the differences between the complete trials.

    Attributes:
        shares: By setting, the largest first; they sum to 1. Empty where they cannot be said.
        reason: Why they cannot be said.
    """

    shares: dict[str, float]
    reason: str = ""


def evaluation_of(kept: KeptStudy) -> dict[str, Any]:
    """How importances are evaluated, as Optuna's functions take it: by the score alone, also where cost is weighed."""
    told: dict[str, Any] = {"evaluator": optuna.importance.PedAnovaImportanceEvaluator()}
    if kept.weighs_cost:
        told["target"] = lambda trial: -trial.values[0]  # PED-ANOVA looks for what makes a target low
    return told


def importances_of(kept: KeptStudy) -> Importances:
    """Shares of the settings by PED-ANOVA: what sets the best tenth of the trials apart from the others."""
    complete = kept.in_state(TrialState.COMPLETE)
    if len(complete) < FEWEST:
        return Importances({}, f"{len(complete)} complete trials are too few to tell.")
    if len({trial.values[0] for trial in complete}) == 1:
        return Importances({}, "all complete trials have the same score.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # experimental, and what `evaluation_of` takes care of
        try:
            shares = optuna.importance.get_param_importances(kept.study, **evaluation_of(kept))
        except (ValueError, RuntimeError) as error:
            return Importances({}, f"Optuna cannot tell: {error}.")
    if not shares or not all(math.isfinite(share) for share in shares.values()):
        return Importances({}, "the best trials do not differ from the others in any one setting.")
    return Importances(dict(shares))


def reason_of(trial: FrozenTrial, kept: KeptStudy) -> str:
    """Why a trial was pruned, or why it failed."""
    if trial.state == TrialState.PRUNED:
        reports = trial.intermediate_values
        if not reports:
            return f"given up by the {kept.about['pruner']} pruner"
        step = max(reports)
        unit = "seed" if kept.about["pruner"] == "wilcoxon" else "epoch"
        return f"given up by the {kept.about['pruner']} pruner at {unit} {step}, at {100 * reports[step]:.2f}"
    kind = trial.user_attrs.get("kind", "")
    told = str(trial.user_attrs.get("reason", "")).strip()
    if not told:
        return "its worker was gone"
    return told if kind in ("", "RunError", "DivergedError", "OutOfMemoryError") else f"{kind}: {told}"


def counts_of(kept: KeptStudy) -> dict[str, int]:
    """Trials by their state; those of which there are any."""
    counts: dict[str, int] = {}
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING)
    for trial in sorted(kept.trials, key=lambda each: states.index(each.state)):
        counts[state_of(trial)] = counts.get(state_of(trial), 0) + 1
    return counts


def counts_text(kept: KeptStudy) -> str:
    """`48 complete, 1 failed`."""
    return ", ".join(f"{count} {state}" for state, count in counts_of(kept).items()) or "none yet"


def budget_text(kept: KeptStudy) -> str:
    """`50 trials`, `50 trials or 1800 s`, `1800 s`."""
    trials, seconds = kept.budget.get("trials"), kept.budget.get("timeout")
    told = [*([f"{trials} trials"] if trials else []), *([f"{seconds:g} s"] if seconds else [])]
    return " or ".join(told) or "no limit"


def searched_of(trial: FrozenTrial, kept: KeptStudy) -> dict[str, Any]:
    """The settings of a trial without those that are the same in every trial."""
    return {name: value for name, value in settings_of(trial).items() if name not in kept.about["fixed"]}


def range_text(told: dict[str, Any]) -> str:
    """What a study searched of a setting: `[0.0001, 0.01] logarithmic`, `8, 16, 32`."""
    if "choices" in told:
        return ", ".join(str(choice) for choice in told["choices"])
    step = f" in steps of {told['step']:g}" if told.get("step") else ""
    return f"[{told['low']:g}, {told['high']:g}]{step}{' logarithmic' if told.get('log') else ''}"


def value_text(value: Any) -> str:
    """A setting's value as a person reads it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def settings_line(settings: dict[str, Any]) -> str:
    """Settings on one line: `hidden_dim=64, dropout=0.1`."""
    return ", ".join(f"{name}={value_text(value)}" for name, value in settings.items())


def summary(kept: KeptStudy, top: int) -> dict[str, Any]:
    """A study for programs."""
    importances = importances_of(kept)
    start = kept.start
    return {
        "study": kept.name,
        "about": dict(kept.about),
        "budget": dict(kept.budget),
        "trials": counts_of(kept),
        "seconds": round(seconds_worked(kept.study), 2),
        "start": start.number if start else None,
        "best": [_told(trial, kept) for trial in kept.ranked[:top]],
        "front": [trial.number for trial in kept.front],
        "importances": importances.shares or None,
        "pruned": _reasons(kept.in_state(TrialState.PRUNED), kept),
        "failed": _reasons(kept.in_state(TrialState.FAIL), kept),
    }


def _told(trial: FrozenTrial, kept: KeptStudy) -> dict[str, Any]:
    told = trial.user_attrs
    return {
        "trial": trial.number,
        "score": trial.values[0],
        "scores": told.get("scores", []),
        "seconds": round(seconds_of(trial), 4),
        "epochs": told.get("epochs"),
        "parameters": told.get("parameters"),
        "settings": settings_of(trial),
    }


def _reasons(trials: Sequence[FrozenTrial], kept: KeptStudy) -> list[dict[str, Any]]:
    return [
        {"trial": trial.number, "reason": reason_of(trial, kept), "settings": settings_of(trial)} for trial in trials
    ]
