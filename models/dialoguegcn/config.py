"""Settings of DialogueGCN; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from mer_bench.config import Field, Settings, Tune

Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.05)]
Window = Annotated[int, Field(ge=0, le=1000), Tune(choices=(2, 4, 6, 8, 10, 15))]


class DialogueGcnConfig(Settings):
    """Settings of DialogueGCN.

    Attributes:
        context: What reads the dialogue in sequence, in both directions: the paper's `gru`, the published
            code's `lstm`, or `none`, a linear map.
        context_width: Width of both directions together; even.
        layers: Recurrent layers on top of each other.
        past, future: How many turns before and after a turn it hears in the graph.
        speaker_relations: `roles`: the same speaker or another one; `pairs`: the paper's relation for each
            ordered pair of speakers; `none`. With `pairs` the names of speakers (their order of appearance) matter.
        directions: Whether what came before has other relations than what comes after.
        bases: The relations' matrices are mixtures of so many; 0: each has its own.
        edge_weights: Learned by `attention` within the window, or `uniform`.
        scaled_scores: Whether the scores of edges and of the nodal attention are divided by the root of their
            width (ours; as in a transformer).
        relation_means: Whether the edge weights are divided by the number of edges of their relation too
            (c_{i,r} of the paper; not in the published code).
        neighbours: Whether the second graph layer takes the `sum` of a turn's neighbours, as in the paper, or their
            `mean`.
        graph_width: Width of a turn in the graph and before the classes.
        nodal_attention: Whether each turn is replaced by a mixture of all turns of its dialogue before the classes.
        input_dropout: On the features (ours).
        dropout: On the context, and before the classes.
    """

    context: Annotated[Literal["gru", "lstm", "none"], Tune()] = "gru"
    context_width: Annotated[int, Field(ge=4, le=2048, multiple_of=2), Tune(low=100, high=400, step=50)] = 200
    layers: Annotated[int, Field(ge=1, le=4), Tune(low=1, high=2, step=1)] = 1
    past: Window = 10
    future: Window = 10
    speaker_relations: Annotated[Literal["roles", "pairs", "none"], Tune()] = "roles"
    directions: Annotated[bool, Tune()] = True
    bases: Annotated[int, Field(ge=0, le=200), Tune(choices=(0, 4, 8, 30), when={"speaker_relations": "pairs"})] = 0
    edge_weights: Annotated[Literal["attention", "uniform"], Tune()] = "attention"
    scaled_scores: Annotated[bool, Tune()] = False
    relation_means: Annotated[bool, Tune()] = False
    neighbours: Annotated[Literal["sum", "mean"], Tune()] = "sum"
    graph_width: Annotated[int, Field(ge=4, le=2048), Tune(low=50, high=200, step=50)] = 100
    nodal_attention: Annotated[bool, Tune()] = True
    input_dropout: Rate = 0.3
    dropout: Rate = 0.4
