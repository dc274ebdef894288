"""Modality dropout: what is dropped, what stays, what the model inside sees, and that any model may be inside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mer_bench_models.modality_dropout.model import ModalityDropout, divergence, keep_modalities, kept_modalities
from torch import Tensor
from torch.nn import functional

from mer_bench import registry
from mer_bench.api import Batch, FittedModel, InputSpec, Output
from mer_bench.errors import SettingError
from mer_bench.model_settings import settle
from mer_bench.testing import MODEL_CHECKS, ModelSubject
from mer_bench.testing.samples import sample_spec, sample_split, whole

SPEC = sample_spec(("text", "audio", "visual"))


def build(spec: InputSpec = SPEC, seed: int = 0, **values: Any) -> ModalityDropout:
    loaded = registry.load_model("modality-dropout")
    found = settle(loaded.plugin.card, loaded.settings_class, "default", values)
    torch.manual_seed(seed)
    return ModalityDropout(spec, found.settings)


def batch_of(gaps: bool = True, lengths: tuple[int, ...] = (5, 9, 1, 3, 7, 2)) -> Batch:
    return whole(sample_split(SPEC, gaps=gaps, lengths=lengths, dtype=torch.float32))


def stacked(kept: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(kept.values()))


@given(rate=st.floats(0, 1), by_dialogue=st.booleans(), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_what_is_missing_stays_missing_and_one_modality_stays(rate: float, by_dialogue: bool, seed: int) -> None:
    batch = batch_of()
    torch.manual_seed(seed)
    kept = stacked(kept_modalities(batch, rate, by_dialogue))
    there = stacked(dict(batch.present))
    assert not (kept & ~there).any()
    assert torch.equal(kept.any(0), there.any(0))


def test_nothing_is_dropped_at_rate_0_and_one_stays_at_rate_1() -> None:
    batch = batch_of()
    there = stacked(dict(batch.present))
    assert torch.equal(stacked(kept_modalities(batch, 0.0, False)), there)
    assert torch.equal(stacked(kept_modalities(batch, 1.0, False)).sum(0), there.any(0).long())


def test_dropped_share_is_the_rate_and_each_modality_is_spared_alike() -> None:
    batch = batch_of(gaps=False, lengths=(40,) * 60)
    torch.manual_seed(0)
    dropped = 1 - stacked(kept_modalities(batch, 0.3, False)).float().mean((1, 2))
    # 0.3 less a third of the utterances that would lose all three: 0.3 - 0.3^3 / 3 = 0.291.
    assert torch.allclose(dropped, torch.full((3,), 0.291), atol=0.03)
    spared = stacked(kept_modalities(batch, 1.0, False)).float().mean((1, 2))
    assert torch.allclose(spared, torch.full((3,), 1 / 3), atol=0.03)


def test_whole_dialogues_lose_a_modality() -> None:
    batch = batch_of(gaps=False)
    torch.manual_seed(0)
    kept = stacked(kept_modalities(batch, 0.5, True))
    for row, length in enumerate(batch.lengths.tolist()):
        own = kept[:, row, :length]
        assert torch.equal(own, own[:, :1].expand_as(own))
    assert not torch.equal(kept, stacked(dict(batch.present)))


def test_dropped_features_are_zero_and_the_batch_is_left_alone() -> None:
    batch = batch_of(gaps=False)
    before = {name: value.clone() for name, value in batch.features.items()}
    none = {name: torch.zeros_like(there) for name, there in batch.present.items()}
    poor = keep_modalities(batch, {**none, "text": batch.present["text"]})
    assert not poor.features["audio"].any()
    assert torch.equal(poor.features["text"], batch.features["text"])
    assert all(torch.equal(batch.features[name], value) for name, value in before.items())


class Recorder(torch.nn.Module):
    """Stands where the inner model is and keeps what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Batch] = []
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch) -> Output:
        self.seen.append(batch)
        counts = stacked(dict(batch.present)).sum(0).unsqueeze(-1) * self.scale
        return Output(functional.pad(counts, (0, SPEC.class_count - 1)))


def recorded(**values: Any) -> tuple[ModalityDropout, Recorder]:
    model = build(**values)
    recorder = Recorder()
    model.inner = recorder
    return model, recorder


def test_eval_mode_and_a_single_modality_are_the_model_inside() -> None:
    batch = batch_of()
    model, recorder = recorded(rate=0.9)
    model.eval()(batch)
    assert recorder.seen == [batch]
    one = replace(batch, features={"text": batch.features["text"]}, present={"text": batch.present["text"]})
    model.train()(one)
    assert recorder.seen[-1] is one


def test_training_shows_dropped_dialogues_alone_or_both_with_distillation() -> None:
    batch = batch_of()
    model, recorder = recorded(rate=0.9)
    assert model.train()(batch).losses == {}
    assert len(recorder.seen) == 1
    assert stacked(dict(recorder.seen[0].present)).sum() < stacked(dict(batch.present)).sum()
    model, recorder = recorded(rate=0.9, distillation=0.5)
    output = model.train()(batch)
    assert recorder.seen[1] is batch
    assert torch.equal(output.logits[..., 0], stacked(dict(batch.present)).sum(0) * model.inner.scale)
    assert output.losses["missing_modalities"].weight == 0.5
    assert output.losses["missing_modalities"].value > 0


def test_divergence_is_that_of_the_textbook_and_reads_no_padding() -> None:
    teacher, student = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    p, q = (teacher / 2).softmax(-1), (student / 2).softmax(-1)
    expected = 4 * (p * (p / q).log()).sum(-1)[mask].mean()
    assert divergence(teacher, student, mask, 2.0).item() == pytest.approx(expected.item())
    student[~mask] = float("nan")
    assert divergence(teacher, student, mask, 2.0).item() == pytest.approx(expected.item())


def test_teacher_is_not_taught() -> None:
    teacher = torch.randn(1, 2, 3, requires_grad=True)
    student = torch.randn(1, 2, 3, requires_grad=True)
    divergence(teacher.detach(), student, torch.ones(1, 2, dtype=torch.bool), 1.0).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_without_dropping_it_is_the_model_inside_bit_for_bit() -> None:
    batch = batch_of()
    model = build(rate=0.0, inner="mmgcn").train()
    torch.manual_seed(3)
    expected = model.inner.train()(batch).logits
    torch.manual_seed(3)
    assert torch.equal(model(batch).logits, expected)


NETWORKS = [
    name
    for name in registry.models().plugins
    if name != "modality-dropout" and not issubclass(registry.load_model(name).model_class, FittedModel)
]


SPEAKERS_ON = {"textonly": {"inner.speakers": True}}
"""What makes a model read who speaks, where its defaults do not."""


@pytest.mark.parametrize("check", ["output", "padding", "missing", "speakers", "same-seed"])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_may_be_inside(name: str, check: str) -> None:
    values = {"inner": name, "distillation": 0.5, **SPEAKERS_ON.get(name, {})}
    subject = ModelSubject(registry.load_model("modality-dropout"), values)
    result = MODEL_CHECKS[check].run(subject, {})
    assert result.status != "failed", result.reason


@pytest.mark.parametrize("name", ["logistic", "majority"])
def test_a_fitted_model_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match=f"inner={name} is fitted at one go"):
        build(inner=name)
