"""Settings: values as given, legal ranges, and messages that name the right one."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError, create_model, model_validator

from mer_bench.config import (
    Field,
    Limits,
    Settings,
    TrainerSettings,
    Tune,
    changed_fields,
    legal_values,
    limits,
    merge_settings,
    names_in_both,
    parse_assignment,
    split_settings,
    validated,
)
from mer_bench.errors import SettingError, UnknownNameError
from mer_bench.testing.grids import grid_faults


class GruSettings(Settings):
    hidden_dim: Annotated[int, Field(ge=32, le=512), Tune(low=64, high=256, step=64)] = 128
    dropout: Annotated[float, Field(ge=0, lt=1), Tune()] = 0.5
    fusion: Annotated[Literal["sum", "gated"], Tune()] = "sum"
    bidirectional: bool = True
    scale: float = 1.0
    weights: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _gates_need_width(self) -> GruSettings:
        if self.fusion == "gated" and self.hidden_dim < 64:
            raise ValueError("fusion=gated needs a hidden_dim of 64 at least")
        return self


def message(values: dict[str, Any], kind: type[Settings] = GruSettings, origin: str = "") -> str:
    with pytest.raises((SettingError, UnknownNameError)) as caught:
        validated(kind, values, origin)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


# What is given ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs=5", ("epochs", 5)),
        (" epochs = 5 ", ("epochs", 5)),
        ("dropout=1e-1", ("dropout", 0.1)),
        ("fusion=gated", ("fusion", "gated")),
        ('fusion="gated"', ("fusion", "gated")),
        ("bidirectional=false", ("bidirectional", False)),
        ("class_weights=[1, 2.5]", ("class_weights", [1, 2.5])),
        ("note=a=b", ("note", "a=b")),
        ("note=", ("note", "")),
        ("rate=NaN", ("rate", "NaN")),
        ("rate=-Infinity", ("rate", "-Infinity")),
        ("note=" + "[" * 100_000, ("note", "[" * 100_000)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_assignment_is_parsed(text: str, expected: tuple[str, Any]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["", "epochs", "=5", "  =5", "epochs 5"])
def test_assignment_without_name_or_sign_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="a setting is written key=value, but"):
        parse_assignment(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_any_json_value_comes_through(value: Any) -> None:
    assert parse_assignment(f"key={json.dumps(value)}") == ("key", value)


def test_later_layers_win() -> None:
    assert merge_settings({"a": 1, "b": 1}, {"b": 2, "c": 2}, {}, {"c": 3}) == {"a": 1, "b": 2, "c": 3}


def test_settings_are_sorted_by_owner() -> None:
    ours, trainers = split_settings({"hidden_dim": 64, "epochs": 3}, GruSettings, "--set")
    assert (ours, trainers) == ({"hidden_dim": 64}, {"epochs": 3})


def test_unknown_setting_is_answered_with_the_nearest_of_either_owner() -> None:
    with pytest.raises(UnknownNameError, match=r"no setting is called 'hiden_dim'\. Did you mean 'hidden_dim'"):
        split_settings({"hiden_dim": 64}, GruSettings, "--set hiden_dim=64")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'learning_rate'\? .*from --set"):
        split_settings({"learningrate": 0.1}, GruSettings, "from --set learningrate=0.1")


# What is legal ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"hidden_dim": 4096}, "hidden_dim must be a whole number in [32, 512], but is 4096."),
        ({"hidden_dim": 64.5}, "hidden_dim must be a whole number in [32, 512], but is 64.5."),
        ({"hidden_dim": "wide"}, "hidden_dim must be a whole number in [32, 512], but is 'wide'."),
        ({"hidden_dim": None}, "hidden_dim must be a whole number in [32, 512], but is None."),
        ({"hidden_dim": True}, "hidden_dim must be a whole number in [32, 512], but is True."),
        ({"dropout": 1}, "dropout must lie in [0, 1), but is 1."),
        ({"dropout": "NaN"}, "dropout must lie in [0, 1), but is 'NaN'."),
        ({"dropout": False}, "dropout must lie in [0, 1), but is False."),
        ({"fusion": "gatted"}, "fusion must be one of sum, gated, but is 'gatted'."),
        ({"bidirectional": "perhaps"}, "bidirectional must be true or false, but is 'perhaps'."),
        ({"scale": float("inf")}, "scale must be a number, but is inf."),
        ({"scale": [1]}, "scale must be a number, but is [1]."),
        ({"fusion": "gated", "hidden_dim": 32}, "fusion=gated needs a hidden_dim of 64 at least."),
        ({"hiden_dim": 64}, "no setting is called 'hiden_dim'. Did you mean 'hidden_dim'?"),
    ],
    ids=str,
)
def test_illegal_value_is_one_sentence_with_the_rule(values: dict[str, Any], expected: str) -> None:
    assert message(values) == expected


def test_origin_stands_in_the_message() -> None:
    assert message({"dropout": 2}, origin="from --set dropout=2").endswith("but is 2 (from --set dropout=2).")


def test_long_value_is_cut() -> None:
    assert len(message({"fusion": "x" * 1000})) < 150


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"optimizer": "sgd"}, "optimizer must be one of adamw, adam, but is 'sgd'."),
        ({"learning_rate": 0}, "learning_rate must lie in (0, 1], but is 0."),
        ({"batch_size": 0}, "batch_size must be a whole number in [1, 4096], but is 0."),
        ({"epochs": True}, "epochs must be a whole number in [1, 10000], but is True."),
        ({"clip": -1}, "clip must lie in [0, 1000], but is -1."),
        (
            {"class_weights": "invers"},
            "class_weights must be one of none, inverse, a list of numbers above 0, but is 'invers'.",
        ),
        (
            {"class_weights": [1, 0, 2]},
            "class_weights must be one of none, inverse, a list of numbers above 0, but is [1, 0, 2].",
        ),
        (
            {"class_weights": [1, "many"]},
            "class_weights must be one of none, inverse, a list of numbers above 0, but is [1, 'many'].",
        ),
    ],
    ids=str,
)
def test_training_settings_are_held_to_their_ranges(values: dict[str, Any], expected: str) -> None:
    assert message(values, TrainerSettings) == expected


@pytest.mark.parametrize("weights", ["none", "inverse", [1, 2.5, 0.1], (1.0,)])
def test_class_weights_are_a_word_or_a_list(weights: Any) -> None:
    settings = validated(TrainerSettings, {"class_weights": weights})
    assert settings.class_weights == (weights if isinstance(weights, str) else tuple(weights))
    assert validated(TrainerSettings, json.loads(settings.model_dump_json())) == settings


@pytest.mark.parametrize(("given_value", "expected"), [("off", False), ("yes", True), (0, False), (True, True)])
def test_switches_take_plain_words(given_value: Any, expected: bool) -> None:
    assert validated(GruSettings, {"bidirectional": given_value}).bidirectional is expected


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        GruSettings().hidden_dim = 64  # type: ignore[misc]


def test_defaults_survive_a_record() -> None:
    settings = TrainerSettings()
    assert TrainerSettings.model_validate_json(settings.model_dump_json()) == settings


def test_defaults_of_training_lie_on_their_search_grids() -> None:
    assert grid_faults(TrainerSettings) == []


def test_tunables_come_in_the_order_of_declaration() -> None:
    assert list(GruSettings.tunables()) == ["hidden_dim", "dropout", "fusion"]
    assert GruSettings.tunables()["hidden_dim"][1].step == 64


def test_changed_fields_are_those_that_differ() -> None:
    assert changed_fields(GruSettings(hidden_dim=64, dropout=0.5)) == {"hidden_dim": 64}


def test_names_in_both_keep_their_order() -> None:
    assert names_in_both(["b", "x", "a"], ["a", "b"]) == ["b", "a"]


BOUND = st.none() | st.floats(-100, 100)


@given(ge=BOUND, gt=BOUND, le=BOUND, lt=BOUND, value=st.floats(-200, 200))
def test_limits_hold_just_what_validation_accepts(
    ge: float | None, gt: float | None, le: float | None, lt: float | None, value: float
) -> None:
    # One lower and one upper bound, open or closed, as fields are written.
    bounds = {"gt": gt} if ge is None else {"ge": ge}
    bounds |= {"lt": lt} if le is None else {"le": le}
    bounds = {name: bound for name, bound in bounds.items() if bound is not None}
    kind = create_model("Bounded", __base__=Settings, value=(Annotated[float, Field(**bounds)], 0.0))  # type: ignore[call-overload]
    legal = limits(kind.model_fields["value"])
    try:
        validated(kind, {"value": value})
        accepted = True
    except SettingError:
        accepted = False
    assert legal.hold(value) == accepted


def test_limits_of_an_unbounded_number_are_infinite() -> None:
    assert limits(GruSettings.model_fields["scale"]) == Limits()
    assert Limits().hold(1e300)


def test_every_training_setting_has_a_rule_in_words() -> None:
    for field in TrainerSettings.model_fields.values():
        assert legal_values(field).startswith(("be ", "lie in "))
        assert "typing" not in legal_values(field)
