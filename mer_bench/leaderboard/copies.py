"""Predictions that are somebody else's: the same, or nearly the same, under another model's or seed's name.

Two trainings of one network with two seeds never predict alike. Of 391 records of 22 models on four corpora, the two
that were most alike differed by 0.018 (mean total variation between their distributions), 0.6 % of their rows were
equal and 98.7 % of their labels on two classes, 94.7 % on seven. The limits below lie well beyond that. What is
fitted at one go gives the same for every seed, and settings that a model does not read change nothing; neither is a
copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.predictions import DialogueCounts, Predictions
from mer_bench.records import Record

SAME_DISTRIBUTIONS = 0.005
"""Mean total variation between two predicted distributions up to which they are nearly the same."""
SAME_ROWS = 0.2
"""Share of utterances with the very same probabilities from which on two are nearly the same."""
SAME_DIALOGUES = 0.8
"""Share of dialogues with the very same counts from which on two are nearly the same."""
SAME_LABELS = 0.998
"""Share of equal labels from which on, of two hundred utterances or more, of which a tenth are not of one class."""
SAME_COUNTS = 0.01
"""Share of utterances in other cells of the dialogues' confusion matrices up to which two are nearly the same."""

_FEWEST = 200
_LOPSIDED = 0.9


@dataclass(frozen=True)
class Alike:
    """Two records whose predictions or curves are the same: the places of both, and how alike in words."""

    first: int
    second: int
    said: str


@dataclass(frozen=True)
class _Print:
    """What is compared of a file; None where it has none of it.

    Attributes:
        probabilities: (utterances * classes,), float32. rows: (utterances,), a number for each row's very bits.
        labels: (utterances,). counts: (dialogues * classes * classes,). dialogues: How many.
        is_constant: Every utterance gets nearly the same distribution. is_lopsided: Nearly all get one label.
    """

    probabilities: NDArray[np.float32] | None
    rows: NDArray[np.uint64] | None
    labels: NDArray[np.int16] | None
    counts: NDArray[np.int32] | None
    dialogues: int
    is_constant: bool
    is_lopsided: bool


def alike(records: Sequence[Record], outcomes: Sequence[Predictions | DialogueCounts | None]) -> Iterator[Alike]:
    """Pairs of records whose predictions are too much alike for both to be their own.

    Args:
        outcomes: Of each record; None where they could not be read.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, (record, found) in enumerate(zip(records, outcomes, strict=True)):
        if found is not None:
            under = record.test_condition.full_name if record.test_condition else ""
            labelled = found.utterances if isinstance(found, DialogueCounts) else int((found.true >= 0).sum())
            shape = (type(found).__name__, labelled, found.classes)
            groups.setdefault((record.dataset, record.labels, record.protocol, under, *shape), []).append(place)
    for places in groups.values():
        prints = [_print_of(outcomes[place]) for place in places]
        for first, second, said in _alike_in_a_group(prints):
            one, other = places[first], places[second]
            if not _may_be_the_same(records[one], records[other]):
                yield Alike(one, other, said)


def same_curves(records: Sequence[Record]) -> Iterator[Alike]:
    """Pairs of records with the same training curve, which no two trainings have."""
    seen: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        curves = [fold.curve for fold in record.folds] or [record.curve]
        if record.test_condition is None and max(map(len, curves)) > 1:
            seen.setdefault(repr([[epoch.train, epoch.dev] for curve in curves for epoch in curve]), []).append(place)
    for places in seen.values():
        for number, first in enumerate(places):
            for second in places[number + 1 :]:
                if not _may_be_the_same(records[first], records[second]):
                    yield Alike(first, second, "their training curves are the same to the last digit")


def _may_be_the_same(one: Record, other: Record) -> bool:
    """Whether equal predictions are no wonder: fitted at one go, or settings and features that change nothing."""
    if one.model != other.model:
        return False
    return one.seed == other.seed or (_is_fitted(one) and _is_fitted(other))


def _is_fitted(record: Record) -> bool:
    chosen = (*(fold.selection for fold in record.folds), *(() if record.folds else (record.selection,)))
    return all(each is not None and each.ended == "fitted" for each in chosen)


def _print_of(outcomes: Predictions | DialogueCounts | None) -> _Print:
    if isinstance(outcomes, DialogueCounts):
        predicted = outcomes.confusion.sum(axis=(0, 1))
        order = sorted(range(len(outcomes.dialogues)), key=outcomes.dialogues.__getitem__)
        there = [row for row in order if outcomes.confusion[row].any()]
        return _Print(
            probabilities=None,
            rows=None,
            labels=None,
            counts=outcomes.confusion[there].reshape(-1),
            dialogues=len(there),
            is_constant=False,
            is_lopsided=bool(predicted.max() > _LOPSIDED * predicted.sum()),
        )
    assert outcomes is not None
    # What has no label is not scored, and external predictions leave it out.
    order = sorted(np.flatnonzero(outcomes.true >= 0).tolist(), key=outcomes.ids.__getitem__)
    labels = outcomes.predicted[order]
    probabilities, rows, is_constant = None, None, False
    if outcomes.log_probabilities is not None:
        given = np.ascontiguousarray(outcomes.log_probabilities[order])
        values = np.exp(given.astype(np.float32))
        is_constant = bool(np.abs(values - values.mean(axis=0)).sum(axis=1).mean() / 2 < 2 * SAME_DISTRIBUTIONS)
        probabilities, rows = values.reshape(-1), _row_numbers(given)
    return _Print(
        probabilities=probabilities,
        rows=rows,
        labels=labels,
        counts=None,
        dialogues=0,
        is_constant=is_constant,
        is_lopsided=bool(np.bincount(labels).max() > _LOPSIDED * len(labels)),
    )


def _row_numbers(values: NDArray[np.float16]) -> NDArray[np.uint64]:
    """A number for each row: equal for equal rows, and for others but once in 2**64."""
    bits = values.view(np.uint16).astype(np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**63, bits.shape[1], dtype=np.uint64) | np.uint64(1)
    mixed = (bits + np.uint64(1)) * factors
    numbers: NDArray[np.uint64] = np.bitwise_xor.reduce(mixed ^ (mixed >> np.uint64(29)), axis=1)
    return numbers


def _alike_in_a_group(prints: Sequence[_Print]) -> Iterator[tuple[int, int, str]]:
    """Pairs of one test split that are too much alike: the earlier, the later, how."""
    from scipy.spatial.distance import cdist

    scored = [place for place, each in enumerate(prints) if each.probabilities is not None and not each.is_constant]
    told: set[tuple[int, int]] = set()
    if len(scored) > 1:
        matrix = np.stack([prints[place].probabilities for place in scored])  # type: ignore[misc]
        utterances = len(prints[scored[0]].labels)  # type: ignore[arg-type]
        far = cdist(matrix, matrix, "cityblock") / (2 * utterances)
        for one, other in np.argwhere(np.triu(far < SAME_DISTRIBUTIONS, 1)).tolist():
            pair = scored[one], scored[other]
            told.add(pair)
            how_far = float(far[one, other])
            nearly = f"their predictions are nearly the same: they differ by {how_far:.4f} in total variation"
            yield *pair, nearly if how_far else "their predictions are the same"
    for later, second in enumerate(prints):
        for earlier, first in enumerate(prints[:later]):
            said = "" if (earlier, later) in told else _same_parts(first, second)
            if said:
                yield earlier, later, said


def _same_parts(first: _Print, second: _Print) -> str:
    if (
        first.counts is not None
        and second.counts is not None
        and first.dialogues == second.dialogues
        and not (first.is_lopsided and second.is_lopsided)
    ):
        cells, others = (each.reshape(first.dialogues, -1) for each in (first.counts, second.counts))
        moved = float(np.abs(first.counts - second.counts).sum() / 2 / max(1, first.counts.sum()))
        equal = float((cells == others).all(axis=1).mean())
        if moved < SAME_COUNTS or equal > SAME_DIALOGUES:
            return f"their dialogue counts are the same in {100 * equal:.0f} % of the dialogues"
    if first.rows is not None and second.rows is not None and not (first.is_constant or second.is_constant):
        equal = float((first.rows == second.rows).mean())
        if equal > SAME_ROWS:
            return f"{100 * equal:.0f} % of their predicted distributions are the same to the last bit"
    if first.labels is not None and second.labels is not None and len(first.labels) >= _FEWEST:
        equal = float((first.labels == second.labels).mean())
        if equal >= SAME_LABELS and not (first.is_lopsided or second.is_lopsided):
            return f"{100 * equal:.1f} % of their predicted labels are the same"
    return ""
