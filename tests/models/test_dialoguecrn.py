"""DialogueCRN against PyTorch's own LSTM and a loop over utterances, and against small cases by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from mer_bench_models.dialoguecrn.config import DialogueCrnConfig
from mer_bench_models.dialoguecrn.model import ContextLstm, DialogueCrn
from mer_bench_models.dialoguecrn.reasoning import Reasoning
from torch import Tensor, nn

from mer_bench.api import InputSpec
from mer_bench.data.batches import Batch
from mer_bench.nn.recurrent import LstmWeights
from tests.models.batches import batch_with_gaps

CLASSES = ("anger", "joy", "neutral")
WIDTHS = {"text": 6, "audio": 4, "visual": 3}
SPEAKERS = 3
SUBSETS = (("text",), ("audio", "visual"), ("text", "audio", "visual"))
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"layers": 2},
    {"situation_turns": 3, "speaker_turns": 0},
    {"situation_turns": 0, "speaker_turns": 1},
    {"levels": "situation"},
    {"levels": "speaker"},
)


def small_model(names: tuple[str, ...] = ("text", "audio"), seed: int = 0, **changes: Any) -> DialogueCrn:
    torch.manual_seed(seed)
    spec = InputSpec({name: WIDTHS[name] for name in names}, CLASSES, SPEAKERS)
    model = DialogueCrn(spec, DialogueCrnConfig(**{"lstm_width": 4, **changes})).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def make_batch(
    lengths: list[int], names: tuple[str, ...] = ("text", "audio"), seed: int = 0, surplus: int = 0
) -> Batch:
    return batch_with_gaps({name: WIDTHS[name] for name in names}, lengths, SPEAKERS, seed, surplus)


def torch_lstm(stack: ContextLstm, rows: Tensor) -> Tensor:
    """PyTorch's bidirectional LSTM with the same weights over one chain of turns: (T, inputs) to (T, 2 width)."""
    layers = [layer for layer in stack.layers if isinstance(layer, LstmWeights)]
    lstm = nn.LSTM(layers[0].input.shape[1], layers[0].width, len(layers), bidirectional=True).double()

    def theirs(value: Tensor) -> Tensor:
        enter, forget, leave, cell = value.chunk(4)
        return torch.cat([enter, forget, cell, leave])

    with torch.no_grad():
        for index, weights in enumerate(layers):
            for side, ending in enumerate(("", "_reverse")):
                getattr(lstm, f"weight_ih_l{index}{ending}").copy_(theirs(weights.input[side].T))
                getattr(lstm, f"weight_hh_l{index}{ending}").copy_(theirs(weights.state[side].T))
                getattr(lstm, f"bias_ih_l{index}{ending}").copy_(theirs(weights.input_bias[side, 0]))
                getattr(lstm, f"bias_hh_l{index}{ending}").copy_(theirs(weights.state_bias[side, 0]))
    states: Tensor = lstm(rows)[0]
    return states


def literal_reasoning(reasoning: Reasoning, query: Tensor, memory: Tensor) -> Tensor:
    """Retrieving and reasoning of one utterance, one turn and one entry of the memory at a time."""
    if reasoning.cell is None:
        return query
    cell, width = reasoning.cell, memory.shape[1]
    state = torch.zeros(width).double()
    carried = torch.zeros(width).double()
    for _ in range(reasoning.turns):
        gates = cell.weight_ih @ query + cell.bias_ih + cell.weight_hh @ state + cell.bias_hh
        enter, forget, candidate, leave = gates.chunk(4)
        carried = forget.sigmoid() * carried + enter.sigmoid() * candidate.tanh()
        state = leave.sigmoid() * carried.tanh()
        scores = [math.exp((state @ entry).item()) for entry in memory]
        found = torch.zeros(width).double()
        for score, entry in zip(scores, memory, strict=True):
            found = found + score / sum(scores) * entry
        query = torch.cat([state, found])
    return query


def literal(model: DialogueCrn, batch: Batch, index: int) -> Tensor:
    """Logits of one dialogue, read from the formulas: (T, classes)."""
    turns = int(batch.lengths[index])
    rows = torch.stack(
        [
            torch.cat(
                [
                    batch.features[name][index, t] if batch.present[name][index, t] else model.missing[name]
                    for name in model.spec.modalities
                ]
            )
            for t in range(turns)
        ]
    )
    said = batch.speakers[index, :turns]
    parts = []
    for level in model.levels:
        stack, reasoning = model.perception[level], model.reasoning[level]
        assert isinstance(stack, ContextLstm)
        assert isinstance(reasoning, Reasoning)
        if level == "situation":
            memory = torch_lstm(stack, rows)
        else:
            memory = torch.zeros(turns, 2 * model.settings.lstm_width).double()
            for speaker in range(SPEAKERS):
                own = (said == speaker).nonzero().flatten()
                if len(own):
                    memory[own] = torch_lstm(stack, rows[own])
        asked = memory @ model.query.weight.T + model.query.bias
        parts.append(torch.stack([literal_reasoning(reasoning, query, memory) for query in asked]))
    hidden = torch.cat(parts, dim=1).clamp_min(0)
    logits: Tensor = hidden @ model.classes.weight.T + model.classes.bias
    return logits


@pytest.mark.parametrize("names", SUBSETS)
@pytest.mark.parametrize("changes", VARIANTS)
def test_the_network_is_what_its_formulas_say(names: tuple[str, ...], changes: dict[str, Any]) -> None:
    model = small_model(names, **changes)
    batch = make_batch([4, 1, 6, 2], names, surplus=2)
    logits = model(batch).logits
    assert logits.shape == (4, 8, 3)
    for index, turns in enumerate(batch.lengths.tolist()):
        torch.testing.assert_close(logits[index, :turns], literal(model, batch, index), rtol=1e-10, atol=1e-12)


def test_one_turn_of_reasoning_by_hand() -> None:
    reasoning = Reasoning(1, 1).double()
    assert reasoning.cell is not None
    with torch.no_grad():
        for parameter in reasoning.cell.parameters():
            parameter.zero_()
        # Input and output gates are open, the cell gate is the first half of the query.
        reasoning.cell.bias_ih.copy_(torch.tensor([40.0, 0.0, 0.0, 40.0]))
        reasoning.cell.weight_ih[2, 0] = 1
    memory = torch.tensor([[[2.0], [-1.0], [9.0]]]).double()
    mask = torch.tensor([[True, True, False]])
    queries = torch.tensor([[0.5, 7.0], [0.0, 7.0]]).double()
    asked = math.tanh(math.tanh(0.5))
    weight = math.exp(2 * asked) / (math.exp(2 * asked) + math.exp(-asked))
    expected = torch.tensor([[asked, 2 * weight - (1 - weight)], [0.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(reasoning(queries, memory, mask, torch.tensor([0, 1])), expected, rtol=1e-12, atol=1e-12)


def test_without_turns_the_query_is_handed_back() -> None:
    reasoning = Reasoning(2, 0)
    assert not list(reasoning.parameters())
    queries = torch.randn(1, 4)
    assert torch.equal(reasoning(queries, torch.randn(1, 1, 2), torch.ones(1, 1).bool(), torch.tensor([0])), queries)


@pytest.mark.parametrize("levels", ["situation", "speaker"])
def test_every_level_asks_the_whole_dialogue(levels: str) -> None:
    """What one speaker says reaches the other by the turns of reasoning, on the speaker level by them alone."""
    batch = make_batch([4], ("text",))
    batch = replace(batch, present={"text": batch.mask}, speakers=torch.tensor([[0, 1, 1, 1]]))
    other = batch.features["text"].clone()
    other[0, 3] += 1
    changed = replace(batch, features={"text": other})
    for turns in (0, 2):
        model = small_model(("text",), levels=levels, situation_turns=turns, speaker_turns=turns)
        moved = not torch.allclose(model(batch).logits[0, 0], model(changed).logits[0, 0])
        assert moved == (turns > 0 or levels == "situation")


def test_renaming_the_speakers_changes_nothing_but_other_chains_do() -> None:
    model = small_model()
    batch = make_batch([5, 3])
    batch = replace(batch, speakers=torch.tensor([[0, 1, 0, 2, 1], [1, 0, 1, 0, 0]]))
    renamed = replace(batch, speakers=(batch.speakers + 1) % SPEAKERS)
    torch.testing.assert_close(
        model(batch).logits[batch.mask], model(renamed).logits[batch.mask], rtol=1e-11, atol=1e-12
    )
    alone = replace(batch, speakers=torch.zeros_like(batch.speakers))
    assert not torch.allclose(model(batch).logits[0], model(alone).logits[0])


@pytest.mark.parametrize("changes", VARIANTS)
def test_padding_never_comes_through(changes: dict[str, Any]) -> None:
    model = small_model(**changes)
    batch = make_batch([3, 1, 5], surplus=3)
    off = ~batch.mask
    garbage = replace(
        batch,
        features={name: value.masked_fill(off.unsqueeze(-1), torch.nan) for name, value in batch.features.items()},
        speakers=batch.speakers.masked_fill(off, 2),
    )
    torch.testing.assert_close(
        model(garbage).logits[batch.mask], model(batch).logits[batch.mask], rtol=1e-12, atol=1e-13
    )


def test_a_modality_in_an_utterance_without_it_is_never_read() -> None:
    model = small_model()
    batch = make_batch([5, 2])
    changed = {
        name: value.masked_fill(~batch.present[name].unsqueeze(-1), torch.nan) for name, value in batch.features.items()
    }
    assert torch.equal(model(batch).logits, model(replace(batch, features=changed)).logits)
    everywhere = replace(batch, present=dict.fromkeys(batch.present, batch.mask))
    assert not torch.allclose(model(batch).logits, model(everywhere).logits)


@pytest.mark.parametrize("changes", VARIANTS)
def test_every_gradient_is_finite(changes: dict[str, Any]) -> None:
    model = small_model(**changes).train()
    batch = make_batch([4, 1, 2], surplus=2)
    model(batch).logits[batch.mask].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_mixed_precision_runs() -> None:
    model = small_model().float().train()
    batch = make_batch([4, 2]).to("cpu", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(batch).logits[batch.mask].square().sum()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
