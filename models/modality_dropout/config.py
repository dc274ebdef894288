"""Settings of the wrapper; those of the model inside are `inner.NAME`."""

from __future__ import annotations

from typing import Annotated, Literal

from mer_bench.config import Field, Tune, WrapperSettings


class ModalityDropoutConfig(WrapperSettings):
    """Settings of modality dropout.

    Attributes:
        inner: The model that is trained; any registered network.
        rate: Chance with which a modality that is there is dropped; an utterance keeps one at least.
        unit: What loses a modality at a time: an `utterance`, or a whole `dialogue`.
        distillation: Weight of the divergence between what the model says of the dropped and of the complete
            dialogues; 0 trains on the dropped ones alone, in one pass.
        temperature: Softens both sides of that divergence.
    """

    inner: str = "latefusion"
    rate: Annotated[float, Field(ge=0, le=1), Tune(low=0.0, high=0.7, step=0.1)] = 0.3
    unit: Annotated[Literal["utterance", "dialogue"], Tune()] = "utterance"
    distillation: Annotated[float, Field(ge=0, le=10), Tune(low=0.0, high=1.0, step=0.25)] = 0.0
    temperature: Annotated[float, Field(ge=0.1, le=20), Tune(choices=(1.0, 2.0, 4.0))] = 1.0
