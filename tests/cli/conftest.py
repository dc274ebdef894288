"""The command line in this process: what a user types, and what comes back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import mer_bench.data
from mer_bench.cli import app
from mer_bench.data.download import Fetched

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Run a command line, words as arguments, in an empty folder with an empty data folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MER_BENCH_DATA", str(tmp_path / "data"))

    def run(*words: str, env: dict[str, str] | None = None) -> Result:
        return CliRunner(env=env).invoke(app, words)

    return run


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which the synthetic corpus is prepared once."""
    from mer_bench.data.preparation import open_or_prepare, resolve

    root = tmp_path_factory.mktemp("synthetic")
    open_or_prepare(resolve("meld-synthetic"), root)
    return root


class Downloads:
    """Takes the place of `mer_bench.data.download`: notes what was asked and answers as told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.answer: BaseException | Callable[[Any, str, Path], list[Path]] | None = None

    def fetch(
        self,
        plugin: Any,
        features: str,
        root: Path,
        *,
        accept_licence: bool = False,
        mirror: str | None = None,
        progress: Any = None,
        confirm: Any = None,
    ) -> Fetched:
        self.asked.append((plugin.name, features))
        if isinstance(self.answer, BaseException):
            raise self.answer
        files = self.answer(plugin, features, root) if self.answer else []
        return Fetched(tuple(files), tuple(file.name for file in files), ())


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> Downloads:
    """No test of the command line reaches for a network."""
    fake = Downloads()
    module = ModuleType("mer_bench.data.download")
    module.fetch = fake.fetch  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mer_bench.data.download", module)
    monkeypatch.setattr(mer_bench.data, "download", module, raising=False)
    return fake
