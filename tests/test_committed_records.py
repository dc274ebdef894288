"""The records in the repository: whole, honest about synthetic data, and scored by their own predictions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mer_bench import registry
from mer_bench.metrics import rescore
from mer_bench.predictions import Predictions, read_outcomes
from mer_bench.records import predictions_file, read_record

FOLDER = Path(__file__).resolve().parents[1] / "leaderboards" / "records"
RECORDS = sorted(FOLDER.rglob("*.json"))


def test_there_are_records() -> None:
    assert RECORDS


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: file.stem)
def test_a_record_is_what_its_predictions_say(file: Path) -> None:
    record = read_record(file)
    assert record.status == "done"
    assert rescore(file) == record.test
    assert file.relative_to(FOLDER).parts == (record.dataset, record.model, f"{record.run}.json")
    assert record.synthetic == registry.datasets().find(record.dataset).card.synthetic
    assert predictions_file(file.parent, record.run).stat().st_size < 45_000
    for chosen in (*record.folds,) or (record,):
        best = max(chosen.curve, key=lambda epoch: (epoch.dev["weighted_f1"], -epoch.epoch))
        assert chosen.selection is not None
        assert chosen.selection.epoch == best.epoch
    by_utterance = isinstance(read_outcomes(predictions_file(file.parent, record.run)), Predictions)
    assert by_utterance == registry.datasets().find(record.dataset).card.redistribute
    assert not re.search(r"(?:^|[\s\"'])/(?:\w+/)+", file.read_text())  # no path of any machine


def test_no_two_records_are_of_the_same_run() -> None:
    identities = [read_record(file).identity for file in RECORDS]
    assert len(set(identities)) == len(identities)


def test_only_records_and_their_predictions_are_committed() -> None:
    strays = [
        file.name
        for file in FOLDER.rglob("*")
        if file.is_file() and not file.name.endswith((".json", ".predictions.npz", ".model.safetensors"))
    ]
    assert strays == []
