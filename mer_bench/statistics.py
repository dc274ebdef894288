"""How sure a mean or a difference is: intervals and tests from dialogue counts, with NumPy alone.

Utterances of one dialogue are not independent, so whole dialogues are drawn; seeds of one model are
a second source of chance. Every function takes one `DialogueCounts` a seed, all of one test split
(`metrics.count_dialogues` makes them from predictions), and gives the same numbers for the same input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mer_bench.errors import RecordError
from mer_bench.predictions import DialogueCounts

RESAMPLES = 10_000
FEWEST_DIALOGUES = 10
"""With fewer, drawn dialogues say nothing reliable about others."""

_CHUNK = 2_000  # resamples at a time: bounds the memory, changes no number


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
    tables = _tables(_of_subset(runs, subset))
    generator = np.random.default_rng(seed)
    drawn = _resampled([tables], resamples, generator)[0]
    observed = _weighted_f1(tables.sum(axis=1))
    values = drawn.mean(axis=1) + _seed_errors(observed, drawn, generator)
    low, high = _percentiles(values, level)
    # The t distribution knows nothing of the limits of a share.
    return Interval(float(observed.mean()), max(low, 0.0), min(high, 1.0), level, len(runs), tables.shape[1])


def compare(
    first: Sequence[DialogueCounts],
    second: Sequence[DialogueCounts],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    subset: str | None = None,
    repeats: int = 1,
    same_models: bool = False,
) -> Difference:
    """Paired bootstrap over dialogues, with the chance of the seeds within.

    Each resample draws as many dialogues as there are, with replacement, the same for both models
    and all seeds, and takes the difference of the mean weighted F1 (one matrix product with the
    counts by dialogue). To each is added an error of either model's mean over seeds, drawn from
    Student's t with seeds - 1 degrees of freedom; its scale is the variance between seeds less the
    part of it that drawing dialogues already brings in. Drawing seeds with replacement instead, as
    Owen (2007) draws rows and columns, finds differences that are not there where seeds decide (9 %
    at a nominal 5 % with five seeds), since five draws of five are too alike, and misses real ones
    where they matter little, since it counts the chance of a single utterance thrice.

    Source: the paired bootstrap of Koehn (2004), "Statistical Significance Tests for Machine
    Translation Evaluation", over dialogues; percentile interval and p-value (twice the smaller tail,
    the observed difference counted among the draws) of Efron & Tibshirani (1993), "An Introduction
    to the Bootstrap", chapters 13 and 16; "The Pigeonhole Bootstrap" of Owen (2007) for the parts of
    the variance.

    Args:
        first, second: One a seed. Runs of the two models need not have the same seeds.
        seed: Of the resampling.
        subset: Only the dialogues of that named part of the corpus.
        repeats: Predictions of one seed that follow each other in `first`, such as those under several random
            masks; their mean is what the seed reached.
        same_models: The seeds of `first` and `second` are the same trained models in the same order, scored
            twice: what a seed does to both alike is no chance of their difference.

    Raises:
        RecordError: If there is no run, the runs are not of the same test split and label set, they do not
            have the subset, there are fewer than ten dialogues, or the numbers of runs do not fit together.
    """
    tables = _tables(_of_subset([*first, *second], subset))
    if not first or not second:
        raise RecordError("a comparison needs at least one run of each model.")
    if len(first) % repeats or (same_models and len(first) != repeats * len(second)):
        raise RecordError(
            f"{len(first)} runs with {repeats} for each seed do not fit {len(second)} runs of the second model."
        )
    ours, theirs = tables[: len(first)], tables[len(first) :]
    generator = np.random.default_rng(seed)
    our_draws, their_draws = _resampled([ours, theirs], resamples, generator)
    our_f1, their_f1 = _weighted_f1(ours.sum(axis=1)), _weighted_f1(theirs.sum(axis=1))
    our_f1, our_draws = (each.reshape(*each.shape[:-1], -1, repeats).mean(axis=-1) for each in (our_f1, our_draws))
    values = our_draws.mean(axis=1) - their_draws.mean(axis=1)
    if same_models:
        values += _seed_errors(our_f1 - their_f1, our_draws - their_draws, generator)
    else:
        values += _seed_errors(our_f1, our_draws, generator) - _seed_errors(their_f1, their_draws, generator)
    low, high = _percentiles(values, level)
    tails = [
        (np.count_nonzero(values <= 0) + 1) / (resamples + 1),
        (np.count_nonzero(values >= 0) + 1) / (resamples + 1),
    ]
    return Difference(
        difference=float(our_f1.mean() - their_f1.mean()),
        low=low,
        high=high,
        level=level,
        p_value=min(1.0, 2 * min(tails)),
        seeds=(len(first) // repeats, len(second)),
        dialogues=tables.shape[1],
    )


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for how many there are, in the order given.

    Those below 0.05 afterwards are together wrong in at most 5 % of cases, however they depend on
    each other.

    Source: Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    given = np.asarray(p_values, np.float64)
    if given.size and not bool(((given >= 0) & (given <= 1)).all()):
        raise RecordError(f"p-values should lie in [0, 1], but are {list(p_values)}.")
    order = np.argsort(given, kind="stable")
    steps = given[order] * np.arange(len(given), 0, -1)
    adjusted = np.empty(len(given))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(value) for value in adjusted]


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


def _tables(runs: Sequence[DialogueCounts]) -> NDArray[np.float32]:
    """Right, predicted and labelled utterances by seed, dialogue and class: (seeds, dialogues, classes, 3).

    Whole numbers below 2**24 are exact in float32, and so are their sums.
    """
    if not runs:
        raise RecordError("there is no run to speak of.")
    labelled = runs[0].confusion.sum(axis=2)
    there = np.flatnonzero(labelled.sum(axis=1))
    if len(there) < FEWEST_DIALOGUES:
        raise RecordError(
            f"an interval needs at least {FEWEST_DIALOGUES} dialogues with labels, but there are {len(there)}."
        )
    tables = []
    for run in runs:
        if run.classes != runs[0].classes:
            raise RecordError(
                f"runs of different label sets cannot be compared: {', '.join(runs[0].classes)} "
                f"and {', '.join(run.classes)}."
            )
        row = {name: number for number, name in enumerate(run.dialogues)}
        unshared = set(row) ^ set(runs[0].dialogues)
        if unshared:
            raise RecordError(f"dialogue '{min(unshared)}' is not in every run: they are not of the same test split.")
        confusion = run.confusion[[row[name] for name in runs[0].dialogues]]
        if not np.array_equal(confusion.sum(axis=2), labelled):
            raise RecordError("the runs do not have the same labels: they are not of the same test split.")
        right = np.diagonal(confusion, axis1=1, axis2=2)
        tables.append(np.stack([right, confusion.sum(axis=1), labelled], axis=2)[there])
    return np.stack(tables).astype(np.float32)


def _resampled(
    models: Sequence[NDArray[np.float32]], resamples: int, generator: np.random.Generator
) -> list[NDArray[np.float64]]:
    """Weighted F1 of each model on the same drawn dialogues: (resamples, seeds) a model."""
    dialogues = models[0].shape[1]
    flat = [np.moveaxis(tables, 1, 0).reshape(dialogues, -1) for tables in models]
    drawn: list[list[NDArray[np.float64]]] = [[] for _ in models]
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        picks = generator.integers(0, dialogues, (count, dialogues))
        cells = picks + np.arange(count)[:, None] * dialogues
        weights = np.bincount(cells.ravel(), minlength=count * dialogues).reshape(count, dialogues).astype(np.float32)
        for model, tables, counts in zip(drawn, models, flat, strict=True):
            model.append(_weighted_f1((weights @ counts).reshape(count, tables.shape[0], *tables.shape[2:])))
    return [np.concatenate(model) for model in drawn]


def _weighted_f1(counts: NDArray[np.float32]) -> NDArray[np.float64]:
    """Weighted F1 of counts (..., classes, 3): (...)."""
    right, predicted, labelled = np.moveaxis(counts.astype(np.float64), -1, 0)
    f1 = np.divide(2 * right, predicted + labelled, out=np.zeros_like(right), where=predicted + labelled > 0)
    values: NDArray[np.float64] = (f1 * labelled).sum(axis=-1) / labelled.sum(axis=-1)
    return values


def _seed_errors(
    observed: NDArray[np.float64], drawn: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Errors of a mean over seeds that drawing dialogues does not show: (resamples,).

    Seeds of a resample vary by what seeds do and, beyond that, by what its dialogues do to each seed
    differently. The latter is their variance less the observed one; it is in the observed one too,
    and the bootstrap has it already, so it is taken off.
    """
    seeds = len(observed)
    if seeds == 1:
        return np.zeros(len(drawn))
    variance = observed.var(ddof=1)
    by_dialogues = drawn.var(axis=1, ddof=1).mean() - variance
    left = max(0.0, float(variance - by_dialogues))
    return generator.standard_t(seeds - 1, len(drawn)) * math.sqrt(left / seeds)


def _percentiles(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
