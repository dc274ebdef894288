"""The rows of a table: each one's interval and rank, and the tests that the ranks rest on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mer_bench.errors import RecordError
from mer_bench.predictions import DialogueCounts
from mer_bench.statistics.bootstrap import (
    RESAMPLES,
    Difference,
    Draws,
    Interval,
    Sampled,
    difference_of,
    distinct,
    interval_of,
    mean_of_repeats,
    moments,
    observed_scores,
    sampled,
)
from mer_bench.statistics.contributions import Effect, Measured, effect_between
from mer_bench.statistics.correction import adjust_holm
from mer_bench.statistics.counts import FEWEST_DIALOGUES, Counted, count_runs

LEVEL = 0.05
"""Of the tests together: rows are told apart where a corrected p-value is no larger."""

_NO_WIDTH = 1e-12
_ORDER = 1e-9  # rows whose means are nearer than this are in order either way


@dataclass(frozen=True)
class ComparedPair:
    """A tested pair of rows, by their places from 0; the first stands above the second.

    Attributes:
        adjusted: The p-value with Holm's correction over the pairs of the table; of a pair with the leader no smaller
            than the chance that the best and the worst of so many equal rows lie as far apart.
    """

    first: int
    second: int
    difference: Difference
    adjusted: float

    @property
    def is_separated(self) -> bool:
        """Whether the test tells the two rows apart."""
        return self.adjusted <= LEVEL


@dataclass(frozen=True)
class RankedRow:
    """What can be said of a row.

    Attributes:
        interval, rank: None where there are too few dialogues.
        effect: Of the leader against this row; None for the leader itself and where there are too few dialogues.
    """

    interval: Interval | None = None
    rank: int | None = None
    effect: Effect | None = None


@dataclass(frozen=True)
class Ranking:
    """Of all rows, in their order.

    Attributes:
        pairs: Each row with the leader, then each with its neighbour below where that was not there already.
        resamples: 0 where there are too few dialogues and nothing was tested.
    """

    rows: tuple[RankedRow, ...]
    pairs: tuple[ComparedPair, ...]
    resamples: int


def rank_rows(
    rows: Sequence[Sequence[DialogueCounts]],
    *,
    repeats: Sequence[int] | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Ranking:
    """Intervals, tests and ranks of a table whose rows share one set of resamples.

    Each row is tested against the leader and against its neighbour, see `compare`, and the p-values are corrected for
    exactly those pairs (Holm). Who leads is found by looking at the scores, which no correction for a number of fixed
    pairs knows of: of 21 equal rows the leader would be told apart from some row in 8 to 10 % of cases instead of 5 %.
    A pair with the leader is therefore also held against the largest distance between any two rows that the same
    resamples give where no two differ, in units of each pair's interval, and the larger p-value counts.

    Walking down, a new rank begins at a row that its neighbour above is told apart from, or, while the rank is the
    leader's, that the leader is told apart from; a rank is the place of its first row: 1, 1, 3. Rows of one rank are
    thus neighbours that no test separates; the first and the last of a rank below the leader's were not compared with
    each other.

    Every number but the corrected p-values and the ranks is the same as of the rows by themselves or by two.

    Source: as `compare`; Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure"; the distribution of
    the largest statistic from the resamples themselves, Westfall & Young (1993), "Resampling-Based Multiple Testing"
    (single-step maxT), over all pairs as in Tukey (1953), "The Problem of Multiple Comparisons".

    Args:
        rows: Best mean weighted F1 first; of each row one a seed, all of one test split.
        repeats: Of each row, as for `compare`; None: 1 everywhere.
        resamples: At least so many. With more than 125 pairs there are 80 a pair, since Holm asks of the smallest
            p-value to be so much smaller than few resamples can show.

    Raises:
        RecordError: If the rows are not of one test split, or not in the order of their scores.
    """
    if not rows or not all(rows):
        raise RecordError("a table needs rows, and each of them at least one run.")
    if np.count_nonzero(rows[0][0].confusion.any(axis=(1, 2))) < FEWEST_DIALOGUES:
        return Ranking((RankedRow(),) * len(rows), (), 0)
    tested = pairs_of(len(rows))
    models = _models(rows, repeats or [1] * len(rows))
    draws = Draws(len(models[0].counted.dialogues), max(resamples, 80 * len(tested)), seed)
    for above, below in itertools.pairwise(models):
        if above.measured.mean < below.measured.mean - _ORDER:
            raise RecordError("the rows of a table should stand in the order of their scores, the best first.")
    found = _draw(models, draws)
    compared = [
        difference_of(found[first].minus(found[second]), (found[first].seeds, found[second].seeds), level)
        for first, second in tested
    ]
    adjusted = adjust_holm([each.p_value for each in compared])
    if len(rows) > 2:
        by_range = _p_of_ranges(found)
        adjusted = [
            max(each, by_range[second]) if not first else each
            for (first, second), each in zip(tested, adjusted, strict=True)
        ]
    pairs = tuple(
        ComparedPair(*places, difference, p_value)
        for places, difference, p_value in zip(tested, compared, adjusted, strict=True)
    )
    ranks = ranks_of(len(rows), {(pair.first, pair.second) for pair in pairs if pair.is_separated})
    leader = models[0].measured
    return Ranking(
        rows=tuple(
            RankedRow(interval_of(each, level), rank, effect_between(leader, model.measured) if place else None)
            for place, (each, rank, model) in enumerate(zip(found, ranks, models, strict=True))
        ),
        pairs=pairs,
        resamples=draws.resamples,
    )


def pairs_of(rows: int) -> list[tuple[int, int]]:
    """Which rows are tested: each with the leader, and each with its neighbour; every pair once."""
    with_leader = [(0, row) for row in range(1, rows)]
    return with_leader + [(row, row + 1) for row in range(1, rows - 1)]


def ranks_of(rows: int, separated: set[tuple[int, int]]) -> list[int]:
    """Rank of each row, given which of the tested pairs a test tells apart."""
    ranks = [1]
    for row in range(1, rows):
        begins = (row - 1, row) in separated or (ranks[-1] == 1 and (0, row) in separated)
        ranks.append(row + 1 if begins else ranks[-1])
    return ranks


@dataclass(frozen=True)
class _Model:
    """A row before dialogues are drawn."""

    counted: Counted
    repeats: int
    observed: NDArray[np.float64]
    measured: Measured
    digest: bytes


def _models(rows: Sequence[Sequence[DialogueCounts]], repeats: Sequence[int]) -> list[_Model]:
    together = count_runs([run for runs in rows for run in runs])
    ends = np.cumsum([len(runs) for runs in rows]).tolist()
    counted = [together.part(end - len(runs), end) for end, runs in zip(ends, rows, strict=True)]
    digests = distinct([each.digest() for each in counted])
    models = []
    for each, times, digest in zip(counted, repeats, digests, strict=True):
        if len(each) % times:
            raise RecordError(f"{len(each)} runs are not a multiple of {times} for each seed.")
        observed = mean_of_repeats(observed_scores(each), times)
        models.append(_Model(each, times, observed, Measured.of(each, times), digest))
    return models


def _draw(models: Sequence[_Model], draws: Draws) -> list[Sampled]:
    """What drawing made of each row; of the scores by seed no more is kept than mean and variance."""
    means = [np.empty(draws.resamples) for _ in models]
    variances = [np.empty(draws.resamples) for _ in models]
    for some, scores in draws.scored([model.counted for model in models]):
        for place, (model, values) in enumerate(zip(models, scores, strict=True)):
            means[place][some], variances[place][some] = moments(mean_of_repeats(values, model.repeats))
    stretches = draws.stretches()
    return [
        sampled(mean, variance, model.observed, draws, stretches, model.digest)
        for model, mean, variance in zip(models, means, variances, strict=True)
    ]


def _p_of_ranges(found: Sequence[Sampled]) -> list[float]:
    """How often any two of so many equal rows would lie as far apart as the leader and each row.

    Distances are in units of how widely each pair's own difference was drawn: the width of the middle 95 %, since the
    errors of few seeds have tails that make a standard deviation meaningless.
    """
    errors = np.stack([each.values - each.mean for each in found])
    largest = np.zeros(errors.shape[1])
    told = [0.0]
    for row in range(len(found) - 1):
        apart = errors[row] - errors[row + 1 :]
        low, high = np.quantile(apart, [0.025, 0.975], axis=1)
        units = np.where(high - low > _NO_WIDTH, high - low, np.inf)
        np.maximum(largest, np.abs(apart / units[:, None]).max(axis=0), out=largest)
        if row == 0:
            means = np.array([found[0].mean - each.mean for each in found[1:]])
            # Rows that no draw sets apart further: they differ for sure, or not at all.
            told += np.where(np.isinf(units), np.where(means > _NO_WIDTH, np.inf, 0.0), means / units).tolist()
    return [float((np.count_nonzero(largest >= distance) + 1) / (len(largest) + 1)) for distance in told]
