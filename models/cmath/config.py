"""Settings of CMATH; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from mer_bench.config import Field, Settings, Tune

Weight = Annotated[float, Field(ge=0, le=100)]


class CmathConfig(Settings):
    """Every setting of CMATH; symbols in brackets are those of README.md.

    Attributes:
        hidden_dim: Width of the model (d); even, and a multiple of heads.
        layers: Layers of each stack of the CMA-Transformer (L).
        heads: Heads of each attention.
        feedforward: Inner width of the feed-forward network in multiples of hidden_dim.
        dropout: Dropped share of activations.
        attention_dropout: Dropped share of attention weights.
        head_dropout: Dropped share before each classifier and around the layer that fuses.
        feature_dropout: Dropped share of input values; the reconstruction's target stays whole.
        context: `gru` puts a bidirectional GRU over the dialogue before the stacks, one a modality.
        context_layers: Layers of that GRU.
        speaker_context: Whether a second GRU reads each speaker's own turns alone; its states are added.
        positions: Position encoding; `relative` is a learned bias of each attention by distance, which
            starts high on the own turn.
        reach: Distance in turns up to which relative positions are told apart.
        position_scale: Factor on the sinusoidal encoding; the layer norm before it gives deviation 1.
        speakers: Whether a learned vector of the speaker is added to each utterance.
        window: Attention reaches this many turns to each side; 0 is the whole dialogue.
        speaker_bias: Whether each attention head learns a preference for the same speaker.
        reconstruction: Whether the Modality Reconstruction compresses each modality; without it one
            linear map takes its place.
        kernel: Turns that a convolution of the U-Net sees.
        levels: Steps from a modality's width to the bottleneck, and as many back.
        skips: Skip connections between the U-Net's paths; they need two levels or more.
        central: `all`: each modality takes its turn as the central one. A modality: only that one.
        fusion: `asymmetric`: one stack a central modality, gated auxiliaries. `symmetric`: one stack
            for all, the mean of the auxiliaries, no gate.
        variational: Whether the fine-grained representations are fused as Gaussian experts; without
            it z is the mean of linear maps.
        latent_dim: Width of the latent space (d_z).
        latent_noise: Factor on the deviation with which training draws z; 0 takes the mean.
        free_bits: KL of a latent dimension below which it is not pressed further (tau), in nats.
        distillation: Whether the coarse-grained representation teaches the fine-grained ones.
        distillation_schedule: Course of its weight: `ramp` rises over the first half of the steps.
        temperature: Softening of teacher and student (T).
        student_weight: Share of each student's own classification loss (lambda_uni).
        reconstruction_weight, variational_weight, logit_weight, latent_weight: Shares of the other
            terms (lambda_rec, lambda_var, lambda_logit, lambda_latent).
    """

    hidden_dim: Annotated[int, Field(ge=8, le=1024), Tune(low=64, high=256, step=64)] = 128
    layers: Annotated[int, Field(ge=1, le=12), Tune(low=1, high=3, step=1)] = 2
    heads: Annotated[int, Field(ge=1, le=16), Tune(choices=(2, 4, 8))] = 4
    feedforward: Annotated[int, Field(ge=1, le=8), Tune(choices=(1, 2, 4))] = 2
    dropout: Annotated[float, Field(ge=0, lt=1), Tune(low=0.1, high=0.6, step=0.1)] = 0.4
    attention_dropout: Annotated[float, Field(ge=0, lt=1), Tune(low=0.0, high=0.3, step=0.1)] = 0.0
    head_dropout: Annotated[float, Field(ge=0, lt=1), Tune(low=0.1, high=0.6, step=0.1)] = 0.4
    feature_dropout: Annotated[float, Field(ge=0, lt=1), Tune(low=0.0, high=0.5, step=0.1)] = 0.0
    context: Annotated[Literal["none", "gru"], Tune()] = "gru"
    context_layers: Annotated[int, Field(ge=1, le=4)] = 1
    speaker_context: Annotated[bool, Tune()] = False
    positions: Annotated[Literal["sinusoidal", "learned", "relative", "none"], Tune()] = "sinusoidal"
    position_scale: Annotated[float, Field(ge=0, le=10)] = 0.3
    reach: Annotated[int, Field(ge=1, le=1000)] = 5
    speakers: Annotated[bool, Tune()] = True
    window: Annotated[int, Field(ge=0, le=1000), Tune(choices=(0, 4, 8, 16))] = 0
    speaker_bias: bool = False
    reconstruction: bool = True
    kernel: Literal[1, 3] = 1
    levels: Annotated[int, Field(ge=1, le=6)] = 1
    skips: bool = False
    central: Literal["all", "text", "audio", "visual"] = "all"
    fusion: Literal["asymmetric", "symmetric"] = "asymmetric"
    variational: bool = True
    latent_dim: Annotated[int, Field(ge=1, le=1024), Tune(choices=(16, 32, 64))] = 32
    latent_noise: Annotated[float, Field(ge=0, le=10)] = 1.0
    free_bits: Annotated[float, Field(ge=0, le=10)] = 0.05
    distillation: bool = True
    distillation_schedule: Annotated[Literal["constant", "ramp"], Tune()] = "constant"
    temperature: Annotated[float, Field(gt=0, le=100), Tune(low=1.0, high=4.0, step=0.5)] = 2.0
    student_weight: Annotated[Weight, Tune(low=0.0, high=1.0, step=0.1)] = 0.5
    reconstruction_weight: Annotated[Weight, Tune(choices=(0.0, 0.01, 0.1, 1.0))] = 0.1
    variational_weight: Annotated[Weight, Tune(choices=(0.001, 0.01, 0.1))] = 0.01
    logit_weight: Annotated[Weight, Tune(low=0.0, high=1.0, step=0.1)] = 0.5
    latent_weight: Annotated[Weight, Tune(choices=(0.0, 0.001, 0.01, 0.1))] = 0.01

    @model_validator(mode="after")
    def _sizes_fit(self) -> CmathConfig:
        if self.hidden_dim % 2 or self.hidden_dim % self.heads:
            raise ValueError(
                f"hidden_dim must be even and a multiple of heads, but hidden_dim is {self.hidden_dim} "
                f"and heads is {self.heads}"
            )
        if self.skips and self.levels < 2:
            raise ValueError(f"skips must be false with fewer than two levels, but levels is {self.levels}")
        return self
