"""CMA-Transformer: each modality takes its turn as the central one, and the others only augment it.

Stated by the paper: the fusion is asymmetric, with one central modality and auxiliary ones, each in
its turn; the outputs are the fine-grained representations. Ours: the layers, the gate with its `none`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mer_bench.nn.attention import DialogueAttention, KeySet
from mer_bench.nn.dropout import Dropout

NONE = "none"
"""Name of the gate's option to take nothing from any auxiliary."""


@dataclass(frozen=True)
class StackSettings:
    """Sizes that every layer of the CMA-Transformer has."""

    width: int
    heads: int
    layers: int
    feedforward: int
    dropout: float
    attention_dropout: float
    speaker_bias: bool
    reach: int = 0

    def attention(self, to_itself: bool) -> DialogueAttention:
        """An attention of these sizes; only the one of a stream to itself has a bias for the speaker."""
        return DialogueAttention(
            self.width, self.heads, to_itself and self.speaker_bias, self.attention_dropout, self.reach
        )


class Gate(nn.Module):
    """How much of each auxiliary enters the central stream, per dimension, `none` included.

    `a_j = W_j [s; C_j] + b_j`, `a_none` a learned vector that starts at 0; `g = softmax over
    {auxiliaries, none}`; an auxiliary with an empty key set has `a_j = -inf`.

    Shapes:
        stream: (B, T, width), s. messages[j]: (B, T, width), C_j. found[j]: (B, 1 or T, 1), bool.
        returns: g, (J + 1, B, T, width); `none` comes last.
    """

    def __init__(self, width: int, auxiliaries: Sequence[str]) -> None:
        super().__init__()
        self.scores = nn.ModuleDict({name: nn.Linear(2 * width, width) for name in auxiliaries})
        self.none = nn.Parameter(torch.zeros(width))

    def forward(self, stream: Tensor, messages: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Tensor:
        logits = [
            score(torch.cat([stream, messages[name]], dim=-1)).masked_fill(~found[name], float("-inf"))
            for name, score in self.scores.items()
        ]
        logits.append(self.none.expand_as(stream))
        return torch.stack(logits).softmax(dim=0)


class FeedForward(nn.Sequential):
    """Two linear maps with a GELU between; the same for every utterance."""

    def __init__(self, settings: StackSettings) -> None:
        inner = settings.feedforward * settings.width
        super().__init__(
            nn.Linear(settings.width, inner), nn.GELU(), Dropout(settings.dropout), nn.Linear(inner, settings.width)
        )


class CmaLayer(nn.Module):
    """One layer of the stack of a central modality.

    ```
    H <- H + SelfAttention(LN(H))
    C_j = CrossAttention(query = LN(H), key = value = LN(z_j)) for each auxiliary j
    H <- H + sum_j g_j * C_j
    H <- H + FFN(LN(H))
    ```

    Args:
        auxiliaries: Names of the auxiliary modalities; without any the second step falls away.

    Shapes:
        stream: (B, T, width), H. context[j]: (B, T, width), z_j. keys[m]: of each modality.
        returns: H, (B, T, width), and the gate (J + 1, B, T, width), None without auxiliaries.
    """

    def __init__(self, settings: StackSettings, central: str, auxiliaries: Sequence[str]) -> None:
        super().__init__()
        width = settings.width
        self.central = central
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = settings.attention(to_itself=True)
        if auxiliaries:
            self.cross_norm = nn.LayerNorm(width)
            self.gate = Gate(width, auxiliaries)
        self.context_norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in auxiliaries})
        self.cross_attentions = nn.ModuleDict({name: settings.attention(to_itself=False) for name in auxiliaries})
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(settings)
        self.dropout = Dropout(settings.dropout)

    def forward(
        self,
        stream: Tensor,
        context: Mapping[str, Tensor],
        keys: Mapping[str, KeySet],
        same_speaker: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        normed = self.self_norm(stream)
        stream = stream + self.dropout(self.self_attention(normed, normed, keys[self.central], same_speaker))
        gate = None
        if self.cross_attentions:
            normed = self.cross_norm(stream)
            messages = {
                name: attend(normed, self.context_norms[name](context[name]), keys[name])
                for name, attend in self.cross_attentions.items()
            }  # J x (B, T, width)
            gate = self.gate(normed, messages, {name: keys[name].found for name in messages})  # (J + 1, B, T, width)
            stream = stream + self.dropout((gate[:-1] * torch.stack(list(messages.values()))).sum(dim=0))
        return stream + self.dropout(self.feedforward(self.feedforward_norm(stream))), gate


class CmaTransformer(nn.Module):
    """One stack of layers for each central modality; the residual stream is the central one's alone.

    Args:
        modalities: Every modality of the run.
        central: Those that take their turn as the central one.

    Shapes:
        encoded[m]: (B, T, width), z_m. keys[m]: of each modality.
        same_speaker: (B, 1, T, T), bool, or None without speaker_bias.
        returns: fine-grained H_c, (B, T, width), by central modality; mean gate over layers and
            dimensions, (J + 1, B, T), by central modality that has auxiliaries, detached.
    """

    def __init__(self, settings: StackSettings, modalities: Sequence[str], central: Sequence[str]) -> None:
        super().__init__()
        self.stacks = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    CmaLayer(settings, name, [other for other in modalities if other != name])
                    for _ in range(settings.layers)
                )
                for name in central
            }
        )
        self.norms = nn.ModuleDict({name: nn.LayerNorm(settings.width) for name in central})

    def forward(
        self, encoded: Mapping[str, Tensor], keys: Mapping[str, KeySet], same_speaker: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        fine, gates = {}, {}
        for name, stack in self.stacks.items():
            stream, seen = encoded[name], []
            for layer in stack:  # type: ignore[attr-defined]  # a ModuleList
                stream, gate = layer(stream, encoded, keys, same_speaker)
                if gate is not None:
                    seen.append(gate.detach().mean(dim=-1))  # (J + 1, B, T)
            fine[name] = self.norms[name](stream)  # (B, T, width)
            if seen:
                gates[name] = torch.stack(seen).mean(dim=0)
        return fine, gates


class SymmetricLayer(nn.Module):
    """The layer of the ablation `fusion = symmetric`: the mean of the auxiliaries, and no gate.

    Shapes:
        stream: (M B, T, width); every modality's stream in turn. keys: (M B, ...), of that modality.
        context: J x (M B, T, width), the auxiliaries of each stream. context_keys: J, of those.
        returns: (M B, T, width).
    """

    def __init__(self, settings: StackSettings, crossed: bool) -> None:
        super().__init__()
        width = settings.width
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = settings.attention(to_itself=True)
        if crossed:
            self.cross_norm, self.context_norm = nn.LayerNorm(width), nn.LayerNorm(width)
            self.cross_attention = settings.attention(to_itself=False)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(settings)
        self.dropout = Dropout(settings.dropout)

    def forward(
        self,
        stream: Tensor,
        keys: KeySet,
        context: Sequence[Tensor],
        context_keys: Sequence[KeySet],
        same_speaker: Tensor | None,
    ) -> Tensor:
        normed = self.self_norm(stream)
        stream = stream + self.dropout(self.self_attention(normed, normed, keys, same_speaker))
        if context:
            normed = self.cross_norm(stream)
            messages = [
                self.cross_attention(normed, self.context_norm(other), other_keys)
                for other, other_keys in zip(context, context_keys, strict=True)
            ]
            found = torch.stack([other_keys.found for other_keys in context_keys]).sum(dim=0)  # (M B, 1 or T, 1)
            stream = stream + self.dropout(torch.stack(messages).sum(dim=0) / found.clamp_min(1))
        result: Tensor = stream + self.dropout(self.feedforward(self.feedforward_norm(stream)))
        return result


class SymmetricTransformer(nn.Module):
    """The ablation `fusion = symmetric`: one shared stack that every modality passes as its equals do.

    Arguments and shapes are those of `CmaTransformer`; there are no gates.
    """

    def __init__(self, settings: StackSettings, modalities: Sequence[str], central: Sequence[str]) -> None:
        super().__init__()
        self.central = tuple(central)
        self.auxiliaries = {name: [other for other in modalities if other != name] for name in central}
        self.stack = nn.ModuleList(SymmetricLayer(settings, len(modalities) > 1) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.width)

    def forward(
        self, encoded: Mapping[str, Tensor], keys: Mapping[str, KeySet], same_speaker: Tensor | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        def joined(names: Sequence[str]) -> KeySet:
            return KeySet(
                torch.cat([keys[name].allowed for name in names]), torch.cat([keys[name].found for name in names])
            )

        stream = torch.cat([encoded[name] for name in self.central])  # (M B, T, width)
        own_keys = joined(self.central)
        turns = list(zip(*self.auxiliaries.values(), strict=True))  # J x M names
        context = [torch.cat([encoded[name] for name in names]) for names in turns]  # J x (M B, T, width)
        context_keys = [joined(names) for names in turns]
        if same_speaker is not None:
            same_speaker = same_speaker.repeat(len(self.central), 1, 1, 1)  # (M B, 1, T, T)
        for layer in self.stack:
            stream = layer(stream, own_keys, context, context_keys, same_speaker)
        fine = self.norm(stream).chunk(len(self.central))  # M x (B, T, width)
        return dict(zip(self.central, fine, strict=True)), {}
