"""`mer-bench predict`: what a user types, and the file that comes back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import mer_bench
from mer_bench.cli import app
from mer_bench.records import record_file, record_folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The record of a model on made-up numbers, and the data folder."""
    folder = tmp_path_factory.mktemp("predict")
    record = mer_bench.run(
        "logistic", "meld-synthetic", modalities=("text",), data_root=folder / "data", out=folder / "runs", threads=1
    )
    return record_file(record_folder(folder / "runs", record), record.run), folder / "data"


def predict(run: tuple[Path, Path], *words: str) -> Result:
    return CliRunner().invoke(app, ["predict", "--run", str(run[0]), "--data-root", str(run[1]), *words])


@pytest.fixture
def given(run: tuple[Path, Path], tmp_path: Path) -> list[str]:
    """Three utterances, and the numbers of their text in a file of their own."""
    from mer_bench.records import read_record

    (tmp_path / "talks.csv").write_text("dialogue,speaker\n1,Ann\n1,Bo\n2,Ann\n")
    features = read_record(run[0]).features_detail
    assert features is not None
    width = features.widths["text"]
    np.save(tmp_path / "text.npy", np.random.default_rng(0).normal(size=(3, width)))
    return ["--input", str(tmp_path / "talks.csv"), "--array", f"text={tmp_path / 'text.npy'}"]


def test_every_format_says_the_same(run: tuple[Path, Path], given: list[str], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    rows: dict[str, list[dict[str, Any]]] = {}
    for kind in ("csv", "jsonl", "parquet"):
        answer = predict(run, *given, "--out", str(tmp_path / f"labels.{kind}"))
        assert answer.exit_code == 0, answer.output
        assert "3 utterances of 2 dialogues" in answer.output
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as stream:
        rows["csv"] = [
            {name: value if name in ("speaker", "label", "dialogue") else float(value) for name, value in row.items()}
            for row in csv.DictReader(stream)
        ]
    for line in (tmp_path / "labels.jsonl").read_text().splitlines():
        row = json.loads(line)
        scores = {f"score.{name}": value for name, value in row.pop("scores").items()}
        rows.setdefault("jsonl", []).append({**row, **scores})
    rows["parquet"] = pyarrow.parquet.read_table(tmp_path / "labels.parquet").to_pylist()
    assert rows["csv"] == rows["jsonl"] == rows["parquet"]
    assert [row["turn"] for row in rows["csv"]] == [1, 2, 1]
    for row in rows["csv"]:
        scores = {name: value for name, value in row.items() if name.startswith("score.")}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-6)
        assert max(scores, key=lambda name: scores[name]) == f"score.{row['label']}"


def test_standard_output_holds_the_answer_alone(run: tuple[Path, Path], given: list[str]) -> None:
    answer = predict(run, *given)
    assert answer.exit_code == 0
    assert answer.stdout.splitlines()[0].startswith("dialogue,turn,speaker,label,score.")
    assert len(answer.stdout.splitlines()) == 4
    assert "has no scaler of text" in answer.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--format", "xml"], "--format should be one of csv, jsonl, parquet, but is 'xml'"),
        (["--format", "parquet"], "Parquet is no text to print"),
        (["--out", "labels.txt"], "labels.txt should end in .csv, .jsonl or .parquet"),
        (["--out", "."], "should end in"),
        (["--array", "text"], "--array takes MODALITY=FILE"),
        (["--array", "text=a.npy"], "--array gives text twice"),
        (["--fold", "1"], "has one model and no folds"),
    ],
)
def test_wrong_words(run: tuple[Path, Path], given: list[str], words: list[str], says: str) -> None:
    answer = predict(run, *given, *words)
    assert answer.exit_code == 2
    assert says in answer.stderr
    assert answer.stdout == ""


def test_nothing_is_written_where_the_input_is_wrong(run: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "talks.csv").write_text("dialogue,speaker\n1,\n")
    answer = predict(run, "--input", str(tmp_path / "talks.csv"), "--out", str(tmp_path / "labels.csv"))
    assert answer.exit_code == 2
    assert "talks.csv, line 2, column speaker: is blank." in answer.stderr.replace("\n", " ")
    assert not (tmp_path / "labels.csv").exists()
