"""The registry: what is found on shelves, and that a broken plugin is named and harms no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mer_bench import registry
from mer_bench.cards import ModelCard
from mer_bench.errors import MerBenchError, PluginError, UnknownNameError
from mer_bench.registry import load_dataset, load_model, settings_class

if TYPE_CHECKING:
    from tests.conftest import ShelfWriter

CARD = """
title = "Gru"
summary = "A small network."
entry = "model:Gru"
config = "config:GruSettings"
modalities = ["text"]
ours = ["everything"]
"""
SETTINGS = """
from mer_bench.config import Settings

class GruSettings(Settings):
    hidden_dim: int = 8
"""
MODEL = """
from mer_bench.api import Model

class Gru(Model):
    def forward(self, batch):
        raise NotImplementedError
"""
SOUND = {"__init__.py": '"""A network."""', "card.toml": CARD, "config.py": SETTINGS, "model.py": MODEL}

DATASET_CARD = """
title = "Talks"
summary = "Conversations."
entry = "reader:Talks"
licence = "public domain"
modalities = ["text"]
[label_sets.mood]
title = "Mood"
classes = ["good", "bad"]
[feature_sets.words]
title = "Words"
summary = "Counts of words."
widths = { text = 5 }
[protocols.official]
title = "Official"
"""
DATASET = """
from mer_bench.api import Dataset

class Talks(Dataset):
    def prepare(self, request):
        raise NotImplementedError
"""


def reasons(shelf: registry.Shelf[ModelCard]) -> dict[str, str]:
    return {broken.name: broken.reason for broken in shelf.broken}


def test_plugins_are_found_through_entry_points(shelves: ShelfWriter) -> None:
    shelves.add("models", "their_models", {"tiny_gru": SOUND, "other": SOUND})
    found = registry.models()
    assert {"tiny-gru", "other"} <= set(found.plugins)
    plugin = found.find("tiny-gru")
    assert (plugin.package, plugin.distribution) == ("their_models.tiny_gru", "their_models")
    assert plugin.card.title == "Gru"


def test_looking_around_imports_no_code_of_a_plugin(shelves: ShelfWriter) -> None:
    shelves.add("models", "their_models", {"gru": {**SOUND, "config.py": "1 / 0", "model.py": "1 / 0"}})
    assert "gru" in registry.models().plugins
    assert "their_models.gru.model" not in sys.modules


def test_listing_imports_no_torch() -> None:
    question = (
        "import sys; from mer_bench import registry; registry.models(); registry.datasets(); "
        "print([name for name in ('torch', 'sklearn', 'optuna', 'scipy') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"


def test_code_is_loaded_by_name(shelves: ShelfWriter) -> None:
    shelves.add("models", "their_models", {"gru": SOUND})
    loaded = load_model("gru")
    assert loaded.model_class.__name__ == "Gru"
    assert loaded.settings({"hidden_dim": 4}).model_dump() == {"hidden_dim": 4}
    assert settings_class("gru") is loaded.settings_class


def test_settings_are_loaded_without_the_model(shelves: ShelfWriter) -> None:
    shelves.add("models", "their_models", {"gru": {**SOUND, "model.py": "1 / 0"}})
    assert set(settings_class("gru").model_fields) == {"hidden_dim"}
    assert "their_models.gru.model" not in sys.modules


def test_dataset_gets_its_card(shelves: ShelfWriter) -> None:
    files = {"__init__.py": "", "card.toml": DATASET_CARD, "reader.py": DATASET}
    shelves.add("datasets", "their_datasets", {"small_talks": files})
    assert load_dataset("small-talks").card.title == "Talks"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({**SOUND, "card.toml": CARD + "[paper"}, "not valid TOML"),
        ({**SOUND, "card.toml": CARD + "modality = 3"}, "'modality': "),
        ({**SOUND, "card.toml": CARD.replace('title = "Gru"', "")}, "'title': Field required"),
        ({name: text for name, text in SOUND.items() if name != "card.toml"}, "needs a card.toml"),
        ({**SOUND, "__init__.py": "import no_such_library"}, "ModuleNotFoundError: No module named 'no_such_library'"),
        ({**SOUND, "__init__.py": "raise SystemExit(3)"}, "SystemExit: 3"),
        ({**SOUND, "__init__.py": "def ("}, "SyntaxError"),
    ],
    ids=["toml", "unknown-key", "incomplete", "no-card", "import", "exit", "syntax"],
)
def test_broken_plugin_is_named_and_harms_no_other(shelves: ShelfWriter, files: dict[str, str], reason: str) -> None:
    shelves.add("models", "their_models", {"broken_one": files, "sound": SOUND})
    found = registry.models()
    assert "sound" in found.plugins
    assert "broken-one" not in found.plugins
    assert reason in reasons(found)["broken-one"]
    with pytest.raises(PluginError, match=r"the model 'broken-one' \(their_models.broken_one\) cannot be used"):
        found.find("broken-one")
    load_model("sound")


def test_broken_shelf_is_named_and_harms_no_other(shelves: ShelfWriter) -> None:
    shelves.add("models", "their_models", {"sound": SOUND})
    shelves.add("models", "gone_models", {}, importable=False)
    (shelves.folder / "crashing_models.py").write_text("1 / 0")
    shelves.add("models", "crashing_models", {}, importable=False)
    (shelves.folder / "plain_module.py").write_text("")
    shelves.add("models", "plain_module", {}, importable=False)
    found = registry.models()
    assert "sound" in found.plugins
    assert "ModuleNotFoundError" in reasons(found)["gone_models"]
    assert "ZeroDivisionError" in reasons(found)["crashing_models"]
    assert "plain_module" in reasons(found)


def test_files_on_a_shelf_that_are_no_folder_are_passed_over(shelves: ShelfWriter) -> None:
    place = shelves.add("models", "their_models", {"sound": SOUND})
    (place / "notes.py").write_text("1 / 0")
    (place / "py.typed").touch()
    assert "notes" not in reasons(registry.models())


def test_name_that_is_taken_is_refused_whatever_the_order(shelves: ShelfWriter) -> None:
    shelves.add("models", "b_models", {"gru": SOUND})
    shelves.add("models", "a_models", {"gru": SOUND})
    found = registry.models()
    assert found.plugins["gru"].package == "a_models.gru"
    refused = next(broken for broken in found.broken if broken.name == "gru")
    assert refused.package == "b_models.gru"
    assert "taken by a_models.gru" in refused.reason
    assert found.find("gru").package == "a_models.gru"


def test_same_folder_under_two_spellings_is_one_name(shelves: ShelfWriter) -> None:
    shelves.add("models", "their_models", {"tiny_gru": SOUND, "tiny": SOUND})
    assert {"tiny-gru", "tiny"} <= set(registry.models().plugins)
    with pytest.raises(UnknownNameError, match="Did you mean 'tiny-gru'"):
        registry.models().find("tiny_gru")


def test_unknown_name_is_answered_with_the_nearest(shelves: ShelfWriter) -> None:
    shelves.add("models", "their_models", {"dialogue_flow": SOUND})
    with pytest.raises(UnknownNameError) as caught:
        load_model("dialoge-flow")
    assert "no model is called 'dialoge-flow'. Did you mean 'dialogue-flow'" in str(caught.value)
    assert "mer-bench list models" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({**SOUND, "model.py": "1 / 0"}, "cannot be imported: ZeroDivisionError"),
        ({**SOUND, "model.py": "raise SystemExit(3)"}, "cannot be imported: SystemExit"),
        ({**SOUND, "model.py": ""}, "their_models.gru.model has no Gru, which its card names as model:Gru"),
        (
            {**SOUND, "model.py": "import collections; collections.no_such_thing\nclass Gru: pass"},
            "cannot be imported: AttributeError: module 'collections' has no attribute 'no_such_thing'",
        ),
        ({**SOUND, "config.py": "class GruSettings: pass"}, "should be a child of mer_bench.config.Settings"),
        ({**SOUND, "config.py": "GruSettings = 3"}, "should be a child of mer_bench.config.Settings"),
        ({**SOUND, "config.py": SETTINGS.replace("hidden_dim", "learning_rate")}, "learning_rate hides the trainer's"),
        ({**SOUND, "model.py": "class Gru: pass"}, "should be a child of mer_bench.api.Model"),
        ({**SOUND, "model.py": MODEL.replace("forward", "predict")}, "model:Gru has no method forward"),
        ({**SOUND, "model.py": "Gru = 3"}, "should be a child of mer_bench.api.Model"),
    ],
    ids=[
        "crash",
        "exit",
        "no-class",
        "attribute",
        "no-settings",
        "no-type",
        "hides",
        "no-model",
        "no-forward",
        "no-class-at-all",
    ],
)
def test_broken_code_is_one_sentence(shelves: ShelfWriter, files: dict[str, str], message: str) -> None:
    shelves.add("models", "their_models", {"gru": files})
    with pytest.raises(PluginError) as caught:
        load_model("gru")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        ("class Talks: pass", "should be a child of mer_bench.data.dataset.Dataset"),
        (
            DATASET.replace("    def prepare(self, request):\n        raise NotImplementedError\n", "    pass"),
            "has no method prepare",
        ),
    ],
    ids=["no-dataset", "abstract"],
)
def test_broken_dataset_code_is_one_sentence(shelves: ShelfWriter, reader: str, message: str) -> None:
    files = {"__init__.py": "", "card.toml": DATASET_CARD, "reader.py": reader}
    shelves.add("datasets", "their_datasets", {"talks": files})
    with pytest.raises(MerBenchError, match=message):
        load_dataset("talks")


OWN_CARD = DATASET_CARD.replace("reader:Talks", "own:OwnDialogues")


def put(root: Path, name: str, card: str) -> None:
    (root / "raw" / name).mkdir(parents=True)
    (root / "raw" / name / "card.toml").write_text(card, encoding="utf-8")
    registry.forget()


def test_a_users_own_datasets_are_found_below_their_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "one", "my-talks", OWN_CARD)
    put(tmp_path / "two", "yours", OWN_CARD)
    (tmp_path / "one" / "raw" / ".half.1-2.partial").mkdir()
    (tmp_path / "one" / "raw" / ".half.1-2.partial" / "card.toml").write_text(OWN_CARD)
    installed = set(registry.installed_datasets().plugins)
    assert set(registry.datasets(tmp_path / "one").plugins) == {*installed, "my-talks"}
    assert set(registry.datasets(tmp_path / "two").plugins) == {*installed, "yours"}
    assert set(registry.datasets(tmp_path / "three").plugins) == installed
    monkeypatch.setenv("MER_BENCH_DATA", str(tmp_path / "two"))
    assert set(registry.datasets().plugins) == {*installed, "yours"}
    plugin = registry.datasets().find("yours")
    assert (plugin.is_own, plugin.distribution) == (True, "yours")
    assert not registry.datasets().find("meld").is_own


@pytest.mark.parametrize(
    ("name", "card", "reason"),
    [
        ("broken", OWN_CARD + "[paper", "not valid TOML"),
        ("broken", OWN_CARD.replace("licence", "license"), "'licence': Field required"),
        ("meld", OWN_CARD, "the name is taken by mer_bench_datasets.meld"),
        ("my_talks", OWN_CARD, "lower-case letters, digits and hyphens"),
        ("elsewhere", DATASET_CARD.replace("reader:", "cli.run:"), "entry should be own:OwnDialogues"),
    ],
)
def test_a_broken_card_of_a_users_dataset_harms_no_other(tmp_path: Path, name: str, card: str, reason: str) -> None:
    put(tmp_path, name, card)
    put(tmp_path, "sound", OWN_CARD)
    found = registry.datasets(tmp_path)
    assert set(found.plugins) == {*registry.installed_datasets().plugins, "sound"}
    assert found.plugins["meld"].package == "mer_bench_datasets.meld"
    (broken,) = found.broken
    assert (broken.name, broken.package) == (name, str(tmp_path / "raw" / name))
    assert reason in broken.reason
    if name != "meld":
        with pytest.raises(PluginError, match=f"the dataset '{name}' .* cannot be used"):
            found.find(name)


def test_built_in_plugins_are_found_like_any_other() -> None:
    assert registry.models().broken == ()
    assert registry.datasets().broken == ()
