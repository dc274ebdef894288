"""For each check of a model: a model that breaks that promise and no other, and is found out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import pytest
import torch
from torch import Tensor, nn

from mer_bench.api import (
    NO_LABEL,
    Auxiliary,
    Batch,
    Field,
    FittedModel,
    InputSpec,
    LossTerm,
    Model,
    ModelCard,
    Output,
    Settings,
    Tune,
)
from mer_bench.registry import LoadedModel, Plugin
from mer_bench.testing import MODEL_CHECKS, CheckResult, ModelSubject

CARD: dict[str, Any] = {
    "title": "Sample",
    "summary": "A small causal network.",
    "entry": "model:Sample",
    "config": "config:SampleSettings",
    "modalities": ["text", "audio", "visual"],
    "causal": True,
    "speaker_symmetric": True,
    "ours": ["all of it"],
    "ablations": {"no-context": {"question": "Does context help?", "settings": {"context": False}}},
    "settings": {"default": {"learning_rate": 0.01}},
}


class SampleSettings(Settings):
    hidden_dim: Annotated[int, Field(ge=4, le=64), Tune(low=8, high=32, step=8)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1), Tune(low=0, high=0.5, step=0.1)] = 0.1
    activation: Annotated[Literal["tanh", "relu"], Tune()] = "tanh"
    context: bool = True


class Sample(Model):
    """Sums of projected modalities, a recurrent layer, a flag "same speaker as before"."""

    def __init__(self, spec: InputSpec, settings: SampleSettings) -> None:
        super().__init__(spec, settings)
        self.settings = settings
        width = settings.hidden_dim
        self.inputs = nn.ModuleDict({name: nn.Linear(size, width) for name, size in spec.widths.items()})
        self.missing = nn.ParameterDict({name: torch.zeros(width) for name in spec.widths})
        self.same_speaker = nn.Parameter(torch.zeros(width))
        self.context = nn.GRU(width, width, batch_first=True) if settings.context else nn.Linear(width, width)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(width, spec.class_count)
        self.student = nn.Linear(width, spec.class_count)

    def values(self, batch: Batch, name: str) -> Tensor:
        return batch.features[name] * batch.present[name].unsqueeze(-1)

    def fused(self, batch: Batch) -> Tensor:
        turns = self.same_speaker * self.speaker_flags(batch).unsqueeze(-1)  # (B, T, hidden)
        for name, layer in self.inputs.items():
            there = batch.present[name].unsqueeze(-1)
            turns = turns + torch.where(there, layer(self.values(batch, name)), self.missing[name])
        return turns * batch.mask.unsqueeze(-1)

    def speaker_flags(self, batch: Batch) -> Tensor:
        same = torch.zeros_like(batch.mask)
        same[:, 1:] = batch.speakers[:, 1:] == batch.speakers[:, :-1]
        return same.to(self.same_speaker.dtype)

    def contextual(self, turns: Tensor, batch: Batch) -> Tensor:
        if isinstance(self.context, nn.GRU):
            turns, _ = self.context(turns)
        else:
            turns = self.context(turns)
        return torch.tanh(turns) if self.settings.activation == "tanh" else torch.relu(turns) + turns

    def scores(self, turns: Tensor, batch: Batch) -> Tensor:
        return self.head(turns)  # type: ignore[no-any-return]

    def forward(self, batch: Batch) -> Output:
        turns = self.dropout(self.contextual(self.fused(batch), batch))
        size = (turns.square() * batch.mask.unsqueeze(-1)).sum() / batch.mask.sum() / turns.shape[-1]
        return Output(
            logits=self.scores(turns, batch),
            auxiliary={"student": Auxiliary(self.student(turns), weight=0.5)},
            losses={"size": LossTerm(size, weight=0.01, schedule="ramp")},
            diagnostics={"size": size.detach()},
        )


class SampleFitted(FittedModel):
    """Nearest class centre of the utterance's features."""

    def __init__(self, spec: InputSpec, settings: SampleSettings) -> None:
        super().__init__(spec, settings)
        self.register_buffer("centres", torch.zeros(spec.class_count, sum(spec.widths.values())))
        self.centres: Tensor

    def joined(self, batch: Batch) -> Tensor:
        return torch.cat(
            [batch.features[name] * batch.present[name].unsqueeze(-1) for name in self.spec.modalities], dim=-1
        )

    def fit(self, train: Iterable[Batch]) -> None:
        count = torch.zeros(self.spec.class_count, dtype=self.centres.dtype)
        total = torch.zeros_like(self.centres)
        for batch in train:
            assert batch.labels is not None
            counted = batch.labels != NO_LABEL
            count.index_add_(0, batch.labels[counted], torch.ones_like(batch.labels[counted], dtype=count.dtype))
            total.index_add_(0, batch.labels[counted], self.joined(batch)[counted])
        self.centres = self.finished(total, count)

    def finished(self, total: Tensor, count: Tensor) -> Tensor:
        return total / count.clamp(min=1).unsqueeze(-1)

    def forward(self, batch: Batch) -> Output:
        return Output(-(self.joined(batch).unsqueeze(-2) - self.centres).square().sum(-1))


def subject(
    model: type[Model] = Sample, settings_class: type[Settings] = SampleSettings, **card: Any
) -> tuple[ModelSubject, Mapping[str, str]]:
    plugin = Plugin("sample", ModelCard.model_validate({**CARD, **card}), "sample_shelf.sample", "sample")
    return ModelSubject(LoadedModel(plugin, model, settings_class)), plugin.card.excused


def results(what: tuple[ModelSubject, Mapping[str, str]]) -> dict[str, CheckResult]:
    """Every check except that of the folder, which needs one on disk and has tests of its own."""
    return {name: check.run(*what) for name, check in MODEL_CHECKS.items() if name != "folder"}


def failed(what: tuple[ModelSubject, Mapping[str, str]]) -> dict[str, str]:
    return {name: result.reason for name, result in results(what).items() if result.status == "failed"}


FITTED_CARD: dict[str, Any] = {
    "causal": True,
    "uses_speakers": False,
    "ablations": {},
    "settings": {},
}


def test_sound_model_passes_every_check() -> None:
    found = results(subject())
    assert {name: result.reason for name, result in found.items() if result.status == "failed"} == {}
    assert [name for name, result in found.items() if result.status == "excused"] == []


def test_sound_fitted_model_passes_every_check_that_applies() -> None:
    found = results(subject(SampleFitted, **FITTED_CARD))
    assert {name: result.reason for name, result in found.items() if result.status == "failed"} == {}
    assert {name for name, result in found.items() if result.status == "excused"} == {"variants", "gradients"}


# One broken promise each ------------------------------------------------------------------------


class OffGridSettings(SampleSettings):
    hidden_dim: Annotated[int, Field(ge=4, le=64), Tune(low=8, high=32, step=12)] = 16


class LayersSettings(SampleSettings):
    layers: Annotated[int, Field(ge=0, le=3)] = 1


class NeedsALayer(Sample):
    def __init__(self, spec: InputSpec, settings: LayersSettings) -> None:
        super().__init__(spec, settings)
        layers = [nn.Linear(settings.hidden_dim, settings.hidden_dim) for _ in range(settings.layers)]
        self.deep = nn.Sequential(*layers)
        self.last = nn.Linear(layers[0].out_features, settings.hidden_dim)

    def contextual(self, turns: Tensor, batch: Batch) -> Tensor:
        return torch.tanh(self.last(self.deep(super().contextual(turns, batch))))


class PooledSettings(SampleSettings):
    pooled: bool = False


class PoolsOverPadding(Sample):
    def contextual(self, turns: Tensor, batch: Batch) -> Tensor:
        turns = super().contextual(turns, batch)
        if getattr(self.settings, "pooled", True):
            return turns + turns.mean(dim=1, keepdim=True)  # over padding too
        return turns


class FailsForOneSpeaker(Sample):
    def speaker_flags(self, batch: Batch) -> Tensor:
        flags = super().speaker_flags(batch)
        return flags * (self.spec.speakers - 1) / (self.spec.speakers - 1)


class SumsFeaturesOfPadding(Sample):
    def fused(self, batch: Batch) -> Tensor:
        padding = ~batch.mask.unsqueeze(-1)
        leak = sum((values * padding).sum(dim=(1, 2)) for values in batch.features.values())  # (B,)
        return super().fused(batch) + 1e-3 * torch.as_tensor(leak)[:, None, None]


class SubtractsTheBatchMean(Sample):
    def fused(self, batch: Batch) -> Tensor:
        turns = super().fused(batch)
        return turns - turns[:, :1].mean(dim=0, keepdim=True)


class ReadsAbsentValues(Sample):
    def values(self, batch: Batch, name: str) -> Tensor:
        return batch.features[name] * batch.mask.unsqueeze(-1)

    def fused(self, batch: Batch) -> Tensor:
        turns = super().fused(batch)
        for name, layer in self.inputs.items():
            turns = turns + layer(self.values(batch, name)) * batch.mask.unsqueeze(-1)
        return turns


class NeedsText(Sample):
    def fused(self, batch: Batch) -> Tensor:
        return super().fused(batch) + 0 * batch.features["text"].sum(-1, keepdim=True)


class NeedsAnything(Sample):
    def fused(self, batch: Batch) -> Tensor:
        if not any(bool(there.any()) for there in batch.present.values()):
            raise ValueError("nothing is present")
        return super().fused(batch)


class NormalisesOverUtterances(Sample):
    def __init__(self, spec: InputSpec, settings: SampleSettings) -> None:
        super().__init__(spec, settings)
        self.norm = nn.BatchNorm1d(settings.hidden_dim)

    def fused(self, batch: Batch) -> Tensor:
        turns = super().fused(batch)
        return turns.masked_scatter(batch.mask.unsqueeze(-1), self.norm(turns[batch.mask]))


class KnowsSpeakersByNumber(Sample):
    def speaker_flags(self, batch: Batch) -> Tensor:
        return batch.speakers.to(self.same_speaker.dtype)


class LooksAhead(Sample):
    def contextual(self, turns: Tensor, batch: Batch) -> Tensor:
        turns = super().contextual(turns, batch)
        share = batch.mask.to(turns.dtype) / batch.lengths.unsqueeze(-1)
        return turns + (turns * share.unsqueeze(-1)).sum(dim=1, keepdim=True)


class ReadsLabels(Sample):
    def scores(self, turns: Tensor, batch: Batch) -> Tensor:
        logits = super().scores(turns, batch)
        if batch.labels is None:
            return logits
        return logits + 1e-3 * torch.nn.functional.one_hot(batch.labels.clamp(min=0), self.spec.class_count)


class CountsWhatItScores(Sample):
    def __init__(self, spec: InputSpec, settings: SampleSettings) -> None:
        super().__init__(spec, settings)
        self.scored: Tensor
        self.register_buffer("scored", torch.zeros(()))

    def forward(self, batch: Batch) -> Output:
        self.scored += 1
        return super().forward(batch)


class WritesIntoTheBatch(Sample):
    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        batch.dialogues.zero_()
        return output


class HasAnIdleLayer(Sample):
    def __init__(self, spec: InputSpec, settings: SampleSettings) -> None:
        super().__init__(spec, settings)
        self.idle = nn.Linear(3, 3)


class DrawsUnseeded(Sample):
    def contextual(self, turns: Tensor, batch: Batch) -> Tensor:
        turns = super().contextual(turns, batch)
        if not self.training:
            return turns
        generator = torch.Generator()
        generator.seed()
        return turns + 0.01 * torch.rand(1, generator=generator, dtype=torch.float64).to(turns.dtype)


class HidesState(Sample):
    def __init__(self, spec: InputSpec, settings: SampleSettings) -> None:
        super().__init__(spec, settings)
        self.shift = torch.randn(spec.class_count, dtype=torch.float64)

    def scores(self, turns: Tensor, batch: Batch) -> Tensor:
        return super().scores(turns, batch) + self.shift.to(turns.dtype)


class DividesByTheCount(SampleFitted):
    def finished(self, total: Tensor, count: Tensor) -> Tensor:
        return total / count.unsqueeze(-1)


class ComparesAllPairs(Sample):
    def contextual(self, turns: Tensor, batch: Batch) -> Tensor:
        earlier = torch.ones(turns.shape[1], turns.shape[1], dtype=torch.bool).tril() & batch.mask.unsqueeze(1)
        scores = (turns @ turns.mT).masked_fill(~earlier, -1e9)  # (B, T, T)
        return super().contextual(turns + scores.softmax(-1) @ turns, batch)


Subject = tuple[ModelSubject, Mapping[str, str]]
TOO_SLOW: dict[str, Any] = {"settings": {"default": {"learning_rate": 1e-7}}}

BROKEN: list[tuple[str, Callable[[], Subject], str]] = [
    ("card", lambda: subject(published={"meld": {"clip": -1}}), r"clip must .* -1 \(published.meld"),
    ("settings", lambda: subject(settings_class=OffGridSettings), "hidden_dim .* steps of 12, which never meet .* 16"),
    ("setting-limits", lambda: subject(NeedsALayer, LayersSettings), "layers=0"),
    (
        "variants",
        lambda: subject(
            PoolsOverPadding,
            PooledSettings,
            ablations={"pooled": {"question": "?", "settings": {"pooled": True}}},
            excused={"setting-limits": "it fails for the same reason"},
        ),
        r"ablations\.pooled: .* padded turns",
    ),
    ("output", lambda: subject(FailsForOneSpeaker), "NaN or infinite values on real utterances"),
    (
        "padding",
        lambda: subject(SumsFeaturesOfPadding, causal=False, ablations={}, excused={"setting-limits": "the same"}),
        "0 more padded turns, and garbage",
    ),
    ("batches", lambda: subject(SubtractsTheBatchMean, ablations={}), "dialogue 0 scores otherwise"),
    ("absent-values", lambda: subject(ReadsAbsentValues), "garbage in the features of utterances that lack"),
    ("modality-subsets", lambda: subject(NeedsText), "with audio only"),
    ("missing", lambda: subject(NeedsAnything, ablations={}), "all lack every modality: ValueError"),
    ("single-utterances", lambda: subject(NormalisesOverUtterances), "Expected more than 1 value"),
    ("speakers", lambda: subject(KnowsSpeakersByNumber), "speaker_symmetric = true"),
    ("causal", lambda: subject(LooksAhead, ablations={}), "causal = true"),
    ("labels-unseen", lambda: subject(ReadsLabels, ablations={}), "labels of a batch change"),
    ("eval-deterministic", lambda: subject(CountsWhatItScores, ablations={}), "changes scored of the model's state"),
    ("batch-unchanged", lambda: subject(WritesIntoTheBatch), "batch.dialogues"),
    ("gradients", lambda: subject(HasAnIdleLayer), "no gradient reaches idle.weight, idle.bias"),
    ("learns", lambda: subject(**TOO_SLOW), "train accuracy is"),
    ("same-seed", lambda: subject(DrawsUnseeded), "different losses in training"),
    ("state", lambda: subject(HidesState), "not in the state dict"),
    ("memory", lambda: subject(ComparesAllPairs), r"memory = linear, but .*with the square .* Say memory = quadratic"),
    ("unseen-class", lambda: subject(DividesByTheCount, **FITTED_CARD), "NaN"),
]


@pytest.mark.parametrize(("check", "broken", "message"), BROKEN, ids=[name for name, _, _ in BROKEN])
def test_broken_model_fails_that_check_alone(check: str, broken: Callable[[], Subject], message: str) -> None:
    found = failed(broken())
    assert list(found) == [check]
    assert re.search(message, found[check]), found[check]


# Further ways to break a promise, each found by the named check ----------------------------------


class TimeFirst(Sample):
    def scores(self, turns: Tensor, batch: Batch) -> Tensor:
        return super().scores(turns, batch).transpose(0, 1)


class NanOnPadding(Sample):
    def scores(self, turns: Tensor, batch: Batch) -> Tensor:
        return super().scores(turns, batch).masked_fill(~batch.mask.unsqueeze(-1), float("nan"))


class ReturnsLogitsAlone(Sample):
    def forward(self, batch: Batch) -> Output:
        return super().forward(batch).logits  # type: ignore[return-value]


class LossPerUtterance(Sample):
    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        return replace(output, losses={"size": LossTerm(output.logits.square().mean(-1))})


class LossCountsPadding(Sample):
    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        real = output.logits * batch.mask.unsqueeze(-1)
        return replace(output, losses={"size": LossTerm(real.square().mean())})


class DiagnosticWithGradient(Sample):
    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        return replace(output, diagnostics={"size": output.losses["size"].value})


class StudentSeesPadding(Sample):
    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        student = output.auxiliary["student"].logits
        return replace(output, auxiliary={"student": Auxiliary(student - student.mean(dim=1, keepdim=True))})


class DropsAlways(Sample):
    def contextual(self, turns: Tensor, batch: Batch) -> Tensor:
        return torch.nn.functional.dropout(super().contextual(turns, batch), 0.1, training=True)


class Untrainable(Sample):
    def __init__(self, spec: InputSpec, settings: SampleSettings) -> None:
        super().__init__(spec, settings)
        self.requires_grad_(False)


class SkipsTheConstructor(Sample):
    def __init__(self, spec: InputSpec, settings: SampleSettings) -> None:
        super().__init__(replace(spec, widths={}), settings)


class GrowsItsState(Sample):
    def __init__(self, spec: InputSpec, settings: SampleSettings) -> None:
        super().__init__(spec, settings)
        self.register_buffer("memory", torch.zeros(int(torch.randint(1, 1000, ()))))


class KeepsTextInItsState(Sample):
    def get_extra_state(self) -> str:
        return "words"

    def set_extra_state(self, state: Any) -> None:
        pass


class SortsByAddress(Sample):
    """Starts from numbers that no seed decides."""

    def __init__(self, spec: InputSpec, settings: SampleSettings) -> None:
        super().__init__(spec, settings)
        generator = torch.Generator()
        generator.seed()
        with torch.no_grad():
            self.head.bias.copy_(torch.randn(spec.class_count, generator=generator))


class InfiniteGradient(Sample):
    """The square root of a length that is zero has an infinite slope."""

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        first = self.fused(batch).abs().sum(-1)[:, 0]
        return replace(output, losses={"length": LossTerm((first * 0).square().sum(-1).sqrt().mean())})


class ComparesAllTriples(Sample):
    def contextual(self, turns: Tensor, batch: Batch) -> Tensor:
        some = turns[:, ::16, 0] * 1e-3  # every sixteenth turn, for a cube of 1024 turns has no room
        triples = some[:, :, None, None] * some[:, None, :, None] * some[:, None, None, :]
        return super().contextual(turns + (triples.sin() * triples.cos()).mean(), batch)


class PeeksAtLabels(Sample):
    def forward(self, batch: Batch) -> Output:
        assert batch.labels is not None
        return super().forward(batch) if batch.labels.ndim else Output(torch.zeros(()))


class OpenEndedSettings(SampleSettings):
    scale: Annotated[float, Tune()] = 1.0


class ForeignConditionSettings(SampleSettings):
    depth: Annotated[int, Field(ge=1, le=3), Tune(when={"fusion": "gated"})] = 1


class ChoicesWithoutDefaultSettings(SampleSettings):
    heads: Annotated[int, Field(ge=1, le=8), Tune(choices=(2, 4))] = 1


class IllegalChoiceSettings(SampleSettings):
    heads: Annotated[int, Field(ge=1, le=8), Tune(choices=(1, 16))] = 1


class LogFromZeroSettings(SampleSettings):
    weight: Annotated[float, Field(ge=0, le=1), Tune(log=True)] = 0.1


class OutOfRangeDefaultSettings(SampleSettings):
    weight: Annotated[float, Field(ge=0, le=1)] = 2.0


class RequiredSettings(SampleSettings):
    weight: Annotated[float, Field(ge=0, le=1)]


class HidingSettings(SampleSettings):
    clip: Annotated[float, Field(ge=0, le=1)] = 0.5


FURTHER: list[tuple[str, Callable[[], Subject], str]] = [
    ("setting-limits", lambda: subject(PoolsOverPadding, PooledSettings), "with pooled=True: 6 more padded turns"),
    ("output", lambda: subject(TimeFirst), r"logits should be \(dialogues, turns, classes\)"),
    ("output", lambda: subject(NanOnPadding), "on padding"),
    ("output", lambda: subject(ReturnsLogitsAlone), "api.Output, but returned Tensor"),
    ("output", lambda: subject(LossPerUtterance), "loss term size should be one finite number"),
    ("output", lambda: subject(DiagnosticWithGradient), "diagnostic size should be a detached scalar"),
    ("output", lambda: subject(SkipsTheConstructor), "model.spec should be"),
    ("padding", lambda: subject(PoolsOverPadding, causal=False), "logits of real utterances"),
    ("padding", lambda: subject(StudentSeesPadding), "auxiliary logits student"),
    ("padding", lambda: subject(LossCountsPadding), "loss term size"),
    ("batches", lambda: subject(PoolsOverPadding, causal=False), "scores otherwise"),
    ("eval-deterministic", lambda: subject(DropsAlways), "twice gives different logits"),
    ("gradients", lambda: subject(Untrainable), "no parameter to train"),
    ("gradients", lambda: subject(InfiniteGradient), "NaN"),
    ("learns", lambda: subject(model=Untrainable), "gradient|grad"),
    ("state", lambda: subject(GrowsItsState), "does not accept the saved state"),
    ("state", lambda: subject(KeepsTextInItsState), "is a str, not a tensor"),
    ("same-seed", lambda: subject(SortsByAddress), "initial values of head.bias"),
    ("labels-unseen", lambda: subject(PeeksAtLabels), "AssertionError"),
    ("speakers", lambda: subject(uses_speakers=False), "uses_speakers = false"),
    ("speakers", lambda: subject(SampleFitted, **{**FITTED_CARD, "uses_speakers": True}), "never reads who speaks"),
    ("modality-subsets", lambda: subject(NeedsText, needs=["audio"]), "with audio only"),
    ("memory", lambda: subject(ComparesAllTriples, memory="quadratic"), "faster than the square"),
    ("memory", lambda: subject(memory="quadratic"), "quadratic, but it grows linearly: .* for 1024 turns"),
    ("card", lambda: subject(title=" "), "title is empty"),
    ("card", lambda: subject(ours=[]), "neither"),
    ("card", lambda: subject(excused={"paddding": "why not"}), "excuses 'paddding', which is no check"),
    ("card", lambda: subject(excused={"padding": " "}), "without a reason"),
    ("card", lambda: subject(excused={"card": "no time"}), "nothing is excused from"),
    ("card", lambda: subject(settings={"meld": {"hiden_dim": 8}}), "Did you mean 'hidden_dim'"),
    ("card", lambda: subject(settings={"meld": {"learning_rate": 7}}), "learning_rate must lie in"),
    ("card", lambda: subject(reported={"meld": {"table": "Table 2", "features": "own"}}), "names no paper"),
    ("settings", lambda: subject(settings_class=OpenEndedSettings), "scale has no end"),
    ("settings", lambda: subject(settings_class=ForeignConditionSettings), "depends on fusion"),
    ("settings", lambda: subject(settings_class=ChoicesWithoutDefaultSettings), "does not hold the default 1"),
    ("settings", lambda: subject(settings_class=IllegalChoiceSettings), "holds 16, which is not legal"),
    ("settings", lambda: subject(settings_class=LogFromZeroSettings), "logarithmic, but starts at 0"),
    ("settings", lambda: subject(settings_class=OutOfRangeDefaultSettings), r"weight must lie in \[0, 1\], but is 2"),
    ("settings", lambda: subject(settings_class=RequiredSettings), "weight has no default"),
    ("settings", lambda: subject(settings_class=HidingSettings), "clip hides the trainer's"),
]


@pytest.mark.parametrize(("check", "broken", "message"), FURTHER, ids=[f"{name}-{text}" for name, _, text in FURTHER])
def test_further_fault_is_found(check: str, broken: Callable[[], Subject], message: str) -> None:
    result = MODEL_CHECKS[check].run(*broken())
    assert result.status == "failed"
    assert re.search(message, result.reason), result.reason


def test_card_excuses_a_check_with_its_reason() -> None:
    what = subject(HasAnIdleLayer, excused={"gradients": "the idle layer is kept for old checkpoints"})
    result = MODEL_CHECKS["gradients"].run(*what)
    assert (result.status, result.reason) == ("excused", "the idle layer is kept for old checkpoints")


SWITCHED_OFF = {"context": False, "learning_rate": 0.01}


def test_variants_are_the_tables_that_change_the_model() -> None:
    what, _ = subject(settings={"default": SWITCHED_OFF, "meld": {"hidden_dim": 8}, "iemocap": {"epochs": 3}})
    assert list(what.variants()) == ["settings.meld", "ablations.no-context", "defaults of the class"]
    assert what.settings()[0] == SampleSettings(context=False)
    assert what.variants()["settings.meld"].settings()[0] == SampleSettings(context=False, hidden_dim=8)
    assert what.variants()["defaults of the class"].settings()[0] == SampleSettings()


class SpeakersOnDemand(Sample):
    def speaker_flags(self, batch: Batch) -> Tensor:
        return super().speaker_flags(batch) * self.settings.context


def test_speakers_may_be_switched_off_by_default() -> None:
    switched_off = {"default": {"context": False}}
    assert MODEL_CHECKS["speakers"].run(*subject(SpeakersOnDemand, settings=switched_off)).status == "passed"


def test_needed_modality_is_in_every_subset() -> None:
    assert MODEL_CHECKS["modality-subsets"].run(*subject(NeedsText, needs=["text"])).status == "passed"


@pytest.mark.parametrize("deterministic", [False, True])
def test_checks_leave_the_global_state_alone(deterministic: bool) -> None:
    before = torch.are_deterministic_algorithms_enabled()  # a run of another test may have switched it on
    torch.use_deterministic_algorithms(deterministic)
    try:
        torch.manual_seed(4)
        expected = torch.rand(3)
        torch.manual_seed(4)
        MODEL_CHECKS["same-seed"].run(*subject())
        assert torch.equal(torch.rand(3), expected)
        assert torch.are_deterministic_algorithms_enabled() == deterministic
    finally:
        torch.use_deterministic_algorithms(before)


def test_every_check_says_what_it_is() -> None:
    for check in MODEL_CHECKS.values():
        assert check.summary.endswith(".")


def test_every_check_has_a_broken_model() -> None:
    assert {name for name, _, _ in BROKEN} | {"folder"} == set(MODEL_CHECKS)
