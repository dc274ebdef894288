"""`mer-bench compare`: the verdict in words, for people and for programs, and every wrong request in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke
from tests.leaderboard.runs import write_failure, write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(3):
        write_run(tmp_path / "one", 0.4, model="low", seed=seed, dialogues=30)
        write_run(tmp_path / "two", 0.9, model="high", seed=seed, dialogues=30)
    write_run(tmp_path / "two", 0.89, model="near", seed=0, dialogues=30)
    return tmp_path


def test_who_leads(invoke: Invoke, folder: Path) -> None:
    result = invoke("compare", "low", "high", "--records", str(folder), "--top", "2")
    assert result.exit_code == 0
    assert "high leads low by " in result.stdout
    assert "points of weighted F1" in result.stdout
    assert "95 % interval +" in result.stdout
    assert "Effect size " in result.stdout
    assert "high is the better one with probability 0.9" in result.stdout
    assert "F1 of each class" in result.stdout
    assert "dialogues that speak most for high" in result.stdout
    assert "one run of" not in result.stdout


def test_not_separated_and_one_run(invoke: Invoke, folder: Path) -> None:
    result = invoke("compare", "near", "high", "--records", str(folder))
    assert result.exit_code == 0
    assert "are not separated" in result.stdout
    assert "There is one run of near: this holds for the trained model" in result.stdout


def test_two_folders_and_two_records(invoke: Invoke, folder: Path) -> None:
    wanted = json.loads(invoke("compare", "low", "high", "--records", str(folder), "--json").stdout)
    result = invoke("compare", str(folder / "one"), "high", "--records", str(folder / "two"), "--json")
    assert json.loads(result.stdout) == wanted
    assert wanted["separated"] is True
    assert wanted["difference"]["p_value"] < 0.05
    assert len(wanted["dialogues"]) == wanted["test_dialogues"] == 30
    files = [next((folder / part).rglob(f"{model}*seed1*.json")) for part, model in (("one", "low"), ("two", "high"))]
    single = json.loads(invoke("compare", *map(str, files), "--json").stdout)
    assert single["first"]["seeds"] == single["second"]["seeds"]
    assert len(single["first"]["seeds"]) == 1


def test_few_dialogues(invoke: Invoke, tmp_path: Path) -> None:
    write_run(tmp_path, 0.4, model="low", dialogues=9)
    write_run(tmp_path, 0.9, model="high", dialogues=9)
    result = invoke("compare", "low", "high", "--records", str(tmp_path))
    assert result.exit_code == 0
    assert "a test needs at least 10 dialogues, and there are 9" in result.stdout
    assert json.loads(invoke("compare", "low", "high", "--records", str(tmp_path), "--json").stdout)["effect"] is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["low", "hihg"], "no row or model is called 'hihg'. Did you mean 'high'?"),
        (["low", "high", "--dataset", "meld"], "fits --dataset meld; there: talks."),
        (["low", "high", "--modalities", "text"], "fits --modalities text; there: text,audio."),
        (["low", "high", "--condition", "only-text"], "fits --condition only-text; there: the complete test split."),
        (["low", "other"], "have no leaderboard in common and cannot be compared"),
        (["low", "low"], "low and low are the same row"),
        (["FOLDER/two", "low"], "holds 2 rows ("),
        (["FOLDER/nowhere", "low"], "there are no records at FOLDER/nowhere"),
        (["FOLDER/broken", "low"], "every run in FOLDER/broken failed: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_is_answered_in_a_sentence(invoke: Invoke, folder: Path, words: list[str], says: str) -> None:
    write_run(folder / "three", model="other", protocol="talks/other", dialogues=30)
    write_failure(folder / "broken", model="broken")
    records = [word for part in ("one", "two", "three") for word in ("--records", str(folder / part))]
    result = invoke("compare", *(word.replace("FOLDER", str(folder)) for word in words), *records)
    assert result.exit_code == 2, result.output
    assert says.replace("FOLDER", str(folder)) in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_help_has_examples(invoke: Invoke) -> None:
    text = invoke("compare", "--help").stdout
    assert "mer-bench compare cmath mmgcn" in text
    assert max(map(len, text.splitlines())) <= 100
