"""A study on made-up data, from the first trial to its limit."""

from __future__ import annotations

from pathlib import Path

from mer_bench.runner import RunRequest
from mer_bench.tuning.study import TuneRequest, plan_study
from mer_bench.tuning.workers import tune


def test_a_study_runs_to_its_limit(tmp_path: Path) -> None:
    run = RunRequest("textonly", "meld-synthetic", settings={"epochs": 2}, out=tmp_path, data_root=tmp_path, threads=1)
    study = tune(plan_study(TuneRequest(run, trials=3)))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    assert study.trials[0].user_attrs["settings"]["epochs"] == 2
