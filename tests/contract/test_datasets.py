"""Every registered dataset passes every check of the conformance kit."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

from mer_bench import registry
from mer_bench.data.preparation import PreparationRequest, import_files
from mer_bench.testing import DATASET_CHECKS, CheckResult, DatasetSubject, run_checks

CASES = [
    pytest.param(name, check, id=f"{name}-{check}") for name in registry.datasets().plugins for check in DATASET_CHECKS
]


@lru_cache
def results(name: str, root: Path) -> dict[str, CheckResult]:
    """All results at once, so that data are prepared once and not for every check."""
    return {result.name: result for result in run_checks(name, root)}


@pytest.fixture(scope="module")
def empty_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("no-data")


@pytest.mark.parametrize(("name", "check"), CASES)
def test_dataset_passes(name: str, check: str, empty_root: Path) -> None:
    result = results(name, empty_root)[check]
    if result.status == "excused":
        pytest.skip(result.reason)
    assert result.status == "passed", result.reason


class FirstRequest(DatasetSubject):
    """Prepares one store alone: with real data each takes most of a minute."""

    def requests(self) -> list[PreparationRequest]:
        return super().requests()[:1]


@pytest.mark.real_data
def test_real_meld_passes(shared_data: Path, tmp_path: Path) -> None:
    import_files("meld", shared_data / "published", tmp_path)
    subject = FirstRequest(registry.datasets().find("meld"), registry.load_dataset("meld"), tmp_path)
    found = [check.run(subject, {}) for name, check in DATASET_CHECKS.items() if name != "same-twice"]
    assert {result.name: result.reason for result in found if result.status != "passed"} == {}


def test_no_dataset_is_broken() -> None:
    assert [f"{broken.package}: {broken.reason}" for broken in registry.datasets().broken] == []
