"""What a single dialogue does to a score, and how large a difference is by that measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mer_bench.predictions import DialogueCounts
from mer_bench.statistics.bootstrap import mean_of_repeats, moments
from mer_bench.statistics.counts import Counted, count_runs, weighted_f1

_SAME = 1e-12  # scores nearer than this differ by the order of adding alone


@dataclass(frozen=True)
class Effect:
    """How large a difference between two models is, apart from how sure it is.

    Attributes:
        size: The difference of the mean weighted F1 in standard deviations of what single dialogues contribute to it
            (Cohen's d for pairs); its root-n-fold is about the test's t. None where the dialogues do not vary.
        superiority: Probability that the first model has the higher weighted F1 on a dialogue and a seed of each
            model drawn at random; a tie counts half.
    """

    size: float | None
    superiority: float


@dataclass(frozen=True)
class Contributions:
    """What each dialogue contributes to the mean weighted F1 of a model, or to a difference of two.

    Attributes:
        values: (dialogues,); their sum is the score but for the jackknife's correction of its bias.
    """

    dialogues: tuple[str, ...]
    values: NDArray[np.float64]


def effect_of(
    first: Sequence[DialogueCounts], second: Sequence[DialogueCounts], *, repeats: int = 1, second_repeats: int = 1
) -> Effect:
    """Effect size and probability of superiority of the first model against the second.

    Source: Cohen (1988), "Statistical Power Analysis for the Behavioral Sciences", section 2.3.5 (d of paired
    values), here of the jackknife's pseudo-values, see `contributions_of`; McGraw & Wong (1992), "A Common Language
    Effect Size Statistic", with ties counted as by Vargha & Delaney (2000), "A Critique and Improvement of the CL
    Common Language Effect Size Statistics of McGraw and Wong".

    Args:
        first, second: One a seed. repeats, second_repeats: As for `compare`.

    Raises:
        RecordError: As `compare`.
    """
    counted = count_runs([*first, *second])
    ours, theirs = counted.part(0, len(first)), counted.part(len(first), len(counted))
    return effect_between(Measured.of(ours, repeats), Measured.of(theirs, second_repeats))


def contributions_of(first: Sequence[DialogueCounts], second: Sequence[DialogueCounts]) -> Contributions:
    """What each dialogue contributes to the difference of two models' mean weighted F1.

    Weighted F1 is no mean over dialogues. A dialogue's part of it is n times the score less n - 1 times the score
    without that dialogue, over n: the jackknife's pseudo-value.

    Source: Tukey (1958), "Bias and Confidence in Not-quite Large Samples"; Efron & Tibshirani (1993), "An
    Introduction to the Bootstrap", chapter 11.

    Raises:
        RecordError: As `compare`; two dialogues are enough.
    """
    counted = count_runs([*first, *second], fewest=2)
    ours, theirs = counted.part(0, len(first)), counted.part(len(first), len(counted))
    values = Measured.of(ours).contributions - Measured.of(theirs).contributions
    return Contributions(counted.dialogues, values)


@dataclass(frozen=True)
class Measured:
    """A model's mean score by dialogue.

    Attributes:
        mean: Weighted F1 over all dialogues.
        contributions: (dialogues,).
        alone: (seeds, dialogues): weighted F1 of each dialogue by itself.
    """

    mean: float
    contributions: NDArray[np.float64]
    alone: NDArray[np.float64]

    @classmethod
    def of(cls, counted: Counted, repeats: int = 1) -> Measured:
        """Measure how much each dialogue adds to a row's score, by leaving it out.

        Args:
            repeats: Predictions of one seed that follow each other, as in `compare`.
        """
        right, predicted = (np.moveaxis(each, 2, 0) for each in (counted.right, counted.predicted))
        labelled = counted.labelled.T[:, None, :]  # (classes, 1, dialogues)
        sums = [each.sum(axis=2, keepdims=True) for each in (right, predicted, labelled)]
        whole = mean_of_repeats(weighted_f1(*sums), repeats)  # (seeds, 1)
        without = weighted_f1(sums[0] - right, sums[1] - predicted, sums[2] - labelled)  # (runs, dialogues)
        dialogues = len(counted.dialogues)
        pseudo = dialogues * whole - (dialogues - 1) * mean_of_repeats(without, repeats)
        return cls(
            mean=math.fsum(whole[:, 0]) / len(whole),
            contributions=moments(pseudo)[0] / dialogues,
            alone=mean_of_repeats(weighted_f1(right, predicted, labelled), repeats),
        )


def effect_between(first: Measured, second: Measured) -> Effect:
    """The effect of two models whose dialogues stand in the same order."""
    values = (first.contributions - second.contributions) * len(first.contributions)
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((values - mean) ** 2) / (len(values) - 1))
    apart = first.alone[:, None] - second.alone[None]
    won = int(np.count_nonzero(apart > _SAME)) + 0.5 * int(np.count_nonzero(np.abs(apart) <= _SAME))
    difference = first.mean - second.mean
    size = 0.0 if abs(difference) <= _SAME else None if deviation <= _SAME else difference / deviation
    return Effect(size, won / apart.size)
