"""Settings of GraphSmile; imports no torch."""

from __future__ import annotations

from typing import Annotated

from mer_bench.config import Field, Settings, Tune

Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.05)]
Weight = Annotated[float, Field(ge=0, le=100), Tune(low=0.0, high=1.0, step=0.1)]
Window = Annotated[int, Field(ge=-1, le=512), Tune(choices=(1, 2, 3, 5, 8, 10, 17, -1))]


class GraphSmileConfig(Settings):
    """Settings of GraphSmile.

    Attributes:
        hidden_dim: Width of a node.
        layers: Layers of each graph. The first brings what the other modality says, the second what comes back from
            it, and so on.
        past_window, future_window: Turns before and after an utterance that its edges reach; -1 is all.
        edge_weights: Whether an edge has a learned weight, one for each distance in turns and each direction between
            two modalities; without it all edges count alike.
        sentiment_weight: Share of the sentiment's loss; 0 leaves the task out.
        shift_weight: Share of the loss of the sentiment's change between two utterances; 0 leaves the task out.
        shift_window: Turns of a stretch in which all utterances are compared with each other; -1 is the whole dialogue.
        input_dropout: On the features (ours; published: none).
        dropout: On the nodes and on what each layer hands on.
    """

    hidden_dim: Annotated[int, Field(ge=4, le=1024), Tune(low=64, high=256, step=64)] = 128
    layers: Annotated[int, Field(ge=1, le=16), Tune(low=1, high=8, step=1)] = 4
    past_window: Window = 5
    future_window: Window = 5
    edge_weights: Annotated[bool, Tune()] = True
    sentiment_weight: Weight = 0.5
    shift_weight: Weight = 0.2
    shift_window: Window = 5
    input_dropout: Rate = 0.0
    dropout: Rate = 0.2
