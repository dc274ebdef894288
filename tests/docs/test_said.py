"""Sentences, tables and figures that a page quotes are those of the program and its data."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mer_bench.cli import app
from mer_bench.leaderboard.published import published_for
from tests.docs.blocks import ROOT

DOCS = ROOT / "docs"
RUN = ("run", "--dataset", "meld-synthetic")


def answer(*words: str) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    "words",
    [
        (*RUN, "--model", "dialogernn"),
        (*RUN, "--model", "cmath", "--set", "hidden_dim=4096"),
        (*RUN, "--model", "cmath", "--seed", "1", "--seeds", "3"),
        ("run", "--model", "majority", "--dataset", "iemocap"),
        ("data", "fetch", "iemocap"),
        ("leaderboard", "show", "--records", "runs"),
    ],
    ids=lambda words: " ".join(words[-2:]),
)
def test_a_fault_on_the_page_is_said_like_that(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MER_BENCH_DATA", str(tmp_path / "data"))
    said = answer(*words)
    quoted = [
        text.removesuffix(" ...") for text in re.findall(r"^\| `(.+?)` \|", (DOCS / "faults.md").read_text(), re.M)
    ]
    assert [text for text in quoted if text.rstrip(",") in said], said


def test_a_label_that_is_no_class_is_answered_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my-talks"
    folder.mkdir()
    rows = [
        "dialogue,split,speaker,label,text",
        "d1,train,Ada,happy,a",
        "d1,train,Ben,sad,b",
        "d2,dev,Ada,hapy,c",
        "d3,test,Ada,sad,d",
    ]
    (folder / "dialogues.csv").write_text("\n".join(rows) + "\n")
    (folder / "card.toml").write_text('title = "Talks"\n[label_sets.label]\ntitle = "L"\nclasses = ["happy", "sad"]\n')
    said = answer("data", "import", "my-talks", "--from", "my-talks", "--data-root", "data").split("mer-bench: ")[1]
    assert said in (DOCS / "your-dataset.md").read_text()


def test_how_public_code_chooses_is_what_the_data_say() -> None:
    told = (DOCS / "protocols.md").read_text()
    data = tomllib.loads((ROOT / "mer_bench" / "leaderboard" / "published" / "code.toml").read_text())["code"]
    rows = re.findall(r"^\| \[(.+?)\]\(https://github.com/(.+?)\) \| (.+) \| (test|dev) \|$", told, re.M)
    assert rows == [(c["repository"], c["repository"], "; ".join(c["models"]), c["selection"]) for c in data]


def test_the_two_figures_of_mmgcn_are_there() -> None:
    values = {f.value for f in published_for("meld", "emotion") if f.model == "MMGCN" and f.metric == "weighted_f1"}
    assert {58.31, 65.21} <= values
