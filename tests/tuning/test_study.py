"""What a study is about, which one is refused, and which samplers and pruners go together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from mer_bench import registry
from mer_bench.errors import RequestError, UnknownNameError
from mer_bench.request import RunRequest
from mer_bench.runner import Listener, open_device, open_run
from mer_bench.tuning import objective
from mer_bench.tuning.study import StudyPlan, TuneRequest, about, check_about, open_study, plan_study, study_name
from mer_bench.tuning.workers import tune

SMALL = {"weight_decay": 0.0, "batch_size": 64, "schedule": "flat", "label_smoothing": 0.0, "breaks": ""}


def told_of(planned: StudyPlan) -> dict[str, Any]:
    return about(planned, open_run(planned.plan, open_device(planned.plan.request), Listener()))


def with_settings(run: RunRequest, **values: Any) -> RunRequest:
    return replace(run, settings={**SMALL, **values})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sampler": "tpee"}, "no sampler is called 'tpee'. Did you mean 'tpe'?"),
        ({"pruner": "medain"}, "no pruner is called 'medain'. Did you mean 'median'?"),
        ({"seeds_per_trial": 0}, "needs at least 1 seed, but 0 were asked for"),
        ({"trials": None}, "a study without a limit never ends"),
        ({"sampler": "nsga2", "pruner": "median"}, "runs without a pruner, but --pruner median was given"),
        ({"pruner": "wilcoxon"}, "needs at least 5 to tell anything, but a trial has 1"),
        ({"pruner": "wilcoxon", "seeds_per_trial": 4}, "give --seeds-per-trial 5 or more"),
        ({"sampler": "grid"}, "more than 10000 points; narrow it"),
    ],
)
def test_a_wrong_request_is_one_sentence(run: RunRequest, changes: Mapping[str, Any], says: str) -> None:
    with pytest.raises((RequestError, UnknownNameError), match=says):
        plan_study(replace(TuneRequest(run), **changes))


def test_a_protocol_that_tests_every_dialogue_has_no_study(run: RunRequest) -> None:
    with pytest.raises(RequestError, match="tests every dialogue in one of its 2 folds"):
        plan_study(TuneRequest(replace(run, protocol="halves")))


def test_the_pruner_is_the_median_but_where_cost_counts(run: RunRequest) -> None:
    assert plan_study(TuneRequest(run)).pruner == "median"
    assert plan_study(TuneRequest(run, sampler="nsga2")).pruner == "none"
    assert plan_study(TuneRequest(run, pruner="wilcoxon", seeds_per_trial=5)).pruner == "wilcoxon"


def test_a_study_keeps_what_it_is_about(run: RunRequest) -> None:
    planned = plan_study(TuneRequest(with_settings(run), trials=1, seeds_per_trial=2))
    study = tune(planned)
    told = told_of(planned)
    assert study.user_attrs["about"] == json.loads(json.dumps(told))
    assert told["model"] == "searched"
    assert len(told["model_code"]) == len(told["data_checksum"]) == 64
    assert told["features"] == "trios/default"
    assert told["metric"] == "weighted_f1"
    assert told["synthetic"] is True
    assert told["seeds"] == [0, 1]
    assert told["fixed"] == SMALL
    assert told["space"]["width"] == {"of": "model", "start": 12, "low": 12, "high": 64, "step": 4, "log": False}
    assert told["space"]["bias"]["when"] == {"kind": "gate"}
    assert study.user_attrs["budget"] == {"trials": 1, "timeout": None}
    assert study.metric_names == ["weighted_f1"]


def test_what_decides_a_trial_decides_the_name(run: RunRequest) -> None:
    request = TuneRequest(run)
    requests = [
        request,
        replace(request, seeds_per_trial=2),
        replace(request, sampler="random"),
        replace(request, pruner="none"),
        replace(request, narrowed={"kind": ["sum", "gate"]}),
        replace(request, run=replace(run, settings={"width": 16})),
        replace(request, run=replace(run, modalities=("text",))),
    ]
    names = set()
    for each in requests:
        planned = plan_study(each)
        names.add(study_name(planned, told_of(planned)))
    assert len(names) == len(requests)
    same = plan_study(replace(request, trials=7, timeout=3.0))
    assert study_name(same, told_of(same)) in names


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("model", "other", "with model searched and not other"),
        ("data_checksum", "0" * 64, "with data checksum "),
        ("model_version", 2, "with model version 1 and not 2"),
        ("model_code", None, "with model code "),
        ("protocol_version", 3, "with protocol version 1 and not 3"),
        ("seeds", [0, 1], r"with seeds \[0\] and not \[0, 1\]"),
        ("sampler", "random", "with sampler tpe and not random"),
        ("modalities", ["text"], "with modalities "),
    ],
)
def test_a_study_about_something_else_is_refused(run: RunRequest, key: str, value: Any, says: str) -> None:
    planned = plan_study(TuneRequest(run, study="mine"))
    told = told_of(planned)
    storage = optuna.storages.InMemoryStorage()
    before = open_study(planned, told, storage)
    with pytest.raises(RequestError, match=f"the study 'mine' is there already, {says}"):
        open_study(planned, {**told, key: value}, storage)
    again = open_study(planned, told, storage)
    assert [each.state.name for each in again.trials] == [each.state.name for each in before.trials] == ["WAITING"]


def test_a_key_that_a_later_version_added_is_a_difference_too() -> None:
    with pytest.raises(RequestError, match="with later null and not 1"):
        check_about("mine", {"model": "a"}, {"model": "a", "later": 1})
    with pytest.raises(RequestError, match="with earlier 1 and not null"):
        check_about("mine", {"model": "a", "earlier": 1}, {"model": "a"})


def test_a_study_that_others_made_is_left_alone(run: RunRequest) -> None:
    storage = optuna.storages.InMemoryStorage()
    foreign = optuna.create_study(study_name="mine", storage=storage, direction="maximize")
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    planned = plan_study(TuneRequest(run, study="mine"))
    with pytest.raises(RequestError, match="the study 'mine' was not made by mer-bench tune"):
        open_study(planned, told_of(planned), storage)
    assert foreign.user_attrs == {}


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random", "gp"])
def test_each_sampler_begins_with_the_card_and_goes_on(run: RunRequest, sampler: str) -> None:
    planned = plan_study(TuneRequest(with_settings(run, epochs=1), trials=12, sampler=sampler))
    study = tune(planned)
    assert [each.state.name for each in study.trials] == ["COMPLETE"] * 12
    assert study.trials[0].params == planned.space.start()
    assert len({json.dumps(each.params) for each in study.trials}) > 6
    for each in study.trials:
        assert each.user_attrs["settings"] == planned.space.settings_of(each.params)
        assert ("bias" in each.params) == (each.params["kind"] == "gate")
        assert ("size" in each.params) == (each.params.get("bias") is True)


def test_a_study_with_one_worker_can_be_repeated(run: RunRequest, tmp_path: Path) -> None:
    planned = plan_study(TuneRequest(with_settings(run, epochs=2), trials=12))
    again = replace(planned, request=replace(planned.request, storage=str(tmp_path / "other.sqlite3")))
    first, second = tune(planned), tune(again)
    assert [each.params for each in first.trials] == [each.params for each in second.trials]
    assert [each.value for each in first.trials] == [each.value for each in second.trials]


def test_a_grid_is_tried_once_and_then_the_study_is_over(run: RunRequest) -> None:
    narrowed = {"width": [16, 32], "size": {"high": 2}}
    run = with_settings(run, epochs=1, learning_rate=0.05)
    planned = plan_study(TuneRequest(run, narrowed, sampler="grid", trials=4))
    study = tune(planned)
    assert len(study.trials) == 4
    assert study.trials[0].params == planned.space.start()
    study = tune(plan_study(TuneRequest(run, narrowed, sampler="grid", trials=None)))
    points = {json.dumps(point, sort_keys=True) for point in planned.space.combinations()}
    assert sorted(json.dumps(each.params, sort_keys=True) for each in study.trials) == sorted(points)
    assert len(points) == 2 * (2 + 1 + 2)


def test_score_is_weighed_against_seconds_of_training(run: RunRequest) -> None:
    study = tune(plan_study(TuneRequest(with_settings(run, epochs=1), trials=4, sampler="nsga2")))
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["weighted_f1", "training seconds"]
    for each in study.trials:
        score, seconds = each.values
        assert 0 <= score <= 1
        assert seconds == pytest.approx(each.user_attrs["seconds"], abs=1e-3)
        assert each.intermediate_values == {}


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_trial_without_a_prospect_is_given_up(run: RunRequest, pruner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "ASKED_AFTER_SECONDS", 0.0)
    run = with_settings(run, epochs=20, patience=20, width=16, kind="sum")
    study = tune(plan_study(TuneRequest(run, trials=20, pruner=pruner, sampler="random")))
    pruned = [each for each in study.trials if each.state.name == "PRUNED"]
    assert pruned
    for each in pruned:
        assert each.user_attrs["epochs"] == each.last_step
        assert each.user_attrs["epochs"] < 20
        assert "reason" not in each.user_attrs
    done = next(each for each in study.trials if each.state.name == "COMPLETE")
    best_so_far = list(done.intermediate_values.values())
    assert best_so_far == sorted(best_so_far)
    assert done.value == best_so_far[-1]


def test_a_trial_that_is_over_at_once_is_not_given_up(run: RunRequest) -> None:
    study = tune(plan_study(TuneRequest(with_settings(run, epochs=2), trials=8, sampler="random")))
    assert {each.state.name for each in study.trials} == {"COMPLETE"}


def test_a_trial_that_loses_with_seed_after_seed_is_given_up(run: RunRequest) -> None:
    run = with_settings(run, epochs=3, width=16, kind="sum")
    request = TuneRequest(run, trials=12, pruner="wilcoxon", seeds_per_trial=6, sampler="random")
    study = tune(plan_study(request))
    pruned = [each for each in study.trials if each.state.name == "PRUNED"]
    assert pruned
    assert all(len(each.user_attrs["scores"]) < 6 for each in pruned)
    assert list(study.trials[0].intermediate_values) == [1, 2, 3, 4, 5]
    assert study.trials[0].value == pytest.approx(sum(study.trials[0].user_attrs["scores"]) / 6)


def test_cmaes_says_what_it_needs(run: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mer_bench.tuning.study.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install 'mer-bench\[tune\]'"):
        plan_study(TuneRequest(run, sampler="cmaes"))


def test_the_built_in_models_have_studies() -> None:
    for model in ("cmath", "dialoguernn", "mmgcn"):
        assert registry.models().find(model)
        assert len(plan_study(TuneRequest(RunRequest(model, "meld"))).space.dimensions) > 5
