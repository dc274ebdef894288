"""The graph of modalities against one dense matrix, and its layers against plain operators."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mer_bench.nn import graph as graph_module
from mer_bench.nn.dropout import dropout, dropout_factors, kept_layers
from mer_bench.nn.graph import ModalityGraph, angular_similarity, graph_layers, modality_graph


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def literal_adjacency(nodes: Tensor, present: Tensor) -> Tensor:
    """One dialogue, node by node: (M, T, width) and (M, T) to (M * T, M * T)."""
    modalities, turns, _ = nodes.shape
    size = modalities * turns
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for m in range(modalities):
        for n in range(modalities):
            for i in range(turns):
                for j in range(turns):
                    if (m == n or i == j) and present[m, i] and present[n, j]:
                        a, b = nodes[m, i], nodes[n, j]
                        cosine = float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
                        matrix[m * turns + i, n * turns + j] = 1 - math.acos(0.99999 * cosine) / math.pi
    degree = matrix.sum(1)
    scale = torch.where(degree > 0, degree, 1.0) ** -0.5
    return scale.unsqueeze(1) * matrix * scale


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_the_graph_is_the_dense_matrix_of_each_dialogue(modalities: int) -> None:
    nodes = drawn(0, 3, modalities, 4, 5)
    present = torch.ones(3, modalities, 4, dtype=torch.bool)
    present[0, :, 3:] = False
    present[1, 0, 1] = False
    present[2, :, 1:] = False
    dense = modality_graph(nodes, present).dense()
    for index in range(3):
        torch.testing.assert_close(dense[index], literal_adjacency(nodes[index], present[index]), rtol=1e-12, atol=0)


def test_the_angle_by_hand() -> None:
    found = angular_similarity(torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64))
    edge = math.acos(0.99999) / math.pi
    torch.testing.assert_close(found, torch.tensor([1 - edge, 0.5, edge], dtype=torch.float64))


def test_a_node_of_zeros_gives_finite_gradients() -> None:
    nodes = drawn(1, 1, 2, 3, 4)
    nodes[0, 0, 1] = 0
    nodes.requires_grad_()
    present = torch.ones(1, 2, 3, dtype=torch.bool)
    present[0, 1, 2] = False
    graph = modality_graph(nodes, present)
    (graph.within.sum() + graph.across.sum()).backward()
    assert nodes.grad is not None
    assert bool(nodes.grad.isfinite().all())
    assert bool((nodes.grad[0, 1, 2] == 0).all())


@pytest.fixture(params=["one matrix a dialogue", "blocks"])
def adjacency_form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways in which the layers hold an adjacency; which one is taken hangs on the length."""
    monkeypatch.setattr(graph_module, "DENSE_TURNS", 32 if request.param == "one matrix a dialogue" else 0)


@pytest.mark.usefixtures("adjacency_form")
@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_layers_equal_plain_operators_with_their_gradients(modalities: int) -> None:
    layers, width, turns = 3, 4, 5
    first = drawn(2, 2, modalities, turns, width).requires_grad_()
    source = drawn(3, 2, modalities, turns, 6).requires_grad_()
    carried, fixed = drawn(4, layers, width, width).requires_grad_(), drawn(5, layers, width, width).requires_grad_()
    present = torch.ones(2, modalities, turns, dtype=torch.bool)
    present[1, :, 3:] = False
    inputs = (first, source, carried, fixed)

    def ours() -> Tensor:
        return graph_layers(first, modality_graph(source, present), carried, fixed, rate=0.5, training=False)

    def plain() -> Tensor:
        dense = modality_graph(source, present).dense()
        start = first.relu().flatten(1, 2)
        current = start
        for layer in range(layers):
            current = (dense @ current @ carried[layer] + start @ fixed[layer]).relu()
        return current.view_as(first)

    seed = drawn(6, *first.shape)
    torch.testing.assert_close(ours(), plain(), rtol=1e-12, atol=1e-12)
    mine = torch.autograd.grad((ours() * seed).sum(), inputs)
    expected = torch.autograd.grad((plain() * seed).sum(), inputs)
    for found, wanted in zip(mine, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("adjacency_form")
def test_derivatives_of_the_layers_under_dropout_are_the_numerical_ones() -> None:
    first, carried, fixed = drawn(7, 2, 2, 3, 4), drawn(8, 2, 4, 4), drawn(9, 2, 4, 4)
    graph = modality_graph(drawn(10, 2, 2, 3, 5), torch.ones(2, 2, 3, dtype=torch.bool))
    inputs = [value.detach().requires_grad_() for value in (first, graph.within, graph.across, carried, fixed)]

    def layers(first: Tensor, within: Tensor, across: Tensor, carried: Tensor, fixed: Tensor) -> Tensor:
        torch.manual_seed(11)  # the same values are dropped each time
        # The backward pass relies on a symmetric adjacency, so the perturbed one is made symmetric.
        within = (within + within.transpose(1, 2)) / 2
        across = (across + across.transpose(0, 1)) / 2
        across = across * (1 - torch.eye(2, dtype=torch.float64)).view(2, 2, 1, 1, 1)
        return graph_layers(first, ModalityGraph(within, across), carried, fixed, rate=0.4, training=True)

    assert torch.autograd.gradcheck(layers, inputs)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(rate: float) -> None:
    torch.manual_seed(0)
    factors = dropout_factors((400, 501), rate, torch.empty(0))
    share = float((factors == 0).double().mean())
    assert abs(share - rate) < 5 * math.sqrt(rate * (1 - rate) / factors.numel())
    assert factors.unique().numel() == 2
    assert abs(float(factors.max()) * (1 - rate) - 1) < 1e-3
    rows, columns = (factors == 0).double().mean(0), (factors == 0).double().mean(1)
    assert float(rows.std()) < 1.3 * math.sqrt(rate * (1 - rate) / 400)
    assert float(columns.std()) < 1.3 * math.sqrt(rate * (1 - rate) / 501)


@pytest.mark.parametrize("count", [12, 13])
def test_layers_drawn_at_one_go_are_those_drawn_one_by_one(count: int) -> None:
    torch.manual_seed(2)
    together = kept_layers(5, count, 0.4, torch.empty(0))
    torch.manual_seed(2)
    one_by_one = torch.stack([dropout_factors((count,), 0.4, torch.empty(0)) != 0 for _ in range(5)])
    assert torch.equal(together, one_by_one)


def test_dropout_leaves_values_alone_outside_training() -> None:
    values = torch.randn(3, 4)
    assert dropout(values, 0.5, training=False) is values
    assert dropout(values, 0.0, training=True) is values
    torch.manual_seed(1)
    first = dropout(values, 0.5, training=True)
    torch.manual_seed(1)
    assert torch.equal(first, dropout(values, 0.5, training=True))
