"""CMATH: each formula on cases computed by hand, and what must not matter."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mer_bench_models.cmath.config import CmathConfig
from mer_bench_models.cmath.distillation import agreement, latent_loss, latent_teacher, response_loss
from mer_bench_models.cmath.fusion import (
    Gaussian,
    VariationalFusion,
    kl_divergence,
    product_of_experts,
    variational_loss,
)
from mer_bench_models.cmath.model import Cmath
from mer_bench_models.cmath.reconstruction import (
    MaskedConvolution,
    ModalityProjection,
    ModalityReconstruction,
    bottleneck_width,
    channel_steps,
    reconstruction_loss,
)
from mer_bench_models.cmath.transformer import (
    CmaLayer,
    CmaTransformer,
    Gate,
    StackSettings,
    SymmetricTransformer,
)
from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench.api import NO_LABEL, Batch, InputSpec, Output, Split
from mer_bench.errors import DataError, SettingError
from mer_bench.nn.attention import key_set
from mer_bench.registry import load_model

WIDTHS = {"text": 12, "audio": 4, "visual": 7}
SUBSETS = [chosen for size in (1, 2, 3) for chosen in combinations(WIDTHS, size)]
CLASSES = ("calm", "glad", "cross", "sad")
LENGTHS = (5, 3, 1, 4, 1)
SMALL: dict[str, Any] = {"hidden_dim": 16, "heads": 2, "layers": 2, "latent_dim": 6}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "no-gru": {"context": "none"},
    "learned": {"positions": "learned", "context": "none"},
    "no-positions": {"positions": "none", "speakers": False, "context_layers": 2},
    "window": {"window": 1, "speaker_bias": True},
    "relative": {"positions": "relative", "reach": 2, "context": "none"},
    "symmetric-relative": {"positions": "relative", "fusion": "symmetric"},
    "kernel": {"kernel": 3, "levels": 3, "skips": True},
    "no-reconstruction": {"reconstruction": False},
    "symmetric": {"fusion": "symmetric", "speaker_bias": True},
    "no-variational": {"variational": False},
    "no-distillation": {"distillation": False},
    "central": {"central": "text"},
    "symmetric-central": {"central": "text", "fusion": "symmetric"},
}


def spec(*modalities: str) -> InputSpec:
    return InputSpec({name: WIDTHS[name] for name in modalities or WIDTHS}, CLASSES, 3)


def build(values: dict[str, Any] | None = None, *modalities: str, noise: float = 0.1) -> Cmath:
    """A small model in float64, its weights moved a little, so that a path that starts at zero counts."""
    torch.manual_seed(0)
    model = Cmath(spec(*modalities), CmathConfig(**{**SMALL, **(values or {})})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return model.eval()


def split(*modalities: str, lengths: tuple[int, ...] = LENGTHS, gaps: float = 0.0, seed: int = 0) -> Split:
    generator = torch.Generator().manual_seed(seed)
    count = sum(lengths)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    names = modalities or tuple(WIDTHS)
    return Split(
        "train",
        {name: torch.randn(count, WIDTHS[name], generator=generator, dtype=torch.float64) for name in names},
        {name: torch.rand(count, generator=generator) >= gaps for name in names},
        torch.randint(3, (count,), generator=generator),
        offsets,
        torch.randint(len(CLASSES), (count,), generator=generator),
    )


def whole(source: Split) -> Batch:
    return source.batch(range(source.dialogue_count))


def criterion(logits: Tensor, labels: Tensor) -> Tensor:
    counted = labels != NO_LABEL
    return F.cross_entropy(logits[counted], labels[counted], reduction="sum") / counted.sum().clamp_min(1)


def training_loss(output: Output, batch: Batch) -> Tensor:
    assert batch.labels is not None
    total = criterion(output.logits, batch.labels)
    for auxiliary in output.auxiliary.values():
        assert auxiliary.mask is not None
        total = total + auxiliary.weight * criterion(
            auxiliary.logits, batch.labels.masked_fill(~auxiliary.mask, NO_LABEL)
        )
    for term in output.losses.values():
        total = total + term.weight * term.value
    return total


def expect_finite_gradients(model: Cmath, batch: Batch) -> None:
    model.train()
    model.zero_grad()
    loss = training_loss(model(batch), batch)
    assert bool(loss.isfinite())
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert bool(parameter.grad.isfinite().all()), name


# Modality Reconstruction ------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "hidden", "expected"), [(600, 128, 128), (300, 256, 150), (8, 128, 4), (3, 128, 4)])
def test_bottleneck_width(width: int, hidden: int, expected: int) -> None:
    assert bottleneck_width(width, hidden) == expected


def test_channels_shrink_step_by_step() -> None:
    assert channel_steps(600, 128, 1) == [600, 128]
    assert channel_steps(8, 4, 2) == [8, 6, 4]
    assert channel_steps(300, 128, 4) == [300, 257, 214, 171, 128]


def test_the_networks_channels_go_down_and_up() -> None:
    network = ModalityReconstruction(12, 16, levels=2, kernel=3, skips=True)
    shapes = [tuple(step.convolution.weight.shape) for step in (*network.down, *network.up)]
    # 12 -> 9 -> 6, then 6 -> 9, and the skip of that level beside it: 18 -> 12.
    assert shapes == [(9, 12, 3), (6, 9, 3), (9, 6, 3), (12, 18, 3)]
    plain = ModalityReconstruction(12, 16, levels=2, kernel=1, skips=False)
    assert [tuple(step.convolution.weight.shape) for step in (*plain.down, *plain.up)] == [
        (9, 12, 1),
        (6, 9, 1),
        (9, 6, 1),
        (12, 9, 1),
    ]


def test_reconstruction_by_hand_at_one_level() -> None:
    torch.manual_seed(0)
    network = ModalityReconstruction(12, 16, levels=1, kernel=1, skips=False).double()
    features = torch.randn(1, 3, 12, dtype=torch.float64)
    present = torch.ones(1, 3, dtype=torch.bool)
    compressed, rebuilt = network(features, present)
    down, up = network.down[0].convolution, network.up[0].convolution
    bottleneck = features @ down.weight[:, :, 0].T + down.bias
    torch.testing.assert_close(rebuilt, F.gelu(bottleneck) @ up.weight[:, :, 0].T + up.bias)
    linear, norm = network.compressed
    torch.testing.assert_close(compressed, norm(bottleneck @ linear.weight.T + linear.bias))


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_never_sees_what_is_not_there(kernel: int) -> None:
    torch.manual_seed(0)
    convolution = MaskedConvolution(4, 3, kernel).double()
    values = torch.randn(2, 6, 4, dtype=torch.float64)
    present = torch.tensor([[1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    expected = convolution.convolution((values * present.unsqueeze(-1)).transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(convolution(values, present), expected)
    spoilt = values.masked_fill(~present.unsqueeze(-1), float("nan"))
    assert torch.equal(convolution(spoilt, present), convolution(values, present))


def test_a_kernel_of_three_sees_the_neighbours_and_skips_bypass_the_bottleneck() -> None:
    features = torch.zeros(1, 7, 12, dtype=torch.float64, requires_grad=True)
    present = torch.ones(1, 7, dtype=torch.bool)
    for kernel, reach in ((1, 0), (3, 2)):
        network = ModalityReconstruction(12, 16, levels=2, kernel=kernel, skips=False).double()
        compressed, _ = network(features, present)
        (gradient,) = torch.autograd.grad(compressed[0, 3].square().sum(), features)
        seen = gradient[0].abs().sum(-1) > 0
        assert seen.tolist() == [abs(turn - 3) <= reach for turn in range(7)]


def test_reconstruction_loss_by_hand() -> None:
    present = {"text": torch.tensor([[True, True, False]]), "audio": torch.tensor([[True, False, False]])}
    target = {"text": torch.zeros(1, 3, 2), "audio": torch.zeros(1, 3, 4), "visual": torch.zeros(1, 3, 5)}
    present["visual"] = torch.zeros(1, 3, dtype=torch.bool)
    rebuilt = {
        "text": torch.tensor([[[1.0, 2.0], [0.0, 3.0], [99.0, 99.0]]]),
        "audio": torch.tensor([[[2.0, 0.0, 0.0, 0.0], [9.0] * 4, [9.0] * 4]]),
        "visual": torch.full((1, 3, 5), 7.0),
    }
    # text (1 + 4 + 9) / (2 x 2) = 3.5, audio 4 / (1 x 4) = 1, visual is nowhere and does not count.
    assert reconstruction_loss(rebuilt, target, present).item() == pytest.approx((3.5 + 1) / 2)
    nothing = {name: torch.zeros(1, 3, dtype=torch.bool) for name in present}
    assert reconstruction_loss(rebuilt, target, nothing).item() == 0


def test_the_target_of_the_reconstruction_is_not_dropped() -> None:
    model = build({"feature_dropout": 0.9}).train()
    batch = whole(split())
    for compressor in model.compressors.values():
        for step in compressor.up:
            nn.init.zeros_(step.convolution.weight)
            nn.init.zeros_(step.convolution.bias)
    expected = torch.stack(
        [batch.features[name][batch.mask].square().mean() for name in WIDTHS]
    ).mean()  # a reconstruction of zero misses all of the features
    torch.testing.assert_close(model(batch).losses["reconstruction"].value, expected)


def test_input_values_are_dropped_in_training_alone() -> None:
    values = {"dropout": 0.0, "head_dropout": 0.0, "latent_noise": 0.0}
    batch = whole(split())
    for share, same in ((0.0, True), (0.5, False)):
        model = build({**values, "feature_dropout": share})
        assert torch.equal(model(batch).logits, model(batch).logits)
        expected = model(batch).logits
        model.train()
        assert torch.allclose(model(batch).logits, expected) == same


# CMA-Transformer --------------------------------------------------------------------------------


def test_gate_by_hand() -> None:
    torch.manual_seed(0)
    gate = Gate(2, ["audio", "visual"])
    stream, found = torch.randn(1, 1, 2), {name: torch.ones(1, 1, 1, dtype=torch.bool) for name in ("audio", "visual")}
    messages = {"audio": torch.randn(1, 1, 2), "visual": torch.randn(1, 1, 2)}
    share = gate(stream, messages, found)
    assert share.shape == (3, 1, 1, 2)
    for dimension in range(2):
        scores = []
        for name in ("audio", "visual"):
            both = [*stream[0, 0].tolist(), *messages[name][0, 0].tolist()]
            row = gate.scores[name].weight[dimension].tolist()
            bias = gate.scores[name].bias[dimension].item()
            scores.append(sum(weight * value for weight, value in zip(row, both, strict=True)) + bias)
        scores.append(0.0)  # none starts at 0
        total = sum(math.exp(score) for score in scores)
        assert share[:, 0, 0, dimension].tolist() == pytest.approx([math.exp(score) / total for score in scores])


def test_gate_gives_nothing_to_an_absent_auxiliary() -> None:
    torch.manual_seed(0)
    gate = Gate(4, ["audio", "visual"])
    stream = torch.randn(3, 2, 4, requires_grad=True)
    messages = {name: torch.randn(3, 2, 4) for name in ("audio", "visual")}
    found = {
        "audio": torch.tensor([True, False, False]).view(3, 1, 1),
        "visual": torch.tensor([True, True, False]).view(3, 1, 1),
    }
    share = gate(stream, messages, found)
    torch.testing.assert_close(share.sum(0), torch.ones(3, 2, 4))
    assert bool((share[0, 1] == 0).all())
    assert bool((share[:2, 2] == 0).all())
    assert bool((share[2, 2] == 1).all())  # none takes it all
    share[0].sum().backward()
    assert stream.grad is not None
    assert bool(stream.grad.isfinite().all())


def stack_settings(**values: Any) -> StackSettings:
    given = {"width": 8, "heads": 2, "layers": 2, "feedforward": 2, "dropout": 0.0, "attention_dropout": 0.0}
    return StackSettings(**{**given, "speaker_bias": False, **values})


def test_a_layer_by_its_formula() -> None:
    torch.manual_seed(0)
    layer = CmaLayer(stack_settings(), "audio", ["text", "visual"]).double()
    stream, text, visual = torch.randn(3, 2, 4, 8, dtype=torch.float64)
    context = {"text": text, "visual": visual}
    keys = {name: key_set(torch.rand(2, 4) > 0.3) for name in WIDTHS}
    got, gate = layer(stream, context, keys, None)
    normed = layer.self_norm(stream)
    expected = stream + layer.self_attention(normed, normed, keys["audio"])
    normed = layer.cross_norm(expected)
    messages = {
        name: layer.cross_attentions[name](normed, layer.context_norms[name](value), keys[name])
        for name, value in context.items()
    }
    scores = torch.stack(
        [
            layer.gate.scores["text"](torch.cat([normed, messages["text"]], -1)),
            layer.gate.scores["visual"](torch.cat([normed, messages["visual"]], -1)),
            torch.zeros_like(stream),
        ]
    )
    share = scores.exp() / scores.exp().sum(0)
    expected = expected + share[0] * messages["text"] + share[1] * messages["visual"]
    expected = expected + layer.feedforward(layer.feedforward_norm(expected))
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(gate, share)


def test_the_residual_stream_is_the_central_modalitys_alone() -> None:
    """With the gate fully on none, what the auxiliaries say does not reach the central stream."""
    model = CmaTransformer(stack_settings(), ["text", "audio"], ["text", "audio"]).double()
    keys = {name: key_set(torch.ones(2, 4, dtype=torch.bool)) for name in ("text", "audio")}
    encoded = {name: torch.randn(2, 4, 8, dtype=torch.float64) for name in ("text", "audio")}
    other = {**encoded, "audio": torch.randn(2, 4, 8, dtype=torch.float64)}
    open_gate, _ = model(encoded, keys, None)
    assert not torch.allclose(open_gate["text"], model(other, keys, None)[0]["text"])
    with torch.no_grad():
        for layer in model.stacks["text"]:
            layer.gate.none.fill_(1e6)
    shut, gates = model(encoded, keys, None)
    assert torch.equal(shut["text"], model(other, keys, None)[0]["text"])
    assert bool((gates["text"][-1] == 1).all())


def test_every_central_modality_has_weights_of_its_own_and_symmetric_fusion_shares_them() -> None:
    names = list(WIDTHS)
    own = CmaTransformer(stack_settings(), names, names)
    assert set(own.stacks) == set(names)
    one = sum(parameter.numel() for parameter in CmaTransformer(stack_settings(), names, ["text"]).parameters())
    assert sum(parameter.numel() for parameter in own.parameters()) == 3 * one
    shared = SymmetricTransformer(stack_settings(), names, names)
    alone = SymmetricTransformer(stack_settings(), names, ["text"])
    count = sum(parameter.numel() for parameter in shared.parameters())
    assert count == sum(parameter.numel() for parameter in alone.parameters())
    assert not any("gate" in name for name, _ in shared.named_parameters())


def test_symmetric_fusion_treats_its_modalities_alike_and_takes_the_mean_of_those_there() -> None:
    names = ["text", "audio", "visual"]
    model = SymmetricTransformer(stack_settings(layers=1), names, names).double()
    encoded = {name: torch.randn(2, 4, 8, dtype=torch.float64) for name in names}
    keys = {name: key_set(torch.ones(2, 4, dtype=torch.bool)) for name in names}
    fine, gates = model(encoded, keys, None)
    assert gates == {}
    turned = {"text": encoded["audio"], "audio": encoded["visual"], "visual": encoded["text"]}
    again, _ = model(turned, keys, None)
    for now, before in (("text", "audio"), ("audio", "visual"), ("visual", "text")):
        torch.testing.assert_close(again[now], fine[before])
    # Dialogue 1 lacks audio: the mean is then over visual alone.
    absent = torch.tensor([[True] * 4, [False] * 4])
    keys["audio"] = key_set(absent)
    fine, _ = model(encoded, keys, None)
    pair = {name: encoded[name] for name in ("text", "visual")}
    two = SymmetricTransformer(stack_settings(layers=1), ["text", "visual"], ["text", "visual"]).double()
    two.load_state_dict(model.state_dict())
    torch.testing.assert_close(fine["text"][1], two(pair, keys, None)[0]["text"][1])


# Variational fusion -----------------------------------------------------------------------------


def test_product_of_experts_by_hand() -> None:
    experts = Gaussian(
        torch.tensor([2.0, -1.0, 5.0]).double().view(3, 1, 1, 1),
        torch.tensor([0.5, 0.25, 1.0]).double().log().view(3, 1, 1, 1),
    )
    present = torch.tensor([True, True, False]).view(3, 1, 1)
    product = product_of_experts(experts, present)
    # 1/sigma^2 = 1 + 2 + 4 = 7, mu = (2 x 2 + 4 x -1) / 7 = 0
    assert product.log_variance.exp().item() == pytest.approx(1 / 7)
    assert product.mean.item() == pytest.approx(0.0)
    present = torch.tensor([True, False, True]).view(3, 1, 1)
    product = product_of_experts(experts, present)
    # 1 + 2 + 1 = 4, (2 x 2 + 1 x 5) / 4
    assert product.log_variance.exp().item() == pytest.approx(1 / 4)
    assert product.mean.item() == pytest.approx(9 / 4)


def test_without_any_expert_the_product_is_the_prior() -> None:
    experts = Gaussian(torch.randn(2, 1, 3, 4), torch.randn(2, 1, 3, 4))
    product = product_of_experts(experts, torch.zeros(2, 1, 3, dtype=torch.bool))
    assert bool((product.mean == 0).all())
    assert bool((product.log_variance == 0).all())


@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-6, 3)), min_size=1, max_size=3),
)
@settings(max_examples=50, deadline=None)
def test_the_product_is_narrower_than_each_expert_and_its_mean_lies_between(pairs: list[tuple[float, float]]) -> None:
    values = torch.tensor(pairs, dtype=torch.float64)
    experts = Gaussian(values[:, 0].view(-1, 1, 1, 1), values[:, 1].view(-1, 1, 1, 1))
    product = product_of_experts(experts, torch.ones(len(pairs), 1, 1, dtype=torch.bool))
    assert product.log_variance.item() < min(0.0, float(values[:, 1].min()))
    means = [0.0, *values[:, 0].tolist()]
    assert min(means) - 1e-9 <= product.mean.item() <= max(means) + 1e-9


def test_kl_agrees_with_pytorchs_own() -> None:
    torch.manual_seed(0)
    left, right = Gaussian(*torch.randn(2, 50).double()), Gaussian(*torch.randn(2, 50).double())
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(left.mean, (0.5 * left.log_variance).exp()), normal(right.mean, (0.5 * right.log_variance).exp())
    )
    torch.testing.assert_close(kl_divergence(left, right), expected)


def test_variational_loss_by_hand_with_free_bits() -> None:
    # Two utterances and one of padding; dimension 0 far from the prior, dimension 1 at the prior.
    mean = torch.tensor([[[2.0, 0.0], [0.0, 0.0], [77.0, 77.0]]], requires_grad=True)
    product = Gaussian(mean, torch.zeros(1, 3, 2))
    mask = torch.tensor([[True, True, False]])
    loss = variational_loss(product, mask, free_bits=0.05)
    # KL of dimension 0: (4/2 + 0) / 2 = 1; of dimension 1: 0, below the free bits.
    assert loss.item() == pytest.approx((1.0 + 0.05) / 2)
    loss.backward()
    assert mean.grad is not None
    assert mean.grad[0, 0, 0] != 0
    assert bool((mean.grad[0, :, 1] == 0).all())
    assert bool((mean.grad[0, 2] == 0).all())


def test_log_variances_are_clamped() -> None:
    fusion = VariationalFusion(["text"], 4, 3)
    with torch.no_grad():
        fusion.experts["text"].weight.zero_()
        fusion.experts["text"].bias.copy_(torch.tensor([0.0, 0, 0, -50, 50, 1]))
    coarse = fusion({"text": torch.randn(1, 2, 4)}, torch.ones(1, 1, 2, dtype=torch.bool))
    assert coarse.experts is not None
    assert coarse.experts.log_variance[0, 0, 0].tolist() == [-6, 3, 1]


def test_fusion_weights_are_the_softmax_of_mean_log_precision() -> None:
    fusion = VariationalFusion(["text", "audio"], 4, 2).eval()
    with torch.no_grad():
        for name, log_variances in (("text", [-1.0, -3.0]), ("audio", [1.0, 0.0])):
            fusion.experts[name].weight.zero_()
            fusion.experts[name].bias.copy_(torch.tensor([0.3, -0.2, *log_variances]))
    present = torch.tensor([[[True, True, False, False]], [[True, False, True, False]]])
    fine = {name: torch.randn(1, 4, 4) for name in ("text", "audio")}
    coarse = fusion(fine, present)
    text = math.exp(2.0) / (math.exp(2.0) + math.exp(-0.5))
    assert coarse.weights[:, 0, 0].tolist() == pytest.approx([text, 1 - text])
    assert coarse.weights[:, 0, 1:].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert coarse.product is not None
    mixed = coarse.weights[0, 0, :, None] * fine["text"][0] + coarse.weights[1, 0, :, None] * fine["audio"][0]
    expected = fusion.fuse(torch.cat([coarse.product.mean[0], mixed], -1))
    torch.testing.assert_close(coarse.representation[0], expected)
    assert bool((mixed[3] == 0).all())  # with no modality: the prior's mean, and nothing beside it
    assert bool((coarse.product.mean[0, 3] == 0).all())


def test_without_the_variational_part_z_is_the_mean_of_those_there() -> None:
    fusion = VariationalFusion(["text", "audio"], 4, 2, variational=False).eval()
    present = torch.tensor([[[True, True, False]], [[True, False, False]]])
    fine = {name: torch.randn(1, 3, 4) for name in ("text", "audio")}
    coarse = fusion(fine, present)
    assert coarse.experts is None
    assert coarse.product is None
    text, audio = (fusion.experts[name](fine[name])[0] for name in ("text", "audio"))
    mixed = torch.stack([(fine["text"][0, 0] + fine["audio"][0, 0]) / 2, fine["text"][0, 1], torch.zeros(4)])
    latent = torch.stack([(text[0] + audio[0]) / 2, text[1], torch.zeros(2)])
    torch.testing.assert_close(coarse.representation[0], fusion.fuse(torch.cat([latent, mixed], -1)))


def test_training_draws_z_and_evaluation_takes_its_mean() -> None:
    torch.manual_seed(0)
    fusion = VariationalFusion(["text"], 4, 2)
    fine, present = {"text": torch.randn(1, 3, 4)}, torch.ones(1, 1, 3, dtype=torch.bool)
    assert not torch.equal(fusion(fine, present).representation, fusion(fine, present).representation)
    fusion.eval()
    assert torch.equal(fusion(fine, present).representation, fusion(fine, present).representation)
    still = VariationalFusion(["text"], 4, 2, noise=0.0)
    assert torch.equal(still(fine, present).representation, still(fine, present).representation)


def test_draws_have_the_gaussians_moments() -> None:
    torch.manual_seed(0)
    draws = Gaussian(torch.full((200_000,), 2.0), torch.full((200_000,), math.log(0.25))).sample()
    assert draws.mean().item() == pytest.approx(2.0, abs=0.01)
    assert draws.std().item() == pytest.approx(0.5, abs=0.01)


# Hierarchical distillation ----------------------------------------------------------------------


def test_response_loss_by_hand_and_without_gradient_to_the_teacher() -> None:
    teacher = torch.tensor([[[2.0, 0.0], [9.0, 9.0]]], requires_grad=True)
    student = torch.tensor([[[0.0, 0.0], [5.0, 1.0]]], requires_grad=True)
    present = torch.tensor([[True, False]])
    loss = response_loss(teacher, student, present, temperature=2.0)
    p = math.e / (math.e + 1)  # softmax of (2, 0) / 2
    expected = 4 * (p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None
    # T^2 / T x (softmax(student / T) - softmax(teacher / T))
    assert student.grad[0, 0].tolist() == pytest.approx([2 * (0.5 - p), 2 * (p - 0.5)], rel=1e-5)
    assert student.grad[0, 1].tolist() == [0, 0]


def test_a_student_that_agrees_has_no_loss() -> None:
    logits = torch.randn(2, 3, 4)
    present = torch.ones(2, 3, dtype=torch.bool)
    assert response_loss(logits, logits + 5, present, 2.0).item() == pytest.approx(0.0, abs=1e-5)
    assert agreement(logits, logits + 5, present).item() == 1
    assert agreement(logits, -logits, present).item() == 0


def test_the_latent_teacher_has_the_mean_precision_of_prior_and_experts() -> None:
    experts = Gaussian(torch.zeros(2, 1, 2, 1), torch.tensor([0.5, 0.25]).log().view(2, 1, 1, 1).expand(2, 1, 2, 1))
    present = torch.tensor([[[True, True]], [[True, False]]])
    product = product_of_experts(experts, present)
    teacher = latent_teacher(product, present)
    precisions = (-teacher.log_variance).exp().flatten().tolist()
    assert precisions == pytest.approx([(1 + 2 + 4) / 3, (1 + 2) / 2])
    torch.testing.assert_close(teacher.mean, product.mean)


def test_latent_loss_by_hand_and_without_gradient_to_the_teacher() -> None:
    mean = torch.tensor([1.0, 3.0]).double().view(2, 1, 1, 1).requires_grad_()
    experts = Gaussian(mean, torch.tensor([0.5, 2.0]).double().log().view(2, 1, 1, 1))
    product_mean = torch.tensor([[[0.5]]]).double().requires_grad_()
    product = Gaussian(product_mean, torch.tensor([[[0.2]]]).double().log().requires_grad_())
    present = torch.ones(2, 1, 1, dtype=torch.bool)
    loss = latent_loss(product, experts, present)
    variance = 3 * 0.2
    expected = sum(
        0.5 * (variance / v + (0.5 - m) ** 2 / v - 1 - math.log(variance / v)) for m, v in ((1.0, 0.5), (3.0, 2.0))
    )
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert product_mean.grad is None
    assert product.log_variance.grad is None
    assert mean.grad is not None
    assert mean.grad.flatten().tolist() == pytest.approx([(1 - 0.5) / 0.5, (3 - 0.5) / 2])
    # Where a modality is not there it learns nothing.
    alone = latent_loss(product, experts, torch.tensor([True, False]).view(2, 1, 1))
    assert alone.item() == pytest.approx(0.5 * (0.4 / 0.5 + 0.25 / 0.5 - 1 - math.log(0.4 / 0.5)))


def test_an_expert_that_is_the_teacher_has_no_loss() -> None:
    product = Gaussian(torch.randn(1, 3, 4), torch.randn(1, 3, 4))
    present = torch.ones(1, 1, 3, dtype=torch.bool)
    teacher = latent_teacher(product, present)
    same = Gaussian(teacher.mean.unsqueeze(0), teacher.log_variance.unsqueeze(0))
    assert latent_loss(product, same, present).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("term", ["distil_logit", "distil_latent"])
def test_no_distillation_gradient_reaches_what_only_the_teacher_has(term: str) -> None:
    model = build(noise=0.2).train()
    batch = whole(split(gaps=0.2))
    model(batch).losses[term].value.backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("teacher.", "fusion.fuse.")):
            assert parameter.grad is None, name
    reached = "students." if term == "distil_logit" else "fusion.experts."
    for name, parameter in model.named_parameters():
        if name.startswith(reached):
            assert parameter.grad is not None, name
            assert bool((parameter.grad != 0).any()), name


# The whole model --------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_and_its_contents_change_nothing(variant: str) -> None:
    model = build(VARIANTS[variant])
    batch = whole(split(gaps=0.3))
    expected = model(batch)
    more = 3

    def longer(value: Tensor, fill: float) -> Tensor:
        shape = (value.shape[0], more, *value.shape[2:])
        return torch.cat([value, torch.full(shape, fill, dtype=value.dtype)], dim=1)

    padded = replace(
        batch,
        features={
            name: longer(value, float("nan")).masked_fill(~longer(batch.present[name], 0).unsqueeze(-1), float("nan"))
            for name, value in batch.features.items()
        },
        present={name: longer(value, 0) for name, value in batch.present.items()},
        mask=longer(batch.mask, 0),
        speakers=longer(batch.speakers, 0),
        labels=None,
    )
    got = model(padded)
    torch.testing.assert_close(got.logits[:, :-more][batch.mask], expected.logits[batch.mask])
    for name, auxiliary in expected.auxiliary.items():
        assert auxiliary.mask is not None
        torch.testing.assert_close(
            got.auxiliary[name].logits[:, :-more][auxiliary.mask], auxiliary.logits[auxiliary.mask]
        )
    for name, term in expected.losses.items():
        torch.testing.assert_close(got.losses[name].value, term.value)
    for name, value in expected.diagnostics.items():
        torch.testing.assert_close(got.diagnostics[name], value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_company_and_order_change_nothing(variant: str) -> None:
    model = build(VARIANTS[variant])
    source = split(gaps=0.3)
    expected = model(whole(source)).logits
    for order in ([4, 3, 2, 1, 0], [1], [2], [3, 0]):
        batch = source.batch(order)
        got = model(batch).logits
        for row, dialogue in enumerate(order):
            turns = LENGTHS[dialogue]
            torch.testing.assert_close(got[row, :turns], expected[dialogue, :turns])


@pytest.mark.parametrize("variant", VARIANTS)
def test_evaluation_is_deterministic_and_ignores_labels(variant: str) -> None:
    model = build(VARIANTS[variant])
    batch = whole(split(gaps=0.3))
    first, second = model(batch), model(batch.without_labels())
    assert torch.equal(first.logits, second.logits)
    assert first.losses.keys() == second.losses.keys()
    assert all(torch.equal(term.value, second.losses[name].value) for name, term in first.losses.items())


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
@pytest.mark.parametrize("fusion", ["asymmetric", "symmetric"])
def test_every_subset_of_modalities(subset: tuple[str, ...], fusion: str) -> None:
    model = build({"fusion": fusion}, *subset)
    batch = whole(split(*subset, gaps=0.3))
    output = model(batch)
    assert output.logits.shape == (5, 5, 4)
    assert set(output.auxiliary) == set(subset)
    if len(subset) == 1:
        assert not any("cross" in name or "gate" in name for name, _ in model.named_parameters())
    expect_finite_gradients(model, batch)


@pytest.mark.parametrize("variant", VARIANTS)
def test_missing_modalities_give_finite_numbers(variant: str) -> None:
    model = build(VARIANTS[variant])
    full = whole(split())
    first = torch.zeros_like(full.mask)
    first[:, 0] = True
    dialogue = torch.zeros_like(full.mask)
    dialogue[0] = True
    everywhere = torch.ones_like(full.mask)
    for where in (first, dialogue, everywhere):
        for lacking in SUBSETS:
            present = {name: there & ~where if name in lacking else there for name, there in full.present.items()}
            features = {name: value * present[name].unsqueeze(-1) for name, value in full.features.items()}
            batch = replace(full, features=features, present=present)
            output = model.eval()(batch)
            assert bool(output.logits.isfinite().all())
            assert all(bool(term.value.isfinite()) for term in output.losses.values())
            assert all(bool(value.isfinite()) for value in output.diagnostics.values())
            expect_finite_gradients(model, batch)


@pytest.mark.parametrize("variant", ["default", "no-gru", "symmetric", "window"])
def test_a_missing_modality_is_as_if_the_run_had_never_had_it(variant: str) -> None:
    """A dialogue without visual: no key, no expert, no student. A model without visual says the same."""
    values = VARIANTS[variant]
    three, two = build(values), build(values, "text", "audio")
    kept = three.state_dict()
    two.load_state_dict({name: kept[name] for name in two.state_dict()})
    batch = whole(split())
    bare = replace(
        batch,
        present={**batch.present, "visual": torch.zeros_like(batch.mask)},
        features={**batch.features, "visual": torch.zeros_like(batch.features["visual"])},
    )
    expected = two(whole(split()))
    got = three(bare)
    torch.testing.assert_close(got.logits[batch.mask], expected.logits[batch.mask])
    for name in ("distil_logit", "distil_latent", "variational", "reconstruction"):
        torch.testing.assert_close(got.losses[name].value, expected.losses[name].value)
    assert not bool((got.auxiliary["visual"].mask == expected.auxiliary["text"].mask).all())


def test_without_a_context_encoder_a_missing_utterance_is_invisible_to_the_others() -> None:
    """Why the learned vector e_m exists only beside a context encoder: nothing else could see it."""
    model = build({"context": "none"})
    assert not any("absent" in name for name, _ in model.named_parameters())
    batch = whole(split())
    there = batch.present["audio"].clone()
    there[0, 2] = False
    present = {**batch.present, "audio": there}
    noisy = batch.features["audio"].clone()
    noisy[0, 2] = 1e6
    got = model(replace(batch, present=present, features={**batch.features, "audio": noisy}))
    expected = model(replace(batch, present=present))
    assert torch.equal(got.logits, expected.logits)
    assert any("absent" in name for name, _ in build().named_parameters())


def test_with_no_modality_at_all_every_utterance_gets_the_prior_answer() -> None:
    model = build()
    batch = whole(split())
    nothing = {name: torch.zeros_like(batch.mask) for name in WIDTHS}
    logits = model(replace(batch, present=nothing)).logits[batch.mask]
    torch.testing.assert_close(logits, logits[:1].expand_as(logits))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_every_parameter(variant: str) -> None:
    model = build(VARIANTS[variant])
    reached = {name: False for name, _ in model.named_parameters()}
    for seed, gaps in ((0, 0.0), (1, 0.3)):
        expect_finite_gradients(model, whole(split(gaps=gaps, seed=seed)))
        for name, parameter in model.named_parameters():
            # Rounding alone leaves about 1e-18.
            reached[name] |= parameter.grad is not None and bool((parameter.grad.abs() > 1e-12).any())
    assert [name for name, is_reached in reached.items() if not is_reached] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_dialogues_of_one_utterance(variant: str) -> None:
    model = build(VARIANTS[variant])
    for lengths in ((1, 1, 1), (1,)):
        expect_finite_gradients(model, whole(split(lengths=lengths, gaps=0.0)))


def test_terms_students_and_diagnostics_have_their_names_and_weights() -> None:
    values = {
        "student_weight": 0.3,
        "reconstruction_weight": 0.2,
        "variational_weight": 0.02,
        "logit_weight": 0.4,
        "latent_weight": 0.04,
        "distillation_schedule": "ramp",
    }
    output = build(values)(whole(split()))
    assert {name: (term.weight, term.schedule) for name, term in output.losses.items()} == {
        "variational": (0.02, "warmup"),
        "distil_logit": (0.4, "ramp"),
        "distil_latent": (0.04, "ramp"),
        "reconstruction": (0.2, "constant"),
    }
    assert {name: auxiliary.weight for name, auxiliary in output.auxiliary.items()} == dict.fromkeys(WIDTHS, 0.3)
    gates = {f"gate_{one}_{other}" for one in WIDTHS for other in (*WIDTHS, "none") if one != other}
    others = {f"{kind}_{name}" for kind in ("precision", "agreement") for name in WIDTHS}
    assert set(output.diagnostics) == gates | others
    assert not any(value.requires_grad for value in output.diagnostics.values())
    for central in WIDTHS:
        shares = [output.diagnostics[name].item() for name in gates if name.startswith(f"gate_{central}_")]
        assert sum(shares) == pytest.approx(1.0)


def test_diagnostics_belong_to_what_they_are_named_after() -> None:
    model = build()
    batch = whole(split())
    bare = replace(batch, present={**batch.present, "audio": torch.zeros_like(batch.mask)})
    found = model(bare).diagnostics
    assert found["gate_text_audio"] == 0
    assert found["gate_visual_audio"] == 0
    assert found["gate_text_visual"] > 0
    assert found["gate_text_none"] > 0
    with torch.no_grad():
        for layer in model.transformer.stacks["visual"]:
            layer.gate.none.fill_(1e6)
        for name, log_variance in (("text", -1.0), ("visual", 0.5)):
            expert = model.fusion.experts[name]
            assert isinstance(expert, nn.Linear)
            expert.weight.zero_()
            expert.bias.fill_(log_variance)
    found = model(batch).diagnostics
    assert found["gate_visual_none"] == 1
    assert found["gate_text_none"] < 1
    assert found["precision_text"].item() == pytest.approx(math.exp(1.0))
    assert found["precision_visual"].item() == pytest.approx(math.exp(-0.5))


def test_ablations_remove_what_they_say() -> None:
    batch = whole(split())

    def names(model: Cmath) -> set[str]:
        return {name for name, _ in model.named_parameters()}

    everything = build()
    outputs = {name: build(VARIANTS[name])(batch) for name in VARIANTS}
    assert set(outputs["default"].losses) == {"reconstruction", "variational", "distil_logit", "distil_latent"}

    assert set(outputs["no-reconstruction"].losses) == {"variational", "distil_logit", "distil_latent"}
    plain = build(VARIANTS["no-reconstruction"])
    assert all(isinstance(part, ModalityProjection) for part in plain.compressors.values())
    assert not any(".up." in name or ".down." in name for name in names(plain))

    assert set(outputs["no-variational"].losses) == {"reconstruction", "distil_logit"}
    flat = build(VARIANTS["no-variational"])
    assert torch.equal(flat.train()(batch).losses["reconstruction"].value, flat(batch).losses["reconstruction"].value)
    assert not any("precision" in name for name in outputs["no-variational"].diagnostics)
    expert = flat.fusion.experts["text"]
    assert isinstance(expert, nn.Linear)
    assert expert.out_features == SMALL["latent_dim"]

    assert set(outputs["no-distillation"].losses) == {"reconstruction", "variational"}
    assert {auxiliary.weight for auxiliary in outputs["no-distillation"].auxiliary.values()} == {0.5}  # students stay
    assert names(build(VARIANTS["no-distillation"])) == names(everything)

    central = build(VARIANTS["central"])
    assert set(outputs["central"].auxiliary) == {"text"}
    assert set(central.transformer.stacks) == {"text"}
    assert set(central.fusion.experts) == {"text"}
    assert {name for name in outputs["central"].diagnostics if name.startswith("gate")} == {
        "gate_text_audio",
        "gate_text_visual",
        "gate_text_none",
    }

    assert isinstance(build(VARIANTS["symmetric"]).transformer, SymmetricTransformer)
    assert not any(name.startswith("gate") for name in outputs["symmetric"].diagnostics)
    assert set(outputs["symmetric"].auxiliary) == set(WIDTHS)

    assert not any("contexts" in name for name in names(build(VARIANTS["no-gru"])))


def test_a_window_cuts_what_is_further_away() -> None:
    values = {"context": "none", "positions": "none", "layers": 1, "central": "text"}
    batch = whole(split(lengths=(6,)))
    changed = {name: value.clone() for name, value in batch.features.items()}
    for value in changed.values():
        value[0, 5] += 1.0
    other = replace(batch, features=changed)
    near, whole_dialogue = build({**values, "window": 2}), build(values)
    moved = (near(batch).logits != near(other).logits).any(-1)[0]
    assert moved.tolist() == [False, False, False, True, True, True]
    assert bool((whole_dialogue(batch).logits != whole_dialogue(other).logits).any(-1).all())


def test_positions_and_speakers_matter_only_where_they_are_on() -> None:
    plain = {"context": "none", "positions": "none", "speakers": False}
    batch = whole(split(lengths=(4,)))
    order = [2, 0, 3, 1]
    turned = replace(
        batch,
        features={name: value[:, order] for name, value in batch.features.items()},
        speakers=batch.speakers[:, order],
    )
    model = build(plain)
    torch.testing.assert_close(model(turned).logits, model(batch).logits[:, order])
    for positions in ("sinusoidal", "learned"):
        model = build({**plain, "positions": positions})
        assert not torch.allclose(model(turned).logits, model(batch).logits[:, order])
    others = replace(batch, speakers=(batch.speakers + 1) % 3)
    model = build(plain)
    assert torch.equal(model(batch).logits, model(others).logits)
    model = build({**plain, "speakers": True})
    assert not torch.allclose(model(batch).logits, model(others).logits)


def test_dialogues_longer_than_the_learned_positions_and_than_meld() -> None:
    model = build({"positions": "learned"})
    assert bool(model(whole(split(lengths=(140, 2)))).logits.isfinite().all())


# Settings and errors ----------------------------------------------------------------------------


def test_an_unknown_central_modality_is_named() -> None:
    with pytest.raises(SettingError, match=r"modalities \(text, audio\), but is visual"):
        build({"central": "visual"}, "text", "audio")


def test_more_speakers_than_the_model_knows_are_an_error() -> None:
    batch = whole(split())
    strange = replace(batch, speakers=batch.speakers + 3)
    with pytest.raises(DataError, match="built for at most 3"):
        build()(strange)
    build({"speakers": False})(strange)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_dim": 20, "heads": 8}, "multiple of heads"),
        ({"hidden_dim": 9, "heads": 1}, "must be even"),
        ({"skips": True, "levels": 1}, "fewer than two levels"),
        ({"kernel": 2}, "kernel must be one of 1, 3"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        load_model("cmath").settings(values)


def test_every_ablation_of_the_card_changes_a_default() -> None:
    card = load_model("cmath").plugin.card
    assert card.reported == {}
    # Of one dataset at least: what MELD's settings leave out can only be put back there.
    defaults = [{**CmathConfig().model_dump(), **card.settings_for(name)} for name in card.settings]
    for name, ablation in card.ablations.items():
        assert any(given[key] != value for given in defaults for key, value in ablation.settings.items()), name


# Learning ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["default", "no-gru", "symmetric", "no-variational", "central"])
def test_learns_eight_small_dialogues(variant: str) -> None:
    torch.manual_seed(0)
    source = split(lengths=(4, 6, 3, 5, 2, 6, 4, 5))
    # A label that needs the text of the turn before: no model without context can learn it.
    text = source.features["text"]
    turn = torch.cat([torch.arange(length) for length in source.lengths.tolist()])
    before = torch.where(turn.unsqueeze(1) > 0, text.roll(1, 0), 0.0)
    labels = (text[:, 0] > 0).long() + 2 * (before[:, 1] > 0).long()
    source = replace(source, features={name: value.float() for name, value in source.features.items()}, labels=labels)
    batch = whole(source)
    model = Cmath(spec(), CmathConfig(**{**SMALL, "hidden_dim": 32, "dropout": 0.1, **VARIANTS[variant]}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    best = 0.0
    for _ in range(30):
        model.train()
        for _ in range(10):
            optimizer.zero_grad()
            training_loss(model(batch), batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            guessed = model(batch.without_labels()).logits.argmax(-1)
        best = float((guessed == batch.labels)[batch.mask].double().mean())
        if best >= 0.95:
            return
    pytest.fail(f"after 300 steps the train accuracy is {best:.0%}")


def test_the_same_seed_gives_the_same_bits() -> None:
    results = []
    batch = whole(split(gaps=0.2)).to("cpu", torch.float32)
    for _ in range(2):
        torch.manual_seed(3)
        model = Cmath(spec(), CmathConfig(**SMALL))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            training_loss(model(batch), batch).backward()
            optimizer.step()
        results.append(model.eval()(batch).logits)
    assert torch.equal(*results)
