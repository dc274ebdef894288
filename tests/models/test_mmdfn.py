"""MM-DFN against PyTorch's GRU and LSTM and torch-geometric's GCN2Conv, one dialogue at a time, and by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from mer_bench_models.mmdfn.config import MmDfnConfig
from mer_bench_models.mmdfn.fusion import DynamicFusion, propagated
from mer_bench_models.mmdfn.model import MmDfn
from torch import Tensor, nn
from torch_geometric.nn import GCN2Conv

from mer_bench.api import InputSpec
from mer_bench.data.batches import Batch
from mer_bench.nn.encoders import ContextGru
from mer_bench.nn.graph import ModalityGraph, modality_graph
from mer_bench.nn.recurrent import GruWeights
from tests.models.batches import batch_with_gaps

CLASSES = ("anger", "joy", "neutral")
WIDTHS = {"text": 6, "audio": 4, "visual": 3}
SPEAKERS = 3
ALL = ("text", "audio", "visual")
SUBSETS = (("text",), ("audio", "visual"), ALL)
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"graph_layers": 1, "gru_layers": 1},
    {"dynamic": False},
    {"text_speaker": 1.5, "audio_speaker": 0.0, "visual_speaker": 0.5},
    {"text_speaker": 0.0, "audio_speaker": 0.0, "visual_speaker": 0.0},
)


def small_model(names: tuple[str, ...] = ("text", "audio"), seed: int = 0, **changes: Any) -> MmDfn:
    torch.manual_seed(seed)
    spec = InputSpec({name: WIDTHS[name] for name in names}, CLASSES, SPEAKERS)
    narrow = {"node_width": 8, "graph_width": 5, "graph_layers": 3}
    model = MmDfn(spec, MmDfnConfig(**{**narrow, **changes})).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def make_batch(
    lengths: list[int], names: tuple[str, ...] = ("text", "audio"), seed: int = 0, surplus: int = 0
) -> Batch:
    return batch_with_gaps({name: WIDTHS[name] for name in names}, lengths, SPEAKERS, seed, surplus)


def torch_gru(context: ContextGru, rows: Tensor) -> Tensor:
    """PyTorch's bidirectional GRU with the same weights over one chain of turns: (T, width) to (T, width)."""
    cells = [cell for cell in context.cells if isinstance(cell, GruWeights)]
    width = rows.shape[1]
    gru = nn.GRU(width, width // 2, len(cells), bidirectional=True).double()

    def theirs(value: Tensor) -> Tensor:
        new, reset, update = value.chunk(3)
        return torch.cat([reset, update, new])

    with torch.no_grad():
        for index, cell in enumerate(cells):
            for side, ending in enumerate(("", "_reverse")):
                getattr(gru, f"weight_ih_l{index}{ending}").copy_(theirs(cell.inputs[0][side].T))
                getattr(gru, f"weight_hh_l{index}{ending}").copy_(cell.state[side].T)
                getattr(gru, f"bias_ih_l{index}{ending}").copy_(theirs(cell.input_bias[side, 0]))
                getattr(gru, f"bias_hh_l{index}{ending}").copy_(cell.state_bias[side, 0])
    states: Tensor = gru(rows)[0]
    return states


def literal_graph(nodes: Tensor, turn: list[int], modality: list[int]) -> tuple[Tensor, Tensor]:
    """Edges of one dialogue and their normalised weights, pair by pair: (2, E) and (E,)."""
    count = len(nodes)
    weights = torch.zeros(count, count, dtype=torch.float64)
    for i in range(count):
        for j in range(count):
            if modality[i] == modality[j] or turn[i] == turn[j]:
                cosine = (nodes[i] @ nodes[j]).item() / (nodes[i].norm() * nodes[j].norm()).item()
                weights[i, j] = 1 - math.acos(0.99999 * cosine) / math.pi
    degree = weights.sum(1)
    weights = weights / (degree.unsqueeze(1) * degree).sqrt()
    target, source = weights.nonzero(as_tuple=True)
    return torch.stack([source, target]), weights[target, source]


def literal_fusion(fusion: DynamicFusion, nodes: Tensor, edges: Tensor, weights: Tensor) -> Tensor:
    """The layers with PyTorch's LSTM and torch-geometric's GCN2Conv, whose matrices are ours but for alpha."""
    config, width = fusion.settings, fusion.settings.graph_width
    start = torch.relu(nodes @ fusion.first.weight.T + fusion.first.bias)
    given = start
    lstm = nn.LSTM(width, width).double()
    if fusion.gates is not None:
        with torch.no_grad():
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(lstm, f"{name}_l0").copy_(getattr(fusion.gates, name))
    states = (torch.zeros(1, len(nodes), width).double(), torch.zeros(1, len(nodes), width).double())
    for layer in range(1, config.graph_layers + 1):
        convolution = GCN2Conv(
            width, config.alpha, config.theta, layer, shared_weights=False, add_self_loops=False, normalize=False
        ).double()
        with torch.no_grad():
            convolution.weight1.copy_(fusion.weight[layer - 1, :width] / (1 - config.alpha))
            convolution.weight2.copy_(fusion.weight[layer - 1, width:] / config.alpha)
        gated = given
        if config.dynamic:
            _, states = lstm(given.unsqueeze(0), states)
            gated = states[0][0]
        around = torch.relu(convolution(gated, start, edges, weights))
        given = around + given if config.dynamic else around
    return given


def literal(model: MmDfn, batch: Batch, index: int) -> Tensor:
    """Logits of one dialogue, read from the formulas: (T, classes)."""
    config, turns, names = model.settings, int(batch.lengths[index]), model.spec.modalities
    said = batch.speakers[index, :turns]
    there = {name: batch.present[name][index, :turns] for name in names}
    values = {}
    for name in names:
        projection = model.projections[name]
        assert isinstance(projection, nn.Linear)
        rows = (batch.features[name][index, :turns] @ projection.weight.T + projection.bias) * there[name].unsqueeze(1)
        own = torch.zeros_like(rows)
        if model.speaker_context is not None:
            for speaker in range(SPEAKERS):
                chain = (said == speaker).nonzero().flatten()
                if len(chain):
                    own[chain] = torch_gru(model.speaker_context, rows[chain])
        if name == "text":
            assert model.text_context is not None
            rows = torch_gru(model.text_context, rows)
        values[name] = rows + config.speaker_share(name) * own
    places = [(number, t) for number, name in enumerate(names) for t in range(turns) if there[name][t]]
    both = torch.zeros(turns, len(names), config.node_width + config.graph_width).double()
    if places:
        nodes = torch.stack([values[names[number]][t] for number, t in places])
        edges, weights = literal_graph(nodes, [t for _, t in places], [number for number, _ in places])
        rows = torch.cat([nodes, literal_fusion(model.fusion, nodes, edges, weights)], dim=1)
        for (number, t), row in zip(places, rows, strict=True):
            both[t, number] = row
    logits: Tensor = torch.relu(both.flatten(1)) @ model.classes.weight.T + model.classes.bias
    return logits


@pytest.mark.parametrize("names", SUBSETS)
@pytest.mark.parametrize("changes", VARIANTS)
def test_the_network_is_what_its_formulas_say(names: tuple[str, ...], changes: dict[str, Any]) -> None:
    model = small_model(names, **changes)
    batch = make_batch([4, 1, 6, 2], names, surplus=2)
    logits = model(batch).logits
    assert logits.shape == (4, 8, 3)
    for index, turns in enumerate(batch.lengths.tolist()):
        torch.testing.assert_close(logits[index, :turns], literal(model, batch, index), rtol=1e-9, atol=1e-11)


def test_propagation_is_the_product_with_the_dense_adjacency() -> None:
    generator = torch.Generator().manual_seed(0)
    nodes = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    present = torch.rand(2, 3, 4, generator=generator) < 0.7
    graph = modality_graph(nodes, present)
    cells = present.flatten().nonzero().squeeze(1)
    expected = torch.bmm(graph.dense(), (nodes * present.unsqueeze(-1)).view(2, 12, 5)).view(-1, 5)[cells]
    torch.testing.assert_close(propagated(nodes.flatten(0, 2)[cells], cells, graph), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dynamic", [True, False])
def test_two_layers_of_one_node_by_hand(dynamic: bool) -> None:
    config = MmDfnConfig(node_width=4, graph_width=4, graph_layers=2, theta=1.0, alpha=0.25, dynamic=dynamic)
    fusion = DynamicFusion(config).double().eval()
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.zero_()
        fusion.first.bias.fill_(0.5)
        if fusion.gates is not None:
            # Input, forget and output gates are open, the cell gate is the input.
            fusion.gates.bias_ih.copy_(torch.tensor([40.0] * 8 + [0.0] * 4 + [40.0] * 4))
            fusion.gates.weight_ih[8:12] = torch.eye(4)
    graph = ModalityGraph(torch.ones(1, 1, 1).double(), torch.zeros(1, 1, 1, 1, 1).double())
    first, second = math.log(2), math.log(1.5)
    if dynamic:
        cell = math.tanh(0.5)
        one = 0.5 + (1 - first) * (0.75 * math.tanh(cell) + 0.25 * 0.5)
        cell += math.tanh(one)
        expected = one + (1 - second) * (0.75 * math.tanh(cell) + 0.25 * 0.5)
    else:
        one = (1 - first) * (0.75 * 0.5 + 0.25 * 0.5)
        expected = (1 - second) * (0.75 * one + 0.25 * 0.5)
    got = fusion(torch.zeros(1, 4).double(), torch.tensor([0]), graph)
    torch.testing.assert_close(got, torch.full((1, 4), expected, dtype=torch.float64), rtol=1e-12, atol=1e-13)


def test_renaming_the_speakers_changes_nothing_but_other_chains_do() -> None:
    batch = make_batch([5, 3])
    batch = replace(batch, speakers=torch.tensor([[0, 1, 0, 2, 1], [1, 0, 1, 0, 0]]))
    renamed = replace(batch, speakers=(batch.speakers + 1) % SPEAKERS)
    alone = replace(batch, speakers=torch.zeros_like(batch.speakers))
    model = small_model()
    logits = model(batch).logits[batch.mask]
    torch.testing.assert_close(logits, model(renamed).logits[batch.mask], rtol=1e-11, atol=1e-12)
    assert not torch.allclose(logits, model(alone).logits[batch.mask])
    deaf = small_model(text_speaker=0.0, audio_speaker=0.0)
    assert deaf.speaker_context is None
    assert torch.equal(deaf(batch).logits, deaf(alone).logits)


@pytest.mark.parametrize("changes", VARIANTS)
def test_padding_never_comes_through(changes: dict[str, Any]) -> None:
    model = small_model(**changes)
    batch = make_batch([3, 1, 5], surplus=3)
    off = ~batch.mask
    garbage = replace(
        batch,
        features={name: value.masked_fill(off.unsqueeze(-1), torch.nan) for name, value in batch.features.items()},
        speakers=batch.speakers.masked_fill(off, 2),
    )
    torch.testing.assert_close(
        model(garbage).logits[batch.mask], model(batch).logits[batch.mask], rtol=1e-12, atol=1e-13
    )


def test_a_modality_in_an_utterance_without_it_is_no_node() -> None:
    model = small_model()
    batch = make_batch([5, 2])
    changed = {
        name: value.masked_fill(~batch.present[name].unsqueeze(-1), torch.nan) for name, value in batch.features.items()
    }
    logits = model(batch).logits
    assert torch.equal(logits, model(replace(batch, features=changed)).logits)
    assert not torch.allclose(logits, model(replace(batch, present=dict.fromkeys(batch.present, batch.mask))).logits)
    nothing = replace(batch, present=dict.fromkeys(batch.present, torch.zeros_like(batch.mask)))
    torch.testing.assert_close(model(nothing).logits, model.classes.bias.expand(2, 5, 3))


@pytest.mark.parametrize("changes", VARIANTS)
def test_every_gradient_is_finite(changes: dict[str, Any]) -> None:
    model = small_model(**changes).train()
    batch = make_batch([4, 1, 2], surplus=2)
    model(batch).logits[batch.mask].square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_mixed_precision_runs() -> None:
    model = small_model().float().train()
    batch = make_batch([4, 2]).to("cpu", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(batch).logits[batch.mask].square().sum()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
