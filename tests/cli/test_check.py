"""`mer-bench check`: the outcome of each conformance check, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import Invoke

testing = pytest.importorskip("mer_bench.testing", reason="the conformance kit is not there")


@dataclass(frozen=True)
class Outcome:
    name: str
    status: str
    reason: str = ""
    seconds: float = 0.2


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    found = [Outcome("card", "passed"), Outcome("learns", "excused", "it predicts one class and learns nothing else")]

    def iterate(name: str, data_root: Path | None = None) -> Iterator[Outcome]:
        assert name == "majority"
        yield from found

    monkeypatch.setattr(testing, "iterate_checks", iterate)
    return found


def test_passed_and_excused(invoke: Invoke, outcomes: list[Outcome]) -> None:
    result = invoke("check", "majority")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["card", "passed", "0.2", "s"] in rows
    assert ["learns", "excused", "0.2", "s", *outcomes[1].reason.split()] in rows
    assert "majority passed 1 of 2 checks, 1 excused" in result.stdout


def test_a_failed_check_is_named_and_the_exit_code_is_1(invoke: Invoke, outcomes: list[Outcome]) -> None:
    outcomes.append(Outcome("padding", "failed", "a result changed by 0.3 with padding"))
    result = invoke("check", "majority")
    assert result.exit_code == 1
    assert "a result changed by 0.3 with padding" in result.stdout
    assert result.stderr == "mer-bench: majority failed 1 of 3 checks: padding.\n"
    answer = invoke("check", "majority", "--json")
    assert answer.exit_code == 1
    told = json.loads(answer.stdout)
    assert (told["passed"], told["checks"][2]["status"]) == (False, "failed")


def test_an_unknown_name(invoke: Invoke) -> None:
    result = invoke("check", "majorty")
    assert result.exit_code == 2
    assert "Did you mean 'majority'" in result.stderr


def test_a_real_plugin_passes(invoke: Invoke) -> None:
    assert invoke("check", "majority").exit_code == 0
