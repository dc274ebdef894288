"""The unimodal context of MultiEMO: one DialogueRNN for each modality, all of them in one pass over the turns."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench.api import Batch
from mer_bench.nn.dropout import dropout, dropout_factors
from mer_bench.nn.recurrent import GruWeights, gru_chain, party_chain, turn_order
from mer_bench.nn.stacked import StackedLinear

from .config import MultiEmoConfig


class ModalityDialogueRnns(nn.Module):
    """A DialogueRNN for each modality (Majumder et al. 2019, in the form of MultiEMO's code).

    At turn t of a dialogue, u_t the utterance, for each modality and direction with weights of its own:

    ```
    g_t = GRU([u_t, q of the speaker], g_{t-1});   c_t = sum over s < t of softmax_s(w . g_s) g_s
    q of the speaker <- GRU([u_t, c_t], q of the speaker);   e_t = GRU(q of the speaker, e_{t-1})
    result: relu(W [e_t forward, e_t backward] + b), or relu(e_t) with one direction
    ```

    Modalities and directions are the directions of one recurrence: row m R + r of a side is direction r of modality m.

    Args:
        count: Modalities, M.

    Shapes:
        values: (M, B, T, width). returns: (M, B, T, width); on padding what a state of zero gives.
    """

    def __init__(self, settings: MultiEmoConfig, count: int) -> None:
        super().__init__()
        self.settings = settings
        self.directions = 2 if settings.bidirectional else 1
        width, sides = settings.hidden_dim, count * self.directions
        self.global_cell = GruWeights([width, width], width, sides)
        self.party_cell = GruWeights([width, width], width, sides)
        self.emotion_cell = GruWeights([width], width, sides)
        bound = 1 / math.sqrt(width)
        self.score = nn.Parameter(torch.empty(sides, 1, width).uniform_(-bound, bound))
        self.joined = StackedLinear(count, 2 * width, width) if settings.bidirectional else None

    def forward(self, values: Tensor, batch: Batch) -> Tensor:
        # The recurrences keep full precision; mixed precision pays in the large products alone.
        with torch.autocast(device_type=values.device.type, enabled=False):
            emotions = self._emotions(values.to(self.score.dtype), batch)  # (M, N, R width)
            if self.joined is not None:
                emotions = self.joined(emotions)
            emotions = F.relu(dropout(emotions, self.settings.dropout, self.training))
        return emotions.view(*values.shape[:3], -1)

    def _emotions(self, values: Tensor, batch: Batch) -> Tensor:
        """The emotion states, directions side by side: (M, B, T, width) to (M, B T, R width)."""
        count = len(values)
        order = turn_order(batch.lengths, batch.mask.shape[1], self.directions)
        packed = torch.cat([order.pack(modality) for modality in values])  # (M R, N, width)
        previous = order.previous_turn_of(batch.speakers).repeat(count, 1)  # (M R, N)
        order = replace(order, cells=order.cells.repeat(count, 1))
        parties = party_chain(
            torch.baddbmm(self.global_cell.input_bias, packed, self.global_cell.inputs[0]),
            torch.baddbmm(self.party_cell.input_bias, packed, self.party_cell.inputs[0]),
            self.score.expand(-1, packed.shape[1], -1),
            self.global_cell,
            self.party_cell,
            previous,
            order,
            global_drop=self._dropped(packed),
            party_drop=self._dropped(packed),
        )  # (M R, N, width)
        emotion_in = torch.baddbmm(self.emotion_cell.input_bias, parties, self.emotion_cell.inputs[0])
        states = gru_chain(emotion_in, self.emotion_cell, order, self._dropped(packed))
        sides = order.unpack(states).flatten(0, 1)  # (B T, M R width)
        return sides.view(len(sides), count, -1).transpose(0, 1)

    def _dropped(self, packed: Tensor) -> Tensor | None:
        """Factors of dropout for a state of every packed turn; None where nothing is dropped."""
        rate = self.settings.recurrent_dropout
        if not self.training or rate == 0:
            return None
        return dropout_factors(packed.shape, rate, packed)
