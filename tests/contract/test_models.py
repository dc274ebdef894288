"""Every registered model passes every check of the conformance kit."""

from __future__ import annotations

import pytest

from mer_bench import registry
from mer_bench.testing import MODEL_CHECKS, run_check

CASES = [
    pytest.param(name, check, id=f"{name}-{check}") for name in registry.models().plugins for check in MODEL_CHECKS
]


@pytest.mark.parametrize(("name", "check"), CASES)
def test_model_passes(name: str, check: str) -> None:
    result = run_check(name, check)
    if result.status == "excused":
        pytest.skip(result.reason)
    assert result.status == "passed", result.reason


def test_no_model_is_broken() -> None:
    assert [f"{broken.package}: {broken.reason}" for broken in registry.models().broken] == []
