"""What a plugin subclasses: `Model` and `FittedModel` for models, `Dataset` (from `data.dataset`) for corpora.

A model sees a `Batch` and returns an `Output`: logits, auxiliary logits and named loss terms. It never
sees a file, a metric or a label that it is scored on; the trainer applies the criterion.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from mer_bench.cards import DatasetCard, FeatureSet, LabelSet, ModelCard, Protocol, Source, SplitName
from mer_bench.config import Field, Settings, TrainerSettings, Tune, WrapperSettings
from mer_bench.data.batches import NO_LABEL, Batch, Split
from mer_bench.data.dataset import Dataset
from mer_bench.data.preparation import PreparationRequest
from mer_bench.data.store import StoreContent
from mer_bench.errors import SettingError
from mer_bench.registry import load_model

__all__ = [
    "NO_LABEL",
    "Auxiliary",
    "Batch",
    "Dataset",
    "DatasetCard",
    "FeatureSet",
    "Field",
    "FittedModel",
    "InputSpec",
    "LabelSet",
    "LossTerm",
    "Model",
    "ModelCard",
    "Output",
    "PreparationRequest",
    "Protocol",
    "Settings",
    "Source",
    "Split",
    "SplitName",
    "StoreContent",
    "TrainerSettings",
    "Tune",
    "Wrapper",
    "WrapperSettings",
    "build_model",
]

Schedule = Literal["constant", "warmup", "ramp"]


@dataclass(frozen=True)
class InputSpec:
    """What a model is built for.

    Attributes:
        widths: Width of each modality's features, in the order in which a batch holds them.
        classes: Names of the classes in the order of their index.
        speakers: Most speakers that any dialogue of the corpus has, at least 1.
    """

    widths: Mapping[str, int]
    classes: tuple[str, ...]
    speakers: int

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities in the order in which a batch holds them."""
        return tuple(self.widths)

    @property
    def class_count(self) -> int:
        """How many classes there are."""
        return len(self.classes)


@dataclass(frozen=True)
class Auxiliary:
    """Further logits that the trainer's criterion is applied to, with their share in the loss.

    Shapes:
        logits: (B, T, classes). mask: (B, T), bool, where they count; None: on every real utterance.
    """

    logits: Tensor
    weight: float = 1.0
    mask: Tensor | None = None


@dataclass(frozen=True)
class LossTerm:
    """A term that the model computes itself: added to the loss as weight x schedule x value.

    Attributes:
        value: Scalar, a mean over real utterances (so that batches compare).
        schedule: Its course over training: `constant`; `warmup`, linear from 0 to 1 over the first
            tenth of all steps; `ramp`, linear over the first half.
    """

    value: Tensor
    weight: float = 1.0
    schedule: Schedule = "constant"


@dataclass(frozen=True)
class Output:
    """What a model returns for a batch.

    Shapes:
        logits: (B, T, classes), float; any finite values on padding.
        diagnostics: name -> scalar tensor, detached; averaged over an epoch for reports.
    """

    logits: Tensor
    auxiliary: dict[str, Auxiliary] = field(default_factory=dict)
    losses: dict[str, LossTerm] = field(default_factory=dict)
    diagnostics: dict[str, Tensor] = field(default_factory=dict)


class Model(nn.Module, ABC):
    """A network that labels every utterance of a dialogue.

    A child's constructor takes `(spec, settings)` and calls `super().__init__(spec, settings)`. Its
    settings hold the fields of the card's `config` class; training settings are the trainer's.
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Label a batch. Padding must never change the result of a real utterance."""


class FittedModel(Model):
    """A model that is fitted at one go instead of by epochs: a count, a linear classifier.

    What it learned is kept in registered buffers, so that it is saved like any other model.
    """

    @abstractmethod
    def fit(self, train: Iterable[Batch]) -> None:
        """Learn from the train split; the batches have labels, and come in a fixed order."""


class Wrapper(Model):
    """A model that takes any registered model inside it: a loss, a distillation, a missing-modality trick.

    A child's settings class is a child of `WrapperSettings`; its `forward` calls `self.inner(batch)`, an
    `Output` that it passes on or changes. The inner model sees what the wrapper gives it, and nothing else.

    Raises:
        SettingError: If the model inside is fitted at one go.
    """

    def __init__(self, spec: InputSpec, settings: WrapperSettings) -> None:
        super().__init__(spec, settings)
        self.inner = build_model(settings.inner, spec, settings.inner_settings)
        if isinstance(self.inner, FittedModel):
            raise SettingError(
                f"inner={settings.inner} is fitted at one go, without batches or losses; a wrapper takes a network."
            )


def build_model(name: str, spec: InputSpec, values: Mapping[str, Any] | None = None) -> Model:
    """Build a registered model from values of its settings; those left out are the defaults of its class.

    Raises:
        UnknownNameError, SettingError: For a wrong name or wrong settings.
    """
    loaded = load_model(name)
    model = loaded.model_class(spec, loaded.settings(values or {}))
    assert isinstance(model, Model)
    return model
