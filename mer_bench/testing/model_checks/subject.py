"""A model as the checks see it, and the list of all its checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from mer_bench.api import FittedModel, InputSpec, Model, ModelCard, Settings, TrainerSettings
from mer_bench.config import FILLED_IN, merge_settings, split_settings
from mer_bench.model_settings import Settled, settle
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
        """What holds for the model with these settings; of a wrapper, together with the model inside it."""
        return self._settled({}).card

    @property
    def is_fitted(self) -> bool:
        """True for a model that is fitted at one go."""
        return isinstance(self.loaded.model_class, type) and issubclass(self.loaded.model_class, FittedModel)

    def settings(self, values: Mapping[str, Any] | None = None) -> tuple[Settings, TrainerSettings]:
        """Settings of model and trainer: class defaults < the card's for every dataset < values."""
        settled = self._settled(values or {})
        return settled.settings, settled.training

    def _settled(self, values: Mapping[str, Any]) -> Settled:
        card = self.loaded.plugin.card
        return settle(card, self.loaded.settings_class, "default", merge_settings(self.values, values), "the check")

    def variants(self) -> dict[str, ModelSubject]:
        """The same model with each further table of settings that its card or its class gives, by name."""
        card = self.card
        tables = {f"settings.{name}": values for name, values in card.settings.items() if name != "default"}
        tables |= {f"published.{name}": values for name, values in card.published.items()}
        tables |= {f"ablations.{name}": ablation.settings for name, ablation in card.ablations.items()}
        kind = self.loaded.settings_class
        of_model = {name: split_settings(values, kind, name)[0] for name, values in tables.items()}
        if split_settings(card.settings.get("default", {}), kind, "card")[0]:
            of_model["defaults of the class"] = tables["defaults of the class"] = kind().model_dump(
                exclude=set(FILLED_IN)
            )
        return {
            name: replace(self, values={**tables[name], **self.values}) for name, values in of_model.items() if values
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
