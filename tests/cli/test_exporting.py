"""`mer-bench data export`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mer_bench import registry

from .conftest import Invoke


@pytest.fixture
def root(synthetic: Path, tmp_path: Path) -> Path:
    shutil.copytree(synthetic, tmp_path / "data")
    return tmp_path / "data"


def test_an_export_tells_what_and_where(invoke: Invoke, root: Path, tmp_path: Path) -> None:
    result = invoke("data", "export", "meld-synthetic", "--to", "out")
    assert result.exit_code == 0
    first, last = result.stdout.splitlines()
    assert first.startswith(
        "meld-synthetic/default (emotion, official): 1432 dialogues, 13708 utterances; dialogues.jsonl "
    )
    assert last == f"exported to {tmp_path / 'out'}"
    assert result.stderr == ""
    assert len((tmp_path / "out" / "dialogues.jsonl").read_text("utf-8").splitlines()) == 1432
    answer = json.loads(invoke("data", "export", "meld-synthetic/default", "--to", "two", "--json").stdout)
    assert answer["folder"] == str(tmp_path / "two")
    assert sorted(answer["files"]) == ["dialogues.jsonl", "features.safetensors", "manifest.json"]


def test_what_must_not_be_passed_on_is_said(invoke: Invoke, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = registry.datasets().find("meld-synthetic")
    monkeypatch.setitem(plugin.card.__dict__, "redistribute", False)
    for words in ((), ("--json",)):
        result = invoke("data", "export", "meld-synthetic", "--to", f"out{len(words)}", *words)
        assert (
            result.stderr
            == f"warning: the licence of {plugin.card.title} forbids passing this folder on: keep it to yourself.\n"
        )
        assert result.exit_code == 0


def test_a_full_folder_is_refused_before_anything_is_prepared(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    result = invoke("data", "export", "meld-synthetic", "--to", "mine")
    assert (result.exit_code, result.stderr) == (
        2,
        "mer-bench: mine is not empty; name a folder that does not exist yet.\n",
    )
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["mled"], "no dataset is called 'mled'"),
        (["meld/transcript"], "no feature set is called 'meld/transcript'"),
        (["meld-synthetic", "--fold", "1"], "has no folds, but fold 1 was asked for"),
        (
            ["iemocap", "--protocol", "loso"],
            "iemocap/loso has 5 folds, each a store of its own; name one: --fold 1 to 5.",
        ),
        (["iemocap", "--protocol", "loso", "--fold", "6"], "fold must lie in [1, 5]"),
        (["meld"], "meld/transcripts needs train_sent_emo.csv"),
    ],
)
def test_a_wrong_request_is_one_sentence(invoke: Invoke, tmp_path: Path, words: list[str], says: str) -> None:
    result = invoke("data", "export", *words, "--to", "out")
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_was_exported_is_imported_verified_and_exported_again(
    invoke: Invoke, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MER_BENCH_DATA")
    elsewhere = ("--data-root", str(root))
    assert invoke("data", "export", "meld-synthetic", "--to", "first", *elsewhere).exit_code == 0
    assert invoke("data", "import", "mine", "--from", "first", *elsewhere).exit_code == 0
    assert invoke("data", "verify", "mine", *elsewhere).exit_code == 0
    assert invoke("data", "export", "mine", "--to", "second", *elsewhere).exit_code == 0
    first, second = ((tmp_path / name / "dialogues.jsonl").read_bytes() for name in ("first", "second"))
    assert first == second
    arrays, again = (load_file(tmp_path / name / "features.safetensors") for name in ("first", "second"))
    assert set(arrays) == set(again)
    for name in arrays:
        if name.endswith(".present"):
            assert np.array_equal(arrays[name], again[name])
    raw = root / "raw" / "mine" / "dialogues.jsonl"
    raw.write_bytes(raw.read_bytes() + b"\n")
    result = invoke("data", "verify", "mine", *elsewhere)
    assert result.exit_code == 2
    assert "dialogues.jsonl" in result.stderr
