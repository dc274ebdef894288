"""CMN against a loop that gathers the histories of every utterance anew and gives them to PyTorch's own GRU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from mer_bench_models.cmn.config import CmnConfig
from mer_bench_models.cmn.model import Cmn
from torch import Tensor

from mer_bench.api import InputSpec
from mer_bench.data.batches import Batch
from tests.models.batches import batch_with_gaps
from tests.nn.pytorchs_gru import torch_gru

CLASSES = ("anger", "joy", "neutral")
WIDTHS = {"text": 4, "audio": 3}
LENGTHS = [7, 1, 4]
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"history": 1},
    {"history": 2, "hops": 1},
    {"history": 3, "hops": 2, "scores": "plain"},
    {"parties": "own"},
    {"parties": "other", "history": 3},
)


def small_model(**changes: Any) -> Cmn:
    torch.manual_seed(0)
    model = Cmn(InputSpec(WIDTHS, CLASSES, 4), CmnConfig(**{"width": 5, **changes})).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
    return model


def make_batch(speakers: int = 3, seed: int = 0) -> Batch:
    return batch_with_gaps(WIDTHS, LENGTHS, speakers, seed)


def literal_logits(model: Cmn, turns: Tensor, said: list[int], turn: int) -> Tensor:
    """The logits of one utterance from its histories, turn by turn."""
    config = model.settings
    memories = []
    for side, party in enumerate(model.parties):
        local, memory = torch_gru(model.memories.local.cell, side), torch_gru(model.memories.memory, side)
        people = {said[turn]} if party == "own" else set(said) - {said[turn]}
        cells: dict[int, Tensor] = {}
        for person in people:
            past = [k for k in range(turn) if said[k] == person]
            if past:
                states, _ = memory(torch.tanh(local(turns[past])[0]))
                cells.update(zip(past, states, strict=True))
        memories.append([cells[k] for k in sorted(cells) if k >= turn - config.history])
    query = torch.tanh(model.query.weight @ turns[turn] + model.query.bias)
    for _ in range(config.hops):
        found = torch.zeros_like(query)
        for read_from in memories:
            if read_from:
                scores = torch.stack([query @ cell for cell in read_from])
                shares = torch.softmax(torch.tanh(scores) if config.scores == "tanh" else scores, 0)
                found = found + sum(share * cell for share, cell in zip(shares, read_from, strict=True))
        query = torch.tanh(query + found)
    result: Tensor = model.classes.weight @ query + model.classes.bias
    return result


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("speakers", [1, 2, 4])
def test_logits_are_those_of_the_loop(changes: dict[str, Any], speakers: int) -> None:
    model, batch = small_model(**changes), make_batch(speakers)
    logits = model(batch).logits
    for dialogue, length in enumerate(LENGTHS):
        parts = [
            torch.where(
                batch.present[name][dialogue].unsqueeze(-1),
                batch.features[name][dialogue],
                model.utterances.missing[name],
            )
            for name in WIDTHS
        ]
        turns, said = torch.cat(parts, dim=-1), batch.speakers[dialogue, :length].tolist()
        for turn in range(length):
            torch.testing.assert_close(logits[dialogue, turn], literal_logits(model, turns, said, turn))


def test_the_first_utterance_is_labelled_by_itself_alone() -> None:
    model, batch = small_model(hops=2), make_batch()
    utterances = model.utterances(batch)[:, 0]
    expected = model.classes(model.query(utterances).tanh().tanh().tanh())
    torch.testing.assert_close(model(batch).logits[:, 0], expected)


def test_what_was_said_beyond_the_history_matters_through_the_states_alone() -> None:
    model, batch = small_model(history=2), make_batch()
    batch = replace(batch, speakers=torch.tensor([[0, 1, 1, 1, 1, 1, 1]]).expand(3, 7))
    changed = {name: values.clone() for name, values in batch.features.items()}
    present = {name: values.clone() for name, values in batch.present.items()}
    present["text"][0, 0] = True
    changed["text"][0, 0] += 1
    after = model(replace(batch, features=changed, present=present)).logits[0]
    before = model(batch).logits[0]
    torch.testing.assert_close(before[3:], after[3:])  # another speaker, out of reach
    assert not torch.allclose(before[2], after[2])


def test_dropout_acts_in_training_alone() -> None:
    batch = make_batch()
    for rate in ("input_dropout", "dropout", "output_dropout"):
        model = small_model(**{"input_dropout": 0.0, "dropout": 0.0, "output_dropout": 0.0, rate: 0.5}).train()
        assert not torch.allclose(model(batch).logits, model(batch).logits), rate
        model.eval()
        assert torch.equal(model(batch).logits, model(batch).logits), rate


def test_memory_cells_are_made_from_dropped_states_in_training() -> None:
    model, batch = small_model(dropout=0.5), make_batch()
    utterances = model.utterances(batch)
    dry = torch.stack(model.memories(utterances, batch))
    model.train()
    assert not torch.allclose(torch.stack(model.memories(utterances, batch)), dry)


def test_mixed_precision_keeps_the_recurrence_in_full() -> None:
    model, batch = small_model(input_width=6).float(), make_batch().to("cpu", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch).logits
    assert logits.dtype == torch.float32
    logits[batch.mask].logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
