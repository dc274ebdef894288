"""Logistic regression against scikit-learn's own pipeline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mer_bench.api import FittedModel, InputSpec, build_model
from mer_bench.data.batches import Split
from mer_bench.errors import RunError, SettingError

CLASSES = ("calm", "glad", "cross")


def split(seed: int = 0, dialogues: int = 40, classes: int = 3, missing: float = 0.0) -> Split:
    """Dialogues of one to nine turns whose features tell the class a little."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 10, dialogues)
    rows = int(lengths.sum())
    labels = generator.integers(0, classes, rows)
    text = generator.normal(size=(rows, 6)) * [1, 10, 0.1, 1, 1, 1] + 5
    text[:, :3] += labels[:, None] * [1, 5, -0.1]
    audio = generator.normal(size=(rows, 2)) + labels[:, None] * 0.5
    present = torch.from_numpy(generator.random(rows) >= missing)
    return Split(
        "train",
        {"text": torch.tensor(text, dtype=torch.float32), "audio": torch.tensor(audio, dtype=torch.float32)},
        {"text": torch.ones(rows, dtype=torch.bool), "audio": present},
        torch.zeros(rows, dtype=torch.long),
        torch.tensor(np.concatenate([[0], np.cumsum(lengths)])),
        torch.from_numpy(labels),
    )


def fitted(data: Split, classes: tuple[str, ...] = CLASSES, size: int = 8, **settings: Any) -> FittedModel:
    spec = InputSpec({name: values.shape[1] for name, values in data.features.items()}, classes, 1)
    model = build_model("logistic", spec, settings)
    assert isinstance(model, FittedModel)
    model.fit(data.in_order(size))
    return model


def logits(model: FittedModel, data: Split) -> NDArray[np.float64]:
    """By utterance, in the order of the split."""
    batch = data.batch(range(data.dialogue_count)).without_labels()
    found: NDArray[np.float64] = model(batch).logits[batch.mask].detach().double().numpy()
    return found


def inputs(data: Split) -> NDArray[np.float64]:
    """Columns side by side, missing ones filled with the mean of those present, and presence columns."""
    columns = []
    for name, values in data.features.items():
        known = values.double().numpy().copy()
        there = data.present[name].numpy()
        known[~there] = known[there].mean(axis=0)
        # the deviation of the utterances that have the modality, as if the others were not there
        spread = known[there].std(axis=0)
        columns.append((known - known.mean(axis=0)) / spread)
    present = np.stack([data.present[name].numpy() for name in data.features], axis=1).astype(float)
    return np.concatenate([*columns, StandardScaler().fit_transform(present)], axis=1)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("balance", ["none", "balanced"])
@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_probabilities_are_scikit_learns(missing: float, balance: str, penalty: float) -> None:
    data = split(missing=missing)
    assert data.labels is not None
    model = fitted(data, inverse_regularisation=penalty, class_balance=balance, tolerance=1e-7)
    weights = "balanced" if balance == "balanced" else None
    wanted = LogisticRegression(C=penalty, class_weight=weights, tol=1e-7, max_iter=1000)
    wanted.fit(inputs(data), data.labels.numpy())
    found = torch.from_numpy(logits(model, data)).softmax(-1).numpy()
    assert np.abs(found - wanted.predict_proba(inputs(data))).max() < 1e-4
    assert (found.argmax(1) == data.labels.numpy()).mean() > 0.5


def test_two_classes() -> None:
    data = split(classes=2)
    assert data.labels is not None
    model = fitted(data, ("calm", "glad"), tolerance=1e-7, inverse_regularisation=0.1)
    wanted = LogisticRegression(C=0.1, tol=1e-7, max_iter=1000).fit(inputs(data), data.labels.numpy())
    found = torch.from_numpy(logits(model, data)).softmax(-1).numpy()
    assert np.abs(found - wanted.predict_proba(inputs(data))).max() < 1e-4


def test_a_class_that_train_lacks_is_never_predicted() -> None:
    data = split(classes=2)
    found = logits(fitted(data, ("calm", "glad", "cross")), data)
    assert np.isfinite(found).all()
    assert set(found.argmax(1)) == {0, 1}
    assert torch.from_numpy(found).softmax(-1)[:, 2].max() < 1e-3
    # the middle one lacking: scikit-learn's classes are then not 0, 1, 2
    assert data.labels is not None
    data.labels[data.labels == 1] = 2
    again = logits(fitted(data, ("calm", "glad", "cross")), data)
    assert np.allclose(again[:, [0, 2]], found[:, [0, 1]])


def test_utterances_without_label_are_not_learned_from() -> None:
    data = split()
    assert data.labels is not None
    chosen = slice(int(data.offsets[20]), None)
    data.labels[chosen] = -1
    first = logits(fitted(data), data)
    for values in data.features.values():
        values[chosen] += 100
    assert np.allclose(first[: chosen.start], logits(fitted(data), data)[: chosen.start])


def test_what_a_missing_modality_holds_does_not_matter() -> None:
    data = split(missing=0.3)
    first = logits(fitted(data), data)
    data.features["audio"][~data.present["audio"]] = 999.0
    assert np.array_equal(first, logits(fitted(data), data))


def test_the_presence_of_a_modality_can_tell_the_class() -> None:
    data = split()
    assert data.labels is not None
    data.present["audio"].copy_(data.labels != 1)
    model = fitted(data, inverse_regularisation=100.0)
    assert set(logits(model, data)[~data.present["audio"].numpy()].argmax(1)) == {1}


def test_a_column_that_never_changes_says_nothing() -> None:
    data = split()
    data.features["text"][:, 4] = 0.1
    first = logits(fitted(data), data)
    data.features["text"][:, 4] = 0.1 + 1e-8 * torch.randn(len(first))
    assert np.allclose(first, logits(fitted(data), data), atol=1e-5)


def test_the_same_data_give_the_same_bits_and_what_was_learned_is_saved() -> None:
    data = split()
    first, second = fitted(data), fitted(data)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert set(first.state_dict()) == {"mean", "scale", "weight", "bias"}
    fresh = build_model("logistic", first.spec)
    fresh.load_state_dict(first.state_dict())
    assert isinstance(fresh, FittedModel)
    assert np.array_equal(logits(fresh, data), logits(first, data))


def test_no_convergence_is_an_error_that_says_what_to_raise() -> None:
    data = split(dialogues=80)
    # Thirty columns that are nearly the same: a long and narrow valley.
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(data.utterance_count, 30, generator=generator) * torch.logspace(0, -3, 30)
    data = replace(data, features={"text": noise + noise[:, :1], "audio": data.features["audio"]})
    with pytest.raises(RunError, match=r"did not converge in 100 steps.* Raise max_iterations, .*\(now 1000\)"):
        fitted(data, inverse_regularisation=1000.0, max_iterations=100, tolerance=1e-12)


def test_one_class_is_an_error() -> None:
    data = split()
    assert data.labels is not None
    data.labels.fill_(1)
    with pytest.raises(RunError, match="needs two classes or more in the train split, but it has 1"):
        fitted(data)
    data.labels.fill_(-1)
    with pytest.raises(RunError, match="but it has 0"):
        fitted(data)


def test_settings_out_of_range() -> None:
    with pytest.raises(SettingError, match=r"inverse_regularisation must lie in \(0, 1000\], but is 0"):
        fitted(split(), inverse_regularisation=0)
