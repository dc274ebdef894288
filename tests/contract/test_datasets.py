"""Every registered dataset passes every check of the conformance kit."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

from mer_bench import registry
from mer_bench.data.preparation import import_files
from mer_bench.testing import DATASET_CHECKS, CheckResult, run_checks

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "published"

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


@pytest.fixture(scope="module")
def real_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the raw files of MELD, where the real corpora lie beside the repository."""
    if not PUBLISHED.is_dir():
        pytest.skip(f"the real corpora are not at {PUBLISHED}")
    root = tmp_path_factory.mktemp("real-data")
    import_files("meld", PUBLISHED, root)
    return root


@pytest.mark.parametrize(("name", "check"), CASES)
def test_dataset_passes(name: str, check: str, empty_root: Path) -> None:
    result = results(name, empty_root)[check]
    if result.status == "excused":
        pytest.skip(result.reason)
    assert result.status == "passed", result.reason


@pytest.mark.real_data
@pytest.mark.parametrize("check", DATASET_CHECKS)
def test_real_meld_passes(check: str, real_root: Path) -> None:
    result = results("meld", real_root)[check]
    assert result.status == "passed", result.reason


def test_no_dataset_is_broken() -> None:
    assert [f"{broken.package}: {broken.reason}" for broken in registry.datasets().broken] == []
