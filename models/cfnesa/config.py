"""Settings of CFN-ESA; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from mer_bench.config import Field, Settings, Tune

Rate = Annotated[float, Field(ge=0, le=0.95), Tune(low=0.0, high=0.7, step=0.05)]


class CfnEsaConfig(Settings):
    """Settings of CFN-ESA.

    Attributes:
        hidden_dim: Width of every representation, and of each direction of a GRU; a multiple of heads.
        heads: Heads of each attention.
        recurrent_layers: Layers of the unimodal encoder (RUME); 0: the projected features go on as they are.
        shared_recurrence: Whether all modalities go through one and the same RUME, as published, or each
            through its own.
        cross_layers: Layers of the cross-modal encoder (ACME); 0: there is no attention.
        primary: The modality that looks at each other one, and that alone the others look at. A run without
            it takes its first modality.
        shift_weight: Share of the emotion-shift task (LESM) in the loss; 0: there is none.
        second_draw: Whether the second utterance of a pair is taken from a second pass through ACME, whose
            dropout is drawn anew, as published; in training only, since the two are equal without dropout.
        shift_width: Inner width of the emotion-shift task.
        input_dropout: On the features (ours; published: none).
        recurrent_dropout: In RUME, after the GRU and in the feed-forward network.
        cross_dropout: In ACME, after attention and in the feed-forward network, and on what is classified.
        shift_dropout: In the emotion-shift task.
    """

    hidden_dim: Annotated[int, Field(ge=8, le=1024), Tune(low=64, high=256, step=32)] = 96
    heads: Annotated[int, Field(ge=1, le=16), Tune(choices=(2, 4, 8))] = 4
    recurrent_layers: Annotated[int, Field(ge=0, le=6), Tune(low=0, high=3, step=1)] = 1
    shared_recurrence: Annotated[bool, Tune()] = True
    cross_layers: Annotated[int, Field(ge=0, le=8), Tune(low=0, high=4, step=1)] = 1
    primary: Annotated[Literal["text", "audio", "visual"], Tune()] = "text"
    shift_weight: Annotated[float, Field(ge=0, le=100), Tune(low=0.0, high=1.0, step=0.1)] = 1.0
    second_draw: Annotated[bool, Tune()] = True
    shift_width: Annotated[int, Field(ge=4, le=1024), Tune(choices=(32, 64, 128))] = 64
    input_dropout: Rate = 0.0
    recurrent_dropout: Rate = 0.15
    cross_dropout: Rate = 0.3
    shift_dropout: Rate = 0.05

    @model_validator(mode="after")
    def _heads_fit(self) -> CfnEsaConfig:
        if self.hidden_dim % self.heads:
            raise ValueError(
                f"hidden_dim must be a multiple of heads, but hidden_dim is {self.hidden_dim} and heads is {self.heads}"
            )
        return self
