"""What a trial is: dev alone, a mean over seeds, and a reason where it failed."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_bench.data.store import Store
from mer_bench.request import RunRequest, plan
from mer_bench.runner import Listener, Opened, open_device, open_run
from mer_bench.runner import run as run_once
from mer_bench.tuning.study import TuneRequest, plan_study
from mer_bench.tuning.workers import tune

FIXED = {"epochs": 3, "breaks": ""}


def opened(run: RunRequest) -> Opened:
    return open_run(plan(run), open_device(run), Listener())


def test_test_is_never_read_inside_a_study(run: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(run)  # prepared, which reads everything
    refused: list[str] = []

    def closed(name: str) -> Callable[..., Any]:
        read = getattr(Store, name)

        def guarded(store: Store, split: str, *arguments: Any, **more: Any) -> Any:
            if split == "test":
                refused.append(name)
                raise AssertionError(f"{name} of the test split was read")
            return read(store, split, *arguments, **more)

        return guarded

    for name in ("split", "identifiers", "subsets"):  # opening a store checks how long its splits are
        monkeypatch.setattr(Store, name, closed(name))
    request = TuneRequest(replace(run, settings=FIXED), trials=3, seeds_per_trial=2)
    study = tune(plan_study(request))
    assert [each.state.name for each in study.trials] == ["COMPLETE"] * 3
    assert refused == []
    with pytest.raises(Exception, match="of the test split was read"):
        run_once(replace(run, settings=FIXED))
    assert refused


def test_what_is_in_test_changes_no_trial(run: RunRequest, tmp_path: Path) -> None:
    request = replace(run, settings=FIXED)
    before = tune(plan_study(TuneRequest(request, trials=4, storage=str(tmp_path / "before.sqlite3"))))
    store = opened(run).stores[0]
    dialogues, utterances = store.rows("test")
    assert dialogues.stop - dialogues.start == 12
    garbage = {name: np.asarray(array).copy() for name, array in store.arrays.items()}
    for name, array in garbage.items():
        if name.startswith("features."):
            array[utterances] = np.nan
        elif name == "labels":
            array[utterances] = (array[utterances] + 1) % 3
    spoiled = replace(store, arrays=garbage)
    assert not np.array_equal(spoiled.arrays["labels"], store.arrays["labels"])

    from mer_bench.tuning import workers

    def open_spoiled(*arguments: Any) -> Opened:
        return replace(open_run(*arguments), stores=(spoiled,))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "open_run", open_spoiled)
        after = tune(plan_study(TuneRequest(request, trials=4, storage=str(tmp_path / "after.sqlite3"))))
    assert [each.value for each in after.trials] == [each.value for each in before.trials]
    assert [each.params for each in after.trials] == [each.params for each in before.trials]


def test_a_trial_trains_as_a_run_with_its_settings_does(run: RunRequest) -> None:
    study = tune(plan_study(TuneRequest(replace(run, settings=FIXED), trials=3, seeds_per_trial=2)))
    for each in study.trials:
        settings, scores = each.user_attrs["settings"], each.user_attrs["scores"]
        records = [run_once(replace(run, settings=settings, seed=seed)) for seed in (0, 1)]
        assert [record.selection.score for record in records if record.selection] == scores
        assert each.value == pytest.approx(statistics.fmean(scores))
        assert records[0].cost is not None
        assert each.user_attrs["parameters"] == records[0].cost.parameters
        assert each.user_attrs["epochs"] == sum(len(record.curve) for record in records)
        assert 0 < each.user_attrs["seconds"] < 60


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("nan", "DivergedError", "became NaN or infinite in epoch 1"),
        ("memory", "OutOfMemoryError", "exhausted the memory on split train"),
        ("code", "RunError", "searched failed: IndexError: no such row"),
    ],
)
def test_a_failed_trial_has_a_reason_and_the_study_goes_on(run: RunRequest, fault: str, kind: str, says: str) -> None:
    settings = {"epochs": 2, "breaks": fault}
    study = tune(plan_study(TuneRequest(replace(run, settings=settings), trials=2)))
    assert [each.state.name for each in study.trials] == ["FAIL", "FAIL"]
    for each in study.trials:
        assert each.user_attrs["kind"] == kind
        assert says in each.user_attrs["reason"]
        assert each.user_attrs["settings"]["breaks"] == fault


def test_among_failed_trials_others_are_complete(run: RunRequest) -> None:
    study = tune(plan_study(TuneRequest(replace(run, settings={"epochs": 2}), trials=12, sampler="random")))
    states = {each.params["breaks"]: each.state.name for each in study.trials}
    assert states == {"": "COMPLETE", "nan": "FAIL"}
    assert study.best_trial.params["breaks"] == ""


def test_settings_that_do_not_go_together_are_a_failed_trial(run: RunRequest) -> None:
    settings = {"epochs": 2, "breaks": "", "class_weights": [1.0, 2.0]}
    study = tune(plan_study(TuneRequest(replace(run, settings=settings), trials=1)))
    assert "class_weights needs one number for each of the 3 classes" in study.trials[0].user_attrs["reason"]


def test_a_wrapper_is_tuned_with_what_is_inside_it(run: RunRequest) -> None:
    settings = {"epochs": 2, "inner.breaks": ""}
    study = tune(plan_study(TuneRequest(replace(run, model="around", settings=settings), trials=3)))
    assert [each.state.name for each in study.trials] == ["COMPLETE"] * 3
    assert "inner.width" in study.trials[1].user_attrs["settings"]
