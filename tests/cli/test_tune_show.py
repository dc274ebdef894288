"""`mer-bench tune show` and `tune export`: words on a screen, JSON, a page, a settings file."""

from __future__ import annotations

import json
import sqlite3
import tomllib
from pathlib import Path

import optuna
import pytest

from tests.cli.conftest import Invoke
from tests.studies import make_study


@pytest.fixture
def kept(tmp_path: Path) -> str:
    """The usual file of studies, with one in it."""
    (tmp_path / "runs").mkdir()
    storage = f"sqlite:///{tmp_path / 'runs' / 'studies.sqlite3'}"
    make_study(storage)
    return storage


def test_without_a_name_all_names_are_listed(invoke: Invoke, kept: str) -> None:
    make_study(kept, name="another one")
    result = invoke("tune", "show")
    assert result.output.split("\n")[:2] == ["another one", "gru.meld"]
    assert json.loads(invoke("tune", "show", "--json").stdout) == ["another one", "gru.meld"]


def test_a_study_on_the_screen(invoke: Invoke, kept: str) -> None:
    result = invoke("tune", "show", "gru.meld", "--top", "3")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == "study gru.meld"
    words = " ".join(result.output.split())
    for told in (
        "model gru, version 1",
        "budget 12 trials",
        "trials 10 complete, 1 pruned, 1 failed",
        "best 3 of 10 complete trials",
        "settings of trial 11, +20.08 on dev against the start (trial 0: 29.36)",
        "given up by the median pruner at epoch 3",
        "<script>alert('x')</script> & </script>",
        "pruned: 1 of 12 trials",
        "failed: 1 of 12 trials",
    ):
        assert told in words
    best = [line for line in lines if line.strip().startswith("11 ")]
    assert len(best) == 1
    assert best[0].split()[1] == "49.44"


def test_the_same_for_programs(invoke: Invoke, kept: str) -> None:
    result = invoke("tune", "show", "gru.meld", "--json", "--html", "page.html")
    told = json.loads(result.stdout)
    assert told["study"] == "gru.meld"
    assert told["best"][0]["trial"] == 11
    assert "page: page.html" in result.stderr


def test_a_page_is_written(invoke: Invoke, kept: str, tmp_path: Path) -> None:
    result = invoke("tune", "show", "gru.meld", "--html", "sub/page.html")
    assert result.output.splitlines()[-1] == "page: sub/page.html"
    assert "<h1>gru.meld</h1>" in (tmp_path / "sub" / "page.html").read_text(encoding="utf-8")


def test_the_best_settings_become_a_file(invoke: Invoke, kept: str, tmp_path: Path) -> None:
    result = invoke("tune", "export", "gru.meld", "--out", "best settings.toml")
    assert result.exit_code == 0
    settings = tomllib.loads((tmp_path / "best settings.toml").read_text(encoding="utf-8"))
    assert settings == {
        "epochs": 6,
        "width": 256,
        "learning_rate": 10 ** (-4 + 22 / 12),
        "schedule": "flat",
        "heads": 4,
    }
    assert result.output.splitlines()[-1] == (
        "mer-bench run --model gru --dataset meld-synthetic --features default --labels emotion --protocol official "
        "--modalities text --settings 'best settings.toml'"
    )
    assert invoke("tune", "export", "gru.meld", "--out", "o.toml", "--trial", "2").exit_code == 0
    assert tomllib.loads((tmp_path / "o.toml").read_text())["width"] == 192


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "gru.mel"], "no study is called 'gru.mel'. Did you mean 'gru.meld'? See: mer-bench tune show"),
        (["show", "x", "--storage", "no/such.db"], "the file no/such.db is not there"),
        (["show", "x", "--storage", "journal:no.log"], "the file no.log is not there"),
        (["show", "x", "--storage", "sqlite:///no.db"], "the file no.db is not there"),
        (["show", "--html", "page.html"], "--html makes a page about one study: name it."),
        (["show", "gru.meld", "--html", "runs"], "cannot write the page to runs"),
        (
            ["export", "gru.meld", "--out", "x", "--trial", "4"],
            "trial 4 of the study 'gru.meld' has no score: it is p",
        ),
        (["export", "gru.meld", "--out", "x", "--trial", "12"], "has no trial 12: there are 12, the first of them 0."),
        (["--trials", "3", "show", "gru.meld"], "--trials stands before 'show', which knows nothing of it"),
        (["--json", "export", "gru.meld", "--out", "x"], "--json stands before 'export'"),
        (["cmath"], "no command is called 'cmath'."),
    ],
)
def test_a_wrong_request_is_answered_with_one_sentence(
    invoke: Invoke, kept: str, tmp_path: Path, words: list[str], told: str
) -> None:
    before = files(tmp_path)
    result = invoke("tune", *words)
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.exit_code in (1, 2)
    assert files(tmp_path) == before


def files(folder: Path) -> list[Path]:
    """Those below a folder, but for what stands beside a database while it is in use."""
    return sorted(file for file in folder.rglob("*") if not file.name.endswith(("-wal", "-shm", ".turn")))


def rows(file: Path) -> list[str]:
    with sqlite3.connect(file) as connection:
        return list(connection.iterdump())


def test_looking_changes_nothing(invoke: Invoke, kept: str, tmp_path: Path) -> None:
    before = rows(tmp_path / "runs" / "studies.sqlite3")
    for line in ("show", "show gru.meld", "show gru.meld --html p", "export gru.meld --out o"):
        assert invoke("tune", *line.split()).exit_code == 0
    assert rows(tmp_path / "runs" / "studies.sqlite3") == before


@pytest.mark.parametrize("words", [["show"], ["show", "x"], ["export", "x", "--out", "o"]])
def test_a_file_that_is_no_database_is_named(invoke: Invoke, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "notes.txt").write_text("no database at all, but a text of more than a hundred letters" * 9)
    result = invoke("tune", *words, "--storage", "notes.txt")
    assert result.stderr.startswith("mer-bench: notes.txt is no SQLite file")
    assert result.exit_code == 2


def test_an_unreachable_server_is_named(invoke: Invoke) -> None:
    pytest.importorskip("psycopg")
    result = invoke("tune", "show", "x", "--storage", "postgresql://me:secret@127.0.0.1:1/studies")
    assert result.exit_code == 1
    assert "127.0.0.1:1" in result.stderr
    assert "secret" not in result.stderr


def test_a_study_of_somebody_else_is_left_alone(invoke: Invoke, kept: str) -> None:
    optuna.create_study(study_name="theirs", storage=kept)
    assert "'theirs' was not made by mer-bench tune" in invoke("tune", "show", "theirs").stderr
