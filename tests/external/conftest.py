"""The small corpora in a data folder of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ShelfWriter
from tests.external.chat import add_chats


@pytest.fixture
def chats(shelves: ShelfWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; `chat` and `secret-chat` are datasets."""
    add_chats(shelves)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MER_BENCH_DATA", str(tmp_path / "data"))
    return folder
