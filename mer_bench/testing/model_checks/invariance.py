"""Shapes, and what must not matter: padding, company, order, names, the future, labels."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from mer_bench.api import Batch
from mer_bench.testing.checks import Failed, NotApplicable
from mer_bench.testing.model_checks.outputs import (
    expect_equal,
    expect_labels_unread,
    expect_padding_harmless,
    expect_same_extras,
    expect_trainable,
    modality_subsets,
    predict,
    real_logits,
    situated,
)
from mer_bench.testing.model_checks.subject import ModelSubject, model_check
from mer_bench.testing.samples import garbage_where_missing, sample_spec, sample_split, whole, without


@model_check("output")
def check_output(subject: ModelSubject) -> None:
    """Logits, auxiliary logits, loss terms and diagnostics have the right shapes and finite values."""
    for classes, speakers in ((5, 3), (4, 1), (7, 2)):
        spec = subject.spec(classes, speakers)
        model = subject.ready(spec, dtype=torch.float32)
        if set(dict(model.spec.widths)) != set(spec.widths):
            raise Failed("model.spec should be the spec that the model was built for; call super().__init__.")
        batch = whole(sample_split(spec, dtype=torch.float32))
        predict(model, batch.without_labels())
        expect_trainable(model, batch, f"with {classes} classes")


@model_check("padding")
def check_padding(subject: ModelSubject) -> None:
    """Further padding, filled with garbage, changes nothing of a real utterance."""
    spec = subject.spec()
    model = subject.ready(spec)
    batch = whole(sample_split(spec))
    for turns in (0, 1, 6):
        expect_padding_harmless(model, batch, turns)


@model_check("batches")
def check_batches(subject: ModelSubject) -> None:
    """A dialogue's result does not depend on the dialogues beside it, nor on their order."""
    spec = subject.spec()
    model = subject.ready(spec)
    split = sample_split(spec)
    everything = whole(split)
    expected = predict(model, everything).logits
    orders = [list(reversed(range(split.dialogue_count)))]  # order
    orders += [[dialogue] for dialogue in range(split.dialogue_count)]  # alone
    orders += [[0, 2, 4], [1, 0]]  # other company
    for order in orders:
        batch = split.batch(order)
        got = predict(model, batch).logits
        for row, dialogue in enumerate(order):
            turns = int(batch.lengths[row])
            what = f"dialogue {dialogue} scores otherwise in the batch {order} than in one of all dialogues"
            expect_equal(expected[dialogue, :turns], got[row, :turns], what)


@model_check("absent-values")
def check_absent_values(subject: ModelSubject) -> None:
    """What stands in the features where a modality is not present does not matter."""
    spec = subject.spec()
    model = subject.ready(spec)
    batch = whole(sample_split(spec))
    expected = predict(model, batch)
    noisy = garbage_where_missing(batch)
    got = predict(model, noisy)
    what = "garbage in the features of utterances that lack the modality changes"
    expect_equal(real_logits(expected, batch), real_logits(got, noisy), f"{what} the logits")
    expect_same_extras(expected, batch, got, noisy, what)


@model_check("modality-subsets")
def check_modality_subsets(subject: ModelSubject) -> None:
    """Every non-empty subset of the declared modalities (with those it needs) works."""
    for chosen in modality_subsets(subject.card):
        spec = sample_spec(chosen)
        situation = f"with {', '.join(chosen)} only"
        with situated(situation):
            model = subject.ready(spec)
            batch = whole(sample_split(spec))
            predict(model, batch)
            expect_trainable(model, batch, situation)


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
        with situated(situation):
            predict(model, batch)
            expect_trainable(model, batch, situation)


@model_check("single-utterances")
def check_single_utterances(subject: ModelSubject) -> None:
    """Dialogues of one utterance work, in a batch and alone, in training too."""
    spec = subject.spec()
    model = subject.ready(spec)
    for count in (3, 1):
        batch = whole(sample_split(spec, lengths=[1] * count, gaps=False))
        predict(model, batch)
        expect_trainable(model, batch, f"with {count} dialogues of one utterance")


@model_check("speakers")
def check_speakers(subject: ModelSubject) -> None:
    """Who speaks matters just as the card says: not at all, up to renaming, or somehow."""
    card = subject.card
    spec = subject.spec()
    model = subject.ready(spec)
    batch = whole(sample_split(spec))
    expected = real_logits(predict(model, batch), batch)

    def with_speakers(speakers: Tensor) -> Tensor:
        other = replace(batch, speakers=speakers.masked_fill(~batch.mask, 0))
        return real_logits(predict(model, other), other)

    alternating = (torch.arange(batch.mask.shape[1]) % spec.speakers).expand_as(batch.speakers)
    if not card.uses_speakers:
        for other in (torch.zeros_like(batch.speakers), alternating):
            what = "the card says uses_speakers = false, but other speakers give other logits"
            expect_equal(expected, with_speakers(other), what)
        return
    if card.speaker_symmetric:
        for shift in range(1, spec.speakers):
            renamed = (batch.speakers + shift) % spec.speakers
            what = "the card says speaker_symmetric = true, but renaming the speakers changes the logits"
            expect_equal(expected, with_speakers(renamed), what)
    if not any(_reads_speakers(variant, batch) for variant in (subject, *subject.variants().values())):
        raise Failed("the model never reads who speaks, but the card says uses_speakers = true.")


def _reads_speakers(subject: ModelSubject, batch: Batch) -> bool:
    model = subject.ready(subject.spec())
    taking_turns = torch.arange(batch.mask.shape[1]) % model.spec.speakers * batch.mask
    one, many = (
        predict(model, replace(batch, speakers=speakers)).logits
        for speakers in (torch.zeros_like(batch.speakers), taking_turns)
    )
    return not torch.equal(one[batch.mask], many[batch.mask])


@model_check("labels-unseen")
def check_labels_unseen(subject: ModelSubject) -> None:
    """Scoring needs no labels and is not changed by them."""
    spec = subject.spec()
    expect_labels_unread(subject.ready(spec), whole(sample_split(spec)))


@model_check("eval-deterministic")
def check_eval_deterministic(subject: ModelSubject) -> None:
    """In eval mode the same batch gives the same bits, and scoring leaves the model as it was."""
    spec = subject.spec()
    model = subject.ready(spec, dtype=torch.float32)
    batch = whole(sample_split(spec, dtype=torch.float32))
    state = copy.deepcopy(model.state_dict())
    first = predict(model, batch)
    second = predict(model, batch)
    what = "in eval mode the same batch twice gives different"
    expect_equal(first.logits, second.logits, f"{what} logits", 0.0)
    for name, term in first.losses.items():
        expect_equal(term.value, second.losses[name].value, f"{what} values of the loss term {name}", 0.0)
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
    predict(model, batch)
    expect_trainable(model, batch, "on a batch with gaps")
    for name in ("features", "present"):
        for modality, value in getattr(before, name).items():
            if not torch.equal(value, getattr(batch, name)[modality]):
                raise Failed(f"forward writes into batch.{name}['{modality}']; work on a copy.")
    for name in ("mask", "speakers", "lengths", "dialogues", "labels"):
        if not torch.equal(getattr(before, name), getattr(batch, name)):
            raise Failed(f"forward writes into batch.{name}; work on a copy.")


@model_check("causal")
def check_causal(subject: ModelSubject) -> None:
    """A causal model never looks ahead: what comes later, or whether it comes, changes nothing before."""
    if not subject.card.causal:
        raise NotApplicable("the card does not say that the model is causal")
    spec = subject.spec()
    model = subject.ready(spec)
    batch = whole(sample_split(spec, lengths=(9, 9, 9, 9))).without_labels()
    other = whole(sample_split(spec, seed=5, lengths=(9, 9, 9, 9)))
    expected = predict(model, batch).logits
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
        expect_equal(expected[:, :turn], predict(model, changed).logits[:, :turn], what)
        cut = replace(
            batch,
            features={name: values[:, :turn] for name, values in batch.features.items()},
            present={name: there[:, :turn] for name, there in batch.present.items()},
            mask=batch.mask[:, :turn],
            speakers=batch.speakers[:, :turn],
            lengths=torch.full_like(batch.lengths, turn),
        )
        what = f"the card says causal = true, but ending the dialogue after turn {turn} changes the logits before it"
        expect_equal(expected[:, :turn], predict(model, cut).logits, what)
