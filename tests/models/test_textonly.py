"""The text-only transformer against PyTorch's own encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from mer_bench_models.textonly.config import TextOnlyConfig
from mer_bench_models.textonly.model import EncoderLayer, TextOnly
from pydantic import ValidationError
from torch import Tensor, nn

from mer_bench.api import InputSpec
from mer_bench.data.batches import Batch
from mer_bench.errors import DataError
from mer_bench.nn.encoders import sinusoidal_positions

CLASSES = ("anger", "joy", "neutral")
NARROW: dict[str, Any] = {"width": 8, "heads": 2, "layers": 2, "feedforward": 3}


def make_batch(lengths: list[int], seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return Batch(
        features={"text": torch.randn(*mask.shape, 6, generator=generator, dtype=torch.float64) * mask.unsqueeze(-1)},
        present={"text": mask.clone()},
        mask=mask,
        speakers=torch.randint(0, 3, mask.shape, generator=generator).masked_fill(~mask, 0),
        lengths=torch.tensor(lengths),
        dialogues=torch.arange(len(lengths)),
    )


def small_model(**changes: Any) -> TextOnly:
    """A model in which every parameter is away from its start, zeros and ones included."""
    torch.manual_seed(0)
    model = TextOnly(InputSpec({"text": 6}, CLASSES, 3), TextOnlyConfig(**{**NARROW, **changes})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64))
    return model.eval()


def torch_layer(layer: EncoderLayer, config: TextOnlyConfig) -> nn.TransformerEncoderLayer:
    """PyTorch's pre-norm layer with the same weights."""
    width = config.width
    other = nn.TransformerEncoderLayer(
        width, config.heads, config.feedforward * width, 0.0, "gelu", batch_first=True, norm_first=True
    ).double()
    inner, outer = cast(nn.Linear, layer.feedforward[0]), cast(nn.Linear, layer.feedforward[3])
    other.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([layer.attention.query.weight, layer.attention.key_value.weight]),
            "self_attn.in_proj_bias": torch.zeros(3 * width),
            "self_attn.out_proj.weight": layer.attention.result.weight,
            "self_attn.out_proj.bias": layer.attention.result.bias,
            "norm1.weight": layer.attention_norm.weight,
            "norm1.bias": layer.attention_norm.bias,
            "norm2.weight": layer.feedforward_norm.weight,
            "norm2.bias": layer.feedforward_norm.bias,
            "linear1.weight": inner.weight,
            "linear1.bias": inner.bias,
            "linear2.weight": outer.weight,
            "linear2.bias": outer.bias,
        }
    )
    return other.train()  # without dropout the same; eval mode takes a fused path


def literal_logits(model: TextOnly, batch: Batch) -> Tensor:
    """PyTorch's modules one dialogue at a time, so that there is no padding; text may be missing."""
    config, rows = model.settings, []
    for index, length in enumerate(batch.lengths.tolist()):
        there = batch.present["text"][index, :length]
        state = model.entry(batch.features["text"][index, :length])
        state = torch.stack([row if known else model.absent for row, known in zip(state, there, strict=True)])
        if model.speakers is not None:
            state = state + torch.stack([model.speakers.weight[who] for who in batch.speakers[index, :length]])
        if model.learned is not None:
            state = state + model.learned.table[:length]
        if config.positions == "sinusoidal":
            state = state + config.position_scale * sinusoidal_positions(length, config.width).double()
        state = state.unsqueeze(0)
        for layer in model.layers:
            state = torch_layer(cast(EncoderLayer, layer), config)(state, src_key_padding_mask=~there.unsqueeze(0))
        rows.append(model.classes(model.norm(state))[0])
    return torch.cat(rows)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "none"])
@pytest.mark.parametrize("speakers", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_logits_are_those_of_pytorchs_encoder(positions: str, speakers: bool, layers: int) -> None:
    model = small_model(positions=positions, speakers=speakers, layers=layers)
    batch = make_batch([5, 1, 3])
    there = batch.present["text"].clone()
    there[0, 1] = there[2, 2] = False
    for chosen in (batch, replace(batch, present={"text": there})):
        expected = literal_logits(model, chosen)
        torch.testing.assert_close(model(chosen).logits[chosen.mask], expected, rtol=1e-9, atol=1e-10)


def test_a_missing_text_is_no_key_and_never_read() -> None:
    model = small_model()
    batch = make_batch([4, 2])
    there = batch.present["text"].clone()
    there[0, 2] = False
    there[1] = False  # a dialogue without any text
    gone = replace(batch, present={"text": there})
    result = model(gone).logits
    assert bool(result.isfinite().all())
    noisy = replace(gone, features={"text": batch.features["text"] + 100 * ~there.unsqueeze(-1)})
    assert torch.equal(model(noisy).logits, result)
    unknown = batch.features["text"].masked_fill(~there.unsqueeze(-1), torch.nan)
    model(replace(gone, features={"text": unknown})).logits.sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters() if parameter.grad is not None)
    with torch.no_grad():
        model.absent.add_(torch.linspace(-1, 1, 8))
    moved = model(gone).logits
    assert torch.equal(moved[0, [0, 1, 3]], result[0, [0, 1, 3]])
    assert not torch.allclose(moved[0, 2], result[0, 2])


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "relative", "none"])
def test_only_positions_tell_the_order(positions: str) -> None:
    model = small_model(positions=positions)
    batch = make_batch([5])
    turned = replace(batch, features={"text": batch.features["text"].flip(1)})
    # Distances alone are the same from behind, but the learned bias is one for each side.
    same = torch.allclose(model(turned).logits.flip(1), model(batch).logits)
    assert same == (positions == "none")


def test_speakers_matter_only_where_they_are_asked_for() -> None:
    batch = make_batch([5])
    other = replace(batch, speakers=(batch.speakers + 1) % 3)
    for speakers in (False, True):
        model = small_model(speakers=speakers)
        assert torch.allclose(model(batch).logits, model(other).logits) == (not speakers)
    with pytest.raises(DataError, match="4 speakers"):
        small_model(speakers=True)(replace(batch, speakers=torch.full_like(batch.speakers, 3)))


def test_dropout_acts_in_training_alone() -> None:
    for place in ("input_dropout", "dropout", "attention_dropout"):
        rates: dict[str, Any] = {"input_dropout": 0.0, "dropout": 0.0, "attention_dropout": 0.0, place: 0.5}
        model = small_model(**rates).train()
        batch = make_batch([4, 2])
        assert not torch.allclose(model(batch).logits, model(batch).logits), place
        model.eval()
        assert torch.equal(model(batch).logits, model(batch).logits)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValidationError, match="multiple of heads"):
        TextOnlyConfig(width=10, heads=4)
