"""Makes records of runs that never were, with predictions, as many as wanted: `python many_records.py DIR 10000`.

In the shape of MELD: 280 test dialogues with 2600 utterances of seven classes, 40 epochs; a hundred models of five
seeds to a table. Models differ by a real amount, seeds by a little, and every file is different.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import sys
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mer_bench.metrics import count_dialogues, score
from mer_bench.predictions import Predictions, write_predictions
from mer_bench.records import Record, record_text

CLASSES = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
SHARES = (0.48, 0.11, 0.02, 0.08, 0.15, 0.03, 0.13)
DIALOGUES, UTTERANCES, EPOCHS, MODELS, SEEDS = 280, 2600, 40, 100, 5


@lru_cache(maxsize=1)
def frame(dialogues: int, utterances: int) -> Predictions:
    """A test split, with any predictions."""
    rng = np.random.default_rng(7)
    lengths = np.full(dialogues, utterances // dialogues)
    lengths[: utterances - lengths.sum()] += 1
    names = [f"dia{number}" for number in range(dialogues) for _ in range(lengths[number])]
    positions = np.concatenate([np.arange(length) for length in lengths])
    true = rng.choice(len(CLASSES), utterances, p=np.array(SHARES) / sum(SHARES))
    return Predictions(
        classes=CLASSES,
        ids=[f"{name}_utt{position}" for name, position in zip(names, positions, strict=True)],
        dialogues=names,
        positions=positions,
        speakers=rng.integers(0, 3, utterances, np.int16),
        true=true.astype(np.int16),
        predicted=np.zeros(utterances, np.int16),
        log_probabilities=None,
    )


def made_up(number: int, dialogues: int = DIALOGUES, utterances: int = UTTERANCES) -> tuple[Record, bytes]:
    """A record and the bytes of its predictions: the `number`-th of all."""
    table, place = divmod(number, MODELS * SEEDS)
    model, seed = divmod(place, SEEDS)
    rng = np.random.default_rng([table, model, seed])
    known = 0.8 + 1.2 * model / MODELS + 0.05 * rng.standard_normal()
    split = frame(dialogues, utterances)
    logits = rng.standard_normal((utterances, len(CLASSES)), np.float32) + np.log(np.array(SHARES, np.float32))
    logits[np.arange(utterances), split.true] += known
    scores = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float16)
    predictions = split.with_results(scores.argmax(axis=1).astype(np.int16), scores)
    content = zipped(predictions)
    tested = score(count_dialogues(predictions)).model_dump()
    identity = hashlib.sha256(f"{table} {model} {seed}".encode()).hexdigest()
    name = f"model{model}"
    run = f"{name}.features{table}.seed{seed}.{identity[:12]}"
    shape = {"sources": hashlib.sha256(f"{table}".encode()).hexdigest(), "store": "0" * 64, "widths": {"text": 320}}
    record = Record.model_validate(
        {
            "run": run,
            "identity": identity,
            "status": "done",
            "dataset": "made-up",
            "labels": "made-up/emotion",
            "features": f"made-up/features{table}",
            "features_detail": shape,
            "protocol": "made-up/official",
            "protocol_version": 1,
            "modalities": ("text",),
            "synthetic": True,
            "model": name,
            "model_version": 1,
            "seed": seed,
            "settings": {f"setting{index}": index / 8 for index in range(30)},
            "training": {"learning_rate": 1e-3, "epochs": EPOCHS},
            "options": {"settings": {}, "device": "auto", "threads": 1},
            "curve": [epoch(index, rng) for index in range(1, EPOCHS + 1)],
            "selection": {"rule": "best dev", "metric": "weighted_f1", "epoch": 9, "score": 0.5, "ended": "epochs"},
            "dev": tested,
            "test": tested,
            "predictions": {
                "file": f"{run}.predictions.npz",
                "sha256": hashlib.sha256(content).hexdigest(),
                "utterances": utterances,
            },
            "cost": {"wall_seconds": 30.0, "epochs_per_second": 1.3, "memory_bytes": 4 * 10**8, "parameters": 10**6},
            "machine": {"device": "cpu", "threads": 1, "platform": "Linux", "python": "3.11", "versions": {}},
            "started": "2026-01-01T00:00:00Z",
            "version": "0.1.0",
        }
    )
    return record, content


def epoch(number: int, rng: np.random.Generator) -> dict[str, Any]:
    """An epoch of a curve."""
    values = rng.random(6).tolist()
    names = ("loss", "weighted_f1", "accuracy", "macro_f1", "uar", "emotion_shift_accuracy")
    train = {"total": values[0], "task": values[1]}
    return {"epoch": number, "learning_rate": 1e-3, "train": train, "dev": dict(zip(names, values, strict=True))}


@lru_cache(maxsize=1)
def shared_members(dialogues: int, utterances: int) -> dict[str, bytes]:
    """The members of a predictions file of the split; two of them are to be replaced."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "frame.npz")
        write_predictions(file, frame(dialogues, utterances))
        with zipfile.ZipFile(file) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def zipped(predictions: Predictions) -> bytes:
    """A predictions file, packed less tightly than `write_predictions` does, which is what takes the longest."""
    assert predictions.log_probabilities is not None
    members = dict(shared_members(len(predictions.dialogue_names), predictions.utterances))
    for name, array in (("predicted", predictions.predicted), ("log_probabilities", predictions.log_probabilities)):
        member = io.BytesIO()
        np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
        members[f"{name}.npy"] = member.getvalue()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return written.getvalue()


def write(out: Path, number: int) -> Path:
    """Write one of them; its record."""
    record, content = made_up(number)
    folder = out / record.dataset / record.model
    folder.mkdir(parents=True, exist_ok=True)
    assert record.predictions is not None
    (folder / record.predictions.file).write_bytes(content)
    (folder / f"{record.run}.json").write_text(record_text(record), encoding="utf-8")
    return folder / f"{record.run}.json"


def write_many(out: Path, count: int) -> None:
    """Write them all, with as many processes as there are cores."""
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.starmap(write, [(out, number) for number in range(count)], chunksize=50)


if __name__ == "__main__":
    write_many(Path(sys.argv[1]), int(sys.argv[2]))
