"""Settings of DialogueCRN; imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from mer_bench.config import Field, Settings, Tune

Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.05)]
Turns = Annotated[int, Field(ge=0, le=16), Tune(low=0, high=6, step=1)]


class DialogueCrnConfig(Settings):
    """Settings of DialogueCRN.

    Attributes:
        lstm_width: Width of one direction of an LSTM of the perception phase; a memory is twice as wide.
        layers: LSTMs on top of each other at each level.
        levels: `situation` is context from the whole dialogue, `speaker` from each speaker's own turns.
        situation_turns: Turns of retrieving and reasoning over the situation's memory; 0 leaves the linear map
            of an utterance's own context alone.
        speaker_turns: The same over the speakers' memory.
        input_dropout: On the features (ours; published: none).
        dropout: Between the layers of an LSTM and before the classes.
    """

    lstm_width: Annotated[int, Field(ge=4, le=1024), Tune(low=50, high=250, step=50)] = 100
    layers: Annotated[int, Field(ge=1, le=4), Tune(low=1, high=2, step=1)] = 1
    levels: Annotated[Literal["both", "situation", "speaker"], Tune()] = "both"
    situation_turns: Turns = 2
    speaker_turns: Turns = 2
    input_dropout: Rate = 0.0
    dropout: Rate = 0.2
