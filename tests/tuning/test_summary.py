"""What is said of a study: who was best, what mattered, what went wrong."""

from __future__ import annotations

import json
import warnings

import optuna
import pytest
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from mer_bench.errors import RequestError
from mer_bench.tuning.best import tuned_of
from mer_bench.tuning.kept import KeptStudy
from mer_bench.tuning.summary import (
    budget_text,
    counts_text,
    importances_of,
    range_text,
    reason_of,
    searched_of,
    summary,
)
from tests.studies import SPACE, make_study


def test_the_best_comes_first_and_of_equals_the_earlier() -> None:
    kept = make_study()
    scores = {trial.number: trial.values[0] for trial in kept.in_state(TrialState.COMPLETE)}
    assert [trial.number for trial in kept.ranked] == sorted(scores, key=lambda number: (-scores[number], number))
    twin = kept.best()
    kept.study.add_trial(create_trial(values=twin.values, params=twin.params, distributions=twin.distributions))
    assert KeptStudy(kept.study).best().number == twin.number


def test_the_start_is_the_trial_with_the_settings_that_the_study_began_with() -> None:
    kept = make_study()
    assert kept.start is not None
    assert kept.start.number == 0
    other = {name: {**told, "start": 128} if name == "width" else told for name, told in SPACE.items()}
    assert make_study(space=other).start is None


def test_importances_are_shares_of_the_score_also_where_cost_is_weighed() -> None:
    alone = importances_of(make_study()).shares
    assert sum(alone.values()) == pytest.approx(1)
    assert set(alone) == set(SPACE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert importances_of(make_study(costly=True)).shares == pytest.approx(alone)


def test_importances_that_cannot_be_said_have_a_reason() -> None:
    assert importances_of(make_study(trials=3)).reason == "3 complete trials are too few to tell."
    same = make_study(trials=0)
    widths: dict[str, BaseDistribution] = {"width": IntDistribution(64, 128)}
    for _ in range(5):
        same.study.add_trial(create_trial(value=0.5, params={"width": 64}, distributions=widths))
    assert importances_of(KeptStudy(same.study)).reason == "all complete trials have the same score."


def test_pruned_and_failed_trials_have_reasons() -> None:
    kept = make_study()
    assert reason_of(kept.trials[4], kept).startswith("given up by the median pruner at epoch 3, at 3")
    assert "alert" in reason_of(kept.trials[7], kept)
    kept.study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"kind": "PluginError", "reason": "no."}))
    kept.study.add_trial(create_trial(state=TrialState.FAIL))
    again = KeptStudy(kept.study)
    told = [reason_of(trial, again) for trial in again.trials[-2:]]
    assert told == ["PluginError: no.", "its worker was gone"]


def test_words_for_budget_counts_and_ranges() -> None:
    kept = make_study()
    assert counts_text(kept) == "10 complete, 1 pruned, 1 failed"
    assert budget_text(kept) == "12 trials"
    kept.study.set_user_attr("budget", {"trials": None, "timeout": 90.0})
    assert budget_text(KeptStudy(kept.study)) == "90 s"
    kept.study.set_user_attr("budget", {"trials": 5, "timeout": 90.5})
    assert budget_text(KeptStudy(kept.study)) == "5 trials or 90.5 s"
    assert [range_text(told) for told in SPACE.values()] == [
        "[64, 256] in steps of 64",
        "[0.0001, 0.01] logarithmic",
        "flat, cosine",
        "2, 4",
    ]
    assert "epochs" not in searched_of(kept.best(), kept)


def test_the_summary_is_json_and_complete() -> None:
    kept = make_study()
    told = json.loads(json.dumps(summary(kept, top=3)))
    assert told["trials"] == {"complete": 10, "pruned": 1, "failed": 1}
    assert [each["trial"] for each in told["best"]] == [trial.number for trial in kept.ranked[:3]]
    assert told["best"][0]["settings"]["epochs"] == 6
    assert [each["trial"] for each in told["pruned"] + told["failed"]] == [4, 7]
    assert told["start"] == 0
    assert told["budget"] == {"trials": 12, "timeout": None}
    assert told["about"]["data_checksum"] == "0" * 64


def test_a_study_of_somebody_else_is_refused() -> None:
    with pytest.raises(RequestError, match="'other' was not made by mer-bench tune"):
        KeptStudy(optuna.create_study(study_name="other"))


def test_a_trial_that_was_run_again_counts_once() -> None:
    kept = make_study(trials=3)
    kept.study.add_trial(create_trial(state=TrialState.FAIL))
    best = kept.best()
    kept.study.add_trial(
        create_trial(
            values=best.values,
            params=best.params,
            distributions=best.distributions,
            system_attrs={"failed_trial": 3, "retry_history": [3]},
        )
    )
    again = KeptStudy(kept.study)
    assert len(again.ended) == 4
    assert counts_text(again) == "4 complete"
    assert again.complete_trial(4).values == best.values
    with pytest.raises(RequestError, match="has no trial 3: there are 4, the first of them 0"):
        again.complete_trial(3)
    assert tuned_of(again, again.best()).trials == 4
