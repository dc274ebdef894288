"""A table's ranks and tests: by hand, against rows compared one by one, and whatever the order and the machine."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mer_bench.errors import RecordError
from mer_bench.predictions import DialogueCounts
from mer_bench.statistics import adjust_holm, compare, effect_of, mean_interval, rank_rows
from mer_bench.statistics.counts import count_runs
from mer_bench.statistics.rows import pairs_of, ranks_of
from tests.statistics.simulated import IEMOCAP, MELD, Experiment
from tests.statistics.simulation import mean, ranked

ROOT = Path(__file__).resolve().parents[2]

PRINTED = """
from tests.statistics.test_rows import table
from mer_bench.statistics import rank_rows
print(rank_rows(table(5), resamples=2000))
"""


def table(rows: int, seeds: int = 3, step: float = 0.15) -> list[list[DialogueCounts]]:
    experiment = Experiment(IEMOCAP, 3)
    return ranked(experiment.model(seeds, -step * row) for row in range(rows))


def test_each_row_is_tested_with_the_leader_and_its_neighbour_once() -> None:
    assert pairs_of(1) == []
    assert pairs_of(2) == [(0, 1)]
    assert pairs_of(4) == [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3)]


@pytest.mark.parametrize(
    ("separated", "ranks"),
    [
        (set(), [1, 1, 1, 1]),
        ({(0, 2), (0, 3)}, [1, 1, 3, 3]),  # from the leader, while the rank is the leader's
        ({(0, 1), (0, 2), (0, 3)}, [1, 2, 2, 2]),  # afterwards neighbours decide
        ({(0, 1), (0, 2), (0, 3), (2, 3)}, [1, 2, 2, 4]),
        ({(1, 2)}, [1, 1, 3, 3]),
        ({(0, 1)}, [1, 2, 2, 2]),
        (set(pairs_of(4)), [1, 2, 3, 4]),
    ],
)
def test_ranks_by_hand(separated: set[tuple[int, int]], ranks: list[int]) -> None:
    assert ranks_of(4, separated) == ranks


@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_a_rank_is_the_place_of_its_first_row(rows: int, chance: object) -> None:
    separated = {pair for pair in pairs_of(rows) if chance.random() < 0.4}  # type: ignore[attr-defined]
    ranks = ranks_of(rows, separated)
    assert ranks == sorted(ranks)
    assert all(rank == ranks.index(rank) + 1 for rank in ranks)
    # No two neighbours of one rank, and no row of the leader's rank, that a test tells apart.
    assert not any(ranks[first] == ranks[second] for first, second in separated if second == first + 1 or not first)


def test_a_row_says_in_a_table_what_it_says_alone() -> None:
    rows = table(4)
    found = rank_rows(rows, resamples=2000)
    for row, ranked_row in zip(rows, found.rows, strict=True):
        assert ranked_row.interval == mean_interval(row, resamples=2000)
    for pair in found.pairs:
        assert pair.difference == compare(rows[pair.first], rows[pair.second], resamples=2000)
    assert found.rows[0].effect is None
    assert [row.effect for row in found.rows[1:]] == [effect_of(rows[0], row) for row in rows[1:]]
    holm = adjust_holm([pair.difference.p_value for pair in found.pairs])
    for pair, adjusted in zip(found.pairs, holm, strict=True):
        assert pair.adjusted >= adjusted
        assert pair.adjusted == adjusted or pair.first == 0
    assert found.rows[0].rank == 1
    assert found.rows[-1].rank != 1
    assert len(rank_rows(rows[:1], resamples=100).pairs) == 0


def test_the_leader_is_held_against_the_range_of_equal_rows() -> None:
    experiment = Experiment(MELD, 4)
    # Ten rows that are alike: Tukey's distribution of their range, which has the same independent errors.
    found = rank_rows(ranked(experiment.model(1) for _ in range(10)))
    seen = 0
    for pair in found.pairs:
        width = (pair.difference.high - pair.difference.low) / (2 * 1.96)
        wanted = scipy.stats.studentized_range.sf(pair.difference.difference / width * math.sqrt(2), 10, np.inf)
        if pair.first == 0 and 0.01 < wanted < 0.99:
            assert pair.adjusted >= wanted - 0.05
            seen += abs(pair.adjusted - wanted) < 0.05
    assert seen >= 2


def test_two_rows_need_no_correction() -> None:
    rows = table(2)
    (pair,) = rank_rows(rows, resamples=1000).pairs
    assert pair.adjusted == pair.difference.p_value


@pytest.mark.parametrize("chance", [0, 1])
def test_the_order_of_seeds_and_dialogues_changes_nothing(chance: int) -> None:
    rows = table(3)
    wanted = rank_rows(rows, resamples=300)
    order = np.random.default_rng(chance).permutation(IEMOCAP.dialogues).tolist()
    turned = [
        [
            replace(run, dialogues=[run.dialogues[at] for at in order], confusion=run.confusion[order])
            for run in reversed(row)
        ]
        for row in rows
    ]
    found = rank_rows(turned, resamples=300)
    for ours, theirs in zip(wanted.pairs, found.pairs, strict=True):
        assert ours.adjusted == theirs.adjusted
        assert ours.difference.low == pytest.approx(theirs.difference.low, abs=1e-12)
    assert [row.rank for row in wanted.rows] == [row.rank for row in found.rows]


def test_threads_change_no_bit() -> None:
    printed = {
        subprocess.run(
            [sys.executable, "-c", PRINTED],
            env={"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in ("1", "3")
    }
    assert len(printed) == 1
    assert "RankedRow" in printed.pop()


def test_sums_are_exact_in_the_type_they_are_made_in() -> None:
    run = Experiment(IEMOCAP, 0).model(1)[0]
    assert count_runs([run]).exact is np.float32
    # Were the sums of dialogues this long made in float32, they would be rounded.
    long = replace(run, confusion=run.confusion * 20_000)
    assert count_runs([long]).exact is np.float64
    assert mean_interval([long], resamples=200).low == pytest.approx(mean_interval([run], resamples=200).low, abs=1e-12)


def test_rows_that_are_alike() -> None:
    same = table(1)[0]
    single = [same[:1]] * 3
    found = rank_rows(single, resamples=200)
    assert [row.rank for row in found.rows] == [1, 1, 1]
    assert all(pair.adjusted == 1 for pair in found.pairs)
    assert found.rows[1].effect is not None
    assert (found.rows[1].effect.size, found.rows[1].effect.superiority) == (0, 0.5)
    # Two rows with the same predictions are still two rows: each has seeds of its own.
    assert all(pair.difference.low < 0 < pair.difference.high for pair in rank_rows([same] * 3, resamples=200).pairs)


def test_right_against_wrong_is_told_without_any_spread() -> None:
    right = [
        DialogueCounts(
            ("a", "b"), list("abcdefghijkl"), np.array([[[1, 0], [0, 1]]] * 12), np.zeros((12, 2), int), None
        )
    ]
    wrong = [replace(right[0], confusion=right[0].confusion[:, :, ::-1].copy())]
    found = rank_rows([right, wrong, wrong], resamples=999)
    assert [row.rank for row in found.rows] == [1, 2, 2]
    assert found.rows[1].effect is not None
    assert (found.rows[1].effect.size, found.rows[1].effect.superiority) == (None, 1)


def test_with_few_dialogues_there_is_no_rank_and_no_error() -> None:
    rows = [[run.part(np.arange(IEMOCAP.dialogues) < 9) for run in row] for row in table(3)]
    found = rank_rows(rows)
    assert (found.pairs, found.resamples) == ((), 0)
    assert all((row.rank, row.interval, row.effect) == (None, None, None) for row in found.rows)


def test_many_rows_get_more_resamples() -> None:
    runs = [run.part(np.arange(IEMOCAP.dialogues) < 12) for run in Experiment(IEMOCAP, 0).model(68)]
    found = rank_rows(ranked([run] for run in runs), resamples=1000)
    assert found.resamples == 80 * len(found.pairs) == 80 * 133


def test_what_is_no_table() -> None:
    rows = table(2)
    cases = [
        ([], "a table needs rows"),
        ([rows[0], []], "each of them at least one run"),
        ([rows[1], rows[0]], "in the order of their scores"),
        ([rows[0], [Experiment(MELD, 0).model(1)[0]]], "different label sets"),
    ]
    for wrong, message in cases:
        with pytest.raises(RecordError, match=message):
            rank_rows(wrong, resamples=10)
    with pytest.raises(RecordError, match="3 runs are not a multiple of 2"):
        rank_rows(rows, repeats=[2, 1], resamples=10)


def test_masks_of_a_seed_are_no_seeds() -> None:
    rows = table(2)
    found = rank_rows([[run for run in rows[0] for _ in range(2)], rows[1]], repeats=[2, 1], resamples=500)
    assert found.rows[0].interval == mean_interval(rows[0], resamples=500)
    assert found.pairs[0].difference.seeds == (3, 3)


def test_thirty_rows_of_ten_seeds_are_quick() -> None:
    experiment = Experiment(MELD, 0, dialogues=300)
    rows = ranked(experiment.model(10) for _ in range(30))
    assert mean(rows[0]) > mean(rows[-1])
    start = time.process_time()
    rank_rows(rows)
    assert time.process_time() - start < 6  # about one second on a quiet machine
