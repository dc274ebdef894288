"""What single dialogues do to a score: by hand, and against leaving them out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from mer_bench.metrics import score
from mer_bench.predictions import DialogueCounts
from mer_bench.statistics import contributions_of, effect_of
from tests.statistics.simulated import IEMOCAP, Experiment


def scored(run: DialogueCounts, kept: NDArray[np.bool_] | None = None) -> float:
    return score(run if kept is None else run.part(kept)).weighted_f1


def test_a_contribution_is_what_the_score_is_worse_without() -> None:
    experiment = Experiment(IEMOCAP, 1)
    first, second = experiment.model(2), experiment.model(3)
    found = contributions_of(first, second)
    count = len(found.dialogues)
    for place in (0, 7, 30):
        kept = np.array([name != found.dialogues[place] for name in first[0].dialogues])
        parts = [
            np.mean([count * scored(run) - (count - 1) * scored(run, kept) for run in runs]) for runs in (first, second)
        ]
        assert found.values[place] == pytest.approx((parts[0] - parts[1]) / count, abs=1e-12)
    difference = np.mean([scored(run) for run in first]) - np.mean([scored(run) for run in second])
    assert found.values.sum() == pytest.approx(difference, abs=0.003)  # but for the jackknife's correction


def test_the_effect_by_hand() -> None:
    experiment = Experiment(IEMOCAP, 2)
    first, second = experiment.model(2, 0.3), experiment.model(3)
    found = effect_of(first, second)
    values = contributions_of(first, second).values
    difference = np.mean([scored(run) for run in first]) - np.mean([scored(run) for run in second])
    assert found.size == pytest.approx(difference / (values.std(ddof=1) * len(values)), rel=1e-9)
    won = []
    for mine, yours in itertools.product(first, second):
        for place in range(IEMOCAP.dialogues):
            only = np.arange(IEMOCAP.dialogues) == place
            apart = scored(mine, only) - scored(yours, only)
            won.append(0.5 if math.isclose(apart, 0, abs_tol=1e-12) else float(apart > 0))
    assert found.superiority == pytest.approx(np.mean(won))
    assert found.size is not None
    back = effect_of(second, first)
    assert back.size == pytest.approx(-found.size)
    assert back.superiority == pytest.approx(1 - found.superiority)


def test_without_a_difference_there_is_no_effect() -> None:
    runs = Experiment(IEMOCAP, 3).model(2)
    found = effect_of(runs, runs)
    assert found.size == 0
    assert found.superiority == pytest.approx(0.5)
