"""What a person sees while a study goes on: one line a trial, and the epochs of the running one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mer_bench.cli.console import percent
from mer_bench.cli.progress import ProgressListener
from mer_bench.records import Epoch
from mer_bench.tuning.workers import TuneListener

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from mer_bench.tuning.study import StudyPlan


class TuneProgress(ProgressListener, TuneListener):
    """Shows the trials of a study one after another."""

    def study_opened(self, planned: StudyPlan, study: optuna.Study) -> None:
        done = len(study.get_trials(deepcopy=False))
        self._screen.line(
            f"study {study.study_name}: {planned.plan.model_title} on {planned.plan.features}, "
            f"{len(planned.space.dimensions)} settings are searched, {done} trials are there"
        )

    def epoch_ended(self, epoch: Epoch, best_epoch: int, best_score: float, epochs: int, patience_left: int) -> None:
        pass

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        value = trial.values[0] if trial.values else None
        told = trial.user_attrs.get("reason", "")
        self._screen.line(f"trial {trial.number} {trial.state.name.lower()}: dev {percent(value)} {told}".rstrip())
