"""The guard of speed: what it calls a loss, what it forgives, and that a path of 40 % more work is found."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.speed import guard
from tests.speed.guard import MOST_LOSS, TRIES, Timing, judged, read_baseline, repeats_of, seconds_of, write_baseline
from tests.speed.kernels import KERNELS
from tests.speed.paths import SHORT_EPOCHS, guarded_paths, learnt_models

SPEEDS = st.floats(0.01, 100)


def timing_of(path: list[float], kernel: list[float]) -> Timing:
    return Timing(("operators",), path, {"operators": kernel})


@given(path=st.lists(SPEEDS, min_size=1), kernel=st.lists(SPEEDS, min_size=1), machine=st.floats(0.1, 10))
def test_a_slower_machine_changes_nothing(path: list[float], kernel: list[float], machine: float) -> None:
    slower = timing_of([machine * each for each in path], [machine * each for each in kernel])
    assert slower.ratio == pytest.approx(timing_of(path, kernel).ratio)


@given(path=st.lists(SPEEDS, min_size=1), more=st.lists(st.floats(1, 10), min_size=1))
def test_what_disturbs_some_rounds_changes_nothing(path: list[float], more: list[float]) -> None:
    disturbed = [*path, *(min(path) * factor for factor in more)]
    assert timing_of(disturbed, [1.0]).ratio == timing_of(path, [1.0]).ratio


def test_kernels_of_several_kinds_count_together() -> None:
    assert Timing(("products", "operators"), [6.0], {"products": [1.0, 9.0], "operators": [2.0]}).ratio == 2.0


@pytest.mark.parametrize(("ratio", "is_lost"), [(0.5, False), (1.0, False), (1.29, False), (1.31, True), (1.4, True)])
def test_more_than_thirty_percent_is_a_loss(ratio: float, is_lost: bool) -> None:
    verdict = judged("epoch", timing_of([2 * ratio], [1.0]), {"epoch": 2.0}, lambda: None)
    assert verdict.is_lost is is_lost
    assert verdict.tries == (TRIES if is_lost else 1)
    assert f"{abs(ratio - 1):.0%}" in str(verdict)


def test_a_loss_that_goes_away_is_forgiven_and_one_that_stays_is_not() -> None:
    timing = timing_of([1.5], [1.0])
    verdict = judged("epoch", timing, {"epoch": 1.0}, lambda: timing.path.append(1.1))
    assert not verdict.is_lost
    assert verdict.tries == 2
    asked: list[int] = []
    verdict = judged("epoch", timing_of([1.5], [1.0]), {"epoch": 1.0}, lambda: asked.append(1))
    assert verdict.is_lost
    assert len(asked) == TRIES - 1


def test_a_path_without_a_baseline_is_red_and_says_what_to_do() -> None:
    verdict = judged("new", timing_of([1.0], [1.0]), {}, lambda: None)
    assert verdict.is_lost
    assert "--renew-baseline" in str(verdict)


@pytest.mark.parametrize(("share", "is_lost"), [(1.0, False), (1.4, True)])
def test_forty_percent_more_work_is_found(share: float, is_lost: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only this work moves on: a real one is too noisy beside other tests."""
    clock = [0.0]

    def spend(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(guard, "processor_seconds", lambda: clock[0])
    monkeypatch.setitem(KERNELS, "interpreter", lambda: spend(0.01))
    timing = Timing(("interpreter",))

    def rounds() -> None:
        timing.rounds(lambda: lambda: spend(0.1 * share))

    rounds()
    verdict = judged("ten", timing, {"ten": 10.0}, rounds)
    assert verdict.is_lost is is_lost, str(verdict)


def test_what_is_counted_is_computed_here_or_in_a_child() -> None:
    assert seconds_of(lambda: time.sleep(0.3)) < 0.1
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    assert seconds_of(lambda: subprocess.run([sys.executable, "-c", busy], check=True)) > 0.25


def test_short_work_is_repeated_and_work_that_is_spent_is_not() -> None:
    def short() -> None:
        sum(range(100))

    def spent() -> None:
        sum(range(100))

    spent.is_spent = True  # type: ignore[attr-defined]
    assert repeats_of(lambda: short) > 10
    assert repeats_of(lambda: spent) == 1


def test_a_baseline_is_the_median_and_keeps_other_paths(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    assert read_baseline(file) == {}
    write_baseline({"b": [3.0, 1.0, 2.0], "a": [1 / 3]}, file)
    write_baseline({"b": [5.0]}, file)
    assert read_baseline(file) == {"a": 0.3333, "b": 5.0}
    assert list(read_baseline(file)) == ["a", "b"]


def test_the_stored_baseline_is_of_the_paths_that_are_guarded() -> None:
    names = [path.name for path in guarded_paths()]
    assert len(set(names)) == len(names)
    assert set(read_baseline()) == set(names)
    assert all(ratio > 0 for ratio in read_baseline().values())
    assert set(SHORT_EPOCHS) <= set(learnt_models())
    assert {kernel for path in guarded_paths() for kernel in path.kernels} == set(KERNELS)
    short = {path.name.split(":")[0] for path in guarded_paths() if path.is_short}
    wanted = {"epoch", "scoring", "store opening", "preparing", "leaderboard building", "start"}
    assert wanted <= short


def test_a_loss_that_is_allowed_is_less_than_a_third() -> None:
    assert MOST_LOSS == 0.30
    assert guard.BASELINE.is_file()
