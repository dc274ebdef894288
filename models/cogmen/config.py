"""Settings of COGMEN; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from mer_bench.config import Field, Settings, Tune

Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.05)]
Window = Annotated[int, Field(ge=0, le=1000), Tune(choices=(2, 4, 5, 8, 10, 15))]


class CogmenConfig(Settings):
    """Settings of COGMEN.

    Attributes:
        context: What reads the whole dialogue: the paper's `transformer`, or `none`, the features' projection alone.
        context_width: Width of the transformer; a multiple of context_heads.
        context_heads: Heads of its attention.
        context_layers: Its layers.
        feedforward: Inner width of its feed-forward network in multiples of context_width.
        positions: Whether the sinusoidal encoding of the turn is added (ours; not in the published code).
        past, future: How many turns before and after a turn it hears in the graph.
        speaker_relations: `roles`: the same speaker or another one; `pairs`: the published code's relation for
            each ordered pair of speakers; `none`. With `pairs` the names of speakers (their order of appearance)
            matter.
        directions: Whether what came before has other relations than what comes after.
        bases: The relations' matrices are mixtures of so many; 0: each has its own.
        graph_width: Width of a turn after the relational layer, and of each head of the graph transformer.
        graph_heads: Heads of the graph transformer, side by side in its result.
        graph_layers: `both`, or one of them alone: `relations` or `transformer`.
        context_to_classes: Whether the classes see the context beside the graph's result.
        input_dropout: On the features (ours).
        dropout: In the transformer, and before the classes.
    """

    context: Annotated[Literal["transformer", "none"], Tune()] = "transformer"
    context_width: Annotated[int, Field(ge=4, le=2048), Tune(choices=(64, 128, 256))] = 128
    context_heads: Annotated[int, Field(ge=1, le=16), Tune(choices=(2, 4, 8))] = 4
    context_layers: Annotated[int, Field(ge=1, le=6), Tune(low=1, high=3, step=1)] = 1
    feedforward: Annotated[int, Field(ge=1, le=8), Tune(choices=(1, 2, 4))] = 2
    positions: Annotated[bool, Tune()] = False
    past: Window = 5
    future: Window = 5
    speaker_relations: Annotated[Literal["roles", "pairs", "none"], Tune()] = "roles"
    directions: Annotated[bool, Tune()] = True
    bases: Annotated[int, Field(ge=0, le=200), Tune(choices=(0, 4, 8, 30), when={"speaker_relations": "pairs"})] = 0
    graph_width: Annotated[int, Field(ge=4, le=1024), Tune(low=50, high=200, step=50)] = 100
    graph_heads: Annotated[int, Field(ge=1, le=8), Tune(choices=(1, 2, 4))] = 1
    graph_layers: Annotated[Literal["both", "relations", "transformer"], Tune()] = "both"
    context_to_classes: Annotated[bool, Tune()] = True
    input_dropout: Rate = 0.3
    dropout: Rate = 0.3

    @model_validator(mode="after")
    def _heads_fit(self) -> CogmenConfig:
        if self.context_width % self.context_heads:
            raise ValueError(
                f"context_width must be a multiple of context_heads, but context_width is {self.context_width} "
                f"and context_heads is {self.context_heads}"
            )
        return self
