"""Kills and damages at small scale; `python -m tests.faults kills` and `… damage` are the full one."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mer_bench import registry
from mer_bench.records import predictions_file, read_record, record_folder
from tests.faults.damaging import damage_files
from tests.faults.killing import kill_runs
from tests.faults.shelf import install
from tests.faults.workshop import Workshop, request_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty folder, while the shelf is on the path of this process and its children."""
    before = set(sys.modules)
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder / "installed"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder / "installed"), str(ROOT)]))
        install(folder / "installed")
        yield folder / "work"
        for name in set(sys.modules) - before:
            if name.startswith(("fault_models", "fault_datasets")):
                del sys.modules[name]
    importlib.invalidate_caches()
    registry.forget()


def test_kills_lose_double_and_change_nothing(work: Path) -> None:
    counts = kill_runs(work / "kills", kills=6, runs=2, seed=1)
    assert counts.faults == 6
    assert counts.bad == 0, str(counts)


def test_damages_are_noticed_or_harmless(work: Path) -> None:
    counts = damage_files(work / "damage", count=18, seed=1)
    assert counts.faults == counts.noticed + counts.harmless == 18, str(counts)
    assert counts.bad == 0
    assert counts.noticed >= 12


def test_ten_processes_write_into_one_folder_and_lose_and_double_nothing(work: Path) -> None:
    workshop = Workshop()
    data, out = work / "together-data", work / "together"
    for number in (0, 2):
        workshop.finish(request_of(data, work / "warm", number))
    # Six runs, two of them wanted by three processes each.
    children = [(number, *workshop.start(request_of(data, out, number))) for number in (0, 1, 2, 3, 4, 5, 0, 0, 2, 2)]
    for _, child, _ in children:
        child.join()
    records = [read_record(file) for file in out.rglob("*.json")]
    assert sorted(record.seed for record in records) == [0, 1, 2, 3, 4, 5]
    for number, child, _ in children:
        # Who came second was told; who came after the first had ended did the same again.
        assert child.exitcode == 0 or number in (0, 2)
    for record in records:
        folder = record_folder(out, record)
        assert predictions_file(folder, record.run).is_file()
        workshop.finish(request_of(data, work / "alone", record.seed))
        alone = read_record(record_folder(work / "alone", record) / f"{record.run}.json")
        assert alone.predictions == record.predictions
    assert list(out.rglob(".*")) == []
