"""Settings of the text-only transformer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from mer_bench.config import Field, Settings, Tune

Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.1)]


class TextOnlyConfig(Settings):
    """Settings of the text-only transformer.

    Attributes:
        width: Width of the model; a multiple of heads.
        layers: Layers of the encoder.
        heads: Heads of each attention.
        feedforward: Inner width of the feed-forward network in multiples of width.
        positions: `sinusoidal` and `learned` are added to the utterances; `relative` is a learned bias of each
            attention by distance, which starts high on the own turn.
        position_scale: Factor on the sinusoidal encoding; the layer norm before it gives deviation 1.
        reach: Distance in turns up to which relative positions are told apart.
        speakers: Whether a learned vector of the speaker, numbered by first appearance, is added.
        input_dropout: Dropped share of the features.
        dropout: Dropped share of activations.
        attention_dropout: Dropped share of attention weights.
    """

    width: Annotated[int, Field(ge=4, le=1024), Tune(low=64, high=256, step=64)] = 128
    layers: Annotated[int, Field(ge=1, le=12), Tune(low=1, high=4, step=1)] = 2
    heads: Annotated[int, Field(ge=1, le=16), Tune(choices=(2, 4, 8))] = 4
    feedforward: Annotated[int, Field(ge=1, le=8), Tune(choices=(1, 2, 4))] = 2
    positions: Annotated[Literal["sinusoidal", "learned", "relative", "none"], Tune()] = "sinusoidal"
    position_scale: Annotated[float, Field(ge=0, le=10)] = 0.3
    reach: Annotated[int, Field(ge=1, le=1000)] = 5
    speakers: Annotated[bool, Tune()] = False
    input_dropout: Rate = 0.3
    dropout: Rate = 0.3
    attention_dropout: Rate = 0.0

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TextOnlyConfig:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, but width is {self.width} and heads is {self.heads}")
        return self
