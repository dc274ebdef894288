"""The test split as a predictions file shows it: which utterances, whose labels; without what was predicted.

All records of a table were scored on the same utterances with the same labels, so that their layouts are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.metrics import count_dialogues
from mer_bench.predictions import DialogueCounts, Predictions


@dataclass(frozen=True)
class Utterances:
    """Every utterance by itself, in the order of the ids.

    Attributes:
        ids, dialogues: As texts. places: (utterances, 3), int: turn, speaker and label index (-1: none).
    """

    ids: Sequence[str]
    dialogues: Sequence[str]
    places: NDArray[np.int64]

    @cached_property
    def labelled(self) -> Utterances:
        """Those with a label."""
        rows = np.flatnonzero(self.places[:, 2] >= 0).tolist()
        return Utterances([self.ids[row] for row in rows], [self.dialogues[row] for row in rows], self.places[rows])

    @cached_property
    def digest(self) -> str:
        """Equal exactly where all of it is."""
        return _digest([list(self.ids), list(self.dialogues)], self.places)


@dataclass(frozen=True)
class Layout:
    """The utterances that were scored and their labels, in an order of its own, whatever the file's was.

    Attributes:
        classes: In the order of their index.
        dialogues: Sorted. labels: (dialogues, classes), int: how many of each there are. shifts: (dialogues,), int.
        subsets: Members of each named part. folds: Fold of each dialogue; empty under one fixed split.
        utterances: None where a file holds dialogue counts only.
    """

    classes: tuple[str, ...]
    dialogues: tuple[str, ...]
    labels: NDArray[np.int64]
    shifts: NDArray[np.int64]
    subsets: Mapping[str, tuple[str, ...]]
    folds: tuple[int, ...]
    utterances: Utterances | None

    @cached_property
    def digest(self) -> str:
        """Equal exactly where all that dialogue counts tell is."""
        told = [list(self.classes), list(self.dialogues), {k: list(v) for k, v in self.subsets.items()}, self.folds]
        return _digest(told, self.labels, self.shifts)

    @cached_property
    def labelled(self) -> Layout:
        """The same without what has no label, and without its folds: what external predictions are about."""
        there: NDArray[np.bool_] = self.labels.sum(axis=1) > 0
        names = tuple(name for name, has in zip(self.dialogues, there, strict=True) if has)
        kept = set(names)
        return Layout(
            classes=self.classes,
            dialogues=names,
            labels=self.labels[there],
            shifts=self.shifts[there],
            subsets={
                subset: tuple(name for name in members if name in kept) for subset, members in self.subsets.items()
            },
            folds=(),
            utterances=self.utterances.labelled if self.utterances else None,
        )

    def agrees(self, other: Layout) -> bool:
        """Whether both are of the same test split, as far as both tell of it."""
        if self.utterances and other.utterances and self.utterances.digest != other.utterances.digest:
            return False
        return self.digest == other.digest


def layout_of(outcomes: Predictions | DialogueCounts) -> Layout:
    """The layout of the split that was predicted."""
    counts = outcomes if isinstance(outcomes, DialogueCounts) else count_dialogues(outcomes)
    order = sorted(range(len(counts.dialogues)), key=counts.dialogues.__getitem__)
    names = tuple(counts.dialogues[row] for row in order)
    return Layout(
        classes=counts.classes,
        dialogues=names,
        labels=counts.confusion.sum(axis=2, dtype=np.int64)[order],
        shifts=counts.shift[order, 1].astype(np.int64),
        subsets={
            subset: tuple(name for name, row in zip(names, order, strict=True) if members[row])
            for subset, members in sorted(counts.subsets.items())
        },
        folds=() if counts.folds is None else tuple(counts.folds[order].tolist()),
        utterances=_utterances(outcomes) if isinstance(outcomes, Predictions) else None,
    )


def _utterances(predictions: Predictions) -> Utterances:
    order = sorted(range(len(predictions.ids)), key=predictions.ids.__getitem__)
    places = np.stack([predictions.positions, predictions.speakers, predictions.true], axis=1).astype(np.int64)
    return Utterances(
        ids=[predictions.ids[row] for row in order],
        dialogues=[predictions.dialogues[row] for row in order],
        places=places[order],
    )


def difference(found: Layout, expected: Layout, origin: str) -> str:
    """What is wrong with a layout, in words; "" where nothing is.

    Args:
        origin: Where the right one is from: a record's name.
    """
    return next(_differences(found, expected, origin), "")


def _differences(found: Layout, expected: Layout, origin: str) -> Iterator[str]:
    """Each way in which they differ; after the first one the others may be nonsense."""
    if found.classes != expected.classes:
        yield f"its classes are {', '.join(found.classes)}, but {origin} has {', '.join(expected.classes)}"
    if found.utterances and expected.utterances and found.utterances.digest != expected.utterances.digest:
        yield _difference_of_utterances(found.utterances, expected.utterances, found.classes, origin)
    told = _difference_of_names("dialogue", found.dialogues, expected.dialogues, origin)
    if told:
        yield told
    for row in np.flatnonzero((found.labels != expected.labels).any(axis=1)).tolist():
        ours, theirs = (_counted(found.classes, each.labels[row]) for each in (found, expected))
        yield f"dialogue '{found.dialogues[row]}' has other labels than in {origin}: {ours} instead of {theirs}"
    for row in np.flatnonzero(found.shifts != expected.shifts).tolist():
        ours, theirs = found.shifts[row], expected.shifts[row]
        yield f"dialogue '{found.dialogues[row]}' has {ours} emotion shifts, but {theirs} in {origin}"
    if found.folds != expected.folds:
        yield f"other folds tested its dialogues than in {origin}"
    if found.subsets != expected.subsets:
        yield f"the named parts of its test split are not those of {origin}"


def _difference_of_utterances(found: Utterances, expected: Utterances, classes: Sequence[str], origin: str) -> str:
    told = _difference_of_names("utterance", found.ids, expected.ids, origin)
    if told:
        return told
    wrong = np.flatnonzero(found.places[:, 2] != expected.places[:, 2])
    if len(wrong):
        row = int(wrong[0])
        names = [
            "unlabelled" if label < 0 else classes[label] for label in (found.places[row, 2], expected.places[row, 2])
        ]
        return (
            f"the true labels were changed: utterance '{found.ids[row]}' is {names[0]}, but {names[1]} in {origin}"
            + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else "")
        )
    moved = np.flatnonzero(
        (found.places[:, :2] != expected.places[:, :2]).any(axis=1)
        | np.array([ours != theirs for ours, theirs in zip(found.dialogues, expected.dialogues, strict=True)])
    )
    return f"utterance '{found.ids[int(moved[0])]}' has another dialogue, turn or speaker than in {origin}"


def _difference_of_names(what: str, found: Sequence[str], expected: Sequence[str], origin: str) -> str:
    lacking, foreign = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if lacking:
        return f"{len(lacking)} {what}s of {origin} are not predicted, such as '{lacking[0]}'"
    return f"it predicts the {what} '{foreign[0]}', which is not in {origin}" if foreign else ""


def _counted(classes: Sequence[str], counts: NDArray[np.int64]) -> str:
    return ", ".join(f"{count} {name}" for name, count in zip(classes, counts.tolist(), strict=True) if count)


def _digest(told: Any, *arrays: NDArray[np.int64]) -> str:
    digest = hashlib.sha256(json.dumps(told).encode())
    for array in arrays:
        digest.update(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
