"""Rows of a file against the utterances of a test split: every one of these once, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mer_bench.errors import DataError, nearest_names
from mer_bench.external.reading import ID, LABEL, Rows, label_index, score_of
from mer_bench.external.scored_split import ScoredSplit
from mer_bench.predictions import Predictions

SUM_TOLERANCE: Final = 0.015
"""How far the probabilities of an utterance may be from a sum of 1, from rounding."""

_ROUNDING = 1e-6  # what arithmetic leaves below a probability of 0, or above a log-probability of 0
_SHOWN = 5
_MOST_COMPARED = 20_000  # finding the nearest of more ids would take seconds


def predictions_of(rows: Rows, split: ScoredSplit) -> Predictions:
    """Predictions in the order of the split, from rows in any order.

    Where there are scores and no label, the class with the largest score is predicted, of equal ones the first.
    A label beside scores says which of equal ones it is.

    Raises:
        DataError: If an utterance is missing, unknown or there twice, a label is no class, scores are none, or a label
            is not the class with the largest score; names the line.
    """
    chosen = rows.part(_order(rows, split))
    labelled, scored = chosen.filled([LABEL]), chosen.filled(split.classes)
    if not labelled and not scored:
        raise DataError(
            f"{rows.file} predicts nothing: fill the column {LABEL}, or one column for each class "
            f"({', '.join(split.classes)})."
        )
    scores = _log_probabilities(chosen, split.classes) if scored else None
    count = len(split.ids)
    if labelled:
        predicted = np.array([label_index(chosen, row, split.classes) for row in range(count)], np.int16)
    else:
        assert scores is not None
        predicted = scores.argmax(axis=1).astype(np.int16)
    if labelled and scores is not None:
        _check_agreement(chosen, scores, predicted, split.classes)
    return Predictions(
        classes=split.classes,
        ids=split.ids,
        dialogues=split.dialogues,
        positions=split.positions,
        speakers=split.speakers,
        true=split.true,
        predicted=predicted,
        log_probabilities=None if scores is None else scores.astype(np.float32),
        subsets=split.subsets,
    )


def _order(rows: Rows, split: ScoredSplit) -> list[int]:
    """The row of each utterance of the split."""
    given: dict[str, int] = {}
    unknown: list[int] = []
    wanted = set(split.ids)
    for row, values in enumerate(rows.values):
        name = _id(rows, row, values.get(ID))
        if name in given:
            first = rows.places[given[name]]
            raise rows.fault(
                row, ID, f"'{name}' occurs twice, first on {rows.unit} {first}; each utterance has one row"
            )
        given[name] = row
        # Test utterances without a label may be there: nothing scores them.
        if name not in wanted and split.not_scored.get(name, "unknown"):
            unknown.append(row)
    if unknown:
        raise _unknown(rows, unknown, split)
    missing = [name for name in split.ids if name not in given]
    if missing:
        told = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        has = "has" if len(missing) == 1 else "have"
        raise DataError(
            f"{rows.file}: {len(missing)} of the {len(split.ids)} utterances of {split.name} {has} no row ({told}); "
            "each needs a prediction."
        )
    return [given[name] for name in split.ids]


def _id(rows: Rows, row: int, value: Any) -> str:
    if value is None:
        raise rows.fault(row, ID, "is blank")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise rows.fault(row, ID, f"should be a text, but is {value!r}")
    return str(value)


def _unknown(rows: Rows, unknown: Sequence[int], split: ScoredSplit) -> DataError:
    row = unknown[0]
    name = str(rows.values[row][ID])
    more = len(unknown) - 1
    others = f" The ids of {more} more {rows.unit}s are not of it either." if more else ""
    if other := split.not_scored.get(name):
        return rows.fault(row, ID, f"'{name}' is of the {other} split; only {split.name} is scored.{others}")
    near = nearest_names(name, split.ids, 1) if len(split.ids) <= _MOST_COMPARED else []
    hint = f" Did you mean '{near[0]}'?" if near else ""
    told = f"'{name}' is no utterance of {split.name}.{hint}{others}"
    return rows.fault(row, ID, f"{told} --template writes a file with all the ids.")


def _log_probabilities(rows: Rows, classes: Sequence[str]) -> NDArray[np.float64]:
    """Scores as log-probabilities: (rows, classes).

    They are log-probabilities where any is negative, and probabilities otherwise.
    """
    count = len(rows.values)
    scores = np.array([[score_of(rows, row, name) for name in classes] for row in range(count)], np.float64)
    scores[np.abs(scores) < _ROUNDING] = 0.0
    if (scores >= 0).all():
        _check_sums(rows, scores, "probabilities", "give shares of 1: no percentages, votes or logits")
        with np.errstate(divide="ignore"):  # a probability of 0
            logarithms: NDArray[np.float64] = np.log(scores)
        return logarithms
    if (scores > 0).any():
        low, high = (_told(rows, scores, where, classes) for where in (scores < 0, scores > 0))
        raise DataError(
            f"{rows.file}: the scores are neither probabilities nor log-probabilities: {low}, and {high}; give the "
            "output of a softmax, or its logarithm."
        )
    _check_sums(rows, np.exp(scores), "exponentials of the scores", "log-probabilities are the logarithm of a softmax")
    return scores


def _told(rows: Rows, scores: NDArray[np.float64], where: NDArray[np.bool_], classes: Sequence[str]) -> str:
    row, column = np.argwhere(where)[0].tolist()
    return f"{classes[column]} on {rows.unit} {rows.places[row]} is {scores[row, column]:g}"


def _check_sums(rows: Rows, probabilities: NDArray[np.float64], what: str, advice: str) -> None:
    total = probabilities.sum(axis=1)
    wrong = np.flatnonzero(~(np.abs(total - 1) <= SUM_TOLERANCE))
    if len(wrong):
        row = int(wrong[0])
        others = f" (and those of {len(wrong) - 1} more {rows.unit}s do not either)" if len(wrong) > 1 else ""
        raise DataError(
            f"{rows.file}, {rows.unit} {rows.places[row]}: the {what} should sum to 1, but sum to {total[row]:.4g}"
            f"{others}; {advice}."
        )


def _check_agreement(
    rows: Rows, scores: NDArray[np.float64], predicted: NDArray[np.int16], classes: Sequence[str]
) -> None:
    """A label beside scores is a class with the largest one, as far as the stored scores can tell."""
    rounded = scores.astype(np.float16)
    chosen = np.take_along_axis(rounded, predicted[:, None].astype(np.int64), axis=1)[:, 0]
    wrong = np.flatnonzero(chosen != rounded.max(axis=1))
    if len(wrong):
        row = int(wrong[0])
        best = classes[int(scores[row].argmax())]
        raise rows.fault(
            row, LABEL, f"is {classes[predicted[row]]}, but {best} has the largest score; leave one of the two out"
        )
