"""Settings of MM-DFN; imports no torch."""

from __future__ import annotations

from typing import Annotated

from mer_bench.config import Field, Settings, Tune

Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.05)]
Share = Annotated[float, Field(ge=0, le=10), Tune(low=0.0, high=3.0, step=0.5)]


class MmDfnConfig(Settings):
    """Settings of MM-DFN.

    Attributes:
        node_width: Width of a node before the graph; even, since a direction of a GRU has half.
        gru_layers: GRUs on top of each other, over the dialogue (text) and over a speaker's own turns.
        graph_width: Width of a node inside the graph.
        graph_layers: Layers of the graph-based dynamic fusion.
        theta: Strength of a layer's own weights (lambda of GCNII): layer l uses ln(theta / l + 1).
        alpha: Share of the nodes' first representation in every layer.
        dynamic: Whether an LSTM gates what goes from layer to layer, and each layer adds to what it was given.
            Without, the layers are plain graph convolutions.
        text_speaker, audio_speaker, visual_speaker: Share of the speaker's own context in the nodes of a modality
            (gamma_l, gamma_a, gamma_v of the published scripts).
        input_dropout: On the features (ours; published: none).
        dropout: Between the layers of a GRU, on the nodes before and after each graph layer, and before the classes.
    """

    node_width: Annotated[int, Field(ge=4, le=2048, multiple_of=2), Tune(low=100, high=400, step=50)] = 200
    gru_layers: Annotated[int, Field(ge=1, le=4), Tune(low=1, high=2, step=1)] = 2
    graph_width: Annotated[int, Field(ge=4, le=2048), Tune(low=50, high=300, step=50)] = 100
    graph_layers: Annotated[int, Field(ge=1, le=128), Tune(choices=(1, 2, 4, 8, 16, 32))] = 4
    theta: Annotated[float, Field(gt=0, le=4), Tune(low=0.1, high=1.0, step=0.1)] = 0.5
    alpha: Annotated[float, Field(ge=0, le=1), Tune(low=0.0, high=0.5, step=0.05)] = 0.2
    dynamic: Annotated[bool, Tune()] = True
    text_speaker: Share = 1.0
    audio_speaker: Share = 1.0
    visual_speaker: Share = 1.0
    input_dropout: Rate = 0.0
    dropout: Rate = 0.4

    def speaker_share(self, modality: str) -> float:
        """Share of the speaker's own context in the nodes of a modality."""
        return {"text": self.text_speaker, "audio": self.audio_speaker, "visual": self.visual_speaker}[modality]
