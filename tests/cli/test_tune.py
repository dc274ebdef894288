"""`mer-bench tune`: options in, a study out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.trios import Place
from tests.tuning.conftest import models, place

from .conftest import Invoke

__all__ = ["models", "place"]

FIX = ("--fix", "epochs=2", "--fix", "breaks=")


@pytest.fixture
def words(models: Place) -> tuple[str, ...]:
    return ("tune", "--model", "searched", "--dataset", "trios", "--data-root", str(models.data), "--threads", "1")


def answer(result: Any) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_study_is_made_told_of_and_goes_on(invoke: Invoke, words: tuple[str, ...], tmp_path: Path) -> None:
    result = invoke(*words, *FIX, "--trials", "3", "--out", "here")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert any(line.startswith("study searched.trios.default.") for line in lines)
    assert "9 settings are searched until 3 trials; sampler tpe, pruner median" in result.stdout
    assert sum(line.startswith("trial ") for line in lines) == 3
    assert "best: trial " in result.stdout
    assert (tmp_path / "here" / "studies.sqlite3").exists()
    told = answer(invoke(*words, *FIX, "--trials", "5", "--out", "here", "--json"))
    assert told["trials"]["complete"] == 5
    assert told["budget"] == {"trials": 5, "timeout": None}
    assert told["best"][0]["settings"]["epochs"] == 2
    again = invoke(*words, *FIX, "--trials", "5", "--out", "here")
    assert "5 trials are there already" in again.stdout
    assert "trial 5" not in again.stdout


def test_several_models_have_one_equal_budget_each(invoke: Invoke, words: tuple[str, ...], tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text('schedule = ["flat", "linear"]\n[around]\nwidth = [0.0, 4.0]\n[searched]\nwidth = [16]\n')
    told = answer(
        invoke(
            *words,
            *("--models", "searched,around", "--trials", "2", "--fix", "epochs=2", "--study", "mine", "--json"),
            *("--fix", "searched.breaks=", "--fix", "around.inner.breaks=", "--space", str(space)),
        )
    )
    assert [each["study"] for each in told] == ["mine.searched", "mine.around"]
    assert [each["about"]["model"] for each in told] == ["searched", "around"]
    assert [each["trials"]["complete"] for each in told] == [2, 2]
    assert [each["about"]["fixed"] for each in told] == [
        {"epochs": 2, "breaks": ""},
        {"epochs": 2, "inner.breaks": ""},
    ]
    assert [each["about"]["space"]["width"]["choices"] for each in told] == [[16], [0.0, 4.0]]
    assert all(each["about"]["space"]["schedule"]["choices"] == ["flat", "linear"] for each in told)


def test_a_space_file_may_have_a_table_for_the_model(invoke: Invoke, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text("[searched]\nwidth = [16]\n")
    told = answer(invoke(*words, *FIX, "--trials", "1", "--space", "space.toml", "--json"))
    assert told["about"]["space"]["width"]["choices"] == [16]


def test_a_timeout_is_of_the_study(invoke: Invoke, words: tuple[str, ...]) -> None:
    slow = (*words, *FIX, "--fix", "seconds=0.3", "--timeout", "1", "--json")
    first = answer(invoke(*slow))["trials"]["complete"]
    assert 1 <= first <= 3
    assert answer(invoke(*slow))["trials"]["complete"] == first


def test_score_against_cost_says_that_nothing_is_pruned(invoke: Invoke, words: tuple[str, ...]) -> None:
    result = invoke(*words, *FIX, "--sampler", "nsga2", "--trials", "3")
    assert result.exit_code == 0, result.stderr
    assert "sampler nsga2, no pruner" in result.stdout
    assert "score is weighed against seconds of training, so that no trial is given up" in result.stdout
    assert "no trial is better in both than these" in result.stdout


def test_failed_trials_are_told_of_and_no_success_is_a_failure(invoke: Invoke, words: tuple[str, ...]) -> None:
    result = invoke(*words, "--fix", "breaks=code", "--trials", "2")
    assert result.exit_code == 1
    assert "warning: trial 1 failed: searched failed: IndexError: no such row" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("mer-bench: no trial of the study searched.trios.default.")
    assert result.stderr.endswith("succeeded; the first of them: searched failed: IndexError: no such row\n")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--model", "serched"), "no model is called 'serched'. Did you mean 'searched'?"),
        (("--models", "searched,"), "models are names with commas between them"),
        (("--models", "searched,searched"), "the model 'searched' stands twice"),
        (("--dataset", "trois"), "no dataset is called 'trois'. Did you mean 'trios'?"),
        (("--fix", "widht=16"), "no setting is called 'widht'. Did you mean 'width'"),
        (("--fix", "width=4096"), "width must be a whole number in [1, 512], but is 4096 (from --fix width=4096)."),
        (("--fix", "width"), "a setting is written key=value"),
        (("--sampler", "tpee"), "no sampler is called 'tpee'"),
        (("--pruner", "wilcoxon"), "needs at least 5"),
        (("--sampler", "grid"), "more than 10000 points"),
        (("--space", "none.toml"), "the space file none.toml cannot be read"),
        (("--protocol", "halves"), "tests every dialogue in one of its 2 folds"),
        (("--trials", "0"), "should be greater than or equal to 1"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    invoke: Invoke, words: tuple[str, ...], tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    result = invoke(*words, *options)
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.sqlite3"))


def test_a_range_outside_the_legal_one_is_one_sentence(invoke: Invoke, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text("width = { low = 1, high = 4096 }\n")
    result = invoke(*words, "--space", "space.toml")
    assert result.exit_code == 2
    assert "width is searched in [12, 64] in steps of 4, but --space asks for [1, 4096]" in result.stderr


def test_settings_are_shown_as_they_are_given(invoke: Invoke, words: tuple[str, ...]) -> None:
    result = invoke(*words, *FIX, "--fix", "kind=gate", "--trials", "1", "--seeds", "0")
    assert re.search(r"^bias +true +true", result.stdout, flags=re.MULTILINE)


def test_another_study_of_that_name_is_refused_and_kept(invoke: Invoke, words: tuple[str, ...]) -> None:
    assert invoke(*words, *FIX, "--trials", "1", "--study", "mine").exit_code == 0
    result = invoke(*words, *FIX, "--trials", "2", "--study", "mine", "--seeds-per-trial", "2")
    assert result.exit_code == 2
    assert "the study 'mine' is there already, with seeds [0] and not [0, 1]" in result.stderr
    assert answer(invoke(*words, *FIX, "--trials", "1", "--study", "mine", "--json"))["trials"]["complete"] == 1


def test_tune_without_a_model_says_what_it_needs(invoke: Invoke) -> None:
    result = invoke("tune")
    assert result.exit_code == 2
    assert "a study needs --model and --dataset" in result.stderr
