"""One run as one JSON file: the schema, validated when written and when read.

Every number in a report traces to one of these. Scores are fractions in [0, 1]. Under a records
folder only records end in `.json`; the predictions lie beside as `<run>.predictions.npz`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class RecordPart(BaseModel):
    """A part of a record: frozen, and a key that no field has is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class ClassScores(RecordPart):
    """Scores of one class; a class that was never predicted has precision 0."""

    precision: Share
    recall: Share
    f1: Share
    support: Count


class Scores(RecordPart):
    """What `metrics.score` computes from stored predictions.

    Attributes:
        uar: Unweighted average recall over classes that occur.
        confusion: Rows are true classes, columns predicted ones, both in the order of `classes`.
        calibration_error: Top-label expected calibration error, 15 equal-width bins; None where only
            labels were predicted.
        emotion_shift_accuracy: Accuracy on utterances whose label differs from the same speaker's
            previous labelled one in the dialogue; None where there are none.
        emotion_shift_support: How many those are.
    """

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

    file: str
    sha256: Sha256
    utterances: Count


class Failure(RecordPart):
    """Why a run failed: the kind of error, its sentence, and the epoch where training was."""

    kind: str
    reason: str
    epoch: int | None = None


class Record(RecordPart):
    """One run: one model, settings, dataset, label set, feature set, protocol, modalities, seed.

    Attributes:
        run: Name of the run and of its files. identity: SHA-256 of all that decides its result.
        dataset, labels, features, protocol: Ids; the last three as `meld/emotion`.
        modalities: In the order in which the model got them.
        settings: Of the model, in full. training: Of the trainer, in full.
        options: The request, normalised: no path, no user name.
        test: Scores on the test split; None for a failed run.
        dev: Scores on the dev split at the chosen epoch.
    """

    schema_version: Literal[1] = 1
    kind: Literal["run"] = "run"
    run: str
    identity: Sha256
    status: Literal["done", "failed"]
    dataset: str
    labels: str
    features: str
    features_detail: Features
    protocol: str
    protocol_version: int
    modalities: tuple[str, ...]
    synthetic: bool
    model: str
    model_version: int
    seed: int
    settings: dict[str, Any]
    training: dict[str, Any]
    options: dict[str, Any]
    curve: list[Epoch]
    selection: Selection | None
    dev: Scores | None
    test: Scores | None
    predictions: PredictionsFile | None
    cost: Cost
    machine: Machine
    failure: Failure | None = None
    started: str
    version: str
