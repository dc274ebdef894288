"""Settings of MulT; imports no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import model_validator

from mer_bench.config import Field, Settings, Tune

Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.05)]
Kernel = Annotated[int, Field(ge=1, le=15), Tune(choices=(1, 3, 5))]


class MultConfig(Settings):
    """Settings of MulT.

    Attributes:
        hidden_dim: Width d of a stream; a multiple of heads. The self-attention of a modality has d for each
            other modality of the run.
        heads: Heads of each attention.
        crossmodal_layers: Layers of each crossmodal transformer; 0: the streams stand side by side as they are.
        self_layers: Layers of each modality's self-attention transformer; 0: without.
        feedforward: Inner width of the feed-forward networks in multiples of their width.
        text_kernel, audio_kernel, visual_kernel: Utterances that the temporal convolution sees; odd.
        look_ahead: Whether an utterance may see later ones; without, neither attention nor convolution does.
        positions: Whether the sinusoidal encoding of the turn is added.
        input_dropout: On the features (published: on text alone).
        dropout: On the streams' input, after attention and inside and after the feed-forward networks.
        attention_dropout: On the attention weights.
        output_dropout: Inside the residual block before the classes.
    """

    hidden_dim: Annotated[int, Field(ge=8, le=512), Tune(low=40, high=120, step=20)] = 60
    heads: Annotated[int, Field(ge=1, le=16), Tune(choices=(2, 4, 5, 10))] = 5
    crossmodal_layers: Annotated[int, Field(ge=0, le=6), Tune(low=1, high=4, step=1)] = 2
    self_layers: Annotated[int, Field(ge=0, le=6), Tune(low=0, high=3, step=1)] = 1
    feedforward: Annotated[int, Field(ge=1, le=8), Tune(choices=(1, 2, 4))] = 2
    text_kernel: Kernel = 1
    audio_kernel: Kernel = 3
    visual_kernel: Kernel = 3
    look_ahead: Annotated[bool, Tune()] = True
    positions: Annotated[bool, Tune()] = True
    input_dropout: Rate = 0.3
    dropout: Rate = 0.3
    attention_dropout: Rate = 0.0
    output_dropout: Rate = 0.3

    @model_validator(mode="after")
    def _parts_fit(self) -> MultConfig:
        if self.hidden_dim % self.heads:
            raise ValueError(
                f"hidden_dim must be a multiple of heads, but hidden_dim is {self.hidden_dim} and heads is {self.heads}"
            )
        for name in ("text_kernel", "audio_kernel", "visual_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(
                    f"{name} must be odd, so that an utterance is in its middle, but is {getattr(self, name)}"
                )
        return self
