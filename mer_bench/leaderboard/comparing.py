"""Two rows of one leaderboard: who leads and how sure that is, and the classes and dialogues where they differ most."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mer_bench.errors import RecordError, RequestError, UnknownNameError
from mer_bench.leaderboard.building import Experiment, Outline
from mer_bench.leaderboard.table import Key
from mer_bench.predictions import DialogueCounts
from mer_bench.records import Scores
from mer_bench.statistics import FEWEST_DIALOGUES, LEVEL, Difference, Effect, compare, contributions_of, effect_of


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        score: Mean weighted F1 over the seeds. spread: Standard deviation; None with one seed.
    """

    label: str
    score: float
    spread: float | None
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class ClassDifference:
    """Mean F1 of a class, over the seeds."""

    name: str
    support: int
    first: float
    second: float

    @property
    def difference(self) -> float:
        """The first row's score minus the second's."""
        return self.first - self.second


@dataclass(frozen=True)
class DialogueDifference:
    """What a dialogue contributes to the difference of the scores.

    Attributes:
        utterances: Labelled ones. first, second: How many were predicted right, means over the seeds.
        contribution: Its part of the difference in weighted F1; see `statistics.contributions_of`.
    """

    dialogue: str
    utterances: int
    first: float
    second: float
    contribution: float


@dataclass(frozen=True)
class Comparison:
    """Two rows of one table; `first` has the higher score.

    Attributes:
        difference, effect: Of the first to the second; None with fewer than ten dialogues.
        classes: The largest difference first. dialogues: All; those that speak most for the first row first.
    """

    key: Key
    first: Side
    second: Side
    test_dialogues: int
    difference: Difference | None
    effect: Effect | None
    classes: tuple[ClassDifference, ...]
    dialogues: tuple[DialogueDifference, ...]

    @property
    def is_separated(self) -> bool:
        """Whether chance alone would seldom give this difference."""
        return self.difference is not None and self.difference.p_value <= LEVEL


def compare_experiments(key: Key, one: Experiment, other: Experiment) -> Comparison:
    """Compare two experiments of one table that are done.

    Raises:
        RecordError: If they were not scored on the same utterances.
    """
    first, second = sorted((one, other), key=lambda each: -each.weighted_f1)
    ours, theirs = _counts(first), _counts(second)
    repeats, their_repeats = len(ours) // len(first.by_seed), len(theirs) // len(second.by_seed)
    contributions = contributions_of(ours, theirs)
    there = len(contributions.dialogues)
    difference = effect = None
    if there >= FEWEST_DIALOGUES:
        difference = compare(ours, theirs, repeats=repeats, second_repeats=their_repeats)
        effect = effect_of(ours, theirs, repeats=repeats, second_repeats=their_repeats)
    return Comparison(
        key=key,
        first=_side(first),
        second=_side(second),
        test_dialogues=there,
        difference=difference,
        effect=effect,
        classes=_classes(first, second),
        dialogues=_dialogues(ours, theirs, dict(zip(contributions.dialogues, contributions.values, strict=True))),
    )


def rows_called(outlines: Sequence[Outline], name: str) -> list[tuple[Outline, Experiment]]:
    """The rows of that label in each table, or else the one row of that model.

    Raises:
        UnknownNameError: If no table has one; suggests the nearest.
        RequestError: If a model has several rows in one table and none is called by its plain name.
    """
    found = []
    for outline in outlines:
        exact = [each for each in outline.experiments if each.label == name]
        of_model = exact or [each for each in outline.experiments if each.first.model == name]
        if len(of_model) > 1:
            labels = ", ".join(f"'{each.label}'" for each in of_model)
            raise RequestError(f"{outline.name} has {len(of_model)} rows of {name}: {labels}. Name one of them.")
        found += [(outline, each) for each in of_model]
    if not found:
        _check_failed(outlines, name)
        known = {each.label for outline in outlines for each in outline.experiments}
        raise UnknownNameError("row or model", name, known, "mer-bench leaderboard show")
    return found


def chosen_pair(
    first: Sequence[tuple[Outline, Experiment]], second: Sequence[tuple[Outline, Experiment]], names: tuple[str, str]
) -> tuple[Key, Experiment, Experiment]:
    """The one table in which both are.

    Raises:
        RequestError: If there is none, or several, or both names are of one row.
    """
    both = [(ours.key, mine, yours) for ours, mine in first for theirs, yours in second if ours.key == theirs.key]
    if not both:
        (ours, _), (theirs, _) = first[0], second[0]
        raise RequestError(
            f"{names[0]} and {names[1]} have no leaderboard in common and cannot be compared: {names[0]} is in "
            f"{_named(first)} and {names[1]} in {_named(second)}, which differ in {_differing(ours.key, theirs.key)}."
        )
    if len(both) > 1:
        tables = ", ".join(outline.name for outline, _ in first if any(outline.key == key for key, _, _ in both))
        raise RequestError(
            f"{names[0]} and {names[1]} are together in {len(both)} leaderboards: {tables}. Choose one with --dataset, "
            "--labels, --features, --protocol, --modalities or --condition."
        )
    key, mine, yours = both[0]
    if {entry.identity for entry in mine.done} & {entry.identity for entry in yours.done}:
        raise RequestError(f"{names[0]} and {names[1]} are the same row, '{mine.label}': there is nothing to compare.")
    return key, mine, yours


def _check_failed(outlines: Sequence[Outline], name: str) -> None:
    for outline in outlines:
        for each in outline.failed:
            if name in (each.label, each.first.model):
                reason = next(iter(each.reasons.values()))
                raise RequestError(f"every run of {name} in {outline.name} failed: {reason}")


def _named(rows: Sequence[tuple[Outline, Experiment]]) -> str:
    names = [outline.name for outline, _ in rows]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _differing(first: Key, second: Key) -> str:
    parts = [name for name in Key.model_fields if getattr(first, name) != getattr(second, name)]
    told = {"protocol_version": "the version of the protocol", "sources": "the files that the features were made from"}
    return ", ".join(told.get(name, name) for name in parts)


def _counts(experiment: Experiment) -> list[DialogueCounts]:
    return [entry.counts() for group in experiment.by_seed.values() for entry in group]


def _side(experiment: Experiment) -> Side:
    seeds = [
        statistics.fmean(_test(entry.test).weighted_f1 for entry in group) for group in experiment.by_seed.values()
    ]
    return Side(
        label=experiment.label,
        score=experiment.weighted_f1,
        spread=statistics.stdev(seeds) if len(seeds) > 1 else None,
        seeds=tuple(experiment.by_seed),
    )


def _classes(first: Experiment, second: Experiment) -> tuple[ClassDifference, ...]:
    means = [
        {
            name: statistics.fmean(_test(entry.test).classes[name].f1 for entry in each.done)
            for name in _test(each.first.test).classes
        }
        for each in (first, second)
    ]
    if list(means[0]) != list(means[1]):
        raise RecordError("the two have other classes: they are not of the same test split.")
    support = {name: scores.support for name, scores in _test(first.first.test).classes.items()}
    found = [ClassDifference(name, support[name], means[0][name], means[1][name]) for name in means[0]]
    return tuple(sorted(found, key=lambda each: (-abs(each.difference), each.name)))


def _dialogues(
    ours: Sequence[DialogueCounts], theirs: Sequence[DialogueCounts], contributions: dict[str, float]
) -> tuple[DialogueDifference, ...]:
    right = [_right(runs) for runs in (ours, theirs)]
    lengths = dict(zip(ours[0].dialogues, ours[0].confusion.sum(axis=(1, 2)).tolist(), strict=True))
    found = [
        DialogueDifference(name, lengths[name], right[0][name], right[1][name], float(value))
        for name, value in contributions.items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.contribution, each.dialogue)))


def _right(runs: Sequence[DialogueCounts]) -> dict[str, float]:
    """Utterances of each dialogue that were predicted right, the mean over the runs."""
    total: dict[str, int] = dict.fromkeys(runs[0].dialogues, 0)
    for run in runs:
        hits = np.diagonal(run.confusion, axis1=1, axis2=2).sum(axis=1).tolist()
        for name, count in zip(run.dialogues, hits, strict=True):
            total[name] += count
    return {name: count / len(runs) for name, count in total.items()}


def _test(scores: Scores | None) -> Scores:
    assert scores is not None  # of a run that is done
    return scores
