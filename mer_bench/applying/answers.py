"""What a model says of new dialogues, and how that is written to a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.atomic import write_atomically
from mer_bench.errors import RequestError

FORMATS = ("csv", "jsonl", "parquet")

_DIGITS = 8
"""Decimals of a score: more than a model in single precision can tell apart."""


@dataclass(frozen=True)
class Labelled:
    """Labels and scores of new dialogues, in the order in which the utterances were given.

    Attributes:
        classes: In the order of the scores' columns.
        turns: As given, else from 1 in each dialogue.
        utterances: Ids; None where none were given.
        labels: The most probable class of each utterance.
        missing: Modalities that the model was trained with and that nobody gave.
        notes: What the user should know, one sentence each.

    Shapes:
        scores: (utterances, classes), float64: probability of each class.
    """

    classes: tuple[str, ...]
    dialogues: list[str]
    turns: list[int | float]
    utterances: list[str] | None
    speakers: list[str]
    labels: list[str]
    scores: NDArray[np.float64]
    missing: tuple[str, ...]
    notes: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each utterance as JSON values, its scores by class."""
        for row, label in enumerate(self.labels):
            told: dict[str, Any] = {"dialogue": self.dialogues[row], "turn": self.turns[row]}
            if self.utterances is not None:
                told["utterance"] = self.utterances[row]
            scores = [round(score, _DIGITS) for score in self.scores[row].tolist()]
            told |= {"speaker": self.speakers[row], "label": label}
            yield {**told, "scores": dict(zip(self.classes, scores, strict=True))}

    def flat_rows(self) -> Iterator[dict[str, Any]]:
        """The same without nesting: a column `score.<class>` for each class."""
        for row in self.rows():
            scores = row.pop("scores")
            yield {**row, **{f"score.{name}": score for name, score in scores.items()}}


def format_of(file: Path | None, given: str | None) -> str:
    """The format that was asked for, else the one that the file's name says, else csv.

    Raises:
        RequestError: If there is no such format.
    """
    if given is None:
        given = "csv" if file is None else file.suffix.removeprefix(".").lower()
        if given not in FORMATS:
            raise RequestError(
                f"{file} should end in .csv, .jsonl or .parquet, or --format should say which of them it is to be."
            )
    if given not in FORMATS:
        raise RequestError(f"--format should be one of {', '.join(FORMATS)}, but is '{given}'.")
    return given


def encoded(labelled: Labelled, kind: str) -> bytes:
    """The answer in a format.

    Raises:
        RequestError: If it is Parquet, and pyarrow is not installed.
    """
    if kind == "parquet":
        return _parquet(labelled)
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in labelled.rows()).encode()
    memory = io.StringIO(newline="")
    named = ["dialogue", "turn", *(["utterance"] if labelled.utterances is not None else []), "speaker", "label"]
    writer = csv.DictWriter(memory, [*named, *(f"score.{name}" for name in labelled.classes)], lineterminator="\n")
    writer.writeheader()
    for row in labelled.flat_rows():
        writer.writerow({name: _plain(value) for name, value in row.items()})
    return memory.getvalue().encode()


def write_labelled(labelled: Labelled, file: Path, kind: str | None = None) -> None:
    """Write an answer to a file, whole or not at all.

    Args:
        kind: One of FORMATS; None: as the file's name ends.

    Raises:
        RequestError: If there is no such format, or it needs what is not installed.
        StorageError: If the file cannot be written.
    """
    write_atomically(file, encoded(labelled, format_of(file, kind)))


def _plain(value: Any) -> Any:
    """Never as 1e-07, which some programs take for a text."""
    return f"{value:.{_DIGITS}f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def _parquet(labelled: Labelled) -> bytes:
    check_parquet()
    import pyarrow
    import pyarrow.parquet

    rows = list(labelled.flat_rows())
    memory = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), memory)
    return memory.getvalue()


def check_parquet() -> None:
    """Raises: RequestError: If Parquet cannot be written here."""
    try:
        import pyarrow.parquet  # noqa: F401 - asked for, not used
    except ImportError as error:
        raise RequestError(
            f"Parquet needs pyarrow: python -m pip install 'mer-bench[parquet]' ({error}). Or take --format csv."
        ) from None
