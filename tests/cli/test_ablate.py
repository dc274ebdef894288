"""`mer-bench ablate`: options in, three tables and records out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mer_bench.records import read_record
from tests.trios import Place, place

from .conftest import Invoke

__all__ = ["place"]


@pytest.fixture
def words(place: Place) -> tuple[str, ...]:
    return ("ablate", "--model", "reader", "--dataset", "trios", "--data-root", str(place.data), "--threads", "1")


def row(text: str, name: str) -> list[str]:
    """The cells of a row, split at two spaces or more."""
    return next(re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.startswith(f"{name}  "))


def test_three_tables_are_shown_each_by_itself(invoke: Invoke, words: tuple[str, ...], tmp_path: Path) -> None:
    result = invoke(*words, "--seeds", "2", "--out", "here")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "mer-bench: 2 runs failed, the first of them broken with seed 0: reader failed: IndexError: no such row"
    )
    first, second, third = re.split(
        r"^reader on trios/default, emotion, protocol official, 2 seeds: ", result.stdout, flags=re.MULTILINE
    )[1:]
    assert first.startswith("trained on some of the modalities\n")
    assert second.startswith("trained on all modalities, tested without some\n")
    assert third.startswith("trained with one part changed\n")
    assert row(first, "text+audio+visual") == ["text+audio+visual", "100.00 ± 0.00", "100.00 ± 0.00"]
    assert row(first, "audio")[:4] == ["audio", "100.00 ± 0.00", "100.00 ± 0.00", "+0.00"]
    assert row(second, "everything") == ["everything", "100.00 ± 0.00"]
    audio = row(second, "audio")
    assert float(audio[2]) == pytest.approx(float(audio[1].split()[0]) - 100, abs=0.011)
    assert len(row(second, "random 0.3")) == 6
    assert "random 0.7: 66.7 % were missing, the most that can be" in second
    assert row(third, "wrong")[2:4] == ["0.00 ± 0.00", "-100.00"]
    assert row(third, "wrong")[-1] in ("< 0.001", "0.000")
    assert "What if it is wrong on purpose?" in third
    assert "same was left out: it is what the whole model's settings say already." in third
    assert "records: here/trios/reader" in result.stdout
    assert "reader on" not in "".join(first.splitlines()[1:])
    assert len(list((tmp_path / "here").rglob("*.json"))) == 18 + 82


def test_progress_says_which_run_of_how_many(invoke: Invoke, words: tuple[str, ...]) -> None:
    result = invoke(*words, "--only", "modalities", "--only", "missing")
    assert result.exit_code == 0
    assert "reader on trios/default" not in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].endswith("data are being prepared") or "7 models to train" in "".join(lines[:3])
    assert "1/7 whole, seed 0: training on text + audio + visual" in lines
    assert "1/7 whole, seed 0: test scored under 41 conditions" in lines
    assert "7/7 visual, seed 0: training on visual" in lines
    assert "one seed: nothing shows how another one would do; --seeds 5 tells more" in lines
    again = invoke(*words, "--only", "modalities", "--only", "missing").stdout.splitlines()
    assert "1/7 whole, seed 0: there already, test weighted F1 100.00" in again
    assert "1/7 whole, seed 0: test under 41 conditions, there already" in again
    assert not any("training" in line for line in again)
    start = next(number for number, line in enumerate(lines) if "trained on some of the modalities" in line)
    assert lines[start:] == again[next(n for n, line in enumerate(again) if "trained on some" in line) :]


def test_json_is_the_tables_alone(invoke: Invoke, words: tuple[str, ...], tmp_path: Path) -> None:
    result = invoke(*words, "--seed", "3", "--only", "settings", "--only", "missing", "--json")
    assert result.exit_code == 1
    answer: dict[str, Any] = json.loads(result.stdout)
    assert (answer["model"], answer["modalities"], answer["seeds"]) == ("reader", ["text", "audio", "visual"], [3])
    assert list(answer["tables"]) == ["missing", "settings"]
    rows = {each["name"]: each for each in answer["tables"]["missing"]["rows"]}
    assert len(rows) == 6 + 7
    random = rows["missing-0.7"]
    assert (random["rate"], len(random["records"])) == (0.7, 5)
    assert random["reached"] == pytest.approx(2 / 3)
    each = [read_record(tmp_path / "runs" / "trios" / "reader" / f"{name}.json").test for name in random["records"]]
    mean = sum(scores.weighted_f1 for scores in each if scores) / 5
    assert random["test_weighted_f1"] == {"mean": pytest.approx(mean), "spread": None, "each": [pytest.approx(mean)]}
    assert random["between_masks"] > 0
    assert random["difference"]["difference"] == pytest.approx(mean - 1)
    assert random["difference"]["adjusted_p_value"] >= random["difference"]["p_value"]
    (wrong,) = answer["tables"]["settings"]["rows"]
    assert (wrong["question"], wrong["settings"]) == ("What if it is wrong on purpose?", {"shift": 1})
    assert answer["failed"] == [{"name": "broken", "seed": 3, "reason": "reader failed: IndexError: no such row"}]


def test_a_model_that_needs_a_modality_says_so(invoke: Invoke, words: tuple[str, ...]) -> None:
    result = invoke(*words, "--model", "needy", "--only", "modalities")
    assert result.exit_code == 0
    assert "audio was left out: needy needs text." in result.stdout
    assert not any(line.startswith("audio  ") for line in result.stdout.splitlines())


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--only", "setings"], "no table of an ablation is called 'setings'. Did you mean 'settings'?"),
        (["--seed", "1", "--seeds", "2"], "--seed 1 is one run and --seeds 2 are several; give one of the two."),
        (["--set", "shfit=1"], "no setting is called 'shfit'. Did you mean 'shift'?"),
        (["--set", "shift=9"], "shift must be a whole number in [0, 2], but is 9 (from --set shift=9)."),
        (["--modalities", "text,,audio"], "modalities are names with commas between them"),
        (["--modalities", "text", "--only", "missing"], "reads text alone here, which cannot be missing."),
        (["--model", "majority", "--only", "settings"], "the card of majority lists no ablations."),
        (["--model", "raeder"], "no model is called 'raeder'. Did you mean 'reader'?"),
        (["--device", "gpu"], "a device is auto, cpu, cuda or cuda:N, but 'gpu' was given."),
        (["--dataset", "meld"], "fetch them with: mer-bench data fetch meld"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_is_one_sentence_and_writes_nothing(
    invoke: Invoke, words: tuple[str, ...], tmp_path: Path, extra: list[str], says: str
) -> None:
    before = sorted(tmp_path.iterdir())
    result = invoke(*words, *extra)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("width", ["80", "140"])
def test_tables_fit_a_terminal(
    invoke: Invoke, words: tuple[str, ...], width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    result = invoke(*words, "--seeds", "2", env={"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": width})
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", result.stdout)
    tables = plain[plain.index("reader on trios/default, emotion") :]
    assert max(len(line.rstrip()) for line in tables.replace("\r", "\n").splitlines()) <= int(width)
    assert "..." not in tables
    assert "…" not in tables
