"""COGMEN against PyTorch's encoder layer, torch-geometric's operators, and its formulas one turn at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from mer_bench_models.cogmen.config import CogmenConfig
from mer_bench_models.cogmen.model import Cogmen, ContextLayer
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import RGCNConv, TransformerConv

from mer_bench.api import InputSpec
from mer_bench.data.batches import Batch
from mer_bench.errors import DataError
from mer_bench.nn.relations import RelationalConv
from tests.models.batches import batch_with_gaps

CLASSES = ("anger", "joy", "neutral")
WIDTHS = {"text": 6, "audio": 4, "visual": 3}
NARROW: dict[str, Any] = {
    **{"context_width": 8, "context_heads": 2, "context_layers": 2},
    **{"graph_width": 5, "graph_heads": 2, "past": 2, "future": 1},
}
SPEAKERS = 3


def small_model(names: tuple[str, ...] = ("text", "audio"), seed: int = 0, **changes: Any) -> Cogmen:
    torch.manual_seed(seed)
    spec = InputSpec({name: WIDTHS[name] for name in names}, CLASSES, SPEAKERS)
    model = Cogmen(spec, CogmenConfig(**{**NARROW, **changes})).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def make_batch(lengths: list[int], names: tuple[str, ...] = ("text", "audio"), seed: int = 0) -> Batch:
    return batch_with_gaps({name: WIDTHS[name] for name in names}, lengths, SPEAKERS, seed)


def test_a_context_layer_is_pytorchs_encoder_layer() -> None:
    torch.manual_seed(0)
    ours = ContextLayer(CogmenConfig(**{**NARROW, "feedforward": 3})).double().eval()
    theirs = nn.TransformerEncoderLayer(8, 2, 24, batch_first=True).double().eval()
    pairs = {
        theirs.self_attn.in_proj_weight: ours.query_key_value.weight,
        theirs.self_attn.in_proj_bias: ours.query_key_value.bias,
        theirs.self_attn.out_proj.weight: ours.result.weight,
        theirs.self_attn.out_proj.bias: ours.result.bias,
    }
    for layer, own in (
        (theirs.linear1, ours.inner),
        (theirs.linear2, ours.outer),
        (theirs.norm1, ours.attention_norm),
        (theirs.norm2, ours.norm),
    ):
        pairs |= {layer.weight: own.weight, layer.bias: own.bias}
    with torch.no_grad():
        for one, other in pairs.items():
            other.add_(0.3 * torch.randn_like(other))
            one.copy_(other)
    values = torch.randn(2, 5, 8, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    with torch.no_grad():
        expected = theirs(values, src_key_padding_mask=~mask)
        torch.testing.assert_close(ours(values, mask)[mask], expected[mask])


def literal_relations(config: CogmenConfig, said: list[int]) -> list[tuple[int, int, int]]:
    """(source, target, relation) of one dialogue."""
    edges = []
    for target in range(len(said)):
        for source in range(max(0, target - config.past), min(len(said), target + config.future + 1)):
            if source == target:
                continue
            pair = said[target] * SPEAKERS + said[source]
            kind = {"roles": int(said[target] != said[source]), "pairs": pair, "none": 0}[config.speaker_relations]
            edges.append((source, target, 2 * kind + int(source > target) if config.directions else kind))
    return edges


def their_rgcn(ours: RelationalConv, relations: int) -> RGCNConv:
    bases = None if ours.mixture is None else ours.mixture.shape[1]
    theirs = RGCNConv(ours.root.in_features, ours.root.out_features, relations, num_bases=bases).double()
    with torch.no_grad():
        theirs.weight.copy_(ours.weight.transpose(0, 1))
        theirs.root.copy_(ours.root.weight.T)
        theirs.bias.copy_(ours.bias)
        if ours.mixture is not None:
            theirs.comp.copy_(ours.mixture)
    return theirs


def literal_graph_transformer(conv: TransformerConv, values: Tensor, edges: list[tuple[int, int, int]]) -> Tensor:
    """Graph transformer (Shi et al. 2021), head by head: skip + attention to the neighbours."""
    rows = []
    for target in range(len(values)):
        row = conv.lin_skip(values[target]).clone()
        near = [source for source, goal, _ in edges if goal == target]
        for head in range(conv.heads if near else 0):
            part = slice(head * conv.out_channels, (head + 1) * conv.out_channels)
            query = conv.lin_query(values[target])[part]
            scores = torch.stack([query @ conv.lin_key(values[source])[part] for source in near])
            weights = (scores / math.sqrt(conv.out_channels)).softmax(0)
            for weight, source in zip(weights, near, strict=True):
                row[part] += weight * conv.lin_value(values[source])[part]
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"speaker_relations": "pairs", "bases": 4, "positions": True},
        {"speaker_relations": "none", "directions": False, "context_to_classes": False},
        {"context": "none", "graph_layers": "relations"},
        {"graph_layers": "transformer", "graph_heads": 1},
    ],
)
def test_one_dialogue_from_features_to_logits(changes: dict[str, Any]) -> None:
    model = small_model(**changes)
    config, graph = model.settings, model.graph
    batch = make_batch([5, 2, 1])
    with torch.no_grad():
        found = model(batch).logits
        for index, length in enumerate(batch.lengths.tolist()):
            rows = [
                torch.where(batch.present[name][index].unsqueeze(-1), batch.features[name][index], model.missing[name])
                for name in ("text", "audio")
            ]
            values = model.projection(torch.cat(rows, dim=-1)[:length])
            if config.positions:
                for turn in range(length):
                    for column in range(8):
                        angle = turn / 10000 ** (column // 2 * 2 / 8)
                        values[turn, column] += math.cos(angle) if column % 2 else math.sin(angle)
            for layer in model.context or ():
                values = layer(values.unsqueeze(0), torch.ones(1, length, dtype=torch.bool))[0]
            values = context = model.after_context(values)
            edges = literal_relations(config, batch.speakers[index, :length].tolist())
            table = torch.tensor(edges, dtype=torch.long).view(-1, 3).T
            if graph.by_relation is not None:
                relations = {"roles": 2, "pairs": 9, "none": 1}[config.speaker_relations] * (1 + config.directions)
                values = their_rgcn(graph.by_relation, relations)(values, table[:2], table[2])
            if graph.attention is not None:
                values = literal_graph_transformer(graph.attention, values, edges)
            centred = values - values.mean(-1, keepdim=True)
            values = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            values = functional.leaky_relu(values * graph.norm.weight + graph.norm.bias, 0.01)
            if config.context_to_classes:
                values = torch.cat([context, values], dim=-1)
            expected = model.classes(model.hidden(values).clamp_min(0))
            torch.testing.assert_close(found[index, :length], expected, rtol=1e-6, atol=1e-6)


def test_only_pairs_tell_speakers_apart_by_name() -> None:
    batch = make_batch([6, 4])
    renamed = replace(batch, speakers=((batch.speakers + 1) % SPEAKERS) * batch.mask)
    one = replace(batch, speakers=torch.zeros_like(batch.speakers))
    for who, feels_renaming, feels_speakers in (("roles", 0, 1), ("pairs", 1, 1), ("none", 0, 0)):
        model = small_model(speaker_relations=who)
        expected = model(batch).logits[batch.mask]
        assert torch.allclose(model(renamed).logits[batch.mask], expected) != bool(feels_renaming)
        assert torch.allclose(model(one).logits[batch.mask], expected) != bool(feels_speakers)


def test_without_the_transformer_nothing_beyond_two_windows_matters() -> None:
    batch = make_batch([9])
    changed = {name: values.clone() for name, values in batch.features.items()}
    for values in changed.values():
        values[:, 8] += 1
    everywhere = replace(batch, present=dict.fromkeys(batch.present, batch.mask))
    for context, reach in (("transformer", 9), ("none", 2)):  # two graph layers, one turn of the future each
        model = small_model(context=context)
        difference = model(replace(everywhere, features=changed)).logits - model(everywhere).logits
        moved = (difference.abs().amax(-1)[0] > 1e-9).nonzero().squeeze(1).tolist()
        assert moved == list(range(max(0, 8 - reach), 9))


def test_mixed_precision_runs() -> None:
    model = small_model().float().train()
    batch = make_batch([4, 2]).to("cpu", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(batch).logits[batch.mask].square().mean()
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_wrong_heads_and_more_speakers_than_built_for_are_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of context_heads"):
        CogmenConfig(context_width=10, context_heads=4)
    batch = make_batch([3])
    with pytest.raises(DataError, match="has 4 speakers, but this model was built for at most 3"):
        small_model(speaker_relations="pairs")(replace(batch, speakers=torch.full_like(batch.speakers, 3)))
