"""MulT against a slow reading of its formulas: one dialogue, one pair of modalities, PyTorch's own attention."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mer_bench_models.mult.config import MultConfig
from mer_bench_models.mult.model import Mult, TemporalConvolution
from mer_bench_models.mult.transformer import Transformers, stream_keys
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from mer_bench.api import InputSpec
from mer_bench.data.batches import Batch

CLASSES = ("anger", "joy", "neutral")
WIDTHS = {"text": 6, "audio": 4, "visual": 3}
ALL = ("text", "audio", "visual")
NARROW: dict[str, Any] = {"hidden_dim": 8, "heads": 2}


def make_batch(lengths: list[int], modalities: tuple[str, ...] = ALL, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    turns = max(lengths)
    mask = torch.arange(turns) < torch.tensor(lengths).unsqueeze(1)
    features = {
        name: torch.randn(len(lengths), turns, WIDTHS[name], generator=generator, dtype=torch.float64)
        * mask.unsqueeze(-1)
        for name in modalities
    }
    return Batch(
        features=features,
        present=dict.fromkeys(modalities, mask),
        mask=mask,
        speakers=torch.zeros(len(lengths), turns, dtype=torch.long),
        lengths=torch.tensor(lengths),
        dialogues=torch.arange(len(lengths)),
    )


def make_model(modalities: tuple[str, ...] = ALL, **values: Any) -> Mult:
    """In eval mode, away from its first weights."""
    torch.manual_seed(0)
    model = Mult(
        InputSpec({name: WIDTHS[name] for name in modalities}, CLASSES, 2), MultConfig(**{**NARROW, **values})
    ).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model.eval()


def literal_attention(stack: Any, index: int, heads: int, queries: Tensor, source: Tensor, forbidden: Tensor) -> Tensor:
    plain = nn.MultiheadAttention(queries.shape[-1], heads, batch_first=True).double()
    zero = torch.zeros(queries.shape[-1], dtype=torch.float64)
    with torch.no_grad():
        plain.in_proj_weight.copy_(torch.cat([part.weight[index].T for part in (stack.query, stack.key, stack.value)]))
        plain.in_proj_bias.copy_(torch.cat([stack.query.bias[index, 0], zero, stack.value.bias[index, 0]]))
        plain.out_proj.weight.copy_(stack.result.weight[index].T)
        plain.out_proj.bias.copy_(stack.result.bias[index, 0])
    result: Tensor = plain(queries[None], source[None], source[None], attn_mask=forbidden)[0][0]
    return result


def literal_transformer(
    stack: Transformers, index: int, config: MultConfig, stream: Tensor, source: Tensor | None, present: Tensor
) -> Tensor:
    turns = len(stream)
    forbidden = (
        torch.zeros(turns, turns, dtype=torch.bool) if config.look_ahead else ~torch.ones(turns, turns).tril().bool()
    )
    forbidden = forbidden | ~present

    def norm(part: Any, values: Tensor) -> Tensor:
        return functional.layer_norm(values, values.shape[-1:], part.weight[index, 0], part.bias[index, 0])

    def linear(part: Any, values: Tensor) -> Tensor:
        return functional.linear(values, part.weight[index].T, part.bias[index, 0])

    for layer in stack.layers:
        part: Any = layer
        queries = norm(part.attention_norm, stream)
        asked = queries if source is None else norm(part.attention_norm, source)
        stream = stream + literal_attention(part.attention, index, config.heads, queries, asked, forbidden)
        stream = stream + linear(part.outer, linear(part.inner, norm(part.inner_norm, stream)).clamp_min(0))
    return stream if stack.norm is None else norm(stack.norm, stream)


def literal_logits(model: Mult, features: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
    """Logits of one dialogue; each modality is in one utterance at least, and features are zero where it is not."""
    config = model.settings
    names = list(features)
    inputs = {}
    for name, values in features.items():
        convolution: Any = model.convolutions[name]
        kernel = convolution.kernel
        weight = convolution.map.weight.view(kernel, config.hidden_dim, -1).permute(1, 2, 0)  # (d, inputs, kernel)
        before = (kernel - 1) // 2 if config.look_ahead else kernel - 1
        padded = functional.pad(values.T, (before, kernel - 1 - before))
        stream = functional.conv1d(padded[None], weight)[0].T
        for turn in range(len(values)):
            for column in range(config.hidden_dim):
                angle = turn / 10000 ** (column // 2 * 2 / config.hidden_dim)
                place = math.cos(angle) if column % 2 else math.sin(angle)
                stream = stream.clone()
                stream[turn, column] += place if config.positions else 0
        inputs[name] = stream
    joint = []
    pair = 0
    for number, target in enumerate(names):
        found = [] if len(names) > 1 else [inputs[target]]
        for source in names:
            if source != target:
                assert model.crossmodal is not None
                found.append(
                    literal_transformer(model.crossmodal, pair, config, inputs[target], inputs[source], present[source])
                )
                pair += 1
        stream = literal_transformer(model.memories, number, config, torch.cat(found, -1), None, present[target])
        joint.append(stream * present[target].unsqueeze(-1))
    last = torch.cat(joint, -1)
    return model.classes(last + model.second(model.first(last).relu()))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("modalities", "values"),
    [
        (ALL, {}),
        (ALL, {"look_ahead": False, "text_kernel": 5}),
        (ALL, {"crossmodal_layers": 0, "positions": False}),
        (("text", "audio"), {"self_layers": 2, "crossmodal_layers": 3}),
        (("visual", "text"), {"self_layers": 0}),
        (("audio",), {}),
    ],
)
def test_logits_are_those_of_the_formulas(modalities: tuple[str, ...], values: dict[str, Any]) -> None:
    model = make_model(modalities, **values)
    lengths = [5, 2, 1]
    batch = make_batch(lengths, modalities)
    if values.get("look_ahead", True):
        for turn, name in enumerate(modalities):  # each lacks another utterance of the first dialogue
            batch.present[name] = batch.mask.clone()
            batch.present[name][0, turn] = False
            batch.features[name][0, turn] = 0
    with torch.no_grad():
        logits = model(batch).logits
        for row, length in enumerate(lengths):
            alone = {name: values[row, :length] for name, values in batch.features.items()}
            # A double table of positions here, a float one in the model.
            there = {name: present[row, :length] for name, present in batch.present.items()}
            torch.testing.assert_close(logits[row, :length], literal_logits(model, alone, there), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("look_ahead", [True, False])
def test_the_convolution_reads_just_its_window(look_ahead: bool) -> None:
    config = MultConfig(**NARROW, audio_kernel=3, look_ahead=look_ahead)
    convolution = TemporalConvolution(4, "audio", config).double()
    batch = make_batch([7])
    features = batch.features["audio"].clone().requires_grad_()
    convolution(features)[0, 3].sum().backward()
    assert features.grad is not None
    read = features.grad[0].abs().sum(-1).nonzero().flatten().tolist()
    assert read == ([2, 3, 4] if look_ahead else [1, 2, 3])


def test_without_look_ahead_nothing_later_matters() -> None:
    batch = make_batch([6])
    later = make_batch([6], seed=3)
    for look_ahead in (True, False):
        model = make_model(look_ahead=look_ahead, text_kernel=3)
        expected = model(batch).logits
        for values, other in zip(batch.features.values(), later.features.values(), strict=True):
            values[:, 4:] = other[:, 4:]
        assert torch.equal(expected[:, :4], model(batch).logits[:, :4]) == (not look_ahead)
        batch = make_batch([6])


def test_an_absent_modality_is_no_key_and_has_no_stream() -> None:
    model = make_model()
    batch = make_batch([4])
    no_audio = batch.mask.clone()
    no_audio[0, 2] = False
    batch.present["audio"] = no_audio
    expected = model(batch).logits
    batch.features["audio"][0, 2] = 100.0
    assert torch.equal(expected, model(batch).logits)
    batch.present.update(text=no_audio, visual=no_audio)
    # Nothing is left of an utterance that has no modality but the biases.
    zero = torch.zeros(model.classes.in_features, dtype=torch.float64)
    bare = model.classes(zero + model.second(model.first(zero).relu()))
    torch.testing.assert_close(model(batch).logits[0, 2], bare)


def test_keys() -> None:
    present = torch.tensor([[False, True, True], [False, False, False]])
    keys = stream_keys(present, look_ahead=False)
    # The first turn has no key up to itself: it may look at all, and its result is put to zero.
    assert keys.found[0, :, 0].tolist() == [False, True, True]
    assert keys.allowed[0, 0].tolist() == [[True] * 3, [False, True, False], [False, True, True]]
    assert not bool(keys.found[1].any())
    assert stream_keys(present, look_ahead=True).allowed[0, 0].tolist() == [[False, True, True]]


def test_a_dialogue_longer_than_the_kept_table_of_positions() -> None:
    model = make_model(("text",))
    batch = make_batch([515], ("text",))
    logits = model(batch).logits
    model.table = model.table[:3]
    torch.testing.assert_close(logits, model(batch).logits)


@pytest.mark.parametrize(("values", "word"), [({"hidden_dim": 30, "heads": 4}, "heads"), ({"audio_kernel": 2}, "odd")])
def test_settings_that_do_not_fit_are_refused(values: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        MultConfig(**values)
