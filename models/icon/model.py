"""ICON (Hazarika et al., EMNLP 2018): states of each speaker, a memory of the dialogue, and reads in hops."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mer_bench.api import Batch, InputSpec, Model, Output, Settings
from mer_bench.nn.concatenation import ConcatenatedUtterances
from mer_bench.nn.dropout import dropout
from mer_bench.nn.history import HistoryWindows, SpeakerGrus, chain, forward_chains, read
from mer_bench.nn.recurrent import GruWeights, turn_order

from .config import IconConfig
from .readers import Readers, one_reader, readers


class Icon(Model):
    """A query made of the utterance reads from the memory of the one who said it, which grows anew with each hop.

    Follows Hazarika et al. (2018), "ICON: Interactive Conversational Memory Network for Multimodal Emotion
    Detection", in the formulas of the authors' code, for any number of speakers: to a reader every other person is
    "the other", and each of them keeps a chain of states.

    Shapes (B dialogues, T turns, P persons of all dialogues, R roles):
        logits: (B, T, classes); those of a turn depend on it and on earlier ones alone.
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(IconConfig, settings)
        self.utterances = ConcatenatedUtterances(spec.widths, config.input_width, config.input_dropout)
        self.query = nn.Linear(self.utterances.out, config.width)
        self.self_influence = SelfInfluence(self.utterances.out, config)
        self.global_influence = GlobalInfluence(config) if config.influence != "self" else None
        self.classes = nn.Linear(config.width, spec.class_count)

    def forward(self, batch: Batch) -> Output:
        config = self.settings
        utterances = self.utterances(batch)  # (B, T, inputs)
        # The recurrences keep full precision, and no other product here is large.
        with torch.autocast(device_type=utterances.device.type, enabled=False):
            utterances = utterances.to(self.query.weight.dtype)
            who = readers(batch.speakers, batch.mask) if config.roles else one_reader(batch.mask, batch.lengths)
            states = self._as_read(self.self_influence(utterances, batch), who)  # (P, T, width)
            memories = [states] * config.hops
            if self.global_influence is not None:
                memories = self.global_influence(states, who)  # hops x (P, T, width)
            windows = HistoryWindows(batch.mask.shape[1], config.history, batch.mask.device)
            first = torch.tanh(self.query(utterances))  # (B, T, width)
            query = windows.queries(first.index_select(0, who.dialogue))  # (P, blocks, block, width)
            for memory in memories:
                query = torch.tanh(query + self._read(query, windows.cells(memory), windows.allowed))
            last = dropout(who.own_turns(windows.turns(query)), config.output_dropout, self.training)
            return Output(self.classes(last))

    def _as_read(self, roles: tuple[Tensor, ...], who: Readers) -> Tensor:
        """Of each turn its state in the role that it has for a reader: (P, T, width)."""
        own = roles[0].index_select(0, who.dialogue)
        if len(roles) == 1:
            return own
        return torch.where(who.own.unsqueeze(2), own, roles[1].index_select(0, who.dialogue))

    def _read(self, query: Tensor, cells: Tensor, allowed: Tensor) -> Tensor:
        return read(query, cells, allowed, self.settings.scores == "tanh", self.settings.dropout, self.training)


class SelfInfluence(nn.Module):
    """The state of a person after each of their turns, in each role: said by the one who reads, or by another.

    A GRU a role over every person's own turns, then tanh; with `influence = "global"` a layer on the utterance
    alone, then tanh.

    Args:
        inputs: Width of an utterance.

    Shapes:
        utterances: (B, T, inputs). returns: R x (B, T, width), own first.
    """

    def __init__(self, inputs: int, settings: IconConfig) -> None:
        super().__init__()
        self.rate = settings.dropout
        self.roles = 2 if settings.roles else 1
        with_states = settings.influence != "global"
        self.grus = SpeakerGrus(inputs, settings.width, self.roles) if with_states else None
        self.layer = None if with_states else nn.Linear(inputs, self.roles * settings.width)

    def forward(self, utterances: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        if self.layer is not None:
            states = self.layer(utterances)  # (B, T, R width)
        else:
            assert self.grus is not None
            order = forward_chains(batch.speakers, batch.lengths, self.roles)
            states = order.unpack(self.grus(utterances, order))  # (B, T, R width)
        return dropout(states, self.rate, self.training).tanh().chunk(self.roles, dim=-1)


class GlobalInfluence(nn.Module):
    """The memory of every hop: a GRU over the states of all turns, and a second one over each memory for the next.

    Shapes:
        states: (P, T, width), as each reader remembers them. returns: hops x (P, T, width); zero after the last
        turn that can be history.
    """

    def __init__(self, settings: IconConfig) -> None:
        super().__init__()
        width = settings.width
        self.hops = settings.hops
        self.first = GruWeights([width], width, directions=1)
        self.again = GruWeights([width], width, directions=1) if settings.hops > 1 else None

    def forward(self, states: Tensor, who: Readers) -> list[Tensor]:
        order = turn_order(who.lengths, states.shape[1], directions=1)
        memories = [chain(order.pack(states), self.first, order)]  # (1, N, width)
        if self.again is not None:
            for _ in range(self.hops - 1):
                memories.append(chain(memories[-1], self.again, order))
        return [order.unpack(memory) for memory in memories]
