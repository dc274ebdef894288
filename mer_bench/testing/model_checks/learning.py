"""Training: gradients, learning, repetition, and what a state dict holds."""

from __future__ import annotations

from dataclasses import replace

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from mer_bench.api import NO_LABEL, TrainerSettings
from mer_bench.config import validated
from mer_bench.seeding import deterministic_algorithms
from mer_bench.testing.checks import Failed, NotApplicable
from mer_bench.testing.model_checks.outputs import expect_equal, expect_trainable, predict, train
from mer_bench.testing.model_checks.subject import ModelSubject, model_check
from mer_bench.testing.samples import learnable_split, sample_split, whole

LEARNING_EPOCHS = 400


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
        expect_trainable(model, batch, "on a batch of all modalities")
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
        train(model, split, training, 10, seed=round_)
        guessed = predict(model, batch.without_labels()).logits[batch.mask].argmax(-1)
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
        losses = train(model, split, training, 3, seed=7)
        results.append((start, losses, predict(model, batch.without_labels()).logits))
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
    expected = predict(model, batch).logits
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
    expect_equal(expected, predict(fresh, batch).logits, what, 0.0)


@model_check("unseen-class")
def check_unseen_class(subject: ModelSubject) -> None:
    """A class that no train utterance has gives finite results still."""
    spec = subject.spec()
    split = sample_split(spec, dtype=torch.float32)
    assert split.labels is not None
    for absent in (0, spec.class_count - 1):
        poor = replace(split, labels=split.labels.masked_fill(split.labels == absent, NO_LABEL))
        model = subject.build(spec)
        train(model, poor, subject.settings()[1], 1, seed=0)
        predict(model, whole(split).without_labels())
