"""The best settings of a study become records that name it; what was run before is marked and not run again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from mer_bench.errors import RequestError
from mer_bench.records import Record, Tuned, read_record
from mer_bench.request import RunRequest
from mer_bench.runner import run
from mer_bench.tuning.best import BestListener, export_text, is_at_rest, run_best
from mer_bench.tuning.kept import KeptStudy, find_study
from mer_bench.tuning.study import TuneRequest, plan_study
from mer_bench.tuning.workers import tune

FIXED = {"epochs": 1, "width": 64, "layers": 1, "heads": 2, "feedforward": 1, "batch_size": 64}


class Heard(BestListener):
    def __init__(self) -> None:
        self.trained: list[int] = []
        self.marked: list[bool] = []

    def run_ended(self, record: Record) -> None:
        self.trained.append(record.seed)

    def record_found(self, record: Record, marked: bool) -> None:
        self.marked.append(marked)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def request_(tmp_path: Path, data: Path) -> RunRequest:
    return RunRequest("textonly", "meld-synthetic", settings=FIXED, out=tmp_path / "runs", data_root=data, threads=1)


@pytest.fixture
def study(request_: RunRequest) -> optuna.Study:
    return tune(plan_study(TuneRequest(request_, study="toy", trials=2, timeout=1000.0, pruner="none")))


def files(request: RunRequest) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in request.out.glob("*/*/*")}


def test_the_records_name_the_study_its_trials_and_its_budget(study: optuna.Study, request_: RunRequest) -> None:
    best = run_best(study, request_, [0, 1])
    assert [record.seed for record in best.records] == [0, 1]
    trial = max(study.trials, key=lambda each: each.value or 0.0)
    expected = Tuned(
        study="toy",
        trial=trial.number,
        trials=2,
        budget_trials=2,
        budget_seconds=1000.0,
        seeds_per_trial=1,
        sampler="tpe",
        dev=trial.value,
    )
    on_disk = [read_record(file) for file in sorted(request_.out.rglob("*.json"))]
    assert sorted(on_disk, key=lambda record: record.seed) == list(best.records)
    assert {record.tuned for record in on_disk} == {expected}
    # Same seed, same settings: the run is the trial's training once more, and only now is test scored.
    assert on_disk[0].selection
    assert best.records[0].selection
    assert best.records[0].selection.score == trial.value
    assert best.records[0].options["settings"] == trial.user_attrs["settings"]


def test_a_second_time_nothing_is_run_and_nothing_written(study: optuna.Study, request_: RunRequest) -> None:
    run_best(study, request_, [0])
    before = files(request_)
    heard = Heard()
    run_best(study, request_, [0], heard)
    assert (heard.trained, heard.marked) == ([], [False])
    assert files(request_) == before


def test_a_run_of_the_same_settings_is_marked_and_stays_what_it_was(study: optuna.Study, request_: RunRequest) -> None:
    chosen = KeptStudy(study).best().user_attrs["settings"]
    by_hand = run(replace(request_, settings=chosen))
    assert by_hand.tuned is None
    before = files(request_)
    heard = Heard()
    marked = run_best(study, request_, [0, 1], heard).records[0]
    assert (heard.trained, heard.marked) == ([1], [True])
    assert marked.identity == by_hand.identity
    assert marked.tuned is not None
    after = files(request_)
    changed = [name for name, content in before.items() if after[name] != content]
    assert changed == [f"{by_hand.run}.json"]
    written = json.loads(after[changed[0]])
    assert written.pop("tuned")["study"] == "toy"
    assert written == json.loads(before[changed[0]])
    # And `run` that repeats it by hand keeps the mark: the settings still come from the study.
    assert run(replace(request_, settings=chosen)).tuned == marked.tuned


def test_an_exported_file_is_the_very_run(study: optuna.Study, request_: RunRequest, tmp_path: Path) -> None:
    from mer_bench.request import read_settings_file

    kept = find_study("toy", str(request_.out / "studies.sqlite3"))
    (tmp_path / "best.toml").write_text(export_text(kept, kept.best()), encoding="utf-8")
    settings = read_settings_file(tmp_path / "best.toml")
    assert settings == kept.best().user_attrs["settings"]
    (record,) = run_best(study, request_, [0]).records
    again = run(replace(request_, settings=settings, out=tmp_path / "elsewhere"))
    assert again.identity == record.identity
    assert again.test == record.test
    assert again.tuned is None


def test_a_study_with_a_running_trial_is_not_at_rest(study: optuna.Study) -> None:
    assert is_at_rest(study)
    study.ask()
    assert not is_at_rest(study)


def test_without_a_complete_trial_there_is_nothing_best(study: optuna.Study, request_: RunRequest) -> None:
    empty = optuna.create_study(study_name="empty")
    for name, value in study.user_attrs.items():
        empty.set_user_attr(name, value)
    with pytest.raises(RequestError, match="'empty' has no complete trial"):
        run_best(empty, request_, [0])
