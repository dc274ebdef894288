"""Who works on a study, and for how long: the limits are the study's, whoever does the work.

A worker takes its turn: it looks for trials whose worker is gone, counts what was begun, and begins the next trial or
none. Then it trains, alone. Several workers are processes of this machine (`team.py`), or the same command on others.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from mer_bench.runner import Listener, Opened, open_device, open_run
from mer_bench.tuning.objective import Objective, TrialFailedError
from mer_bench.tuning.storages import (
    Heartbeat,
    beat_once,
    counted,
    open_storage,
    release,
    release_stale,
    shown,
    storage_faults,
    turn,
)
from mer_bench.tuning.study import StudyPlan, about, default_storage, open_study, sampler_of, study_name

WAIT_SECONDS = 1.0
"""Between two looks at a study of which only other workers' trials are left."""


class TuneListener(Listener):
    """Hears of a study's progress, and of the epochs of its trials."""

    def study_opened(self, planned: StudyPlan, study: optuna.Study) -> None:
        """The study is there; work begins, or goes on."""

    def trial_begun(self, study: optuna.Study, trial: optuna.Trial) -> None:
        """A trial begins."""

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """A trial is complete, pruned or failed."""

    def trial_lost(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Another worker took this one for dead and runs its trial again; what was trained here does not count."""

    def waiting(self, study: optuna.Study, numbers: tuple[int, ...]) -> None:
        """Nothing is left to begin, but these trials of other workers are not over."""

    def worker_died(self, name: str, reason: str) -> None:
        """A worker is gone; the others go on."""

    def interrupted(self, study: optuna.Study) -> None:
        """Ctrl-C: all workers have ended."""


def tune(planned: StudyPlan, listener: TuneListener | None = None) -> optuna.Study:
    """Work on a study until its limits are reached, with as many workers as the request says.

    Raises:
        RequestError: If data are missing, or a study of that name is about something else.
        StorageError: If the storage cannot be used.
        RunError: If all workers died before the end.
    """
    listener = listener or TuneListener()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    opened = open_run(planned.plan, open_device(planned.plan.request), listener)
    with storage_faults(where_of(planned), planned.request.storage):
        study, storage = join(planned, opened)
        listener.study_opened(planned, study)
        try:
            if planned.request.workers == 1:
                work(study, storage, planned, opened, listener)
            else:
                from mer_bench.tuning.team import work_together

                work_together(study, storage, planned, listener)
        except KeyboardInterrupt:
            listener.interrupted(study)
            raise
    return study


def where_of(planned: StudyPlan) -> str:
    """The storage of a study, as it may be shown."""
    return shown(planned.request.storage, default_storage(planned.plan.request.out))


def join(planned: StudyPlan, opened: Opened) -> tuple[optuna.Study, BaseStorage]:
    """The study of a request, opened or made, and its storage."""
    request = planned.request
    storage = open_storage(request.storage, default_storage(planned.plan.request.out), request.stale_after)
    told = about(planned, opened)
    with turn(storage, study_name(planned, told)):  # or two machines might both make its first trial
        return open_study(planned, told, storage), storage


def work(study: optuna.Study, storage: BaseStorage, planned: StudyPlan, opened: Opened, listener: TuneListener) -> None:
    """One worker: trial after trial until the study's limits are reached."""
    objective = Objective(planned, opened.material(opened.stores[0]), opened.device, listener)
    while (trial := _next_trial(study, storage, planned, listener)) is not None:
        _perform(study, storage, trial, objective, listener)


def _next_trial(
    study: optuna.Study, storage: BaseStorage, planned: StudyPlan, listener: TuneListener
) -> optuna.Trial | None:
    """Begin a trial, of which this worker is the owner; None where nothing is left to do."""
    while True:
        with turn(storage, study.study_name):
            release_stale(study, storage, planned.request.stale_after)
            trials = study.get_trials(deepcopy=False)
            if not is_over(study, planned):
                return _begin(study, storage, planned, trials)
        running = tuple(trial.number for trial in trials if trial.state == TrialState.RUNNING)
        if not running or not _would_be_run_again(planned, trials, running):
            return None
        listener.waiting(study, running)
        time.sleep(WAIT_SECONDS)


def _would_be_run_again(planned: StudyPlan, trials: Sequence[FrozenTrial], running: Sequence[int]) -> bool:
    """Whether there would be something to do if the workers of the running trials were gone."""
    limit = planned.request.trials
    within = limit is None or len(counted(trials)) - len(running) < limit
    return within and not _out_of_time(planned, trials)


def _begin(
    study: optuna.Study, storage: BaseStorage, planned: StudyPlan, trials: Sequence[FrozenTrial]
) -> optuna.Trial:
    number = min((trial.number for trial in trials if trial.state == TrialState.WAITING), default=len(trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that heartbeats were for `optimize`; they are kept here
        # What is drawn depends on the trial's number: neither two workers nor a study that goes on draw the same twice.
        study.sampler = sampler_of(planned, number)
        trial = study.ask()
    beat_once(storage, trial._trial_id)
    return trial


def _perform(
    study: optuna.Study,
    storage: BaseStorage,
    trial: optuna.Trial,
    objective: Callable[[optuna.Trial], float | Sequence[float]],
    listener: TuneListener,
) -> None:
    """Train, score and tell; whatever stops that for good leaves the trial to be run again."""
    value: float | Sequence[float] | None = None
    state: TrialState | None = None
    try:
        with Heartbeat(storage, trial._trial_id), warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            listener.trial_begun(study, trial)
            try:
                value = objective(trial)
            except optuna.TrialPruned:
                state = TrialState.PRUNED
            except (TrialFailedError, UpdateFinishedTrialError):
                state = TrialState.FAIL
        with turn(storage, study.study_name):
            ours = storage.get_trial(trial._trial_id).state == TrialState.RUNNING
            told = study.tell(trial, value, state) if ours else storage.get_trial(trial._trial_id)
    except BaseException:
        with suppress(Exception), turn(storage, study.study_name):
            release(study, storage, trial._trial_id)
        raise
    if ours:
        listener.trial_ended(study, told)
    else:
        listener.trial_lost(study, told)


def is_over(study: optuna.Study, planned: StudyPlan) -> bool:
    """Whether a study has reached one of its limits."""
    trials = study.get_trials(deepcopy=False)
    if planned.request.sampler == "grid" and all(trial.state != TrialState.WAITING for trial in trials):
        return True  # the whole grid was tried
    if planned.request.trials is not None and len(counted(trials)) >= planned.request.trials:
        return True
    return _out_of_time(planned, trials)


def _out_of_time(planned: StudyPlan, trials: Sequence[FrozenTrial]) -> bool:
    return planned.request.timeout is not None and _seconds(trials) >= planned.request.timeout


def seconds_worked(study: optuna.Study) -> float:
    """Seconds in which at least one trial that ended was at work: pauses between two commands do not count."""
    return _seconds(study.get_trials(deepcopy=False))


def _seconds(trials: Sequence[FrozenTrial]) -> float:
    spans = sorted(
        (trial.datetime_start.timestamp(), trial.datetime_complete.timestamp())
        for trial in trials
        if trial.datetime_start and trial.datetime_complete and "seconds" in trial.user_attrs
    )
    total, until = 0.0, 0.0
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
