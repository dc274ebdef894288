"""One request → one record: resolve the names, open the stores, train, choose on dev, score test once.

Under a protocol with folds a run is all of them: each has a store, a model, a selection and a test split of
its own, and the record is about the test predictions of all of them together, and of each.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_bench import __version__, registry
from mer_bench.atomic import remove_abandoned, storage_errors, temporary_beside, write_atomically
from mer_bench.cards import DatasetCard, ModelCard
from mer_bench.config import Settings, TrainerSettings, merge_settings, split_settings, validated
from mer_bench.data.preparation import open_or_prepare, resolve
from mer_bench.data.store import SPLITS
from mer_bench.errors import (
    DataError,
    MerBenchError,
    OutOfMemoryError,
    PluginError,
    RequestError,
    RunError,
    StorageError,
    UnknownNameError,
)
from mer_bench.locations import StoreKey, data_root
from mer_bench.records import (
    Cost,
    Epoch,
    Failure,
    Features,
    Fold,
    Machine,
    PredictionsFile,
    Record,
    Scores,
    Selection,
    predictions_file,
    private_file,
    record_file,
    record_folder,
    weights_file,
)

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from mer_bench.api import Split
    from mer_bench.data.store import Store
    from mer_bench.predictions import DialogueCounts, Predictions
    from mer_bench.trainer import Trained, TrainingState


@dataclass(frozen=True)
class RunRequest:
    """What the user asked for; everything left out takes the card's default.

    Attributes:
        labels, features, protocol: Ids, short (`transcripts`) or full (`meld/transcripts`).
        modalities: In any order; None is every modality that model and feature set share.
        settings: Model and trainer fields by name, on top of the card's.
        out: Folder of records.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads; None leaves PyTorch's choice. Recorded, not part of the identity.
        data_root: Folder of data; None: $MER_BENCH_DATA, else the user's data folder.
        keep_predictions: Where the corpus forbids to pass on labels of utterances, write the predictions by
            utterance too, as a `.private.npz` beside the file that may be passed on.
    """

    model: str
    dataset: str
    labels: str | None = None
    features: str | None = None
    protocol: str | None = None
    modalities: tuple[str, ...] | None = None
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    out: Path = Path("runs")
    device: str = "auto"
    threads: int | None = None
    data_root: Path | None = None
    keep_predictions: bool = False


@dataclass(frozen=True)
class Plan:
    """A request whose every name and setting was found to be right.

    Attributes:
        labels, features, protocol: Full ids: `meld/emotion`.
        modalities: In the dataset's order.
        settings, training: Of the model and of the trainer, complete.
    """

    request: RunRequest
    key: StoreKey
    dataset: str
    labels: str
    features: str
    protocol: str
    modalities: tuple[str, ...]
    model: str
    model_card: ModelCard
    dataset_card: DatasetCard
    settings: Settings
    training: TrainerSettings

    @property
    def model_title(self) -> str:
        """The model's name as written in a table."""
        return self.model_card.title

    @property
    def synthetic(self) -> bool:
        """True for made-up dialogues."""
        return self.dataset_card.synthetic

    @property
    def metric(self) -> str:
        """The dev metric that chooses the epoch."""
        return self.dataset_card.protocols[self.key.protocol].selection

    @property
    def folds(self) -> int:
        """How many folds the protocol has; 0 for one fixed split."""
        return self.dataset_card.protocols[self.key.protocol].folds

    @property
    def stores(self) -> tuple[StoreKey, ...]:
        """The feature stores of the run: one, or one a fold."""
        return tuple(replace(self.key, fold=fold) for fold in range(1, self.folds + 1)) or (self.key,)


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

    def epoch_ended(self, epoch: Epoch, best_epoch: int, best_score: float, epochs: int, patience_left: int) -> None:
        """An epoch is over; `epochs` is how many there can be at most."""

    def run_ended(self, record: Record) -> None:
        """The record is on disk."""


def plan(request: RunRequest) -> Plan:
    """Check every name and setting of a request, without data and without torch.

    Raises:
        UnknownNameError, SettingError, RequestError: For the first thing that is wrong.
    """
    model = registry.models().find(request.model)
    dataset = registry.datasets(request.data_root).find(request.dataset)
    names = (request.features, request.labels, request.protocol)
    key = resolve(request.dataset, *names, root=request.data_root)
    modalities = _modalities(request, model.card, dataset.card, key)
    settings_class = registry.settings_class(model.name)
    for origin, values in (
        (f"the card of {model.name}", model.card.settings_for(dataset.name)),
        ("from --set or --settings", dict(request.settings)),
    ):
        # Each layer is checked by itself, so that a wrong value is blamed on where it was written.
        ours, trainers = split_settings(values, settings_class, origin)
        validated(settings_class, ours, origin)
        validated(TrainerSettings, trainers, origin)
    merged = merge_settings(model.card.settings_for(dataset.name), request.settings)
    ours, trainers = split_settings(merged, settings_class, "the card and the request together")
    if request.seed < 0:
        raise RequestError(f"a seed must be 0 or more, but is {request.seed}.")
    if request.threads is not None and request.threads < 1:
        raise RequestError(f"threads must be 1 or more, but is {request.threads}.")
    _check_device_name(request.device)
    return Plan(
        request=request,
        key=key,
        dataset=dataset.name,
        labels=f"{dataset.name}/{key.labels}",
        features=f"{dataset.name}/{key.features}",
        protocol=f"{dataset.name}/{key.protocol}",
        modalities=modalities,
        model=model.name,
        model_card=model.card,
        dataset_card=dataset.card,
        settings=validated(settings_class, ours),
        training=validated(TrainerSettings, trainers),
    )


def read_settings_file(file: Path) -> dict[str, Any]:
    """The flat table of settings in a TOML file, for `--settings`.

    Raises:
        RequestError: If the file is not there or is not a flat TOML table.
    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RequestError(f"the settings file {file} cannot be read: {reason}.") from None
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"the settings file {file} is not valid TOML: {error}.") from None
    nested = [name for name, setting in values.items() if isinstance(setting, dict)]
    if nested:
        raise RequestError(f"the settings file {file} should be flat, but has the table [{nested[0]}].")
    return values


def _modalities(request: RunRequest, model: ModelCard, dataset: DatasetCard, key: StoreKey) -> tuple[str, ...]:
    features = dataset.feature_sets[key.features]
    there = tuple(name for name in dataset.modalities if name in features.widths)
    usual = tuple(name for name in there if not features.modalities or name in features.modalities)
    if request.modalities is None:
        chosen = tuple(name for name in usual if name in model.modalities)
    else:
        for name in request.modalities:
            if name not in there:
                raise UnknownNameError(f"modality of {request.dataset}/{key.features}", name, there)
            if name not in model.modalities:
                raise RequestError(f"{request.model} takes {', '.join(model.modalities)}, but {name} was asked for.")
        chosen = tuple(name for name in there if name in request.modalities)
    missing = [name for name in model.needs if name not in chosen]
    if missing or not chosen:
        wanted = ", ".join(missing or model.modalities)
        raise RequestError(
            f"{request.model} needs {wanted}, but the run has {', '.join(chosen) or 'none of them'} "
            f"({request.dataset}/{key.features} has {', '.join(there)})."
        )
    return chosen


def _check_device_name(name: str) -> None:
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise RequestError(f"a device is auto, cpu, cuda or cuda:N, but '{name}' was given.")


def run(request: RunRequest, listener: Listener | None = None) -> Record:
    """Train and score one model; write the record, its predictions and its weights.

    The trainer is handed train and dev. Only after it has chosen the epoch is the test split read, and
    scored once; under a protocol with folds this holds for each fold. A run that fails leaves a record of
    status `failed`, with the reason, and raises.

    Raises:
        RequestError: If the request is wrong or data are missing; nothing is written then.
        RunError: If training failed or the results could not be written.
    """
    listener = listener or Listener()
    planned = plan(request)
    device = open_device(request)
    listener.run_started(planned)
    _check_writable(request.out)
    root = data_root(request.data_root)
    stores = [open_or_prepare(key, root, listener.preparing) for key in planned.stores]
    _check_stores(stores)
    return _Run(planned, stores, device, listener).finish()


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
    """Set the thread count and open the device that a request names.

    Raises:
        RequestError: If there is no such device.
    """
    import torch

    from mer_bench.seeding import deterministic_algorithms

    if request.threads is not None:
        torch.set_num_threads(request.threads)
    deterministic_algorithms()
    name = request.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RequestError(f"device {name} was asked for, but {torch.cuda.device_count()} cuda devices are there.")
    return device


@dataclass(frozen=True)
class _Part:
    """A model at its chosen epoch and what it predicted: all of a run, or one of its folds.

    Attributes:
        fold: From 1; None under one fixed split.
        weights: By name, on the CPU.
    """

    fold: int | None
    store: Store
    selection: Selection
    curve: list[Epoch]
    dev_scores: Scores
    dev: Predictions
    test: Predictions
    weights: dict[str, Tensor]
    seconds: float


class _Run:
    """The work of one run, from open stores to a record on disk."""

    def __init__(self, planned: Plan, stores: Sequence[Store], device: torch.device, listener: Listener) -> None:
        self.plan = planned
        self.stores = stores
        self.device = device
        self.listener = listener
        self.fold: int | None = None
        self.curve: list[Epoch] = []
        self.epochs = 0
        self.parameters = 0
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.clock = time.perf_counter()
        self.identity = self._identity()
        features = planned.key.features
        self.name = f"{planned.model}.{features}.seed{planned.request.seed}.{self.identity[:12]}"
        self.folder = record_folder(planned.request.out, (planned.dataset, planned.model))

    def finish(self) -> Record:
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            # The second are those of files that were themselves being staged.
            remove_abandoned(self.folder / self.name)
            remove_abandoned(self.folder / f".{self.name}")
        try:
            parts = self._parts()
        except MerBenchError as error:
            if self.fold is not None:
                error.args = (f"fold {self.fold} of {self.plan.folds}: {error}",)
            self._write_failure(error)
            raise
        except Exception as error:  # a plugin's code may fail in any way; the record says how
            where = "" if self.fold is None else f" in fold {self.fold} of {self.plan.folds}"
            failure: RunError
            if isinstance(error, MemoryError):
                failure = OutOfMemoryError(
                    f"the machine's memory was exhausted{where} while {self.plan.model} was run."
                )
            else:
                failure = RunError(f"{self.plan.model} failed{where}: {type(error).__name__}: {error}")
            self._write_failure(failure)
            raise failure from error
        return self._write(parts)

    def _parts(self) -> list[_Part]:
        if not self.plan.folds:
            return [self._part(self.stores[0])]
        parts: list[_Part] = []
        tested: dict[str, int] = {}
        for fold, store in enumerate(self.stores, 1):
            self.fold, self.curve = fold, []
            self.listener.fold_started(fold, self.plan.folds)
            part = self._part(store)
            for dialogue in part.test.dialogue_names:
                if tested.setdefault(dialogue, fold) != fold:
                    raise PluginError(
                        f"{self.plan.protocol} tests dialogue '{dialogue}' in fold {tested[dialogue]} and again in "
                        f"fold {fold}; folds must not share what they test."
                    )
            parts.append(part)
            self.listener.fold_ended(fold, self.plan.folds, part.selection)
        return parts

    def _part(self, store: Store) -> _Part:
        trained = self._train(store)
        dev = self._predictions(store, "dev", trained)
        # Selection is frozen from here on: the first and only time that the test split is read.
        test = self._predictions(store, "test", trained)
        return _Part(
            fold=self.fold,
            store=store,
            selection=trained.selection,
            curve=self.curve,
            dev_scores=trained.dev,
            dev=dev,
            test=test,
            weights={name: value.cpu().contiguous() for name, value in trained.model.state_dict().items()},
            seconds=trained.seconds,
        )

    def _train(self, store: Store) -> Trained:
        from mer_bench.api import InputSpec
        from mer_bench.metrics import score
        from mer_bench.trainer import Trainer

        plan = self.plan
        spec = InputSpec(
            widths={name: store.widths[name] for name in plan.modalities},
            classes=store.classes,
            speakers=store.speakers,
        )
        model = registry.load_model(plan.model)
        trainer = Trainer(
            lambda: model.model_class(spec, plan.settings),
            plan.training,
            plan.metric,
            plan.request.seed,
            self.device,
        )
        # The widths, and with them the parameters, may differ from fold to fold.
        self.parameters = max(self.parameters, sum(p.numel() for p in trainer.state.model.parameters()))
        train, dev = self._split(store, "train"), self._split(store, "dev")
        identifiers, subsets = store.identifiers("dev"), self._subsets(store, "dev")

        def score_dev(log_probabilities: Tensor) -> Scores:
            return score(predictions_of(dev, identifiers, store.classes, log_probabilities, subsets))

        return trainer.fit(train, dev, score_dev, self._heard)

    def _heard(self, epoch: Epoch, state: TrainingState) -> None:
        self.curve.append(epoch)
        self.epochs += 1
        left = self.plan.training.patience - (state.epoch - state.best_epoch)
        self.listener.epoch_ended(epoch, state.best_epoch, state.best_score, self.plan.training.epochs, left)

    def _split(self, store: Store, name: str) -> Split:
        return store.split(name, self.plan.modalities, self.device)

    def _subsets(self, store: Store, name: str) -> Mapping[str, NDArray[np.bool_]]:
        return store.subsets(name) if self.plan.dataset_card.subsets else {}

    def _predictions(self, store: Store, name: str, trained: Trained) -> Predictions:
        from mer_bench.trainer import log_probabilities

        split = self._split(store, name)
        scores = log_probabilities(trained.model, split)
        return predictions_of(split, store.identifiers(name), store.classes, scores, self._subsets(store, name))

    def _write(self, parts: Sequence[_Part]) -> Record:
        from safetensors.torch import save

        from mer_bench.metrics import count_dialogues, score, score_folds
        from mer_bench.predictions import pooled, read_outcomes, write_predictions
        from mer_bench.records import write_record

        test = pooled([part.test for part in parts]) if self.plan.folds else parts[0].test
        outcomes: Predictions | DialogueCounts = test
        files = [
            predictions_file(self.folder, self.name),
            weights_file(self.folder, self.name),
            record_file(self.folder, self.name),
        ]
        if not self.plan.dataset_card.redistribute:
            outcomes = count_dialogues(test)
            if self.plan.request.keep_predictions:
                files.insert(0, private_file(self.folder, self.name))
        # In the order in which they take their names: the record last.
        staged = {file: temporary_beside(file) for file in files}
        *private, predictions, weights, document = files
        with self._writing():
            try:
                for file in private:
                    write_predictions(staged[file], test)
                checksum = write_predictions(staged[predictions], outcomes)
                # The scores are those of the stored file, whose log-probabilities are rounded.
                stored = read_outcomes(staged[predictions])
                write_atomically(staged[weights], save(_weights(parts)))
                record = self._record(
                    status="done",
                    test=score(stored),
                    predictions=PredictionsFile(file=predictions.name, sha256=checksum, utterances=stored.utterances),
                    cost=self._cost(sum(part.seconds for part in parts)),
                    **self._chosen(parts, score_folds(stored)),
                )
                write_record(staged[document], record)
                # An older record of the same run goes first: a kill in between leaves no record, never a
                # record beside another run's predictions.
                document.unlink(missing_ok=True)
                for file, new in staged.items():
                    new.replace(file)
            finally:
                for new in staged.values():
                    new.unlink(missing_ok=True)
        self.listener.run_ended(record)
        return record

    def _chosen(self, parts: Sequence[_Part], tested: Mapping[int, Scores]) -> dict[str, Any]:
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
                features_detail=self._features([part.store]),
                selection=part.selection,
                dev=part.dev_scores,
                test=tested[number],
                curve=part.curve,
            )
            for number, part in enumerate(parts, 1)
        ]
        dev = score(pooled([_named_by_fold(part.dev, number) for number, part in enumerate(parts, 1)]))
        return {"curve": [], "selection": None, "dev": dev, "folds": folds}

    def _writing(self) -> AbstractContextManager[None]:
        return storage_errors(f"write records to {self.plan.request.out}")

    def _write_failure(self, error: MerBenchError) -> None:
        from mer_bench.records import write_record

        epoch = self.curve[-1].epoch if self.curve else None
        record = self._record(
            status="failed",
            curve=self.curve,
            selection=None,
            dev=None,
            test=None,
            predictions=None,
            cost=self._cost(time.perf_counter() - self.clock),
            failure=Failure(kind=type(error).__name__, reason=str(error), epoch=epoch, fold=self.fold),
        )
        file = record_file(self.folder, self.name)
        # A failed repeat never replaces a result that is there.
        if not file.exists():
            write_record(file, record)

    def _record(self, **parts: Any) -> Record:
        plan = self.plan
        request = plan.request
        return Record(
            run=self.name,
            identity=self.identity,
            dataset=plan.dataset,
            labels=plan.labels,
            features=plan.features,
            features_detail=self._features(self.stores),
            protocol=plan.protocol,
            protocol_version=plan.dataset_card.protocols[plan.key.protocol].version,
            modalities=plan.modalities,
            synthetic=plan.synthetic,
            model=plan.model,
            model_version=plan.model_card.version,
            seed=request.seed,
            settings=plan.settings.model_dump(mode="json"),
            training=plan.training.model_dump(mode="json"),
            options={"settings": dict(request.settings), "device": request.device, "threads": request.threads},
            machine=self._machine(),
            started=self.started,
            version=__version__,
            **parts,
        )

    def _features(self, stores: Sequence[Store]) -> Features:
        """Of one store its own; of several both checksums are over theirs, and the widths are the first one's."""
        manifests = [store.manifest for store in stores]
        return Features(
            sources=_joined([manifest.sources_checksum for manifest in manifests]),
            store=_joined([manifest.store_checksum for manifest in manifests]),
            widths={name: stores[0].widths[name] for name in self.plan.modalities},
        )

    def _identity(self) -> str:
        """SHA-256 of everything that decides the result; neither the machine nor its thread count."""
        plan = self.plan
        decides = {
            "dataset": plan.dataset,
            "dataset_version": plan.dataset_card.version,
            "labels": plan.labels,
            "features": plan.features,
            "sources": _joined([store.manifest.sources_checksum for store in self.stores]),
            "protocol": plan.protocol,
            "protocol_version": plan.dataset_card.protocols[plan.key.protocol].version,
            "modalities": plan.modalities,
            "model": plan.model,
            "model_version": plan.model_card.version,
            "seed": plan.request.seed,
            "settings": plan.settings.model_dump(mode="json"),
            "training": plan.training.model_dump(mode="json"),
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def _cost(self, training_seconds: float) -> Cost:
        import torch

        if self.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            memory = peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
        return Cost(
            wall_seconds=round(time.perf_counter() - self.clock, 3),
            epochs_per_second=round(self.epochs / training_seconds, 4) if training_seconds > 0 else 0.0,
            memory_bytes=memory,
            parameters=self.parameters,
        )

    def _machine(self) -> Machine:
        import torch

        names = ("torch", "torch-geometric", "scikit-learn", "numpy")
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return Machine(
            device=device,
            threads=torch.get_num_threads(),
            platform=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
            versions={name: metadata.version(name) for name in names},
            commit=source_commit(),
        )


def _joined(checksums: Sequence[str]) -> str:
    """One checksum of several; one alone is itself."""
    return checksums[0] if len(checksums) == 1 else hashlib.sha256("\n".join(checksums).encode()).hexdigest()


def _weights(parts: Sequence[_Part]) -> dict[str, Tensor]:
    """The weights of all parts: under a protocol with folds `fold2.` stands before the names of fold 2's."""
    return {
        f"{'' if part.fold is None else f'fold{part.fold}.'}{name}": value
        for part in parts
        for name, value in part.weights.items()
    }


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


def _check_writable(out: Path) -> None:
    """Fail before an hour of training rather than after it; makes no folder yet."""
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    reason = ""
    if not existing.is_dir():
        reason = f"{existing} is a file"
    elif not os.access(existing, os.W_OK | os.X_OK):
        reason = "the folder may not be written to"
    if reason:
        raise StorageError(f"cannot write records to {out}: {reason}. Choose another folder with --out.")


def source_commit() -> str | None:
    """The git commit of this package when it runs from a checkout, else None."""
    checkout = Path(__file__).resolve().parent.parent
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return None
    answer = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None


def seeds_of(request: RunRequest, count: int) -> list[RunRequest]:
    """The same request with the seeds from the request's own upwards."""
    return [replace(request, seed=request.seed + offset) for offset in range(count)]
