"""Settings of DialogueRNN."""

from __future__ import annotations

from typing import Annotated, Literal

from mer_bench.config import Field, Settings, Tune

Width = Annotated[int, Field(ge=4, le=2048), Tune(low=50, high=300, step=50)]
Rate = Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.7, step=0.05)]


class DialogueRnnConfig(Settings):
    """Settings of DialogueRNN; the defaults are those of the published code for MELD.

    Attributes:
        input_width: Width of a layer that brings the features to one scale before the recurrences: a
            linear map, a layer norm and a GELU (ours; 0: none, as published, where the features came
            from a network trained on the labels).
        global_width: Width of the global state (D_g).
        party_width: Width of a party's state (D_p).
        emotion_width: Width of the emotion representation of one direction (D_e).
        hidden_width: Width of the layer before the classes, for each direction (D_h).
        attention_width: Width inside the `concat` attention (D_a).
        context_attention: How an utterance attends to the earlier global states: `simple` (their own
            score), `general` (bilinear), `general2` (bilinear with bias), `concat` (additive).
        listener_state: Whether silent parties hear the utterance and change too.
        second_attention: Whether an utterance attends to the emotion representations of the whole
            dialogue before it is classified.
        bidirectional: Whether a second recurrence reads the dialogue from its end.
        input_dropout: On the utterance features, and on what the layer of input_width makes of them (ours;
            published: none).
        recurrent_dropout: On every new global, party and emotion state, which is carried on as dropped.
        emotion_dropout: On the emotion representations of both directions.
        hidden_dropout: On the layer before the classes.
    """

    input_width: Annotated[int, Field(ge=0, le=2048), Tune(low=0, high=256, step=64)] = 0
    global_width: Width = 150
    party_width: Width = 150
    emotion_width: Width = 100
    hidden_width: Width = 100
    attention_width: Annotated[
        int, Field(ge=4, le=2048), Tune(low=50, high=300, step=50, when={"context_attention": "concat"})
    ] = 100
    context_attention: Annotated[Literal["simple", "general", "general2", "concat"], Tune()] = "general"
    listener_state: Annotated[bool, Tune()] = False
    second_attention: Annotated[bool, Tune()] = True
    bidirectional: bool = True
    input_dropout: Rate = 0.0
    recurrent_dropout: Rate = 0.1
    emotion_dropout: Rate = 0.25
    hidden_dropout: Rate = 0.1
