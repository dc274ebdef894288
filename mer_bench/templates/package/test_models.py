"""Every model of this package passes every check of mer-bench's conformance kit."""

from __future__ import annotations

import pytest

from mer_bench import registry
from mer_bench.testing import MODEL_CHECKS, run_check

SHELF = "your_model_shelf"
NAMES = [name for name, plugin in registry.models().plugins.items() if plugin.package.startswith(f"{SHELF}.")]


def test_the_package_is_installed_and_no_model_of_it_is_broken() -> None:
    assert NAMES
    assert [each.reason for each in registry.models().broken if each.package.startswith(SHELF)] == []


@pytest.mark.parametrize("check", MODEL_CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_model(name: str, check: str) -> None:
    result = run_check(name, check)
    if result.status == "excused":
        pytest.skip(result.reason)
    assert result.status == "passed", result.reason
