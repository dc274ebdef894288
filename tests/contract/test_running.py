"""Running the kit by name, and the check of a plugin's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mer_bench.errors import PluginError, UnknownNameError
from mer_bench.testing import DATASET_CHECKS, MODEL_CHECKS, check_names, run_check, run_checks

if TYPE_CHECKING:
    from tests.conftest import ShelfWriter

CARD = """
title = "Shares"
summary = "Predicts the shares of the classes."
entry = "model:Shares"
config = "config:SharesSettings"
modalities = ["text", "audio"]
uses_speakers = false
causal = true
ours = ["all of it"]
[excused]
learns = "it knows the shares of the classes alone"
"""
SETTINGS = """
from mer_bench.config import Settings

class SharesSettings(Settings):
    pass
"""
MODEL = """
import torch
from mer_bench.api import FittedModel, Output

class Shares(FittedModel):
    def __init__(self, spec, settings):
        super().__init__(spec, settings)
        self.register_buffer("counts", torch.ones(spec.class_count))

    def fit(self, train):
        for batch in train:
            self.counts += torch.bincount(batch.labels[batch.labels >= 0], minlength=len(self.counts))

    def forward(self, batch):
        return Output(self.counts.log().expand(*batch.mask.shape, -1))
"""
SOUND = {"__init__.py": '"""Shares of classes."""', "card.toml": CARD, "config.py": SETTINGS, "model.py": MODEL}


def test_results_come_in_the_order_of_the_checks(shelves: ShelfWriter) -> None:
    shelves.add("models", "their_models", {"shares": SOUND})
    found = run_checks("shares")
    assert [result.name for result in found] == list(MODEL_CHECKS) == check_names("shares")
    assert [result for result in found if result.status == "failed"] == []
    excused = {result.name: result.reason for result in found if result.status == "excused"}
    assert excused["learns"] == "it knows the shares of the classes alone"
    assert all(result.seconds >= 0 and bool(result.reason) == (result.status != "passed") for result in found)


def test_one_check_runs_by_name(shelves: ShelfWriter) -> None:
    shelves.add("models", "their_models", {"shares": SOUND})
    assert run_check("shares", "padding").status == "passed"
    with pytest.raises(UnknownNameError, match=r"no check is called 'paddings'\. Did you mean 'padding'"):
        run_check("shares", "paddings")


def test_dataset_is_found_by_name_too() -> None:
    assert check_names("meld") == list(DATASET_CHECKS)


def test_unknown_name_is_answered_with_the_nearest(shelves: ShelfWriter) -> None:
    shelves.add("models", "their_models", {"shares": SOUND})
    with pytest.raises(UnknownNameError, match=r"no model or dataset is called 'sharse'\. Did you mean 'shares'"):
        run_checks("sharse")


def test_broken_card_is_an_error(shelves: ShelfWriter) -> None:
    shelves.add("models", "their_models", {"shares": {**SOUND, "card.toml": "title = 3"}})
    with pytest.raises(PluginError, match="cannot be used"):
        run_checks("shares")


def test_code_that_does_not_load_is_one_failed_check(shelves: ShelfWriter) -> None:
    shelves.add("models", "their_models", {"shares": {**SOUND, "model.py": "import no_such_library"}})
    (result,) = run_checks("shares")
    assert (result.name, result.status) == ("loads", "failed")
    assert "no_such_library" in result.reason


def test_failure_of_the_plugins_code_names_its_line(shelves: ShelfWriter) -> None:
    broken = MODEL.replace("self.counts.log()", "self.count.log()")
    shelves.add("models", "their_models", {"shares": {**SOUND, "model.py": broken}})
    result = run_check("shares", "output")
    assert result.status == "failed"
    assert result.reason.startswith("AttributeError: 'Shares' object has no attribute 'count'")
    assert result.reason.endswith("(their_models.shares.model, line 15)")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({**SOUND, "__init__.py": '"""Shares."""\nfrom .model import Shares'}, "line 2 holds a statement"),
        ({**SOUND, "config.py": "import torch\n" + SETTINGS}, "(their_models.shares.config) imports torch"),
        ({**SOUND, "config.py": "import sklearn\n" + SETTINGS}, "imports sklearn"),
    ],
    ids=["code-in-init", "torch", "sklearn"],
)
def test_slow_folder_fails_the_check_of_the_folder_alone(
    shelves: ShelfWriter, files: dict[str, str], message: str
) -> None:
    shelves.add("models", "their_models", {"shares": files})
    failed = [result for result in run_checks("shares") if result.status == "failed"]
    assert [result.name for result in failed] == ["folder"]
    assert message in failed[0].reason
