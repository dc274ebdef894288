"""A study: the request for it, what it is about, and the Optuna study that is opened or made for it.

What a study is about is kept with it, as the user attribute `about`. A study under the same name that is about
anything else (another model, another checksum of the data) is refused: its trials could not be compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage

from mer_bench.errors import RequestError, StorageError, UnknownNameError
from mer_bench.recording import Recording
from mer_bench.request import Plan, RunRequest, plan
from mer_bench.runner import Opened
from mer_bench.tuning.space import Space, space_of

SAMPLERS: Final = ("tpe", "cmaes", "random", "grid", "gp", "nsga2")
PRUNERS: Final = ("median", "hyperband", "wilcoxon", "none")

ABOUT: Final = "about"
"""User attribute of a study: what it is about, as a flat table."""
BUDGET: Final = "budget"
"""User attribute of a study: the limits of the latest command that worked on it: `trials`, `timeout`."""


@dataclass(frozen=True)
class TuneRequest:
    """What the user asked for.

    Attributes:
        run: Model, dataset and the rest; its settings are fixed in every trial, its seed is the first of a trial.
        narrowed: From `--space`, by name of the setting.
        seeds_per_trial: A trial's score is the mean over so many seeds.
        trials, timeout: Limits of the study, not of the command: trials, and seconds of work; None is no limit.
        study: Its name; None: one made of what it is about.
        storage: Where it is kept; None: a SQLite file below the folder of the records.
    """

    run: RunRequest
    narrowed: Mapping[str, Any] = field(default_factory=dict)
    seeds_per_trial: int = 1
    sampler: str = "tpe"
    pruner: str | None = None
    trials: int | None = 50
    timeout: float | None = None
    study: str | None = None
    storage: str | None = None


@dataclass(frozen=True)
class StudyPlan:
    """A request whose every name, setting and range was found to be right.

    Attributes:
        plan: Of the run with the card's settings and what was fixed.
        pruner: By name; `none` where score is weighed against cost.
    """

    request: TuneRequest
    plan: Plan
    space: Space
    pruner: str

    @property
    def weighs_cost(self) -> bool:
        """Whether a trial has two values: the score and the seconds of training."""
        return self.request.sampler == "nsga2"

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of every trial."""
        first = self.request.run.seed
        return tuple(range(first, first + self.request.seeds_per_trial))


def plan_study(request: TuneRequest) -> StudyPlan:
    """Check a request, without data.

    Raises:
        RequestError: For the first thing that is wrong.
    """
    for kind, given, known in (("sampler", request.sampler, SAMPLERS), ("pruner", request.pruner, PRUNERS)):
        if given is not None and given not in known:
            raise UnknownNameError(kind, given, known)
    planned = plan(request.run)
    return StudyPlan(request, planned, space_of(planned, request.narrowed), request.pruner or _usual_pruner(request))


def _usual_pruner(request: TuneRequest) -> str:
    return "none" if request.sampler == "nsga2" else "median"


def about(planned: StudyPlan, opened: Opened) -> dict[str, Any]:
    """What a study is about: all that decides what its trials are, as a flat table of JSON values."""
    plan, request = planned.plan, planned.request
    features = Recording(plan, opened.stores).features(opened.stores)
    return {
        "model": plan.model,
        "model_version": plan.model_card.version,
        "model_code": plan.model_code.sha256 if plan.model_code else None,
        "dataset": plan.dataset,
        "labels": plan.labels,
        "features": plan.features,
        "data_checksum": features.sources,
        "protocol": plan.protocol,
        "protocol_version": plan.dataset_card.protocols[plan.key.protocol].version,
        "modalities": list(plan.modalities),
        "metric": plan.metric,
        "synthetic": plan.synthetic,
        "space": planned.space.as_json(),
        "fixed": dict(planned.space.fixed),
        "seeds": list(planned.seeds),
        "sampler": request.sampler,
        "pruner": planned.pruner,
    }


def study_name(planned: StudyPlan, told: Mapping[str, Any]) -> str:
    """The name that was given, or one made of what the study is about, so that another one has another name."""
    if planned.request.study is not None:
        return planned.request.study
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    return f"{planned.plan.model}.{planned.plan.dataset}.{planned.plan.key.features}.{digest}"


def default_storage(out: Path) -> Path:
    """The SQLite file of a study whose request names no storage."""
    return out / "studies.sqlite3"


def open_study(planned: StudyPlan, told: Mapping[str, Any], storage: BaseStorage, worker: int = 0) -> optuna.Study:
    """The study of a request, made where it is not there yet; the card's settings are its first trial.

    Args:
        told: What `about` says.
        worker: Number of the worker on this machine: each draws other random numbers.

    Raises:
        RequestError: If a study of that name is about something else.
    """
    name = study_name(planned, told)
    maximize, minimize = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    directions = [maximize, minimize] if planned.weighs_cost else [maximize]
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        sampler=sampler_of(planned, worker),
        pruner=pruner_of(planned),
        directions=directions,
        load_if_exists=True,
    )
    kept = study.user_attrs.get(ABOUT)
    if kept is None and study.get_trials(deepcopy=False):
        raise RequestError(f"the study '{name}' was not made by mer-bench tune; choose another name with --study.")
    if kept is None:
        _begin(study, planned, told)
    else:
        check_about(name, kept, told)
    study.set_user_attr(BUDGET, {"trials": planned.request.trials, "timeout": planned.request.timeout})
    return study


def _begin(study: optuna.Study, planned: StudyPlan, told: Mapping[str, Any]) -> None:
    names = [told["metric"], "training seconds"] if planned.weighs_cost else [told["metric"]]
    study.set_metric_names(names)
    study.enqueue_trial(planned.space.start(), skip_if_exists=True)
    study.set_user_attr(ABOUT, json.loads(json.dumps(told)))


def check_about(name: str, kept: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Refuse a study that is about something else.

    Raises:
        RequestError: Names the first difference.
    """
    now = json.loads(json.dumps(told))
    for key in (*now, *(each for each in kept if each not in now)):
        if kept.get(key) != now.get(key):
            raise RequestError(
                f"the study '{name}' is there already, with {key.replace('_', ' ')} {_short(kept.get(key))} and not "
                f"{_short(now.get(key))}: trials of both could not be compared. Choose another name with --study."
            )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def sampler_of(planned: StudyPlan, worker: int = 0) -> BaseSampler:
    """The sampler that a request names."""
    seed = planned.request.run.seed + 1000 * worker
    match planned.request.sampler:
        case "tpe":
            return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)
        case "cmaes":
            return CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case "gp":
            return GPSampler(seed=seed, warn_independent_sampling=False)
        case "nsga2":
            return NSGAIISampler(seed=seed)
        case _:
            return RandomSampler(seed=seed)


def pruner_of(planned: StudyPlan) -> BasePruner:
    """The pruner that a request names."""
    match planned.pruner:
        case "median":
            return MedianPruner(n_startup_trials=5, n_warmup_steps=5)
        case "hyperband":
            return HyperbandPruner(min_resource=1, max_resource=planned.plan.training.epochs * len(planned.seeds))
        case "wilcoxon":
            return WilcoxonPruner()
        case _:
            return NopPruner()


def storage_fault(error: Exception, where: str) -> StorageError:
    """One sentence for what a storage could not do."""
    return StorageError(f"the study in {where} could not be read or written: {error}")
