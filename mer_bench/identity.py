"""What makes two runs the same run: a checksum over all that decides the result, and the name that follows from it.

Neither the machine nor its thread count is part of it, nor whether a run was tuned or audited. Whoever has a record
can compute it again, so that a setting that was changed by hand shows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

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
) -> str:
    """SHA-256 of everything that decides the result of a run.

    Args:
        dataset_version: Of the dataset's card; a record does not tell it.
        sources: SHA-256 of what the features were made from. settings, training: In full, as JSON values.
        model_code: SHA-256 of the model's code, where it did not come with mer-bench.
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
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def identity_of(record: Record, dataset_version: int, condition: Condition | None) -> str:
    """The identity that follows from what the record of a run says of it.

    Args:
        condition: The record's own test condition, or None for the run on the complete test split whose model it is.
    """
    assert record.kind == "run"
    assert record.model_version is not None  # as every run has it
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
    )


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
