"""A model as the checks see it, and the list of all its checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from mer_bench.api import FittedModel, InputSpec, Model, ModelCard, Settings, TrainerSettings
from mer_bench.config import merge_settings, split_settings, validated
from mer_bench.registry import LoadedModel
from mer_bench.seeding import seed_everything
from mer_bench.testing.checks import Check, Failed, register
from mer_bench.testing.model_checks.outputs import batches_of
from mer_bench.testing.samples import sample_spec, sample_split

MODEL_CHECKS: dict[str, Check[ModelSubject]] = {}


@dataclass(frozen=True)
class ModelSubject:
    """A model as the checks see it.

    Attributes:
        values: Settings that replace the defaults of class and card: those of an ablation, of a dataset.
    """

    loaded: LoadedModel
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def card(self) -> ModelCard:
        return self.loaded.plugin.card

    @property
    def is_fitted(self) -> bool:
        """True for a model that is fitted at one go."""
        return isinstance(self.loaded.model_class, type) and issubclass(self.loaded.model_class, FittedModel)

    def settings(self, values: Mapping[str, Any] | None = None) -> tuple[Settings, TrainerSettings]:
        """Settings of model and trainer: class defaults < the card's for every dataset < values."""
        merged = merge_settings(self.card.settings.get("default", {}), self.values, values or {})
        ours, trainers = split_settings(merged, self.loaded.settings_class, "card")
        return self.loaded.settings(ours), validated(TrainerSettings, trainers)

    def variants(self) -> dict[str, ModelSubject]:
        """The same model with each further table of settings that its card or its class gives, by name."""
        card = self.card
        tables = {f"settings.{name}": values for name, values in card.settings.items() if name != "default"}
        tables |= {f"published.{name}": values for name, values in card.published.items()}
        tables |= {f"ablations.{name}": ablation.settings for name, ablation in card.ablations.items()}
        ours = self.loaded.settings_class.model_fields
        if any(setting in ours for setting in card.settings.get("default", {})):
            tables["defaults of the class"] = self.loaded.settings_class().model_dump()
        return {
            name: replace(self, values=values)
            for name, values in tables.items()
            if any(setting in ours for setting in values)
        }

    def spec(self, classes: int = 5, speakers: int = 3) -> InputSpec:
        """Every modality that the card lists, narrow."""
        return sample_spec(self.card.modalities, classes, speakers)

    def build(self, spec: InputSpec, seed: int = 0, values: Mapping[str, Any] | None = None) -> Model:
        """A fresh model whose weights the seed decides."""
        seed_everything(seed)
        model = self.loaded.model_class(spec, self.settings(values)[0])
        if not isinstance(model, Model):
            raise Failed(f"{self.card.entry} should be a child of mer_bench.api.Model.")
        return model

    def ready(self, spec: InputSpec, seed: int = 0, dtype: torch.dtype = torch.float64) -> Model:
        """A model in eval mode that is fitted, or whose weights moved a little away from their start."""
        model = self.build(spec, seed).to(dtype)
        if isinstance(model, FittedModel):
            model.fit(batches_of(sample_split(spec, seed + 1, dtype=dtype), 4))
        else:
            generator = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for parameter in model.parameters():
                    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.add_(0.05 * noise.to(parameter.dtype))
        return model.eval()


def model_check(
    name: str, excusable: bool = True
) -> Callable[[Callable[[ModelSubject], None]], Callable[[ModelSubject], None]]:
    """Put a function among the checks of models."""
    return register(MODEL_CHECKS, name, excusable)
