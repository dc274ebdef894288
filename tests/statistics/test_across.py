"""Models over datasets: by hand, against SciPy and Demsar's paper, and how often they are wrong."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mer_bench.errors import RecordError
from mer_bench.statistics import compare_across, datasets_needed
from mer_bench.statistics.across import cliques_of, critical_difference, friedman
from tests.statistics.simulation import across_alarms

# Demsar (2006), table 6: AUC of four ways to grow a tree on 14 datasets.
DEMSAR = """
.763 .768 .771 .798; .599 .591 .590 .569; .954 .971 .968 .967; .628 .661 .654 .657; .882 .888 .886 .898
.936 .931 .916 .931; .661 .668 .609 .685; .583 .583 .563 .625; .775 .838 .866 .875; 1.0 1.0 1.0 1.0
.940 .962 .965 .962; .619 .666 .614 .669; .972 .981 .9751 .975; .957 .978 .946 .970
"""


def demsar() -> dict[str, dict[str, float]]:
    rows = [row.split() for line in DEMSAR.strip().splitlines() for row in line.split(";")]
    names = ("C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf")
    return {f"d{place}": dict(zip(names, map(float, row), strict=True)) for place, row in enumerate(rows)}


def as_scores(table: NDArray[Any]) -> dict[str, dict[str, float]]:
    return {
        f"d{at}": {f"m{row}": float(value) for row, value in enumerate(column)} for at, column in enumerate(table.T)
    }


def test_the_example_of_the_paper_that_proposed_it() -> None:
    found = compare_across(demsar())
    ranks = dict(zip(found.models, found.mean_ranks, strict=True))
    # Section 3.2.2 there: mean ranks 3.143, 2.000, 2.893, 1.964.
    assert ranks == pytest.approx({"C4.5": 3.143, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}, abs=6e-4)
    assert found.models[0] == "C4.5+m+cf"
    # There Friedman's chi-squared is 9.28, without a correction for the ties, which here makes it a little larger.
    squares = sum(rank**2 for rank in found.mean_ranks)
    assert 12 * 14 / (4 * 5) * (squares - 4 * 25 / 4) == pytest.approx(9.28, abs=0.01)
    scores = [[row[name] for row in demsar().values()] for name in found.models]
    corrected = scipy.stats.friedmanchisquare(*scores).statistic
    assert corrected > 9.28
    assert found.friedman_p == pytest.approx(scipy.stats.f.sf(13 * corrected / (14 * 3 - corrected), 3, 39), rel=1e-9)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    assert found.cliques == ((0, 3),)  # the best and the worst are 1.179 apart
    assert critical_difference(4, 14, 0.10) == pytest.approx(2.291 * math.sqrt(4 * 5 / (6 * 14)), abs=0.001)
    assert len(found.signed) == 6


def test_wilcoxon_without_ties_is_that_of_scipy() -> None:
    generator = np.random.default_rng(0)
    for datasets in (7, 20, 45):
        apart = generator.normal(0.5, 1, datasets)
        found = compare_across(as_scores(np.stack([apart, np.zeros(datasets)]))).signed[0].p_value
        assert found == pytest.approx(scipy.stats.wilcoxon(apart, method="exact").pvalue, rel=1e-6)


def test_friedman_is_that_of_scipy_before_iman_and_davenport() -> None:
    generator = np.random.default_rng(0)
    for models, datasets in ((3, 8), (5, 12)):
        table = generator.integers(0, 6, (models, datasets)).astype(float)  # ties
        ranks = scipy.stats.rankdata(-table, axis=0)
        chi_squared = scipy.stats.friedmanchisquare(*table).statistic
        value = (datasets - 1) * chi_squared / (datasets * (models - 1) - chi_squared)
        wanted = scipy.stats.f.sf(value, models - 1, (models - 1) * (datasets - 1))
        assert friedman(ranks) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(("models", "datasets"), [(3, 3), (3, 4), (4, 3)])
def test_with_few_datasets_friedman_counts_permutations(models: int, datasets: int) -> None:
    table = np.random.default_rng(models).random((models, datasets))
    ranks = scipy.stats.rankdata(-table, axis=0)
    orders = list(itertools.permutations(range(1, models + 1)))
    reached = [
        sum(sum(column) ** 2 for column in zip(*chosen, strict=True)) >= (ranks.sum(axis=1) ** 2).sum() - 1e-9
        for chosen in itertools.product(orders, repeat=datasets)
    ]
    assert friedman(ranks) == pytest.approx(np.mean(reached), abs=1e-9)


def test_all_datasets_agree() -> None:
    table = np.tile(np.array([[3.0], [2.0], [1.0]]), 8)
    found = compare_across(as_scores(table + np.arange(8)))
    assert found.friedman_p == pytest.approx(1 / 6**7)
    assert found.mean_ranks == (1, 2, 3)
    assert {each.p_value for each in found.signed} == {2 / 2**8}
    # Nothing tells these apart.
    alike = compare_across(as_scores(np.ones((3, 8))))
    assert (alike.friedman_p, alike.mean_ranks) == (1, (2, 2, 2))
    assert {each.adjusted for each in alike.signed} == {1.0}
    assert alike.cliques == ((0, 2),)


@settings(max_examples=15, deadline=None)
@given(st.integers(6, 10), st.integers(0, 100))
def test_wilcoxon_is_exact_with_ties_too(datasets: int, seed: int) -> None:
    differences = np.random.default_rng(seed).integers(-3, 5, datasets).astype(float)
    found = compare_across(as_scores(np.stack([differences, np.zeros(datasets)]))).signed[0].p_value
    there = differences[differences != 0]
    if not len(there):
        assert found == 1
        return
    ranks = scipy.stats.rankdata(np.abs(there))
    middle = ranks.sum() / 2
    observed = abs(ranks[there > 0].sum() - middle)
    every = [
        abs((ranks * np.array(signs)).sum() - middle) >= observed - 1e-9
        for signs in itertools.product((0, 1), repeat=len(there))
    ]
    assert found == pytest.approx(np.mean(every))


def test_cliques_are_ranges_that_no_other_holds() -> None:
    assert cliques_of((1, 1.5, 2.2, 4, 4.1), 1.0) == ((0, 1), (1, 2), (3, 4))
    assert cliques_of((1, 2, 3), 0.5) == ()
    assert cliques_of((1, 2, 3), 1.0) == ()  # a critical difference apart is apart
    assert cliques_of((1, 2, 3), 5) == ((0, 2),)


def test_too_few_datasets_are_said_to_be_too_few() -> None:
    scores = as_scores(np.random.default_rng(0).random((5, 2)))
    found = compare_across(scores)
    assert (found.critical_difference, found.cliques, found.signed) == (None, (), ())
    assert found.friedman_p is not None
    assert found.verdict.startswith("Over 2 datasets, ")
    assert found.verdict.endswith(
        "To tell 5 models apart, Nemenyi's test needs at least 3 and Wilcoxon's test with Holm's correction at least 9 "
        "datasets, even if all of them agreed; there are 2."
    )
    alone = compare_across({"only": {"a": 0.5, "b": 0.4}})
    assert alone.friedman_p is None
    assert alone.verdict.startswith(
        "To tell 2 models apart, the Friedman test needs at least 6, Nemenyi's test at least 6"
    )
    assert alone.verdict.endswith("there is 1.")
    enough = compare_across(as_scores(np.random.default_rng(0).random((3, 12))))
    assert "needed" not in enough.verdict


@pytest.mark.parametrize("models", [2, 3, 5])
def test_with_the_datasets_needed_a_verdict_is_possible_and_with_fewer_it_is_not(models: int) -> None:
    needs = datasets_needed(models)

    def agreed(datasets: int) -> NDArray[Any]:
        # Differences of all sizes, all in favour of the earlier model.
        return np.arange(models, 0, -1)[:, None] * (1 + 0.1 * np.arange(datasets))[None]

    enough = compare_across(as_scores(agreed(needs["wilcoxon"])))
    assert min(each.adjusted for each in enough.signed) <= 0.05
    exact = 2 / 2 ** (needs["wilcoxon"] - 1) * models * (models - 1) / 2
    assert exact > 0.05
    most = compare_across(as_scores(agreed(needs["nemenyi"])))
    assert most.critical_difference is not None
    assert most.critical_difference <= models - 1
    ranks = scipy.stats.rankdata(-agreed(needs["friedman"]), axis=0)
    assert friedman(ranks) <= 0.05 + 1e-9
    assert math.factorial(models) ** -(needs["friedman"] - 2) > 0.05


def test_what_cannot_be_compared() -> None:
    for wrong, message in (
        ({}, "no dataset"),
        ({"d": {"a": 0.5}}, "at least two models"),
        ({"d": {"a": 0.5, "b": 0.4}, "e": {"a": 0.5}}, "'b' is not on every dataset"),
        ({"d": {"a": 0.5, "b": math.nan}}, "not a finite number"),
    ):
        with pytest.raises(RecordError, match=message):
            compare_across(wrong)


@pytest.mark.parametrize(("models", "datasets"), [(3, 4), (3, 8), (5, 9)])
def test_a_false_alarm_is_as_rare_as_it_says(models: int, datasets: int) -> None:
    generator = np.random.default_rng(models * datasets)
    trials = 200
    found = [across_alarms(models, datasets, generator) for _ in range(trials)]
    most = trials * 0.05 + 3 * math.sqrt(trials * 0.05 * 0.95)
    for alarms in zip(*found, strict=True):
        assert sum(alarms) <= most


def test_a_real_difference_is_found() -> None:
    generator = np.random.default_rng(1)
    friedman_, nemenyi, wilcoxon = zip(*(across_alarms(3, 12, generator, 3.0) for _ in range(40)), strict=True)
    assert min(sum(friedman_), sum(nemenyi), sum(wilcoxon)) >= 32
