"""Position encodings by hand, and the context encoder against PyTorch's GRU on dialogues without padding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mer_bench.nn.encoders import ContextGru, LearnedPositions, sinusoidal_positions
from mer_bench.nn.recurrent import GruWeights, speaker_order, turn_order


def test_sinusoidal_positions_by_hand() -> None:
    table = sinusoidal_positions(3, 4)
    assert table.shape == (3, 4)
    for turn in range(3):
        expected = [math.sin(turn), math.cos(turn), math.sin(turn / 100), math.cos(turn / 100)]
        assert table[turn].tolist() == pytest.approx(expected, abs=1e-6)


def test_learned_positions_share_the_last_row() -> None:
    positions = LearnedPositions(3, 4)
    table = positions(5)
    assert torch.equal(table[:3], positions.table)
    assert torch.equal(table[3], positions.table[2])
    assert torch.equal(table[4], positions.table[2])


@pytest.mark.parametrize("layers", [1, 2])
def test_context_encoder_agrees_with_pytorchs_gru_on_each_dialogue_alone(layers: int) -> None:
    torch.manual_seed(0)
    encoder = ContextGru(6, layers).double()
    theirs = nn.GRU(6, 3, num_layers=layers, bidirectional=True, batch_first=True).double()
    for number, cell in enumerate(encoder.cells):
        assert isinstance(cell, GruWeights)
        for direction, suffix in enumerate(("", "_reverse")):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            cell.load_cell(direction, *(getattr(theirs, f"{name}_l{number}{suffix}") for name in names))
    lengths = torch.tensor([2, 5, 1])
    states = torch.randn(3, 7, 6, dtype=torch.float64)
    padding = torch.arange(7) >= lengths.unsqueeze(1)
    states[padding] = float("nan")
    got = encoder(states, turn_order(lengths, 7))
    assert got.shape == (3, 7, 6)
    for dialogue, length in enumerate(lengths.tolist()):
        expected = theirs(states[dialogue : dialogue + 1, :length])[0][0]
        torch.testing.assert_close(got[dialogue, :length], expected)
    assert bool((got[padding] == 0).all())


@st.composite
def speakers_and_lengths(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = draw(st.lists(st.integers(1, 7), min_size=1, max_size=5))
    longest = max(lengths) + draw(st.integers(0, 2))
    rows = [draw(st.lists(st.integers(0, 3), min_size=longest, max_size=longest)) for _ in lengths]
    return torch.tensor(rows), torch.tensor(lengths)


@settings(deadline=None, max_examples=50)
@given(speakers_and_lengths())
def test_a_gru_in_the_speakers_order_reads_each_speakers_turns_alone(
    drawn: tuple[torch.Tensor, torch.Tensor],
) -> None:
    speakers, lengths = drawn
    torch.manual_seed(0)
    encoder = ContextGru(4)
    states = torch.randn(*speakers.shape, 4)
    found = encoder(states, speaker_order(speakers, lengths, speakers.shape[1]))
    for row, length in enumerate(lengths.tolist()):
        for speaker in speakers[row, :length].unique().tolist():
            own = (speakers[row, :length] == speaker).nonzero().squeeze(1)
            alone = states[row, own].unsqueeze(0)
            wanted = encoder(alone, turn_order(torch.tensor([len(own)]), len(own)))
            assert torch.allclose(found[row, own], wanted[0], atol=1e-6)
        assert not found[row, length:].any()
