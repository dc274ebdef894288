"""The two encoders of CFN-ESA: RUME reads each modality's turns, ACME lets a primary modality and the others meet."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from mer_bench.nn.attention import key_set
from mer_bench.nn.dropout import Dropout
from mer_bench.nn.recurrent import GruWeights, TurnOrder, gru_chain, turn_order
from mer_bench.nn.stacked import RealTurns, StackedAttention, StackedFeedForward, StackedLinear, StackedNorm

from .config import CfnEsaConfig

INNER = 2
"""Inner width of a feed-forward network in multiples of the outer one."""


class UnimodalLayer(nn.Module):
    """One layer of RUME.

    ```
    r = LN(x + W [GRU forward, GRU backward](x))
    y = LN(x + r + FF(r))
    ```

    Args:
        members: Sets of weights: 1, shared by all modalities, or one a modality.

    Shapes (R turns of each member):
        values: (members, R, width). order: over the rows of a member. returns: (members, R, width).
    """

    def __init__(self, settings: CfnEsaConfig, members: int) -> None:
        super().__init__()
        width = settings.hidden_dim
        self.cells = nn.ModuleList(GruWeights([width], width) for _ in range(members))
        self.mix = StackedLinear(members, 2 * width, width)
        self.read_norm = StackedNorm(members, width)
        self.feedforward = StackedFeedForward(members, width, INNER * width, settings.recurrent_dropout)
        self.norm = StackedNorm(members, width)
        self.dropout = Dropout(settings.recurrent_dropout)

    def forward(self, values: Tensor, order: TurnOrder) -> Tensor:
        read = torch.stack(
            [_read(cast(GruWeights, cell), part, order) for cell, part in zip(self.cells, values, strict=True)]
        )  # (members, R, 2 width)
        read = self.read_norm(values + self.dropout(self.mix(read)))  # (members, R, width)
        result: Tensor = self.norm(values + read + self.feedforward(read))
        return result


def _read(cell: GruWeights, values: Tensor, order: TurnOrder) -> Tensor:
    """Both directions of a GRU side by side: (R, width) to (R, 2 width)."""
    gates = torch.baddbmm(cell.input_bias, order.pack(values.unsqueeze(1)), cell.inputs[0])  # (2, R, 3 width)
    return order.unpack(gru_chain(gates, cell, order)).squeeze(1)


class UnimodalEncoder(nn.Module):
    """RUME: layers of a recurrence and a feed-forward network, in each modality by itself.

    Shapes:
        values: (M, N, width). lengths: (B,), long. returns: (M, N, width).
    """

    def __init__(self, settings: CfnEsaConfig, modalities: int) -> None:
        super().__init__()
        self.members = 1 if settings.shared_recurrence else modalities
        self.layers = nn.ModuleList(UnimodalLayer(settings, self.members) for _ in range(settings.recurrent_layers))

    def forward(self, values: Tensor, lengths: Tensor, turns: RealTurns) -> Tensor:
        copies = len(values) // self.members  # modalities that share a member, their dialogues one after the other
        order = packed_order(lengths, turns, copies)
        result = values.view(self.members, -1, values.shape[-1])  # (members, copies * N, width)
        for layer in self.layers:
            result = layer(result, order)
        return result.view(values.shape)


def packed_order(lengths: Tensor, turns: RealTurns, copies: int) -> TurnOrder:
    """The order of a recurrence over `copies` copies of the batch's dialogues, in rows of real turns.

    Its `pack` and `unpack` take (copies * N, 1, width): to them each row is a dialogue's only cell.
    """
    order = turn_order(lengths.repeat(copies), turns.shape[1])
    cells, count = len(turns.rows), len(turns.cells)
    rows = turns.rows[order.cells % cells] + order.cells // cells * count
    return replace(order, cells=rows, shape=(copies * count, 1))


class CrossModalLayer(nn.Module):
    """One layer of ACME. With p the primary modality and m any:

    ```
    s_m = LN(x_m + Att_m(s: x_m to x_m))
    c_p = relu(W [Att(s_p to s_m), for each other m])      c_m = Att(s_m to s_p), m other than p
    d_m = LN(x_m + s_m + c_m)
    y_m = LN(x_m + d_m + FF_m(d_m))
    ```

    Args:
        modalities: M. primary: Index of the primary one; alone it has no c.

    Shapes:
        values: (M, N, width). present: (M, B, T), bool: what may be looked at. returns: (M, N, width).
    """

    def __init__(self, settings: CfnEsaConfig, modalities: int, primary: int) -> None:
        super().__init__()
        width = settings.hidden_dim
        others = [index for index in range(modalities) if index != primary]
        self.primary = primary
        self.own = StackedAttention(modalities, width, settings.heads)
        self.own_norm = StackedNorm(modalities, width)
        self.cross: StackedAttention | None = None
        if others:
            # First what the primary modality asks each other one, then what they ask it.
            self.cross = StackedAttention(2 * len(others), width, settings.heads)
            self.join = nn.Linear(len(others) * width, width)
        self.register_buffer("asking", torch.tensor([primary] * len(others) + others), persistent=False)
        self.register_buffer("asked", torch.tensor(others + [primary] * len(others)), persistent=False)
        self.asking: Tensor
        self.asked: Tensor
        self.cross_norm = StackedNorm(modalities, width)
        self.feedforward = StackedFeedForward(modalities, width, INNER * width, settings.cross_dropout)
        self.norm = StackedNorm(modalities, width)
        self.dropout = Dropout(settings.cross_dropout)

    def forward(self, values: Tensor, present: Tensor, turns: RealTurns) -> Tensor:
        keys = key_set(present.flatten(0, 1))
        own = self.own_norm(values + self.dropout(self.own(values, values, keys, turns)))
        total = values + own
        if self.cross is not None:
            total = total + self._met(self.cross, own, present, turns)
        met = self.cross_norm(total)  # (M, N, width)
        result: Tensor = self.norm(values + met + self.feedforward(met))
        return result

    def _met(self, cross: StackedAttention, own: Tensor, present: Tensor, turns: RealTurns) -> Tensor:
        """What each modality found in those that it looks at: (M, N, width)."""
        keys = key_set(present.index_select(0, self.asked).flatten(0, 1))
        found = cross(own.index_select(0, self.asking), own.index_select(0, self.asked), keys, turns)
        found = self.dropout(found)  # (2 (M - 1), N, width)
        of_primary, of_others = found.chunk(2)
        joined = self.join(torch.cat(list(of_primary), dim=-1)).relu()  # (N, width)
        joined = self.dropout(joined).unsqueeze(0)
        before, after = of_others.split([self.primary, len(of_others) - self.primary])
        return torch.cat([before, joined, after])


class CrossModalEncoder(nn.Module):
    """ACME: layers of attention within each modality, and between the primary one and each other.

    Shapes:
        values: (M, N, width). present: (M, B, T), bool. returns: (M, N, width).
    """

    def __init__(self, settings: CfnEsaConfig, modalities: int, primary: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CrossModalLayer(settings, modalities, primary) for _ in range(settings.cross_layers)
        )

    def forward(self, values: Tensor, present: Tensor, turns: RealTurns) -> Tensor:
        for layer in self.layers:
            values = layer(values, present, turns)
        return values
