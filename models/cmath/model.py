"""CMATH, from features to logits: reconstruct, augment, fuse, distil."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_bench.api import Auxiliary, Batch, InputSpec, LossTerm, Model, Output, Settings
from mer_bench.errors import DataError, SettingError
from mer_bench.nn.attention import key_set
from mer_bench.nn.dropout import Dropout
from mer_bench.nn.encoders import ContextGru, LearnedPositions, sinusoidal_positions
from mer_bench.nn.masking import masked_mean
from mer_bench.nn.recurrent import speaker_order, turn_order

from .config import CmathConfig
from .distillation import agreement, latent_loss, response_loss
from .fusion import Coarse, VariationalFusion, variational_loss
from .reconstruction import ModalityProjection, ModalityReconstruction, reconstruction_loss
from .transformer import NONE, CmaTransformer, StackSettings, SymmetricTransformer

LEARNED_TURNS = 128
"""Turns that have a learned position of their own; MELD's longest dialogue has 33, IEMOCAP's 110."""


class DialogueEncoding(nn.Module):
    """`z_m = h_m + SpeakerEmbedding(s) + PositionalEncoding(t)`, then the context encoder if there is one.

    Shapes:
        compressed[m]: (B, T, d), h_m. returns: z_m, (B, T, d), by modality.
    """

    def __init__(self, spec: InputSpec, settings: CmathConfig) -> None:
        super().__init__()
        width = settings.hidden_dim
        self.speakers = nn.Embedding(spec.speakers, width) if settings.speakers else None
        if self.speakers is not None:
            nn.init.normal_(self.speakers.weight, std=0.1)
        self.position_scale = settings.position_scale
        self.sinusoidal = settings.positions == "sinusoidal"
        self.learned = LearnedPositions(LEARNED_TURNS, width) if settings.positions == "learned" else None
        self.dropout = Dropout(settings.dropout)
        with_gru = settings.context == "gru"
        self.contexts = nn.ModuleDict(
            {name: ContextGru(width, settings.context_layers, settings.dropout) for name in spec.widths}
            if with_gru
            else {}
        )
        self.own_contexts = nn.ModuleDict(
            {name: ContextGru(width, settings.context_layers, settings.dropout) for name in spec.widths}
            if with_gru and settings.speaker_context
            else {}
        )
        # Stands where a modality is missing. Only a context encoder can see it: such an utterance is no
        # key, and has no expert and no student. Without one the vector would be without effect.
        self.absent = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(width) * 0.02) for name in spec.widths} if with_gru else {}
        )

    def forward(self, compressed: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        turns = batch.mask.shape[1]
        order = turn_order(batch.lengths, turns) if self.contexts else None
        own_order = speaker_order(batch.speakers, batch.lengths, turns) if self.own_contexts else None
        encoded = {}
        for name, state in compressed.items():
            there = batch.present[name].unsqueeze(-1)
            value = torch.where(there, state, self.absent[name]) if self.absent else state.masked_fill(~there, 0)
            if self.speakers is not None:
                value = value + self.speakers(batch.speakers)
            if self.learned is not None:
                value = value + self.learned(turns)
            elif self.sinusoidal:
                value = value + self.position_scale * sinusoidal_positions(turns, value.shape[-1]).to(value)
            value = self.dropout(value)  # (B, T, d)
            if self.contexts:
                around = self.contexts[name](value, order)  # (B, T, d)
                if self.own_contexts:
                    around = around + self.own_contexts[name](value, own_order)
                value = value + self.dropout(around)  # (B, T, d)
            encoded[name] = value
        return encoded


class Cmath(Model):
    """Cross-Modality Augmented Transformer with Hierarchical Variational Distillation.

    After Zhu, Cheng, Yang, Chen, Wang & Yao (2024), arXiv 2411.10060, of which no code is public;
    README.md says which parts the paper states and which are ours.

    Raises:
        SettingError: If `central` names a modality that the run has not.

    Shapes:
        returns: logits (B, T, classes) of the coarse-grained representation; the students' logits by
            modality; the terms `reconstruction`, `variational`, `distil_logit` and `distil_latent`;
            as diagnostics gates by pair, precisions by expert, agreement by student.
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        assert isinstance(settings, CmathConfig)
        self.settings = settings
        names = spec.modalities
        if settings.central != "all" and settings.central not in names:
            raise SettingError(
                f"central must be all or one of the run's modalities ({', '.join(names)}), but is {settings.central}."
            )
        self.central = names if settings.central == "all" else (settings.central,)
        width = settings.hidden_dim
        self.feature_dropout = Dropout(settings.feature_dropout)
        self.compressors = nn.ModuleDict(
            {
                name: ModalityReconstruction(size, width, settings.levels, settings.kernel, settings.skips)
                if settings.reconstruction
                else ModalityProjection(size, width)
                for name, size in spec.widths.items()
            }
        )
        self.encoding = DialogueEncoding(spec, settings)
        stack = StackSettings(
            width=width,
            heads=settings.heads,
            layers=settings.layers,
            feedforward=settings.feedforward,
            dropout=settings.dropout,
            attention_dropout=settings.attention_dropout,
            speaker_bias=settings.speaker_bias,
            reach=settings.reach if settings.positions == "relative" else 0,
        )
        transformer = CmaTransformer if settings.fusion == "asymmetric" else SymmetricTransformer
        self.transformer = transformer(stack, names, self.central)
        self.fusion = VariationalFusion(
            self.central,
            width,
            settings.latent_dim,
            dropout=settings.head_dropout,
            variational=settings.variational,
            noise=settings.latent_noise,
        )
        self.teacher = nn.Linear(width, spec.class_count)
        self.dropout = Dropout(settings.head_dropout)
        self.students = nn.ModuleDict({name: nn.Linear(width, spec.class_count) for name in self.central})

    def forward(self, batch: Batch) -> Output:
        self._check_speakers(batch)
        features = {
            name: batch.features[name].masked_fill(~batch.present[name].unsqueeze(-1), 0) for name in self.spec.widths
        }  # M x (B, T, d_m)
        compressed, rebuilt = {}, {}
        for name, compressor in self.compressors.items():
            compressed[name], rebuilt[name] = compressor(self.feature_dropout(features[name]), batch.present[name])
        encoded = self.encoding(compressed, batch)  # M x (B, T, d)
        keys = {name: key_set(batch.present[name], self.settings.window) for name in self.spec.widths}
        same_speaker = None
        if self.settings.speaker_bias:
            same_speaker = (batch.speakers.unsqueeze(1) == batch.speakers.unsqueeze(2)).unsqueeze(1)  # (B, 1, T, T)
        fine, gates = self.transformer(encoded, keys, same_speaker)  # K x (B, T, d)
        present = torch.stack([batch.present[name] for name in self.central])  # (K, B, T)
        coarse = self.fusion(fine, present)
        logits = self.teacher(coarse.representation)  # (B, T, classes)
        students = {
            name: student(self.dropout(fine[name])) for name, student in self.students.items()
        }  # K x (B, T, classes)
        losses = self._distillation_losses(batch, logits, students, coarse, present)
        if self.settings.reconstruction:
            value = reconstruction_loss(rebuilt, features, batch.present)
            losses["reconstruction"] = LossTerm(value, self.settings.reconstruction_weight)
        return Output(
            logits=logits,
            auxiliary={
                name: Auxiliary(student, self.settings.student_weight, batch.present[name])
                for name, student in students.items()
            },
            losses=losses,
            diagnostics=self._diagnostics(batch, logits, students, coarse, gates),
        )

    def _distillation_losses(
        self, batch: Batch, logits: Tensor, students: dict[str, Tensor], coarse: Coarse, present: Tensor
    ) -> dict[str, LossTerm]:
        settings = self.settings
        losses = {}
        if coarse.product is not None:
            value = variational_loss(coarse.product, batch.mask, settings.free_bits)
            losses["variational"] = LossTerm(value, settings.variational_weight, "warmup")
        if settings.distillation:
            parts = [
                response_loss(logits, student, batch.present[name], settings.temperature)
                for name, student in students.items()
            ]
            losses["distil_logit"] = LossTerm(
                torch.stack(parts).sum(), settings.logit_weight, settings.distillation_schedule
            )
        if settings.distillation and coarse.product is not None and coarse.experts is not None:
            value = latent_loss(coarse.product, coarse.experts, present)
            losses["distil_latent"] = LossTerm(value, settings.latent_weight, settings.distillation_schedule)
        return losses

    @torch.no_grad()
    def _diagnostics(
        self, batch: Batch, logits: Tensor, students: dict[str, Tensor], coarse: Coarse, gates: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        found = {}
        for central, gate in gates.items():
            options = [*(name for name in self.spec.widths if name != central), NONE]
            for name, share in zip(options, gate, strict=True):
                found[f"gate_{central}_{name}"] = masked_mean(share, batch.present[central])
        if coarse.experts is not None:
            for name, log_variance in zip(self.central, coarse.experts.log_variance, strict=True):
                precision = (-log_variance).exp().mean(dim=-1)  # (B, T)
                found[f"precision_{name}"] = masked_mean(precision, batch.present[name])
        for name, student in students.items():
            found[f"agreement_{name}"] = agreement(logits, student, batch.present[name])
        return found

    def _check_speakers(self, batch: Batch) -> None:
        embedding = self.encoding.speakers
        if embedding is None:
            return
        most = int(batch.speakers.max()) + 1
        if most > embedding.num_embeddings:
            raise DataError(
                f"a dialogue has {most} speakers, but this model was built for at most {embedding.num_embeddings}."
            )
