"""DialogueRNN (Majumder et al. 2019): who speaks has a state, and so have the dialogue and the emotion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mer_bench.api import Batch, InputSpec, Model, Output, Settings
from mer_bench.nn.concatenation import ConcatenatedUtterances
from mer_bench.nn.dropout import dropout, dropout_factors
from mer_bench.nn.published import PublishedEntries
from mer_bench.nn.recurrent import GruWeights, TurnOrder, gru_chain, party_chain, turn_order

from .config import DialogueRnnConfig


class DialogueRnn(Model):
    """Three recurrences a direction: global state, state of the speaking party, emotion.

    Follows section 3 of Majumder et al. (2019), "DialogueRNN: An Attentive RNN for Emotion Detection in
    Conversations", in the formulas of the authors' code. The utterance is the concatenation of its
    modalities' features; a missing one is replaced by a learned vector that starts at zero.

    Shapes (B dialogues, T turns, R directions, N real turns):
        logits: (B, T, classes).
    """

    ignored_entries: tuple[str, ...] = ()

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(DialogueRnnConfig, settings)
        sides = self.directions = 2 if config.bidirectional else 1
        self.utterances = ConcatenatedUtterances(spec.widths, config.input_width, config.input_dropout)
        width = self.utterances.out
        self.global_cell = GruWeights([width, config.party_width], config.global_width, sides)
        self.party_cell = GruWeights([width, config.global_width], config.party_width, sides)
        self.listener_cell = (
            GruWeights([width, config.party_width], config.party_width, sides) if config.listener_state else None
        )
        self.emotion_cell = GruWeights([config.party_width], config.emotion_width, sides)
        self.context = ContextAttention(config, width, sides)
        emotion = sides * config.emotion_width
        self.second_query = nn.Linear(emotion, emotion) if config.second_attention else None
        self.hidden = nn.Linear(emotion, sides * config.hidden_width)
        self.classes = nn.Linear(sides * config.hidden_width, spec.class_count)

    def forward(self, batch: Batch) -> Output:
        utterances = self.utterances(batch)  # (B, T, inputs)
        # The recurrences keep full precision; mixed precision pays in the large products alone.
        with torch.autocast(device_type=utterances.device.type, enabled=False):
            emotions = self._emotions(utterances.to(self.classes.weight.dtype), batch)  # (B, T, R emotion)
        emotions = dropout(emotions, self.settings.emotion_dropout, self.training)
        if self.second_query is not None:
            emotions, _ = self._attend_to_all(emotions, batch.mask)
        hidden = functional.relu(self.hidden(emotions))  # (B, T, R hidden)
        hidden = dropout(hidden, self.settings.hidden_dropout, self.training)
        return Output(self.classes(hidden))

    def _emotions(self, utterances: Tensor, batch: Batch) -> Tensor:
        order = turn_order(batch.lengths, batch.mask.shape[1], self.directions)
        packed = order.pack(utterances)  # (R, N, width)
        # All that depends on the utterance alone is a product before time starts.
        global_in = torch.baddbmm(self.global_cell.input_bias, packed, self.global_cell.inputs[0])
        party_in = torch.baddbmm(self.party_cell.input_bias, packed, self.party_cell.inputs[0])
        if self.listener_cell is None and self.settings.context_attention != "concat":
            parties = party_chain(
                global_in,
                party_in,
                self.context.query(packed),
                self.global_cell,
                self.party_cell,
                order.previous_turn_of(batch.speakers),
                order,
                global_drop=self._dropped(packed, self.settings.global_width),
                party_drop=self._dropped(packed, self.settings.party_width),
            )
        else:
            parties = self._parties_by_steps(packed, global_in, party_in, batch.speakers, order)
        emotion_in = torch.baddbmm(self.emotion_cell.input_bias, parties, self.emotion_cell.inputs[0])
        states = gru_chain(emotion_in, self.emotion_cell, order, self._dropped(packed, self.settings.emotion_width))
        return order.unpack(states)

    def _parties_by_steps(
        self, packed: Tensor, global_in: Tensor, party_in: Tensor, speakers: Tensor, order: TurnOrder
    ) -> Tensor:
        """What `party_chain` computes, one plain step after the other: for a listener's state and `concat`."""
        config = self.settings
        sides, count = self.directions, order.counts[0]
        people = int(speakers.max()) + 1
        speaker = order.pack(speakers.unsqueeze(-1)).squeeze(-1)  # (R, N)
        query = self.context.query(packed)
        global_drop = self._dropped(packed, config.global_width)
        state = packed.new_zeros(sides, count, config.global_width)
        party = packed.new_zeros(sides, count, people, config.party_width)
        history = packed.new_zeros(sides, count, 0, config.global_width)
        keys = self.context.keys(history)
        spoken = []
        for start, count in zip(order.starts, order.counts, strict=True):
            rows = slice(start, start + count)
            state, party, history, keys = (part[:, :count] for part in (state, party, history, keys))
            who = speaker[:, rows, None, None].expand(-1, -1, 1, config.party_width)
            spoke = party.gather(2, who).squeeze(2)  # (R, n, party)
            from_party = torch.bmm(spoke, self.global_cell.inputs[1])
            state = self.global_cell.advance(global_in[:, rows] + from_party, state)
            if global_drop is not None:
                state = state * global_drop[:, rows]
            gates = party_in[:, rows]
            if history.shape[2]:
                context = self.context(query[:, rows], history, keys)  # (R, n, global)
                gates = torch.baddbmm(gates, context, self.party_cell.inputs[1])
            new = self.party_cell.advance(gates, spoke)
            new = dropout(new, config.recurrent_dropout, self.training)
            if self.listener_cell is not None:
                party = self._heard(packed[:, rows], new, party)
            party = party.scatter(2, who, new.unsqueeze(2))
            spoken.append(new)
            history = torch.cat([history, state.unsqueeze(2)], dim=2)
            keys = torch.cat([keys, self.context.keys(state.unsqueeze(2))], dim=2)
        return torch.cat(spoken, dim=1)  # (R, N, party)

    def _heard(self, utterance: Tensor, new: Tensor, party: Tensor) -> Tensor:
        """Every party's state after it heard the utterance and the speaker's new state."""
        assert self.listener_cell is not None
        cell = self.listener_cell
        sides, count, people, width = party.shape
        gates = torch.baddbmm(cell.input_bias, utterance, cell.inputs[0])
        gates = torch.baddbmm(gates, new, cell.inputs[1])
        gates = gates.unsqueeze(2).expand(-1, -1, people, -1).reshape(sides, count * people, -1)
        heard = cell.advance(gates, party.reshape(sides, count * people, width)).view_as(party)
        return dropout(heard, self.settings.recurrent_dropout, self.training)

    def _dropped(self, packed: Tensor, width: int) -> Tensor | None:
        """Factors of dropout for a state of every packed turn; None where nothing is dropped."""
        rate = self.settings.recurrent_dropout
        if not self.training or rate == 0:
            return None
        return dropout_factors((*packed.shape[:2], width), rate, packed)

    def _attend_to_all(self, emotions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Each emotion as a mean of all of its dialogue, and the weights (B, T, T): row = query."""
        assert self.second_query is not None
        scores = torch.bmm(self.second_query(emotions), emotions.transpose(1, 2))  # (B, T, T)
        weights = scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1)
        return torch.bmm(weights, emotions), weights

    @classmethod
    def from_published(
        cls, state_dict: Mapping[str, Tensor], settings: Settings, spec: InputSpec | None = None
    ) -> DialogueRnn:
        """A model with the weights of the authors' `BiModel`.

        Args:
            state_dict: As saved from that code, names and shapes untouched.
            settings: Must have the widths, the attention and the listener state of the checkpoint.
            spec: Modalities and classes; left out: one modality `text` as wide as the checkpoint's
                utterances, and classes called by their index.

        Returns:
            The model in evaluation mode, of the weights' type; `ignored_entries` names what was not used.

        Raises:
            DataError: If an entry is missing, unknown or of another shape; names it.
        """
        config = cast(DialogueRnnConfig, settings)
        entries = PublishedEntries(state_dict, "DialogueRNN")
        if config.input_width:
            raise entries.refusal(
                f"has no layer before the recurrences, but input_width is {config.input_width}; set it to 0"
            )
        if not config.bidirectional:
            raise entries.refusal("holds two directions, but bidirectional is false; set it to true")
        first = entries.peek("dialog_rnn_f.dialogue_cell.g_cell.weight_ih", 2)
        width = first.shape[1] - config.party_width
        class_count = entries.peek("smax_fc.weight", 2).shape[0]
        if spec is None:
            spec = InputSpec({"text": max(width, 1)}, tuple(str(index) for index in range(class_count)), 1)
        model = cls(spec, settings).to(first.dtype)
        width = sum(spec.widths.values())
        for side, name in enumerate(("dialog_rnn_f", "dialog_rnn_r")):
            prefix = f"{name}.dialogue_cell"
            cells = {
                "g_cell": model.global_cell,
                "p_cell": model.party_cell,
                "e_cell": model.emotion_cell,
                **({"l_cell": model.listener_cell} if model.listener_cell is not None else {}),
            }
            for cell_name, cell in cells.items():
                inputs = sum(part.shape[1] for part in cell.inputs)
                cell.load_cell(
                    side,
                    entries.take(f"{prefix}.{cell_name}.weight_ih", (3 * cell.width, inputs)),
                    entries.take(f"{prefix}.{cell_name}.weight_hh", (3 * cell.width, cell.width)),
                    entries.take(f"{prefix}.{cell_name}.bias_ih", (3 * cell.width,)),
                    entries.take(f"{prefix}.{cell_name}.bias_hh", (3 * cell.width,)),
                )
            model.context.load_published(side, entries, f"{prefix}.attention", width)
        for name, layer in {
            "matchatt.transform": model.second_query,
            "linear": model.hidden,
            "smax_fc": model.classes,
        }.items():
            if layer is None:
                entries.ignore(f"{name}.weight", f"{name}.bias")
            else:
                entries.load_linear(name, layer)
        model.ignored_entries = entries.finish()
        return model.eval()


class ContextAttention(nn.Module):
    """Attention of an utterance over the global states before it, for each direction.

    Scores of state g_s for utterance u: `simple` w . g_s; `general` (W u) . g_s; `general2`
    (W u + b) . g_s; `concat` v . tanh(A g_s + B u).

    Args:
        width: Width of an utterance. sides: Number of directions.
    """

    def __init__(self, settings: DialogueRnnConfig, width: int, sides: int) -> None:
        super().__init__()
        self.kind = settings.context_attention
        self.state_width = settings.global_width
        inner = settings.attention_width

        def uniform(bound: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(nn.init.uniform_(torch.empty(sides, *shape), -bound, bound))

        # Bounds as PyTorch draws the linear layers of the published code.
        if self.kind == "simple":
            self.vector = uniform(1 / math.sqrt(self.state_width), 1, self.state_width)
        elif self.kind == "concat":
            bound = 1 / math.sqrt(width + self.state_width)
            self.from_state = uniform(bound, self.state_width, inner)
            self.from_utterance = uniform(bound, width, inner)
            self.vector = uniform(1 / math.sqrt(inner), 1, inner)
        else:
            self.from_utterance = uniform(1 / math.sqrt(width), width, self.state_width)
            if self.kind == "general2":
                self.bias = uniform(1 / math.sqrt(width), 1, self.state_width)

    def query(self, packed: Tensor) -> Tensor:
        """What of the scores the utterance alone decides: (R, N, width) to (R, N, global or attention width)."""
        if self.kind == "simple":
            return self.vector.expand(-1, packed.shape[1], -1)
        if self.kind == "general2":
            return torch.baddbmm(self.bias, packed, self.from_utterance)
        return torch.bmm(packed, self.from_utterance)

    def keys(self, states: Tensor) -> Tensor:
        """What of the scores a global state alone decides: (R, n, s, global) to (R, n, s, its width)."""
        if self.kind != "concat":
            return states
        sides, count, steps, width = states.shape
        keys = torch.bmm(states.reshape(sides, count * steps, width), self.from_state)
        return keys.view(sides, count, steps, self.from_state.shape[-1])

    def forward(self, query: Tensor, history: Tensor, keys: Tensor) -> Tensor:
        """The context: query (R, n, .), history and keys (R, n, s, .) to (R, n, global)."""
        mixed = query.unsqueeze(2)
        if self.kind == "concat":
            scores = (torch.tanh(keys + mixed) * self.vector.unsqueeze(1)).sum(-1, keepdim=True)
        else:
            scores = (keys * mixed).sum(-1, keepdim=True)  # (R, n, s, 1)
        return (scores.softmax(2) * history).sum(2)

    @torch.no_grad()
    def load_published(self, side: int, entries: PublishedEntries, prefix: str, width: int) -> None:
        """Take one direction's weights from a published checkpoint."""
        states = self.state_width
        if self.kind == "simple":
            self.vector[side] = entries.take(f"{prefix}.scalar.weight", (1, states))
        elif self.kind == "concat":
            inner = self.vector.shape[-1]
            both = entries.take(f"{prefix}.transform.weight", (inner, states + width))
            self.from_state[side] = both[:, :states].T
            self.from_utterance[side] = both[:, states:].T
            self.vector[side] = entries.take(f"{prefix}.vector_prod.weight", (1, inner))
        else:
            self.from_utterance[side] = entries.take(f"{prefix}.transform.weight", (states, width)).T
            if self.kind == "general2":
                self.bias[side, 0] = entries.take(f"{prefix}.transform.bias", (states,))
