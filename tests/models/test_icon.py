"""ICON against a loop that gathers the histories of every utterance anew and gives them to PyTorch's own GRU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mer_bench_models.icon.config import IconConfig
from mer_bench_models.icon.model import Icon
from mer_bench_models.icon.readers import one_reader, readers
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
    {"influence": "self"},
    {"influence": "global", "history": 3},
    {"roles": False},
    {"roles": False, "influence": "global", "hops": 2},
    {"roles": False, "influence": "self"},
)


def small_model(**changes: Any) -> Icon:
    torch.manual_seed(0)
    model = Icon(InputSpec(WIDTHS, CLASSES, 4), IconConfig(**{"width": 5, **changes})).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
    return model


def make_batch(speakers: int = 3, seed: int = 0) -> Batch:
    return batch_with_gaps(WIDTHS, LENGTHS, speakers, seed)


def literal_states(model: Icon, turns: Tensor, said: list[int], turn: int) -> list[Tensor]:
    """The states of the turns before one, each in the role that it has for who speaks then."""
    influence, width = model.self_influence, model.settings.width
    states: dict[int, Tensor] = {}
    for person in set(said[:turn]):
        past = [k for k in range(turn) if said[k] == person]
        side = 0 if person == said[turn] or not model.settings.roles else 1
        if influence.grus is not None:
            found, _ = torch_gru(influence.grus.cell, side)(turns[past])
        else:
            assert influence.layer is not None
            rows = slice(side * width, (side + 1) * width)
            found = turns[past] @ influence.layer.weight[rows].T + influence.layer.bias[rows]
        states.update(zip(past, torch.tanh(found), strict=True))
    return [states[k] for k in range(turn)]


def literal_logits(model: Icon, turns: Tensor, said: list[int], turn: int) -> Tensor:
    """The logits of one utterance from its history, turn by turn."""
    config = model.settings
    query = torch.tanh(model.query.weight @ turns[turn] + model.query.bias)
    memory = literal_states(model, turns, said, turn)
    for hop in range(config.hops):
        found = torch.zeros_like(query)
        if memory:
            if model.global_influence is not None:
                cell = model.global_influence.again if hop else model.global_influence.first
                assert cell is not None
                memory = list(torch_gru(cell, 0)(torch.stack(memory))[0])
            read_from = memory[-config.history :]
            scores = torch.stack([query @ cell for cell in read_from])
            shares = torch.softmax(torch.tanh(scores) if config.scores == "tanh" else scores, 0)
            found = sum((share * cell for share, cell in zip(shares, read_from, strict=True)), found)
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


def test_every_person_of_every_dialogue_reads_their_own_turns() -> None:
    speakers = torch.tensor([[0, 1, 0, 2], [1, 0, 0, 0], [0, 0, 1, 0]])
    mask = torch.tensor([[True, True, True, True], [True, False, False, False], [True, True, True, False]])
    who = readers(speakers, mask)
    assert who.dialogue.tolist() == [0, 0, 0, 1, 2, 2]
    assert who.own.int().tolist() == [
        [1, 0, 1, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 1],
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
    ]
    assert who.lengths.tolist() == [2, 1, 3, 1, 1, 2]
    values = torch.arange(24.0).view(6, 4, 1)
    assert who.own_turns(values)[mask].flatten().tolist() == [0, 5, 2, 11, 12, 16, 17, 22]


def test_one_reader_reads_every_turn() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    who = one_reader(mask, torch.tensor([2, 1]))
    values = torch.arange(4.0).view(2, 2, 1)
    assert torch.equal(who.own_turns(values), values)
    assert torch.equal(who.own, mask)


def test_dropout_acts_in_training_alone() -> None:
    batch = make_batch()
    for rate in ("input_dropout", "dropout", "output_dropout"):
        model = small_model(**{"input_dropout": 0.0, "dropout": 0.0, "output_dropout": 0.0, rate: 0.5}).train()
        assert not torch.allclose(model(batch).logits, model(batch).logits), rate
        model.eval()
        assert torch.equal(model(batch).logits, model(batch).logits), rate


@pytest.mark.parametrize("influence", ["both", "global"])
def test_self_influence_is_dropped_in_training(influence: str) -> None:
    model, batch = small_model(dropout=0.5, influence=influence), make_batch()
    utterances = model.utterances(batch)
    dry = torch.stack(model.self_influence(utterances, batch))
    model.train()
    assert not torch.allclose(torch.stack(model.self_influence(utterances, batch)), dry)


def test_mixed_precision_keeps_the_recurrence_in_full() -> None:
    model, batch = small_model(input_width=6).float(), make_batch().to("cpu", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch).logits
    assert logits.dtype == torch.float32
    logits[batch.mask].logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
