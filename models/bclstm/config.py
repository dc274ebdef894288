"""Settings of bc-LSTM."""

from __future__ import annotations

from typing import Annotated, Literal

from mer_bench.config import Field, Settings, Tune

Width = Annotated[int, Field(ge=4, le=2048), Tune(low=50, high=300, step=50)]
Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.05)]


class BcLstmConfig(Settings):
    """Settings of bc-LSTM.

    Attributes:
        direction: `bidirectional` is the paper's bc-LSTM; `forward` its sc-LSTM, which reads a dialogue from
            its first turn on and never looks ahead.
        fusion: `hierarchical` gives each modality a contextual LSTM and puts a second one over their
            outputs side by side; `concatenated` has one LSTM over the features side by side; `attentive` is
            `hierarchical`, but the outputs are mixed by learned weights instead of standing side by side. A run
            of one modality has one contextual LSTM, whatever is chosen.
        dense_layer: Whether a dense layer follows each LSTM; without it the model is the paper's h-LSTM.
        lstm_width: Width of one direction of an LSTM.
        dense_width: Width of the dense layer.
        unimodal_weight: Share in the loss of a classifier on each modality's own LSTM (ours: the paper trains
            these LSTMs first, by themselves); 0: the last classifier alone trains everything.
        input_dropout: On the features (ours).
        lstm_dropout: Between an LSTM and its dense layer.
        dense_dropout: On what a level hands on, to the next level or the classes.
    """

    direction: Annotated[Literal["bidirectional", "forward"], Tune()] = "bidirectional"
    fusion: Annotated[Literal["hierarchical", "concatenated", "attentive"], Tune()] = "hierarchical"
    dense_layer: Annotated[bool, Tune()] = True
    lstm_width: Width = 100
    dense_width: Annotated[int, Field(ge=4, le=2048), Tune(low=50, high=300, step=50, when={"dense_layer": True})] = 100
    unimodal_weight: Annotated[float, Field(ge=0, le=10), Tune(low=0.0, high=1.0, step=0.1)] = 0.5
    input_dropout: Rate = 0.3
    lstm_dropout: Rate = 0.3
    dense_dropout: Rate = 0.3
