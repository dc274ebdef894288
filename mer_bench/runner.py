"""One request → one record: open the stores, train, choose on dev, score test once.

Under a protocol with folds a run is all of them: each has a store, a model, a selection and a test split of
its own, and the record is about the test predictions of all of them together, and of each.

A run saves its state as it goes, in a working folder of its own (`mer_bench.unfinished`). One that was killed at
any moment and is begun again ends with the bits that it would have had undisturbed; folds that are done stay done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from mer_bench import __version__, registry
from mer_bench.audit import KeptWeights, audited
from mer_bench.data.preparation import open_or_prepare
from mer_bench.data.store import SPLITS
from mer_bench.errors import (
    AlreadyRunningError,
    DataError,
    MerBenchError,
    OutOfMemoryError,
    PluginError,
    RecordError,
    RequestError,
    RunError,
    StoppedError,
    StorageError,
    is_out_of_memory,
)
from mer_bench.locations import data_root
from mer_bench.recording import Recording, check_writable, peak_memory_bytes
from mer_bench.records import Cost, Epoch, Failure, Fold, PredictionsFile, Record, Scores, Selection
from mer_bench.request import Plan, RunRequest, plan, read_settings_file
from mer_bench.unfinished import GO_ON, Unfinished, context_of, mark_begun

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from mer_bench.api import InputSpec, Model, Split
    from mer_bench.data.store import Store
    from mer_bench.predictions import DialogueCounts, Predictions
    from mer_bench.trainer import OnScored, ScoreDev, Trained, Trainer, TrainingState

__all__ = [
    "Listener",
    "Material",
    "Opened",
    "Part",
    "Plan",
    "Run",
    "RunRequest",
    "Standing",
    "begin_all",
    "can_be_saved",
    "check_apart",
    "fault_of",
    "fit",
    "kept_of",
    "open_device",
    "open_run",
    "parameter_count",
    "plan",
    "predictions_of",
    "read_settings_file",
    "run",
    "run_opened",
    "scorer",
    "trainer_of",
    "weights_prefix",
    "working_folder",
]


@dataclass(frozen=True)
class Standing:
    """How far a seed of a stack is: its best epoch so far, and whether it is trained on."""

    best_epoch: int
    best_score: float
    is_running: bool


class Listener:
    """Hears of a run's progress; every method does nothing until a child says otherwise."""

    def run_started(self, plan: Plan) -> None:
        """The request is right; work begins."""

    def preparing(self, text: str) -> None:
        """Data are being prepared; `text` says which."""

    def fold_started(self, fold: int, folds: int) -> None:
        """The work on a fold begins; never called under one fixed split."""

    def fold_ended(self, fold: int, folds: int, selection: Selection) -> None:
        """The fold's epoch is chosen, and its test split was predicted."""

    def training_started(self, can_be_saved: bool) -> None:
        """Training begins; whether there will be a state to save: a model that is fitted at one go has none."""

    def epoch_ended(self, epoch: Epoch, best_epoch: int, best_score: float, epochs: int, patience_left: int) -> None:
        """An epoch is over; `epochs` is how many there can be at most."""

    def stack_epoch_ended(self, epochs: Mapping[int, Epoch], standing: Mapping[int, Standing], most: int) -> None:
        """An epoch of several seeds that are trained together is over.

        Args:
            epochs: Of the seeds that were trained in it. standing: Of every seed. most: Epochs there can be.
        """

    def epoch_audited(self, done: int, epochs: int) -> None:
        """The weights of another epoch were scored on test, after the record was written."""

    def run_ended(self, record: Record) -> None:
        """The record is on disk."""

    def resumed(self, text: str) -> None:
        """A part of the work was done before the run was stopped; `text` says which."""

    def noticed(self, text: str) -> None:
        """Something that the user should know, in a sentence: a saved state was damaged, threads differ."""

    def stop_wanted(self) -> str:
        """Asked after each epoch: what wants the run to be saved and stopped (`SIGTERM`, `Ctrl-C`), or ""."""
        return ""


def run(request: RunRequest, listener: Listener | None = None) -> Record:
    """Train and score one model; write the record, its predictions and its weights.

    The trainer is handed train and dev. Only after it has chosen the epoch is the test split read, and
    scored once; under a protocol with folds this holds for each fold. A run that fails leaves a record of
    status `failed`, with the reason, and raises. With `audit_selection` the record, once it is written, gains
    what the score would have been with the epoch chosen on test; see `mer_bench.audit`.

    Raises:
        RequestError: If the request is wrong or data are missing; nothing is written then.
        AlreadyRunningError: If another process is at this run. StoppedError: If the listener wanted it stopped.
        RunError: If training failed or the results could not be written.
    """
    if request.stack:
        raise RequestError(
            "a seed of a stack is not trained alone; mer_bench.stacking.running.run_stack does them all."
        )
    listener = listener or Listener()
    planned = plan(request)
    device = open_device(request)
    listener.run_started(planned)
    return run_opened(open_run(planned, device, listener), listener)


def begin_all(requests: Sequence[RunRequest], listener: Listener) -> dict[int, Record]:
    """Mark the runs of a command that was asked for several seeds as begun, each until it is recorded.

    So that a command that was stopped goes on, while one that had ended repeats its runs, as it does for one seed.

    Args:
        requests: Alike but for their seeds.

    Returns:
        By seed, where an earlier command of these seeds was stopped: the records that it had finished by then.

    Raises:
        RequestError, StorageError: As `run`.
    """
    first, *_ = requests
    planned = plan(first)
    opened = open_run(planned, open_device(first), listener)
    recordings = {request.seed: Recording(replace(planned, request=request), opened.stores) for request in requests}
    was_stopped = any(recording.unfinished.is_dir() for recording in recordings.values())
    taken: dict[int, Record] = {}
    for seed, recording in recordings.items():
        if was_stopped and not recording.unfinished.is_dir() and (record := _same_again(recording, opened.device)):
            taken[seed] = record
        else:
            mark_begun(recording.unfinished)
    return taken


def _same_again(recording: Recording, device: torch.device) -> Record | None:
    """The record of a run if it is done and another run of it now would be made alike."""
    try:
        record = recording.found()
    except RecordError:  # damaged: it is made anew
        return None
    if record is None or record.machine is None:
        return None
    now, then = recording.machine(device), record.machine
    alike = (now.threads, now.versions, now.device) == (then.threads, then.versions, then.device)
    return record if alike and record.version == __version__ else None


def run_opened(opened: Opened, listener: Listener) -> Record:
    """The same where the stores are open already: several runs on one feature set open them once.

    Raises:
        AlreadyRunningError: If another process is at this run. StoppedError: If the listener wanted it stopped.
        RunError: If training failed or the results could not be written.
    """
    return Run(opened, listener).finish()


@dataclass(frozen=True)
class Opened:
    """A plan with its stores open and its device chosen.

    Attributes:
        stores: One, or one a fold.
    """

    plan: Plan
    stores: tuple[Store, ...]
    device: torch.device

    @property
    def by_fold(self) -> list[tuple[int | None, Store]]:
        """Each store with the number of its fold; None under one fixed split."""
        return [(fold if self.plan.folds else None, store) for fold, store in enumerate(self.stores, 1)]

    def spec(self, store: Store) -> InputSpec:
        """What a model is built for: a store's widths and classes."""
        from mer_bench.api import InputSpec

        return InputSpec(
            widths={name: store.widths[name] for name in self.plan.modalities},
            classes=store.classes,
            speakers=store.speakers,
        )

    def build(self, store: Store) -> Model:
        """A model with fresh weights for a store's widths and classes."""
        return _build(self.plan, self.spec(store))

    def material(self, store: Store) -> Material:
        """The train and the dev split of a store, on the device; nothing of test is read."""
        return Material(
            spec=self.spec(store),
            train=self.split(store, "train"),
            dev=self.split(store, "dev"),
            dev_identifiers=store.identifiers("dev"),
            dev_subsets=self.subsets(store, "dev"),
        )

    def split(self, store: Store, name: str) -> Split:
        """A split of a store, on the device."""
        return store.split(name, self.plan.modalities, self.device)

    def subsets(self, store: Store, name: str) -> Mapping[str, NDArray[np.bool_]]:
        """Which dialogues of a split belong to the parts of the corpus that its card names."""
        return store.subsets(name) if self.plan.dataset_card.subsets else {}

    def predictions(self, store: Store, split: Split, model: Model) -> Predictions:
        """What a model predicts for a split of a store."""
        from mer_bench.trainer import log_probabilities

        scores = log_probabilities(model, split)
        identifiers = store.identifiers(split.name)
        return predictions_of(split, identifiers, store.classes, scores, self.subsets(store, split.name))


@dataclass(frozen=True)
class Material:
    """All that training and the choice of an epoch see of a store: its train and its dev split.

    From here there is no way to the test split, so that whoever is handed this and no store cannot score it.
    """

    spec: InputSpec
    train: Split
    dev: Split
    dev_identifiers: tuple[list[str], list[str]]
    dev_subsets: Mapping[str, NDArray[np.bool_]]


def _build(planned: Plan, spec: InputSpec) -> Model:
    model: Model = registry.load_model(planned.model).model_class(spec, planned.settings)
    return model


def trainer_of(planned: Plan, material: Material, device: torch.device) -> Trainer:
    """A trainer with a fresh model for a plan's settings and seed."""
    from mer_bench.trainer import Trainer

    return Trainer(
        lambda: _build(planned, material.spec), planned.training, planned.metric, planned.request.seed, device
    )


def fit(
    trainer: Trainer,
    material: Material,
    heard: Callable[[Epoch, TrainingState], None],
    scored: OnScored | None = None,
) -> Trained:
    """Train on train and choose the epoch on dev; runs and the trials of a study share it.

    Args:
        heard: Called after each epoch.
        scored: Called before that, with the model as it was scored on dev.
    """
    return trainer.fit(material.train, material.dev, scorer(material), heard, scored)


def scorer(material: Material) -> ScoreDev:
    """What gives the scores of dev from its log-probabilities."""
    from mer_bench.metrics import score

    def score_dev(log_probabilities: Tensor) -> Scores:
        identifiers, classes = material.dev_identifiers, material.spec.classes
        return score(predictions_of(material.dev, identifiers, classes, log_probabilities, material.dev_subsets))

    return score_dev


def open_run(planned: Plan, device: torch.device, listener: Listener) -> Opened:
    """Open the stores of a plan, and see that its records can be written.

    Raises:
        RequestError: If data are missing. DataError: If a byte of a store is not what its manifest says.
        StorageError: If `out` cannot be written to.
    """
    check_writable(planned.request.out)
    root = data_root(planned.request.data_root)
    stores = tuple(open_or_prepare(key, root, listener.preparing) for key in planned.stores)
    for store in stores:
        # A flipped bit among the features changes the scores and nothing else; the record would vouch for them.
        store.verify()
    _check_stores(stores)
    return Opened(planned, stores, device)


def _check_stores(stores: Sequence[Store]) -> None:
    """Fail before an hour of training rather than after it.

    Raises:
        DataError: If a split has no label. PluginError: If the folds have other classes.
    """
    for store in stores:
        manifest = store.manifest
        for name in SPLITS:
            if manifest.counts[name].labelled == 0:
                raise DataError(f"no utterance of the {name} split of {manifest.key} has a label; it cannot be used.")
        if store.classes != stores[0].classes:
            raise PluginError(f"{manifest.key} has other classes than {stores[0].manifest.key}.")


def open_device(request: RunRequest) -> torch.device:
    """Set the thread count, open the device that a request names and make it reproducible, unless it may not be.

    Raises:
        RequestError: If there is no such device, or one of the CPU is asked not to be deterministic.
    """
    import torch

    from mer_bench.seeding import deterministic_algorithms

    if request.threads is not None:
        torch.set_num_threads(request.threads)
    name = request.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type != "cuda" and not request.deterministic:
        raise RequestError(
            f"--no-deterministic is for cuda alone, and this run is on {device.type}, where every result is "
            "reproducible at no cost; leave it out."
        )
    deterministic_algorithms(request.deterministic)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RequestError(f"device {name} was asked for, but {torch.cuda.device_count()} cuda devices are there.")
    return device


@dataclass(frozen=True)
class Part:
    """A model at its chosen epoch and what it predicted: all of a run, or one of its folds.

    Attributes:
        fold: From 1; None under one fixed split.
        scores: Log-probabilities of dev and of test, on the CPU.
        weights: By name, on the CPU.
    """

    fold: int | None
    store: Store
    selection: Selection
    curve: list[Epoch]
    dev_scores: Scores
    dev: Predictions
    test: Predictions
    scores: Mapping[str, Tensor]
    weights: dict[str, Tensor]
    seconds: float


def check_apart(parts: Sequence[Part], protocol: str) -> None:
    """See that the last fold tests nothing that one before it tested.

    Raises:
        PluginError: If it does.
    """
    *before, last = parts
    tested = {dialogue: part.fold for part in before for dialogue in part.test.dialogue_names}
    for dialogue in last.test.dialogue_names:
        if dialogue in tested:
            raise PluginError(
                f"{protocol} tests dialogue '{dialogue}' in fold {tested[dialogue]} and again in fold {last.fold}; "
                "folds must not share what they test."
            )


def kept_of(part: Part) -> dict[str, Any]:
    """What is kept of a fold, less its predictions: they hold labels, which some corpora forbid to pass on."""
    return {
        "scores": dict(part.scores),
        "selection": part.selection.model_dump(),
        "curve": [epoch.model_dump() for epoch in part.curve],
        "dev_scores": part.dev_scores.model_dump(),
        "weights": part.weights,
        "seconds": part.seconds,
    }


class Run:
    """The work of one run, from open stores to a record on disk.

    Args:
        unfinished: The working folder of several runs whose work is done together, by whoever holds it; left out:
            the run has one of its own, and `finish` does all of the work.
        sharers: Between how many runs the time is shared out.

    Attributes:
        fold: At which the work is, from 1; None under one fixed split. curve: Its epochs so far.
    """

    def __init__(
        self, opened: Opened, listener: Listener, unfinished: Unfinished | None = None, sharers: int = 1
    ) -> None:
        self.opened = opened
        self.plan = opened.plan
        self.listener = listener
        self.sharers = sharers
        self.fold: int | None = None
        self.curve: list[Epoch] = []
        self.epochs = 0
        self.parameters = 0
        self.memory_bytes = 0
        self.seconds_before = 0.0
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.clock = time.perf_counter()
        self.recording = Recording(opened.plan, opened.stores)
        self.kept = KeptWeights(self.recording.unfinished)
        self.unfinished = unfinished or working_folder(self.recording, opened.device, listener)

    def finish(self) -> Record:
        """Do all of the work, or what a stopped process left of it.

        Raises:
            As `run_opened`.
        """
        with self.unfinished:
            self.recording.prepare(is_alone=True)
            self.compare_threads()
            try:
                record = self._finish()
            except (StoppedError, AlreadyRunningError, StorageError):
                raise  # what was saved is of use yet
            except MerBenchError:
                self.unfinished.is_finished = True
                raise
            self.unfinished.is_finished = True
        self.listener.run_ended(record)
        return record

    def _finish(self) -> Record:
        try:
            parts = self._parts()
        except (StoppedError, AlreadyRunningError):
            raise
        except MerBenchError as error:
            if self.fold is not None:
                error.args = (f"fold {self.fold} of {self.plan.folds}: {error}",)
            self.write_failure(error)
            raise
        except Exception as error:  # a plugin's code may fail in any way; the record says how
            where = "" if self.fold is None else f" in fold {self.fold} of {self.plan.folds}"
            failure = fault_of(self.plan.model, error, where)
            self.write_failure(failure)
            raise failure from error
        self.unfinished.check()
        return self.write(parts)

    def compare_threads(self) -> None:
        """Tell of a record that is there and was made with another number of threads."""
        before = self.recording.before()
        if before is None or before.status != "done" or before.machine is None:
            return
        theirs, ours = before.machine.threads, int(self.unfinished.context["threads"])
        if theirs != ours:
            self.listener.noticed(
                f"the record that is there was made with {theirs} thread{'s' if theirs > 1 else ''}, and this run has "
                f"{ours}: the last bits of its numbers may differ. It will be replaced."
            )

    def _parts(self) -> list[Part]:
        if not self.plan.folds:
            return [self._part(self.opened.stores[0])]
        parts: list[Part] = []
        for fold, store in enumerate(self.opened.stores, 1):
            self.fold, self.curve = fold, []
            self.listener.fold_started(fold, self.plan.folds)
            part = self._finished_part(store) or self._part(store)
            check_apart([*parts, part], self.plan.protocol)
            parts.append(part)
            self.listener.fold_ended(fold, self.plan.folds, part.selection)
            if fold < self.plan.folds and (by := self.listener.stop_wanted()):
                raise StoppedError(f"stopped by {by} after fold {fold} of {self.plan.folds}, which is saved: {GO_ON}.")
        return parts

    def _part(self, store: Store) -> Part:
        part = self.tested(store, self._train(store))
        if self.fold is not None:
            self.unfinished.save_fold(self.fold, kept_of(part) | {"run": self.so_far()})
        return part

    def tested(self, store: Store, trained: Trained) -> Part:
        """What a trained model comes to: the only place where test is read, once the epoch is chosen."""
        from mer_bench.trainer import log_probabilities

        scores, predictions = {}, {}
        # Selection is frozen from here on: the first and only time that the test split is read.
        for name in ("dev", "test"):
            split = self.opened.split(store, name)
            scores[name] = log_probabilities(trained.model, split)
            predictions[name] = self._predictions(store, split, scores[name])
        return Part(
            fold=self.fold,
            store=store,
            selection=trained.selection,
            curve=self.curve,
            dev_scores=trained.dev,
            dev=predictions["dev"],
            test=predictions["test"],
            scores=scores,
            weights={name: value.cpu().contiguous() for name, value in trained.model.state_dict().items()},
            seconds=trained.seconds,
        )

    def _finished_part(self, store: Store) -> Part | None:
        """What the fold came to before the run was stopped; None if it was not done by then."""
        assert self.fold is not None
        kept = self.unfinished.finished_fold(self.fold)
        if kept is None or not self._is_enough(len(kept["curve"])):
            return None
        self.listener.resumed(f"fold {self.fold} of {self.plan.folds} was done before and is taken as it is.")
        return self.taken_up(store, kept)

    def taken_up(self, store: Store, kept: Mapping[str, Any]) -> Part:
        """What was kept of a fold, with its predictions; the account of the run goes on from there."""
        self.go_on(kept["run"])
        self.curve = [Epoch.model_validate(epoch) for epoch in kept["curve"]]
        predictions = {
            name: self._predictions(store, self.opened.split(store, name), scores)
            for name, scores in kept["scores"].items()
        }
        return Part(
            fold=self.fold,
            store=store,
            selection=Selection.model_validate(kept["selection"]),
            curve=self.curve,
            dev_scores=Scores.model_validate(kept["dev_scores"]),
            dev=predictions["dev"],
            test=predictions["test"],
            scores=kept["scores"],
            weights=kept["weights"],
            seconds=kept["seconds"],
        )

    def _train(self, store: Store) -> Trained:
        material = self.opened.material(store)
        trainer = trainer_of(self.plan, material, self.opened.device)
        # The widths, and with them the parameters, may differ from fold to fold.
        self.parameters = max(self.parameters, parameter_count(trainer))
        saved = self.unfinished.last_epoch(self.fold)
        if saved is not None and self._is_enough(len(saved["training"]["progress"]["curve"])):
            self.go_on(saved["run"])
            trainer.state.load_state_dict(saved["training"])
            self.curve = list(trainer.state.curve)
            where = "" if self.fold is None else f" of fold {self.fold}"
            self.listener.resumed(f"going on after epoch {trainer.state.epoch}{where}, where the run was stopped.")
        self.listener.training_started(can_be_saved(trainer.state) or self.fold is not None)
        return fit(trainer, material, self._heard, self._keep if self.plan.request.audit_selection else None)

    def _keep(self, epoch: int, model: Model) -> None:
        self.kept.keep(self.fold, epoch, model.state_dict())

    def _is_enough(self, epochs: int) -> bool:
        """Whether what was saved after so many epochs serves this run: an audit needs the weights of each of them."""
        if not self.plan.request.audit_selection or self.kept.holds(self.fold, epochs):
            return True
        where = "" if self.fold is None else f" of fold {self.fold}"
        self.listener.noticed(
            f"the run was stopped after epoch {epochs}{where}, but not all weights that an audit needs were kept by "
            "then; it starts anew."
        )
        return False

    def so_far(self) -> dict[str, Any]:
        """What the record will say of the whole run and a state of training does not know."""
        return {
            "started": self.started,
            "seconds": self._seconds(),
            "epochs": self.epochs,
            "parameters": self.parameters,
            "memory_bytes": max(self.memory_bytes, peak_memory_bytes(self.opened.device)),
        }

    def go_on(self, before: Mapping[str, Any]) -> None:
        """Count what was done before the run was stopped; a later state replaces an earlier one's account."""
        self.started = before["started"]
        self.seconds_before = before["seconds"]
        self.clock = time.perf_counter()
        self.epochs = before["epochs"]
        self.parameters = max(self.parameters, before["parameters"])
        self.memory_bytes = before["memory_bytes"]

    def _heard(self, epoch: Epoch, state: TrainingState) -> None:
        self.curve.append(epoch)
        self.epochs += 1
        left = self.plan.training.patience - (state.epoch - state.best_epoch)
        self.listener.epoch_ended(epoch, state.best_epoch, state.best_score, self.plan.training.epochs, left)
        if not can_be_saved(state):
            return  # there is nothing between its beginning and its end
        by = self.listener.stop_wanted()
        if by or self.unfinished.is_due():
            saved = self.unfinished.save_epoch(
                self.fold, epoch.epoch, {"training": state.parts(), "run": self.so_far()}
            )
            if by:
                self.stop(by, epoch.epoch, saved)

    def stop(self, by: str, epoch: int, saved: bool) -> NoReturn:
        """End here, with what is saved told.

        Raises:
            StoppedError: Always.
        """
        where = f"epoch {epoch}" if self.fold is None else f"epoch {epoch} of fold {self.fold}"
        if saved:
            raise StoppedError(f"stopped by {by} after {where}, which is saved: {GO_ON}.")
        if self.unfinished.has_states:
            raise StoppedError(f"stopped by {by}; {where} could not be saved, but what came before is: {GO_ON}.")
        raise StoppedError(f"stopped by {by}; {where} could not be saved, so that the run begins anew.", saved=False)

    def _predictions(self, store: Store, split: Split, scores: Tensor) -> Predictions:
        subsets = self.opened.subsets(store, split.name)
        return predictions_of(split, store.identifiers(split.name), store.classes, scores, subsets)

    def write(self, parts: Sequence[Part]) -> Record:
        """Write predictions, weights and record.

        Args:
            parts: One, or one a fold.
        """
        from mer_bench.metrics import score, score_folds
        from mer_bench.predictions import pooled

        def describe(stored: Predictions | DialogueCounts, file: PredictionsFile) -> Record:
            return self._record(
                status="done",
                test=score(stored),
                predictions=file,
                cost=self._cost(sum(part.seconds for part in parts)),
                **self._chosen(parts, score_folds(stored)),
            )

        test = pooled([part.test for part in parts]) if self.plan.folds else parts[0].test
        record = self.recording.write(test, _weights(parts), describe)
        return self._audited(record) if self.plan.request.audit_selection else record

    def _audited(self, record: Record) -> Record:
        """The record on the disk with its audit; from here on nothing else of it can change.

        Raises:
            RunError: If the audit failed; the record stays, without one.
        """
        stores = dict(self.opened.by_fold)

        def predict(fold: int | None, weights: dict[str, Tensor]) -> Predictions:
            store = stores[fold]
            model = self.opened.build(store)
            model.load_state_dict(weights)
            model.to(self.opened.device)
            return self.opened.predictions(store, self.opened.split(store, "test"), model)

        try:
            found = audited(record, predict, self.kept, self.listener.epoch_audited)
        except Exception as error:  # a plugin's code may fail in any way
            self.unfinished.is_finished = True  # the record is there, and damaged weights would fail again
            known = error if isinstance(error, MerBenchError) else fault_of(self.plan.model, error)
            kept = f"The record is written, but without an audit: {known}"
            raise (type(known) if isinstance(known, StorageError) else RunError)(kept) from error
        self.recording.amend(found)
        return found

    def _chosen(self, parts: Sequence[Part], tested: Mapping[int, Scores]) -> dict[str, Any]:
        """What the record says of training and selection: once, or for each fold.

        Args:
            tested: Scores of each fold's test split, by its number.
        """
        from mer_bench.metrics import score
        from mer_bench.predictions import pooled

        if not self.plan.folds:
            (part,) = parts
            return {"curve": part.curve, "selection": part.selection, "dev": part.dev_scores}
        folds = [
            Fold(
                fold=number,
                features_detail=self.recording.features([part.store]),
                selection=part.selection,
                dev=part.dev_scores,
                test=tested[number],
                curve=part.curve,
            )
            for number, part in enumerate(parts, 1)
        ]
        dev = score(pooled([_named_by_fold(part.dev, number) for number, part in enumerate(parts, 1)]))
        return {"curve": [], "selection": None, "dev": dev, "folds": folds}

    def write_failure(self, error: MerBenchError) -> None:
        """Write the record of a run that failed, with the reason."""
        self.kept.remove()  # where it was they that filled the disk, there is room for the reason again
        epoch = self.curve[-1].epoch if self.curve else None
        record = self._record(
            status="failed",
            curve=self.curve,
            selection=None,
            dev=None,
            test=None,
            predictions=None,
            cost=self._cost(self._seconds()),
            failure=Failure(kind=type(error).__name__, reason=str(error), epoch=epoch, fold=self.fold),
        )
        self.recording.write_failure(record)

    def _record(self, **parts: Any) -> Record:
        return self.recording.record(self.opened.device, started=self.started, **parts)

    def _seconds(self) -> float:
        """Since the run began, without the time from the last saved state to a kill, and the time in between."""
        return self.seconds_before + time.perf_counter() - self.clock

    def _cost(self, training_seconds: float) -> Cost:
        return Cost(
            wall_seconds=round(self._seconds() / self.sharers, 3),
            epochs_per_second=round(self.epochs / training_seconds, 4) if training_seconds > 0 else 0.0,
            memory_bytes=max(self.memory_bytes, peak_memory_bytes(self.opened.device)),
            parameters=self.parameters,
        )


def working_folder(recording: Recording, device: torch.device, listener: Listener) -> Unfinished:
    """Where the states of a run are kept until it is recorded, and who is at it."""
    return Unfinished(
        recording.unfinished,
        recording.name,
        context_of(recording, device),
        listener.noticed,
        f"write records to {recording.plan.request.out}",
    )


def can_be_saved(state: TrainingState) -> bool:
    """Whether training has a state after each epoch to go on from: a model that is fitted at one go has none."""
    from mer_bench.api import FittedModel

    return not isinstance(state.model, FittedModel)


def parameter_count(trainer: Trainer) -> int:
    """Numbers that a trainer's model learns."""
    return sum(each.numel() for each in trainer.state.model.parameters())


def fault_of(model: str, error: Exception, where: str = "") -> RunError:
    """What a record says of an error that a model's code raised, and did not mean to.

    Args:
        where: In which part of the run: ` in fold 2 of 5`.
    """
    if is_out_of_memory(error):
        return OutOfMemoryError(f"the machine's memory was exhausted{where} while {model} was run.")
    return RunError(f"{model} failed{where}: {type(error).__name__}: {error}")


def weights_prefix(fold: int | None) -> str:
    """What stands before the name of a weight in a run's file: nothing, or the fold that it belongs to."""
    return "" if fold is None else f"fold{fold}."


def _weights(parts: Sequence[Part]) -> dict[str, Tensor]:
    """The weights of all parts: under a protocol with folds `fold2.` stands before the names of fold 2's."""
    return {f"{weights_prefix(part.fold)}{name}": value for part in parts for name, value in part.weights.items()}


def _named_by_fold(predictions: Predictions, fold: int) -> Predictions:
    """The same predictions under names of the fold's own: a dialogue may be in the dev split of several folds."""
    return replace(
        predictions,
        ids=[f"fold {fold}/{name}" for name in predictions.ids],
        dialogues=[f"fold {fold}/{name}" for name in predictions.dialogues],
    )


def predictions_of(
    split: Split,
    identifiers: tuple[list[str], list[str]],
    classes: tuple[str, ...],
    log_probabilities: Tensor,
    subsets: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Predictions:
    """A split's predictions from a model's log-probabilities.

    Shapes:
        log_probabilities: (utterances, classes), float32, on the CPU.
        subsets[name]: (dialogues,), bool, in the order of the split.
    """
    import numpy as np
    import torch

    from mer_bench.predictions import Predictions

    if split.labels is None:
        raise RequestError(f"the labels of split {split.name} are out of reach; it cannot be scored.")
    lengths = split.lengths
    positions = torch.arange(split.utterance_count) - torch.repeat_interleave(split.offsets[:-1], lengths)
    utterances, dialogues = identifiers
    return Predictions(
        classes=classes,
        ids=utterances,
        dialogues=dialogues,
        positions=positions.numpy().astype(np.int32),
        speakers=split.speakers.cpu().numpy().astype(np.int16),
        true=split.labels.cpu().numpy().astype(np.int16),
        predicted=log_probabilities.argmax(dim=-1).numpy().astype(np.int16),
        log_probabilities=log_probabilities.numpy().astype(np.float16),
        subsets=subsets or {},
    )
