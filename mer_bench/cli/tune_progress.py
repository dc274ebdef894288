"""What a person sees while a study goes on: one line a trial, and on a terminal the epochs of the running one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mer_bench.cli.console import Bar, duration_text, percent
from mer_bench.cli.progress import ProgressListener
from mer_bench.records import Epoch
from mer_bench.tuning.workers import TuneListener

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from mer_bench.tuning.study import StudyPlan


class TuneProgress(ProgressListener, TuneListener):
    """Shows the trials of a study one after another."""

    _waited_for: tuple[int, ...] = ()

    def study_opened(self, planned: StudyPlan, study: optuna.Study) -> None:
        self._end_bar()
        request = planned.request
        done = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
        limits = [
            f"{request.trials} trials" if request.trials else "",
            f"{request.timeout:g} s of work" if request.timeout else "",
        ]
        until = " or ".join(each for each in limits if each) or "the end of the grid"
        made_up = " (synthetic)" if planned.plan.synthetic else ""
        pruner = "no pruner" if planned.pruner == "none" else f"pruner {planned.pruner}"
        self._screen.line(f"study {study.study_name}: {planned.plan.model_title} on {planned.plan.features}{made_up}")
        seeds = f", {len(planned.seeds)} seeds a trial" if len(planned.seeds) > 1 else ""
        self._screen.line(
            f"{len(planned.space.dimensions)} settings are searched until {until}; sampler {request.sampler}, "
            f"{pruner}{seeds}{f'; {done} trials are there already' if done else ''}",
            tone="quiet",
        )
        if planned.weighs_cost:
            self._screen.line(
                "score is weighed against seconds of training, so that no trial is given up", tone="quiet"
            )

    def epoch_ended(self, epoch: Epoch, best_epoch: int, best_score: float, epochs: int, patience_left: int) -> None:
        if not self._screen.is_terminal:
            return
        if self._bar is None:
            self._bar = Bar(self._screen, epochs)
            self._bar.__enter__()
        self._bar.show(f"epoch {epoch.epoch}/{epochs}", f"best dev {percent(best_score)}", epoch.epoch, epochs)

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._end_bar()
        seconds = duration_text(trial.user_attrs.get("seconds", 0.0))
        head = f"trial {trial.number}"
        if trial.state.name == "FAIL":
            self._screen.warn(f"{head} failed: {trial.user_attrs.get('reason', 'no reason is known')}")
            return
        if trial.state.name == "PRUNED":
            self._screen.line(
                f"{head}: given up after {trial.user_attrs.get('epochs', 0)} epochs, {seconds}", tone="quiet"
            )
            return
        score = trial.values[0] if trial.values else None
        is_best = any(each.number == trial.number for each in study.best_trials)
        self._screen.line(f"{head}: dev {percent(score)}, {seconds}{', the best so far' if is_best else ''}")

    def trial_lost(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._screen.warn(
            f"trial {trial.number} was taken for dead by another worker, which runs it again; --stale-after is too "
            "short, or this machine stood still."
        )

    def waiting(self, study: optuna.Study, numbers: tuple[int, ...]) -> None:
        if numbers != self._waited_for:
            self._waited_for = numbers
            told = ", ".join(str(number) for number in numbers)
            self._screen.line(f"waiting for trial {told} of other workers; where one is dead, it will be run again")

    def worker_died(self, name: str, reason: str) -> None:
        self._screen.warn(f"{name} died: {reason.rstrip('.')}. The others go on, and its trial will be run again.")

    def interrupted(self, study: optuna.Study) -> None:
        self._screen.line(f"study {study.study_name} is saved; the same command goes on with it")
