"""Settings of MMGCN."""

from __future__ import annotations

from typing import Annotated

from mer_bench.config import Field, Settings, Tune

Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.05)]


class MmgcnConfig(Settings):
    """Settings of MMGCN.

    Attributes:
        node_width: Width of a node before the graph; even, since a direction of the text's LSTM has half.
        text_width: Width of the text's projection before its LSTM.
        graph_width: Width of a node inside the graph.
        layers: Graph layers. The published code builds 64 whatever its own flag says, and its scripts say 4.
        theta: Strength of a layer's own weights (lambda of GCNII): layer l uses ln(theta / l + 1).
        alpha: Share of the nodes' first representation in every layer.
        speaker_rows: Whether a learned row for the speaker is added to the text's nodes.
        input_dropout: On the features (ours; published: none).
        dropout: Between the layers of the text's LSTM, on the nodes before and after each graph layer, and
            before the classes.
    """

    node_width: Annotated[int, Field(ge=4, le=2048, multiple_of=2), Tune(low=100, high=400, step=50)] = 200
    text_width: Annotated[int, Field(ge=4, le=2048), Tune(low=100, high=400, step=50)] = 200
    graph_width: Annotated[int, Field(ge=4, le=2048), Tune(low=50, high=300, step=50)] = 100
    layers: Annotated[int, Field(ge=1, le=256), Tune(choices=(1, 2, 4, 8, 16, 32, 64))] = 4
    theta: Annotated[float, Field(gt=0, le=4), Tune(low=0.1, high=1.0, step=0.1)] = 0.5
    alpha: Annotated[float, Field(ge=0, le=1), Tune(low=0.0, high=0.5, step=0.05)] = 0.1
    speaker_rows: Annotated[bool, Tune()] = True
    input_dropout: Rate = 0.0
    dropout: Rate = 0.4
