"""How long runs may take: by the records most like them, and never by another model's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mer_bench.request import Plan, RunRequest, plan
from mer_bench.sweep.estimates import Estimates, read_estimates, time_to_go


def plan_of(model: str = "bclstm", **options: Any) -> Plan:
    return plan(RunRequest(model, "meld", **options))


def values_of(planned: Plan, seconds: float) -> dict[str, Any]:
    return {
        "kind": "run",
        "status": "done",
        "model": planned.model,
        "dataset": planned.dataset,
        "features": planned.features,
        "labels": planned.labels,
        "protocol": planned.protocol,
        "modalities": list(planned.modalities),
        "settings": planned.settings.model_dump(mode="json"),
        "training": planned.training.model_dump(mode="json"),
        "cost": {"wall_seconds": seconds},
    }


def test_the_nearest_records_count() -> None:
    estimates = Estimates()
    assert estimates.seconds(plan_of()) is None
    text = plan_of(modalities=("text",))
    for seconds in (9.0, 11.0, 100.0):
        estimates.add(values_of(text, seconds))
    assert estimates.seconds(plan_of()) == 11.0  # the same model on the same dataset
    estimates.add(values_of(plan_of(settings={"epochs": 2}), 3.0))
    assert estimates.seconds(plan_of()) == 3.0  # the same modalities too
    estimates.add(values_of(plan_of(), 5.0))
    assert estimates.seconds(plan_of(seed=3)) == 5.0  # all but the seed
    assert estimates.seconds(plan_of("cmath")) is None
    assert estimates.count == 5


@pytest.mark.parametrize(
    "change", [{"kind": "external"}, {"status": "failed"}, {"test_condition": {"name": "only-text"}}, {"cost": None}]
)
def test_what_is_no_complete_run_tells_nothing(change: dict[str, Any]) -> None:
    estimates = Estimates()
    estimates.add({**values_of(plan_of(), 5.0), **change})
    assert estimates.count == 0
    assert estimates.seconds(plan_of()) is None


def test_records_are_read_below_folders_and_anything_else_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "meld").mkdir()
    (tmp_path / "meld" / "a.json").write_text(json.dumps(values_of(plan_of(), 5.0)))
    (tmp_path / "b.json").write_text("[" * 100_000)
    (tmp_path / "c.json").write_text("[1]")
    (tmp_path / "d.json").write_bytes(b"\xff")
    estimates = read_estimates([tmp_path, tmp_path / ".", tmp_path / "absent"])
    assert estimates.count == 1
    assert estimates.seconds(replace(plan_of())) == 5.0


def test_the_committed_records_give_estimates() -> None:
    folder = Path(__file__).resolve().parents[2] / "leaderboards" / "records" / "meld" / "logistic"
    assert 0 < (read_estimates([folder]).seconds(plan_of("logistic")) or 0) < 60


def test_time_to_go_by_hand() -> None:
    assert time_to_go([], 3) == 0
    assert time_to_go([5, 1, 1, 1], 2) == 5  # the second worker does the three short ones
    assert time_to_go([1, 1, 5], 2) == 6
    assert time_to_go([2, 3], 0) == 5


@given(st.lists(st.floats(0, 1000), min_size=1), st.integers(1, 8))
def test_time_to_go_lies_between_what_must_be_and_what_can_be(seconds: list[float], workers: int) -> None:
    time = time_to_go(seconds, workers)
    least = max(*seconds, sum(seconds) / workers)
    assert least <= time * (1 + 1e-9) + 1e-9
    assert time <= sum(seconds) / workers + max(seconds) + 1e-6
