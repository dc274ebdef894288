"""Small runs on disk: records whose scores are those of their predictions, as many and as odd as a test wants."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from mer_bench.metrics import count_dialogues, score
from mer_bench.predictions import DialogueCounts, Predictions, write_predictions
from mer_bench.records import Failure, Record, write_record

CLASSES = ("neutral", "joy", "anger")


def predictions(
    right: float = 0.6, seed: int = 0, dialogues: int = 12, scored: bool = True, split: int = 0
) -> Predictions:
    """Dialogues of five utterances, of which a share is right; the labels depend on `split` alone."""
    count = 5 * dialogues
    true = np.random.default_rng(split).integers(0, 3, count).astype(np.int16)
    rng = np.random.default_rng([seed, round(1000 * right)])
    chance = rng.random((count, 3)) + 0.1
    guess = np.where(rng.random(count) < right, true, (true + 1) % 3)
    chance[np.arange(count), guess] += 2
    scores = np.log(chance / chance.sum(axis=1, keepdims=True)).astype(np.float16)
    return Predictions(
        classes=CLASSES,
        ids=[f"d{row // 5}_u{row % 5}" for row in range(count)],
        dialogues=[f"d{row // 5}" for row in range(count)],
        positions=np.arange(count, dtype=np.int32) % 5,
        speakers=np.arange(count, dtype=np.int16) % 2,
        true=true,
        predicted=scores.argmax(axis=1),
        log_probabilities=scores if scored else None,
    )


def run_of(made: Predictions | DialogueCounts, checksum: str = "0" * 64, **changes: Any) -> Record:
    """The record of some predictions; `changes` replace fields, and decide the identity."""
    model, seed = changes.get("model", "gru"), changes.get("seed", 0)
    identity = hashlib.sha256(repr((sorted(changes.items()), made.classes)).encode()).hexdigest()
    name = f"{model}.transcripts.seed{seed}.{identity[:12]}"
    scores = score(made)
    values: dict[str, Any] = {
        "run": name,
        "identity": identity,
        "status": "done",
        "dataset": "talks",
        "labels": "talks/emotion",
        "features": "talks/transcripts",
        "features_detail": {"sources": "b" * 64, "store": "c" * 64, "widths": {"text": 6, "audio": 8}},
        "protocol": "talks/official",
        "protocol_version": 1,
        "modalities": ("text", "audio"),
        "synthetic": False,
        "model": model,
        "model_version": 1,
        "seed": seed,
        "settings": {"width": 64, "fusion": "gated"},
        "training": {"learning_rate": 1e-3},
        "options": {"settings": {}, "device": "auto", "threads": 1},
        "curve": [
            {"epoch": 1, "learning_rate": 0.1, "train": {"total": 2.0}, "dev": {"weighted_f1": 0.4}},
            {"epoch": 2, "learning_rate": 0.1, "train": {"total": 1.0}, "dev": {"weighted_f1": 0.5}},
        ],
        "selection": {"rule": "best dev", "metric": "weighted_f1", "epoch": 2, "score": 0.5, "ended": "epochs"},
        "dev": scores,
        "test": scores,
        "predictions": {"file": f"{name}.predictions.npz", "sha256": checksum, "utterances": made.utterances},
        "cost": {"wall_seconds": 1.5, "epochs_per_second": 2.0, "memory_bytes": 10**8, "parameters": 1000},
        "machine": {"device": "cpu", "threads": 1, "platform": "Linux", "python": "3.11", "versions": {"torch": "2"}},
        "started": "2025-01-01T00:00:00Z",
        "version": "0.1.0",
    }
    return Record.model_validate(values | changes)


def write_run(folder: Path, right: float = 0.6, counts: bool = False, **changes: Any) -> Path:
    """Write a run as `mer-bench run` does; its record.

    Args:
        counts: Dialogue counts rather than predictions.
    """
    split = {name: changes.pop(name) for name in ("dialogues", "scored", "split") if name in changes}
    predicted = predictions(right, changes.get("seed", 0), **split)
    made = count_dialogues(predicted) if counts else predicted
    told = run_of(made, **changes)
    place = folder / told.dataset / told.model
    assert told.predictions is not None
    checksum = write_predictions(place / told.predictions.file, made)
    file = place / f"{told.run}.json"
    beside = told.predictions.model_copy(update={"sha256": checksum})
    write_record(file, told.model_copy(update={"predictions": beside}))
    return file


def write_failure(folder: Path, reason: str = "the loss became NaN", **changes: Any) -> Path:
    """Write a run that failed; its record."""
    told = run_of(predictions(), **changes)
    failed = told.model_copy(
        update={
            "status": "failed",
            "test": None,
            "dev": None,
            "predictions": None,
            "selection": None,
            "failure": Failure(kind="DivergedError", reason=reason, epoch=3),
        }
    )
    file = folder / told.dataset / told.model / f"{told.run}.json"
    write_record(file, Record.model_validate(failed.model_dump()))
    return file


def under(condition: dict[str, Any], model_of: str) -> dict[str, Any]:
    """A test condition of a run, as a field of a record."""
    return {"test_condition": {**condition, "model_of": model_of}}
