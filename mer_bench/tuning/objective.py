"""What a trial is: train with the suggested settings on a few seeds, and say the mean of the protocol's dev metric.

It is handed `Material`, a store's train and dev split, and no store: there is no way from here to test.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import optuna

from mer_bench.errors import MerBenchError, RunError
from mer_bench.records import Epoch
from mer_bench.request import Plan, plan
from mer_bench.runner import Listener, Material, fault_of, fit, parameter_count, trainer_of
from mer_bench.tuning.study import StudyPlan

if TYPE_CHECKING:
    import torch

    from mer_bench.trainer import Trained, TrainingState


REPORTS: Final = 20
"""How often a pruner hears of a seed at most: at epochs evenly apart, the same in every trial."""
ASKED_AFTER_SECONDS = 0.5
"""A trial younger than this is not reported to the pruner: to give it up would save less than to ask costs."""


class TrialFailedError(RunError):
    """A trial failed, and says so with its reason; the study goes on."""


class Objective:
    """Trains and scores one trial after another on splits that were opened once.

    Leaves user attributes with each trial: `settings` (what was fixed and what was suggested, as `--set` takes them),
    `seconds` of training (dev scored included), `epochs` trained, `parameters`, `scores` by seed; of a failed one
    `reason` and `kind`.

    Args:
        material: Train and dev.
        listener: Hears of each epoch.
    """

    def __init__(
        self, planned: StudyPlan, material: Material, device: torch.device, listener: Listener | None = None
    ) -> None:
        self.planned = planned
        self.material = material
        self.device = device
        self.listener = listener or Listener()

    def __call__(self, trial: optuna.Trial) -> float | Sequence[float]:
        """The value of a trial, or its two values.

        Raises:
            optuna.TrialPruned: If it was given up.
            TrialFailedError: If it failed; its attributes say why.
        """
        work = _Work(self, trial)
        try:
            score = work.score()
        except optuna.exceptions.OptunaError:  # pruned, or the storage failed: not the model's fault
            raise
        except MerBenchError as error:
            raise work.failed(error) from error
        except Exception as error:  # a plugin's code may fail in any way
            raise work.failed(fault_of(self.planned.plan.model, error)) from error
        finally:
            work.tell_cost()
        return (score, work.seconds) if self.planned.weighs_cost else score


class _Work:
    """One trial."""

    def __init__(self, objective: Objective, trial: optuna.Trial) -> None:
        self.objective = objective
        self.planned = objective.planned
        self.trial = trial
        self.scores: list[float] = []
        self.step = 0
        self.epochs = 0
        self.parameters = 0
        self.seconds = 0.0
        self.started = time.perf_counter()

    def score(self) -> float:
        settings = {**self.planned.space.fixed, **self.planned.space.suggest(self.trial)}
        self.trial.set_user_attr("settings", settings)
        request = replace(self.planned.plan.request, settings=settings)
        whole = plan(request)
        for seed in self.planned.seeds:
            trained = self._train(replace(whole, request=replace(request, seed=seed)))
            self.scores.append(trained.selection.score)
            self._after_seed(len(self.scores))
        return statistics.fmean(self.scores)

    def failed(self, error: MerBenchError) -> TrialFailedError:
        self.trial.set_user_attr("kind", type(error).__name__)
        self.trial.set_user_attr("reason", str(error))
        return TrialFailedError(str(error))

    def tell_cost(self) -> None:
        told: dict[str, Any] = {
            "seconds": round(self.seconds, 4),
            "epochs": self.epochs,
            "parameters": self.parameters,
            "scores": self.scores,
        }
        for name, value in told.items():
            self.trial.set_user_attr(name, value)

    def _train(self, planned: Plan) -> Trained:
        objective = self.objective
        trainer = trainer_of(planned, objective.material, objective.device)
        self.parameters = parameter_count(trainer)
        before, seconds_before = self.step, self.seconds

        def heard(epoch: Epoch, state: TrainingState) -> None:
            self.epochs += 1
            self.step = before + epoch.epoch
            self.seconds = seconds_before + state.training_seconds
            left = planned.training.patience - (state.epoch - state.best_epoch)
            objective.listener.epoch_ended(epoch, state.best_epoch, state.best_score, planned.training.epochs, left)
            if self._is_worth_asking(epoch.epoch, planned.training.epochs):
                self._report(statistics.fmean([*self.scores, state.best_score]), self.step)

        trained = fit(trainer, objective.material, heard)
        self.step = before + planned.training.epochs
        return trained

    def _is_worth_asking(self, epoch: int, epochs: int) -> bool:
        by_epoch = self.planned.pruner in ("median", "hyperband")
        age = time.perf_counter() - self.started
        return by_epoch and epoch % -(-epochs // REPORTS) == 0 and age >= ASKED_AFTER_SECONDS

    def _after_seed(self, done: int) -> None:
        if self.planned.pruner == "wilcoxon" and done < len(self.planned.seeds):
            self._report(self.scores[-1], done)

    def _report(self, value: float, step: int) -> None:
        self.trial.report(value, step)
        if self.trial.should_prune():
            raise optuna.TrialPruned
