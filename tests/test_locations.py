"""Where data lie: the order of the places, and the folders of raw files and stores."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from mer_bench.locations import StoreKey, data_root, raw_folder, store_folder


def test_given_root_wins_over_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MER_BENCH_DATA", "/somewhere/else")
    assert data_root(tmp_path) == tmp_path


def test_variable_wins_over_the_users_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MER_BENCH_DATA", str(tmp_path))
    assert data_root() == tmp_path


@pytest.mark.parametrize("value", [None, ""])
def test_users_data_folder_is_the_last_resort(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("MER_BENCH_DATA", raising=False)
    else:
        monkeypatch.setenv("MER_BENCH_DATA", value)
    assert data_root() == Path(platformdirs.user_data_dir("mer-bench", appauthor=False))


def test_root_is_absolute_and_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert data_root(Path("~/corpora")) == tmp_path / "corpora"
    assert data_root(Path("here")) == tmp_path / "here"


def test_folders(tmp_path: Path) -> None:
    key = StoreKey("iemocap", "prosody", "six", "loso")
    assert raw_folder(tmp_path, "meld") == tmp_path / "raw" / "meld"
    assert store_folder(tmp_path, key) == tmp_path / "prepared/iemocap/prosody/six/loso"
    fold = StoreKey("iemocap", "prosody", "six", "loso", 3)
    assert store_folder(tmp_path, fold) == tmp_path / "prepared/iemocap/prosody/six/loso/fold3"
    assert str(fold) == "iemocap/prosody (six, loso, fold 3)"
