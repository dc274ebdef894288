"""Intervals and tests: hand cases, and how often they are wrong in simulated experiments."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from mer_bench.errors import RecordError
from mer_bench.metrics import count_dialogues, score
from mer_bench.predictions import DialogueCounts, Predictions
from mer_bench.statistics import adjust_holm, compare, mean_interval
from mer_bench.statistics.bootstrap import Draws
from mer_bench.statistics.counts import count_runs

CLASSES = ("a", "b", "c")


def counts(confusion: NDArray[Any], names: list[str] | None = None) -> DialogueCounts:
    rows = len(confusion)
    names = names or [f"d{number}" for number in range(rows)]
    return DialogueCounts(CLASSES[: confusion.shape[1]], names, confusion, np.zeros((rows, 2), int), None)


class Experiment:
    """Made-up models on made-up dialogues; all have the same expected F1 unless one is better.

    A model is right with a chance that depends on the dialogue and the utterance (the same for all
    its seeds) and on the seed.
    """

    def __init__(self, seed: int, dialogues: int, turns: int = 8) -> None:
        self.generator = np.random.default_rng(seed)
        self.true = self.generator.choice(3, (dialogues, turns), p=[0.5, 0.3, 0.2])

    def model(self, seeds: int, by_dialogue: float, by_seed: float, better: float = 0.0) -> list[DialogueCounts]:
        shape, draw = self.true.shape, self.generator
        ability = 0.4 + better + draw.normal(0, by_dialogue, (shape[0], 1)) + draw.normal(0, by_dialogue, shape)
        runs = []
        for _ in range(seeds):
            chance = 1 / (1 + np.exp(-(ability + draw.normal(0, by_seed))))
            other = (self.true + draw.integers(1, 3, shape)) % 3
            predicted = np.where(draw.random(shape) < chance, self.true, other)
            cells = (np.arange(shape[0])[:, None] * 3 + self.true) * 3 + predicted
            runs.append(counts(np.bincount(cells.ravel(), minlength=shape[0] * 9).reshape(-1, 3, 3)))
        return runs


class TestCompare:
    def test_the_same_runs_do_not_differ(self) -> None:
        runs = Experiment(0, 30).model(3, 0.5, 0.0)
        found = compare(runs, runs, resamples=500)
        assert found.difference == 0
        assert found.low <= 0 <= found.high
        assert found.p_value > 0.5
        single = compare(runs[:1], runs[:1], resamples=500)
        assert (single.low, single.high, single.p_value) == (0, 0, 1)

    def test_right_against_wrong(self) -> None:
        labels = np.tile(np.array([2, 1]), (20, 1))
        right = counts(np.stack([np.diag(row) for row in labels]))
        wrong = counts(np.stack([np.fliplr(np.diag(row)) for row in labels]))
        found = compare([right], [wrong], resamples=999)
        assert (found.difference, found.low, found.high) == (1, 1, 1)
        assert found.p_value == pytest.approx(2 / 1000)  # as small as so many resamples can show
        assert (found.seeds, found.dialogues) == ((1, 1), 20)

    def test_the_difference_is_that_of_the_mean_scores(self) -> None:
        generator = np.random.default_rng(0)

        def made() -> Predictions:
            return Predictions(
                classes=CLASSES,
                ids=[f"u{row}" for row in range(200)],
                dialogues=[f"d{row // 10}" for row in range(200)],
                positions=np.arange(200, dtype=np.int32) % 10,
                speakers=np.zeros(200, np.int16),
                true=np.arange(200, dtype=np.int16) % 3,
                predicted=generator.integers(0, 3, 200, np.int16),
                log_probabilities=None,
            )

        first, second = [made() for _ in range(3)], [made() for _ in range(2)]
        found = compare([count_dialogues(run) for run in first], [count_dialogues(run) for run in second], resamples=50)
        means = [np.mean([score(run).weighted_f1 for run in runs]) for runs in (first, second)]
        assert found.difference == pytest.approx(means[0] - means[1], abs=1e-12)
        alone = mean_interval([count_dialogues(run) for run in first], resamples=50)
        assert alone.mean == pytest.approx(means[0], abs=1e-12)

    def test_repeats_of_a_seed_count_as_one_by_their_mean(self) -> None:
        experiment = Experiment(8, 40)
        first, second = experiment.model(2, 0.5, 1.0), experiment.model(2, 0.5, 0.1)
        once = compare(first, second, resamples=2000)
        twice = compare([run for run in first for _ in range(3)], second, resamples=2000, repeats=3)
        assert twice.seeds == once.seeds == (2, 2)
        assert twice.difference == pytest.approx(once.difference, abs=1e-12)
        assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=1e-6)
        # The same for the second model.
        back = compare(second, [run for run in first for _ in range(3)], resamples=2000, second_repeats=3)
        assert (-back.high, -back.low, back.p_value) == pytest.approx((twice.low, twice.high, twice.p_value), abs=1e-9)
        # As runs of their own they would pass for seeds, which tell more than there is.
        assert compare([run for run in first for _ in range(3)], second, resamples=2000).low > once.low

    def test_what_a_seed_does_to_both_alike_is_no_chance(self) -> None:
        experiment = Experiment(6, 60)
        runs = experiment.model(3, 0.3, 1.0)
        whole, found = compare(runs, runs, resamples=2000), compare(runs, runs, resamples=2000, same_models=True)
        assert (found.low, found.high, found.p_value) == (0, 0, 1)
        assert whole.low < -0.01

    @pytest.mark.parametrize(("repeats", "same_models"), [(2, False), (1, True), (3, True)])
    def test_numbers_of_runs_that_do_not_fit(self, repeats: int, same_models: bool) -> None:
        runs = Experiment(7, 20).model(3, 0.5, 0.1)
        with pytest.raises(RecordError, match=r"3 and 2 runs with . and 1 for each seed do not fit together"):
            compare(runs, runs[:2], resamples=10, repeats=repeats, same_models=same_models)

    def test_the_second_against_the_first_is_the_opposite(self) -> None:
        experiment = Experiment(1, 40)
        first, second = experiment.model(1, 0.5, 0, better=0.6), experiment.model(1, 0.5, 0)
        forward, back = compare(first, second), compare(second, first)
        assert forward.difference == -back.difference
        assert (forward.low, forward.high) == pytest.approx((-back.high, -back.low))
        assert forward.p_value == back.p_value < 0.05

    def test_the_same_input_gives_the_same_numbers_and_another_seed_does_not(self) -> None:
        experiment = Experiment(2, 40)
        first, second = experiment.model(3, 0.5, 0.1), experiment.model(3, 0.5, 0.1)
        assert compare(first, second, resamples=3000) == compare(first, second, resamples=3000)
        assert compare(first, second, resamples=3000) != compare(first, second, resamples=3000, seed=1)

    def test_a_resample_is_the_score_of_the_drawn_dialogues(self) -> None:
        counted = count_runs(Experiment(3, 12).model(2, 0.5, 0.0))
        draws = Draws(12, 3, seed=7)
        (scores,) = draws.scores([counted])
        ((some, weights),) = draws.weights()
        assert (some, weights.sum(axis=0).tolist()) == (slice(0, 3), [12, 12, 12])
        for row in range(3):
            drawn = np.repeat(np.arange(12), weights[:, row])
            for seed in range(2):
                right, predicted, labelled = (
                    each[drawn].sum(axis=0).astype(float)
                    for each in (counted.right[seed], counted.predicted[seed], counted.labelled)
                )
                wanted = np.sum(2 * right / (predicted + labelled) * labelled) / labelled.sum()
                assert scores[seed, row] == pytest.approx(wanted, abs=1e-12)

    def test_errors_are_those_of_student(self) -> None:
        draws = Draws(31, 40_000, seed=1)
        normal = np.random.default_rng(0).normal(0, math.sqrt(30 / 31), 40_000)
        # What drawing 31 dialogues gives of a normal error, stretched, and what is drawn for the seeds.
        for errors, freedom in ((normal * draws.stretches(), 30), (draws.student(4, b"0123"), 4)):
            assert scipy.stats.kstest(errors, "t", args=(freedom,)).pvalue > 0.001
        assert not np.array_equal(draws.student(4, b"0123"), draws.student(4, b"0124"))
        # The normal errors by themselves are told from Student's: the first check can fail.
        assert scipy.stats.kstest(draws.student(8, b"0123"), "norm").pvalue < 0.001

    def test_every_dialogue_is_as_likely(self) -> None:
        drawn = sum(weights.sum(axis=1) for _, weights in Draws(37, 4000, seed=3).weights())
        assert np.sum(drawn) == 37 * 4000
        assert scipy.stats.chisquare(drawn).pvalue > 0.001

    def test_dialogues_are_matched_by_id_and_those_without_labels_left_out(self) -> None:
        experiment = Experiment(4, 30)
        first, second = experiment.model(1, 0.5, 0)[0], experiment.model(1, 0.5, 0)[0]
        order = np.random.default_rng(0).permutation(30)
        turned = counts(second.confusion[order], [second.dialogues[row] for row in order])
        assert compare([first], [turned], resamples=200) == compare([first], [second], resamples=200)
        empty = np.zeros((1, 3, 3), int)
        more = [counts(np.concatenate([run.confusion, empty]), [*run.dialogues, "empty"]) for run in (first, second)]
        assert compare(more[:1], more[1:], resamples=200) == compare([first], [second], resamples=200)

    def test_a_subset_is_compared_as_if_it_were_all(self) -> None:
        experiment = Experiment(6, 40)
        first, second = experiment.model(2, 0.5, 0.1), experiment.model(2, 0.5, 0.1)
        members = np.arange(40) % 3 == 0
        named = [[replace(run, subsets={"third": members}) for run in runs] for runs in (first, second)]
        alone = [[run.part(members) for run in runs] for runs in (first, second)]
        assert compare(*named, subset="third", resamples=300) == compare(*alone, resamples=300)
        assert compare(*named, resamples=300) == compare(first, second, resamples=300)
        assert mean_interval(named[0], subset="third", resamples=300) == mean_interval(alone[0], resamples=300)
        with pytest.raises(RecordError, match="no subset 'half', only third"):
            compare(*named, subset="half")
        with pytest.raises(RecordError, match="no subset 'third', none"):
            compare(named[0], second, subset="third")
        none = [replace(run, subsets={"third": np.zeros(40, bool)}) for run in first]
        with pytest.raises(RecordError, match="no dialogue of the test split is in the subset 'third'"):
            mean_interval(none, subset="third")

    def test_what_cannot_be_compared(self) -> None:
        experiment = Experiment(5, 20)
        run = experiment.model(1, 0.5, 0)[0]
        cases = [
            ([run], [], "at least one run of each"),
            ([], [], "no run to speak of"),
            ([run], [counts(run.confusion, [f"x{n}" for n in range(20)])], "dialogue 'd0' is not in every run"),
            ([run], [counts(run.confusion.transpose(0, 2, 1).copy())], "do not have the same labels"),
            ([run], [counts(np.zeros((20, 2, 2), int))], "different label sets"),
            (
                [counts(run.confusion[:9])],
                [counts(run.confusion[:9])],
                "at least 10 dialogues with labels, but there are 9",
            ),
        ]
        for first, second, message in cases:
            with pytest.raises(RecordError, match=message):
                compare(first, second, resamples=10)

    @pytest.mark.parametrize(
        ("seeds", "by_dialogue", "by_seed"),
        [(1, 0.5, 0.0), (5, 0.5, 0.1), (5, 0.3, 0.3), (5, 0.0, 0.0), (3, 0.3, 0.2)],
        ids=["one seed", "dialogues decide", "seeds decide", "utterances decide", "three seeds"],
    )
    def test_a_false_alarm_is_as_rare_as_it_says(self, seeds: int, by_dialogue: float, by_seed: float) -> None:
        trials, alarms, missed = 150, 0, 0
        for trial in range(trials):
            experiment = Experiment(1000 + trial, 60)
            first, second = (experiment.model(seeds, by_dialogue, by_seed) for _ in range(2))
            found = compare(first, second, resamples=300, seed=trial)
            alarms += found.p_value <= 0.05
            missed += not found.low <= 0 <= found.high
        # 5 % of them and three standard deviations
        most = trials * 0.05 + 3 * math.sqrt(trials * 0.05 * 0.95)
        assert alarms <= most
        assert missed <= most

    def test_a_real_difference_is_found(self) -> None:
        found = 0
        for trial in range(20):
            experiment = Experiment(trial, 60)
            first, second = experiment.model(5, 0.3, 0.05, better=0.5), experiment.model(5, 0.3, 0.05)
            found += compare(first, second, resamples=300).p_value <= 0.05
        assert found >= 18


class TestMeanInterval:
    def test_it_covers_the_truth_as_often_as_it_says(self) -> None:
        truth = np.mean([mean_interval(Experiment(9, 4000).model(1, 0.4, 0), resamples=2).mean for _ in range(3)])
        inside = sum(
            interval.low <= truth <= interval.high
            for interval in (
                mean_interval(Experiment(5000 + trial, 60).model(4, 0.4, 0.1), resamples=300) for trial in range(300)
            )
        )
        assert inside >= 300 * 0.95 - 3 * math.sqrt(300 * 0.95 * 0.05)

    def test_more_dialogues_give_a_narrower_interval(self) -> None:
        few, many = (mean_interval(Experiment(0, size).model(2, 0.4, 0)) for size in (30, 480))
        assert few.high - few.low == pytest.approx(4 * (many.high - many.low), rel=0.5)
        assert (many.seeds, many.dialogues, many.level) == (2, 480, 0.95)

    def test_it_stays_among_shares(self) -> None:
        runs = [counts(np.stack([np.diag([3, 1])] * 12))]
        found = mean_interval(runs, resamples=100)
        assert (found.mean, found.low, found.high) == (1, 1, 1)


class TestHolm:
    def test_by_hand(self) -> None:
        # sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.04 x 1 -> 0.04, 0.06, 0.06, 0.06 (never falling)
        assert adjust_holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
        assert adjust_holm([0.01, 0.04]) == pytest.approx([0.02, 0.04])
        assert adjust_holm([0.6, 0.7]) == [1, 1]
        assert adjust_holm([0.3]) == [0.3]
        assert adjust_holm([]) == []

    def test_no_p_value(self) -> None:
        for wrong in ([0.5, 1.5], [float("nan")], [-0.1]):
            with pytest.raises(RecordError, match=r"p-values should lie in \[0, 1\]"):
                adjust_holm(wrong)

    def test_one_false_alarm_among_many_is_as_rare_as_it_says(self) -> None:
        draws = np.random.default_rng(0).random((2000, 10))
        alarms = sum(min(adjust_holm(row)) <= 0.05 for row in draws.tolist())
        assert 0.03 * 2000 < alarms < 0.065 * 2000


def test_ten_thousand_resamples_of_melds_test_split_are_fast() -> None:
    import time

    experiment = Experiment(0, 280)
    first, second = experiment.model(5, 0.5, 0.1), experiment.model(5, 0.5, 0.1)
    start = time.process_time()
    compare(first, second)
    assert time.process_time() - start < 5
