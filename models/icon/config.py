"""Settings of ICON; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from mer_bench.config import Field, Settings, Tune

Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.05)]


class IconConfig(Settings):
    """Settings of ICON; the defaults are those of the published code.

    Attributes:
        input_width: Width of a layer that brings the features to one scale: a linear map, a layer norm and a GELU
            (ours; 0: none, as published).
        width: Width of the query and of a memory cell.
        history: K, the utterances before the one that is labelled that it may read from.
        hops: Times that the query reads; before each further read a GRU goes over the memory again.
        influence: What makes the memory: `self`, the states of each speaker; `global`, a GRU over all turns
            whose input is a layer on the utterance; or that GRU over those states (`both`).
        roles: Whether an utterance is remembered otherwise by the one who said it than by the others, as
            published. Without, one memory serves everybody.
        scores: What the softmax of a read is taken of: `tanh` of query times cell, as in the published code, or
            the product itself (`plain`).
        input_dropout: On the features, and on what the layer of input_width makes of them (ours; published: none).
        dropout: On each speaker's states and on the weights of a read.
        output_dropout: On the last query, before the classes (ours; published: none).
    """

    input_width: Annotated[int, Field(ge=0, le=2048), Tune(low=0, high=256, step=64)] = 0
    width: Annotated[int, Field(ge=4, le=2048), Tune(low=50, high=300, step=50)] = 100
    history: Annotated[int, Field(ge=1, le=1000), Tune(low=5, high=60, step=5)] = 40
    hops: Annotated[int, Field(ge=1, le=10), Tune(low=1, high=5, step=1)] = 3
    influence: Annotated[Literal["both", "self", "global"], Tune()] = "both"
    roles: Annotated[bool, Tune()] = True
    scores: Annotated[Literal["tanh", "plain"], Tune()] = "tanh"
    input_dropout: Rate = 0.0
    dropout: Rate = 0.7
    output_dropout: Rate = 0.0
