"""One request for several seeds → one record a seed, all of them trained together.

The stack has one working folder, that of its first seed, for its states and its claim: a command that was killed at
any moment and is given again ends with the bits that it would have had undisturbed. Records are written once all
seeds have ended, one after the other; a kill in between makes them anew, alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from mer_bench.errors import (
    AlreadyRunningError,
    DivergedError,
    MerBenchError,
    RequestError,
    StoppedError,
    StorageError,
)
from mer_bench.recording import Recording
from mer_bench.runner import (
    Listener,
    Opened,
    Part,
    Run,
    Standing,
    check_apart,
    fault_of,
    kept_of,
    open_device,
    open_run,
    parameter_count,
    plan,
    scorer,
    trainer_of,
    working_folder,
)
from mer_bench.unfinished import GO_ON

if TYPE_CHECKING:
    from mer_bench.data.store import Store
    from mer_bench.records import Epoch, Record
    from mer_bench.request import Plan, RunRequest
    from mer_bench.stacking.training import StackTrainer

TRIAL_DIALOGUES = 4
"""Dialogues on which it is tried out whether a model stacks."""


@dataclass(frozen=True)
class StackResult:
    """What a stack came to.

    Attributes:
        records: Of the seeds that are done. failed: Seeds that diverged, each with its error; their records say so.
    """

    records: list[Record]
    failed: list[tuple[int, DivergedError]]


def stacked_requests(request: RunRequest, seeds: Sequence[int]) -> list[RunRequest]:
    """A request for each seed of a stack.

    Raises:
        RequestError: If seeds of this request can't be stacked, whatever the model.
    """
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise RequestError(
            f"a stack is of two different seeds or more, but {len(set(seeds))} was given; leave --stack-seeds out, or "
            "ask for several with --seeds."
        )
    if request.audit_selection:
        raise RequestError(
            "--audit-selection keeps the weights of every epoch of one run, and is not there for stacked seeds; leave "
            "one of the two out."
        )
    return [replace(request, seed=seed, stack=tuple(seeds)) for seed in seeds]


def run_stack(request: RunRequest, seeds: Sequence[int], listener: Listener | None = None) -> StackResult:
    """Train and score a model with several seeds in one pass each epoch; write a record for each seed.

    The epoch of each seed is chosen by its own dev scores, and test is read once it is. A seed that diverges leaves
    a record of status `failed`, and the others go on.

    Raises:
        RequestError: If the request is wrong, data are missing, or the model does not stack; nothing is written then.
        AlreadyRunningError: If another process is at this stack. StoppedError: If the listener wanted it stopped.
        RunError: If training failed for all seeds or results could not be written.
    """
    listener = listener or Listener()
    requests = stacked_requests(request, seeds)
    planned = plan(requests[0])
    if planned.training.precision != "float32":
        raise RequestError(
            f"stacked seeds are trained in float32, but precision is {planned.training.precision}; leave --stack-seeds "
            "out."
        )
    if planned.training.compile:
        raise RequestError(
            "stacked seeds are not trained through PyTorch's compiler; leave --stack-seeds or compile out."
        )
    device = open_device(request)
    listener.run_started(planned)
    opened = open_run(planned, device, listener)
    plans = [replace(planned, request=each) for each in requests]
    _try_out(opened, plans)
    return _StackedRun(opened, plans, listener).finish()


def _try_out(opened: Opened, plans: Sequence[Plan]) -> None:
    """See that the model stacks.

    Raises:
        NotStackableError: If it does not.
    """
    from mer_bench.stacking.trial import check_stackable
    from mer_bench.trainer import Criterion

    material = opened.material(opened.stores[0])
    trainers = [trainer_of(each, material, opened.device) for each in plans[:2]]
    models = [trainer.state.model for trainer in trainers]
    few = material.train.batch(range(min(TRIAL_DIALOGUES, material.train.dialogue_count)))
    criterion = Criterion.for_split(plans[0].training, material.train, material.spec.class_count)
    check_stackable(plans[0].model, models, few, criterion)


class _StackedRun:
    """The work of a stack, from open stores to records on disk.

    Attributes:
        runs: One a seed: its account, and its record in the end.
        failed: By place among the runs, those that diverged.
    """

    def __init__(self, opened: Opened, plans: Sequence[Plan], listener: Listener) -> None:
        self.opened = opened
        self.listener = listener
        self.unfinished = working_folder(Recording(plans[0], opened.stores), opened.device, listener)
        self.runs = [Run(replace(opened, plan=each), listener, self.unfinished, len(plans)) for each in plans]
        self.failed: dict[int, DivergedError] = {}

    @property
    def first(self) -> Run:
        """Whose names stand for the stack."""
        return self.runs[0]

    def finish(self) -> StackResult:
        with self.unfinished:
            for run in self.runs:
                run.recording.prepare(is_alone=True)
            self.first.compare_threads()
            try:
                records = self._write(self._parts())
            except (StoppedError, AlreadyRunningError, StorageError):
                raise  # what was saved is of use yet
            except MerBenchError as error:
                self._fail(error)
            except Exception as error:  # a plugin's code may fail in any way; the records say how
                self._fail(fault_of(self.first.plan.model, error), error)
            self.unfinished.is_finished = True
        for record in records:
            self.listener.run_ended(record)
        return StackResult(records, [(self._seed(place), error) for place, error in sorted(self.failed.items())])

    def _fail(self, error: MerBenchError, cause: Exception | None = None) -> NoReturn:
        if self.first.fold is not None:
            error.args = (f"fold {self.first.fold} of {self.first.plan.folds}: {error}",)
        for run in self.runs:
            run.write_failure(error)
        self.unfinished.is_finished = True
        raise error from cause

    def _seed(self, place: int) -> int:
        return self.runs[place].plan.request.seed

    @property
    def _alive(self) -> list[int]:
        return [place for place in range(len(self.runs)) if place not in self.failed]

    def _parts(self) -> dict[int, list[Part]]:
        """What each seed came to in each fold, or at all under one fixed split; none of those that diverged."""
        parts: dict[int, list[Part]] = {place: [] for place in range(len(self.runs))}
        folds = self.first.plan.folds
        for fold, store in self.opened.by_fold:
            if not self._alive:
                break
            for place in self._alive:
                self.runs[place].fold, self.runs[place].curve = fold, []
            if fold is not None:
                self.listener.fold_started(fold, folds)
            found = self._finished_fold(fold, store) if fold is not None else None
            for place, part in (self._trained(fold, store) if found is None else found).items():
                parts[place].append(part)
                check_apart(parts[place], self.first.plan.protocol)
            if fold is not None and fold < folds and (by := self.listener.stop_wanted()):
                raise StoppedError(f"stopped by {by} after fold {fold} of {folds}, which is saved: {GO_ON}.")
        return {place: parts[place] for place in self._alive}

    def _finished_fold(self, fold: int, store: Store) -> dict[int, Part] | None:
        """What a fold came to before the command was stopped; None if it was not done by then."""
        kept = self.unfinished.finished_fold(fold)
        if kept is None:
            return None
        self.listener.resumed(f"fold {fold} of {self.first.plan.folds} was done before and is taken as it is.")
        found = {}
        for place, (part, failure) in enumerate(zip(kept["parts"], kept["failures"], strict=True)):
            if failure is not None:
                self.failed[place] = DivergedError(failure)
            else:
                found[place] = self.runs[place].taken_up(store, part)
        return found

    def _trained(self, fold: int | None, store: Store) -> dict[int, Part]:
        """Train the seeds that are left on a store, and test each at its own epoch."""
        from mer_bench.stacking.training import StackTrainer

        places = self._alive
        runs = [self.runs[place] for place in places]
        material = self.opened.material(store)
        trainers = [trainer_of(run.plan, material, self.opened.device) for run in runs]
        for run, trainer in zip(runs, trainers, strict=True):
            run.parameters = max(run.parameters, parameter_count(trainer))
        saved = self.unfinished.last_epoch(fold)
        stack = StackTrainer(trainers, self.opened.device, saved["stack"] if saved else None)
        if saved:
            for run, before, trainer in zip(runs, saved["runs"], trainers, strict=True):
                run.go_on(before)
                run.curve = list(trainer.state.curve)
            where = "" if fold is None else f" of fold {fold}"
            self.listener.resumed(f"going on after epoch {stack.epoch}{where}, where the stack was stopped.")
        self.listener.training_started(True)
        results = stack.fit(
            material.train, material.dev, scorer(material), lambda epochs: self._heard(stack, places, epochs)
        )
        found = {}
        for place, result in zip(places, results, strict=True):
            if isinstance(result, DivergedError):
                where = "" if fold is None else f"fold {fold} of {self.first.plan.folds}: "
                self.failed[place] = DivergedError(f"{where}{result}")
            else:
                found[place] = self.runs[place].tested(store, result)
        if fold is not None:
            self.unfinished.save_fold(fold, self._kept(found))
        return found

    def _kept(self, found: Mapping[int, Part]) -> dict[str, Any]:
        parts = [
            kept_of(found[place]) | {"run": run.so_far()} if place in found else None
            for place, run in enumerate(self.runs)
        ]
        failures = [str(self.failed[place]) if place in self.failed else None for place in range(len(self.runs))]
        return {"parts": parts, "failures": failures}

    def _heard(self, stack: StackTrainer, places: Sequence[int], epochs: Mapping[int, Epoch]) -> None:
        """Count an epoch, tell of it, and save the stack when it is time.

        Args:
            places: Of the stack's members among the runs. epochs: By place in the stack.
        """
        for member, epoch in epochs.items():
            run = self.runs[places[member]]
            run.curve.append(epoch)
            run.epochs += 1
        seeds = [self._seed(place) for place in places]
        self.listener.stack_epoch_ended(
            {seeds[member]: epoch for member, epoch in epochs.items()},
            {
                seed: Standing(member.trainer.state.best_epoch, member.trainer.state.best_score, member.is_running)
                for seed, member in zip(seeds, stack.members, strict=True)
            },
            self.first.plan.training.epochs,
        )
        by = self.listener.stop_wanted()
        if by or self.unfinished.is_due():
            state = {"stack": stack.states(), "runs": [self.runs[place].so_far() for place in places]}
            saved = self.unfinished.save_epoch(self.first.fold, stack.epoch, state)
            if by:
                self.first.stop(by, stack.epoch, saved)

    def _write(self, parts: Mapping[int, Sequence[Part]]) -> list[Record]:
        self.unfinished.check()
        for place, error in self.failed.items():
            self.runs[place].write_failure(error)
        return [self.runs[place].write(each) for place, each in parts.items()]
