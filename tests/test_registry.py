"""The registry: what is found on shelves, and that a broken plugin is named and harms no other."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mer_bench import registry
from mer_bench.cards import ModelCard
from mer_bench.errors import CardError, MerBenchError, PluginError, RequestError, UnknownNameError
from mer_bench.registry import load_dataset, load_model, settings_class
from tests.conftest import write_plugin

if TYPE_CHECKING:
    from tests.conftest import ShelfWriter

Add = Callable[[Path], tuple[str, ...]]

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


# Models that are not installed ------------------------------------------------------------------

BLOCK = (
    "# /// mer-bench\n"
    + "".join(f"# {line}\n" for line in CARD.strip().replace("model:", "").replace("config:", "").splitlines())
    + "# ///\n"
)
ONE_FILE = '"""A network."""\n\n' + BLOCK + SETTINGS + MODEL


def one_file(folder: Path, text: str = ONE_FILE, name: str = "my_gru.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_file_is_a_model_and_reading_it_runs_nothing(tmp_path: Path, add_plugin: Add) -> None:
    assert add_plugin(one_file(tmp_path, "raise SystemExit(3)\n" + ONE_FILE)) == ("my-gru",)
    plugin = registry.models().find("my-gru")
    assert (plugin.card.title, plugin.card.entry, plugin.card.config) == ("Gru", "my_gru:Gru", "my_gru:GruSettings")
    assert plugin.distribution == str(tmp_path / "my_gru.py")


def test_code_of_a_file_is_loaded_by_name(tmp_path: Path, add_plugin: Add) -> None:
    add_plugin(one_file(tmp_path))
    loaded = load_model("my-gru")
    assert loaded.model_class.__name__ == "Gru"
    assert loaded.settings({"hidden_dim": 4}).model_dump() == {"hidden_dim": 4}
    assert [path.name for path in tmp_path.iterdir()] == ["my_gru.py"]  # and no compiled file beside it


def test_a_folder_is_a_model_whose_files_import_each_other(tmp_path: Path, add_plugin: Add) -> None:
    model = "from .config import GruSettings\nfrom .parts.cell import WIDTH\n" + MODEL
    folder = write_plugin(
        tmp_path / "my_gru",
        {
            **SOUND,
            "model.py": model,
            "parts/__init__.py": "",
            "parts/cell.py": "from ..config import Settings\nWIDTH = 3",
        },
    )
    assert add_plugin(folder) == ("my-gru",)
    model_class = load_model("my-gru").model_class
    assert sys.modules[model_class.__module__].__dict__["WIDTH"] == 3
    assert sys.modules[model_class.__module__].__dict__["GruSettings"] is settings_class("my-gru")
    assert not list(folder.rglob("__pycache__"))


def test_files_beside_the_code_are_found_as_in_an_installed_package(tmp_path: Path, add_plugin: Add) -> None:
    read = "from importlib.resources import files\nWORDS = (files(__package__) / 'words.txt').read_text()\n"
    add_plugin(write_plugin(tmp_path / "my_gru", {**SOUND, "model.py": read + MODEL, "words.txt": "yes no"}))
    assert sys.modules[load_model("my-gru").model_class.__module__].__dict__["WORDS"] == "yes no"


def test_a_folder_that_the_checksum_passes_over_cannot_be_imported(tmp_path: Path, add_plugin: Add) -> None:
    files = {**SOUND, "model.py": "from .notes.cell import X\n" + MODEL, "notes/cell.py": "X = 1"}
    add_plugin(write_plugin(tmp_path / "my_gru", files))
    with pytest.raises(PluginError, match=r"No module named '.notes' \(.*model.py, line 1\)"):
        load_model("my-gru")


def test_a_shelf_gives_its_models_and_a_broken_one_harms_no_other(tmp_path: Path, add_plugin: Add) -> None:
    write_plugin(tmp_path / "shelf" / "one", SOUND)
    write_plugin(tmp_path / "shelf" / "two", SOUND)
    write_plugin(tmp_path / "shelf" / "three", {"card.toml": "title = 3"})
    write_plugin(tmp_path / "shelf" / "notes", {"notes.txt": ""})
    assert add_plugin(tmp_path / "shelf") == ("one", "two")
    with pytest.raises(PluginError, match=r"the model 'three' .* is not a complete card"):
        registry.models().find("three")
    load_model("two")


def test_what_was_added_is_gone_after_it_was_removed(tmp_path: Path) -> None:
    before = set(registry.models().plugins)
    registry.add_plugin(one_file(tmp_path))
    registry.forget()  # looks around again; what was added stays
    assert set(registry.models().plugins) == {*before, "my-gru"}
    registry.remove_plugin(tmp_path / "my_gru.py")
    assert set(registry.models().plugins) == before


def test_two_folders_of_one_name_are_two_packages(tmp_path: Path) -> None:
    for number in (1, 2):
        place = write_plugin(tmp_path / str(number) / "gru", {**SOUND, "model.py": f"NUMBER = {number}\n" + MODEL})
        registry.add_plugin(place)
        module = sys.modules[load_model("gru").model_class.__module__]
        assert module.__dict__["NUMBER"] == number
        registry.remove_plugin(place)


def test_the_same_path_again_is_what_is_there_now(tmp_path: Path, add_plugin: Add) -> None:
    file = one_file(tmp_path)
    add_plugin(file)
    first = load_model("my-gru")
    one_file(tmp_path, ONE_FILE.replace("= 8", "= 9"))
    # Until it is added again what runs is what was read, whatever an editor writes meanwhile.
    assert load_model("my-gru").model_class is first.model_class
    add_plugin(file)
    assert load_model("my-gru").settings({}).model_dump() == {"hidden_dim": 9}


def test_code_runs_from_the_bytes_that_were_read(tmp_path: Path, add_plugin: Add) -> None:
    folder = write_plugin(tmp_path / "gru", SOUND)
    add_plugin(folder)
    checksum = registry.code_checksum(registry.models().find("gru"))
    (folder / "model.py").write_text("1 / 0")
    assert load_model("gru").model_class.__name__ == "Gru"
    assert registry.code_checksum(registry.models().find("gru")) == checksum


@pytest.mark.parametrize("name", ["my-gru.py", "my_gru.py"])
def test_a_hyphen_in_a_files_name_is_an_underscore(tmp_path: Path, add_plugin: Add, name: str) -> None:
    assert add_plugin(one_file(tmp_path, name=name)) == ("my-gru",)
    load_model("my-gru")


def test_a_path_is_taken_as_it_is_typed(tmp_path: Path, add_plugin: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plugin(tmp_path / "my_gru", SOUND)
    (tmp_path / "linked").symlink_to(tmp_path / "my_gru")
    monkeypatch.chdir(tmp_path / "my_gru")
    for path in (".", "../my_gru", "../linked/../my_gru/"):
        assert add_plugin(Path(path)) == ("my-gru",)
    assert add_plugin(tmp_path / "linked") == ("linked",)  # a link's own name counts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no card: a model in a single file carries it in a comment block"),
        (SETTINGS + MODEL, "has no card"),
        (ONE_FILE + "\n" + BLOCK, "has two cards, in lines 3 and "),
        ("# /// mer-bench\n# title = 3\n", "my_gru.py, line 1: the card never ends"),
        ("# /// mer-bench\n# title = 3\n\nimport os\n# ///\n", "my_gru.py, line 3: each line of the card starts"),
        (
            ONE_FILE.replace("# title = ", "# title "),
            "(line 3) is not valid TOML: Expected '='",
        ),
        (
            ONE_FILE.replace("# title", "# titel"),
            "(line 3) is not a complete card: 'title': Field required (1 more)",
        ),
        (
            ONE_FILE.replace('"Gru"', '"gru:Gru"', 2),
            "entry should be the name of a class of the file, but is 'g",
        ),
        (ONE_FILE.replace('entry = "Gru"', "entry = 3"), "'entry': Input should be a valid string"),
    ],
    ids=["empty", "no-card", "two", "unclosed", "interrupted", "toml", "key", "entry", "entry-number"],
)
def test_broken_card_of_a_file_is_one_sentence_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CardError) as caught:
        registry.add_plugin(one_file(tmp_path, text))
    assert message in str(caught.value)
    assert "my_gru.py" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fault_of_the_toml_is_counted_in_lines_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"\(at line 5, "):
        registry.add_plugin(one_file(tmp_path, ONE_FILE.replace("# summary = ", "# summary ")))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my_gru.py").write_bytes(b"# /// mer-bench\n# \xff\n# ///\n")
    with pytest.raises(CardError, match="it is not UTF-8 text"):
        registry.add_plugin(tmp_path / "my_gru.py")


@pytest.mark.parametrize(
    ("files", "given", "message"),
    [
        ({}, "gone.py", "there is no plugin at .*gone.py: the path does not exist"),
        ({"notes/a.txt": ""}, "notes", "notes holds no plugin: neither a card.toml nor a folder that has one"),
        ({"notes.txt": ""}, "notes.txt", "a plugin is a .py file or a folder, but .*notes.txt is another kind of file"),
        ({"gru/card.toml": CARD}, "gru", "gru/__init__.py is not there"),
        ({"gru/__init__.py": "", "gru/card.toml": "title = 3"}, "gru", "gru/card.toml is not a complete card"),
        ({"gru/__init__.py": "", "gru/card.toml": DATASET_CARD}, "gru", "gru/card.toml is not a complete card"),
        ({"MyGru.py": ONE_FILE}, "MyGru.py", "a model takes the name of its file, of lower-case letters"),
        ({"my gru/card.toml": CARD}, "my gru", "a model takes the name of its folder"),
        ({"cmath.py": ONE_FILE}, "cmath.py", "cmath.py is a model called cmath, but mer_bench_models.cmath has that"),
        ({"shelf/cmath/__init__.py": "", "shelf/cmath/card.toml": CARD}, "shelf", "mer_bench_models.cmath has that"),
    ],
    ids=[
        *("absent", "no-card", "no-python", "no-init", "bad-card", "dataset", "capitals", "space", "taken"),
        "taken-on-a-shelf",
    ],
)  # fmt: skip
def test_what_is_no_plugin_is_refused_in_one_sentence(
    tmp_path: Path, files: dict[str, str], given: str, message: str
) -> None:
    write_plugin(tmp_path, files)
    before = set(registry.models().plugins)
    with pytest.raises(RequestError, match=message) as caught:
        registry.add_plugin(tmp_path / given)
    assert "\n" not in str(caught.value)
    assert set(registry.models().plugins) == before


def test_name_of_another_added_model_is_taken(tmp_path: Path, add_plugin: Add) -> None:
    add_plugin(one_file(tmp_path / "a"))
    with pytest.raises(CardError, match=r"b/my_gru.py is a model called my-gru, but .*a/my_gru.py has that name"):
        add_plugin(one_file(tmp_path / "b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE_FILE + "\ndef f(:\n", r"my_gru.py cannot be imported: SyntaxError: .* \(.*my_gru.py, line \d+\)"),
        ("1 / 0\n" + ONE_FILE, r"ZeroDivisionError: division by zero \(.*my_gru.py, line 1\)"),
        ("\nraise SystemExit(3)\n" + ONE_FILE, r"SystemExit: 3 \(.*my_gru.py, line 2\)"),
        ("import no_such_library\n" + ONE_FILE, r"No module named 'no_such_library' \(.*my_gru.py, line 1\)"),
        ("from .config import X\n" + ONE_FILE, r"No module named '.config' \(.*my_gru.py, line 1\)"),
        ("import json\njson.loads('')\n" + ONE_FILE, r"JSONDecodeError: .* \(.*my_gru.py, line 2\)"),
        (ONE_FILE.replace("class Gru(", "class Other("), "my_gru.py has no Gru, which its card names as Gru"),
        (ONE_FILE.replace("class GruSettings", "class Other"), "my_gru.py has no GruSettings"),
        (ONE_FILE.replace("(Model)", ""), "my_gru.py:Gru should be a child of mer_bench.api.Model"),
        (ONE_FILE.replace("hidden_dim", "learning_rate"), "my_gru.py: the setting learning_rate hides the trainer's"),
    ],
    ids=["syntax", "crash", "exit", "import", "relative", "deeper", "class", "settings", "no-model", "hides"],
)
def test_broken_code_of_a_file_is_one_sentence_with_its_line(
    tmp_path: Path, add_plugin: Add, text: str, message: str
) -> None:
    add_plugin(one_file(tmp_path, text))
    with pytest.raises(PluginError, match=message) as caught:
        load_model("my-gru")
    assert "\n" not in str(caught.value)
    assert "mer_bench_local" not in str(caught.value)


def test_broken_code_of_a_folder_is_one_sentence_with_its_line(tmp_path: Path, add_plugin: Add) -> None:
    add_plugin(write_plugin(tmp_path / "gru", {**SOUND, "model.py": "from .parts import X\n", "parts.py": "\n1 / 0"}))
    with pytest.raises(PluginError, match=r"gru/model.py cannot be imported: Zero.* \(.*gru/parts.py, line 2\)"):
        load_model("gru")


def test_own_code_has_a_checksum_installed_or_not_and_built_in_code_has_none(
    tmp_path: Path, shelves: ShelfWriter, add_plugin: Add
) -> None:
    shelves.add("models", "their_models", {"gru": SOUND})
    add_plugin(write_plugin(tmp_path / "local" / "my_gru", SOUND))
    find = registry.models().find
    checksum = registry.code_checksum(find("my-gru"))
    assert checksum == registry.code_checksum(find("gru"))
    assert re.fullmatch(r"[0-9a-f]{64}", str(checksum))
    assert registry.code_checksum(find("cmath")) is None


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
