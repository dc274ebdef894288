"""MultiEMO against a slow reading of its formulas: PyTorch's own cells and attention, losses pair by pair."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from mer_bench_models.multiemo.config import MultiEmoConfig
from mer_bench_models.multiemo.context import ModalityDialogueRnns
from mer_bench_models.multiemo.fusion import MultiAttn
from mer_bench_models.multiemo.losses import focal_contrastive_loss, soft_hgr_loss
from mer_bench_models.multiemo.model import MultiEmo
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from mer_bench.api import InputSpec
from mer_bench.data.batches import NO_LABEL, Batch
from mer_bench.testing.model_checks import training_loss

CLASSES = ("anger", "joy", "neutral")
WIDTHS = {"text": 6, "audio": 4, "visual": 3}
ALL = ("text", "audio", "visual")
NARROW: dict[str, Any] = {"hidden_dim": 8, "heads": 2}


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_batch(lengths: list[int], modalities: tuple[str, ...] = ALL) -> Batch:
    turns = max(lengths)
    mask = torch.arange(turns) < torch.tensor(lengths).unsqueeze(1)
    generator = torch.Generator().manual_seed(5)
    who = torch.randint(0, 2, mask.shape, generator=generator)
    labels = torch.randint(0, len(CLASSES), mask.shape, generator=generator)
    return Batch(
        features={
            name: rows(*mask.shape, WIDTHS[name], seed=seed) * mask.unsqueeze(-1)
            for seed, name in enumerate(modalities)
        },
        present={name: mask.clone() for name in modalities},
        mask=mask,
        speakers=who * mask,
        lengths=torch.tensor(lengths),
        dialogues=torch.arange(len(lengths)),
        labels=torch.where(mask, labels, NO_LABEL),
    )


def make_model(modalities: tuple[str, ...] = ALL, **values: Any) -> MultiEmo:
    torch.manual_seed(0)
    spec = InputSpec({name: WIDTHS[name] for name in modalities}, CLASSES, 2)
    return moved(MultiEmo(spec, MultiEmoConfig(**{**NARROW, **values})))


def moved(module: Any) -> Any:
    """In eval mode and float64, away from its first weights."""
    module.double().eval()
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.add_(0.2 * rows(*parameter.shape, seed=seed))
    return module


def linear(stack: Any, index: int, values: Tensor) -> Tensor:
    return functional.linear(values, stack.weight[index].T, stack.bias[index, 0])


def norm(stack: Any, index: int, values: Tensor) -> Tensor:
    return functional.layer_norm(values, values.shape[-1:], stack.weight[index, 0], stack.bias[index, 0])


# Context ----------------------------------------------------------------------------------------


def literal_dialogue_rnn(cells: dict[str, nn.GRUCell], vector: Tensor, values: Tensor, who: list[int]) -> Tensor:
    """The emotion states of one dialogue in one direction, from one utterance to the next: (T, width)."""
    width = values.shape[-1]
    zero = torch.zeros(1, width, dtype=torch.float64)
    state, emotion = zero, zero
    history: list[Tensor] = []
    emotions: list[Tensor] = []
    parties: dict[int, Tensor] = {}
    for utterance, speaker in zip(values.unsqueeze(1), who, strict=True):
        party = parties.get(speaker, zero)
        state = cells["global_cell"](torch.cat([utterance, party], 1), state)
        context = zero
        if history:
            past = torch.cat(history)  # (t, width)
            context = (past @ vector).softmax(0).unsqueeze(0) @ past
        history.append(state)
        parties[speaker] = cells["party_cell"](torch.cat([utterance, context], 1), party)
        emotion = cells["emotion_cell"](parties[speaker], emotion)
        emotions.append(emotion)
    return torch.cat(emotions)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_context_is_one_dialogue_rnn_for_each_modality(bidirectional: bool) -> None:
    count, width, sides = 3, 8, 2 if bidirectional else 1
    context: ModalityDialogueRnns = moved(
        ModalityDialogueRnns(MultiEmoConfig(**NARROW, bidirectional=bidirectional), count)
    )
    plain: dict[tuple[int, int], dict[str, nn.GRUCell]] = {}
    for modality in range(count):
        for side in range(sides):
            cells = {
                "global_cell": nn.GRUCell(2 * width, width).double(),
                "party_cell": nn.GRUCell(2 * width, width).double(),
                "emotion_cell": nn.GRUCell(width, width).double(),
            }
            for name, cell in cells.items():
                getattr(context, name).load_cell(
                    modality * sides + side, cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh
                )
            plain[modality, side] = cells
    lengths = [3, 6, 1]
    batch = make_batch(lengths)
    values = rows(count, len(lengths), max(lengths), width, seed=9)
    with torch.no_grad():
        got = context(values, batch)
        for modality in range(count):
            for row, length in enumerate(lengths):
                own, who = values[modality, row, :length], batch.speakers[row, :length].tolist()
                vector = context.score[modality * sides : (modality + 1) * sides, 0]
                states = literal_dialogue_rnn(plain[modality, 0], vector[0], own, who)
                if context.joined is not None:
                    back = literal_dialogue_rnn(plain[modality, 1], vector[1], own.flip(0), who[::-1]).flip(0)
                    states = linear(context.joined, modality, torch.cat([states, back], -1))
                torch.testing.assert_close(got[modality, row, :length], states.clamp_min(0))


def test_states_are_dropped_in_training_alone() -> None:
    batch = make_batch([3, 2])
    context = moved(ModalityDialogueRnns(MultiEmoConfig(**NARROW, recurrent_dropout=0.5, dropout=0.0), 3))
    values = rows(3, 2, 3, 8)
    assert torch.equal(context(values, batch), context(values, batch))
    context.train()
    assert not torch.equal(context(values, batch), context(values, batch))


def test_which_modalities_have_a_context() -> None:
    batch = make_batch([5])
    for values, read in (
        ({}, {"text", "audio", "visual"}),
        ({"text_context": False}, {"audio", "visual"}),
        ({"context": "none"}, set()),
    ):
        model = make_model(fusion="none", **values)
        before = model._in_context(batch)
        for index, name in enumerate(ALL):
            features = batch.features[name].clone()
            batch.features[name][0, 4] += 1
            # Something later reaches an utterance through a context alone, as there is no fusion.
            assert torch.equal(before[index, 0, 0], model._in_context(batch)[index, 0, 0]) == (name not in read)
            batch.features[name].copy_(features)


# Fusion -----------------------------------------------------------------------------------------


def literal_attention(stack: Any, index: int, queries: Tensor, source: Tensor) -> Tensor:
    plain = nn.MultiheadAttention(queries.shape[-1], stack.heads, batch_first=True).double()
    zero = torch.zeros(queries.shape[-1], dtype=torch.float64)
    with torch.no_grad():
        plain.in_proj_weight.copy_(torch.cat([part.weight[index].T for part in (stack.query, stack.key, stack.value)]))
        plain.in_proj_bias.copy_(torch.cat([stack.query.bias[index, 0], zero, stack.value.bias[index, 0]]))
        plain.out_proj.weight.copy_(stack.result.weight[index].T)
        plain.out_proj.bias.copy_(stack.result.bias[index, 0])
    result: Tensor = plain(queries[None], source[None], source[None])[0][0]
    return result


def test_each_modality_looks_at_the_others_in_their_order() -> None:
    fusion: MultiAttn = moved(MultiAttn(MultiEmoConfig(**NARROW, layers=2), 3))
    lengths = [4, 2]
    batch = make_batch(lengths)
    present = torch.stack(list(batch.present.values())).clone()
    present[1, 0, 2] = False
    values = rows(3, 2, 4, 8)
    with torch.no_grad():
        got = fusion(values, present)
        for row, length in enumerate(lengths):
            for own, others in ((0, (1, 2)), (1, (0, 2)), (2, (0, 1))):
                states = values[own, row, :length]
                for part in fusion.layers:
                    layer = cast(Any, part)
                    for number, other in enumerate(others):
                        source = values[other, row, :length][present[other, row, :length]]
                        found = literal_attention(layer.attentions[number], own, states, source)
                        states = norm(layer.norms[number], own, states + found)
                    inner = linear(layer.inner, own, states).clamp_min(0)
                    states = norm(layer.last_norm, own, states + linear(layer.outer, own, inner))
                torch.testing.assert_close(got[own, row, :length], states)


# Losses -----------------------------------------------------------------------------------------


def literal_contrastive(features: Tensor, labels: list[int], temperature: float, focus: float, rarity: float) -> float:
    directions = features / features.norm(dim=1, keepdim=True)
    classes = sorted(set(labels))
    raw = {label: (len(labels) / labels.count(label)) ** rarity for label in classes}
    total = 0.0
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i]
        scores = {j: math.exp(float(directions[i] @ directions[j]) / temperature) for j in others}
        shares = {j: score / sum(scores.values()) for j, score in scores.items()}
        alike = [j for j in others if labels[j] == label]
        if alike:
            mean = sum(math.log(shares[j]) * (1 - shares[j]) ** focus for j in alike) / len(alike)
            total += mean * raw[label] / sum(raw.values())
    return -total / len(labels)


@pytest.mark.parametrize(("temperature", "focus", "rarity"), [(0.8, 2.0, 0.8), (1.4, 0.0, 0.0), (0.1, 0.5, 1.2)])
def test_contrastive_loss_pair_by_pair(temperature: float, focus: float, rarity: float) -> None:
    features = rows(7, 4)
    labels = [0, 3, 0, 1, 3, 0, 5]  # 1 and 5 are alone with their class, and classes 2 and 4 are absent
    got = focal_contrastive_loss(features, torch.tensor(labels), temperature, focus, rarity)
    assert float(got) == pytest.approx(literal_contrastive(features, labels, temperature, focus, rarity), rel=1e-6)


def test_contrastive_loss_by_hand() -> None:
    # Two pairs at right angles: p of the like one is e / (e + 2), each class has half of the weight.
    features = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.0, 1.0]])
    share = math.e / (math.e + 2)
    got = focal_contrastive_loss(features, torch.tensor([0, 0, 1, 1]), 1.0, 2.0, 1.0)
    assert float(got) == pytest.approx(-0.5 * math.log(share) * (1 - share) ** 2, rel=1e-5)


@pytest.mark.parametrize("labels", [[0], [1, 1], [0, 1], [2, 2, 2]])
@pytest.mark.parametrize("focus", [0.0, 0.5, 2.0])
def test_losses_of_few_utterances_are_finite(labels: list[int], focus: float) -> None:
    features, other = rows(len(labels), 4).requires_grad_(), rows(len(labels), 4, seed=1).requires_grad_()
    loss = focal_contrastive_loss(features, torch.tensor(labels), 0.02, focus, 5.0) + soft_hgr_loss(features, other)
    loss.backward()
    assert bool(loss.isfinite())
    for values in (features, other):
        assert values.grad is not None
        assert bool(values.grad.isfinite().all())
    if len(labels) == 1:
        assert float(loss.detach()) == 0


def test_soft_hgr_loss_from_covariances() -> None:
    first, second = rows(9, 4) + 3, rows(9, 4, seed=1) - 2
    together = sum(float(torch.cov(torch.stack([first[:, k], second[:, k]]))[0, 1]) for k in range(4))
    spread = float(torch.trace(torch.cov(first.T) @ torch.cov(second.T)))
    assert float(soft_hgr_loss(first, second)) == pytest.approx(-(together - spread / 2) / 4)
    # What is not correlated at all costs, what is the same and white gains half of its width.
    white = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64) * math.sqrt(0.75)
    assert float(soft_hgr_loss(white, white)) == pytest.approx(-0.5)


# The whole --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modalities", "fusion"), [(ALL, "cross"), (ALL, "none"), (("audio", "text"), "cross"), (("visual",), "cross")]
)
def test_logits_and_terms_are_put_together_from_the_parts(modalities: tuple[str, ...], fusion: str) -> None:
    model = make_model(modalities, fusion=fusion, classifier=2)
    batch = make_batch([4, 2], modalities)
    for turn, lacking in ((1, modalities[0]), (2, modalities[-1])):
        batch.present[lacking][0, turn] = False
        batch.features[lacking][0, turn] = 0
    assert batch.labels is not None
    batch.labels[0, 3] = NO_LABEL
    with torch.no_grad():
        entered = [model.entries[name](batch.features[name]) for name in modalities]
        present = torch.stack(list(batch.present.values()))
        assert model.context is not None
        values = model.context(torch.stack(entered), batch)
        if model.fusion is not None:
            values = model.fusion(values, present)
        values = values * present.unsqueeze(-1)
        joined = model.joined(torch.cat(list(values), -1))
        output = model(batch)
        torch.testing.assert_close(output.logits, model.classes(model.inner(joined).relu()))
        counted = batch.labels >= 0
        config = model.settings
        contrastive = literal_contrastive(
            joined[counted], batch.labels[counted].tolist(), config.temperature, config.focus, config.rarity
        )
        assert float(output.losses["contrastive"].value) == pytest.approx(contrastive)
        expected = 0.0
        for first in range(len(modalities)):
            for second in range(first + 1, len(modalities)):
                both = present[first] & present[second]
                expected += float(soft_hgr_loss(values[first][both], values[second][both]))
        assert ("correlation" in output.losses) == (len(modalities) > 1)
        if len(modalities) > 1:
            assert float(output.losses["correlation"].value) == pytest.approx(expected)


def test_terms_that_count_nothing_are_not_computed() -> None:
    batch = make_batch([3, 2])
    assert set(make_model()(batch).losses) == {"contrastive", "correlation"}
    assert set(make_model()(batch.without_labels()).losses) == {"correlation"}
    assert not make_model(contrastive_weight=0.0, correlation_weight=0.0)(batch).losses


def test_mixed_precision_runs() -> None:
    model = make_model().float()
    batch = make_batch([4, 2]).to("cpu", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = training_loss(model(batch), batch)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of heads"):
        MultiEmoConfig(hidden_dim=30, heads=4)
