"""The fault script at a small scale."""

from __future__ import annotations

from pathlib import Path

from tests.sweep.conftest import Bench
from tests.sweep.faults import deaths_of_workers
from tests.sweep.loopback import compare


def test_deaths_of_workers_cost_no_run(bench: Bench, tmp_path: Path) -> None:
    report = deaths_of_workers(bench, tmp_path, runs=8, workers=2, deaths=3, seed=1)
    assert report.is_sound, report
    assert report.deaths == 3
    assert report.begun_again >= 1


def test_the_comparison_sees_what_is_lost_doubled_or_changed(bench: Bench, tmp_path: Path) -> None:
    one, two = bench.serial(tmp_path / "one", bench.part(2)), bench.serial(tmp_path / "two", bench.part(2))
    assert compare(one, two).is_same
    first, second = sorted(two.rglob("*.json"))
    (first.parent / "again.json").write_bytes(first.read_bytes())
    second.unlink()
    sound = compare(one, two)
    assert (sound.lost, sound.doubled, sound.changed) == (1, 1, 0)
    predictions = first.with_name(f"{first.stem}.predictions.npz")
    predictions.write_bytes(predictions.read_bytes() + b"x")
    assert compare(one, two).changed == 1
