"""CMN (Hazarika et al., NAACL 2018): memories of what the speaker and what the others said, read in hops."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mer_bench.api import Batch, InputSpec, Model, Output, Settings
from mer_bench.nn.concatenation import ConcatenatedUtterances
from mer_bench.nn.dropout import dropout
from mer_bench.nn.history import HistoryWindows, SpeakerGrus, chain, forward_chains, read
from mer_bench.nn.recurrent import GruWeights

from .config import CmnConfig


class Cmn(Model):
    """A query made of the utterance reads from one memory for each party, several times.

    Follows Hazarika et al. (2018), "Conversational Memory Network for Emotion Recognition in Dyadic Dialogue
    Videos", in the formulas of the authors' code, for any number of speakers: the parties are the speaker of the
    utterance and all others, each of whom keeps a chain of states.

    Shapes (B dialogues, T turns, P parties):
        logits: (B, T, classes); those of a turn depend on it and on earlier ones alone.
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(CmnConfig, settings)
        self.parties = ("own", "other") if config.parties == "both" else (config.parties,)
        self.utterances = ConcatenatedUtterances(spec.widths, config.input_width, config.input_dropout)
        self.query = nn.Linear(self.utterances.out, config.width)
        self.memories = PartyMemories(self.utterances.out, config, len(self.parties))
        self.classes = nn.Linear(config.width, spec.class_count)

    def forward(self, batch: Batch) -> Output:
        config = self.settings
        utterances = self.utterances(batch)  # (B, T, inputs)
        # The recurrences keep full precision, and no other product here is large.
        with torch.autocast(device_type=utterances.device.type, enabled=False):
            utterances = utterances.to(self.query.weight.dtype)
            windows = HistoryWindows(batch.mask.shape[1], config.history, batch.mask.device)
            memories = self.memories(utterances, batch)  # P x (B, T, width)
            cells = [windows.cells(memory) for memory in memories]  # P x (B, blocks, cells, width)
            allowed = self._allowed(windows, batch.speakers)  # P x (B, blocks, block, cells)
            query = windows.queries(torch.tanh(self.query(utterances)))  # (B, blocks, block, width)
            for _ in range(config.hops):
                found = [self._read(query, *memory) for memory in zip(cells, allowed, strict=True)]
                query = torch.tanh(query + torch.stack(found).sum(0))
            last = dropout(windows.turns(query), config.output_dropout, self.training)  # (B, T, width)
            return Output(self.classes(last))

    def _read(self, query: Tensor, cells: Tensor, allowed: Tensor) -> Tensor:
        return read(query, cells, allowed, self.settings.scores == "tanh", self.settings.dropout, self.training)

    def _allowed(self, windows: HistoryWindows, speakers: Tensor) -> list[Tensor]:
        """Which cells of each party's memory a query reads from: those of the window that the party said."""
        same = windows.queries(speakers).unsqueeze(3) == windows.cells(speakers).unsqueeze(2)
        return [windows.allowed & (same if party == "own" else ~same) for party in self.parties]


class PartyMemories(nn.Module):
    """Memory cells of every utterance, one in each role that it can have: said by the one who asks, or by another.

    In each role two GRUs on top of each other run over every speaker's own turns: m = GRU'(tanh(GRU(u))).

    Args:
        inputs: Width of an utterance. parties: Roles.

    Shapes:
        utterances: (B, T, inputs). returns: parties x (B, T, width); zero on padding.
    """

    def __init__(self, inputs: int, settings: CmnConfig, parties: int) -> None:
        super().__init__()
        self.parties = parties
        self.rate = settings.dropout
        self.local = SpeakerGrus(inputs, settings.width, parties)
        self.memory = GruWeights([settings.width], settings.width, parties)

    def forward(self, utterances: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        order = forward_chains(batch.speakers, batch.lengths, self.parties)
        states = dropout(self.local(utterances, order), self.rate, self.training).tanh()  # (P, N, width)
        return order.unpack(chain(states, self.memory, order)).chunk(self.parties, dim=-1)
