"""`mer-bench data`: bring files here, prepare stores, see and verify what is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mer_bench import registry
from mer_bench.data import preparation
from mer_bench.data.preparation import ImportReport
from mer_bench.errors import DataError, UnreachableError

from .conftest import Downloads, Invoke


@pytest.fixture
def root(synthetic: Path, tmp_path: Path) -> Path:
    """A data folder of one's own in which the synthetic corpus is prepared."""
    shutil.copytree(synthetic, tmp_path / "data")
    return tmp_path / "data"


def test_status_shows_every_feature_set_and_store(invoke: Invoke, root: Path) -> None:
    result = invoke("data", "status")
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if "/" in line.split(" ")[0]}
    assert "not prepared" in lines["meld/transcripts"]
    assert "0 of 6" in lines["meld/transcripts"]
    assert "emotion, official" in lines["meld-synthetic/default"]
    assert "none needed" in lines["meld-synthetic/default"]
    assert result.stdout.splitlines()[-1] == f"data folder: {root}"
    answer = json.loads(invoke("data", "status", "--json").stdout)
    by_name = {each["dataset"]: each for each in answer["datasets"]}
    assert list(by_name) == sorted(registry.datasets().plugins)
    assert by_name["meld-synthetic"]["features"][0]["stores"][0]["problem"] is None


def test_the_data_root_of_the_option_wins(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("data", "status", "--data-root", "elsewhere")
    assert result.stdout.splitlines()[-1] == f"data folder: {tmp_path / 'elsewhere'}"
    assert not (tmp_path / "elsewhere").exists()


def test_a_damaged_store_is_shown_and_verify_names_the_file(invoke: Invoke, root: Path) -> None:
    assert invoke("data", "verify", "meld-synthetic").exit_code == 0
    file = next((root / "prepared" / "meld-synthetic").rglob("features.text.npy"))
    array = np.load(file)
    array[7, 3] += 1
    np.save(file, array)
    result = invoke("data", "verify", "meld-synthetic")
    assert result.exit_code == 2
    assert "damaged" in result.stdout
    assert "features.text.npy" in result.stderr
    answer = invoke("data", "verify", "meld-synthetic", "--json")
    assert answer.exit_code == 2
    assert json.loads(answer.stdout)["checked"][0]["state"] == "damaged"
    file.unlink()
    status = invoke("data", "status")
    assert status.exit_code == 0
    assert "damaged" in status.stdout
    assert "warning: " in status.stderr


def test_a_damaged_raw_file_is_named(invoke: Invoke, root: Path) -> None:
    (root / "raw" / "meld").mkdir(parents=True)
    (root / "raw" / "meld" / "train_sent_emo.csv").write_text("not the published file")
    result = invoke("data", "verify", "meld")
    assert result.exit_code == 2
    assert "train_sent_emo.csv" in result.stderr
    assert result.stderr.count("\n") == 1


def test_nothing_to_verify_is_said(invoke: Invoke) -> None:
    result = invoke("data", "verify", "meld")
    assert result.exit_code == 2
    assert "nothing of meld is in " in result.stderr


def test_prepare_shows_what_it_made(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("data", "prepare", "meld-synthetic")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["train", "1038", "9989"] in [row[:3] for row in rows]
    assert ["test", "280", "2610"] in [row[:3] for row in rows]
    assert str(tmp_path / "data" / "prepared" / "meld-synthetic" / "default" / "emotion" / "official") in result.stdout
    (answer,) = json.loads(invoke("data", "prepare", "meld-synthetic/default", "--json").stdout)
    assert answer["manifest"]["dataset"] == "meld-synthetic"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["prepare", "mled"], "no dataset is called 'mled'. Did you mean 'meld'?"),
        (["prepare", "meld/transcript"], "no feature set is called 'meld/transcript'. Did you mean 'meld/transcripts'"),
        (["prepare", "meld", "--features", "transcript"], "Did you mean 'transcripts'"),
        (["prepare", "meld/mmgcn", "--features", "transcripts"], "two feature sets were given: meld/mmgcn"),
        (["prepare", "meld", "--labels", "emotions"], "Did you mean 'emotion'"),
        (["prepare", "meld", "--protocol", "offical"], "Did you mean 'official'"),
        (["prepare", "meld"], "mer-bench data import meld"),
        (["prepare", "meld-synthetic", "--vectors", "x.txt"], "'vectors' was given"),
        (["import", "mled", "--from", "."], "no dataset is called 'mled'. Did you mean 'meld'?"),
        (["import", "meld", "--from", "absent"], "absent is not a folder"),
        (["import", "meld", "--from", "."], "no file of meld is anywhere below ."),
        (["import", "meld"], "missing option '--from'. See: mer-bench data import --help"),
        (["import", "meld-synthetic", "--from", "."], "meld-synthetic is made from no files"),
        (["fetch", "mled"], "Did you mean 'meld'"),
        (["fetch", "meld/mmgn"], "Did you mean 'meld/mmgcn'"),
        (["verify", "meld-syntetic"], "Did you mean 'meld-synthetic'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_is_one_sentence(invoke: Invoke, downloads: Downloads, words: list[str], says: str) -> None:
    result = invoke("data", *words)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert downloads.asked == []


def test_the_features_may_be_named_in_either_way(invoke: Invoke, downloads: Downloads, tmp_path: Path) -> None:
    for words in (
        ["meld"],
        ["meld/mmgcn"],
        ["meld", "--features", "mmgcn"],
        ["meld", "--features", "meld/mmgcn"],
        ["meld/mmgcn", "--features", "mmgcn"],
    ):
        assert invoke("data", "fetch", *words, "--no-prepare").exit_code == 0
    assert [features for _, features in downloads.asked] == ["transcripts", *["mmgcn"] * 4]


@pytest.mark.parametrize(
    ("error", "code"), [(UnreachableError("no host answered."), 1), (DataError("404: no such file."), 2)]
)
def test_a_failed_fetch(invoke: Invoke, downloads: Downloads, error: Exception, code: int) -> None:
    downloads.answer = error
    result = invoke("data", "fetch", "meld")
    assert (result.exit_code, result.stderr) == (code, f"mer-bench: {error}\n")


def test_an_import_tells_what_was_found_and_what_is_missing(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def answer(dataset: str, folder: Path, root: Path) -> ImportReport:
        assert (dataset, folder, root) == ("meld", Path("mine"), tmp_path / "data")
        return ImportReport(
            "meld",
            root / "raw" / "meld",
            {"a.csv": folder / "deep" / "a.csv"},
            ("b.csv",),
            {"c.pkl": ("mmgcn",)},
            ready,
        )

    monkeypatch.setattr(preparation, "import_files", answer)
    ready: tuple[str, ...] = ("transcripts",)
    result = invoke("data", "import", "meld", "--from", "mine")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["a.csv", "imported", "mine/deep/a.csv"] in rows
    assert ["b.csv", "was", "there"] in rows
    assert ["c.pkl", "not", "found", "needed", "by", "meld/mmgcn"] in rows
    assert "ready: meld/transcripts" in result.stdout
    assert json.loads(invoke("data", "import", "meld", "--from", "mine", "--json").stdout)["ready"] == ["transcripts"]
    ready = ()
    assert "no feature set of meld is complete yet" in invoke("data", "import", "meld", "--from", "mine").stderr


@pytest.mark.real_data
def test_the_published_files_are_imported_and_verified(invoke: Invoke, shared_data: Path, tmp_path: Path) -> None:
    result = invoke("data", "import", "meld", "--from", str(shared_data / "published"))
    assert result.exit_code == 0
    assert "ready: meld/transcripts" in result.stdout
    assert invoke("data", "verify", "meld").exit_code == 0
    assert "6 of 6" in invoke("data", "status").stdout
    (tmp_path / "data" / "raw" / "meld" / "dev_sent_emo.csv").write_bytes(b"")
    result = invoke("data", "verify", "meld")
    assert result.exit_code == 2
    assert "dev_sent_emo.csv" in result.stderr
