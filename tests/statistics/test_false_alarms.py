"""How often intervals, tests and tables are wrong, on dialogues and seeds like MELD's and IEMOCAP's: the quick form.

`python -m tests.statistics.simulation` is the full one; docs/statistics.md has its figures.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from mer_bench.statistics.contributions import Measured
from mer_bench.statistics.counts import count_runs
from tests.statistics.simulated import IEMOCAP, MELD, Corpus, Experiment
from tests.statistics.simulation import POINT, covers, differs, mean, table_alarms, table_finds

RESAMPLES = 400


def most(trials: int, rate: float = 0.05) -> float:
    """So many of them, and three standard errors more."""
    return trials * rate + 3 * math.sqrt(trials * rate * (1 - rate))


@pytest.mark.parametrize(
    ("corpus", "score", "between_seeds", "own", "apart"),
    [(MELD, 0.578, 0.004, 0.011, 0.004), (IEMOCAP, 0.66, 0.009, 0.019, 0.013)],
    ids=["MELD", "IEMOCAP"],
)
def test_what_is_made_up_varies_as_the_records_do(
    corpus: Corpus, score: float, between_seeds: float, own: float, apart: float
) -> None:
    found = []
    for trial in range(8):
        experiment = Experiment(corpus, trial)
        models = [count_runs(experiment.model(5)) for _ in range(2)]
        first, second = map(Measured.of, models)
        root = math.sqrt(corpus.dialogues)
        found.append(
            [
                first.mean,
                np.std([mean([run]) for run in experiment.model(5)], ddof=1),
                first.contributions.std(ddof=1) * root,
                (first.contributions - second.contributions).std(ddof=1) * root,
            ]
        )
    level, *spreads = np.mean(found, axis=0)
    assert level == pytest.approx(score, abs=0.02)
    assert spreads == pytest.approx([between_seeds, own, apart], rel=0.35)


@pytest.mark.parametrize(("corpus", "true"), [(MELD, 0.5784), (IEMOCAP, 0.6436)], ids=["MELD", "IEMOCAP"])
def test_an_interval_holds_the_truth_as_often_as_it_says(corpus: Corpus, true: float) -> None:
    outside = sum(not covers(corpus, 3, trial, true, RESAMPLES) for trial in range(100))
    assert outside <= most(100)


@pytest.mark.parametrize("corpus", [MELD, IEMOCAP], ids=["MELD", "IEMOCAP"])
def test_a_pair_is_told_apart_by_chance_as_seldom_as_it_says(corpus: Corpus) -> None:
    assert sum(differs(corpus, 5, trial, 0, RESAMPLES) for trial in range(100)) <= most(100)


@pytest.mark.parametrize("corpus", [MELD, IEMOCAP], ids=["MELD", "IEMOCAP"])
def test_a_table_has_any_false_alarm_as_seldom_as_it_says(corpus: Corpus) -> None:
    assert sum(table_alarms(corpus, 6, 5, trial, RESAMPLES)[0] for trial in range(40)) <= most(40)


def test_what_differs_is_found() -> None:
    assert sum(differs(MELD, 5, trial, 3 * POINT["MELD"], RESAMPLES) for trial in range(20)) >= 18
    assert sum(table_finds(MELD, 4, 5, 4 * POINT["MELD"], trial, RESAMPLES) for trial in range(15)) >= 13
