"""Settings of SDT; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from mer_bench.config import Field, Settings, Tune

Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.05)]
Weight = Annotated[float, Field(ge=0, le=100), Tune(low=0.0, high=2.0, step=0.25)]


class SdtConfig(Settings):
    """Settings of SDT.

    Attributes:
        hidden_dim: Width of every representation; a multiple of heads.
        layers: Layers of each transformer.
        heads: Heads of each attention.
        feedforward: Inner width of the feed-forward network in multiples of hidden_dim.
        transformers: `intra`: a modality looks at itself; `inter`: at each of the others; or `both`. Where a run
            has one modality alone there is nothing else to look at, and `inter` is `intra`.
        speakers: Whether a learned vector of the speaker is added to each utterance.
        positions: Whether the sinusoidal encoding of the turn is added.
        gates: Before the modalities' representations are put together: `learned`; `identity`, whose matrix stays
            the identity, as in the published code for MELD; `none`, which also makes the fusion a plain mean.
        student_weight: Share of each modality's own classification loss (gamma_2 of the published code).
        distillation_weight: Share of the divergence of each modality from the fusion (gamma_3).
        temperature: Softening of both in that divergence.
        input_dropout: On the features (ours; published: none).
        dropout: On the transformers' input, after attention and inside the feed-forward network, and before the
            modalities' classes.
        attention_dropout: On the attention weights.
    """

    hidden_dim: Annotated[int, Field(ge=8, le=1024), Tune(low=64, high=256, step=64)] = 128
    layers: Annotated[int, Field(ge=1, le=6), Tune(low=1, high=3, step=1)] = 1
    heads: Annotated[int, Field(ge=1, le=16), Tune(choices=(2, 4, 8))] = 8
    feedforward: Annotated[int, Field(ge=1, le=8), Tune(choices=(1, 2, 4))] = 1
    transformers: Annotated[Literal["both", "intra", "inter"], Tune()] = "both"
    speakers: Annotated[bool, Tune()] = True
    positions: Annotated[bool, Tune()] = True
    gates: Annotated[Literal["learned", "identity", "none"], Tune()] = "learned"
    student_weight: Weight = 1.0
    distillation_weight: Weight = 1.0
    temperature: Annotated[float, Field(gt=0, le=100), Tune(low=1.0, high=8.0, step=1.0)] = 1.0
    input_dropout: Rate = 0.0
    dropout: Rate = 0.5
    attention_dropout: Rate = 0.0

    @model_validator(mode="after")
    def _heads_fit(self) -> SdtConfig:
        if self.hidden_dim % self.heads:
            raise ValueError(
                f"hidden_dim must be a multiple of heads, but hidden_dim is {self.hidden_dim} and heads is {self.heads}"
            )
        return self
