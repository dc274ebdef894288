"""Every registered model trains in bfloat16 mixed precision on the CPU, and learns what it learns in float32."""

from __future__ import annotations

import math

import pytest

from mer_bench import registry
from mer_bench.testing.checks import torch_settled

from .test_resuming import trainer_of


@pytest.mark.parametrize("name", list(registry.models().plugins))
def test_the_losses_are_those_of_float32_up_to_rounding(name: str) -> None:
    with torch_settled():
        machine, fit = trainer_of(name, epochs=2, average_decay=0.0)
        full = fit()
        half_machine, fit = trainer_of(name, epochs=2, average_decay=0.0, precision="bfloat16")
        half = fit()
    assert {value.dtype for value in half_machine.state.model.state_dict().values()} == {
        value.dtype for value in machine.state.model.state_dict().values()
    }
    for ours, theirs in zip(half.curve, full.curve, strict=True):
        assert set(ours.train) == set(theirs.train)
        for term, value in ours.train.items():
            if term != "gradient":
                # bfloat16 keeps 8 bits: a rounding of 0.4 % an operation.
                assert math.isclose(value, theirs.train[term], rel_tol=0.05, abs_tol=0.02), (term, theirs.train[term])
