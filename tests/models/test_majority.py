"""The majority class: a count of labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mer_bench.api import InputSpec, build_model
from mer_bench.data.batches import Split
from mer_bench.errors import RunError

SPEC = InputSpec({"text": 2, "audio": 1}, ("calm", "glad", "cross"), 2)


def split(labels: list[int] | None, rows: int = 6) -> Split:
    """Dialogues of 1, 2 and 3 utterances."""
    return Split(
        "train",
        {"text": torch.randn(rows, 2), "audio": torch.randn(rows, 1)},
        {name: torch.ones(rows, dtype=torch.bool) for name in SPEC.widths},
        torch.zeros(rows, dtype=torch.long),
        torch.tensor([0, 1, 3, 6]),
        None if labels is None else torch.tensor(labels),
    )


def fitted(labels: list[int] | None, size: int = 2) -> Tensor:
    model = build_model("majority", SPEC)
    model.fit(split(labels).in_order(size))  # type: ignore[operator]
    logits: Tensor = model(split(labels).batch([2, 0]).without_labels()).logits
    return logits


def test_every_utterance_gets_the_shares_of_the_train_labels() -> None:
    logits = fitted([1, 1, 1, 2, 2, -1])
    assert logits.shape == (2, 3, 3)
    # one more of each than was counted: 0 + 1, 3 + 1, 2 + 1 of 8
    assert torch.allclose(logits.softmax(-1), torch.tensor([1 / 8, 4 / 8, 3 / 8]).expand(2, 3, 3))
    assert np.allclose(logits.exp().sum(-1), 1)


def test_batches_do_not_matter() -> None:
    assert torch.equal(fitted([0, 1, 1, 2, 2, -1], 1), fitted([0, 1, 1, 2, 2, -1], 3))


def test_of_equally_frequent_classes_the_first() -> None:
    assert fitted([2, 1, 2, 1, -1, -1]).argmax(-1).unique().tolist() == [1]


def test_padding_is_not_counted() -> None:
    # dialogue 0 is padded by two turns where it shares a batch with dialogue 2
    assert fitted([0, 1, 1, 1, 0, 0], 3)[0, 0].softmax(-1).tolist() == pytest.approx([4 / 9, 4 / 9, 1 / 9])


@pytest.mark.parametrize("labels", [None, [-1] * 6])
def test_no_label_is_an_error(labels: list[int] | None) -> None:
    with pytest.raises(RunError, match="majority needs labels in the train split"):
        fitted(labels)
