"""GraphSmile against a slow literal reading over one node and one pair at a time, and against torch-geometric."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from mer_bench_models.graphsmile.config import GraphSmileConfig
from mer_bench_models.graphsmile.graph import REACH, PairEdges, PairLayer, modality_pairs
from mer_bench_models.graphsmile.model import GraphSmile
from mer_bench_models.graphsmile.polarity import NAMES, class_polarities, is_sentiment
from mer_bench_models.graphsmile.sentiment import UNKNOWN, PolarityTable, SentimentTask, ShiftTask
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GCNConv

from mer_bench.api import InputSpec
from mer_bench.data.batches import NO_LABEL, Batch
from mer_bench.testing.model_checks import training_loss

CLASSES = ("neutral", "surprise", "joy", "anger", "fear")
POLARITY = {"neutral": 1, "surprise": None, "joy": 2, "anger": 0, "fear": 0}
WIDTHS = {"text": 6, "audio": 4, "visual": 3}
ALL = ("text", "audio", "visual")
NARROW: dict[str, Any] = {"hidden_dim": 8, "layers": 3, "past_window": 2, "future_window": 1, "shift_window": 3}
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"past_window": -1, "future_window": 0},
    {"past_window": 0, "future_window": -1, "edge_weights": False, "shift_window": -1},
    {"past_window": 0, "future_window": 0, "layers": 1},
)


def moved(module: nn.Module, seed: int = 0) -> None:
    """Away from its first weights, some of which are zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype), alpha=0.3)


def small_model(names: tuple[str, ...] = ALL, classes: tuple[str, ...] = CLASSES, **changes: Any) -> GraphSmile:
    torch.manual_seed(0)
    spec = InputSpec({name: WIDTHS[name] for name in names}, classes, 3)
    model = GraphSmile(spec, GraphSmileConfig(**{**NARROW, **changes})).double().eval()
    moved(model)
    return model


def make_batch(
    lengths: list[int], names: tuple[str, ...] = ALL, seed: int = 0, surplus: int = 0, share: float = 0.7
) -> Batch:
    """A batch of which `share` of the utterances have a modality, and about four fifths a label."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths) + surplus
    mask = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    present = {name: mask & (torch.rand(mask.shape, generator=generator) < share) for name in names}
    labelled = mask & (torch.rand(mask.shape, generator=generator) < 0.8)
    return Batch(
        features={
            name: torch.randn(*mask.shape, WIDTHS[name], generator=generator, dtype=torch.float64)
            * present[name].unsqueeze(-1)
            for name in names
        },
        present=present,
        mask=mask,
        speakers=torch.zeros_like(mask, dtype=torch.long),
        lengths=torch.tensor(lengths),
        dialogues=torch.arange(len(lengths)),
        labels=torch.randint(0, len(CLASSES), mask.shape, generator=generator).masked_fill(~labelled, NO_LABEL),
    )


def leaky(value: Tensor) -> Tensor:
    return torch.where(value > 0, value, 0.01 * value)


def literal_graph(
    model: GraphSmile, number: int, sides: tuple[dict[int, Tensor], dict[int, Tensor]]
) -> list[dict[int, Tensor]]:
    """What the nodes of both sides are after all layers of one pair's graph; a side is turn -> node."""
    config = model.settings

    def edge(side: int, here: int, there: int) -> float:
        """Of A, before it is normalised: what the node of a side takes from the other side's."""
        distance = there - here
        too_early = config.past_window >= 0 and distance < -config.past_window
        if too_early or (config.future_window >= 0 and distance > config.future_window):
            return 0.0
        if model.edges.weight is None:
            return 1.0
        middle = model.edges.weight.shape[-1] // 2
        return math.exp(model.edges.weight[number, side, middle + max(-middle, min(middle, distance))].item())

    degree = [
        {here: sum(edge(side, here, there) for there in sides[1 - side]) for here in sides[side]} for side in (0, 1)
    ]
    held = [dict(side) for side in sides]
    total = [dict(side) for side in sides]
    for layer in model.layers:
        assert isinstance(layer, PairLayer)
        after: list[dict[int, Tensor]] = [{}, {}]
        for side in (0, 1):
            for here in sides[side]:
                found = torch.zeros(config.hidden_dim, dtype=torch.float64)
                for there, value in held[1 - side].items():
                    weight = edge(side, here, there)
                    # A receiver that sends to nobody in its own row has no degree; its column then is not scaled.
                    norm = math.sqrt((degree[side][here] or 1) * (degree[1 - side][there] or 1))
                    found = found + weight / norm * value
                after[side][here] = found @ layer.weight[number] + layer.bias[number, 0]
                handed = leaky(after[side][here] @ layer.handed_weight[number] + layer.handed_bias[number, 0])
                total[side][here] = total[side][here] + handed
        held = after
    return total


def literal_states(model: GraphSmile, batch: Batch, dialogue: int, names: tuple[str, ...]) -> Tensor:
    turns = int(batch.lengths[dialogue])
    nodes = []
    for name in names:
        projection = model.projections[name]
        nodes.append(
            {
                turn: leaky(projection(batch.features[name][dialogue, turn]))
                for turn in range(turns)
                if batch.present[name][dialogue, turn]
            }
        )
    pairs = list(combinations(range(len(names)), 2)) or [(0, 0)]
    found: list[list[Tensor]] = [[] for _ in range(turns)]
    for number, (first, second) in enumerate(pairs):
        for side in literal_graph(model, number, (nodes[first], nodes[second])):
            for turn, value in side.items():
                found[turn].append(leaky(model.fusion(value)))
    nothing = torch.zeros(model.settings.hidden_dim, dtype=torch.float64)
    return torch.stack([torch.stack(rows).mean(0) if rows else nothing for rows in found])


def literal_losses(model: GraphSmile, states: list[Tensor], labels: list[list[int]]) -> dict[str, float]:
    """Means over all dialogues of the terms, from the names of the classes."""
    sentiments, shifts = [], []
    assert model.sentiment is not None
    assert model.shift is not None
    for rows, said in zip(states, labels, strict=True):
        polarity = [None if label == NO_LABEL else POLARITY[CLASSES[label]] for label in said]
        window = model.settings.shift_window if model.settings.shift_window > 0 else len(said)
        for i, mine in enumerate(polarity):
            if mine is None:
                continue
            sentiments.append(-model.sentiment.scores(rows[i]).log_softmax(-1)[mine].item())
            start = i // window * window
            for j in range(start, min(start + window, len(said))):
                if polarity[j] is not None:
                    score = model.shift.scores(rows[i])[0] + model.shift.scores(rows[j])[1]
                    likely = torch.sigmoid(score if mine != polarity[j] else -score)
                    shifts.append(-likely.log().item())
    return {"sentiment": sum(sentiments) / len(sentiments), "shift": sum(shifts) / len(shifts)}


@pytest.mark.parametrize("names", [ALL, ("text", "audio"), ("visual",)])
@pytest.mark.parametrize("changes", VARIANTS, ids=[" ".join(map(str, change)) or "default" for change in VARIANTS])
def test_logits_and_losses_are_what_the_formulas_say(changes: dict[str, Any], names: tuple[str, ...]) -> None:
    model = small_model(names, **changes)
    batch = make_batch([4, 1, 7, 2], names, surplus=2)
    assert batch.labels is not None
    with torch.no_grad():
        output = model(batch)
        states = [literal_states(model, batch, dialogue, names) for dialogue in range(4)]
        for dialogue, rows in enumerate(states):
            torch.testing.assert_close(output.logits[dialogue, : len(rows)], model.classes(rows), rtol=1e-9, atol=1e-10)
    labels = [batch.labels[dialogue, : len(rows)].tolist() for dialogue, rows in enumerate(states)]
    expected = literal_losses(model, states, labels)
    assert output.losses.keys() == expected.keys()
    for name, value in expected.items():
        assert float(output.losses[name].value) == pytest.approx(value, rel=1e-9)
    assert output.losses["sentiment"].weight == model.settings.sentiment_weight
    assert output.losses["shift"].weight == model.settings.shift_weight
    assert not model(batch.without_labels()).losses


def test_a_layer_is_torch_geometrics_gcn_on_the_same_edges() -> None:
    """With a weight that is the same in both directions the matrix is symmetric, which GCNConv takes for granted."""
    settings = GraphSmileConfig(hidden_dim=8, past_window=2, future_window=2, dropout=0.0)
    torch.manual_seed(0)
    edges, layer = PairEdges(settings, 1).double(), PairLayer(settings, 1).double()
    assert edges.weight is not None
    with torch.no_grad():
        edges.weight.normal_()
        edges.weight[:, 1] = edges.weight[:, 0].flip(-1)
    present = torch.tensor([[True, True, False, True, True], [True, False, True, True, True]]).view(1, 1, 2, 5)
    nodes = torch.randn(1, 1, 2, 5, 8, dtype=torch.float64) * present.unsqueeze(-1)
    index, weights = [], []
    for here in range(5):
        for there in range(5):
            distance = there - here
            if abs(distance) <= 2 and present[0, 0, 0, here] and present[0, 0, 1, there]:
                weight = edges.weight[0, 0, 2 + distance].exp()
                index += [(here, 5 + there), (5 + there, here)]
                weights += [weight, weight]
    reference = GCNConv(8, 8, add_self_loops=False).double()
    with torch.no_grad():
        reference.lin.weight.copy_(layer.weight[0].T)
        reference.bias.copy_(layer.bias[0, 0])
        expected = reference(nodes.view(10, 8), torch.tensor(index).T, torch.stack(weights))
        got = layer(nodes, edges(present, nodes))[0].view(10, 8)
    torch.testing.assert_close(got[present.flatten()], expected[present.flatten()])


def test_windows_by_hand() -> None:
    edges = PairEdges(GraphSmileConfig(past_window=1, future_window=0, edge_weights=False), 1)
    present = torch.ones(1, 1, 2, 3, dtype=torch.bool)
    got = edges(present, torch.zeros(()))[0, 0, 0]
    # Row sums 1, 2, 2: what turn i takes from turn j is 1 / sqrt(d_i d_j).
    half, root = 0.5, math.sqrt(0.5)
    torch.testing.assert_close(got, torch.tensor([[1, 0, 0], [root, half, 0], [0, half, half]]))


def test_distances_beyond_the_reach_share_a_weight() -> None:
    edges = PairEdges(GraphSmileConfig(past_window=-1), 1)
    assert edges.weight is not None
    with torch.no_grad():
        edges.weight[..., 0] = -torch.inf  # no edge to what lies REACH turns back, or further
    got = edges(torch.ones(1, 1, 2, REACH + 3, dtype=torch.bool), torch.zeros(()))
    assert (got[0, 0, 0, -1] > 0).tolist() == [False] * 3 + [True] * REACH


def test_pairs_of_modalities() -> None:
    assert modality_pairs(3) == ((0, 1), (0, 2), (1, 2))
    assert modality_pairs(2) == ((0, 1),)
    assert modality_pairs(1) == ((0, 0),)


@pytest.mark.parametrize(("layers", "own", "other"), [(1, 0, 1), (2, 1, 1)])
def test_what_the_other_modality_said_comes_first_and_the_own_comes_back(layers: int, own: int, other: int) -> None:
    """A change of turn 2 of the text reaches the audio in one layer, and turn 0 of the text in two."""
    model = small_model(("text", "audio"), layers=layers, past_window=2, future_window=2)
    edges = model.edges(torch.ones(1, 1, 2, 3, dtype=torch.bool), torch.zeros((), dtype=torch.float64))
    nodes = torch.randn(1, 1, 2, 3, 8, dtype=torch.float64)
    changed = nodes.clone()
    changed[0, 0, 0, 2] += 1
    results = []
    for held in (nodes, changed):
        total = held
        now = held
        for layer in model.layers:
            now, handed = layer(now, edges)
            total = total + handed
        results.append(total)
    difference = (results[0] - results[1]).abs().amax(-1)[0, 0]
    assert (difference[0, 0] > 1e-9) == bool(own)
    assert (difference[1, 0] > 1e-9) == bool(other)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"), (1, None, 0, 0, 2, 0, 0)),
        (("happy", "sad", "neutral", "angry", "excited", "frustrated"), (2, 0, 1, 0, 2, 0)),
        (("Joyful", "Mad", "Peaceful", "Neutral", "Sad", "Powerful", "Scared"), (2, 0, 2, 1, 0, 2, 0)),
        (("negative", "positive"), (0, 2)),
        (("joy", "bored to tears"), None),
        (("joy", "love", "surprise"), None),
        (("class0", "class1"), None),
    ],
)
def test_polarities_of_classes(classes: tuple[str, ...], expected: tuple[int | None, ...] | None) -> None:
    assert class_polarities(classes) == expected


def test_no_name_has_two_polarities() -> None:
    names = [name for group in NAMES.values() for name in group]
    assert len(names) == len(set(names))


def test_which_tasks_there_are() -> None:
    assert is_sentiment((1, 2, 0))
    assert not is_sentiment((1, 2, 0, 0))
    assert not is_sentiment((None, 2, 0))
    tasks = {}
    for classes in (CLASSES, ("neutral", "positive", "negative"), ("joy", "class1")):
        model = small_model(classes=classes)
        tasks[classes] = (model.sentiment is not None, model.shift is not None)
    assert list(tasks.values()) == [(True, True), (False, True), (False, False)]
    for name in ("sentiment", "shift"):
        off: dict[str, Any] = {f"{name}_weight": 0.0}
        assert getattr(small_model(**off), name) is None


def test_tasks_by_hand() -> None:
    polarity = PolarityTable((1, None, 2))(torch.tensor([[0, 2, NO_LABEL, 2, 1]]))
    assert polarity.tolist() == [[1, 2, UNKNOWN, 2, UNKNOWN]]
    states = torch.zeros(1, 5, 1)
    sentiment, shift = SentimentTask(1), ShiftTask(1, 2)
    with torch.no_grad():
        sentiment.scores.bias.copy_(torch.tensor([1.0, 1.0, 1.0]))
        shift.scores.bias.copy_(torch.tensor([1.0, 2.0]) * math.log(2))
    assert float(sentiment(states, polarity).detach()) == pytest.approx(math.log(3))
    # Odds of a change are 8. Stretches are 0-1, 2-3 and 4: of the pairs (0, 0), (0, 1), (1, 0), (1, 1) and (3, 3)
    # two differ.
    assert float(shift(states, polarity).detach()) == pytest.approx((2 * math.log(9 / 8) + 3 * math.log(9)) / 5)
    nowhere = torch.full_like(polarity, UNKNOWN)
    assert float(sentiment(states, nowhere).detach()) == float(shift(states, nowhere).detach()) == 0


def test_every_parameter_learns_and_the_tasks_teach() -> None:
    batch = make_batch([5, 3, 6])
    model = small_model()
    training_loss(model(batch), batch).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name
    model.zero_grad()
    sum(term.value for term in model(batch).losses.values()).backward()
    assert model.fusion.weight.grad is not None
    assert bool((model.fusion.weight.grad != 0).any())


def test_padding_and_batch_mates_change_neither_logits_nor_losses() -> None:
    model = small_model()
    batch = make_batch([3, 1, 6, 2], surplus=2)
    assert batch.labels is not None
    together = model(batch)
    garbage = replace(
        batch, features={name: value + 1e3 * ~batch.mask.unsqueeze(-1) for name, value in batch.features.items()}
    )
    result = model(garbage)
    torch.testing.assert_close(result.logits[batch.mask], together.logits[batch.mask], rtol=1e-12, atol=1e-13)
    for name, term in result.losses.items():
        torch.testing.assert_close(term.value, together.losses[name].value, rtol=1e-12, atol=1e-13)
    for index, length in enumerate(batch.lengths.tolist()):
        rows = slice(index, index + 1)
        alone = replace(
            batch,
            features={name: value[rows, :length] for name, value in batch.features.items()},
            present={name: value[rows, :length] for name, value in batch.present.items()},
            mask=batch.mask[rows, :length],
            speakers=batch.speakers[rows, :length],
            lengths=batch.lengths[rows],
            dialogues=batch.dialogues[rows],
            labels=None,
        )
        torch.testing.assert_close(model(alone).logits[0], together.logits[index, :length], rtol=1e-11, atol=1e-13)


def test_a_missing_modality_is_no_node() -> None:
    model = small_model(("text", "audio"))
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
    for gone in ("text", "audio"):
        alone = replace(batch, present={**batch.present, gone: torch.zeros_like(there)})
        assert bool(functional.softmax(model(alone).logits, dim=-1).isfinite().all())
