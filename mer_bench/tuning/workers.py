"""Who works on a study, and for how long: the limits are the study's, whoever does the work."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

from mer_bench.runner import Listener, Opened, open_device, open_run
from mer_bench.tuning.objective import Objective, TrialFailedError
from mer_bench.tuning.storages import open_storage
from mer_bench.tuning.study import StudyPlan, about, default_storage, open_study


class TuneListener(Listener):
    """Hears of a study's progress, and of the epochs of its trials."""

    def study_opened(self, planned: StudyPlan, study: optuna.Study) -> None:
        """The study is there; work begins, or goes on."""

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """A trial is complete, pruned or failed."""


def tune(planned: StudyPlan, listener: TuneListener | None = None) -> optuna.Study:
    """Work on a study, in this process alone, until its limits are reached.

    Raises:
        RequestError: If data are missing, or a study of that name is about something else.
        StorageError: If the storage cannot be used.
    """
    listener = listener or TuneListener()
    opened = open_run(planned.plan, open_device(planned.plan.request), listener)
    storage = open_storage(planned.request.storage, default_storage(planned.plan.request.out))
    study = open_study(planned, about(planned, opened), storage)
    listener.study_opened(planned, study)
    work(study, planned, opened, listener)
    return study


def work(study: optuna.Study, planned: StudyPlan, opened: Opened, listener: TuneListener) -> None:
    """One worker: trial after trial until the study's limits are reached."""
    objective = Objective(planned, opened.material(opened.stores[0]), opened.device, listener)
    while not is_over(study, planned):
        study.optimize(objective, n_trials=1, catch=(TrialFailedError,), callbacks=[listener.trial_ended])


def is_over(study: optuna.Study, planned: StudyPlan) -> bool:
    """Whether a study has reached one of its limits."""
    trials = study.get_trials(deepcopy=False)
    begun = [trial for trial in trials if trial.state != TrialState.WAITING]
    if planned.request.sampler == "grid" and len(begun) == len(trials):
        return True  # the whole grid was tried
    if planned.request.trials is not None and len(begun) >= planned.request.trials:
        return True
    return planned.request.timeout is not None and seconds_worked(study) >= planned.request.timeout


def seconds_worked(study: optuna.Study) -> float:
    """Seconds in which at least one trial that ended was at work: pauses between two commands do not count."""
    spans = sorted(
        (trial.datetime_start.timestamp(), trial.datetime_complete.timestamp())
        for trial in study.get_trials(deepcopy=False)
        if trial.datetime_start and trial.datetime_complete and "seconds" in trial.user_attrs
    )
    total, until = 0.0, 0.0
    for start, end in spans:
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
