"""Which runs are recorded already: by identity, whoever made the record and wherever."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mer_bench.data import preparation
from mer_bench.data.store import write_store
from mer_bench.records import predictions_file, read_record
from mer_bench.sweep.listening import SweepListener
from mer_bench.sweep.planning import plan_sweep
from mer_bench.sweep.runs import survey
from mer_bench.sweep.serial import work_here
from tests.sweep.conftest import Bench, Hearing
from tests.sweep.loopback import compare


def test_a_sweep_that_is_given_again_does_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.serial(tmp_path, bench.part(2))
    stamps = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*")}
    sweep = bench.sweep(tmp_path, bench.part(3))
    assert (len(sweep.found), len(sweep.left)) == (2, 1)
    hearing = Hearing()
    work_here(sweep, hearing)
    assert [begun for begun, _ in hearing.begun] == [sweep.left[0].identity]
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps


def test_records_of_two_people_merge_by_copying(bench: Bench, tmp_path: Path) -> None:
    ours, theirs, both = (tmp_path / name for name in ("ours", "theirs", "both"))
    bench.serial(ours, bench.part(2))
    bench.serial(theirs, bench.part(1), bench.part(1, seconds=0.001))
    shutil.copytree(ours, both)
    shutil.copytree(theirs, both, dirs_exist_ok=True)
    parts = (bench.part(2), bench.part(1, seconds=0.001))
    sweep = bench.sweep(both, *parts)
    assert (len(sweep.runs), sweep.left) == (3, [])
    assert compare(bench.serial(tmp_path / "alone", *parts), both).is_same


def test_a_run_of_two_parts_is_one(bench: Bench, tmp_path: Path) -> None:
    assert len(bench.sweep(tmp_path, bench.part(2), bench.part(3)).runs) == 3


def test_other_data_make_another_run(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.serial(tmp_path, bench.part(1))
    (before,) = bench.sweep(tmp_path, bench.part(1)).runs
    features = preparation.open_or_prepare

    class Other:
        def __init__(self, store: object) -> None:
            self._store = store
            self.manifest = store.manifest.model_copy(update={"sources_checksum": "0" * 64})  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self._store, name)

    monkeypatch.setattr("mer_bench.sweep.runs.open_or_prepare", lambda *args: Other(features(*args)))
    sweep = bench.sweep(tmp_path, bench.part(1))
    assert before not in sweep.runs
    assert len(sweep.left) == 1


def test_damaged_predictions_are_named_and_their_run_is_run_again(bench: Bench, tmp_path: Path) -> None:
    bench.serial(tmp_path, bench.part(2))
    (run, other) = bench.sweep(tmp_path, bench.part(2)).runs.values()
    file = predictions_file(run.recording.folder, run.recording.name)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    sweep = bench.sweep(tmp_path, bench.part(2))
    assert [each.identity for each in sweep.left] == [run.identity]
    assert file.name in sweep.damaged[0]
    work_here(sweep, SweepListener())
    assert file.read_bytes() == content
    assert bench.sweep(tmp_path, bench.part(2)).left == []
    assert other.recording.found() is not None


def test_a_failed_run_is_tried_again_unless_it_is_to_be_left_alone(bench: Bench, tmp_path: Path) -> None:
    part = bench.part(1, breaks=True)
    collected = work_here(bench.sweep(tmp_path, part, bench.part(1)), SweepListener())
    assert (len(collected.done), len(collected.failed)) == (1, 1)
    (identity,) = collected.failed
    assert read_record(collected.sweep.runs[identity].recording.file).status == "failed"
    assert len(bench.sweep(tmp_path, part).left) == 1
    alone = bench.sweep(tmp_path, part, skip_failed=True)
    assert (alone.left, list(alone.set_aside)) == ([], [identity])


def test_data_are_prepared_once_and_in_a_dry_run_not_at_all(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def counted(folder: Path, *args: object, **options: object) -> object:
        written.append(folder)
        return write_store(folder, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(preparation, "write_store", counted)
    request = Bench(tmp_path / "data", bench.plugin).request(tmp_path / "out", bench.part(3), bench.part(2, seconds=1))
    dry = survey(request, plan_sweep(request), dry=True)
    assert (written, len(dry.unknown), dry.runs) == ([], 5, {})
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "out").exists()
    told: list[str] = []
    wet = survey(request, plan_sweep(request), told.append)
    assert (len(written), len(told), len(wet.runs)) == (1, 1, 5)
    assert len(survey(request, plan_sweep(request), dry=True).runs) == 5
