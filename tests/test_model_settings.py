"""Which layer of settings wins, and what a wrapper takes from the model inside it."""

from __future__ import annotations

from typing import Any

import pytest

from mer_bench import registry
from mer_bench.cards import ModelCard
from mer_bench.errors import SettingError, UnknownNameError
from mer_bench.model_settings import Settled, settle


def settled(name: str, dataset: str = "meld", **request: Any) -> Settled:
    values = {key.replace("__", "."): value for key, value in request.items()}
    return settle(registry.models().find(name).card, registry.settings_class(name), dataset, values)


def wrapped(dataset: str = "meld", **request: Any) -> Settled:
    return settled("modality-dropout", dataset, **request)


def inner(found: Settled) -> dict[str, Any]:
    return found.settings.model_dump()["inner_settings"]  # type: ignore[no-any-return]


def test_request_wins_over_the_dataset_and_that_over_the_card() -> None:
    card = registry.models().find("mmgcn").card
    assert settled("mmgcn", "meld").training.epochs == card.settings["default"]["epochs"]
    assert settled("mmgcn", "iemocap").training.epochs == card.settings["iemocap"]["epochs"]
    assert settled("mmgcn", "iemocap", epochs=3).training.epochs == 3


@pytest.mark.parametrize("name", [name for name in registry.models().plugins if name != "modality-dropout"])
@pytest.mark.parametrize("dataset", ["meld", "iemocap"])
def test_wrapper_takes_everything_from_the_card_inside(name: str, dataset: str) -> None:
    found, alone = wrapped(dataset, inner=name), settled(name, dataset)
    assert inner(found) == alone.settings.model_dump(mode="json")
    assert found.training == alone.training
    assert found.settings.model_dump()["inner_version"] == alone.card.version


def test_wrapper_takes_single_settings_of_the_model_inside() -> None:
    found = wrapped(inner="mmgcn", inner__layers=2, rate=0.5, learning_rate=0.01)
    assert inner(found) == {**settled("mmgcn").settings.model_dump(mode="json"), "layers": 2}
    assert found.training == settled("mmgcn", learning_rate=0.01).training


def test_wrapper_in_a_wrapper() -> None:
    found = wrapped(inner="modality-dropout", inner__inner="mmgcn", inner__inner__layers=2, inner__rate=0.1)
    assert inner(found)["rate"] == 0.1
    assert inner(found)["inner_settings"]["layers"] == 2
    assert found.training == settled("mmgcn").training
    assert found.card.title == "Modality dropout (Modality dropout (MMGCN))"


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"inner": "mmgnc"}, UnknownNameError, "mmgcn"),
        ({"inner": "mmgcn", "inner.layer": 2}, UnknownNameError, r"'inner\.layer'.*inner\.layers"),
        ({"inner": "mmgcn", "inner.layers": -1}, SettingError, r"inner\.layers must .* -1 \(from --set"),
        ({"inner": "mmgcn", "inner.epochs": 2}, SettingError, "inner.epochs is the trainer's.*write epochs"),
        ({"inner_settings": {"layers": 2}}, SettingError, "write inner.NAME=value"),
        ({"inner_version": 2}, SettingError, "filled in by the run"),
        ({"inner": 3}, SettingError, "inner must"),
        ({"rate": 2}, SettingError, "rate must lie in"),
        ({"inner.inner.rate": 1}, UnknownNameError, "inner.inner.rate"),
        ({f"{'inner.' * depth}inner": "modality-dropout" for depth in range(9)}, SettingError, "circle"),
    ],
)
def test_wrong_request_is_one_sentence(request_: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        wrapped(**{key.replace(".", "__"): value for key, value in request_.items()})
    assert "\n" not in str(caught.value)


def test_only_a_wrapper_has_settings_of_a_model_inside() -> None:
    with pytest.raises(UnknownNameError, match=r"inner\.layers"):
        settled("mmgcn", inner__layers=2)


@pytest.mark.parametrize(
    ("outer", "inside", "expected"),
    [
        ({"causal": True}, {"causal": False}, {"causal": False}),
        ({"causal": True}, {"causal": True}, {"causal": True}),
        ({"uses_speakers": False}, {"uses_speakers": True}, {"uses_speakers": True, "speaker_symmetric": False}),
        ({"uses_speakers": False}, {"speaker_symmetric": True}, {"uses_speakers": True, "speaker_symmetric": True}),
        ({"speaker_symmetric": False}, {"speaker_symmetric": True}, {"speaker_symmetric": False}),
        ({"memory": "linear"}, {"memory": "quadratic"}, {"memory": "quadratic"}),
        ({"memory": "quadratic"}, {"memory": "linear"}, {"memory": "quadratic"}),
        ({"modalities": ("text", "audio")}, {"modalities": ("audio", "visual")}, {"modalities": ("audio",)}),
        ({"needs": ("text",)}, {"needs": ("text", "audio")}, {"needs": ("text", "audio")}),
    ],
)
def test_promises_of_both_cards(
    monkeypatch: pytest.MonkeyPatch, outer: dict[str, Any], inside: dict[str, Any], expected: dict[str, Any]
) -> None:
    shelf = registry.models()
    plugin = shelf.find("latefusion")
    plain = {"modalities": ("text", "audio", "visual"), "uses_speakers": True, "speaker_symmetric": False}
    changed = plugin.card.model_copy(update={**plain, **inside})
    other = {**shelf.plugins, "latefusion": type(plugin)(plugin.name, changed, plugin.package, plugin.distribution)}
    monkeypatch.setattr(registry, "models", lambda: type(shelf)(shelf.kind, other, ()))
    card: ModelCard = shelf.find("modality-dropout").card.model_copy(update={**plain, **outer})
    found = settle(card, registry.settings_class("modality-dropout"), "meld", {}).card
    assert {name: getattr(found, name) for name in expected} == expected
