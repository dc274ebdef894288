"""Models on several datasets: mean ranks, and what separates them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mer_bench.errors import RecordError
from mer_bench.statistics.correction import adjust_holm

LEVEL = 0.05
FEWEST_FOR_F = 6
"""Datasets; with fewer, Iman and Davenport's F finds differences that are not there: in 20 % for 3 models on 3."""

_PERMUTATIONS = 20_000
_DECIMALS = 9  # scores nearer than this share a rank


@dataclass(frozen=True)
class Signed:
    """Wilcoxon's signed-rank test of two models over the datasets.

    Attributes:
        adjusted: With Holm's correction over all pairs.
    """

    first: str
    second: str
    p_value: float
    adjusted: float


@dataclass(frozen=True)
class Across:
    """What several datasets say of several models, the best mean rank first.

    Attributes:
        ranks: (models, datasets), 1 is best; ties share the mean of their places.
        friedman_p: None where there are too few datasets for the test ever to tell.
        critical_difference: Of Nemenyi's test at 5 %: models that far apart in mean rank differ. None as above.
        cliques: Models that it does not separate, as ranges of places (first, last); those that no other holds.
        signed: Every pair; empty where there are too few datasets for any pair ever to be separated.
        friedman_needs, nemenyi_needs, wilcoxon_needs: The fewest datasets with which so many models could be told
            apart at all, if every dataset agreed.
    """

    datasets: tuple[str, ...]
    models: tuple[str, ...]
    ranks: tuple[tuple[float, ...], ...]
    mean_ranks: tuple[float, ...]
    friedman_p: float | None
    critical_difference: float | None
    cliques: tuple[tuple[int, int], ...]
    signed: tuple[Signed, ...]
    friedman_needs: int
    nemenyi_needs: int
    wilcoxon_needs: int

    @property
    def verdict(self) -> str:
        """In words: what the tests say, and of those that cannot say anything how many datasets they need."""
        have = f"{len(self.datasets)} dataset{'s' * (len(self.datasets) != 1)}"
        told = []
        if self.friedman_p is not None:
            found = "the models differ" if self.friedman_p <= LEVEL else "no difference between the models is shown"
            told.append(f"Over {have}, {found} (Friedman, p = {self.friedman_p:.3f}).")
        needs = {
            "the Friedman test": self.friedman_needs,
            "Nemenyi's test": self.nemenyi_needs,
            "Wilcoxon's test with Holm's correction": self.wilcoxon_needs,
        }
        silent = [f"{name} at least {fewest}" for name, fewest in needs.items() if len(self.datasets) < fewest]
        if silent:
            silent[0] = silent[0].replace(" at least ", " needs at least ")
            told.append(
                f"To tell {len(self.models)} models apart, {_listed(silent)} datasets, even if all of them agreed; "
                f"there {'is' if len(self.datasets) == 1 else 'are'} {len(self.datasets)}."
            )
        return " ".join(told)


def compare_across(scores: Mapping[str, Mapping[str, float]], *, level: float = LEVEL) -> Across:
    """Compare models over datasets, each of which counts once, however large it is.

    The Friedman test asks whether the mean ranks differ at all; its p-value is that of Iman and Davenport's F from six
    datasets on, and with fewer, where that is too small, the share of permutations of the ranks within the datasets
    that speak for a difference as much. Nemenyi's test tells which models do: those whose mean
    ranks lie a critical difference apart. Wilcoxon's signed-rank test takes two models at a time, whatever the others
    are, and looks at how large the differences are too; its p-values are exact and corrected by Holm.

    Source: Friedman (1937), "The Use of Ranks to Avoid the Assumption of Normality Implicit in the Analysis of
    Variance"; Iman & Davenport (1980), "Approximations of the Critical Region of the Friedman Statistic"; Nemenyi
    (1963), "Distribution-free Multiple Comparisons"; Wilcoxon (1945), "Individual Comparisons by Ranking Methods";
    all of them for this use by Demsar (2006), "Statistical Comparisons of Classifiers over Multiple Data Sets".

    Args:
        scores: By dataset the score of each model, higher is better; the models are the same in each.

    Raises:
        RecordError: If there is no dataset, there are fewer than two models, or they differ between datasets.
    """
    datasets = tuple(scores)
    if not datasets:
        raise RecordError("there is no dataset to compare models on.")
    names = sorted(scores[datasets[0]])
    if len(names) < 2:
        raise RecordError(f"a comparison over datasets needs at least two models, but there is {len(names)}.")
    for dataset in datasets:
        unshared = set(scores[dataset]) ^ set(names)
        if unshared:
            raise RecordError(f"'{min(unshared)}' is not on every dataset: each model needs a score on each of them.")
    table = np.array([[scores[dataset][name] for dataset in datasets] for name in names], np.float64).round(_DECIMALS)
    if not np.isfinite(table).all():
        raise RecordError("a score is not a finite number.")
    ranks = _ranks(table)
    means = [math.fsum(row) / len(datasets) for row in ranks.tolist()]
    order = sorted(range(len(names)), key=lambda row: (round(means[row], _DECIMALS), names[row]))
    models = tuple(names[row] for row in order)
    mean_ranks = tuple(means[row] for row in order)
    needs = datasets_needed(len(names), level)
    difference = critical_difference(len(names), len(datasets), level) if len(datasets) >= needs["nemenyi"] else None
    return Across(
        datasets=datasets,
        models=models,
        ranks=tuple(tuple(ranks[row].tolist()) for row in order),
        mean_ranks=mean_ranks,
        friedman_p=friedman(ranks) if len(datasets) >= needs["friedman"] else None,
        critical_difference=difference,
        cliques=() if difference is None else cliques_of(mean_ranks, difference),
        signed=_signed(table[order], models) if len(datasets) >= needs["wilcoxon"] else (),
        friedman_needs=needs["friedman"],
        nemenyi_needs=needs["nemenyi"],
        wilcoxon_needs=needs["wilcoxon"],
    )


def friedman(ranks: NDArray[np.float64]) -> float:
    """P-value of the Friedman test, ties corrected: Iman and Davenport's F, with few datasets by permutations.

    Shapes:
        ranks: (models, datasets), each column the ranks of one dataset.
    """
    from scipy.stats import f

    models, datasets = ranks.shape
    if datasets < FEWEST_FOR_F:
        return _permuted(ranks)
    middle = (models + 1) / 2
    between = datasets * float(((ranks.mean(axis=1) - middle) ** 2).sum())
    within = float(((ranks - middle) ** 2).sum()) / datasets  # less where ranks are tied
    if within == 0:
        return 1.0
    chi_squared = (models - 1) * between / within
    left = datasets * (models - 1) - chi_squared
    # No smaller than the chance that all datasets agree by accident.
    by_accident = math.exp(-(datasets - 1) * math.lgamma(models + 1))
    if left <= 1e-9:
        return by_accident
    p_value = float(f.sf((datasets - 1) * chi_squared / left, models - 1, (models - 1) * (datasets - 1)))
    return max(p_value, by_accident)


def _permuted(ranks: NDArray[np.float64]) -> float:
    """How often ranks that are shuffled within each dataset lie as far from each other, in the mean, as these."""
    models, datasets = ranks.shape
    orders = math.factorial(models)
    observed = float((ranks.sum(axis=1) ** 2).sum())
    if orders ** (datasets - 1) <= _PERMUTATIONS:  # every way there is; the first dataset may stay as it is
        every = np.array(list(itertools.permutations(range(models))))
        sums = ranks[:, 0][None]
        for column in ranks.T[1:]:
            sums = (sums[:, None] + column[every][None]).reshape(-1, models)
        return float(np.mean((sums**2).sum(axis=1) >= observed - 1e-6))
    stream = np.random.PCG64(0)
    sums = np.zeros((_PERMUTATIONS, models))
    for column in ranks.T:
        sums += column[stream.random_raw(_PERMUTATIONS * models).reshape(-1, models).argsort(axis=1)]
    reached = np.count_nonzero((sums**2).sum(axis=1) >= observed - 1e-6)
    return float((reached + 1) / (_PERMUTATIONS + 1))


def critical_difference(models: int, datasets: int, level: float = LEVEL) -> float:
    """How far apart in mean rank two of so many models must be (Nemenyi)."""
    return _quantile(models, level) * math.sqrt(models * (models + 1) / (6 * datasets))


@cache
def _quantile(models: int, level: float) -> float:
    """Of the studentized range without end of freedom, over the root of two; SciPy integrates it anew each time."""
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(1 - level, models, np.inf)) / math.sqrt(2)


def cliques_of(mean_ranks: Sequence[float], difference: float) -> tuple[tuple[int, int], ...]:
    """Ranges of neighbours less than a difference apart, but no range that lies in another."""
    found: list[tuple[int, int]] = []
    for first, start in enumerate(mean_ranks):
        last = max(place for place, mean in enumerate(mean_ranks) if place >= first and mean - start < difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return tuple(found)


def datasets_needed(models: int, level: float = LEVEL) -> dict[str, int]:
    """The fewest datasets with which `friedman`, `nemenyi` and `wilcoxon` could tell so many models apart.

    If every dataset agreed, and for Wilcoxon's test then the pair with the smallest p-value, which Holm multiplies by
    how many pairs there are.
    """
    pairs = models * (models - 1) // 2
    agree = 1 + max(1, math.ceil(-math.log(level) / math.lgamma(models + 1)))
    return {
        "friedman": agree,
        # What Nemenyi's quantiles, which are for many datasets, say of two models on four is no test at 5 %.
        "nemenyi": max(agree, math.ceil((critical_difference(models, 1, level) / (models - 1)) ** 2)),
        "wilcoxon": math.ceil(math.log2(2 * pairs / level)),
    }


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _ranks(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of scores (models, datasets): the best of each dataset is 1."""
    from scipy.stats import rankdata

    ranks: NDArray[np.float64] = rankdata(-table, axis=0)
    return ranks


def _signed(table: NDArray[np.float64], models: Sequence[str]) -> tuple[Signed, ...]:
    pairs = list(itertools.combinations(range(len(models)), 2))
    found = [_wilcoxon(table[first] - table[second]) for first, second in pairs]
    return tuple(
        Signed(models[first], models[second], p_value, adjusted)
        for (first, second), p_value, adjusted in zip(pairs, found, adjust_holm(found), strict=True)
    )


def _wilcoxon(differences: NDArray[np.float64]) -> float:
    """Two-sided and exact, ties or not: the share of patterns of signs whose rank sum lies as far from the middle.

    Datasets on which two models are alike speak for neither and are left out, as Wilcoxon did. SciPy's exact
    distribution knows no tied ranks; here it is built from the ranks that there are, which are whole when doubled.
    """
    from scipy.stats import rankdata

    there = differences.round(_DECIMALS)
    there = there[there != 0]
    doubled = np.rint(2 * rankdata(np.abs(there))).astype(np.int64)
    total = int(doubled.sum())
    chances = np.zeros(total + 1)
    chances[0] = 1.0
    for rank in doubled.tolist():
        chances[rank:] = (chances[rank:] + chances[:-rank]) / 2
        chances[:rank] /= 2
    distance = abs(2 * int(doubled[there > 0].sum()) - total)
    far = np.abs(2 * np.arange(total + 1) - total) >= distance
    return min(1.0, math.fsum(chances[far]))
