"""What makes two runs the same run: a checksum over all that decides the result, and the name that follows from it.

Neither the machine nor its thread count is part of it, nor whether a run was tuned or audited. Whoever has a record
can compute it again, so that a setting that was changed by hand shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.predictions import Predictions
from mer_bench.records import Condition, Record


def run_identity(
    *,
    dataset: str,
    dataset_version: int,
    labels: str,
    features: str,
    sources: str,
    protocol: str,
    protocol_version: int,
    modalities: Sequence[str],
    model: str,
    model_version: int,
    seed: int,
    settings: Mapping[str, Any],
    training: Mapping[str, Any],
    condition: Condition | None = None,
    model_code: str | None = None,
    stack: Sequence[int] = (),
) -> str:
    """SHA-256 of everything that decides the result of a run.

    Args:
        dataset_version: Of the dataset's card; a record does not tell it.
        sources: SHA-256 of what the features were made from. settings, training: In full, as JSON values.
        model_code: SHA-256 of the model's code, where it did not come with mer-bench.
        stack: Seeds that were trained together with this one, itself among them.
    """
    decides: dict[str, Any] = {
        "dataset": dataset,
        "dataset_version": dataset_version,
        "labels": labels,
        "features": features,
        "sources": sources,
        "protocol": protocol,
        "protocol_version": protocol_version,
        "modalities": tuple(modalities),
        "model": model,
        "model_version": model_version,
        "seed": seed,
        "settings": dict(settings),
        "training": dict(training),
    }
    if condition:
        decides["test_condition"] = condition.model_dump(mode="json")
    if model_code is not None:
        # Two codes of one name are two runs, with names and files of their own.
        decides["model_code"] = model_code
    if stack:
        # A product of several seeds at once may differ in its last bits from that of one, or of fewer.
        decides["stack"] = list(stack)
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def identity_of(record: Record, dataset_version: int, condition: Condition | None) -> str:
    """The identity that follows from what a record of a run says of it; see `external_identity` for others.

    Args:
        condition: The record's own test condition, or None for the run on the complete test split whose model it is.
    """
    assert record.features_detail is not None  # as every run has it
    assert record.model_version is not None
    return run_identity(
        dataset=record.dataset,
        dataset_version=dataset_version,
        labels=record.labels,
        features=record.features,
        sources=record.sources,
        protocol=record.protocol,
        protocol_version=record.protocol_version,
        modalities=record.modalities,
        model=record.model,
        model_version=record.model_version,
        seed=record.seed,
        settings=record.settings,
        training=record.training,
        condition=condition,
        model_code=record.model_code.sha256 if record.model_code else None,
        stack=record.stack,
    )


def external_identity(
    *,
    dataset: str,
    dataset_version: int,
    labels: str,
    features: str,
    sources: str,
    protocol: str,
    protocol_version: int,
    modalities: Sequence[str],
    name: str,
    seed: int,
    predictions: Predictions,
) -> str:
    """SHA-256 of all that decides the scores of external predictions and where they stand.

    What is only stated (a selection rule, a source) may be corrected later and is no part of it.

    Args:
        sources: As `Record.sources`. predictions: In the order of the store.
    """
    scores = predictions.log_probabilities
    decides = {
        "kind": "external",
        "dataset": dataset,
        "dataset_version": dataset_version,
        "labels": labels,
        "features": features,
        "sources": sources,
        "protocol": protocol,
        "protocol_version": protocol_version,
        "modalities": tuple(modalities),
        "name": name,
        "seed": seed,
        "predicted": hashlib.sha256(predictions.predicted.astype("<i2").tobytes()).hexdigest(),
        "scores": None if scores is None else hashlib.sha256(scores.astype("<f2").tobytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def split_checksum(
    classes: Sequence[str],
    ids: Sequence[str],
    dialogues: Sequence[str],
    positions: NDArray[np.int32],
    speakers: NDArray[np.int16],
    true: NDArray[np.int16],
) -> str:
    """SHA-256 of all that a score depends on besides the predictions; in the order of the store."""
    columns = [positions.tolist(), speakers.tolist(), true.tolist()]
    content = [list(classes), list(ids), list(dialogues), *columns]
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def run_name(model: str, features: str, seed: int, condition: Condition | None, identity: str) -> str:
    """Name of a run, and the start of its files' names: `cmath.transcripts.seed0.0123456789ab`.

    Args:
        features: Id without the dataset's name.
    """
    under = f"{condition.full_name}." if condition else ""
    return f"{model}.{features}.seed{seed}.{under}{identity[:12]}"


def joined_checksum(checksums: Sequence[str]) -> str:
    """One checksum of several, such as those of the folds; one alone is itself."""
    return checksums[0] if len(checksums) == 1 else hashlib.sha256("\n".join(checksums).encode()).hexdigest()
