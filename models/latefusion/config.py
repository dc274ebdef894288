"""Settings of late fusion."""

from __future__ import annotations

from typing import Annotated, Literal

from mer_bench.config import Field, Settings, Tune

Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.1)]


class LateFusionConfig(Settings):
    """Settings of late fusion.

    Attributes:
        hidden_width: Width of each hidden layer.
        layers: Hidden layers of each MLP; 0 is one linear map from features to classes.
        fusion: `logits`: a weighted mean of logits, which as a distribution is that of log-probabilities.
            `probabilities`: a weighted mean of probabilities.
        weights: `learned`: one number a modality, through a softmax over those that are there. `equal`: a mean.
        own_weight: Share of each MLP's own classification loss; plays no part with one modality.
        input_dropout: Dropped share of the features.
        dropout: Dropped share after each hidden layer.
    """

    hidden_width: Annotated[int, Field(ge=4, le=2048), Tune(low=64, high=512, step=64)] = 128
    layers: Annotated[int, Field(ge=0, le=8), Tune(low=0, high=3, step=1)] = 1
    fusion: Annotated[Literal["logits", "probabilities"], Tune()] = "logits"
    weights: Annotated[Literal["learned", "equal"], Tune()] = "learned"
    own_weight: Annotated[float, Field(ge=0, le=10), Tune(low=0.0, high=1.0, step=0.25)] = 0.0
    input_dropout: Rate = 0.3
    dropout: Rate = 0.5
