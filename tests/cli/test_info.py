"""`mer-bench info`: cards, settings with ranges and defaults, the search space."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import pytest

from mer_bench import registry
from mer_bench.cli.info import describe, legal_text, meanings, space_text
from mer_bench.config import Field, Settings, TrainerSettings, Tune

from .conftest import Invoke


class Example(Settings):
    """Settings of an example.

    Attributes:
        depth: Layers, from the input
            to the output.
        left, right: Width of a side.
        mode: What is done: `a` or `b`.

    Depth: this is no field's meaning.
    """

    depth: Annotated[int, Field(ge=1, le=8), Tune(step=1)] = 2
    left: Annotated[float, Field(gt=0, lt=1), Tune(low=1e-3, high=0.1, log=True)] = 0.5
    right: float = 1.0
    mode: Annotated[Literal["a", "b"], Tune()] = "a"
    deep: Annotated[bool, Tune(when={"mode": "a"})] = False
    size: Annotated[int, Tune(choices=(8, 16))] = 8
    said: Annotated[int, Field(description="In the field itself.")] = 0


def test_meanings_come_from_the_docstring() -> None:
    assert meanings(Example) == {
        "depth": "Layers, from the input to the output.",
        "left": "Width of a side.",
        "right": "Width of a side.",
        "mode": "What is done: `a` or `b`.",
    }
    assert describe(Example)["said"]["meaning"] == "In the field itself."
    assert set(meanings(TrainerSettings)) == set(TrainerSettings.model_fields)


def test_legal_values_and_search_spaces_in_words() -> None:
    fields = Example.model_fields
    assert [legal_text(fields[name]) for name in ("depth", "left", "mode", "deep")] == [
        "a whole number in [1, 8]",
        "(0, 1)",
        "a, b",
        "true or false",
    ]
    spaces = {name: space_text(field, tune) for name, (field, tune) in Example.tunables().items()}
    assert spaces == {
        "depth": "[1, 8] in steps of 1",
        "left": "[0.001, 0.1] logarithmic",
        "mode": "a, b",
        "deep": "true, false",
        "size": "8, 16",
    }


@pytest.mark.parametrize("name", sorted(registry.models().plugins))
def test_every_model_shows_every_setting(invoke: Invoke, name: str) -> None:
    result = invoke("info", name)
    assert result.exit_code == 0
    for setting in (*registry.settings_class(name).model_fields, *TrainerSettings.model_fields):
        assert f"\n{setting} " in result.stdout
    answer = json.loads(invoke("info", name, "--json").stdout)
    assert answer["title"] == registry.models().plugins[name].card.title
    assert set(answer["fields"]["settings"]) == set(registry.settings_class(name).model_fields)
    assert answer["fields"]["training"]["batch_size"]["default"] == 32
    space = invoke("info", name, "--space")
    assert "[0.0001, 0.01] logarithmic" in space.stdout


@pytest.mark.parametrize("name", sorted(registry.datasets().plugins))
def test_every_dataset_and_feature_set_is_shown(invoke: Invoke, name: str) -> None:
    card = registry.datasets().plugins[name].card
    result = invoke("info", name)
    assert result.exit_code == 0
    assert card.licence in " ".join(result.stdout.split())
    assert json.loads(invoke("info", name, "--json").stdout)["licence"] == card.licence
    for key, features in card.feature_sets.items():
        assert f"{name}/{key}" in result.stdout
        detail = invoke("info", f"{name}/{key}")
        assert detail.exit_code == 0
        for source in features.sources:
            assert source in detail.stdout
        assert json.loads(invoke("info", f"{name}/{key}", "--json").stdout)["id"] == f"{name}/{key}"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["majorty"], "no model or dataset is called 'majorty'. Did you mean 'majority'?"),
        (["meld-synthetc"], "Did you mean 'meld-synthetic'"),
        (["meld/transcript"], "no feature set is called 'meld/transcript'. Did you mean 'meld/transcripts'"),
        (["mled/transcripts"], "no dataset is called 'mled'. Did you mean 'meld'?"),
        (["meld", "--space"], "--space shows a model's search space, but meld is no model"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(invoke: Invoke, words: list[str], says: str) -> None:
    result = invoke("info", *words)
    assert result.exit_code == 2
    assert says in result.stderr
