"""Settings of your model; no torch here, so that listing them stays quick."""

from __future__ import annotations

from typing import Annotated

from mer_bench.config import Field, Settings, Tune


class YourModelSettings(Settings):
    """Settings of your model: each has a legal range (Field), a search range (Tune) and a default.

    Attributes:
        width: Width of every hidden vector; even, since a recurrence of each direction gives half of it.
        layers: Recurrences on top of each other.
        dropout: Share of the values that are dropped in training.
        context: Whether an utterance sees the rest of its dialogue.
    """

    width: Annotated[int, Field(ge=8, le=1024, multiple_of=2), Tune(low=64, high=256, step=64)] = 128
    layers: Annotated[int, Field(ge=1, le=4), Tune(low=1, high=2, step=1)] = 1
    dropout: Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.6, step=0.1)] = 0.4
    context: bool = True
