"""The trainer: its criterion against PyTorch's own, its state, its stopping, its faults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench import registry, runner, trainer
from mer_bench.api import NO_LABEL, Auxiliary, Batch, FittedModel, InputSpec, LossTerm, Model, Output, Split
from mer_bench.config import Settings, TrainerSettings
from mer_bench.errors import DivergedError, OutOfMemoryError, RequestError
from mer_bench.metrics import score
from mer_bench.records import Scores

CLASSES = ("calm", "glad", "cross")
SPEC = InputSpec({"text": 6, "audio": 3}, CLASSES, speakers=2)


class Reader(Model):
    """A GRU with dropout: enough to have random streams of its own."""

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.gru = nn.GRU(sum(spec.widths.values()), 8, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(8, spec.class_count)

    def forward(self, batch: Batch) -> Output:
        hidden, _ = self.gru(torch.cat(list(batch.features.values()), dim=-1))
        return Output(self.out(self.drop(hidden)), diagnostics={"norm": hidden.detach().norm()})


def split(name: str, dialogues: int, seed: int) -> Split:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 9, dialogues)
    rows = int(lengths.sum())
    labels = torch.as_tensor(generator.integers(0, 3, rows))
    text = F.one_hot(labels, 6).float() + torch.as_tensor(generator.normal(0, 0.6, (rows, 6))).float()
    return Split(
        name,
        {"text": text, "audio": torch.as_tensor(generator.normal(size=(rows, 3))).float()},
        {"text": torch.ones(rows, dtype=torch.bool), "audio": torch.ones(rows, dtype=torch.bool)},
        torch.as_tensor(generator.integers(0, 2, rows)),
        torch.as_tensor(np.concatenate([[0], np.cumsum(lengths)])),
        labels,
    )


TRAIN, DEV = split("train", 40, 1), split("dev", 12, 2)


def score_dev(log_probabilities: Tensor) -> Scores:
    names = [f"u{index}" for index in range(DEV.utterance_count)]
    return score(runner.predictions_of(DEV, (names, names), CLASSES, log_probabilities))


def make(model: type[Model] = Reader, metric: str = "weighted_f1", seed: int = 3, **values: Any) -> trainer.Trainer:
    settings = TrainerSettings(**{"epochs": 6, "learning_rate": 0.01, "batch_size": 8, **values})
    return trainer.Trainer(lambda: model(SPEC, Settings()), settings, metric, seed, torch.device("cpu"))


@given(
    st.integers(2, 7),
    st.integers(1, 5),
    st.integers(1, 6),
    st.floats(0, 0.5),
    st.booleans(),
    st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=60)
def test_cross_entropy_is_that_of_pytorch(
    classes: int, dialogues: int, turns: int, smoothing: float, weighted: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(dialogues, turns, classes)
    labels = torch.randint(-1, classes, (dialogues, turns))
    labels[0, 0] = 0
    weights = torch.rand(classes) + 0.1 if weighted else None
    ours = trainer.Criterion(weights, 0.0, 0.0)(logits, labels)
    reference = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weights, ignore_index=NO_LABEL)
    torch.testing.assert_close(ours, reference)
    smooth = trainer.Criterion(None, 0.0, smoothing)(logits, labels)
    reference = F.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, label_smoothing=smoothing
    )
    torch.testing.assert_close(smooth, reference)


def test_focal_loss_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0], [np.log(3.0), 0.0]]], dtype=torch.float32)  # p = 1/2, 3/4
    loss = trainer.Criterion(None, 2.0, 0.0)(logits, torch.tensor([[0, 0]]))
    by_hand = (0.25 * np.log(2) + 0.0625 * np.log(4 / 3)) / 2
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)


def test_no_label_at_all_costs_nothing_and_breaks_nothing() -> None:
    logits = torch.randn(2, 3, 3, requires_grad=True)
    loss = trainer.Criterion(torch.ones(3), 1.0, 0.1)(logits, torch.full((2, 3), NO_LABEL))
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]


@given(
    st.sampled_from(["none", "inverse", (0.5, 1.0, 2.0)]),
    st.sampled_from([0.0, 2.0]),
    st.sampled_from([0.0, 0.2]),
    st.lists(st.lists(st.integers(-1, 2), min_size=4, max_size=4), min_size=1, max_size=4),
)
@example("none", 0.0, 0.0, [[NO_LABEL] * 4])
@example("inverse", 2.0, 0.2, [[NO_LABEL] * 4])
@settings(deadline=None, max_examples=60)
def test_a_batch_with_few_labels_or_none_has_a_finite_loss_and_gradient(
    weights: Any, gamma: float, smoothing: float, labels: list[list[int]]
) -> None:
    values = TrainerSettings(class_weights=weights, focal_gamma=gamma, label_smoothing=smoothing)
    criterion = trainer.Criterion.for_split(values, TRAIN, 3)
    target = torch.tensor(labels)
    torch.manual_seed(0)
    logits = torch.randn(*target.shape, 3, requires_grad=True)
    student = torch.randn(*target.shape, 3, requires_grad=True)
    there = torch.rand(target.shape) < 0.5
    batch = Batch({}, {}, torch.ones_like(there), target, target[:, 0], target[:, 0], target)
    terms = trainer.loss_terms(Output(logits, {"s": Auxiliary(student, 0.5, there)}), batch, criterion, 0.5)
    terms["total"].backward()
    for given_logits, term, counted in (
        (logits, terms["task"], target != NO_LABEL),
        (student, terms["task_s"], (target != NO_LABEL) & there),
    ):
        assert given_logits.grad is not None
        assert torch.isfinite(given_logits.grad).all()
        assert (given_logits.grad[~counted] == 0).all()
        # What is not counted does not even change the mean: it is that of the labelled ones alone.
        rows = given_logits.detach()[counted]
        assert term.item() == (criterion(rows[None], target[counted][None]).item() if len(rows) else 0.0)


def hiding(split: Split, share: float, dialogues: int = 0) -> Split:
    """The same split with fewer labels: none in the first dialogues, and a share of the others gone."""
    assert split.labels is not None
    generator = torch.Generator().manual_seed(0)
    hidden = torch.rand(split.utterance_count, generator=generator) < share
    hidden[: int(split.offsets[dialogues])] = True
    return replace(split, labels=split.labels.masked_fill(hidden, NO_LABEL))


@pytest.mark.parametrize("weights", ["none", "inverse"])
def test_it_trains_where_most_utterances_are_context_only(weights: str) -> None:
    train = hiding(TRAIN, 0.5, dialogues=17)  # whole batches of one dialogue have no label
    trained = make(epochs=4, batch_size=1, class_weights=weights).fit(train, DEV, score_dev)
    for epoch in trained.curve:
        assert all(np.isfinite(value) for value in epoch.train.values())
    assert all(torch.isfinite(value).all() for value in trained.model.state_dict().values())
    assert trained.dev.weighted_f1 > 0.4


@pytest.mark.parametrize("name", ["cmath", "dialoguernn", "mmgcn"])
def test_networks_train_on_batches_without_a_label(name: str) -> None:
    loaded = registry.load_model(name)
    mute = hiding(TRAIN, 0.5, dialogues=17)
    assert mute.labels is not None
    assert (mute.labels[: int(mute.offsets[17])] == NO_LABEL).all()
    values = TrainerSettings(epochs=1, batch_size=1, class_weights="inverse", precision="float32")
    machine = trainer.Trainer(
        lambda: loaded.model_class(SPEC, loaded.settings({})), values, "weighted_f1", 0, torch.device("cpu")
    )
    trained = machine.fit(mute, DEV, score_dev)
    assert all(np.isfinite(value) for value in trained.curve[0].train.values())
    assert all(torch.isfinite(value).all() for value in trained.model.state_dict().values())


def test_class_weights_count_labelled_utterances_alone() -> None:
    values = TrainerSettings(class_weights="inverse")
    poor = hiding(TRAIN, 0.4)
    assert poor.labels is not None
    kept = poor.labels[poor.labels != NO_LABEL]
    weights = trainer.Criterion.for_split(values, poor, 3).weights
    assert weights is not None
    counts = torch.bincount(kept, minlength=3)
    torch.testing.assert_close(weights[0] / weights[2], counts[2] / counts[0])
    assert weights[kept].mean().item() == pytest.approx(1, abs=1e-6)


def test_a_train_split_without_labels_is_refused() -> None:
    for mute in (hiding(TRAIN, 1.0), replace(TRAIN, labels=None)):
        with pytest.raises(RequestError, match="no utterance of the split train has a label"):
            make().fit(mute, DEV, score_dev)


@pytest.mark.parametrize("name", ["majority", "logistic"])
@given(st.integers(0, 100), st.integers(0, 3), st.integers(0, 4))
@settings(deadline=None, max_examples=6)
def test_context_without_labels_changes_no_score_of_a_model_without_context(
    name: str, seed: int, utterances: int, dialogues: int
) -> None:
    model = registry.load_model(name)

    def trained(train: Split) -> Model:
        fitted = model.model_class(SPEC, model.settings({}))
        assert isinstance(fitted, FittedModel)
        fitted.fit(train.in_order(8))
        return fitted

    def scored(fitted: Model, dev: Split) -> Scores:
        names = [f"u{index}" for index in range(dev.utterance_count)]
        owner = np.repeat(np.arange(dev.dialogue_count), dev.lengths.numpy())
        identifiers = (names, [f"d{number}" for number in owner])
        return score(runner.predictions_of(dev, identifiers, CLASSES, trainer.log_probabilities(fitted, dev)))

    before, after = (
        scored(trained(TRAIN), with_context(DEV, seed, *counts)) for counts in ((0, 0), (utterances, dialogues))
    )
    assert after.confusion == before.confusion
    assert after.model_copy(update={"calibration_error": 0.0}) == before.model_copy(update={"calibration_error": 0.0})
    assert after.calibration_error == pytest.approx(before.calibration_error, abs=1e-2)
    # Nor does it change what is learned.
    own, more = trained(TRAIN).state_dict(), trained(with_context(TRAIN, seed, utterances, dialogues)).state_dict()
    for value, other in zip(own.values(), more.values(), strict=True):
        torch.testing.assert_close(other, value, rtol=1e-4, atol=1e-5)


def with_context(split: Split, seed: int, utterances: int, dialogues: int) -> Split:
    """The same split with utterances without label at the end of each dialogue, and dialogues of such alone."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [int(length) for length in split.lengths]
    pieces = [torch.arange(a, b) for a, b in zip(split.offsets[:-1].tolist(), split.offsets[1:].tolist(), strict=True)]
    rows = [torch.cat([piece, torch.full((utterances,), -1)]) for piece in pieces]
    rows += [torch.full((2,), -1)] * dialogues
    old = torch.cat(rows)
    added = old < 0
    assert split.labels is not None

    def mixed(values: Tensor) -> Tensor:
        noise = torch.randn(len(old), *values.shape[1:], generator=generator).to(values.dtype)
        return torch.where(added.view(-1, *[1] * (values.ndim - 1)), noise, values[old])

    new_lengths = [length + utterances for length in lengths] + [2] * dialogues
    return Split(
        split.name,
        {name: mixed(values) for name, values in split.features.items()},
        {name: values[old] | added for name, values in split.present.items()},
        split.speakers[old].masked_fill(added, 0),
        torch.tensor([0, *np.cumsum(new_lengths).tolist()]),
        split.labels[old].masked_fill(added, NO_LABEL),
    )


def test_inverse_weights_have_mean_one_over_the_train_split() -> None:
    criterion = trainer.Criterion.for_split(TrainerSettings(class_weights="inverse"), TRAIN, 3)
    assert criterion.weights is not None
    assert TRAIN.labels is not None
    assert criterion.weights[TRAIN.labels].mean().item() == pytest.approx(1, abs=1e-6)
    counts = torch.bincount(TRAIN.labels, minlength=3)
    torch.testing.assert_close(criterion.weights[0] / criterion.weights[1], counts[1] / counts[0])
    with pytest.raises(RequestError, match="3 classes"):
        trainer.Criterion.for_split(TrainerSettings(class_weights=(1.0, 2.0)), TRAIN, 3)


def test_the_total_is_the_weighted_sum_of_its_terms() -> None:
    batch = TRAIN.batch([0, 1, 2])
    logits, student = torch.randn(*batch.mask.shape, 3), torch.randn(*batch.mask.shape, 3)
    heard = torch.zeros_like(batch.mask)
    heard[:, 0] = True
    output = Output(
        logits,
        {"text": Auxiliary(student, 0.5, heard)},
        {"late": LossTerm(torch.tensor(4.0), 0.1, "ramp"), "warm": LossTerm(torch.tensor(2.0), 3.0, "warmup")},
    )
    criterion = trainer.Criterion()
    terms = trainer.loss_terms(output, batch, criterion, progress=0.05)
    assert batch.labels is not None
    by_hand = (
        F.cross_entropy(logits[batch.mask], batch.labels[batch.mask])
        + 0.5 * F.cross_entropy(student[:, 0], batch.labels[:, 0])
        + 0.1 * 0.1 * 4.0
        + 3.0 * 0.5 * 2.0
    )
    torch.testing.assert_close(terms["total"], by_hand)
    assert list(terms) == ["total", "task", "task_text", "late", "warm"]


def test_it_learns_and_keeps_the_earliest_best_epoch() -> None:
    machine = make(epochs=12)
    trained = machine.fit(TRAIN, DEV, score_dev)
    best = max(trained.curve, key=lambda epoch: epoch.dev["weighted_f1"])
    assert trained.selection.epoch == best.epoch
    assert trained.selection.score == best.dev["weighted_f1"]
    assert trained.dev.weighted_f1 == pytest.approx(best.dev["weighted_f1"], abs=0)
    assert trained.dev.weighted_f1 > 0.6
    assert trained.curve[0].train["total"] > trained.curve[-1].train["total"]
    assert trained.curve[0].diagnostics["norm"] > 0


def test_patience_ends_it() -> None:
    trained = make(epochs=200, patience=2, learning_rate=0.05).fit(TRAIN, DEV, score_dev)
    assert trained.selection.ended == "patience"
    assert len(trained.curve) == trained.selection.epoch + 2


def test_same_seed_same_numbers_and_another_seed_others() -> None:
    first, again, other = (make(seed=seed).fit(TRAIN, DEV, score_dev) for seed in (5, 5, 6))
    assert first.curve == again.curve
    assert first.curve != other.curve
    for left, right in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("average_decay", [0.0, 0.9])
def test_a_saved_state_goes_on_bit_for_bit(average_decay: float) -> None:
    whole = make(epochs=6, average_decay=average_decay)
    states: list[dict[str, Any]] = []
    ended = whole.fit(TRAIN, DEV, score_dev, lambda epoch, state: states.append(state.state_dict()))
    torch.manual_seed(999)
    resumed = make(epochs=6, average_decay=average_decay)
    resumed.state.load_state_dict(states[2])
    again = resumed.fit(TRAIN, DEV, score_dev)
    assert again.curve == ended.curve
    for left, right in zip(again.model.parameters(), ended.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_averaged_weights_are_scored_and_the_trained_ones_go_on() -> None:
    plain, averaged = make(epochs=3), make(epochs=3, average_decay=0.99)
    first, second = plain.fit(TRAIN, DEV, score_dev), averaged.fit(TRAIN, DEV, score_dev)
    assert [e.train["total"] for e in first.curve] == [e.train["total"] for e in second.curve]
    assert [e.dev["loss"] for e in first.curve] != [e.dev["loss"] for e in second.curve]


@pytest.mark.parametrize(("schedule", "half", "end"), [("flat", 1.0, 1.0), ("linear", 0.5, 0.0), ("cosine", 0.5, 0.0)])
def test_learning_rate_schedules(schedule: str, half: float, end: float) -> None:
    machine = make(schedule=schedule, warmup=0.2)
    assert machine.rate_factor(0, 100) == pytest.approx(1 / 21)
    assert machine.rate_factor(20, 100) == pytest.approx(1)
    assert machine.rate_factor(60, 100) == pytest.approx(half)
    assert machine.rate_factor(100, 100) == pytest.approx(end)


class Exploding(Reader):
    """Its loss is fine for one epoch and then is not a number."""

    calls = 0

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        Exploding.calls += batch.labels is not None
        bad = torch.tensor(float("nan") if Exploding.calls > 7 else 1.0)
        return Output(output.logits, losses={"sharpness": LossTerm(bad)})


def test_a_loss_that_is_not_a_number_names_epoch_term_and_remedy() -> None:
    Exploding.calls = 0
    with pytest.raises(DivergedError, match=r"term sharpness .* in epoch 2\. Try a lower learning_rate \(now 0.01\)"):
        make(Exploding).fit(TRAIN, DEV, score_dev)


class Hungry(Reader):
    def forward(self, batch: Batch) -> Output:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 1 bytes")


class Faulty(Reader):
    def forward(self, batch: Batch) -> Output:
        raise RuntimeError("shape '[3]' is invalid")


def test_exhausted_memory_is_told_from_other_faults() -> None:
    with pytest.raises(
        OutOfMemoryError,
        match=r"Hungry exhausted .* train: in a batch of \d+, dialogue number \d+ has \d+ utterances. Lower batch_size",
    ):
        make(Hungry).fit(TRAIN, DEV, score_dev)
    with pytest.raises(RuntimeError, match="shape"):
        make(Faulty).fit(TRAIN, DEV, score_dev)


def test_a_model_never_sees_a_label_it_is_scored_on() -> None:
    seen: list[bool] = []

    class Nosy(Reader):
        def forward(self, batch: Batch) -> Output:
            seen.append(batch.labels is not None and not self.training)
            return super().forward(batch)

    make(Nosy, epochs=2).fit(TRAIN, DEV, score_dev)
    assert seen
    assert not any(seen)


def test_a_fitted_model_has_one_epoch_and_no_loss() -> None:
    class Prior(FittedModel):
        def __init__(self, spec: InputSpec, settings: Settings) -> None:
            super().__init__(spec, settings)
            self.counts: Tensor
            self.register_buffer("counts", torch.zeros(spec.class_count))

        def fit(self, train: Any) -> None:
            for batch in train:
                self.counts += torch.bincount(batch.labels[batch.mask], minlength=3)

        def forward(self, batch: Batch) -> Output:
            return Output(self.counts.log().expand(*batch.mask.shape, -1))

    trained = make(Prior).fit(TRAIN, DEV, score_dev)
    assert trained.selection.ended == "fitted"
    assert trained.model.state_dict()["counts"].sum() == TRAIN.utterance_count
    assert len(trained.curve) == 1


def test_float16_is_refused_without_cuda() -> None:
    with pytest.raises(RequestError, match=r"float16 needs a cuda device.* or take bfloat16"):
        make(precision="float16")


def test_scores_do_not_depend_on_the_batch_they_were_computed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Reader(SPEC, Settings()).eval()
    whole = trainer.log_probabilities(model, DEV)
    monkeypatch.setattr(trainer, "SCORING_BATCH", 1)
    torch.testing.assert_close(trainer.log_probabilities(model, DEV), whole, rtol=0, atol=1e-6)


class SilentOnDev(Reader):
    """Sound while it trains, and NaN as soon as it is scored: a square root of a variance that dropout kept above 0."""

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        return output if self.training else Output(output.logits * float("nan"))


def test_scores_on_dev_that_are_no_numbers_end_the_run_with_what_to_do() -> None:
    with pytest.raises(DivergedError, match=r"NaN or infinite scores on dev in epoch 1\. Try a lower learning_rate"):
        make(SilentOnDev).fit(TRAIN, DEV, score_dev)
