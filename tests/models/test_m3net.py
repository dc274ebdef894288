"""M3Net against PyTorch's GRU, torch-geometric's operators, and a slow literal reading over one node at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from mer_bench_models.m3net.config import M3NetConfig
from mer_bench_models.m3net.frequency import FrequencyLayer, frequency_graph
from mer_bench_models.m3net.hypergraph import HypergraphLayer
from mer_bench_models.m3net.model import M3Net
from torch import Tensor, nn
from torch_geometric.nn import FAConv, HypergraphConv

from mer_bench.api import InputSpec
from mer_bench.data.batches import Batch
from mer_bench.errors import DataError
from mer_bench.nn.recurrent import GruWeights
from tests.models.batches import batch_with_gaps

CLASSES = ("anger", "joy", "neutral")
WIDTHS = {"text": 6, "audio": 4, "visual": 3}
ALL = ("text", "audio", "visual")
NARROW: dict[str, Any] = {"hidden_dim": 8, "hypergraph_layers": 2, "frequency_layers": 2}
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"keep_nodes": True, "hypergraph_map": True, "speakers": "all"},
    {"hyperedge_weights": "kind", "text_layers": 1},
    {"hyperedge_weights": "none", "frequencies": "high", "speakers": "none"},
    {"hyperedges": "contextual", "frequencies": "low"},
    {"hyperedges": "multimodal", "branches": "hypergraph"},
    {"branches": "frequency"},
)
Node = tuple[int, int]


def moved(module: nn.Module, seed: int = 0) -> nn.Module:
    """Away from its first weights, some of which are zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype), alpha=0.3)
    return module


def small_model(names: tuple[str, ...] = ALL, **changes: Any) -> M3Net:
    torch.manual_seed(0)
    spec = InputSpec({name: WIDTHS[name] for name in names}, CLASSES, 3)
    model = moved(M3Net(spec, M3NetConfig(**{**NARROW, **changes})).double().eval())
    assert isinstance(model, M3Net)
    return model


def make_batch(
    lengths: list[int], names: tuple[str, ...] = ALL, seed: int = 0, surplus: int = 0, share: float = 0.7
) -> Batch:
    return batch_with_gaps({name: WIDTHS[name] for name in names}, lengths, 3, seed, surplus, share)


def torch_gru(weights: GruWeights, rows: Tensor) -> Tensor:
    """PyTorch's bidirectional GRU with the same weights over one dialogue: (T, width)."""
    inputs, width = weights.inputs[0].shape[1], weights.width
    gru = nn.GRU(inputs, width, bidirectional=True).double()

    def theirs(value: Tensor) -> Tensor:
        new, reset, update = value.chunk(3)
        return torch.cat([reset, update, new])

    with torch.no_grad():
        for side, ending in enumerate(("", "_reverse")):
            getattr(gru, f"weight_ih_l0{ending}").copy_(theirs(weights.inputs[0][side].T))
            getattr(gru, f"weight_hh_l0{ending}").copy_(weights.state[side].T)
            getattr(gru, f"bias_ih_l0{ending}").copy_(theirs(weights.input_bias[side, 0]))
            getattr(gru, f"bias_hh_l0{ending}").copy_(weights.state_bias[side, 0])
    result: Tensor = gru(rows)[0]
    return result


def weight_in(layer: HypergraphLayer, kind: str, node: Node, values: Tensor) -> Tensor:
    """How much a node counts in its hyperedge of that kind, before anything is divided by a sum."""
    if layer.settings.hyperedge_weights == "content":
        score = layer.context_score if kind == "contextual" else layer.modality_score
        assert score is not None
        return torch.exp(values @ score)
    if layer.settings.hyperedge_weights == "kind" and kind == "multimodal":
        assert layer.modality_weight is not None
        return torch.exp(layer.modality_weight[node[0]])
    return torch.ones((), dtype=torch.float64)


def literal_hypergraph(layer: HypergraphLayer, nodes: dict[Node, Tensor], modalities: int) -> dict[Node, Tensor]:
    """`leaky_relu(D^-1 H W B^-1 G^T X P + b)`, hyperedge by hyperedge; a node is (modality, turn)."""
    if layer.map is not None:
        nodes = {node: layer.map.weight @ value for node, value in nodes.items()}
    edges: list[tuple[str, float, list[Node]]] = []
    wanted = layer.settings.hyperedges
    weights = layer.edge_weight.exp().tolist() if layer.edge_weight is not None else [1.0] * (modalities + 1)
    if wanted != "multimodal":
        edges += [
            ("contextual", weights[modality], [node for node in nodes if node[0] == modality])
            for modality in range(modalities)
        ]
    if wanted != "contextual":
        edges += [
            ("multimodal", weights[-1], [node for node in nodes if node[1] == turn])
            for turn in {node[1] for node in nodes}
        ]
    held: dict[Node, Tensor] = {node: torch.zeros_like(value) for node, value in nodes.items()}
    degree = dict.fromkeys(nodes, 0.0)
    for kind, weight, members in edges:
        if members:
            counts = [weight_in(layer, kind, node, nodes[node]) for node in members]
            total = torch.stack(counts).sum()
            message = torch.stack([c * nodes[node] for c, node in zip(counts, members, strict=True)]).sum(0) / total
            for node in members:
                held[node] = held[node] + weight * message
                degree[node] += weight
    mixed = {node: held[node] / degree[node] + layer.bias for node in nodes}
    return {node: torch.where(value > 0, value, 0.01 * value) for node, value in mixed.items()}


def literal_frequency(layer: FrequencyLayer, nodes: dict[Node, Tensor]) -> dict[Node, Tensor]:
    neighbours = {i: [j for j in nodes if i != j and (i[0] == j[0] or i[1] == j[1])] for i in nodes}
    result = {}
    for i, own_value in nodes.items():
        value = own_value
        for j in neighbours[i]:
            share = torch.tensor(float(layer.sign), dtype=torch.float64)
            if layer.gate is not None:
                own, other = layer.gate.weight
                share = torch.tanh(own @ own_value + other @ nodes[j] + layer.gate.bias.sum())
            value = value + share / math.sqrt(len(neighbours[i]) * len(neighbours[j])) * nodes[j]
        result[i] = value
    return result


def literal_logits(model: M3Net, batch: Batch, dialogue: int, names: tuple[str, ...]) -> Tensor:
    config, turns = model.settings, int(batch.lengths[dialogue])
    there = {name: batch.present[name][dialogue, :turns] for name in names}
    said = batch.speakers[dialogue, :turns]
    before: dict[Node, Tensor] = {}
    for number, name in enumerate(names):
        projection = model.projections[name]
        assert isinstance(projection, nn.Linear)
        rows = projection(batch.features[name][dialogue, :turns]) * there[name].unsqueeze(-1)
        if name == "text":
            assert model.text_gru is not None
            for cell in model.text_gru.cells:
                assert isinstance(cell, GruWeights)
                rows = torch_gru(cell, rows)
        if config.speakers in ("all", name):
            assert model.speaker_vectors is not None
            rows = rows + model.speaker_vectors.weight[said]
        before |= {(number, turn): rows[turn] for turn in range(turns) if there[name][turn]}
    entered = {node: model.entry(value) for node, value in before.items()}
    parts = [before] if config.keep_nodes else []
    if config.branches != "frequency":
        mixed = entered
        for layer in model.hypergraph:
            assert isinstance(layer, HypergraphLayer)
            mixed = literal_hypergraph(layer, mixed, len(names))
        parts.append(mixed)
    if config.branches != "hypergraph":
        mixed = entered
        for layer in model.frequency:
            assert isinstance(layer, FrequencyLayer)
            mixed = literal_frequency(layer, mixed)
        parts.append(mixed)
    absent = torch.zeros(config.hidden_dim, dtype=torch.float64)
    rows = torch.stack(
        [
            torch.cat([part.get((number, turn), absent) for number in range(len(names)) for part in parts])
            for turn in range(turns)
        ]
    )
    result: Tensor = model.classes(rows.clamp_min(0))
    return result


@pytest.mark.parametrize("names", [ALL, ("text", "audio"), ("visual",)])
@pytest.mark.parametrize("changes", VARIANTS, ids=[" ".join(map(str, change)) or "default" for change in VARIANTS])
def test_logits_are_what_the_formulas_say(changes: dict[str, Any], names: tuple[str, ...]) -> None:
    model = small_model(names, **changes)
    batch = make_batch([4, 1, 6, 2], names, surplus=2)
    with torch.no_grad():
        got = model(batch).logits
        for dialogue, turns in enumerate(batch.lengths.tolist()):
            expected = literal_logits(model, batch, dialogue, names)
            torch.testing.assert_close(got[dialogue, :turns], expected, rtol=1e-9, atol=1e-10)


def layer_case(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes (2, 3, 5, 8), who is present, and the number of each present node or -1."""
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(2, 3, 5, generator=generator) < 0.7
    present[1, :, 3:] = False
    nodes = torch.randn(2, 3, 5, 8, generator=generator, dtype=torch.float64) * present.unsqueeze(-1)
    numbers = torch.full(present.shape, -1)
    numbers[present] = torch.arange(int(present.sum()))
    return nodes, present, numbers


def test_without_weights_a_hypergraph_layer_is_torch_geometrics() -> None:
    nodes, present, numbers = layer_case()
    torch.manual_seed(0)
    layer = HypergraphLayer(M3NetConfig(hidden_dim=8, hyperedge_weights="none", hypergraph_map=True), 3).double()
    moved(layer)
    members = [
        column[column >= 0]
        for table in (numbers.flatten(0, 1), numbers.transpose(1, 2).flatten(0, 1))
        for column in table
    ]
    members = [column for column in members if len(column)]
    index = torch.stack(
        [torch.cat(members), torch.cat([torch.full_like(column, edge) for edge, column in enumerate(members)])]
    )
    reference = HypergraphConv(8, 8).double()
    assert layer.map is not None
    with torch.no_grad():
        reference.lin.weight.copy_(layer.map.weight)
        reference.bias.copy_(layer.bias)
        expected = nn.functional.leaky_relu(reference(nodes[present], index))
        torch.testing.assert_close(layer(nodes, present)[present], expected)


def test_an_adaptive_frequency_layer_is_torch_geometrics_faconv() -> None:
    nodes, present, _ = layer_case(1)
    layer = FrequencyLayer(M3NetConfig(hidden_dim=8)).double()
    assert layer.gate is not None
    with torch.no_grad():
        layer.gate.bias.zero_()  # FAConv has none
    same_dialogue = torch.arange(2).view(-1, 1, 1).expand(present.shape)[present]
    modality = torch.arange(3).view(1, -1, 1).expand(present.shape)[present]
    turn = torch.arange(5).expand(present.shape)[present]
    joined = (same_dialogue.unsqueeze(1) == same_dialogue) & (
        (modality.unsqueeze(1) == modality) != (turn.unsqueeze(1) == turn)
    )
    edges = joined.nonzero().T
    degree = joined.sum(0).double()
    # Both kinds of edge of a dialogue's node are counted in one degree.
    weight = (degree[edges[0]] * degree[edges[1]]).rsqrt()
    reference = FAConv(8, eps=1.0, add_self_loops=False, normalize=False).double()
    with torch.no_grad():
        reference.att_r.weight.copy_(layer.gate.weight[:1])  # of the receiving node
        reference.att_l.weight.copy_(layer.gate.weight[1:])
        expected = reference(nodes[present], nodes[present], edges, edge_weight=weight)
        got = layer(nodes, frequency_graph(present, nodes))[present]
    torch.testing.assert_close(got, expected)


def test_low_frequencies_smooth_and_high_ones_sharpen() -> None:
    present = torch.ones(1, 1, 2, dtype=torch.bool)
    nodes = torch.tensor([[[[1.0], [3.0]]]])
    graph = frequency_graph(present, nodes)
    got = {}
    for kind in ("low", "high"):
        settings = M3NetConfig(frequencies=kind)
        got[kind] = FrequencyLayer(settings)(nodes, graph).flatten().tolist()
    assert got == {"low": [4.0, 4.0], "high": [-2.0, 2.0]}


def test_hyperedge_weights_by_hand() -> None:
    config = M3NetConfig(hidden_dim=4, hyperedge_weights="kind")
    layer = HypergraphLayer(config, 2)
    assert layer.edge_weight is not None
    assert layer.modality_weight is not None
    with torch.no_grad():
        layer.edge_weight.copy_(torch.tensor([3.0, 1.0, 1.0]).log())
        layer.modality_weight.copy_(torch.tensor([1.0, 4.0]).log())
    nodes = torch.zeros(1, 2, 2, 4)
    nodes[0, 0, :, 0] = torch.tensor([1.0, 5.0])
    nodes[0, 1, :, 0] = torch.tensor([2.0, 10.0])
    # The first modality's hyperedge holds 3, the first utterance's (1 + 4 * 2) / 5; they count 3 and 1.
    got = layer(nodes, torch.ones(1, 2, 2, dtype=torch.bool))[0, :, 0, 0]
    assert got.tolist() == pytest.approx([(3 * 3 + 1.8) / 4, (6 + 1.8) / 2])


def test_a_missing_modality_is_no_node() -> None:
    """What an utterance without audio would have said in audio, and who said it there, moves no other node."""
    model = small_model(("text", "audio"), speakers="all", keep_nodes=True)
    batch = make_batch([4], ("text", "audio"), share=1.0)
    there = batch.present["audio"].clone()
    there[0, 1] = False
    missing = replace(batch, present={**batch.present, "audio": there})
    noisy = {**batch.features, "audio": batch.features["audio"].masked_fill(~there.unsqueeze(-1), torch.nan)}
    result = model(missing).logits
    assert torch.equal(model(replace(missing, features=noisy)).logits, result)
    assert not torch.allclose(model(batch).logits[0, 0], result[0, 0])
    nothing = replace(batch, present={name: torch.zeros_like(there) for name in batch.present})
    torch.testing.assert_close(model(nothing).logits[0], model.classes.bias.expand(4, -1))


def test_more_speakers_than_the_model_was_built_for() -> None:
    batch = make_batch([3])
    batch = replace(batch, speakers=torch.full_like(batch.speakers, 3))
    with pytest.raises(DataError, match="4 speakers, but this model was built for at most 3"):
        small_model()(batch)
    assert bool(small_model(speakers="none")(batch).logits.isfinite().all())
