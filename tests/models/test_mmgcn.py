"""MMGCN against a slow, literal reading of its formulas, one dialogue and one node at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mer_bench_models.mmgcn.config import MmgcnConfig
from mer_bench_models.mmgcn.model import Mmgcn
from torch import Tensor

from mer_bench.api import InputSpec
from mer_bench.data.batches import Batch
from mer_bench.errors import DataError

CLASSES = ("anger", "joy", "neutral")
WIDTHS = {"text": 6, "audio": 4, "visual": 3}
LETTERS = {"audio": "a", "visual": "v", "text": "l"}
NARROW: dict[str, Any] = {"node_width": 8, "text_width": 5, "graph_width": 6, "layers": 3}
State = dict[str, Tensor]


def published_state(config: MmgcnConfig, names: tuple[str, ...], seed: int = 0, speakers: int = 4) -> State:
    """Random weights under the published names, those that are never read included."""
    generator = torch.Generator().manual_seed(seed)
    width, half, inner = config.node_width, config.node_width // 2, config.graph_width
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        out = config.text_width if name == "text" else width
        shapes[f"linear_{LETTERS[name]}.weight"] = (out, WIDTHS[name])
        shapes[f"linear_{LETTERS[name]}.bias"] = (out,)
    if "text" in names:
        for layer, inputs in enumerate((config.text_width, width)):
            for ending in ("", "_reverse"):
                shapes[f"lstm_l.weight_ih_l{layer}{ending}"] = (4 * half, inputs)
                shapes[f"lstm_l.weight_hh_l{layer}{ending}"] = (4 * half, half)
                shapes[f"lstm_l.bias_ih_l{layer}{ending}"] = (4 * half,)
                shapes[f"lstm_l.bias_hh_l{layer}{ending}"] = (4 * half,)
    shapes["graph_model.speaker_embeddings.weight"] = (speakers, width)
    shapes["graph_model.graph_net.fcs.0.weight"] = (inner, width)
    shapes["graph_model.graph_net.fcs.0.bias"] = (inner,)
    for layer in range(config.layers):
        shapes[f"graph_model.graph_net.convs.{layer}.weight"] = (2 * inner, inner)
    shapes["smax_fc.weight"] = (len(CLASSES), len(names) * (width + inner))
    shapes["smax_fc.bias"] = (len(CLASSES),)
    shapes["graph_model.a_fc.weight"] = (width, width)
    shapes["att_model.scalar.weight"] = (3, 3)
    return {name: 0.5 * torch.randn(*shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def literal_lstm(state: State, layer: int, rows: list[Tensor]) -> list[Tensor]:
    sides = []
    for ending in ("", "_reverse"):
        name = f"l{layer}{ending}"
        half = state[f"lstm_l.weight_hh_{name}"].shape[1]
        hidden = cell = torch.zeros(half, dtype=torch.float64)
        found = []
        for row in rows if ending == "" else rows[::-1]:
            gates = state[f"lstm_l.weight_ih_{name}"] @ row + state[f"lstm_l.bias_ih_{name}"]
            gates = gates + state[f"lstm_l.weight_hh_{name}"] @ hidden + state[f"lstm_l.bias_hh_{name}"]
            enter, forget, new, leave = (gates[k * half : (k + 1) * half] for k in range(4))
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
            hidden = torch.sigmoid(leave) * torch.tanh(cell)
            found.append(hidden)
        sides.append(found if ending == "" else found[::-1])
    return [torch.cat(pair) for pair in zip(*sides, strict=True)]


def literal_log_probabilities(
    state: State, config: MmgcnConfig, features: dict[str, Tensor], said: list[int]
) -> Tensor:
    order = [name for name in ("audio", "visual", "text") if name in features]
    nodes: list[list[Tensor]] = []
    for name in order:
        letter = LETTERS[name]
        rows = [state[f"linear_{letter}.weight"] @ row + state[f"linear_{letter}.bias"] for row in features[name]]
        if name == "text":
            rows = literal_lstm(state, 1, literal_lstm(state, 0, rows))
            table = state["graph_model.speaker_embeddings.weight"]
            rows = [row + table[person] for row, person in zip(rows, said, strict=True)]
        nodes.append(rows)
    turns, count = len(said), len(order)
    size = count * turns
    flat = [row for rows in nodes for row in rows]
    matrix = [[torch.zeros((), dtype=torch.float64) for _ in range(size)] for _ in range(size)]
    for p in range(size):
        for q in range(size):
            if p // turns == q // turns or p % turns == q % turns:
                cosine = (flat[p] * flat[q]).sum() / ((flat[p] ** 2).sum().sqrt() * (flat[q] ** 2).sum().sqrt())
                matrix[p][q] = 1 - torch.acos(0.99999 * cosine) / math.pi
    adjacency = torch.stack([torch.stack(row) for row in matrix])
    root = torch.diag(adjacency.sum(1) ** -0.5)
    adjacency = root @ adjacency @ root
    x = torch.stack(flat)
    first = torch.relu(x @ state["graph_model.graph_net.fcs.0.weight"].T + state["graph_model.graph_net.fcs.0.bias"])
    h = first
    for layer in range(1, config.layers + 1):
        theta = math.log(config.theta / layer + 1)
        around = adjacency @ h
        weight = state[f"graph_model.graph_net.convs.{layer - 1}.weight"]
        mixed = (1 - config.alpha) * around + config.alpha * first
        h = torch.relu(theta * (torch.cat([around, first], dim=1) @ weight) + (1 - theta) * mixed)
    both = torch.cat([x, h], dim=1)
    joined = torch.cat([both[k * turns : (k + 1) * turns] for k in range(count)], dim=1)
    logits = torch.relu(joined) @ state["smax_fc.weight"].T + state["smax_fc.bias"]
    return logits - logits.exp().sum(1, keepdim=True).log()


def make_batch(lengths: list[int], names: tuple[str, ...], seed: int = 0, surplus: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths) + surplus
    mask = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    features = {
        name: torch.randn(*mask.shape, WIDTHS[name], generator=generator, dtype=torch.float64) * mask.unsqueeze(-1)
        for name in names
    }
    return Batch(
        features=features,
        present={name: mask.clone() for name in names},
        mask=mask,
        speakers=torch.randint(0, 4, mask.shape, generator=generator).masked_fill(~mask, 0),
        lengths=torch.tensor(lengths),
        dialogues=torch.arange(len(lengths)),
    )


def small_model(names: tuple[str, ...], **changes: Any) -> Mmgcn:
    torch.manual_seed(0)
    spec = InputSpec({name: WIDTHS[name] for name in names}, CLASSES, 4)
    return Mmgcn(spec, MmgcnConfig(**{**NARROW, **changes})).double()


def one_of(batch: Batch, index: int) -> Batch:
    length = int(batch.lengths[index])
    rows = slice(index, index + 1)
    return Batch(
        features={name: value[rows, :length] for name, value in batch.features.items()},
        present={name: value[rows, :length] for name, value in batch.present.items()},
        mask=batch.mask[rows, :length],
        speakers=batch.speakers[rows, :length],
        lengths=batch.lengths[rows],
        dialogues=batch.dialogues[rows],
    )


SUBSETS: list[tuple[str, ...]] = [
    ("text",),
    ("audio",),
    ("text", "audio"),
    ("audio", "visual"),
    ("text", "audio", "visual"),
]


@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    names=st.sampled_from(SUBSETS),
    layers=st.integers(1, 4),
    theta=st.sampled_from([0.5, 1.0]),
    alpha=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 999),
)
@settings(max_examples=25, deadline=None)
def test_published_weights_give_what_the_formulas_say(
    lengths: list[int], names: tuple[str, ...], layers: int, theta: float, alpha: float, seed: int
) -> None:
    config = MmgcnConfig(**{**NARROW, "layers": layers}, theta=theta, alpha=alpha)
    state = published_state(config, names, seed)
    batch = make_batch(lengths, names, seed)
    model = Mmgcn.from_published(state, config)
    assert model.spec.modalities == tuple(name for name in ("text", "audio", "visual") if name in names)
    result = model(batch).logits.log_softmax(-1)
    for index, length in enumerate(lengths):
        features = {name: value[index, :length] for name, value in batch.features.items()}
        expected = literal_log_probabilities(state, config, features, batch.speakers[index, :length].tolist())
        torch.testing.assert_close(result[index, :length], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("names", [("text",), ("text", "audio", "visual")])
def test_gradients_are_those_of_the_formulas(names: tuple[str, ...]) -> None:
    lengths = [3, 1, 2]
    config = MmgcnConfig(**NARROW)
    state = {name: value.requires_grad_() for name, value in published_state(config, names, 1).items()}
    batch = make_batch(lengths, names, 1)
    model = Mmgcn.from_published({name: value.detach() for name, value in state.items()}, config)
    weights = torch.randn(*batch.mask.shape, len(CLASSES), dtype=torch.float64)
    (model(batch).logits.log_softmax(-1) * weights)[batch.mask].sum().backward()
    total = torch.zeros((), dtype=torch.float64)
    for index, length in enumerate(lengths):
        features = {name: value[index, :length] for name, value in batch.features.items()}
        rows = literal_log_probabilities(state, config, features, batch.speakers[index, :length].tolist())
        total = total + (rows * weights[index, :length]).sum()
    total.backward()
    gradients = {name: value.grad for name, value in state.items() if value.grad is not None}
    # Loading only moves numbers about, so it moves gradients to the parameters they belong to.
    expected = dict(Mmgcn.from_published(gradients, config).named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].detach(), rtol=1e-8, atol=1e-9, msg=name)


def test_a_graph_layer_by_hand() -> None:
    """One utterance, one modality: its only neighbour is itself with weight 1, so A h = h."""
    config = MmgcnConfig(**{**NARROW, "layers": 1})
    state = {name: torch.zeros_like(value) for name, value in published_state(config, ("audio",)).items()}
    state["linear_a.bias"][:] = 1
    state["graph_model.graph_net.fcs.0.bias"][0] = 2
    state["graph_model.graph_net.convs.0.weight"][0, 1] = 1  # from A h
    state["graph_model.graph_net.convs.0.weight"][6, 2] = 3  # from h0
    state["smax_fc.weight"][0, 8] = state["smax_fc.weight"][1, 9] = state["smax_fc.weight"][2, 10] = 1
    logits = Mmgcn.from_published(state, config)(make_batch([1], ("audio",))).logits[0, 0]
    theta = math.log(1.5)
    expected = torch.tensor([2 * (1 - theta), 2 * theta, 6 * theta], dtype=torch.float64)
    torch.testing.assert_close(logits, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("names", SUBSETS)
def test_padding_and_batch_mates_change_nothing(names: tuple[str, ...]) -> None:
    model = small_model(names).eval()
    batch = make_batch([3, 1, 5, 2], names, surplus=2)
    together = model(batch).logits
    garbage = replace(
        batch,
        features={name: value + 1e3 * ~batch.mask.unsqueeze(-1) for name, value in batch.features.items()},
        speakers=batch.speakers + ~batch.mask,
    )
    real = batch.mask
    torch.testing.assert_close(model(garbage).logits[real], together[real], rtol=1e-12, atol=1e-13)
    for index, length in enumerate(batch.lengths.tolist()):
        torch.testing.assert_close(model(one_of(batch, index)).logits[0], together[index, :length], rtol=1e-11, atol=0)


@pytest.mark.parametrize("names", SUBSETS)
def test_a_missing_modality_has_no_node(names: tuple[str, ...]) -> None:
    model = small_model(names).eval()
    batch = make_batch([3, 1], names)
    last = names[-1]
    there = {name: value.clone() for name, value in batch.present.items()}
    there[last][0, 1] = there[last][1, 0] = False
    missing = replace(batch, present=there)
    changed = dict(batch.features)
    changed[last] = changed[last] + 5 * (batch.mask & ~there[last]).unsqueeze(-1)
    result = model(missing).logits
    assert bool(result.isfinite().all())
    torch.testing.assert_close(model(replace(missing, features=changed)).logits, result, rtol=0, atol=0)
    assert not torch.allclose(model(batch).logits, result)
    block = NARROW["node_width"] + NARROW["graph_width"]
    with torch.no_grad():
        model.classes.weight[:, -block:] += 1  # what reads the last modality
    reread = model(missing).logits
    assert torch.equal(reread[0, 1], result[0, 1])
    assert not torch.allclose(reread[0, 0], result[0, 0])
    model.train()
    model(missing).logits.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_the_order_of_the_modalities_is_free() -> None:
    config = MmgcnConfig(**NARROW)
    names = ("text", "audio", "visual")
    state = published_state(config, names)
    batch = make_batch([3, 2], names)
    spec = InputSpec({name: WIDTHS[name] for name in reversed(names)}, CLASSES, 4)
    turned = Mmgcn.from_published(state, config, spec)
    torch.testing.assert_close(turned(batch).logits, Mmgcn.from_published(state, config)(batch).logits)


def test_speaker_rows_can_be_switched_off() -> None:
    model = small_model(("text", "audio"), speaker_rows=False).eval()
    batch = make_batch([4], ("text", "audio"))
    other = replace(batch, speakers=torch.zeros_like(batch.speakers))
    assert torch.equal(model(batch).logits, model(other).logits)
    spoken = small_model(("text", "audio")).eval()
    assert not torch.allclose(spoken(batch).logits, spoken(other).logits)


def test_dropout_acts_in_training_alone() -> None:
    model = small_model(("text", "audio"), input_dropout=0.2)
    batch = make_batch([4, 2], ("text", "audio"))
    assert not torch.allclose(model(batch).logits, model(batch).logits)
    model.eval()
    assert torch.equal(model(batch).logits, model(batch).logits)


def test_mixed_precision_keeps_graph_and_recurrence_in_full() -> None:
    model = small_model(("text", "audio")).float()
    batch = make_batch([4, 2], ("text", "audio")).to("cpu", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch).logits
    logits.float()[batch.mask].logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_a_checkpoint_with_a_fault_is_refused_by_the_name_of_the_entry() -> None:
    config = MmgcnConfig(**NARROW)
    names = ("text", "audio", "visual")
    state = published_state(config, names)
    unused = ("graph_model.a_fc.weight", "att_model.scalar.weight")
    assert Mmgcn.from_published(state, config).ignored_entries == tuple(sorted(unused))
    for name in state:
        rest = {key: value for key, value in state.items() if key != name}
        if name in unused:
            assert name not in Mmgcn.from_published(rest, config).ignored_entries
            continue
        if name == "linear_v.weight":  # a checkpoint without it is one of fewer modalities
            with pytest.raises(DataError, match="smax_fc"):
                Mmgcn.from_published(rest, config)
            continue
        if name in ("linear_l.weight", "linear_a.weight"):
            with pytest.raises(DataError):
                Mmgcn.from_published(rest, config)
            continue
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            Mmgcn.from_published(rest, config)
        with pytest.raises(DataError):
            Mmgcn.from_published({**state, name: torch.zeros(2, 3, 4, 5)}, config)
    with pytest.raises(DataError, match=r"convs\.2"):
        Mmgcn.from_published(state, config.model_copy(update={"layers": 2}))
    with pytest.raises(DataError, match=r"convs\.3"):
        Mmgcn.from_published(state, config.model_copy(update={"layers": 4}))
    with pytest.raises(DataError, match="surplus"):
        Mmgcn.from_published({**state, "surplus": torch.zeros(1)}, config)


def test_the_width_before_the_lstm_is_read_from_the_checkpoint() -> None:
    config = MmgcnConfig(**NARROW)
    state = published_state(config, ("text", "audio"))
    other = config.model_copy(update={"text_width": 77})
    batch = make_batch([3], ("text", "audio"))
    loaded = Mmgcn.from_published(state, other)
    assert loaded.settings.text_width == 5
    assert torch.equal(loaded(batch).logits, Mmgcn.from_published(state, config)(batch).logits)


def test_a_state_without_speaker_rows_may_keep_or_drop_them() -> None:
    config = MmgcnConfig(**NARROW, speaker_rows=False)
    name = "graph_model.speaker_embeddings.weight"
    state = published_state(config, ("text", "audio"))
    assert name in Mmgcn.from_published(state, config).ignored_entries
    del state[name]
    Mmgcn.from_published(state, config)
