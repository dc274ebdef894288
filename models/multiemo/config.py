"""Settings of MultiEMO; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from mer_bench.config import Field, Settings, Tune

Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.05)]
Weight = Annotated[float, Field(ge=0, le=100), Tune(low=0.0, high=2.0, step=0.25)]


class MultiEmoConfig(Settings):
    """Settings of MultiEMO.

    Attributes:
        hidden_dim: Width of every representation; a multiple of heads.
        context: What reads a modality's utterances before the fusion: a `dialoguernn` of its own, or `none`.
        text_context: Whether the text has one too; the published code has none for MELD.
        bidirectional: Whether it reads the dialogue from its end too; not so for MELD in the published code.
        fusion: `cross`: MultiAttn, each modality looks at each other one in turn; `none`: the modalities' own
            representations stand side by side. A run of one modality has nothing to look at.
        layers: Layers of MultiAttn.
        heads: Heads of each of its attentions.
        feedforward: Inner width of its feed-forward networks in multiples of hidden_dim.
        classifier: Inner width of the last network in multiples of hidden_dim.
        contrastive_weight: Share of the sample-weighted focal contrastive loss, that of cross-entropy being 1.
        temperature: Divides the similarities in it; the lower, the more the most similar others count.
        focus: Its focusing exponent; 0: easy pairs count like hard ones.
        rarity: Exponent on the inverse frequency of an utterance's class in it; 0: all classes count alike.
        correlation_weight: Share of the Soft-HGR loss.
        input_dropout: On the features (ours).
        recurrent_dropout: On the states inside the context.
        dropout: After the context, in MultiAttn and in the last network.
    """

    hidden_dim: Annotated[int, Field(ge=8, le=512), Tune(low=64, high=256, step=32)] = 64
    context: Annotated[Literal["dialoguernn", "none"], Tune()] = "dialoguernn"
    text_context: Annotated[bool, Tune(when={"context": "dialoguernn"})] = True
    bidirectional: Annotated[bool, Tune(when={"context": "dialoguernn"})] = True
    fusion: Annotated[Literal["cross", "none"], Tune()] = "cross"
    layers: Annotated[int, Field(ge=1, le=8), Tune(low=1, high=6, step=1, when={"fusion": "cross"})] = 1
    heads: Annotated[int, Field(ge=1, le=16), Tune(choices=(2, 4, 8), when={"fusion": "cross"})] = 4
    feedforward: Annotated[int, Field(ge=1, le=8), Tune(choices=(1, 2, 4), when={"fusion": "cross"})] = 2
    classifier: Annotated[int, Field(ge=1, le=8), Tune(choices=(1, 2))] = 1
    contrastive_weight: Weight = 0.75
    temperature: Annotated[float, Field(ge=0.02, le=10), Tune(low=0.2, high=2.0, step=0.2)] = 0.8
    focus: Annotated[float, Field(ge=0, le=10), Tune(low=0.0, high=4.0, step=0.5)] = 2.0
    rarity: Annotated[float, Field(ge=0, le=5), Tune(low=0.0, high=2.0, step=0.2)] = 0.8
    correlation_weight: Weight = 0.75
    input_dropout: Rate = 0.3
    recurrent_dropout: Rate = 0.1
    dropout: Rate = 0.3

    @model_validator(mode="after")
    def _heads_fit(self) -> MultiEmoConfig:
        if self.hidden_dim % self.heads:
            raise ValueError(
                f"hidden_dim must be a multiple of heads, but hidden_dim is {self.hidden_dim} and heads is {self.heads}"
            )
        return self
