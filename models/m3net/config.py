"""Settings of M3Net; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from mer_bench.config import Field, Settings, Tune

Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.05)]


class M3NetConfig(Settings):
    """Settings of M3Net.

    Attributes:
        hidden_dim: Width of a node before and inside both graphs; even, since a direction of the text's GRU has half.
        text_layers: Layers of the text's bidirectional GRU.
        speakers: Whose nodes a learned vector of the speaker is added to: those of the `text`, of `all` modalities
            or of `none`.
        branches: `both`, the `hypergraph` alone or the `frequency` graph alone.
        hypergraph_layers: Hypergraph convolutions (L of the published code).
        hyperedges: `both`; `contextual`, one for each modality of a dialogue; `multimodal`, one for each utterance.
        hyperedge_weights: How much a node counts in a hyperedge and a hyperedge at a node. `content`: the former is a
            softmax over the hyperedge's nodes of a learned score of what they hold; `kind`: a learned number for each
            modality in a multimodal hyperedge; in both the latter is a learned number for each kind of hyperedge.
            `none`: all count alike.
        hypergraph_map: Whether a hypergraph layer has a linear map (as in Bai et al. 2021; the published code has
            none).
        frequency_layers: Layers of the frequency graph (K of the published code).
        frequencies: `adaptive`: each edge learns whether it passes the low or the high ones; `low` or `high` alone.
        keep_nodes: Whether the classifier reads the nodes before the graphs too.
        input_dropout: On the features (ours; published: none).
        dropout: Between the layers of the text's GRU and before the classes.
    """

    hidden_dim: Annotated[int, Field(ge=4, le=1024, multiple_of=2), Tune(low=64, high=256, step=64)] = 128
    text_layers: Annotated[int, Field(ge=1, le=4), Tune(low=1, high=2, step=1)] = 2
    speakers: Annotated[Literal["text", "all", "none"], Tune()] = "text"
    branches: Annotated[Literal["both", "hypergraph", "frequency"], Tune()] = "both"
    hypergraph_layers: Annotated[int, Field(ge=1, le=16), Tune(low=1, high=6, step=1)] = 3
    hyperedges: Annotated[Literal["both", "contextual", "multimodal"], Tune()] = "both"
    hyperedge_weights: Annotated[Literal["content", "kind", "none"], Tune()] = "content"
    hypergraph_map: Annotated[bool, Tune()] = False
    frequency_layers: Annotated[int, Field(ge=1, le=16), Tune(low=1, high=6, step=1)] = 4
    frequencies: Annotated[Literal["adaptive", "low", "high"], Tune()] = "adaptive"
    keep_nodes: Annotated[bool, Tune()] = False
    input_dropout: Rate = 0.0
    dropout: Rate = 0.5
