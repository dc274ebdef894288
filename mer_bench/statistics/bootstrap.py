"""Dialogues drawn with replacement: the interval of a mean score, and the test of a difference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.errors import RecordError
from mer_bench.predictions import DialogueCounts
from mer_bench.statistics.counts import FEWEST_DIALOGUES, Counted, count_runs, weighted_f1

__all__ = ["FEWEST_DIALOGUES", "RESAMPLES", "Difference", "Interval", "compare", "mean_interval"]

RESAMPLES = 10_000

_CHUNK = 2_000  # resamples at a time: bounds the memory, changes no number
_SAME = 1e-12  # scores nearer than this differ by the order of adding alone


@dataclass(frozen=True)
class Interval:
    """A mean weighted F1 over seeds and where it lies with the probability `level`."""

    mean: float
    low: float
    high: float
    level: float
    seeds: int
    dialogues: int


@dataclass(frozen=True)
class Difference:
    """The mean weighted F1 of a first model minus that of a second one on the same dialogues.

    Attributes:
        low, high: Interval of the difference with the probability `level`.
        p_value: Two-sided: how often chance alone would give a difference this far from 0.
        seeds: Runs of the first and of the second model. With one run of a model, what is said
            holds for that trained model, since nothing shows how another seed would do.
    """

    difference: float
    low: float
    high: float
    level: float
    p_value: float
    seeds: tuple[int, int]
    dialogues: int


def mean_interval(
    runs: Sequence[DialogueCounts],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    subset: str | None = None,
) -> Interval:
    """Confidence interval of a model's mean weighted F1: percentiles of the draws of `compare`.

    Args:
        subset: Only the dialogues of that named part of the corpus.

    Source: Efron & Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13.

    Raises:
        RecordError: As `compare`.
    """
    counted = count_runs(runs, subset)
    draws = Draws(len(counted.dialogues), resamples, seed)
    scores = draws.scores([counted])[0]
    return interval_of(Sampled.of(scores, observed_scores(counted), draws, counted.digest()), level)


def compare(
    first: Sequence[DialogueCounts],
    second: Sequence[DialogueCounts],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    subset: str | None = None,
    repeats: int = 1,
    second_repeats: int = 1,
    same_models: bool = False,
) -> Difference:
    """Paired bootstrap over dialogues, with the chance of the seeds within.

    Each resample draws as many dialogues as there are, with replacement, the same for both models and all seeds, and
    takes the difference of the mean weighted F1 (one matrix product with the counts by dialogue). Two things are
    added to that:

    - The drawn spread is itself an estimate, from as many dialogues as there are. How far a resample lies from the
      observed difference is therefore stretched by the root of n over a draw from chi-squared with n - 1 degrees of
      freedom, which makes of a normal error a Student's t error. Without it 31 dialogues give too many false alarms,
      the more the smaller the p-value that a correction for many tests asks for.
    - An error of either model's mean over seeds, drawn from Student's t with seeds - 1 degrees of freedom; its scale is
      the variance between seeds less the part of it that drawing dialogues already brings in. Drawing seeds with
      replacement instead, as Owen (2007) draws rows and columns, finds differences that are not there where seeds
      decide (9 % at a nominal 5 % with five seeds), since five draws of five are too alike, and misses real ones where
      they matter little, since it counts the chance of a single utterance thrice.

    Source: the paired bootstrap of Koehn (2004), "Statistical Significance Tests for Machine Translation Evaluation",
    over dialogues; percentile interval and p-value (twice the smaller tail, the observed difference counted among the
    draws) of Efron & Tibshirani (1993), "An Introduction to the Bootstrap", chapters 13 and 16; that percentiles are
    too narrow by the normal against Student's t, Hesterberg (2015), "What Teachers Should Know About the Bootstrap";
    "The Pigeonhole Bootstrap" of Owen (2007) for the parts of the variance.

    Args:
        first, second: One a seed. Runs of the two models need not have the same seeds.
        seed: Of the resampling.
        subset: Only the dialogues of that named part of the corpus.
        repeats: Predictions of one seed that follow each other in `first`, such as those under several random
            masks; their mean is what the seed reached. second_repeats: The same in `second`.
        same_models: The seeds of `first` and `second` are the same trained models in the same order, scored
            twice: what a seed does to both alike is no chance of their difference.

    Raises:
        RecordError: If there is no run, the runs are not of the same test split and label set, they do not
            have the subset, there are fewer than ten dialogues, or the numbers of runs do not fit together.
    """
    counted = count_runs([*first, *second], subset)
    if not first or not second:
        raise RecordError("a comparison needs at least one run of each model.")
    seeds = (len(first) / repeats, len(second) / second_repeats)
    if not all(map(float.is_integer, seeds)) or (same_models and seeds[0] != seeds[1]):
        raise RecordError(
            f"{len(first)} and {len(second)} runs with {repeats} and {second_repeats} for each seed do not fit "
            "together."
        )
    ours, theirs = counted.part(0, len(first)), counted.part(len(first), len(counted))
    draws = Draws(len(counted.dialogues), resamples, seed)
    our_draws, their_draws = draws.scores([ours, theirs])
    our_draws, their_draws = mean_of_repeats(our_draws, repeats), mean_of_repeats(their_draws, second_repeats)
    our_f1 = mean_of_repeats(observed_scores(ours), repeats)
    their_f1 = mean_of_repeats(observed_scores(theirs), second_repeats)
    digests = distinct([ours.digest(), theirs.digest()])
    if same_models:
        difference = Sampled.of(our_draws - their_draws, our_f1 - their_f1, draws, digests[0])
    else:
        difference = Sampled.of(our_draws, our_f1, draws, digests[0]).minus(
            Sampled.of(their_draws, their_f1, draws, digests[1])
        )
    return difference_of(difference, (len(our_f1), len(their_f1)), level)


class Draws:
    """Resamples of the dialogues: the same ones for all that are compared with each other.

    Which dialogues are drawn follows from the raw numbers of PCG64, whose stream NumPy guarantees; its samplers may
    change with a version.

    Args:
        dialogues: How many there are, and how many each resample draws.
    """

    def __init__(self, dialogues: int, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self.dialogues = dialogues
        self.resamples = resamples
        self.seed = seed

    def weights(self) -> Iterator[tuple[slice, NDArray[np.int64]]]:
        """How often each dialogue is drawn, some resamples at a time: (dialogues, some resamples)."""
        stream = np.random.PCG64(np.random.SeedSequence([self.seed, 0]))
        for start in range(0, self.resamples, _CHUNK):
            count = min(_CHUNK, self.resamples - start)
            raw = stream.random_raw(count * self.dialogues).reshape(count, self.dialogues)
            # The upper half of each number, scaled: further from uniform by no more than dialogues / 2**32.
            picks = ((raw >> np.uint64(32)) * np.uint64(self.dialogues) >> np.uint64(32)).astype(np.int64)
            cells = picks + np.arange(count)[:, None] * self.dialogues
            drawn = np.bincount(cells.ravel(), minlength=count * self.dialogues)
            yield slice(start, start + count), np.ascontiguousarray(drawn.reshape(count, self.dialogues).T)

    def scores(self, models: Sequence[Counted]) -> list[NDArray[np.float64]]:
        """Weighted F1 of each model's runs on the same drawn dialogues: (runs, resamples) a model."""
        found = [np.empty((len(model), self.resamples)) for model in models]
        for some, scores in self.scored(models):
            for model, values in zip(found, scores, strict=True):
                model[:, some] = values
        return found

    def scored(self, models: Sequence[Counted]) -> Iterator[tuple[slice, Iterator[NDArray[np.float64]]]]:
        """The same some resamples at a time, a model at a time: one matrix product each.

        Whole numbers are multiplied that are exact in their type, and so are all sums of them: neither the library
        nor the number of its threads changes a bit.
        """
        exact = models[0].exact
        flat = [model.flat() for model in models]
        labelled = np.ascontiguousarray(models[0].labelled.T, exact)
        for some, whole in self.weights():
            weights = whole.astype(exact)
            truths = (labelled @ weights)[:, None]  # (classes, 1, resamples)

            def each(weights: NDArray[Any] = weights, truths: NDArray[Any] = truths) -> Iterator[NDArray[np.float64]]:
                for model, counts in zip(models, flat, strict=True):
                    shape = (2, truths.shape[0], len(model), weights.shape[1])
                    right, predicted = (counts @ weights).reshape(shape)
                    yield weighted_f1(right, predicted, truths)

            yield some, each()

    def stretches(self) -> NDArray[np.float64]:
        """How much further from what was observed each resample may lie: (resamples,); see `compare`."""
        from scipy.special import chdtri

        chance = _uniforms(np.random.SeedSequence([self.seed, 1]), self.resamples)
        stretches: NDArray[np.float64] = np.sqrt(self.dialogues / chdtri(self.dialogues - 1, chance))
        return stretches

    def student(self, freedom: int, digest: bytes) -> NDArray[np.float64]:
        """Errors of Student's t that are a model's own, whatever it is compared with: (resamples,)."""
        from scipy.special import stdtrit

        source = np.random.SeedSequence([self.seed, 2, *np.frombuffer(digest, "<u4").tolist()])
        errors: NDArray[np.float64] = stdtrit(freedom, _uniforms(source, self.resamples))
        return errors


@dataclass(frozen=True)
class Sampled:
    """A mean over seeds, and what drawing dialogues and seeds made of it.

    Attributes:
        values: (resamples,).
    """

    mean: float
    values: NDArray[np.float64]
    seeds: int
    dialogues: int

    @classmethod
    def of(cls, scores: NDArray[np.float64], observed: NDArray[np.float64], draws: Draws, digest: bytes) -> Sampled:
        """Of scores by seed and resample: (seeds, resamples), and those observed: (seeds,)."""
        means, variances = moments(scores)
        return sampled(means, variances, observed, draws, draws.stretches(), digest)

    def minus(self, other: Sampled) -> Sampled:
        """The difference of two means, resample by resample."""
        return Sampled(self.mean - other.mean, self.values - other.values, self.seeds, self.dialogues)


def sampled(
    means: NDArray[np.float64],
    variances: NDArray[np.float64],
    observed: NDArray[np.float64],
    draws: Draws,
    stretches: NDArray[np.float64],
    digest: bytes,
) -> Sampled:
    """Put the chance of dialogues and of seeds together.

    Seeds of a resample vary by what seeds do and, beyond that, by what its dialogues do to each seed differently. The
    latter is their variance less the observed one; it is in the observed one too, and the bootstrap has it already,
    so it is taken off.

    Args:
        means, variances: Over the seeds, of each resample. observed: Score of each seed.
    """
    mean = math.fsum(observed) / len(observed)
    values = mean + (means - mean) * stretches
    if len(observed) > 1:
        variance = math.fsum((observed - mean) ** 2) / (len(observed) - 1)
        by_dialogues = math.fsum(variances) / len(variances) - variance
        left = max(0.0, variance - by_dialogues)
        if left > _SAME**2:
            values = values + draws.student(len(observed) - 1, digest) * math.sqrt(left / len(observed))
    return Sampled(mean, values, len(observed), draws.dialogues)


def moments(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance over the first axis, added in its order on every machine; variance 0 of one seed."""
    mean = np.zeros(scores.shape[1:])
    for values in scores:
        mean += values
    mean /= len(scores)
    variance = np.zeros(scores.shape[1:])
    if len(scores) > 1:
        for values in scores:
            variance += (values - mean) ** 2
        variance /= len(scores) - 1
    return mean, variance


def observed_scores(counted: Counted) -> NDArray[np.float64]:
    """Weighted F1 of each run on all dialogues: (runs,)."""
    right, predicted = (each.sum(axis=1).T for each in (counted.right, counted.predicted))
    return weighted_f1(right, predicted, counted.labelled.sum(axis=0)[:, None])


def mean_of_repeats(scores: NDArray[np.float64], repeats: int) -> NDArray[np.float64]:
    """The mean of each `repeats` runs that follow each other: (runs, ...) → (seeds, ...)."""
    if repeats == 1:
        return scores
    return moments(np.swapaxes(scores.reshape(-1, repeats, *scores.shape[1:]), 0, 1))[0]


def distinct(digests: Sequence[bytes]) -> list[bytes]:
    """The same digests where each is there once; a model that is there twice gets a chance of its own each time."""
    seen: dict[bytes, int] = {}
    found = []
    for digest in digests:
        times = seen.get(digest, 0)
        seen[digest] = times + 1
        found.append(digest + times.to_bytes(4, "little") if times else digest)
    return found


def interval_of(found: Sampled, level: float) -> Interval:
    """The interval of a mean score."""
    low, high = _percentiles(found.values, level)
    # Neither the stretched draws nor the t distribution know the limits of a share.
    return Interval(found.mean, max(low, 0.0), min(high, 1.0), level, found.seeds, found.dialogues)


def difference_of(found: Sampled, seeds: tuple[int, int], level: float) -> Difference:
    """The interval and the two-sided p-value of a difference of two models."""
    low, high = _percentiles(found.values, level)
    tails = [
        (np.count_nonzero(found.values <= _SAME) + 1) / (len(found.values) + 1),
        (np.count_nonzero(found.values >= -_SAME) + 1) / (len(found.values) + 1),
    ]
    return Difference(
        difference=found.mean,
        low=max(low, -1.0),
        high=min(high, 1.0),
        level=level,
        p_value=float(min(1.0, 2 * min(tails))),
        seeds=seeds,
        dialogues=found.dialogues,
    )


def _uniforms(source: np.random.SeedSequence, count: int) -> NDArray[np.float64]:
    """Numbers inside (0, 1), neither end included: (count,)."""
    raw = np.random.PCG64(source).random_raw(count)
    return ((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _percentiles(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
