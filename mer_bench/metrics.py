"""Scores from stored predictions, by one function: no model, no batch, no PyTorch.

All scores are fractions in [0, 1]. Utterances without a label are not scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.errors import RecordError, UnknownNameError
from mer_bench.predictions import CALIBRATION_BINS, DialogueCounts, Predictions, decode_outcomes
from mer_bench.records import Audit, ClassScores, Scores, SubsetScores, read_record

_TOLERANCE = 1e-9  # what another machine's arithmetic may differ by; a change by hand is larger


@dataclass(frozen=True)
class Metric:
    """A score by its name: a field of `Scores`.

    Attributes:
        title: As written at the head of a table.
        summary: How it is computed, in a sentence.
    """

    name: str
    title: str
    summary: str
    higher_is_better: bool = True


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("weighted_f1", "Weighted F1", "F1 of each class, averaged with the class's share of the labels."),
            Metric("accuracy", "Accuracy", "Share of utterances whose class was predicted."),
            Metric("macro_f1", "Macro F1", "F1 averaged over the classes that occur as labels or as predictions."),
            Metric("uar", "UAR", "Unweighted average recall: recall averaged over the classes that occur as labels."),
            Metric(
                "calibration_error",
                "Calibration error",
                f"Top-label expected calibration error in {CALIBRATION_BINS} equal-width bins.",
                higher_is_better=False,
            ),
            Metric(
                "emotion_shift_accuracy",
                "Shift accuracy",
                "Accuracy where the label differs from the same speaker's previous one in the dialogue.",
            ),
        )
    }
)


def score(predictions: Predictions | DialogueCounts) -> Scores:
    """Every metric of some predictions.

    A class that is never predicted has precision 0, one without labels recall 0, and F1 is 0 where
    both are (`zero_division=0` of scikit-learn, whose functions give the same numbers).

    Raises:
        RecordError: If no utterance has a label.

    Three utterances of one dialogue, of which the last is not found:

    >>> three = Predictions(
    ...     classes=("neutral", "joy"),
    ...     ids=["a", "b", "c"],
    ...     dialogues=["d", "d", "d"],
    ...     positions=np.arange(3),
    ...     speakers=np.zeros(3, int),
    ...     true=np.array([0, 1, 1]),
    ...     predicted=np.array([0, 1, 0]),
    ...     log_probabilities=None,
    ... )
    >>> found = score(three)
    >>> round(found.accuracy, 3), round(found.uar, 3), round(found.weighted_f1, 3)
    (0.667, 0.75, 0.667)
    """
    counts = _counted(predictions)
    confusion = counts.confusion.sum(axis=0, dtype=np.int64)
    if not confusion.any():
        raise RecordError("there is nothing to score: no utterance has a label.")
    by_class = _ClassRates.of(confusion)
    return Scores(
        **_averages(by_class),
        **_shift_scores(counts.shift),
        classes={
            name: ClassScores(
                precision=float(by_class.precision[index]),
                recall=float(by_class.recall[index]),
                f1=float(by_class.f1[index]),
                support=int(by_class.support[index]),
            )
            for index, name in enumerate(counts.classes)
        },
        confusion=confusion.tolist(),
        calibration_error=None if counts.calibration is None else _calibration_error(counts.calibration),
        subsets=_subset_scores(counts),
    )


def score_folds(predictions: Predictions | DialogueCounts) -> dict[int, Scores]:
    """The scores of each fold by itself, by its number; no calibration error. Empty under one fixed split.

    Raises:
        RecordError: If no utterance of a fold has a label.
    """
    counts = _counted(predictions)
    if counts.folds is None:
        return {}
    return {number: score(counts.part(counts.folds == number)) for number in np.unique(counts.folds).tolist()}


def count_dialogues(predictions: Predictions) -> DialogueCounts:
    """Sum predictions up by dialogue; what is left is enough for `score` and for every test."""
    labelled = np.flatnonzero(predictions.true >= 0)
    dialogues = len(predictions.dialogue_names)
    count = len(predictions.classes)
    dialogue = predictions.dialogue_index[labelled]
    true = predictions.true[labelled].astype(np.int64)
    predicted = predictions.predicted[labelled].astype(np.int64)
    cells = (dialogue * count + true) * count + predicted
    confusion = np.bincount(cells, minlength=dialogues * count * count).reshape(dialogues, count, count)
    return DialogueCounts(
        classes=predictions.classes,
        dialogues=predictions.dialogue_names,
        confusion=confusion.astype(np.int32),
        shift=_shifts(predictions, labelled),
        calibration=_calibration_bins(predictions, labelled),
        subsets=predictions.subsets,
        folds=predictions.folds,
    )


def value(scores: Scores, metric: str) -> float:
    """One score by the metric's name.

    Raises:
        UnknownNameError: If there is no such metric.
        RecordError: If these predictions have none: no probabilities, or no emotion shift.
    """
    if metric not in METRICS:
        raise UnknownNameError("metric", metric, METRICS, "mer-bench list metrics")
    found = getattr(scores, metric)
    if found is None:
        lacking = "probabilities" if metric == "calibration_error" else "change of a speaker's emotion"
        raise RecordError(f"{metric} cannot be computed: the predictions have no {lacking}.")
    return float(found)


def selection_gap(audit: Audit) -> float:
    """By how much a score would have been better with the epoch chosen on test, whichever way its metric is better."""
    difference = audit.best - audit.chosen
    return difference if METRICS[audit.metric].higher_is_better else -difference


def zero_f1_classes(scores: Scores) -> list[str]:
    """Classes that occur as labels and of which not one utterance was found."""
    return [name for name, of_class in scores.classes.items() if of_class.support > 0 and of_class.f1 == 0]


def rescore(record_file: Path) -> Scores:
    """Compute a record's test scores again from its predictions, those of its folds too, and compare.

    Raises:
        RecordError: If the record or its predictions are not valid, do not belong together, or the
            scores differ; names the file and the first score that differs.
    """
    record = read_record(record_file)
    if record.predictions is None or record.test is None:
        raise RecordError(f"{record_file} cannot be scored again: its run failed and predicted nothing.")
    file = record_file.with_name(record.predictions.file)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RecordError(f"{file}, which {record_file.name} names, cannot be read: {error.strerror}.") from None
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != record.predictions.sha256:
        raise RecordError(
            f"{file} is not the file that {record_file.name} was written with: its SHA-256 is "
            f"{checksum[:12]}..., and the record says {record.predictions.sha256[:12]}..."
        )
    try:
        predictions = decode_outcomes(content)
        scores, of_folds = score(predictions), score_folds(predictions)
    except RecordError as error:
        raise RecordError(f"{file} is not a valid predictions file: {str(error).rstrip('.')}.") from None
    if predictions.utterances != record.predictions.utterances:
        raise RecordError(
            f"{record_file} says predictions.utterances is {record.predictions.utterances}, "
            f"but {file.name} has {predictions.utterances}."
        )
    written = {"test": record.test, **{f"folds.{fold.fold}.test": fold.test for fold in record.folds}}
    computed = {"test": scores, **{f"folds.{number}.test": found for number, found in of_folds.items()}}
    if list(written) != list(computed):
        raise RecordError(
            f"{record_file} has {len(record.folds)} folds, but {file.name} has {len(of_folds)}. "
            "One of the two was changed after the run."
        )
    pairs = ((key, told.model_dump(), computed[key].model_dump()) for key, told in written.items())
    difference = next(filter(None, (_first_difference(*pair) for pair in pairs)), None)
    if difference:
        key, told, found = difference
        raise RecordError(
            f"{record_file} says {key} is {told}, but its predictions give {found}. "
            "One of the two was changed after the run."
        )
    return scores


@dataclass(frozen=True)
class _ClassRates:
    """Rates and counts of each class, from a confusion matrix: (classes,) each."""

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    right: NDArray[np.float64]
    support: NDArray[np.int64]
    predicted: NDArray[np.int64]

    @classmethod
    def of(cls, confusion: NDArray[np.int64]) -> _ClassRates:
        right = np.diagonal(confusion).astype(np.float64)
        support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
        return cls(
            precision=_divided(right, predicted),
            recall=_divided(right, support),
            f1=_divided(2 * right, support + predicted),
            right=right,
            support=support,
            predicted=predicted,
        )


def _counted(predictions: Predictions | DialogueCounts) -> DialogueCounts:
    return predictions if isinstance(predictions, DialogueCounts) else count_dialogues(predictions)


def _averages(by_class: _ClassRates) -> dict[str, Any]:
    """What a whole and a part of it are scored by alike."""
    support, f1 = by_class.support, by_class.f1
    utterances = int(support.sum())
    return {
        "utterances": utterances,
        "weighted_f1": _share(np.dot(f1, support) / utterances),
        "accuracy": _share(by_class.right.sum() / utterances),
        "macro_f1": _share(f1[(support > 0) | (by_class.predicted > 0)].mean()),
        "uar": _share(by_class.recall[support > 0].mean()),
    }


def _shift_scores(shift: NDArray[np.int32]) -> dict[str, Any]:
    right, shifts = shift.sum(axis=0, dtype=np.int64).tolist()
    return {"emotion_shift_accuracy": right / shifts if shifts else None, "emotion_shift_support": shifts}


def _subset_scores(counts: DialogueCounts) -> dict[str, SubsetScores]:
    """Scores of each subset that has a label here."""
    labelled = counts.confusion.any(axis=(1, 2))
    found = {}
    for name, members in counts.subsets.items():
        chosen = members & labelled
        if chosen.any():
            found[name] = SubsetScores(
                dialogues=int(chosen.sum()),
                **_averages(_ClassRates.of(counts.confusion[chosen].sum(axis=0, dtype=np.int64))),
                **_shift_scores(counts.shift[chosen]),
            )
    return found


def _divided(part: NDArray[np.float64], whole: NDArray[Any]) -> NDArray[np.float64]:
    """part / whole, and 0 where the whole is 0."""
    shares: NDArray[np.float64] = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
    return shares


def _share(number: float) -> float:
    """A mean of shares can pass 1 by its last bit."""
    return min(float(number), 1.0)


def _shifts(predictions: Predictions, labelled: NDArray[np.intp]) -> NDArray[np.int32]:
    """Emotion shifts by dialogue, found right and in all: (dialogues, 2).

    A shift is an utterance whose label differs from the previous labelled one of the same speaker in
    the same dialogue; one without a label is passed over, and the first of a speaker is none.
    """
    dialogue = predictions.dialogue_index[labelled]
    speaker = predictions.speakers[labelled]
    order = np.lexsort((predictions.positions[labelled], speaker, dialogue))
    dialogue, speaker = dialogue[order], speaker[order]
    true, predicted = predictions.true[labelled][order], predictions.predicted[labelled][order]
    shifted = np.zeros(len(order), bool)
    shifted[1:] = (dialogue[1:] == dialogue[:-1]) & (speaker[1:] == speaker[:-1]) & (true[1:] != true[:-1])
    rows = len(predictions.dialogue_names)
    right = np.bincount(dialogue[shifted & (true == predicted)], minlength=rows)
    return np.stack([right, np.bincount(dialogue[shifted], minlength=rows)], axis=1).astype(np.int32)


def _calibration_bins(predictions: Predictions, labelled: NDArray[np.intp]) -> NDArray[np.float64] | None:
    """Utterances, those right and summed confidence in each bin of confidence: (15, 3)."""
    if predictions.log_probabilities is None:
        return None
    predicted = predictions.predicted[labelled].astype(np.int64)
    confidence = np.exp(predictions.log_probabilities[labelled, predicted].astype(np.float64))
    # Bins are open below and closed above, as in Guo et al. (2017).
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = np.maximum(np.searchsorted(edges, confidence, side="left") - 1, 0)
    right = predicted == predictions.true[labelled]
    columns = [np.bincount(bins, weights, CALIBRATION_BINS) for weights in (None, right, confidence)]
    return np.stack(columns, axis=1).astype(np.float64)


def _calibration_error(bins: NDArray[np.float64]) -> float:
    """Expected calibration error: mean over utterances of |accuracy - confidence| of their bin.

    Equation 3 of Guo, Pleiss, Sun & Weinberger (2017), "On Calibration of Modern Neural Networks".
    """
    return _share(np.abs(bins[:, 1] - bins[:, 2]).sum() / bins[:, 0].sum())


def _first_difference(key: str, written: Any, computed: Any) -> tuple[str, Any, Any] | None:
    """The first entry that differs: its key, what is written and what was computed."""
    if isinstance(written, dict) and isinstance(computed, dict):
        if list(written) != list(computed):
            return key, list(written), list(computed)
        pairs = ((f"{key}.{name}", written[name], computed[name]) for name in written)
    elif isinstance(written, list) and isinstance(computed, list) and len(written) == len(computed):
        pairs = ((f"{key}[{place}]", written[place], computed[place]) for place in range(len(written)))
    elif isinstance(written, float) and isinstance(computed, float):
        return None if abs(written - computed) <= _TOLERANCE else (key, written, computed)
    else:
        return None if written == computed else (key, written, computed)
    return next(filter(None, (_first_difference(*pair) for pair in pairs)), None)
