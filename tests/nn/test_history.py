"""Windows, reads and speakers' chains against loops over utterances and PyTorch's own GRU."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mer_bench.nn.history import HistoryWindows, SpeakerGrus, forward_chains, read
from tests.nn.pytorchs_gru import torch_gru


@given(turns=st.integers(1, 20), reach=st.integers(1, 25), seed=st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_a_query_reads_from_the_turns_before_it_and_no_further_than_its_reach(
    turns: int, reach: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, cells = torch.randn(2, 3, turns, 4, generator=generator, dtype=torch.float64)
    said = torch.rand(3, turns, generator=generator) < 0.6
    windows = HistoryWindows(turns, reach)
    allowed = windows.allowed & windows.cells(said).unsqueeze(2)
    found = windows.turns(read(windows.queries(queries), windows.cells(cells), allowed, False, 0.0, False))
    for dialogue in range(3):
        for turn in range(turns):
            past = [k for k in range(max(0, turn - reach), turn) if said[dialogue, k]]
            expected = torch.zeros(4, dtype=torch.float64)
            if past:
                memory = cells[dialogue, past]
                expected = torch.softmax(memory @ queries[dialogue, turn], 0) @ memory
            torch.testing.assert_close(found[dialogue, turn], expected)


def test_the_masks_grow_with_the_turns_and_not_with_their_square() -> None:
    short, long = HistoryWindows(40, 10).allowed, HistoryWindows(400, 10).allowed
    assert long.numel() == 10 * short.numel()


def test_a_read_by_hand() -> None:
    query, cells = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 1.0], [0.0, 3.0], [9.0, 9.0]])
    allowed = torch.tensor([[True, True, False]])
    plain = read(query, cells, allowed, False, 0.0, True)
    share = 1 / (1 + math.exp(-2))
    torch.testing.assert_close(plain, torch.tensor([[2 * share, share + 3 * (1 - share)]]))
    squashed = read(query, cells, allowed, True, 0.0, True)
    share = 1 / (1 + math.exp(-math.tanh(2)))
    torch.testing.assert_close(squashed, torch.tensor([[2 * share, share + 3 * (1 - share)]]))
    assert torch.equal(read(query, cells, torch.zeros_like(allowed), True, 0.0, True), torch.zeros(1, 2))


def test_dropped_weights_are_dropped_in_training_alone() -> None:
    torch.manual_seed(0)
    query, cells, allowed = torch.randn(5, 4), torch.randn(6, 4), torch.ones(5, 6, dtype=torch.bool)
    kept = read(query, cells, allowed, False, 0.0, True)
    assert torch.equal(read(query, cells, allowed, False, 0.5, False), kept)
    assert not torch.allclose(read(query, cells, allowed, False, 0.5, True), kept)


@pytest.mark.parametrize("count", [1, 2])
def test_every_gru_runs_forward_over_every_speakers_own_turns(count: int) -> None:
    torch.manual_seed(0)
    lengths, speakers = torch.tensor([5, 1, 4]), torch.tensor([[0, 1, 0, 2, 1], [0, 0, 0, 0, 0], [1, 1, 0, 1, 0]])
    values = torch.randn(3, 5, 6, dtype=torch.float64)
    grus = SpeakerGrus(6, 3, count).double()
    order = forward_chains(speakers, lengths, count)
    sides: tuple[Tensor, ...] = order.unpack(grus(values, order)).chunk(count, dim=-1)
    for side, states in enumerate(sides):
        gru = torch_gru(grus.cell, side)
        for dialogue, length in enumerate(lengths.tolist()):
            for person in range(3):
                said = [turn for turn in range(length) if speakers[dialogue, turn] == person]
                if said:
                    expected, _ = gru(values[dialogue, said])
                    torch.testing.assert_close(states[dialogue, said], expected)
            assert not states[dialogue, length:].any()
