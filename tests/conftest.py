"""What every test shares: single-threaded torch, real data where they are, shelves of plugins."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser

from mer_bench import registry
from mer_bench.plugin_files import absolute
from tests.browsing import Visitor, chromium

torch.set_num_threads(1)
# The tests' own processes must neither see a contributor's data nor his habits.
for name in ("MER_BENCH_DATA", "MER_BENCH_MIRROR", "MER_BENCH_REQUIRE_REAL"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real corpora beside the repository; the test is skipped where they are absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real corpora are not beside the repository (../shared/data)")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; of a module and not of all tests, since as long as it is open no test can run an event loop."""
    with chromium() as found:
        yield found


@pytest.fixture
def visitor(browser: Browser, tmp_path: Path) -> Visitor:
    """Opens pages in Chromium."""
    return Visitor(browser, tmp_path)


@pytest.fixture
def add_plugin() -> Iterator[Callable[[Path], tuple[str, ...]]]:
    """Adds plugins that are not installed, which are gone after the test."""
    paths: list[Path] = []

    def add(path: Path) -> tuple[str, ...]:
        paths.append(absolute(path))  # the test may leave the folder
        return registry.add_plugin(path)

    yield add
    for path in paths:
        registry.remove_plugin(path)


def write_plugin(folder: Path, files: Mapping[str, str]) -> Path:
    """Write a plugin's folder, sub-packages included."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


class ShelfWriter:
    """Puts plugins on a shelf of their own, as an installed distribution would.

    Attributes:
        folder: Stands on the import path while the test runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, kind: str, package: str, plugins: Mapping[str, Mapping[str, str]], importable: bool = True) -> Path:
        """Write a shelf and register it.

        Args:
            kind: `models` or `datasets`.
            package: Import name of the shelf.
            plugins: By folder, the text of each file by name.
            importable: False to register it without writing it.
        """
        if importable:
            (self.folder / package).mkdir(parents=True)
        for name, files in plugins.items():
            (self.folder / package / name).mkdir()
            for file, text in files.items():
                (self.folder / package / name / file).write_text(textwrap.dedent(text), encoding="utf-8")
        information = self.folder / f"{package}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[mer_bench.{kind}]\n{package} = {package}\n")
        importlib.invalidate_caches()
        registry.forget()
        return self.folder / package


@pytest.fixture
def shelves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShelfWriter]:
    """A writer of plugin shelves that are gone after the test."""
    modules = set(sys.modules)
    folder = tmp_path / "installed"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield ShelfWriter(folder)
    for name in set(sys.modules) - modules:
        if str(folder) in str(getattr(sys.modules[name], "__path__", getattr(sys.modules[name], "__file__", ""))):
            del sys.modules[name]
    monkeypatch.undo()
    importlib.invalidate_caches()
    registry.forget()
