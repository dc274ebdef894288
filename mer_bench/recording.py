"""What a run leaves behind: its identity and name, its files, the record among them. Nothing is trained here."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_bench import __version__
from mer_bench.atomic import (
    ABANDONED_AFTER_SECONDS,
    remove_abandoned,
    storage_errors,
    temporary_beside,
    write_atomically,
)
from mer_bench.errors import RecordError, StorageError
from mer_bench.identity import joined_checksum as _joined
from mer_bench.identity import run_identity, run_name
from mer_bench.records import (
    Condition,
    Features,
    Machine,
    PredictionsFile,
    Record,
    Tuned,
    predictions_file,
    private_file,
    record_file,
    record_folder,
    unfinished_folder,
    weights_file,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mer_bench.data.store import Store
    from mer_bench.predictions import DialogueCounts, Predictions
    from mer_bench.request import Plan


class Recording:
    """The files of one run, or of its model under a test condition.

    Attributes:
        condition: None: the complete test split.
        identity: SHA-256 of all that decides the result.
        name: Of the run, and the start of its files' names. folder: Where they lie.
    """

    def __init__(self, planned: Plan, stores: Sequence[Store], condition: Condition | None = None) -> None:
        self.plan = planned
        self.stores = stores
        self.condition = condition
        self.identity = self._identity()
        self.name = run_name(planned.model, planned.key.features, planned.request.seed, condition, self.identity)
        self.folder = record_folder(planned.request.out, (planned.dataset, planned.model))

    @property
    def file(self) -> Path:
        """The record."""
        return record_file(self.folder, self.name)

    @property
    def weights(self) -> Path:
        """The weights of the run; under a test condition there are none."""
        return weights_file(self.folder, self.name)

    @property
    def unfinished(self) -> Path:
        """The run's working folder; see `mer_bench.unfinished`."""
        return unfinished_folder(self.folder, self.name)

    def found(self) -> Record | None:
        """The record of this very run if it is there and done, with predictions that give its scores.

        One without an audit does not answer a request for one.

        Raises:
            RecordError: If record or predictions are damaged or do not belong together.
        """
        from mer_bench.metrics import rescore
        from mer_bench.records import read_record

        if not self.file.exists() or not predictions_file(self.folder, self.name).exists():
            return None
        record = read_record(self.file)
        if record.status != "done" or record.identity != self.identity:
            return None
        if self.plan.request.audit_selection and record.audit is None and self.condition is None:
            return None
        rescore(self.file)
        return record

    def prepare(self, is_alone: bool = False) -> None:
        """Make the folder, and remove what a killed run of the same name left half-written.

        Args:
            is_alone: No other process can be at this run, so that whatever lies there is nobody's any more. Otherwise
                only what is a day old goes.

        Raises:
            StorageError: If there can be no such folder.
        """
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            # The second are those of files that were themselves being staged.
            for target in (self.folder / self.name, self.folder / f".{self.name}"):
                remove_abandoned(target, -float("inf") if is_alone else ABANDONED_AFTER_SECONDS)

    def write(
        self,
        test: Predictions,
        weights: Mapping[str, Tensor] | None,
        describe: Callable[[Predictions | DialogueCounts, PredictionsFile], Record],
    ) -> Record:
        """Write predictions, weights and record, the record last: a kill leaves all of them or no record.

        Args:
            test: What was predicted on the test split.
            weights: By name; None where they are those of another run.
            describe: The record of a run with these predictions, as they are stored: their log-probabilities
                are rounded, and where the corpus forbids labels of utterances they are counts by dialogue.

        Raises:
            StorageError: If something could not be written.
        """
        content = None
        if weights is not None:
            from safetensors.torch import save

            content = save(dict(weights))
        with self._writing():
            return write_result(
                self.folder,
                self.name,
                test,
                describe,
                weights=content,
                redistribute=self.plan.dataset_card.redistribute,
                keep_predictions=self.plan.request.keep_predictions,
            )

    def amend(self, record: Record) -> None:
        """Replace the record by one that says more; predictions and weights stay.

        Raises:
            StorageError: If it cannot be written; the record stays as it was.
        """
        from mer_bench.records import write_record

        with self._writing():
            write_record(self.file, record)

    def write_failure(self, record: Record) -> None:
        """Write the record of a failed run, unless a result is there: a failed repeat never replaces one.

        Raises:
            StorageError: If it cannot be written.
        """
        from mer_bench.records import write_record

        if not self.file.exists():
            write_record(self.file, record)

    def record(self, device: torch.device, **parts: Any) -> Record:
        """The record with all that plan and stores say; `parts` are the rest."""
        plan = self.plan
        request = plan.request
        return Record(
            run=self.name,
            identity=self.identity,
            dataset=plan.dataset,
            labels=plan.labels,
            features=plan.features,
            features_detail=self.features(self.stores),
            protocol=plan.protocol,
            protocol_version=plan.dataset_card.protocols[plan.key.protocol].version,
            modalities=plan.modalities,
            synthetic=plan.synthetic,
            model=plan.model,
            model_version=plan.model_card.version,
            model_code=plan.model_code,
            seed=request.seed,
            stack=list(request.stack),
            settings=plan.settings.model_dump(mode="json"),
            training=plan.training.model_dump(mode="json"),
            options={
                "settings": dict(request.settings),
                "device": request.device,
                "threads": request.threads,
                **({} if request.deterministic else {"deterministic": False}),
            },
            machine=self.machine(device),
            version=__version__,
            tuned=request.tuned or self._tuned_before(),
            **parts,
        )

    def _tuned_before(self) -> Tuned | None:
        """The study that the record of this very run names, if it is there: repeated, it still stems from it."""
        before = self.before()
        return before.tuned if before else None

    def before(self) -> Record | None:
        """The record of this very run that is about to be replaced, done or failed; None where it is damaged."""
        from mer_bench.records import read_record

        if not self.file.exists():
            return None
        try:
            before = read_record(self.file)
        except RecordError:
            return None
        return before if before.identity == self.identity else None

    @staticmethod
    def machine(device: torch.device) -> Machine:
        """What this process runs on."""
        return _machine(device)

    def features(self, stores: Sequence[Store]) -> Features:
        """Which feature stores were read."""
        return features_of(stores, self.plan.modalities)

    def _identity(self) -> str:
        """SHA-256 of everything that decides the result; neither the machine nor its thread count."""
        plan = self.plan
        return run_identity(
            dataset=plan.dataset,
            dataset_version=plan.dataset_card.version,
            labels=plan.labels,
            features=plan.features,
            sources=_joined([store.manifest.sources_checksum for store in self.stores]),
            protocol=plan.protocol,
            protocol_version=plan.dataset_card.protocols[plan.key.protocol].version,
            modalities=plan.modalities,
            model=plan.model,
            model_version=plan.model_card.version,
            seed=plan.request.seed,
            settings=plan.settings.model_dump(mode="json"),
            training=plan.training.model_dump(mode="json"),
            condition=self.condition,
            model_code=plan.model_code.sha256 if plan.model_code else None,
            stack=plan.request.stack,
        )

    def _writing(self) -> AbstractContextManager[None]:
        return storage_errors(f"write records to {self.plan.request.out}")


def write_result(
    folder: Path,
    name: str,
    test: Predictions,
    describe: Callable[[Predictions | DialogueCounts, PredictionsFile], Record],
    *,
    weights: bytes | None = None,
    redistribute: bool,
    keep_predictions: bool = False,
) -> Record:
    """Write predictions, weights and record, the record last: a kill leaves all of them or no record.

    Args:
        name: Of the run, and the start of its files' names. folder: Where they lie; it is there.
        test: What was predicted on the test split.
        describe: The record with these predictions, as they are stored: their log-probabilities are rounded, and
            where the corpus forbids labels of utterances they are counts by dialogue.
        weights: Content of the weights' file; None where there are none.
        redistribute: Whether labels of utterances may be passed on. keep_predictions: Where they may not be, write
            them to a private file.

    Raises:
        RecordError: If what was described is no valid record. OSError, StorageError: If something cannot be written.
    """
    from mer_bench.metrics import count_dialogues
    from mer_bench.predictions import read_outcomes, write_predictions
    from mer_bench.records import write_record

    outcomes: Predictions | DialogueCounts = test
    files = [predictions_file(folder, name)]
    if not redistribute:
        outcomes = count_dialogues(test)
        if keep_predictions:
            files.insert(0, private_file(folder, name))
    *private, predictions = files
    model, document = weights_file(folder, name), record_file(folder, name)
    # In the order in which they take their names: the record last.
    files += [document] if weights is None else [model, document]
    staged = {file: temporary_beside(file) for file in files}
    try:
        for file in private:
            write_predictions(staged[file], test)
        checksum = write_predictions(staged[predictions], outcomes)
        stored = read_outcomes(staged[predictions])
        if weights is not None:
            write_atomically(staged[model], weights)
        told = PredictionsFile(file=predictions.name, sha256=checksum, utterances=stored.utterances)
        record = describe(stored, told)
        write_record(staged[document], record)
        # An older record of the same run goes first: a kill in between leaves no record, never a
        # record beside another run's predictions.
        document.unlink(missing_ok=True)
        for file, new in staged.items():
            new.replace(file)
    finally:
        for new in staged.values():
            new.unlink(missing_ok=True)
    return record


def features_of(stores: Sequence[Store], modalities: Sequence[str]) -> Features:
    """Of one store its own; of several both checksums are over theirs, and the widths are the first one's."""
    manifests = [store.manifest for store in stores]
    return Features(
        sources=_joined([manifest.sources_checksum for manifest in manifests]),
        store=_joined([manifest.store_checksum for manifest in manifests]),
        widths={name: stores[0].widths[name] for name in modalities},
    )


def check_writable(out: Path) -> None:
    """Fail before an hour of training rather than after it; makes no folder yet.

    Raises:
        StorageError: If records cannot be written there.
    """
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    reason = ""
    if not existing.is_dir():
        reason = f"{existing} is a file"
    elif not os.access(existing, os.W_OK | os.X_OK):
        reason = "the folder may not be written to"
    if reason:
        raise StorageError(f"cannot write records to {out}: {reason}. Choose another folder with --out.")


def peak_memory_bytes(device: torch.device) -> int:
    """The peak of the process or, on cuda, of the device."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def source_commit() -> str | None:
    """The git commit of this package when it runs from a checkout, else None."""
    checkout = Path(__file__).resolve().parent.parent
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return None
    answer = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None


def _machine(device: torch.device) -> Machine:
    import torch

    names = ("torch", "torch-geometric", "scikit-learn", "numpy")
    return Machine(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        platform=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions={name: metadata.version(name) for name in names},
        commit=source_commit(),
    )
