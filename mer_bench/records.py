"""One run, or one external system's predictions, as one JSON file: the schema, checked when written and read.

Every number in a report traces to one of these. Scores are fractions in [0, 1]. Under a records
folder only records end in `.json`::

    <out>/<dataset>/<model>/<run>.json                the record
                            <run>.predictions.npz     what was predicted on the test split
                            <run>.model.safetensors   the weights; `fold<k>.` before the names of fold k's
                            <run>.private.npz         labels of utterances that may not be passed on; only on demand

A model scored under a test condition (a modality absent, random masks) is a record of its own with predictions
of its own; its weights are those of the run on the complete test split.

A record's bytes are decided by its values: fields in the order of the schema, classes in the order
of their index, every other mapping by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from mer_bench.atomic import write_atomically
from mer_bench.errors import RecordError

SCHEMA: Final = 1

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Names become names of files and folders, so none may hold a separator or start with a dot.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]
FullId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]

_LARGEST_BYTES = 64 * 2**20
_LINE = 110


class RecordPart(BaseModel):
    """A part of a record: frozen, and a key that no field has is an error.

    Attributes:
        left_out_if_empty: Fields that a later version added. Where they hold nothing they are not written,
            so that a record has the bytes that it always had.
    """

    left_out_if_empty: ClassVar[frozenset[str]] = frozenset()

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class ClassScores(RecordPart):
    """Scores of one class; a class that was never predicted has precision 0."""

    precision: Share
    recall: Share
    f1: Share
    support: Count


class SubsetScores(RecordPart):
    """Scores of a named part of the corpus, on its dialogues of the split that have a label."""

    dialogues: Count
    utterances: Count
    weighted_f1: Share
    accuracy: Share
    macro_f1: Share
    uar: Share
    emotion_shift_accuracy: Share | None
    emotion_shift_support: Count


class Scores(RecordPart):
    """What `metrics.score` computes from stored predictions.

    Attributes:
        uar: Unweighted average recall over classes that occur.
        confusion: Rows are true classes, columns predicted ones, both in the order of `classes`.
        calibration_error: Top-label expected calibration error, 15 equal-width bins; None where only
            labels were predicted, and for one fold of several.
        emotion_shift_accuracy: Accuracy on utterances whose label differs from the same speaker's
            previous labelled one in the dialogue; None where there are none.
        emotion_shift_support: How many those are.
        subsets: Scores of the named parts of the corpus that have labels here, by name.
    """

    left_out_if_empty: ClassVar[frozenset[str]] = frozenset({"subsets"})

    utterances: Count
    weighted_f1: Share
    accuracy: Share
    macro_f1: Share
    uar: Share
    classes: dict[str, ClassScores]
    confusion: list[list[Count]]
    calibration_error: Share | None
    emotion_shift_accuracy: Share | None
    emotion_shift_support: Count
    subsets: dict[str, SubsetScores] = {}

    @model_validator(mode="after")
    def _counts_agree(self) -> Scores:
        rows = self.confusion
        if len(rows) != len(self.classes) or any(len(row) != len(self.classes) for row in rows):
            raise ValueError(f"confusion should have a row and a column for each of the {len(self.classes)} classes")
        for (name, scores), row in zip(self.classes.items(), rows, strict=True):
            if sum(row) != scores.support:
                raise ValueError(f"confusion has {sum(row)} utterances of {name}, but its support is {scores.support}")
        if sum(map(sum, rows)) != self.utterances:
            raise ValueError(f"confusion has {sum(map(sum, rows))} utterances, but utterances is {self.utterances}")
        if (self.emotion_shift_accuracy is None) != (self.emotion_shift_support == 0):
            raise ValueError("emotion_shift_accuracy should be there exactly where emotion_shift_support is not 0")
        for name, part in self.subsets.items():
            if not 0 < part.utterances <= self.utterances:
                raise ValueError(f"the subset {name} has {part.utterances} utterances of {self.utterances}")
        return self


class Epoch(RecordPart):
    """One pass over the train split.

    Attributes:
        train: Mean of each loss term over the epoch, by name: `total`, `task`, and the model's own;
            a diagnostic of the model stands in `diagnostics`.
        dev: Dev metrics after the epoch: at least the selection metric and `loss`.
    """

    epoch: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(ge=0)]
    train: dict[str, float]
    dev: dict[str, float]
    diagnostics: dict[str, float] = {}


class Selection(RecordPart):
    """Which epoch was chosen, by what, and why training ended."""

    rule: str
    metric: str
    epoch: Annotated[int, Field(ge=1)]
    score: float
    ended: Literal["patience", "epochs", "fitted"]


class Cost(RecordPart):
    """What the run took. `memory_bytes` is the peak of the process or, on cuda, of the device."""

    wall_seconds: Annotated[float, Field(ge=0)]
    epochs_per_second: Annotated[float, Field(ge=0)]
    memory_bytes: Count
    parameters: Count


class Machine(RecordPart):
    """Where it ran: never a path or a user's name. Not part of the run's identity."""

    device: str
    threads: Annotated[int, Field(ge=1)]
    platform: str
    python: str
    versions: dict[str, str]
    commit: str | None = None


class Features(RecordPart):
    """Which feature store a run read.

    Attributes:
        sources: SHA-256 over the checksums of the raw sources and the preparation's settings: the
            same wherever the same files were prepared in the same way.
        store: SHA-256 over the arrays, whose last bits depend on the machine's linear algebra.
    """

    sources: Sha256
    store: Sha256
    widths: dict[str, Count]


class PredictionsFile(RecordPart):
    """The predictions beside the record: file name, checksum of its bytes, utterances in it."""

    file: Name
    sha256: Sha256
    utterances: Count


class AuditEpoch(RecordPart):
    """What an epoch's weights score on the test split, by metric."""

    epoch: Annotated[int, Field(ge=1)]
    test: dict[str, float]


class Audit(RecordPart):
    """What the test score would have been with the epoch chosen on test, as most public code does.

    Every epoch's weights were scored on test after the run's own choice was frozen and its record written.

    Attributes:
        metric: The selection metric, here of test.
        epochs: Every epoch of the curve. Of a run with folds each fold has its own, and the run has none.
        best_epoch: The epoch that is best on test, the earliest of equals; None of a run with folds.
        best: Its score; of a run with folds that of all their test splits together, each at its best epoch.
        chosen: The run's own test score, with the epoch chosen on dev.
    """

    metric: str
    epochs: list[AuditEpoch]
    best_epoch: Annotated[int, Field(ge=1)] | None
    best: float
    chosen: float

    @model_validator(mode="after")
    def _parts_agree(self) -> Audit:
        if (self.best_epoch is None) != (not self.epochs):
            raise ValueError("best_epoch should be there exactly where epochs are")
        numbers = [each.epoch for each in self.epochs]
        if numbers != list(range(1, len(numbers) + 1)):
            raise ValueError(f"the epochs of an audit should be numbered from 1, but are {numbers}")
        if self.best_epoch is not None:
            if self.best_epoch > len(numbers):
                raise ValueError(f"best_epoch is {self.best_epoch}, but there are {len(numbers)} epochs")
            if self.epochs[self.best_epoch - 1].test.get(self.metric) != self.best:
                raise ValueError(f"best should be the {self.metric} of epoch {self.best_epoch}")
        return self


class Fold(RecordPart):
    """One fold of a run: a model of its own, trained, chosen and tested on the fold's own splits.

    Attributes:
        fold: From 1. features_detail: Of the fold's own feature store.
        dev: Scores on the fold's dev split at its chosen epoch.
        test: Scores on the fold's test split, without a calibration error.
        audit: Scores of every epoch on the fold's test split; None where the run was not audited.
    """

    left_out_if_empty: ClassVar[frozenset[str]] = frozenset({"audit"})

    fold: Annotated[int, Field(ge=1)]
    features_detail: Features
    selection: Selection
    dev: Scores
    test: Scores
    curve: list[Epoch]
    audit: Audit | None = None


class Failure(RecordPart):
    """Why a run failed: the kind of error, its sentence, the last whole epoch before, and the fold."""

    left_out_if_empty: ClassVar[frozenset[str]] = frozenset({"fold"})

    kind: str
    reason: str
    epoch: int | None = None
    fold: int | None = None


class Condition(RecordPart):
    """What of the test split was given to a model that was trained and chosen on all of the run's modalities.

    Attributes:
        name: What a leaderboard keys on: `only-text`, `missing-0.3`. All masks of a rate are one condition.
        present: The modalities of the run that are there at all; every one of them under random masks.
        rate: Share of all (utterance, modality) pairs that a random mask was to take away.
        reached: Share that it took away: one modality of each utterance stays, so that of two modalities no
            more than half of the pairs can go, of three no more than two thirds.
        mask: Number of the mask, from 1; see `mer_bench.data.missing`.
        model_of: Identity of the run on the complete test split whose model this is.
    """

    left_out_if_empty: ClassVar[frozenset[str]] = frozenset({"rate", "reached", "mask"})

    name: Name
    present: tuple[str, ...]
    rate: Share | None = None
    reached: Share | None = None
    mask: Annotated[int, Field(ge=1)] | None = None
    model_of: Sha256

    @model_validator(mode="after")
    def _parts_agree(self) -> Condition:
        if not self.present:
            raise ValueError("a test condition without any modality is none")
        if len({self.rate is None, self.reached is None, self.mask is None}) > 1:
            raise ValueError("rate, reached and mask stand together, or none of them does")
        name = f"only-{'-'.join(self.present)}" if self.rate is None else f"missing-{self.rate:g}"
        if self.name != name:
            raise ValueError(f"name should be {name}, but is {self.name}")
        return self

    @property
    def full_name(self) -> str:
        """The name, and of random masks the number of this one: part of the names of files."""
        return self.name if self.mask is None else f"{self.name}-mask{self.mask}"


class ModelCode(RecordPart):
    """Which code ran, where it did not come with mer-bench itself.

    Attributes:
        origin: The distribution that brought it, or `file` or `folder` for one that is not installed.
        sha256: Over the files of the plugin; part of the run's identity. See `plugin_files`.
    """

    origin: str
    sha256: Sha256


class Tuned(RecordPart):
    """Which study chose the settings of a run. Not part of its identity: the settings alone decide the numbers.

    Attributes:
        study: Its name. trial: Number of the trial whose settings these are, from 0.
        trials: Trials that had ended by then: complete, pruned and failed ones.
        budget_trials, budget_seconds: The study's limits; None where it had no such limit.
        seeds_per_trial: A trial's score was the mean over so many seeds.
        dev: That score: the protocol's dev metric, on which alone the settings were chosen.
    """

    study: Annotated[str, Field(min_length=1)]
    trial: Count
    trials: Annotated[int, Field(ge=1)]
    budget_trials: Annotated[int, Field(ge=1)] | None
    budget_seconds: Annotated[float, Field(gt=0)] | None
    seeds_per_trial: Annotated[int, Field(ge=1)]
    sampler: str
    dev: float


def _one_line(text: str) -> str:
    """Stated texts end in cells of tables: neither a line break nor another letter that cannot be seen."""
    if not text.isprintable() or text != text.strip():
        raise ValueError("should be one line of printable text, without blanks around it")
    return text


class External(RecordPart):
    """Whose predictions these are, where mer-bench did not make them. All but the checksums is stated, not checked.

    Attributes:
        name: Of the system: a language model, another toolkit, a rating panel. The record's `model` too.
        selection_rule: How model, prompt, epoch or raters were chosen: `best dev weighted F1`, `zero-shot`, `unknown`.
        source: Where the system is described: a title, arXiv id, DOI or repository; "" where that was not said.
        note: What else its submitter says; "".
        file_sha256: Of the file as it was given.
        test_split: SHA-256 of what was scored: classes, and id, dialogue, turn, speaker and label of each utterance.
    """

    name: Name
    selection_rule: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_one_line)]
    source: Annotated[str, Field(max_length=500), AfterValidator(_one_line)] = ""
    note: Annotated[str, Field(max_length=2000), AfterValidator(_one_line)] = ""
    file_sha256: Sha256
    test_split: Sha256


EXTERNAL_FEATURES: Final = "external"
"""Feature set of a system that brought features of its own: `meld/external`."""


_OF_EXTERNAL: Final = frozenset(
    {
        "schema_version",
        "kind",
        "run",
        "identity",
        "status",
        "dataset",
        "labels",
        "features",
        "features_detail",
        "protocol",
        "protocol_version",
        "modalities",
        "synthetic",
        "model",
        "seed",
        "test",
        "predictions",
        "started",
        "version",
        "external",
    }
)
"""Fields of a record of kind `external`; in it every other one is empty."""


class Record(RecordPart):
    """One run: one model, settings, dataset, label set, feature set, protocol, modalities, seed.

    Or, of kind `external`, predictions that some other system made and mer-bench scored. What nobody measured is
    null or empty there and never made up: model_version, settings, training, options, curve, selection, dev, cost,
    machine. Such a system used features of its own, so that its feature set is `<dataset>/external`: a table has
    rows of one feature set, and its rows stand with others of that kind alone. Only where its submitter
    states that it read a feature set of the dataset does that stand in `features`, with the checksums of the store
    in `features_detail`; then it is ranked with the runs that read the same.

    Attributes:
        run: Name of the run and of its files. identity: SHA-256 of all that decides its result.
        features_detail: None for features that mer-bench does not know.
        seed: Of external predictions a number that tells several runs of the same system apart.
        dataset, labels, features, protocol: Ids; the last three as `meld/emotion`.
        modalities: In the order in which the model got them.
        model_code: None for a model of mer-bench itself, whose code `version` and `model_version` name.
        settings: Of the model, in full. training: Of the trainer, in full.
        options: The request, normalised: no path, no user name.
        test: Scores on the test split; None for a failed run.
        dev: Scores on the dev split at the chosen epoch.
        folds: Under a protocol with folds each of them, from the first. Then `test` and `dev` are scores of
            the predictions of all folds together, curves and selections are only here, and of
            `features_detail` the checksums are those of all folds' and the widths the first fold's. Of a
            failed run `curve` is that of the fold that failed, and `folds` is empty.
        test_condition: What of the test split was given; None: all of it. Otherwise `test`, `predictions` and the
            `test` of each fold are under that condition, `run` and `identity` are its own, and all the rest is
            that of the run whose model it is, dev in its complete form included.
        tuned: The study that chose the settings; None: they are the card's, or somebody's own.
        external: Whose predictions these are; None for a run. Under a protocol with folds those of all folds are
            scored together, and `folds` is empty.
        audit: The score with the epoch chosen on test; None where the run was not audited. Nothing else of a record
            depends on it, and it is no part of the run's identity.
        stack: Seeds that were trained together in one pass, this one among them; empty: it was trained alone. Of
            `cost` the seconds are then this seed's share of the pass, and the memory is that of all of them.
    """

    left_out_if_empty: ClassVar[frozenset[str]] = frozenset(
        {"folds", "test_condition", "model_code", "tuned", "external", "audit", "stack"}
    )

    schema_version: Literal[1] = SCHEMA
    kind: Literal["run", "external"] = "run"
    run: Name
    identity: Sha256
    status: Literal["done", "failed"]
    dataset: Name
    labels: FullId
    features: FullId
    features_detail: Features | None
    protocol: FullId
    protocol_version: int
    modalities: tuple[str, ...]
    synthetic: bool
    model: Name
    model_version: int | None
    seed: int
    settings: dict[str, Any]
    training: dict[str, Any]
    options: dict[str, Any]
    curve: list[Epoch]
    selection: Selection | None
    dev: Scores | None
    test: Scores | None
    predictions: PredictionsFile | None
    cost: Cost | None
    machine: Machine | None
    failure: Failure | None = None
    started: str
    version: str
    folds: list[Fold] = []
    test_condition: Condition | None = None
    model_code: ModelCode | None = None
    tuned: Tuned | None = None
    external: External | None = None
    audit: Audit | None = None
    stack: list[int] = []

    @property
    def sources(self) -> str:
        """SHA-256 of what is the same for all that may stand in one table: the features' sources, or the test split."""
        if self.features_detail is not None:
            return self.features_detail.sources
        assert self.external is not None  # _parts_agree
        return self.external.test_split

    @model_validator(mode="after")
    def _parts_agree(self) -> Record:
        for name in ("labels", "features", "protocol"):
            if getattr(self, name).split("/")[0] != self.dataset:
                raise ValueError(f"{name} is {getattr(self, name)}, which is not of the dataset {self.dataset}")
        if self.kind == "external":
            self._check_external()
            return self
        self._check_run()
        if self.test_condition:
            self._check_condition(self.test_condition)
        if self.status == "failed":
            self._check_failed()
        else:
            self._check_done()
        return self

    def _check_failed(self) -> None:
        if self.failure is None or self.test is not None or self.predictions is not None or self.folds:
            raise ValueError("a failed run has a failure, and neither test scores nor predictions")
        if self.audit is not None:
            raise ValueError("a failed run has nothing to audit")

    def _check_done(self) -> None:
        if self.failure is not None:
            raise ValueError("a run that is done has no failure")
        for name in ("dev", "test", "predictions", *(() if self.folds else ("selection",))):
            if getattr(self, name) is None:
                raise ValueError(f"a run that is done has {name}")
        if self.predictions and self.test and self.predictions.utterances < self.test.utterances:
            raise ValueError("test scores more utterances than the predictions have")
        if self.folds and self.test:
            self._check_folds(self.test)
        if self.audit or any(fold.audit for fold in self.folds):
            self._check_audit()

    def _check_run(self) -> None:
        if self.external is not None:
            raise ValueError("external is there, but kind is run")
        for name in ("features_detail", "model_version", "cost", "machine"):
            if getattr(self, name) is None:
                raise ValueError(f"a run has {name}")
        if self.stack and (
            self.seed not in self.stack or len(set(self.stack)) != len(self.stack) or len(self.stack) < 2
        ):
            raise ValueError("a stack is of two seeds or more, each once, with that of the record among them")

    def _check_external(self) -> None:
        if self.external is None or self.external.name != self.model:
            raise ValueError("a record of kind external has external, whose name is the model")
        if self.status != "done" or self.test is None or self.predictions is None:
            raise ValueError("a record of kind external is done, and has test scores and predictions")
        for name in Record.model_fields:  # what a later version adds to a run included
            if name not in _OF_EXTERNAL and getattr(self, name) not in (None, [], {}):
                raise ValueError(f"{name} is of a run, and not known of external predictions")
        if (self.features_detail is None) != (self.features == f"{self.dataset}/{EXTERNAL_FEATURES}"):
            raise ValueError(f"features_detail is there exactly where features are not {EXTERNAL_FEATURES}")
        if not self.modalities:
            raise ValueError("modalities should say what the system was given")
        if self.predictions.utterances < self.test.utterances:
            raise ValueError("test scores more utterances than the predictions have")

    def _check_condition(self, condition: Condition) -> None:
        foreign = [name for name in condition.present if name not in self.modalities]
        if foreign:
            raise ValueError(f"test_condition has {foreign[0]} present, which modalities does not list")
        whole = len(condition.present) == len(self.modalities)
        if whole != (condition.rate is not None):
            raise ValueError("under a test condition some modalities are absent, or random masks take a part of all")
        if condition.model_of == self.identity:
            raise ValueError("under a test condition a record has an identity of its own, not that of its model's run")

    def _check_audit(self) -> None:
        if self.test_condition:
            raise ValueError("a run is audited on the complete test split, not under a test condition")
        if self.audit is None or any(fold.audit is None for fold in self.folds):
            raise ValueError("a run and all of its folds are audited, or none of them is")
        if self.folds and self.audit.epochs:
            raise ValueError("under a protocol with folds each fold has the epochs of its own audit")
        pairs = [(fold.audit, fold.curve) for fold in self.folds] or [(self.audit, self.curve)]
        if any(audit and len(audit.epochs) != len(curve) for audit, curve in pairs):
            raise ValueError("an audit has every epoch of the curve, and no other")

    def _check_folds(self, test: Scores) -> None:
        if self.selection is not None or self.curve:
            raise ValueError("under a protocol with folds each fold has its own selection and curve")
        numbers = [fold.fold for fold in self.folds]
        if numbers != list(range(1, len(numbers) + 1)):
            raise ValueError(f"folds should be numbered from 1, but are {numbers}")
        if any(list(fold.test.classes) != list(test.classes) for fold in self.folds):
            raise ValueError("the folds should have the classes of test")
        of_folds = [fold.test.confusion for fold in self.folds]
        if [[sum(cell) for cell in zip(*rows, strict=True)] for rows in zip(*of_folds, strict=True)] != test.confusion:
            raise ValueError("the confusion matrices of the folds should sum to that of test")


def record_folder(out: Path, record: Record | tuple[str, str]) -> Path:
    """Where a run's files lie: `<out>/<dataset>/<model>`; a tuple names dataset and model."""
    dataset, model = (record.dataset, record.model) if isinstance(record, Record) else record
    return out / dataset / model


def record_file(folder: Path, run: str) -> Path:
    """The record of a run in its folder."""
    return folder / f"{run}.json"


def predictions_file(folder: Path, run: str) -> Path:
    """The predictions of a run in its folder."""
    return folder / f"{run}.predictions.npz"


def weights_file(folder: Path, run: str) -> Path:
    """The weights of a run in its folder."""
    return folder / f"{run}.model.safetensors"


def private_file(folder: Path, run: str) -> Path:
    """The predictions by utterance of a run whose corpus forbids to pass them on; never to be committed."""
    return folder / f"{run}.private.npz"


def unfinished_folder(folder: Path, run: str) -> Path:
    """What a run works in until its record is written: saved states, and who is at it. Hidden, and gone afterwards."""
    return folder / f".{run}.unfinished"


def record_schema() -> dict[str, Any]:
    """The JSON Schema of a record, made from the classes above."""
    schema = Record.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def write_record(file: Path, record: Record) -> None:
    """Check a record and write it in one step: a kill leaves the whole record or none.

    Raises:
        RecordError: If the record is not valid; nothing is written.
        StorageError: If the file cannot be written.
    """
    text = record_text(record)
    # Values that went round the checks (model_copy, a list changed in place) end here, not on the disk.
    _parsed(text, f"the record of run {record.run}")
    write_atomically(file, text.encode("utf-8"))


def read_record(file: Path) -> Record:
    """Read and check a record.

    Raises:
        RecordError: If it is absent, damaged or not valid; names file, key and reason.
    """
    try:
        if file.stat().st_size > _LARGEST_BYTES:
            raise RecordError(f"{file} is larger than any record.")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise RecordError(f"{file} is not a valid record: it is not UTF-8 ({error.reason}).") from None
    return _parsed(text, str(file))


def record_text(record: Record) -> str:
    """The record as JSON, with the same bytes for the same values.

    Raises:
        RecordError: If a setting or an option has no form in JSON, such as a path or NaN.
    """
    return _laid_out(_plain(record, ""), "") + "\n"


def _parsed(text: str, origin: str) -> Record:
    try:
        values = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{origin} is not a valid record: {error}.") from None
    if not isinstance(values, dict):
        raise RecordError(f"{origin} is not a valid record: it should hold one object.")
    version = values.get("schema_version")
    if isinstance(version, int) and version > SCHEMA:
        raise RecordError(
            f"{origin} has schema version {version}, and this mer-bench reads up to {SCHEMA}. Install a newer one."
        )
    try:
        return Record.model_validate_json(text, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in fault["loc"])
        reason = fault["msg"].removeprefix("Value error, ")
        raise RecordError(f"{origin} is not a valid record: {key + ': ' if key else ''}{reason}.") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' occurs twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is no number in JSON")


def _plain(value: Any, key: str) -> Any:
    """JSON values of a record's part; mappings without an order of their own are sorted."""
    if isinstance(value, BaseModel):
        parts = {name: getattr(value, name) for name in type(value).model_fields}
        if isinstance(value, RecordPart):
            parts = {
                name: part
                for name, part in parts.items()
                if name not in value.left_out_if_empty or part not in (None, [], {})
            }
        plain = {name: _plain(part, f"{key}.{name}") for name, part in parts.items()}
        if isinstance(value, Scores):  # the order of its classes is the order of its confusion matrix
            plain["classes"] = {name: plain["classes"][name] for name in value.classes}
        return plain
    if isinstance(value, Mapping):
        names = list(value)
        if not all(isinstance(name, str) for name in names):
            raise RecordError(f"{key.removeprefix('.')} should have texts as its keys, but has {names!r}.")
        return {name: _plain(value[name], f"{key}.{name}") for name in sorted(names)}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item, f"{key}.{place}") for place, item in enumerate(value)]
    if value is None or type(value) in (bool, int) or (type(value) is float and math.isfinite(value)):
        return value
    if type(value) is str and not any("\ud800" <= letter <= "\udfff" for letter in value):  # half a character
        return value
    raise RecordError(f"{key.removeprefix('.')} is {value!r}, which has no form in JSON.")


def _laid_out(value: Any, indent: str) -> str:
    """JSON with what fits on one line on one line, so that a confusion matrix reads like one."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    nested = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not nested or (len(indent) + len(line) <= _LINE and not any(isinstance(part, dict | list) for part in nested)):
        return line
    deeper = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(name, ensure_ascii=False)}: {_laid_out(part, deeper)}" for name, part in value.items()]
    else:
        parts = [_laid_out(part, deeper) for part in value]
    body = ",\n".join(deeper + part for part in parts)
    opened, closed = "{}" if isinstance(value, dict) else "[]"
    return f"{opened}\n{body}\n{indent}{closed}"
