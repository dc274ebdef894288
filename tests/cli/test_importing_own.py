"""A user's own dialogues from the command line: a new folder, its import, and everything that works on a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mer_bench import registry

from .conftest import Invoke


@pytest.fixture
def talks(invoke: Invoke, tmp_path: Path) -> Path:
    """The example of `new dataset`."""
    assert invoke("new", "dataset", "my-talks").exit_code == 0
    return tmp_path / "my-talks"


@pytest.fixture
def imported(invoke: Invoke, talks: Path) -> Path:
    """The example with audio, imported."""
    np.save(talks / "audio.npy", np.linspace(0, 1, 2 * 22).reshape(22, 2))
    result = invoke("data", "import", "my-talks", "--from", "my-talks")
    assert result.exit_code == 0, result.output
    return talks


def test_the_example_imports_at_once_and_says_what_it_found(invoke: Invoke, talks: Path, tmp_path: Path) -> None:
    assert sorted(file.name for file in talks.iterdir()) == ["README.md", "card.toml", "dialogues.jsonl"]
    result = invoke("data", "import", "my-talks", "--from", "my-talks")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["train", "6", "14", "3"] in rows
    assert ["split", "neutral", "joy", "anger", "no", "label"] in rows
    assert ["texts", "22", "of", "22", "utterances"] in rows
    assert f"kept in {tmp_path}/data/raw/my-talks" in result.stdout
    assert "ready: my-talks/given, version 1" in result.stdout
    assert result.stderr == ""
    again = invoke("data", "import", "my-talks", "--from", "my-talks", "--json")
    answer = json.loads(again.stdout)
    assert (answer["version"], answer["changed"], answer["made_card"]) == (1, False, False)
    assert registry.datasets().find("my-talks").card.synthetic


def test_everything_that_works_on_a_dataset_works_on_ones_own(invoke: Invoke, imported: Path, tmp_path: Path) -> None:
    listing = invoke("list", "datasets").stdout
    assert ["my-talks", "synthetic", "text", "audio", "yours"] in [line.split()[:5] for line in listing.splitlines()]
    assert "my-talks/transcripts" in invoke("list", "features").stdout
    assert "Three emotions: neutral, joy, anger" in invoke("info", "my-talks").stdout
    assert "my-talks/given: Text: " in invoke("info", "my-talks/given").stdout
    status = json.loads(invoke("data", "status", "--json").stdout)
    (mine,) = [each for each in status["datasets"] if each["dataset"] == "my-talks"]
    assert (mine["features"][0]["features"], mine["features"][0]["missing"]) == ("given", [])
    assert invoke("data", "prepare", "my-talks").exit_code == 0
    assert invoke("data", "verify", "my-talks").exit_code == 0
    for model in ("majority", "logistic"):
        result = invoke("run", "--model", model, "--dataset", "my-talks", "--json")
        assert result.exit_code == 0, result.stderr
    runs = [json.loads(file.read_text()) for file in (tmp_path / "runs").rglob("*.json")]
    assert {(run["model"], run["dataset"], run["synthetic"]) for run in runs} == {
        ("majority", "my-talks", True),
        ("logistic", "my-talks", True),
    }
    assert {tuple(run["modalities"]) for run in runs} == {("text", "audio")}
    file = tmp_path / "data/raw/my-talks/dialogues.jsonl"
    file.write_text(file.read_text().replace("kettle", "teapot"))
    result = invoke("data", "verify", "my-talks")
    assert result.exit_code == 2
    assert "dialogues.jsonl" in result.stderr
    result = invoke("data", "prepare", "my-talks")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "was changed after it was imported" in result.stderr


def test_the_data_root_of_the_option_is_where_they_are(invoke: Invoke, talks: Path) -> None:
    at = ("--data-root", "elsewhere")
    assert invoke("data", "import", "my-talks", "--from", "my-talks", *at).exit_code == 0
    assert "my-talks" not in invoke("list", "datasets").stdout
    assert "my-talks" in invoke("list", "datasets", *at).stdout
    assert invoke("info", "my-talks").exit_code == 2
    for words in (
        ("info", "my-talks/given"),
        ("data", "prepare", "my-talks/given"),
        ("data", "verify", "my-talks"),
        ("run", "--model", "majority", "--dataset", "my-talks"),
    ):
        assert invoke(*words).exit_code == 2
        result = invoke(*words, *at)
        assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data", "import", "my-talks", "--from", "absent"], "absent is not there"),
        (["data", "import", "my-talks", "--from", "my-talks/README.md"], "README.md holds no dialogues"),
        (["data", "import", "my-talks", "--from", "my-talks", "--split", "80/10"], "but is '80/10'"),
        (["data", "import", "my-talks", "--from", "my-talks", "--split", "80/10/11"], "but is '80/10/11'"),
        (["data", "import", "my-talks", "--from", "my-talks", "--split", "80/20/0"], "but is '80/20/0'"),
        (["data", "import", "my-talks", "--from", "my-talks", "--seed", "1"], "--seed 1 belongs to a random split"),
        (["data", "import", "my-talks", "--from", "my-talks", "--split", "80/10/10"], "there is a split already"),
        (["data", "import", "meld", "--from", "my-talks", "--split", "80/10/10"], "meld has splits of its own"),
        (["data", "import", "My", "--from", "my-talks"], "'My' cannot be the name of a dataset"),
        (["data", "import", "majority", "--from", "my-talks"], "'majority' is the name of a model"),
        (["data", "import", "mled", "--from", "."], "no dataset is called 'mled'. Did you mean 'meld'?"),
        (["data", "verify", "my-talks"], "no dataset is called 'my-talks'"),
        (["new", "dataset", "my-talks"], "my-talks is there already; name another folder with --folder"),
        (["new", "dataset", "meld"], "'meld' is the name of a dataset that is installed"),
        (["new", "datset", "x"], "no command is called 'datset'. Did you mean 'dataset'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_is_one_sentence(
    invoke: Invoke, talks: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = invoke(*words)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_new_writes_where_it_is_told_and_into_an_empty_folder(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("empty", "deep/er"):
        result = invoke("new", "dataset", "my-talks", "--folder", place)
        assert result.exit_code == 0
        assert result.stdout.splitlines()[-1] == f"mer-bench data import my-talks --from {place}"
        assert (tmp_path / place / "card.toml").is_file()


def test_every_key_of_the_template_is_one_that_an_import_takes(invoke: Invoke, talks: Path) -> None:
    """With every comment that is a key taken off, the card is still good."""
    lines = (talks / "card.toml").read_text().splitlines()
    taken = [
        line.removeprefix("# ") if line.startswith(("# [", "# modalities")) or " = " in line else line for line in lines
    ]
    text = "\n".join(taken).replace('["text", "audio", "visual"]', '["text"]').replace("[phone]", "phone")
    (talks / "card.toml").write_text(text)
    result = invoke("data", "import", "my-talks", "--from", "my-talks")
    assert result.exit_code == 0, result.stderr
    card = registry.datasets().find("my-talks").card
    assert card.paper is not None
    assert list(card.subsets) == ["phone"]
    assert card.protocols["official"].title == "Our split by recording session"


def test_missing_values_are_shown_by_split_and_modality(invoke: Invoke, talks: Path) -> None:
    values = np.arange(44.0).reshape(22, 2)
    values[[3, 15, 20, 21]] = np.nan
    values[0, 1] = np.nan
    np.save(talks / "audio.npy", values)
    (talks / "card.toml").unlink()
    (talks / "talk.wav").write_text("")
    result = invoke("data", "import", "my-talks", "--from", "my-talks")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    for row in (["train", "1", "1"], ["dev", "1", "0"], ["test", "2", "0"]):
        assert ["audio", "2", *row, "audio.npy"] in rows
    assert "there was no card.toml, so a small one was made" in result.stdout
    assert "warning: passed over: talk.wav" in result.stderr
    assert registry.datasets().find("my-talks").card.label_sets["label"].classes == ("anger", "joy", "neutral")
