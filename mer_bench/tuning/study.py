"""A study: the request for it, what it is about, and the Optuna study that is opened or made for it.

What a study is about is kept with it, as the user attribute `about`. A study under the same name that is about
anything else (another model, another checksum of the data) is refused: its trials could not be compared.
"""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from mer_bench.errors import RequestError, UnknownNameError
from mer_bench.recording import Recording
from mer_bench.request import Plan, RunRequest, plan
from mer_bench.runner import Opened
from mer_bench.tuning.space import Space, space_of

SAMPLERS: Final = ("tpe", "cmaes", "random", "grid", "gp", "nsga2")
PRUNERS: Final = ("median", "hyperband", "wilcoxon", "none")

ABOUT: Final = "about"
"""User attribute of a study: what it is about, as a flat table."""
ENDED: Final = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
BUDGET: Final = "budget"
"""User attribute of a study: the limits of the latest command that worked on it: `trials`, `timeout`."""


WILCOXON_SEEDS: Final = 5
"""With fewer seeds no outcome of the test has a probability below its threshold before the last one."""
LARGEST_GRID: Final = 10_000


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
        workers: Processes on this machine; the threads of `run` are shared among them.
        stale_after: Seconds after which a trial whose worker is silent is run again; None: usual for the storage.
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
    workers: int = 1
    stale_after: float | None = None


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
    if request.seeds_per_trial < 1:
        raise RequestError(f"a trial needs at least 1 seed, but {request.seeds_per_trial} were asked for.")
    if request.trials is None and request.timeout is None and request.sampler != "grid":
        raise RequestError("a study without a limit never ends: give --trials or --timeout.")
    pruner = _pruner(request)
    _check_installed(request.sampler)
    planned = plan(request.run)
    if planned.folds:
        raise RequestError(
            f"{planned.protocol} tests every dialogue in one of its {planned.folds} folds, and chooses on it in "
            "another: a study would choose settings on test. Tune under a protocol with one split (--protocol), and "
            f"run the settings that were found under {planned.protocol} with --settings."
        )
    space = space_of(planned, request.narrowed)
    if request.sampler == "grid":
        _check_grid(space)
    return StudyPlan(request, planned, space, pruner)


def _pruner(request: TuneRequest) -> str:
    """The pruner by name: the usual one where none was asked for.

    Raises:
        RequestError: If sampler, seeds and pruner do not go together.
    """
    if request.sampler == "nsga2":
        if request.pruner not in (None, "none"):
            raise RequestError(
                f"nsga2 weighs score against cost, and a trial that is given up has no cost to compare: "
                f"it runs without a pruner, but --pruner {request.pruner} was given."
            )
        return "none"
    if request.pruner == "wilcoxon" and request.seeds_per_trial < WILCOXON_SEEDS:
        raise RequestError(
            f"the wilcoxon pruner compares the seeds of two trials and needs at least {WILCOXON_SEEDS} to tell "
            f"anything, but a trial has {request.seeds_per_trial}; give --seeds-per-trial {WILCOXON_SEEDS} or more."
        )
    return request.pruner or "median"


def _check_installed(sampler: str) -> None:
    if sampler == "cmaes" and find_spec("cmaes") is None:
        raise RequestError(
            "the sampler cmaes needs the package cmaes, which is not here: pip install 'mer-bench[tune]'"
        )


def _check_grid(space: Space) -> None:
    """A grid is enumerated before the first trial, so it must have an end that can be reached."""
    if next(islice(space.combinations(), LARGEST_GRID, None), None) is not None:
        raise RequestError(
            f"the grid of {len(space.dimensions)} settings has more than {LARGEST_GRID} points; narrow it with --space "
            "or --fix, or let another sampler choose."
        )


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
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    maximize, minimize = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
    with warnings.catch_warnings():
        # What Optuna calls experimental here has been the same since its version 3.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=sampler_of(planned, worker),
            pruner=pruner_of(planned),
            directions=[maximize, minimize] if planned.weighs_cost else [maximize],
            load_if_exists=True,
        )
        kept = study.user_attrs.get(ABOUT)
        if kept is None and study.get_trials(deepcopy=False, states=ENDED):
            raise RequestError(f"the study '{name}' was not made by mer-bench tune; choose another name with --study.")
        if kept is None:
            _begin(study, planned, told)
        else:
            check_about(name, kept, told)
    if planned.request.sampler == "grid":
        _enqueue_grid(study, planned)
    study.set_user_attr(BUDGET, {"trials": planned.request.trials, "timeout": planned.request.timeout})
    return study


def _begin(study: optuna.Study, planned: StudyPlan, told: Mapping[str, Any]) -> None:
    study.set_metric_names([told["metric"], "training seconds"] if planned.weighs_cost else [told["metric"]])
    study.enqueue_trial(planned.space.start(), skip_if_exists=True)
    study.set_user_attr(ABOUT, json.loads(json.dumps(told)))


def _enqueue_grid(study: optuna.Study, planned: StudyPlan) -> None:
    """Put the points of the grid in the queue, in an order that the seed decides, the card's settings first.

    Optuna's own grid sampler tries points again that differ in nothing but a setting whose condition does not hold.
    A worker that was killed in the middle of this leaves a shorter queue, which the next one fills up.
    """
    start = planned.space.start()
    points = [point for point in planned.space.combinations() if point != start]
    random.Random(planned.request.run.seed).shuffle(points)
    trials = study.get_trials(deepcopy=False)
    there = {_key(each.system_attrs.get("fixed_params", each.params)) for each in trials}
    for point in [start, *points][: planned.request.trials]:
        if _key(point) not in there:
            study.enqueue_trial(point)


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)


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
    """The sampler that a request names.

    Settings with a condition are in a group of their own for `tpe`; `cmaes` and `gp` search what is there in every
    trial, and draw the others, and choices for `cmaes`, at random.
    """
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
        case _:  # the points of a grid are in the queue already
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
