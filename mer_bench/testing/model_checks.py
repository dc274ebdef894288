"""The checks of a model. Each builds what it needs from a seed and looks at one promise of `api.Model`.

Invariances are looked at in float64 and away from the initial weights: rounding can then be told
apart from a leak, and a path that starts at zero counts too.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.nn.functional import cross_entropy

from mer_bench.api import (
    NO_LABEL,
    Batch,
    FittedModel,
    InputSpec,
    Model,
    ModelCard,
    Output,
    Settings,
    Split,
    TrainerSettings,
)
from mer_bench.config import merge_settings, names_in_both, split_settings, validated
from mer_bench.errors import RunError, SettingError
from mer_bench.registry import LoadedModel
from mer_bench.seeding import deterministic_algorithms, seed_everything
from mer_bench.testing.checks import Check, Failed, NotApplicable, register
from mer_bench.testing.folders import check_folder
from mer_bench.testing.grids import grid_faults, trials
from mer_bench.testing.samples import (
    garbage_where_missing,
    learnable_split,
    padded_further,
    sample_spec,
    sample_split,
    whole,
    without,
)

TOLERANCE = 1e-8
"""Largest relative difference in float64 that still counts as rounding."""

LEARNING_EPOCHS = 400
SCHEDULES = ("constant", "warmup", "ramp")

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
            model.fit(_batches(sample_split(spec, seed + 1, dtype=dtype), 4))
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


# What a check computes and compares -------------------------------------------------------------


def training_loss(output: Output, batch: Batch) -> Tensor:
    """Cross-entropy on all logits plus the model's own terms, as at the end of training."""
    assert batch.labels is not None
    counted = batch.labels != NO_LABEL
    total = _criterion(output.logits, batch.labels, counted)
    for auxiliary in output.auxiliary.values():
        where = counted if auxiliary.mask is None else counted & auxiliary.mask
        total = total + auxiliary.weight * _criterion(auxiliary.logits, batch.labels, where)
    for term in output.losses.values():
        total = total + term.weight * term.value
    return total


def _criterion(logits: Tensor, labels: Tensor, where: Tensor) -> Tensor:
    # A sum over none is a zero that still has a gradient; a mean would be NaN.
    return cross_entropy(logits[where], labels[where], reduction="sum") / where.sum().clamp(min=1)


def _predict(model: Model, batch: Batch) -> Output:
    with torch.no_grad():
        output = model.eval()(batch)
    _expect_output(output, batch, model.spec)
    assert isinstance(output, Output)
    return output


def _expect_output(output: Any, batch: Batch, spec: InputSpec) -> None:
    """The output has the right types and shapes, and finite numbers everywhere, padding included."""
    if not isinstance(output, Output):
        raise Failed(f"forward should return an api.Output, but returned {type(output).__name__}.")
    shape = (*batch.mask.shape, spec.class_count)
    tensors = {"logits": output.logits, **{f"auxiliary {key}": item.logits for key, item in output.auxiliary.items()}}
    for name, value in tensors.items():
        if tuple(value.shape) != shape:
            raise Failed(f"{name} should be (dialogues, turns, classes) = {shape}, but is {tuple(value.shape)}.")
        if not value.is_floating_point():
            raise Failed(f"{name} should be a float tensor, but is {value.dtype}.")
        if not bool(value.isfinite().all()):
            where = "on real utterances" if not bool(value[batch.mask].isfinite().all()) else "on padding"
            raise Failed(f"{name} holds NaN or infinite values {where}.")
    for name, item in output.auxiliary.items():
        if item.mask is not None and (item.mask.shape != batch.mask.shape or item.mask.dtype != torch.bool):
            raise Failed(f"the mask of auxiliary {name} should be (dialogues, turns), bool.")
    for name, term in output.losses.items():
        if term.value.ndim != 0 or not bool(term.value.isfinite()):
            raise Failed(f"the loss term {name} should be one finite number, but is {term.value}.")
        if term.schedule not in SCHEDULES:
            raise Failed(f"the schedule of the loss term {name} should be one of {', '.join(SCHEDULES)}.")
    for name, value in output.diagnostics.items():
        if value.ndim != 0 or value.requires_grad:
            raise Failed(f"the diagnostic {name} should be a detached scalar; call .detach() on it.")


def _difference(expected: Tensor, got: Tensor) -> float:
    """Largest difference, relative to the largest value expected (or 1)."""
    if expected.shape != got.shape:
        return float("inf")
    if expected.numel() == 0:
        return 0.0
    return float((expected - got).abs().max() / expected.abs().max().clamp(min=1))


def _expect_equal(expected: Tensor, got: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    difference = _difference(expected, got)
    if not difference <= tolerance:
        raise Failed(f"{what}: the largest relative difference is {difference:.1e}.")


def _real(output: Output, batch: Batch, name: str | None = None) -> Tensor:
    """Logits of the real utterances in the batch's order; those of an auxiliary are 0 off its mask."""
    if name is None:
        return output.logits[batch.mask]
    auxiliary = output.auxiliary[name]
    values = auxiliary.logits[batch.mask]
    return values if auxiliary.mask is None else values * auxiliary.mask[batch.mask].unsqueeze(-1)


def _batches(split: Split, size: int) -> list[Batch]:
    return [split.batch(chosen) for chosen in torch.arange(split.dialogue_count).split(size)]


def _subsets(card: ModelCard) -> Iterator[tuple[str, ...]]:
    """Every non-empty subset of the modalities that holds those which the model needs."""
    for size in range(1, len(card.modalities) + 1):
        for chosen in combinations(card.modalities, size):
            if set(card.needs) <= set(chosen):
                yield chosen


def _expect_trainable(model: Model, batch: Batch, situation: str) -> None:
    """Forward and backward in training mode give finite numbers; a fitted model is only asked to predict."""
    if isinstance(model, FittedModel):
        _predict(model, batch)
        return
    model.train()
    model.zero_grad()
    output = model(batch)
    _expect_output(output, batch, model.spec)
    loss = training_loss(output, batch)
    if not bool(loss.isfinite()):
        raise Failed(f"{situation}: the training loss is {float(loss.detach())}.")
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            raise Failed(f"{situation}: the gradient of {name} holds NaN or infinite values.")


def _train(model: Model, split: Split, training: TrainerSettings, epochs: int, seed: int) -> list[float]:
    """Plain training with the settings that bear on a small set; returns the loss of each step."""
    if isinstance(model, FittedModel):
        model.fit(_batches(split, training.batch_size))
        return []
    kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    model.train()
    for _ in range(epochs):
        for batch in split.shuffled(training.batch_size, generator):
            optimizer.zero_grad()
            loss = training_loss(model(batch), batch)
            loss.backward()
            if training.clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


# The card and the settings ----------------------------------------------------------------------


@model_check("card", excusable=False)
def check_card(subject: ModelSubject) -> None:
    """The card is complete: words, citations, and settings that the code accepts."""
    card = subject.card
    for name in ("title", "summary"):
        if not getattr(card, name).strip():
            raise Failed(f"the card's {name} is empty.")
    if not (card.stated or card.ours):
        raise Failed("the card lists neither what follows the paper (stated) nor what was chosen here (ours).")
    if card.reported and card.paper is None:
        raise Failed("the card reports figures, but names no paper.")
    for dataset, reported in card.reported.items():
        if reported.weighted_f1 is None and reported.accuracy is None:
            raise Failed(f"reported.{dataset} holds no figure; leave it out.")
    check_excused(card.excused, MODEL_CHECKS)
    tables: dict[str, Mapping[str, Any]] = {f"settings.{key}": values for key, values in card.settings.items()}
    tables |= {f"published.{key}": values for key, values in card.published.items()}
    tables |= {f"ablations.{key}": ablation.settings for key, ablation in card.ablations.items()}
    for name, values in tables.items():
        if not values:
            raise Failed(f"{name} of the card is empty; leave it out.")
        dataset = name.partition(".")[2] if name.startswith("settings.") else "default"
        ours, trainers = split_settings(
            merge_settings(card.settings_for(dataset), values), subject.loaded.settings_class, f"{name} of the card"
        )
        validated(subject.loaded.settings_class, ours, f"{name} of the card")
        validated(TrainerSettings, trainers, f"{name} of the card")


def check_excused(excused: Mapping[str, str], checks: Mapping[str, Check[Any]]) -> None:
    """Every excused check exists, may be excused, and has its reason."""
    for name, reason in excused.items():
        if name not in checks:
            raise Failed(f"the card excuses '{name}', which is no check; the checks are {', '.join(checks)}.")
        if not checks[name].excusable:
            raise Failed(f"the card excuses '{name}', which nothing is excused from.")
        if not reason.strip():
            raise Failed(f"the card excuses '{name}' without a reason.")


@model_check("folder")
def check_model_folder(subject: ModelSubject) -> None:
    """Reading the card and the settings runs no heavy code: no torch, no scikit-learn."""
    check_folder(subject.loaded.plugin.package, subject.card.config.partition(":")[0])


@model_check("settings", excusable=False)
def check_settings(subject: ModelSubject) -> None:
    """Defaults are legal and on their own search grid; no field hides one of the trainer's."""
    kind = subject.loaded.settings_class
    hidden = names_in_both(kind.model_fields, TrainerSettings.model_fields)
    if hidden:
        raise Failed(f"the setting {hidden[0]} hides the trainer's; rename it.")
    for name, declared in kind.model_fields.items():
        if declared.is_required():
            raise Failed(f"the setting {name} has no default.")
    values = kind.model_construct().model_dump(mode="json")
    if validated(kind, json.loads(json.dumps(values)), "a default") != kind():
        raise Failed("the settings differ after a round trip through JSON, which is how a record keeps them.")
    for fault in grid_faults(kind):
        raise Failed(fault)


@model_check("setting-limits")
def check_setting_limits(subject: ModelSubject) -> None:
    """The model works at the limits of each setting, and with each choice ignores padding too."""
    spec = subject.spec()
    batch = whole(sample_split(spec))
    for trial in trials(subject.loaded.settings_class):
        situation = f"with {trial.name}={trial.value}"
        chosen = replace(subject, values={**subject.values, trial.name: trial.value})
        try:
            chosen.settings()
        except SettingError:
            continue  # the settings themselves refuse it beside the other defaults
        try:
            model = chosen.ready(spec)
            if trial.is_choice:
                _expect_padding_harmless(model, batch, 6)
            _expect_trainable(model, batch, situation)
        except Failed as found:
            raise Failed(f"{situation}: {found}") from found
        except RunError:
            continue  # it says in plain words why it cannot go on: "did not converge in 1 step"
        except Exception as error:
            raise Failed(f"{situation}, which is legal: {type(error).__name__}: {error}") from error


@model_check("variants")
def check_variants(subject: ModelSubject) -> None:
    """With the settings of each dataset, ablation and paper too: trains, takes gaps, ignores padding and labels."""
    variants = subject.variants()
    if not variants:
        raise NotApplicable("the card lists no settings other than those of the other checks")
    spec = subject.spec()
    batch = whole(sample_split(spec))
    for name, variant in variants.items():
        with _named(name):
            model = variant.ready(spec)
            _expect_padding_harmless(model, batch, 6)
            _expect_labels_unread(model, batch)
            _expect_trainable(model, batch, "on a batch with gaps")
            if subject.card.causal:
                check_causal(variant)


# Shapes and what must not matter ----------------------------------------------------------------


@model_check("output")
def check_output(subject: ModelSubject) -> None:
    """Logits, auxiliary logits, loss terms and diagnostics have the right shapes and finite values."""
    for classes, speakers in ((5, 3), (4, 1), (7, 2)):
        spec = subject.spec(classes, speakers)
        model = subject.ready(spec, dtype=torch.float32)
        if set(dict(model.spec.widths)) != set(spec.widths):
            raise Failed("model.spec should be the spec that the model was built for; call super().__init__.")
        batch = whole(sample_split(spec, dtype=torch.float32))
        _predict(model, batch.without_labels())
        _expect_trainable(model, batch, f"with {classes} classes")


@model_check("padding")
def check_padding(subject: ModelSubject) -> None:
    """Further padding, filled with garbage, changes nothing of a real utterance."""
    spec = subject.spec()
    model = subject.ready(spec)
    batch = whole(sample_split(spec))
    for turns in (0, 1, 6):
        _expect_padding_harmless(model, batch, turns)


def _expect_padding_harmless(model: Model, batch: Batch, turns: int) -> None:
    expected = _predict(model, batch)
    longer = padded_further(batch, turns)
    got = _predict(model, longer)
    what = f"{turns} more padded turns, and garbage in the padding, change"
    _expect_equal(_real(expected, batch), _real(got, longer), f"{what} the logits of real utterances")
    _expect_same_extras(expected, batch, got, longer, what)


def _expect_same_extras(expected: Output, batch: Batch, got: Output, other: Batch, what: str) -> None:
    for name in expected.auxiliary:
        if name not in got.auxiliary:
            raise Failed(f"{what} which auxiliary logits there are: {name} is missing.")
        _expect_equal(_real(expected, batch, name), _real(got, other, name), f"{what} the auxiliary logits {name}")
    for name, term in expected.losses.items():
        if name not in got.losses:
            raise Failed(f"{what} which loss terms there are: {name} is missing.")
        _expect_equal(term.value, got.losses[name].value, f"{what} the loss term {name}")


@model_check("batches")
def check_batches(subject: ModelSubject) -> None:
    """A dialogue's result does not depend on the dialogues beside it, nor on their order."""
    spec = subject.spec()
    model = subject.ready(spec)
    split = sample_split(spec)
    everything = whole(split)
    expected = _predict(model, everything).logits
    orders = [list(reversed(range(split.dialogue_count)))]  # order
    orders += [[dialogue] for dialogue in range(split.dialogue_count)]  # alone
    orders += [[0, 2, 4], [1, 0]]  # other company
    for order in orders:
        batch = split.batch(order)
        got = _predict(model, batch).logits
        for row, dialogue in enumerate(order):
            turns = int(batch.lengths[row])
            what = f"dialogue {dialogue} scores otherwise in the batch {order} than in one of all dialogues"
            _expect_equal(expected[dialogue, :turns], got[row, :turns], what)


@model_check("absent-values")
def check_absent_values(subject: ModelSubject) -> None:
    """What stands in the features where a modality is not present does not matter."""
    spec = subject.spec()
    model = subject.ready(spec)
    batch = whole(sample_split(spec))
    expected = _predict(model, batch)
    noisy = garbage_where_missing(batch)
    got = _predict(model, noisy)
    what = "garbage in the features of utterances that lack the modality changes"
    _expect_equal(_real(expected, batch), _real(got, noisy), f"{what} the logits")
    _expect_same_extras(expected, batch, got, noisy, what)


@contextmanager
def _named(situation: str) -> Iterator[None]:
    """Say in which situation a check failed, whatever the plugin's code raised there."""
    try:
        yield
    except Failed as found:
        raise Failed(f"{situation}: {found}") from found
    except Exception as error:
        raise Failed(f"{situation}: {type(error).__name__}: {error}") from error


@model_check("modality-subsets")
def check_modality_subsets(subject: ModelSubject) -> None:
    """Every non-empty subset of the declared modalities (with those it needs) works."""
    for chosen in _subsets(subject.card):
        spec = sample_spec(chosen)
        situation = f"with {', '.join(chosen)} only"
        with _named(situation):
            model = subject.ready(spec)
            batch = whole(sample_split(spec))
            _predict(model, batch)
            _expect_trainable(model, batch, situation)


@model_check("missing")
def check_missing(subject: ModelSubject) -> None:
    """Utterances and whole dialogues without a modality, or without any, give finite results."""
    spec = subject.spec()
    model = subject.ready(spec)
    full = whole(sample_split(spec, gaps=False))
    first = torch.zeros_like(full.mask)
    first[:, 0] = True
    one_dialogue = torch.zeros_like(full.mask)
    one_dialogue[0] = True
    situations = {}
    for name in spec.modalities:
        situations[f"where the first utterances lack {name}"] = without(full, name, first)
        situations[f"where one dialogue lacks {name}"] = without(full, name, one_dialogue)
        situations[f"where every dialogue lacks {name}"] = without(full, name)
    for where, text in ((first, "the first utterances lack"), (one_dialogue, "one dialogue lacks"), (None, "all lack")):
        bare = full
        for name in spec.modalities:
            bare = without(bare, name, where)
        situations[f"where {text} every modality"] = bare
    for situation, batch in situations.items():
        with _named(situation):
            _predict(model, batch)
            _expect_trainable(model, batch, situation)


@model_check("single-utterances")
def check_single_utterances(subject: ModelSubject) -> None:
    """Dialogues of one utterance work, in a batch and alone, in training too."""
    spec = subject.spec()
    model = subject.ready(spec)
    for count in (3, 1):
        batch = whole(sample_split(spec, lengths=[1] * count, gaps=False))
        _predict(model, batch)
        _expect_trainable(model, batch, f"with {count} dialogues of one utterance")


@model_check("speakers")
def check_speakers(subject: ModelSubject) -> None:
    """Who speaks matters just as the card says: not at all, up to renaming, or somehow."""
    card = subject.card
    spec = subject.spec()
    model = subject.ready(spec)
    batch = whole(sample_split(spec))
    expected = _real(_predict(model, batch), batch)

    def with_speakers(speakers: Tensor) -> Tensor:
        other = replace(batch, speakers=speakers.masked_fill(~batch.mask, 0))
        return _real(_predict(model, other), other)

    alternating = (torch.arange(batch.mask.shape[1]) % spec.speakers).expand_as(batch.speakers)
    if not card.uses_speakers:
        for other in (torch.zeros_like(batch.speakers), alternating):
            what = "the card says uses_speakers = false, but other speakers give other logits"
            _expect_equal(expected, with_speakers(other), what)
        return
    if card.speaker_symmetric:
        for shift in range(1, spec.speakers):
            renamed = (batch.speakers + shift) % spec.speakers
            what = "the card says speaker_symmetric = true, but renaming the speakers changes the logits"
            _expect_equal(expected, with_speakers(renamed), what)
    if not any(_reads_speakers(variant, batch) for variant in (subject, *subject.variants().values())):
        raise Failed("the model never reads who speaks, but the card says uses_speakers = true.")


def _reads_speakers(subject: ModelSubject, batch: Batch) -> bool:
    model = subject.ready(subject.spec())
    taking_turns = torch.arange(batch.mask.shape[1]) % model.spec.speakers * batch.mask
    one, many = (
        _predict(model, replace(batch, speakers=speakers)).logits
        for speakers in (torch.zeros_like(batch.speakers), taking_turns)
    )
    return not torch.equal(one[batch.mask], many[batch.mask])


@model_check("causal")
def check_causal(subject: ModelSubject) -> None:
    """A causal model never looks ahead: what comes later, or whether it comes, changes nothing before."""
    if not subject.card.causal:
        raise NotApplicable("the card does not say that the model is causal")
    spec = subject.spec()
    model = subject.ready(spec)
    batch = whole(sample_split(spec, lengths=(9, 9, 9, 9))).without_labels()
    other = whole(sample_split(spec, seed=5, lengths=(9, 9, 9, 9)))
    expected = _predict(model, batch).logits
    for turn in (1, 4, 8):
        early = torch.arange(9) < turn
        changed = replace(
            batch,
            features={
                name: torch.where(early[:, None], values, other.features[name])
                for name, values in batch.features.items()
            },
            present={name: torch.where(early, there, other.present[name]) for name, there in batch.present.items()},
            speakers=torch.where(early, batch.speakers, other.speakers),
        )
        what = f"the card says causal = true, but what comes after turn {turn} changes the logits before it"
        _expect_equal(expected[:, :turn], _predict(model, changed).logits[:, :turn], what)
        cut = replace(
            batch,
            features={name: values[:, :turn] for name, values in batch.features.items()},
            present={name: there[:, :turn] for name, there in batch.present.items()},
            mask=batch.mask[:, :turn],
            speakers=batch.speakers[:, :turn],
            lengths=torch.full_like(batch.lengths, turn),
        )
        what = f"the card says causal = true, but ending the dialogue after turn {turn} changes the logits before it"
        _expect_equal(expected[:, :turn], _predict(model, cut).logits, what)


@model_check("labels-unseen")
def check_labels_unseen(subject: ModelSubject) -> None:
    """Scoring needs no labels and is not changed by them."""
    spec = subject.spec()
    _expect_labels_unread(subject.ready(spec), whole(sample_split(spec)))


def _expect_labels_unread(model: Model, batch: Batch) -> None:
    assert batch.labels is not None
    try:
        expected = _real(_predict(model, batch.without_labels()), batch)
    except (TypeError, AttributeError) as error:
        raise Failed(f"eval mode without labels: {type(error).__name__}: {error}") from error
    shifted = torch.where(batch.mask, (batch.labels + 1) % model.spec.class_count, NO_LABEL)
    for other in (batch, replace(batch, labels=shifted)):
        got = _real(_predict(model, other), other)
        _expect_equal(expected, got, "in eval mode the labels of a batch change its logits", 0.0)


@model_check("eval-deterministic")
def check_eval_deterministic(subject: ModelSubject) -> None:
    """In eval mode the same batch gives the same bits, and scoring leaves the model as it was."""
    spec = subject.spec()
    model = subject.ready(spec, dtype=torch.float32)
    batch = whole(sample_split(spec, dtype=torch.float32))
    state = copy.deepcopy(model.state_dict())
    first = _predict(model, batch)
    second = _predict(model, batch)
    what = "in eval mode the same batch twice gives different"
    _expect_equal(first.logits, second.logits, f"{what} logits", 0.0)
    for name, term in first.losses.items():
        _expect_equal(term.value, second.losses[name].value, f"{what} values of the loss term {name}", 0.0)
    for name, value in model.state_dict().items():
        if not torch.equal(value, state[name]):
            raise Failed(f"scoring a batch in eval mode changes {name} of the model's state.")


@model_check("batch-unchanged")
def check_batch_unchanged(subject: ModelSubject) -> None:
    """The model leaves the tensors of the batch as they are."""
    spec = subject.spec()
    model = subject.ready(spec)
    batch = whole(sample_split(spec))
    before = copy.deepcopy(batch)
    _predict(model, batch)
    _expect_trainable(model, batch, "on a batch with gaps")
    for name in ("features", "present"):
        for modality, value in getattr(before, name).items():
            if not torch.equal(value, getattr(batch, name)[modality]):
                raise Failed(f"forward writes into batch.{name}['{modality}']; work on a copy.")
    for name in ("mask", "speakers", "lengths", "dialogues", "labels"):
        if not torch.equal(getattr(before, name), getattr(batch, name)):
            raise Failed(f"forward writes into batch.{name}; work on a copy.")


# Learning ---------------------------------------------------------------------------------------


@model_check("gradients")
def check_gradients(subject: ModelSubject) -> None:
    """The loss and its gradients are finite and reach every parameter."""
    if subject.is_fitted:
        raise NotApplicable("the model is fitted at one go, without gradients")
    spec = subject.spec()
    model = subject.ready(spec)
    reached = {name: False for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not reached:
        raise Failed("the model has no parameter to train; a model without any is a FittedModel.")
    for seed, gaps in ((0, False), (1, True), (2, True)):
        batch = whole(sample_split(spec, seed, gaps=gaps))
        _expect_trainable(model, batch, "on a batch of all modalities")
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and bool((parameter.grad != 0).any()):
                reached[name] = True
    unreached = [name for name, is_reached in reached.items() if not is_reached]
    if unreached:
        raise Failed(f"no gradient reaches {', '.join(unreached[:5])}{' and more' if len(unreached) > 5 else ''}.")


@model_check("learns")
def check_learns(subject: ModelSubject) -> None:
    """Eight small dialogues are learned to 95 % accuracy, with the model's own training settings."""
    spec = subject.spec(classes=4)
    split = learnable_split(spec)
    model = subject.build(spec, seed=1)
    training = subject.settings()[1]
    batch = whole(split)
    assert batch.labels is not None
    best = 0.0
    for round_ in range(1 if subject.is_fitted else LEARNING_EPOCHS // 10):
        _train(model, split, training, 10, seed=round_)
        guessed = _predict(model, batch.without_labels()).logits[batch.mask].argmax(-1)
        best = max(best, float((guessed == batch.labels[batch.mask]).double().mean()))
        if best >= 0.95:
            return
    raise Failed(f"after {LEARNING_EPOCHS} epochs on 8 easy dialogues the train accuracy is {best:.0%}, not 95 %.")


@model_check("same-seed")
def check_same_seed(subject: ModelSubject) -> None:
    """The same seed gives the same bits: weights, every training loss, and scores."""
    spec = subject.spec()
    split = sample_split(spec, dtype=torch.float32)
    batch = whole(split)
    training = validated(TrainerSettings, {**subject.settings()[1].model_dump(), "batch_size": 4})
    deterministic_algorithms()
    results = []
    for _ in range(2):
        model = subject.build(spec, seed=7)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        losses = _train(model, split, training, 3, seed=7)
        results.append((start, losses, _predict(model, batch.without_labels()).logits))
    (start, losses, logits), (start_again, losses_again, logits_again) = results
    for name, value in start.items():
        if not torch.equal(value, start_again[name]):
            raise Failed(f"the same seed gives different initial values of {name}.")
    if losses != losses_again:
        raise Failed("the same seed gives different losses in training.")
    if not torch.equal(logits, logits_again):
        raise Failed("the same seed gives different logits after training.")


@model_check("state")
def check_state(subject: ModelSubject) -> None:
    """All that was learned survives a round trip of the state dict through safetensors."""
    spec = subject.spec()
    model = subject.ready(spec, seed=1, dtype=torch.float32)
    batch = whole(sample_split(spec, dtype=torch.float32)).without_labels()
    expected = _predict(model, batch).logits
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise Failed(f"{name} of the state dict is a {type(value).__name__}, not a tensor: it cannot be saved.")
    written = save_tensors({name: value.detach().clone().contiguous() for name, value in state.items()})
    fresh = subject.build(spec, seed=2)
    try:
        fresh.load_state_dict(load_tensors(written))
    except RuntimeError as error:
        raise Failed(f"a fresh model does not accept the saved state: {' '.join(str(error).split())}") from error
    what = "a fresh model with the saved state gives other logits: something learned is not in the state dict"
    _expect_equal(expected, _predict(fresh, batch).logits, what, 0.0)


@model_check("unseen-class")
def check_unseen_class(subject: ModelSubject) -> None:
    """A class that no train utterance has gives finite results still."""
    spec = subject.spec()
    split = sample_split(spec, dtype=torch.float32)
    assert split.labels is not None
    for absent in (0, spec.class_count - 1):
        poor = replace(split, labels=split.labels.masked_fill(split.labels == absent, NO_LABEL))
        model = subject.build(spec)
        _train(model, poor, subject.settings()[1], 1, seed=0)
        _predict(model, whole(split).without_labels())
