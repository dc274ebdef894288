"""What was said before an utterance: states of each speaker's own turns, and reads from a window of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from mer_bench.nn.dropout import dropout
from mer_bench.nn.masking import masked_softmax
from mer_bench.nn.recurrent import GruWeights, TurnOrder, gru_chain, speaker_order


class HistoryWindows:
    """The `reach` turns before each turn of a dialogue, in blocks, so that memory grows with T and not with T^2.

    Turns are cut into blocks of `reach` (of T, where that is less). All that a query of a block may look at lies
    in the block and in the one before it.

    Args:
        turns: T.
        reach: Turns before a query that are its history, at least 1.
        device: Of the masks.

    Attributes:
        allowed: (blocks, block, cells), bool; True where a cell of a block is in the history of a query.
    """

    def __init__(self, turns: int, reach: int, device: torch.device | None = None) -> None:
        self._turns = turns
        self._block = min(reach, turns)
        self._blocks = -(-turns // self._block)
        turn = torch.arange(self._blocks * self._block, device=device).view(self._blocks, self._block)
        cell = turn if self._blocks == 1 else torch.cat([turn - self._block, turn], dim=1)
        gap = turn.unsqueeze(2) - cell.unsqueeze(1)  # (blocks, block, cells)
        self.allowed = (gap >= 1) & (gap <= reach) & (cell >= 0).unsqueeze(1)

    def queries(self, values: Tensor) -> Tensor:
        """(B, T, ...) to (B, blocks, block, ...); the last block is filled with zeros."""
        surplus = self._blocks * self._block - self._turns
        if surplus:
            values = torch.cat([values, values.new_zeros(values.shape[0], surplus, *values.shape[2:])], dim=1)
        return values.view(values.shape[0], self._blocks, self._block, *values.shape[2:])

    def cells(self, values: Tensor) -> Tensor:
        """(B, T, ...) to (B, blocks, cells, ...): a block and the one before it, or the only block."""
        blocks = self.queries(values)
        if self._blocks == 1:
            return blocks
        before = torch.cat([torch.zeros_like(blocks[:, :1]), blocks[:, :-1]], dim=1)
        return torch.cat([before, blocks], dim=2)

    def turns(self, values: Tensor) -> Tensor:
        """(B, blocks, block, ...) back to (B, T, ...)."""
        return values.flatten(1, 2)[:, : self._turns]


def read(queries: Tensor, cells: Tensor, allowed: Tensor, squash: bool, rate: float, training: bool) -> Tensor:
    """`sum_k p_k m_k` with `p = softmax_k(q . m_k)` over the allowed cells; zero for a query that has none.

    Args:
        squash: Take `tanh(q . m_k)` as the score.
        rate: Dropped share of the weights p.

    Shapes:
        queries: (..., Q, width). cells: (..., C, width). allowed: (..., Q, C), bool. returns: (..., Q, width).
    """
    scores = queries @ cells.transpose(-1, -2)  # (..., Q, C)
    if squash:
        scores = scores.tanh()
    weights = dropout(masked_softmax(scores, allowed.expand_as(scores), dim=-1), rate, training)
    return weights @ cells


class SpeakerGrus(nn.Module):
    """One or more GRUs, each over every speaker's own turns, which are a chain by themselves from a zero state.

    Args:
        inputs: Width of an utterance. width: Of a state. count: GRUs, which advance together.

    Shapes (N real turns):
        utterances: (B, T, inputs). returns: (count, N, width), packed.
    """

    def __init__(self, inputs: int, width: int, count: int) -> None:
        super().__init__()
        self.cell = GruWeights([inputs], width, count)

    def forward(self, utterances: Tensor, order: TurnOrder) -> Tensor:
        return chain(order.pack(utterances), self.cell, order)


def forward_chains(speakers: Tensor, lengths: Tensor, count: int) -> TurnOrder:
    """The order of `SpeakerGrus`: every speaker's turns of a dialogue, read from the first on by each of `count` GRUs.

    Shapes:
        speakers: (B, T), long. lengths: (B,), long.
    """
    order = speaker_order(speakers, lengths, speakers.shape[1])
    return replace(order, cells=order.cells[:1].expand(count, -1))


def chain(packed: Tensor, cell: GruWeights, order: TurnOrder) -> Tensor:
    """A GRU a side over packed rows: (sides, N, inputs) to (sides, N, width)."""
    return gru_chain(torch.baddbmm(cell.input_bias, packed, cell.inputs[0]), cell, order)
