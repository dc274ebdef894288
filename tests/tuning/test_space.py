"""What a study searches: legal values, conditions, narrowing, grids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mer_bench import registry
from mer_bench.errors import RequestError, SettingError, UnknownNameError
from mer_bench.request import RunRequest, plan
from mer_bench.runner import run as run_once
from mer_bench.tuning.space import Dimension, Space, narrow, read_space_file, same, space_of

FREE = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def dimension(space: Space, name: str) -> Dimension:
    return next(each for each in space.dimensions if each.name == name)


def drawn(space: Space, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """What a study's trials are told."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_the_space_is_what_model_and_trainer_declare(run: RunRequest) -> None:
    space = space_of(plan(run))
    assert [each.name for each in space.dimensions] == [
        "width",
        "kind",
        "bias",
        "size",
        "breaks",
        "learning_rate",
        "weight_decay",
        "batch_size",
        "schedule",
        "label_smoothing",
    ]
    assert dimension(space, "learning_rate").owner == "trainer"
    assert dimension(space, "bias").when == {"kind": "gate"}
    assert dimension(space, "size").low == 1


def test_the_range_is_widened_to_the_cards_settings_and_its_step_made_finer(run: RunRequest) -> None:
    space = space_of(plan(run))
    assert space.start()["width"] == 12
    width = dimension(space, "width")
    assert (width.low, width.high, width.step) == (12, 64, 4)
    assert width.points == (12, 16, 32, 48, 64)
    rate = dimension(space, "learning_rate")
    assert (rate.low, rate.high, rate.start) == (1e-4, 0.05, 0.05)
    assert dimension(space, "batch_size").start == 64


@pytest.mark.parametrize("model", [*registry.models().plugins])
@pytest.mark.parametrize("dataset", ["meld", "iemocap"])
def test_every_study_starts_with_the_settings_of_the_card(model: str, dataset: str) -> None:
    planned = plan(RunRequest(model, dataset))
    if not planned.settings.tunables() and model == "majority":
        with pytest.raises(RequestError, match="there is nothing to search"):
            space_of(planned)
        return
    space = space_of(planned)
    start = space.start()
    study = optuna.create_study()
    study.enqueue_trial(start)
    suggested = space.suggest(study.ask())
    assert suggested == space.settings_of(start)
    again = plan(RunRequest(model, dataset, settings=suggested))
    assert (again.settings, again.training) == (planned.settings, planned.training)
    for trial in drawn(space, 20):
        plan(RunRequest(model, dataset, settings=trial))


@FREE
@given(seed=st.integers(0, 10_000))
def test_each_suggestion_is_legal_and_conditions_hold(run: RunRequest, seed: int) -> None:
    space = space_of(plan(run))
    for chosen in drawn(space, 5, seed):
        plan(replace(run, settings=chosen))
        assert all(dimension(space, name).holds(value) for name, value in chosen.items())
        assert ("bias" in chosen) == (chosen["kind"] == "gate")
        assert ("size" in chosen) == (chosen.get("bias") is True)


def test_a_condition_on_a_fixed_setting_is_settled_at_once(run: RunRequest) -> None:
    def names(**fixed: Any) -> set[str]:
        return {each.name for each in space_of(plan(replace(run, settings=fixed))).dimensions}

    assert {"bias", "size"} <= names(kind="gate")
    assert not {"bias", "size"} & names(kind="sum")
    assert not {"bias", "size"} & names(kind="gate", bias=False)
    assert "class_weight_power" not in names()
    assert "class_weight_power" in names(class_weights="inverse")


def test_a_condition_that_narrowing_rules_out_is_gone(run: RunRequest) -> None:
    space = space_of(plan(run), {"kind": ["sum", "both"]})
    assert not {"bias", "size"} & {each.name for each in space.dimensions}


INTERVALS = st.builds(
    lambda low, span, step, log, part, whole: Dimension(
        "x",
        "model",
        low + step * part,
        low=low,
        high=low + step * (part + span),
        step=None if log else step,
        declared_step=None if log else step,
        log=log,
        whole=whole,
    ),
    low=st.integers(1, 50),
    span=st.integers(1, 20),
    step=st.integers(1, 8),
    log=st.booleans(),
    part=st.integers(0, 10),
    whole=st.just(True),
)


@FREE
@given(whole=INTERVALS, low=st.integers(-10, 200), width=st.integers(0, 200), step=st.integers(1, 40), data=st.data())
def test_narrowing_never_widens(whole: Dimension, low: int, width: int, step: int, data: st.DataObject) -> None:
    change: dict[str, Any] = {"low": low, "high": low + width}
    if not whole.log and data.draw(st.booleans()):
        change["step"] = step
    try:
        narrowed = narrow(whole, change)
    except SettingError:
        return
    assert narrowed.low is not None
    assert narrowed.high is not None
    assert narrowed.holds(narrowed.start)
    assert narrowed.low >= low
    assert narrowed.high <= low + width
    for value in (*narrowed.points, *(dict(each)["x"] for each in drawn(Space((narrowed,), {}, {}), 5))):
        assert narrowed.holds(value)
        assert whole.holds(value)


@pytest.mark.parametrize(
    ("narrowed", "says"),
    [
        ({"widht": [16]}, "no setting that is searched is called 'widht'. Did you mean 'width'?"),
        ({"epochs": [16]}, "no setting that is searched is called 'epochs'"),
        ({"width": {"low": 8}}, r"width is searched in \[12, 64\] in steps of 4, but --space asks for \[8, 64\]"),
        ({"width": {"high": 65}}, r"asks for \[12, 65\]; give low and high within that range"),
        ({"width": {"low": 40, "high": 30}}, r"asks for \[40, 30\]"),
        ({"width": {"low": 41, "high": 43}}, r"of which nothing lies in \[41, 43\]"),
        ({"width": {"step": 6}}, "step of width in --space must be a multiple of 4, but is 6"),
        ({"width": {"lwo": 16}}, "Did you mean 'low'"),
        ({"width": {"low": "16"}}, "low of width in --space must be a number, but is 16"),
        ({"width": {"log": 1}}, "log of width in --space must be true or false, but is 1"),
        ({"width": {"log": True}}, "cannot be logarithmic"),
        ({"width": [16, 17]}, "its list in --space holds 17"),
        ({"width": []}, "its list in --space is empty"),
        ({"width": 16}, "one value is given with --fix width=16"),
        ({"kind": ["sum", "other"]}, "kind is searched in sum, gate, both, but its list in --space holds other"),
        ({"kind": {"low": 1}}, "must be a list of some of sum, gate, both"),
        ({"bias": [1]}, "bias is searched in false, true, but its list in --space holds 1"),
    ],
)
def test_a_wrong_space_is_one_sentence(run: RunRequest, narrowed: dict[str, Any], says: str) -> None:
    with pytest.raises((SettingError, UnknownNameError), match=says):
        space_of(plan(run), narrowed)


def test_a_setting_cannot_be_fixed_and_narrowed(run: RunRequest) -> None:
    with pytest.raises(SettingError, match=r"width is both fixed \(--fix width=16\) and in --space"):
        space_of(plan(replace(run, settings={"width": 16})), {"width": [16, 32]})


def test_with_everything_fixed_there_is_nothing_to_search(place: Any) -> None:
    with pytest.raises(RequestError, match="there is nothing to search: no setting of reader"):
        space_of(plan(RunRequest("reader", "trios", data_root=place.data)))


def test_a_start_that_was_narrowed_away_is_the_nearest_one_left(run: RunRequest) -> None:
    space = space_of(plan(run), {"width": {"low": 30}, "learning_rate": {"high": 0.01}, "kind": ["both", "gate"]})
    start = space.start()
    assert (start["width"], start["learning_rate"], start["kind"]) == (32, 0.01, "both")
    assert space_of(plan(run), {"width": [48, 32]}).start()["width"] == 32


def test_a_wrappers_inner_settings_are_searched_under_their_own_names(run: RunRequest) -> None:
    planned = plan(replace(run, model="around", settings={"inner.kind": "gate"}))
    space = space_of(planned, {"inner.width": [16, 32]})
    names = [each.name for each in space.dimensions]
    assert {"width", "inner.width", "inner.bias", "learning_rate"} <= set(names)
    assert "inner.kind" not in names
    assert names.count("learning_rate") == 1
    assert dimension(space, "inner.bias").when == {"inner.kind": "gate"}
    for chosen in drawn(space, 20):
        assert chosen["inner.width"] in (16, 32)
        assert "inner.bias" in chosen
        again = plan(replace(planned.request, settings={**space.fixed, **chosen}))
        assert again.settings.model_dump()["inner_settings"]["width"] == chosen["inner.width"]
        assert again.settings.model_dump()["inner_settings"]["kind"] == "gate"


def test_a_grid_covers_every_combination_that_counts_once(run: RunRequest) -> None:
    fixed = {"learning_rate": 0.05, "weight_decay": 0.0, "batch_size": 64, "schedule": "flat", "label_smoothing": 0.0}
    space = space_of(plan(replace(run, settings=fixed)), {"width": [16, 32], "size": {"high": 3}, "breaks": [""]})
    points = list(space.combinations())
    told = {tuple(sorted(point.items())) for point in points}
    assert len(told) == len(points)
    # kinds sum and both: 1 each; gate: no bias 1, bias with sizes 1 to 3.
    assert len(points) == 2 * (2 + 1 + 3)
    assert space.start() in points


def test_a_space_file_is_read_and_a_damaged_one_named(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text('width = { low = 16, high = 32 }\nkind = ["sum"]\n')
    assert read_space_file(file) == {"width": {"low": 16, "high": 32}, "kind": ["sum"]}
    file.write_text("width = ")
    with pytest.raises(RequestError, match="is not valid TOML"):
        read_space_file(file)
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        read_space_file(tmp_path / "none.toml")


def test_choices_that_are_lists_come_back_as_they_were() -> None:
    pair = Dimension("x", "model", (1, 2), choices=((1, 2), None, True, 1.5))
    space = Space((pair,), {"y": 1}, {})
    study = optuna.create_study()
    study.enqueue_trial(space.start())
    trial = study.ask()
    assert space.suggest(trial) == {"x": (1, 2)}
    assert space.settings_of(trial.params) == {"y": 1, "x": (1, 2)}


def test_true_is_not_one() -> None:
    assert not same(True, 1)
    assert same(1, 1.0)


def test_a_run_takes_what_a_trial_was_told(run: RunRequest) -> None:
    chosen = {**drawn(space_of(plan(run)), 1)[0], "breaks": ""}
    assert run_once(replace(run, settings=chosen)).status == "done"


def test_a_point_of_a_grid_has_no_rounding_of_sums() -> None:
    """3 * 0.1 is 0.30000000000000004, which no settings file or record should hold."""
    rate = Dimension("rate", "model", start=0.3, low=0.0, high=0.7, step=0.1)
    assert rate.decoded(3 * 0.1) == 0.3
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    values = {rate.suggest(study.ask()) for _ in range(60)}
    assert values == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7}
