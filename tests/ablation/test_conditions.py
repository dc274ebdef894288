"""The test split under conditions: which there are, what a model sees of it, what its record says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from mer_bench import runner
from mer_bench.ablation.conditions import TrainedRun, conditions_of, reachable_rates, trained_run
from mer_bench.data.missing import MASKS, RATES, random_mask
from mer_bench.errors import RunError
from mer_bench.metrics import rescore
from mer_bench.predictions import DialogueCounts, read_outcomes, read_predictions
from mer_bench.recording import Recording
from mer_bench.records import Condition, Record, read_record, record_folder
from mer_bench.runner import Listener, Opened, RunRequest

ALL = ("text", "audio", "visual")
pytestmark = pytest.mark.usefixtures("place")


def opened(request: RunRequest) -> Opened:
    planned = runner.plan(request)
    return runner.open_run(planned, runner.open_device(request), Listener())


def trained(request: RunRequest) -> TrainedRun:
    record = runner.run(request)
    found = trained_run(opened(request), record)
    assert found
    return found


def conditions(run: TrainedRun) -> dict[str, Condition]:
    counts = [store.manifest.counts["test"].utterances for store in run.opened.stores]
    made = conditions_of(run.opened.plan.modalities, counts, run.record.identity)
    return {each.full_name: each for each in made}


class TestWhich:
    def test_three_modalities(self) -> None:
        found = conditions_of(ALL, [100], "f" * 64)
        assert [each.name for each in found[:6]] == [
            "only-text-audio",
            "only-text-visual",
            "only-audio-visual",
            "only-text",
            "only-audio",
            "only-visual",
        ]
        assert [(each.rate, each.mask) for each in found[6:]] == [
            (rate, number) for rate in RATES for number in range(1, MASKS + 1)
        ]
        assert found[-1].reached == pytest.approx(2 / 3)
        assert found[6].reached == 0.1
        assert len({each.full_name for each in found}) == len(found)

    def test_of_two_modalities_half_can_be_missing(self) -> None:
        found = conditions_of(("text", "audio"), [100], "f" * 64)
        assert [each.name for each in found[:2]] == ["only-text", "only-audio"]
        assert {each.rate for each in found[2:]} == {0.1, 0.2, 0.3, 0.4, 0.5}
        assert found[-1].reached == 0.5

    def test_a_rate_is_reached_over_all_folds(self) -> None:
        found = [each for each in conditions_of(ALL, [3, 8], "f" * 64) if each.rate == 0.1]
        assert found[0].reached == (1 + 2) / 33

    @pytest.mark.parametrize(("modalities", "rates"), [(1, ()), (2, (0.1, 0.2, 0.3, 0.4, 0.5)), (3, RATES), (4, RATES)])
    def test_each_rate_takes_more_than_the_one_before(self, modalities: int, rates: Sequence[float]) -> None:
        assert reachable_rates(modalities) == rates

    def test_a_single_modality_cannot_be_missing(self) -> None:
        assert conditions_of(("text",), [100], "f" * 64) == []


def expected_score(run: TrainedRun, there: NDArray[np.bool_]) -> float:
    """Weighted F1 of a reader that says the label where its modality is there, and calm elsewhere."""
    truth = run.splits[0].labels
    assert truth is not None
    return float(f1_score(truth.numpy(), np.where(there, truth.numpy(), 0), average="weighted", zero_division=0))


def test_a_model_that_reads_the_text_scores_as_it_should_under_each_condition(whole: RunRequest) -> None:
    run = trained(whole)
    utterances = run.splits[0].utterance_count
    for condition in conditions(run).values():
        record = run.score(condition)
        assert record.test is not None
        if condition.rate is None:
            there = np.full(utterances, "text" in condition.present)
        else:
            assert condition.mask is not None
            there = random_mask(utterances, ALL, condition.rate, condition.mask)["text"]
        assert record.test.weighted_f1 == pytest.approx(expected_score(run, there)), condition
    assert run.record.test is not None
    assert run.record.test.weighted_f1 == 1


def test_two_models_see_the_same_masks(whole: RunRequest) -> None:
    of_text, needy = trained(whole), trained(replace(whole, model="needy", settings={"batch_size": 2}, seed=3))
    for name in ("missing-0.3-mask2", "missing-0.7-mask5"):
        one, other = (run.predictions(conditions(run)[name]) for run in (of_text, needy))
        assert np.array_equal(one.predicted, other.predicted)


def test_the_record_of_a_condition_is_that_of_the_run_but_for_the_test(whole: RunRequest) -> None:
    run = trained(whole)
    condition = conditions(run)["missing-0.3-mask2"]
    record = run.score(condition)
    folder = record_folder(whole.out, record)
    assert record.test_condition == condition
    assert condition.model_of == run.record.identity
    assert record.run == f"reader.default.seed0.missing-0.3-mask2.{record.identity[:12]}"
    assert read_record(folder / f"{record.run}.json") == record
    assert rescore(folder / f"{record.run}.json") == record.test
    own = {"run", "identity", "test", "predictions", "test_condition"}
    shared = set(Record.model_fields) - own
    assert all(getattr(record, name) == getattr(run.record, name) for name in shared)
    assert all(getattr(record, name) != getattr(run.record, name) for name in own)
    assert not (folder / f"{record.run}.model.safetensors").exists()
    assert len({run.score(each).identity for each in conditions(run).values()} | {run.record.identity}) == 42


def test_where_labels_may_not_be_passed_on_there_are_counts_alone(whole: RunRequest) -> None:
    run = trained(replace(whole, dataset="closed-trios"))
    record = run.score(conditions(run)["only-audio"])
    assert record.predictions
    file = record_folder(whole.out, record) / record.predictions.file
    assert isinstance(read_outcomes(file), DialogueCounts)
    assert rescore(file.with_name(f"{record.run}.json")) == record.test


def test_folds_have_masks_and_scores_of_their_own(whole: RunRequest) -> None:
    run = trained(replace(whole, protocol="halves"))
    condition = conditions(run)["missing-0.5-mask1"]
    record = run.score(condition)
    assert rescore(record_folder(whole.out, record) / f"{record.run}.json") == record.test
    assert [fold.test for fold in record.folds] != [fold.test for fold in run.record.folds]
    assert [fold.dev for fold in record.folds] == [fold.dev for fold in run.record.folds]
    assert record.predictions
    found = read_predictions(record_folder(whole.out, record) / record.predictions.file)
    there = np.concatenate(
        [random_mask(split.utterance_count, ALL, 0.5, 1, fold)["text"] for fold, split in enumerate(run.splits, 1)]
    )
    assert np.array_equal(found.predicted, np.where(there, found.true, 0))


def test_a_model_that_fails_under_a_condition_leaves_a_failed_record(whole: RunRequest) -> None:
    run = trained(replace(whole, settings={"breaks_without_text": True}))
    condition = conditions(run)["only-audio"]
    with pytest.raises(RunError, match="reader failed: IndexError: no text at all"):
        run.score(condition)
    record = read_record(Recording(run.opened.plan, run.opened.stores, condition).file)
    assert (record.status, record.test_condition, record.test) == ("failed", condition, None)
    assert record.failure
    assert "no text at all" in record.failure.reason
    assert run.score(conditions(run)["only-text"]).status == "done"


def weights_of(run: TrainedRun) -> Path:
    return Recording(run.opened.plan, run.opened.stores).weights


def test_weights_that_are_gone_damaged_or_anothers_are_not_taken(whole: RunRequest) -> None:
    run = trained(whole)
    other = trained(replace(whole, settings={"shift": 1}))
    alone = trained(replace(whole, model="needy", modalities=("text",)))
    assert trained_run(run.opened, run.record)
    file = weights_of(run)
    file.write_bytes(b"torn")
    assert trained_run(run.opened, run.record) is None
    file.unlink()
    assert trained_run(run.opened, run.record) is None
    file.write_bytes(weights_of(alone).read_bytes())
    assert trained_run(run.opened, run.record)  # of a model with the very same weights
    assert trained_run(other.opened, run.record) is None  # weights that fit, and give other scores
