"""How near CMATH, which has no published code to compare with, comes to its own matrix products."""

from __future__ import annotations

import sys

import pytest
import torch

from mer_bench import registry
from mer_bench.api import InputSpec
from tests.speed.limit import dialogue_operations, every, measured, product_operations
from tests.speed.test_epoch import CLASSES, meld_shaped_split


def test_products_of_an_epoch_are_those_of_its_dialogues() -> None:
    split = every(meld_shaped_split(("text", "audio")), 40)
    loaded = registry.load_model("cmath")
    spec = InputSpec({name: values.shape[1] for name, values in split.features.items()}, CLASSES, 9)
    model = loaded.model_class(spec, loaded.settings({"hidden_dim": 16, "latent_dim": 4}))
    one_by_one = sum(dialogue_operations(model, split.batch([index])) for index in range(split.dialogue_count))
    assert product_operations(model, split) == pytest.approx(one_by_one, rel=1e-9)


def test_cmath_is_near_its_matrix_products(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    found = measured("cmath", {}, ("text", "audio", "visual"), rounds=3, share=16)
    with capsys.disabled():
        sys.stdout.write(f"\ncmath: {found}\n")
    # The goal is 4 for whole epochs on a machine to itself (docs/speed.md). Here other processes may run, and with
    # fewer dialogues a batch has more padding.
    assert found.cpu_ratio < 8
