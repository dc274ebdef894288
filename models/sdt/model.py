"""SDT (Ma et al. 2023): transformers within and between modalities, gated fusion, self-distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from mer_bench.api import Auxiliary, Batch, InputSpec, LossTerm, Model, Output, Settings
from mer_bench.errors import DataError
from mer_bench.nn.attention import key_set
from mer_bench.nn.dropout import Dropout, dropout
from mer_bench.nn.encoders import sinusoidal_positions
from mer_bench.nn.masking import masked_softmax
from mer_bench.nn.published import PublishedEntries
from mer_bench.nn.stacked import StackedLinear, StackedNorm

from .config import SdtConfig
from .transformer import PairLayer, PairTransformers

PUBLISHED_LETTERS = {"text": "t", "audio": "a", "visual": "v"}
"""The published code's letter of each modality, in its order."""

PUBLISHED_INPUTS = {"text": "textf_input", "audio": "acouf_input", "visual": "visuf_input"}

TABLE_TURNS = 512
"""Turns whose position is kept; what lies beyond is computed."""


class PositionsAndSpeakers(nn.Module):
    """`x + sinusoid of the turn + vector of the speaker`, the same for every modality.

    Shapes:
        values: (M, B, T, width). speakers: (B, T), long. returns: (M, B, T, width).
    """

    def __init__(self, spec: InputSpec, settings: SdtConfig) -> None:
        super().__init__()
        width = settings.hidden_dim
        self.speakers = nn.Embedding(spec.speakers, width) if settings.speakers else None
        table = sinusoidal_positions(TABLE_TURNS, width) if settings.positions else None
        self.register_buffer("table", table, persistent=False)
        self.table: Tensor | None

    def forward(self, values: Tensor, speakers: Tensor) -> Tensor:
        if self.table is not None:
            values = values + self._positions(self.table, values.shape[2])
        if self.speakers is not None:
            values = values + self.speakers(speakers)
        return values

    @staticmethod
    def _positions(table: Tensor, turns: int) -> Tensor:
        if turns > len(table):
            beyond = sinusoidal_positions(turns, table.shape[1])[len(table) :]
            table = torch.cat([table, beyond.to(table)])
        return table[:turns]


class Sdt(Model):
    """Every modality asks itself and each other one; gates weigh the answers; the fusion teaches the modalities.

    Follows Ma et al. (2023), "A Transformer-Based Model With Self-Distillation for Multimodal Emotion Recognition
    in Conversations", in the formulas of the authors' code. An utterance without a modality is no key of that
    modality, has no part of it in the fusion, and no student.

    Shapes (B dialogues, T turns, M modalities, P pairs of them):
        returns: logits (B, T, classes) of the fusion, those of each modality, and the terms `distil_<modality>`.
    """

    ignored_entries: tuple[str, ...] = ()

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(SdtConfig, settings)
        width, names = config.hidden_dim, spec.modalities
        self.pairs = modality_pairs(names, config.transformers)
        self.projections = nn.ModuleDict(
            {name: nn.Linear(size, width, bias=False) for name, size in spec.widths.items()}
        )
        self.places = PositionsAndSpeakers(spec, config)
        self.transformers = PairTransformers(
            config, [names.index(asking) for asking, _ in self.pairs], [names.index(asked) for _, asked in self.pairs]
        )
        self.gates = StackedLinear(len(self.pairs), width, width, bias=False) if config.gates == "learned" else None
        self.answers = len(self.pairs) // len(names)  # that each modality has
        self.reductions = nn.ModuleDict({name: nn.Linear(self.answers * width, width) for name in names})
        gated = config.gates != "none" and len(names) > 1
        self.fusion_gate = nn.Linear(width, width, bias=False) if gated else None
        self.classes = nn.Linear(width, spec.class_count)
        self.students = nn.ModuleDict({name: nn.Linear(width, spec.class_count) for name in names})
        self.dropout = Dropout(config.dropout)

    def forward(self, batch: Batch) -> Output:
        self._check_speakers(batch)
        config = self.settings
        reduced = self._reduced(batch)  # (M, B, T, width)
        present = torch.stack([batch.present[name] for name in self.spec.modalities])  # (M, B, T)
        logits = self.classes(self._fused(reduced, present))  # (B, T, classes)
        students = {
            name: self.students[name](self.dropout(values.relu()))
            for name, values in zip(self.spec.modalities, reduced, strict=True)
        }  # M x (B, T, classes)
        return Output(
            logits=logits,
            auxiliary={
                name: Auxiliary(values, config.student_weight, batch.present[name]) for name, values in students.items()
            },
            losses={
                f"distil_{name}": LossTerm(
                    distillation_loss(logits, values, batch.present[name], config.temperature),
                    config.distillation_weight,
                )
                for name, values in students.items()
            },
        )

    def _reduced(self, batch: Batch) -> Tensor:
        """Each modality's representation from all that it asked: (M, B, T, width)."""
        names = self.spec.modalities
        inputs = torch.stack([self._projected(name, batch) for name in names])  # (M, B, T, width)
        inputs = self.dropout(self.places(inputs, batch.speakers))
        keys = key_set(torch.cat([batch.present[asked] for _, asked in self.pairs]))  # of P B dialogues
        found = self._gated(self.transformers(inputs, keys))  # (P, B, T, width)
        return torch.stack(
            [
                self.reductions[name](torch.cat(list(answers), dim=-1))  # from (B, T, answers x width)
                for name, answers in zip(names, found.split(self.answers), strict=True)
            ]
        )

    def _projected(self, modality: str, batch: Batch) -> Tensor:
        features = batch.features[modality].masked_fill(~batch.present[modality].unsqueeze(-1), 0)
        projected: Tensor = self.projections[modality](dropout(features, self.settings.input_dropout, self.training))
        return projected

    def _gated(self, found: Tensor) -> Tensor:
        if self.settings.gates == "none":
            return found
        scores = found if self.gates is None else self.gates(found.flatten(1, 2)).view(found.shape)
        return found * scores.sigmoid()

    def _fused(self, reduced: Tensor, present: Tensor) -> Tensor:
        """The modalities' sum, weighted for each dimension; zero for an utterance that has none."""
        scores = torch.zeros_like(reduced) if self.fusion_gate is None else self.fusion_gate(reduced)
        weights = masked_softmax(scores, present.unsqueeze(-1).expand_as(scores), dim=0)
        return (weights * reduced).sum(dim=0)  # (B, T, width)

    def _check_speakers(self, batch: Batch) -> None:
        embedding = self.places.speakers
        if embedding is None:
            return
        most = int(batch.speakers.max()) + 1
        if most > embedding.num_embeddings:
            raise DataError(
                f"a dialogue has {most} speakers, but this model was built for at most {embedding.num_embeddings}."
            )

    @classmethod
    def from_published(cls, state_dict: Mapping[str, Tensor], settings: Settings, spec: InputSpec | None = None) -> Sdt:
        """A model with the weights of the authors' network.

        Args:
            state_dict: As saved from that code, names and shapes untouched.
            settings: Must have the heads of the checkpoint, and all parts that the published network has; the
                widths and the number of layers are read from it. With `gates = "identity"` (MELD) the
                matrices of the gates must be the identity.
            spec: Classes, speakers, and the three modalities in any order; left out: those of the checkpoint,
                text, audio, visual, with classes called by their index.

        Returns:
            The model in evaluation mode, of the weights' type; `ignored_entries` names what was not used.

        Raises:
            DataError: If an entry is missing, unknown or of another shape or value than the settings allow.
        """
        entries = PublishedEntries(state_dict, "SDT")
        config = _published_config(entries, cast(SdtConfig, settings))
        if spec is None:
            spec = InputSpec(
                {name: entries.peek(f"{layer}.weight", 3).shape[1] for name, layer in PUBLISHED_INPUTS.items()},
                tuple(str(index) for index in range(entries.peek("all_output_layer.weight", 2).shape[0])),
                entries.peek("speaker_embeddings.weight", 2).shape[0] - 1,
            )
        if sorted(spec.modalities) != sorted(PUBLISHED_LETTERS):
            raise entries.refusal(f"is of text, audio and visual together, not of {', '.join(spec.modalities)}")
        model = cls(spec, config).to(entries.peek("all_output_layer.weight", 2).dtype)
        with torch.no_grad():
            model._load_published(entries)
        model.ignored_entries = entries.finish()
        return model.eval()

    def _load_published(self, entries: PublishedEntries) -> None:
        width = self.settings.hidden_dim
        for name, size in self.spec.widths.items():
            weight = entries.take(f"{PUBLISHED_INPUTS[name]}.weight", (width, size, 1))
            cast(nn.Linear, self.projections[name]).weight.copy_(weight.squeeze(-1))
        assert self.places.speakers is not None
        rows = entries.take("speaker_embeddings.weight", (self.spec.speakers + 1, width))
        self.places.speakers.weight.copy_(rows[:-1])  # the last row is of padding, which nothing reads
        for index, (asking, asked) in enumerate(self.pairs):
            pair = f"{PUBLISHED_LETTERS[asked]}_{PUBLISHED_LETTERS[asking]}"
            self._load_positions(entries, f"{pair}.pos_emb.pe", is_first=index == 0)
            for number, layer in enumerate(self.transformers.layers):
                _load_layer(entries, f"{pair}.transformer_inter.{number}", cast(PairLayer, layer), index)
            gate = entries.take(f"{pair}_gate.fc.weight", (width, width))
            if self.gates is not None:
                self.gates.weight[index] = gate.T
            elif not torch.equal(gate, torch.eye(width).to(gate)):
                raise entries.refusal(f"has a '{pair}_gate.fc.weight' that is not the identity; set gates = learned")
        for name, letter in PUBLISHED_LETTERS.items():
            columns = _published_columns(name, self.pairs, width)
            entries.load_linear(f"features_reduce_{letter}", cast(nn.Linear, self.reductions[name]), columns)
            entries.load_linear(f"{letter}_output_layer.2", cast(nn.Linear, self.students[name]))
        assert self.fusion_gate is not None
        entries.load_linear("last_gate.fc", self.fusion_gate)
        entries.load_linear("all_output_layer", self.classes)
        # The first layer's norm is never read, and a bias of the keys changes no softmax.
        entries.ignore("?_?.transformer_inter.0.layer_norm.*", "?_?.transformer_inter.*.self_attn.linear_k.bias")

    def _load_positions(self, entries: PublishedEntries, name: str, is_first: bool) -> None:
        """One table for all pairs, as the checkpoint has it: its rounding is not that of another precision."""
        turns = entries.peek(name, 3).shape[1]
        table = entries.take(name, (1, turns, self.settings.hidden_dim))[0]
        if is_first:
            self.places.table = table.clone()
        elif not torch.equal(cast(Tensor, self.places.table), table):
            raise entries.refusal(f"has another table of positions in '{name}' than in the first pair")


def modality_pairs(names: tuple[str, ...], transformers: str) -> list[tuple[str, str]]:
    """Which modality asks which, by the asking one in the order of names; itself first, then the others."""
    pairs = []
    for asking in names:
        if transformers != "inter" or len(names) == 1:
            pairs.append((asking, asking))
        if transformers != "intra":
            pairs += [(asking, asked) for asked in names if asked != asking]
    return pairs


def distillation_loss(teacher: Tensor, student: Tensor, present: Tensor, temperature: float) -> Tensor:
    """`KL(softmax(y / tau) || softmax(y_m / tau))`, a mean over the utterances that have the modality.

    The teacher is not detached: it is drawn to its students too. Both sides are logarithms, so that no
    probability that rounds to zero meets the logarithm of zero, and the other utterances have no gradient.

    Shapes:
        teacher, student: (B, T, classes), logits. present: (B, T), bool. returns: scalar.
    """
    target = (teacher[present] / temperature).log_softmax(dim=-1)  # (N, classes)
    answer = (student[present] / temperature).log_softmax(dim=-1)
    return (target.exp() * (target - answer)).sum() / max(len(target), 1)


def _published_config(entries: PublishedEntries, config: SdtConfig) -> SdtConfig:
    """The settings with the widths and the layers of a checkpoint."""
    needed = {"transformers": "both", "speakers": True, "positions": True}
    for name, value in needed.items():
        if getattr(config, name) != value:
            raise entries.refusal(f"needs {name} = {str(value).lower()}")
    if config.gates == "none":
        raise entries.refusal("needs gates = learned or gates = identity")
    inner, width = entries.peek("t_t.transformer_inter.0.feed_forward.w_1.weight", 2).shape
    if width % config.heads or inner % width:
        raise entries.refusal(
            f"has the width {width} and a feed-forward network of {inner}, which {config.heads} heads "
            "and whole multiples do not divide"
        )
    layers = 1
    while f"t_t.transformer_inter.{layers}.feed_forward.w_1.weight" in entries:
        layers += 1
    return config.model_copy(update={"hidden_dim": width, "feedforward": inner // width, "layers": layers})


def _load_layer(entries: PublishedEntries, name: str, layer: PairLayer, pair: int) -> None:
    linears = {
        "self_attn.linear_q": layer.attention.query,
        "self_attn.linear_k": layer.attention.key,
        "self_attn.linear_v": layer.attention.value,
        "self_attn.linear": layer.attention.result,
        "feed_forward.w_1": layer.inner,
        "feed_forward.w_2": layer.outer,
    }
    for entry, linear in linears.items():
        _, inputs, outputs = linear.weight.shape
        linear.weight[pair] = entries.take(f"{name}.{entry}.weight", (outputs, inputs)).T
        if linear.bias is not None:
            linear.bias[pair, 0] = entries.take(f"{name}.{entry}.bias", (outputs,))
    norms: dict[str, StackedNorm] = {"feed_forward.layer_norm": layer.norm}
    if layer.stream_norm is not None:
        norms["layer_norm"] = layer.stream_norm
    for entry, norm in norms.items():
        width = norm.weight.shape[-1]
        norm.weight[pair, 0] = entries.take(f"{name}.{entry}.weight", (width,))
        norm.bias[pair, 0] = entries.take(f"{name}.{entry}.bias", (width,))


def _published_columns(name: str, pairs: list[tuple[str, str]], width: int) -> Tensor:
    """For each input of our reduction the column of the published one: itself, then text, audio, visual."""
    published = [name, *(other for other in PUBLISHED_LETTERS if other != name)]
    blocks = [published.index(asked) for asking, asked in pairs if asking == name]
    return torch.cat([torch.arange(width) + block * width for block in blocks])
