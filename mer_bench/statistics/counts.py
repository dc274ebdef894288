"""Runs of one test split as arrays of whole numbers, and the weighted F1 of any sum of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.errors import RecordError
from mer_bench.predictions import DialogueCounts

FEWEST_DIALOGUES = 10
"""With fewer, drawn dialogues say nothing reliable about others."""

EXACT_IN_FLOAT32 = 2**24


@dataclass(frozen=True)
class Counted:
    """Runs on the same labelled dialogues, which stand in the order of their ids.

    Attributes:
        labelled: (dialogues, classes), labelled utterances: the same for every run.
        right, predicted: (runs, dialogues, classes): utterances of the class that were predicted right, and all that
            were predicted as it.
    """

    classes: tuple[str, ...]
    dialogues: tuple[str, ...]
    labelled: NDArray[np.int64]
    right: NDArray[np.int64]
    predicted: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.right)

    def part(self, first: int, last: int) -> Counted:
        """Some of the runs."""
        return Counted(self.classes, self.dialogues, self.labelled, self.right[first:last], self.predicted[first:last])

    @property
    def exact(self) -> type[np.floating[Any]]:
        """The type in which every sum that drawing as many dialogues can give is exact, in any order of adding."""
        longest = int(self.labelled.sum(axis=1).max())
        return np.float32 if longest * len(self.dialogues) < EXACT_IN_FLOAT32 else np.float64

    def flat(self) -> NDArray[np.floating[Any]]:
        """Right and predicted, ready to be multiplied: (2 x classes x runs, dialogues)."""
        both = np.stack([self.right, self.predicted]).transpose(0, 3, 1, 2)  # (2, classes, runs, dialogues)
        return np.ascontiguousarray(both.reshape(-1, len(self.dialogues)), self.exact)

    def digest(self) -> bytes:
        """Tells runs that predicted something else apart, whatever their order and however often each is there."""
        each = {
            hashlib.sha256(np.stack(both).astype("<i8").tobytes()).digest()
            for both in zip(self.right, self.predicted, strict=True)
        }
        return hashlib.sha256(b"".join(sorted(each))).digest()


def count_runs(runs: Sequence[DialogueCounts], subset: str | None = None, fewest: int = FEWEST_DIALOGUES) -> Counted:
    """Bring runs of one test split together; dialogues are matched by id, those without a label left out.

    Args:
        subset: Only the dialogues of that named part of the corpus.

    Raises:
        RecordError: If there is no run, the runs are not of the same test split and label set, they do not have the
            subset, or there are fewer than `fewest` dialogues with labels.
    """
    runs = _of_subset(runs, subset)
    if not runs:
        raise RecordError("there is no run to speak of.")
    known = {name: number for number, name in enumerate(runs[0].dialogues)}
    labelled_there: NDArray[np.bool_] = runs[0].confusion.sum(axis=(1, 2)) > 0
    names = sorted(name for name, row in known.items() if labelled_there[row])
    if len(names) < fewest:
        raise RecordError(f"an interval needs at least {fewest} dialogues with labels, but there are {len(names)}.")
    labelled: NDArray[np.int64] | None = None
    right, predicted = [], []
    for run in runs:
        if run.classes != runs[0].classes:
            raise RecordError(
                f"runs of different label sets cannot be compared: {', '.join(runs[0].classes)} "
                f"and {', '.join(run.classes)}."
            )
        row = known if run.dialogues == runs[0].dialogues else {name: at for at, name in enumerate(run.dialogues)}
        unshared = row.keys() ^ known.keys()
        if unshared:
            raise RecordError(f"dialogue '{min(unshared)}' is not in every run: they are not of the same test split.")
        confusion = run.confusion[[row[name] for name in names]]
        true = confusion.sum(axis=2, dtype=np.int64)
        if labelled is None:
            labelled = true
        if not np.array_equal(true, labelled) or confusion.sum() != run.confusion.sum():
            raise RecordError("the runs do not have the same labels: they are not of the same test split.")
        right.append(np.diagonal(confusion, axis1=1, axis2=2))
        predicted.append(confusion.sum(axis=1, dtype=np.int64))
    assert labelled is not None
    return Counted(runs[0].classes, tuple(names), labelled, np.stack(right).astype(np.int64), np.stack(predicted))


def weighted_f1(right: NDArray[Any], predicted: NDArray[Any], labelled: NDArray[Any]) -> NDArray[np.float64]:
    """Weighted F1 of sums of counts, one class after the other, so that every machine adds in the same order.

    Shapes:
        right, predicted: (classes, ...). labelled: (classes, ...), broadcast to the others.
        returns: (...).
    """
    total = np.zeros(np.broadcast_shapes(right.shape[1:], labelled.shape[1:]))
    everything = np.zeros(labelled.shape[1:])
    for hits, guesses, truths in zip(right, predicted, labelled, strict=True):
        both = np.add(guesses, truths, dtype=np.float64)
        f1 = np.multiply(hits, 2.0, dtype=np.float64)
        # Where nothing is predicted or labelled, nothing was right either: 0 / 1.
        np.divide(f1, np.maximum(both, 1.0), out=f1)
        total += f1 * truths
        everything += truths
    return total / everything


def _of_subset(runs: Sequence[DialogueCounts], subset: str | None) -> Sequence[DialogueCounts]:
    """The dialogues of a subset in every run; all of them where no subset is named."""
    if subset is None:
        return runs
    parts = []
    for run in runs:
        if subset not in run.subsets:
            known = f"only {', '.join(run.subsets)}" if run.subsets else "none"
            raise RecordError(f"the predictions have no subset '{subset}', {known}.")
        if not run.subsets[subset].any():
            raise RecordError(f"no dialogue of the test split is in the subset '{subset}'.")
        parts.append(run.part(run.subsets[subset]))
    return parts
