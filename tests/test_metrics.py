"""Metrics against scikit-learn, literal implementations and hand-made dialogues."""

from __future__ import annotations

import subprocess
import sys
import timeit
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from mer_bench.errors import RecordError, UnknownNameError
from mer_bench.metrics import METRICS, count_dialogues, score, score_folds, value, zero_f1_classes
from mer_bench.predictions import Predictions
from mer_bench.records import Scores

CLASSES = ("neutral", "surprise", "fear", "sadness", "joy")


def made(
    true: Any,
    predicted: Any,
    classes: tuple[str, ...] = CLASSES,
    *,
    dialogues: list[str] | None = None,
    speakers: Any = None,
    scores: Any = None,
) -> Predictions:
    """Predictions with ids of their own; without dialogues, all of one dialogue."""
    count = len(true)
    dialogues = dialogues or ["d0"] * count
    seen: dict[str, int] = {}
    positions = []
    for name in dialogues:
        positions.append(seen.get(name, 0))
        seen[name] = positions[-1] + 1
    return Predictions(
        classes=classes,
        ids=[f"u{number}" for number in range(count)],
        dialogues=dialogues,
        positions=np.array(positions, np.int32),
        speakers=np.zeros(count, np.int16) if speakers is None else np.array(speakers),
        true=np.array(true, np.int16),
        predicted=np.array(predicted, np.int16),
        log_probabilities=scores,
    )


def drawn(seed: int, count: int, classes: int, unlabelled: float = 0.0) -> Predictions:
    """Random predictions with probabilities; dialogues of about ten turns, three speakers."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, classes)) * generator.uniform(0.1, 5)
    scores = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    true = generator.integers(0, classes, count)
    true[generator.random(count) < unlabelled] = -1
    return made(
        true,
        scores.argmax(axis=1),
        tuple(f"class {number}" for number in range(classes)),
        dialogues=[f"d{number}" for number in np.sort(generator.integers(0, max(1, count // 10), count))],
        speakers=generator.integers(0, 3, count),
        scores=scores,
    )


LABELS = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(st.integers(-1, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=40).filter(
            lambda pairs: any(true >= 0 for true, _ in pairs)
        ),
    )
)


class TestAgainstScikitLearn:
    @settings(max_examples=200, deadline=None)
    @given(LABELS)
    def test_every_score_is_the_same_on_any_labels(self, drawn_labels: tuple[int, list[tuple[int, int]]]) -> None:
        count, pairs = drawn_labels
        names = tuple(f"class {number}" for number in range(count))
        all_true, all_predicted = zip(*pairs, strict=True)
        scores = score(made(all_true, all_predicted, names))
        true, predicted = zip(*[pair for pair in pairs if pair[0] >= 0], strict=True)
        every = list(range(count))
        precision, recall, f1, support = reference.precision_recall_fscore_support(
            true, predicted, labels=every, zero_division=0
        )
        assert scores.utterances == len(true)
        assert scores.accuracy == pytest.approx(reference.accuracy_score(true, predicted), abs=1e-12)
        for name, key in (("weighted", "weighted_f1"), ("macro", "macro_f1")):
            wanted = reference.f1_score(true, predicted, average=name, zero_division=0)
            assert getattr(scores, key) == pytest.approx(wanted, abs=1e-12)
        wanted = reference.recall_score(true, predicted, labels=sorted(set(true)), average="macro", zero_division=0)
        assert scores.uar == pytest.approx(wanted, abs=1e-12)
        assert scores.confusion == reference.confusion_matrix(true, predicted, labels=every).tolist()
        for index, name in enumerate(names):
            of_class = scores.classes[name]
            assert (of_class.precision, of_class.recall, of_class.f1) == pytest.approx(
                (precision[index], recall[index], f1[index]), abs=1e-12
            )
            assert of_class.support == support[index]

    @pytest.mark.parametrize("seed", range(5))
    def test_large_random_data(self, seed: int) -> None:
        predictions = drawn(seed, 2610, 7, unlabelled=0.1)
        scores = score(predictions)
        there = predictions.true >= 0
        true, predicted = predictions.true[there], predictions.predicted[there]
        assert scores.weighted_f1 == pytest.approx(reference.f1_score(true, predicted, average="weighted"), abs=1e-12)
        assert scores.uar == pytest.approx(reference.balanced_accuracy_score(true, predicted), abs=1e-12)

    def test_everything_right_and_everything_wrong(self) -> None:
        right = score(made([0, 1, 2, 2], [0, 1, 2, 2]))
        assert (right.weighted_f1, right.accuracy, right.macro_f1, right.uar) == (1, 1, 1, 1)
        wrong = score(made([0, 0], [1, 1]))
        assert (wrong.weighted_f1, wrong.accuracy, wrong.macro_f1, wrong.uar) == (0, 0, 0, 0)

    def test_a_single_class(self) -> None:
        scores = score(made([3, 3, 3], [3, 3, 3]))
        assert (scores.macro_f1, scores.uar) == (1, 1)


def literal_calibration_error(confidences: list[float], right: list[bool]) -> float:
    """Sum over 15 bins ((m - 1) / 15, m / 15] of |bin| / n x |accuracy - mean confidence|, as printed."""
    total = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = [place for place, confidence in enumerate(confidences) if low < confidence <= high]
        if inside:
            accuracy = sum(right[place] for place in inside) / len(inside)
            confidence = sum(confidences[place] for place in inside) / len(inside)
            total += len(inside) / len(confidences) * abs(accuracy - confidence)
    return total


class TestCalibration:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 7))
    def test_it_is_the_literal_formula(self, seed: int, count: int, classes: int) -> None:
        predictions = drawn(seed, count, classes)
        assert predictions.log_probabilities is not None
        confidences = np.exp(predictions.log_probabilities.astype(np.float64)).max(axis=1).tolist()
        right = (predictions.true == predictions.predicted).tolist()
        error = score(predictions).calibration_error
        assert error == pytest.approx(literal_calibration_error(confidences, right), abs=1e-12)

    def test_unlabelled_utterances_do_not_count(self) -> None:
        scores = np.log([[0.75, 0.25], [0.75, 0.25], [0.01, 0.99]])
        found = score(made([0, 1, -1], [0, 0, 1], ("a", "b"), scores=scores)).calibration_error
        assert found == pytest.approx(0.25, abs=1e-3)  # half are right at a confidence of 0.75

    def test_certainty_falls_into_the_last_bin(self) -> None:
        with np.errstate(divide="ignore"):
            scores = np.log([[1.0, 0.0], [1.0, 0.0]])
        found = score(made([0, 1], [0, 0], ("a", "b"), scores=scores)).calibration_error
        assert found == 0.5

    def test_labels_alone_have_none(self) -> None:
        scores = score(made([0, 1], [0, 1]))
        assert scores.calibration_error is None
        with pytest.raises(RecordError, match="calibration_error cannot be computed"):
            value(scores, "calibration_error")


class TestEmotionShift:
    def test_a_dialogue_by_hand(self) -> None:
        # turn      0   1   2   3   4   5   6 | next dialogue
        # speaker   A   B   A   B   A   A   B | A
        # true      0   1   0   2   3   -   0 | 1      A shifts at 4; B at 3 and 6; a new dialogue starts afresh
        # predicted 0   1   1   2   0   3   0 | 1      right at 3 and 6
        predictions = made(
            [0, 1, 0, 2, 3, -1, 0, 1],
            [0, 1, 1, 2, 0, 3, 0, 1],
            dialogues=["x"] * 7 + ["y"],
            speakers=[0, 1, 0, 1, 0, 0, 1, 0],
        )
        scores = score(predictions)
        assert scores.emotion_shift_support == 3
        assert scores.emotion_shift_accuracy == pytest.approx(2 / 3)

    def test_an_utterance_without_label_is_passed_over(self) -> None:
        scores = score(made([1, -1, 1, -1, 2], [1, 1, 1, 1, 2]))
        assert (scores.emotion_shift_support, scores.emotion_shift_accuracy) == (1, 1)

    def test_the_order_of_rows_does_not_matter_but_positions_do(self) -> None:
        forward = drawn(3, 200, 4)
        order = np.random.default_rng(0).permutation(200)
        shuffled = Predictions(
            forward.classes,
            [forward.ids[row] for row in order],
            [forward.dialogues[row] for row in order],
            forward.positions[order],
            forward.speakers[order],
            forward.true[order],
            forward.predicted[order],
            None if forward.log_probabilities is None else forward.log_probabilities[order],
        )
        first, second = score(forward), score(shuffled)
        assert first.emotion_shift_support == second.emotion_shift_support > 20
        assert first.emotion_shift_accuracy == second.emotion_shift_accuracy
        assert first.weighted_f1 == second.weighted_f1

    def test_without_any_shift_it_is_none(self) -> None:
        scores = score(made([1, 1, 1], [1, 0, 1]))
        assert (scores.emotion_shift_support, scores.emotion_shift_accuracy) == (0, None)
        with pytest.raises(RecordError, match="no change of a speaker's emotion"):
            value(scores, "emotion_shift_accuracy")

    @pytest.mark.parametrize("seed", range(5))
    def test_against_a_loop(self, seed: int) -> None:
        predictions = drawn(seed, 300, 4, unlabelled=0.2)
        last: dict[tuple[str, int], int] = {}
        right = total = 0
        for row in range(300):
            key = (predictions.dialogues[row], int(predictions.speakers[row]))
            true = int(predictions.true[row])
            if true < 0:
                continue
            if key in last and last[key] != true:
                total += 1
                right += true == predictions.predicted[row]
            last[key] = true
        scores = score(predictions)
        assert (scores.emotion_shift_support, scores.emotion_shift_accuracy) == (total, right / total)


def test_dialogue_counts_give_exactly_the_same_scores() -> None:
    for seed in range(5):
        predictions = drawn(seed, 500, 7, unlabelled=0.1)
        assert score(count_dialogues(predictions)) == score(predictions)


def test_dialogue_counts_of_hand_made_dialogues() -> None:
    counts = count_dialogues(made([0, 1, 1, -1], [0, 0, 1, 1], ("a", "b"), dialogues=["x", "x", "y", "z"]))
    assert counts.dialogues == ("x", "y", "z")
    assert counts.confusion.tolist() == [[[1, 0], [1, 0]], [[0, 0], [0, 1]], [[0, 0], [0, 0]]]
    assert counts.shift.tolist() == [[0, 1], [0, 0], [0, 0]]


class TestParts:
    def divided(self, seed: int) -> Predictions:
        """Random predictions of dialogues in two subsets and four folds."""
        predictions = drawn(seed, 400, 5, unlabelled=0.2)
        count = len(predictions.dialogue_names)
        generator = np.random.default_rng(seed)
        scripted = generator.random(count) < 0.5
        folds = generator.integers(1, 5, count, np.int16)
        return replace(predictions, subsets={"scripted": scripted, "improvised": ~scripted}, folds=folds)

    @pytest.mark.parametrize("seed", range(5))
    def test_a_subset_is_scored_as_if_it_were_all(self, seed: int) -> None:
        predictions = self.divided(seed)
        scores = score(predictions)
        assert list(scores.subsets) == ["improvised", "scripted"]
        for name, members in predictions.subsets.items():
            rows = members[predictions.dialogue_index] & (predictions.true >= 0)
            true, predicted = predictions.true[rows], predictions.predicted[rows]
            found = scores.subsets[name]
            assert found.utterances == len(true)
            assert found.dialogues == len(set(predictions.dialogue_index[rows]))
            assert found.accuracy == pytest.approx(reference.accuracy_score(true, predicted), abs=1e-12)
            for average, key in (("weighted", "weighted_f1"), ("macro", "macro_f1")):
                wanted = reference.f1_score(true, predicted, average=average, zero_division=0)
                assert getattr(found, key) == pytest.approx(wanted, abs=1e-12)
            assert found.uar == pytest.approx(reference.balanced_accuracy_score(true, predicted), abs=1e-12)
        shifts = [part.emotion_shift_support for part in scores.subsets.values()]
        assert sum(shifts) == scores.emotion_shift_support
        assert score(replace(predictions, subsets={}, folds=None)) == scores.model_copy(update={"subsets": {}})

    @pytest.mark.parametrize("seed", range(3))
    def test_a_fold_is_scored_as_if_it_were_all(self, seed: int) -> None:
        predictions = self.divided(seed)
        found = score_folds(predictions)
        assert found == score_folds(count_dialogues(predictions))
        assert list(found) == [1, 2, 3, 4]
        assert predictions.folds is not None
        for number, scores in found.items():
            rows = (predictions.folds[predictions.dialogue_index] == number) & (predictions.true >= 0)
            true, predicted = predictions.true[rows], predictions.predicted[rows]
            assert scores.weighted_f1 == pytest.approx(reference.f1_score(true, predicted, average="weighted"))
            assert scores.calibration_error is None
        assert score_folds(replace(predictions, folds=None)) == {}

    def test_a_subset_without_a_label_has_no_scores(self) -> None:
        predictions = made([0, 1, -1], [0, 0, 1], dialogues=["x", "x", "y"])
        members = {"labelled": np.array([True, False]), "silent": np.array([False, True]), "none": np.zeros(2, bool)}
        scores = score(replace(predictions, subsets=members))
        assert list(scores.subsets) == ["labelled"]
        assert scores.subsets["labelled"].weighted_f1 == scores.weighted_f1


@st.composite
def with_context(draw: st.DrawFn) -> tuple[Predictions, Predictions]:
    """Predictions, and the same between utterances and dialogues without labels, which anybody may speak."""
    before = drawn(draw(st.integers(0, 1000)), draw(st.integers(2, 40)), 3, unlabelled=0.3)
    count = len(before.dialogue_names)
    before = replace(
        before, subsets={"odd": np.arange(count) % 2 == 1}, folds=(np.arange(count) % 2 + 1).astype(np.int16)
    )
    assert before.log_probabilities is not None
    dialogues: list[str] = []
    rows: list[int] = []  # of `before`; -1 for what was added
    for name in before.dialogue_names:
        for _ in range(draw(st.integers(0, 1))):  # a dialogue of its own
            dialogues += [f"more {len(dialogues)}"] * 2
            rows += [-1, -1]
        for row in np.flatnonzero([each == name for each in before.dialogues]).tolist():
            extra = draw(st.integers(0, 2))
            dialogues += [name] * (extra + 1)
            rows += [-1] * extra + [row]
    old = np.array(rows)
    speakers = np.array([draw(st.integers(0, 2)) if row < 0 else before.speakers[row] for row in rows])
    scores = np.where((old < 0)[:, None], np.log([[0.2, 0.5, 0.3]]), before.log_probabilities[old].astype(float))
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    after = made(
        np.where(old < 0, -1, before.true[old]),
        np.where(old < 0, 1, before.predicted[old]),
        before.classes,
        dialogues=dialogues,
        speakers=speakers,
    )
    place = {name: number for number, name in enumerate(before.dialogue_names)}
    kept = [place.get(name) for name in after.dialogue_names]
    assert before.folds is not None
    return before, replace(
        after,
        log_probabilities=np.where((old < 0)[:, None], scores, before.log_probabilities[old]).astype(np.float16),
        subsets={"odd": np.array([at is None or at % 2 == 1 for at in kept])},
        folds=np.array([1 if at is None else before.folds[at] for at in kept], np.int16),
    )


@given(with_context())
@settings(max_examples=60, deadline=None)
def test_unlabelled_utterances_and_dialogues_change_no_score(both: tuple[Predictions, Predictions]) -> None:
    before, after = both
    if not (before.true >= 0).any():
        with pytest.raises(RecordError, match="no utterance has a label"):
            score(after)
        return
    assert score(after) == score(before)
    counts = count_dialogues(after)
    assert score(counts) == score(before)
    assert counts.utterances == int((before.true >= 0).sum())


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(RecordError, match="no utterance has a label"):
        score(made([-1, -1], [0, 1]))


def test_classes_with_f1_zero_are_named_and_absent_ones_are_not() -> None:
    assert zero_f1_classes(score(made([0, 0, 2, 3], [0, 2, 0, 3]))) == ["fear"]


def test_every_metric_is_a_score_and_unknown_ones_are_answered_with_the_nearest() -> None:
    scores = score(drawn(0, 300, 4))
    for name, metric in METRICS.items():
        assert metric.name == name
        assert name in Scores.model_fields
        assert 0 <= value(scores, name) <= 1
    assert not METRICS["calibration_error"].higher_is_better
    with pytest.raises(UnknownNameError, match="Did you mean 'weighted_f1'"):
        value(scores, "weigthed_f1")


def test_scoring_a_test_split_of_melds_size_takes_under_20_milliseconds() -> None:
    predictions = drawn(0, 2610, 7)
    parts = (predictions.classes, predictions.ids, predictions.dialogues, predictions.positions)
    more = (predictions.speakers, predictions.true, predictions.predicted, predictions.log_probabilities)
    assert min(timeit.repeat(lambda: score(Predictions(*parts, *more)), number=1, repeat=20)) < 0.02


@pytest.mark.parametrize("room", ["metrics", "predictions", "records", "statistics", "atomic"])
def test_neither_torch_nor_scikit_learn_is_imported(room: str, tmp_path: Path) -> None:
    program = (
        f"import sys, mer_bench.{room}\n"
        "print(sorted({'torch', 'sklearn', 'scipy', 'pandas'} & {name.split('.')[0] for name in sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert found.stdout.strip() == "[]"
