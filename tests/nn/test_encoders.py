"""Position encodings by hand, and the context encoder against PyTorch's GRU on dialogues without padding."""

from __future__ import annotations

import math

import pytest
import torch

from mer_bench.nn.encoders import ContextGru, LearnedPositions, sinusoidal_positions


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
def test_a_dialogue_alone_and_padded_gives_the_same(layers: int) -> None:
    torch.manual_seed(0)
    encoder = ContextGru(6, layers).double()
    lengths = torch.tensor([2, 5, 1])
    states = torch.randn(3, 5, 6, dtype=torch.float64)
    garbage = torch.arange(5) >= lengths.unsqueeze(1)
    states[garbage] = 1e6
    got = encoder(states, lengths)
    assert got.shape == (3, 5, 6)
    for dialogue, length in enumerate(lengths.tolist()):
        alone = encoder(states[dialogue : dialogue + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(got[dialogue, :length], alone[0])
    assert bool((got[garbage] == 0).all())
