"""SDT against a slow, literal reading of its formulas: one dialogue, one pair of modalities, one head at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mer_bench_models.sdt.config import SdtConfig
from mer_bench_models.sdt.model import Sdt, distillation_loss, modality_pairs
from torch import Tensor
from torch.nn import functional

from mer_bench.api import InputSpec
from mer_bench.data.batches import NO_LABEL, Batch
from mer_bench.errors import DataError
from mer_bench.nn.stacked import StackedLinear
from mer_bench.testing.model_checks import training_loss

CLASSES = ("anger", "joy", "neutral")
WIDTHS = {"text": 6, "audio": 4, "visual": 3}
ALL = ("text", "audio", "visual")
LETTERS = {"t": "text", "a": "audio", "v": "visual"}
INPUTS = {"t": "textf_input", "a": "acouf_input", "v": "visuf_input"}
NARROW: dict[str, Any] = {"hidden_dim": 8, "heads": 2}
SPEAKERS = 4
State = dict[str, Tensor]


def published_state(config: SdtConfig, seed: int = 0) -> State:
    """Random weights under the published names, those that are never read included."""
    generator = torch.Generator().manual_seed(seed)
    width, inner = config.hidden_dim, config.hidden_dim * config.feedforward
    shapes: dict[str, tuple[int, ...]] = {"speaker_embeddings.weight": (SPEAKERS + 1, width)}
    for letter, name in LETTERS.items():
        shapes[f"{INPUTS[letter]}.weight"] = (width, WIDTHS[name], 1)
        shapes[f"features_reduce_{letter}.weight"] = (width, 3 * width)
        shapes[f"features_reduce_{letter}.bias"] = (width,)
        shapes[f"{letter}_output_layer.2.weight"] = (len(CLASSES), width)
        shapes[f"{letter}_output_layer.2.bias"] = (len(CLASSES),)
    pairs = [f"{asked}_{asking}" for asked in "tav" for asking in "tav"]
    for pair in pairs:
        shapes[f"{pair}_gate.fc.weight"] = (width, width)
        for number in range(config.layers):
            layer = f"{pair}.transformer_inter.{number}"
            for part in ("linear_k", "linear_v", "linear_q", "linear"):
                shapes[f"{layer}.self_attn.{part}.weight"] = (width, width)
                shapes[f"{layer}.self_attn.{part}.bias"] = (width,)
            for part in ("layer_norm", "feed_forward.layer_norm"):
                shapes[f"{layer}.{part}.weight"] = (width,)
                shapes[f"{layer}.{part}.bias"] = (width,)
            shapes[f"{layer}.feed_forward.w_1.weight"] = (inner, width)
            shapes[f"{layer}.feed_forward.w_1.bias"] = (inner,)
            shapes[f"{layer}.feed_forward.w_2.weight"] = (width, inner)
            shapes[f"{layer}.feed_forward.w_2.bias"] = (width,)
    shapes["last_gate.fc.weight"] = (width, width)
    shapes["all_output_layer.weight"] = (len(CLASSES), width)
    shapes["all_output_layer.bias"] = (len(CLASSES),)
    state = {
        name: 0.5 * torch.randn(*shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()
    }
    table = torch.zeros(1, 20, width, dtype=torch.float64)
    for turn in range(20):
        for column in range(width):
            angle = turn / 10000 ** (column // 2 * 2 / width)
            table[0, turn, column] = math.cos(angle) if column % 2 else math.sin(angle)
    return state | {f"{pair}.pos_emb.pe": table for pair in pairs}


def literal_norm(state: State, name: str, row: Tensor) -> Tensor:
    centred = row - row.mean()
    return centred / (centred.square().mean() + 1e-6).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def literal_transformer(
    state: State, config: SdtConfig, pair: str, asking: list[Tensor], asked: list[Tensor]
) -> list[Tensor]:
    size = config.hidden_dim // config.heads
    for number in range(config.layers):
        name = f"{pair}.transformer_inter.{number}"

        def through(part: str, row: Tensor, name: str = name) -> Tensor:
            return state[f"{name}.{part}.weight"] @ row + state[f"{name}.{part}.bias"]

        if number:
            asking = [literal_norm(state, f"{name}.layer_norm", row) for row in asking]
        source = asking if pair[0] == pair[2] else asked
        result = []
        for row in asking:
            mixed = []
            for head in range(config.heads):
                part = slice(head * size, (head + 1) * size)
                query = through("self_attn.linear_q", row)[part]
                scores = [query @ through("self_attn.linear_k", key)[part] / math.sqrt(size) for key in source]
                weights = torch.stack(scores).softmax(0)
                values = [through("self_attn.linear_v", value)[part] for value in source]
                mixed.append(sum((w * v for w, v in zip(weights, values, strict=True)), torch.zeros(size).double()))
            hidden = row + through("self_attn.linear", torch.cat(mixed))
            inner = through("feed_forward.w_1", literal_norm(state, f"{name}.feed_forward.layer_norm", hidden))
            gelu = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
            result.append(hidden + through("feed_forward.w_2", gelu))
        asking = result
    return asking


def literal_logits(state: State, config: SdtConfig, features: dict[str, Tensor], said: list[int]) -> dict[str, Tensor]:
    """Logits of one whole dialogue: of the fusion under `all`, and of each modality."""
    inputs = {}
    for letter, name in LETTERS.items():
        weight = state[f"{INPUTS[letter]}.weight"][:, :, 0]
        table = state["t_t.pos_emb.pe"][0]
        inputs[letter] = [
            weight @ row + table[turn] + state["speaker_embeddings.weight"][said[turn]]
            for turn, row in enumerate(features[name])
        ]
    reduced = {}
    for asking in "tav":
        found = []
        for asked in asking + "tav".replace(asking, ""):
            pair = f"{asked}_{asking}"
            rows = literal_transformer(state, config, pair, inputs[asking], inputs[asked])
            gate = state[f"{pair}_gate.fc.weight"]
            found.append([row / (1 + torch.exp(-(gate @ row))) for row in rows])
        weight, bias = state[f"features_reduce_{asking}.weight"], state[f"features_reduce_{asking}.bias"]
        reduced[asking] = [weight @ torch.cat(rows) + bias for rows in zip(*found, strict=True)]
    logits: dict[str, list[Tensor]] = {"all": [], "text": [], "audio": [], "visual": []}
    for turn in range(len(said)):
        stacked = torch.stack([reduced[letter][turn] for letter in "tav"])
        weights = torch.stack([state["last_gate.fc.weight"] @ row for row in stacked]).softmax(0)
        fused = (weights * stacked).sum(0)
        logits["all"].append(state["all_output_layer.weight"] @ fused + state["all_output_layer.bias"])
        for letter, name in LETTERS.items():
            row = reduced[letter][turn].clamp_min(0)
            layer = f"{letter}_output_layer.2"
            logits[name].append(state[f"{layer}.weight"] @ row + state[f"{layer}.bias"])
    return {name: torch.stack(rows) for name, rows in logits.items()}


def make_batch(lengths: list[int], names: tuple[str, ...] = ALL, seed: int = 0, surplus: int = 0) -> Batch:
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
        speakers=torch.randint(0, SPEAKERS, mask.shape, generator=generator).masked_fill(~mask, 0),
        lengths=torch.tensor(lengths),
        dialogues=torch.arange(len(lengths)),
        labels=torch.randint(0, 3, mask.shape, generator=generator).masked_fill(~mask, NO_LABEL),
    )


def small_model(names: tuple[str, ...] = ALL, **changes: Any) -> Sdt:
    torch.manual_seed(0)
    spec = InputSpec({name: WIDTHS[name] for name in names}, CLASSES, SPEAKERS)
    return Sdt(spec, SdtConfig(**{**NARROW, **changes})).double()


@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    layers=st.integers(1, 2),
    heads=st.sampled_from([1, 2, 4]),
    feedforward=st.integers(1, 2),
    surplus=st.integers(0, 2),
    seed=st.integers(0, 999),
)
@settings(max_examples=15, deadline=None)
def test_published_weights_give_what_the_formulas_say(
    lengths: list[int], layers: int, heads: int, feedforward: int, surplus: int, seed: int
) -> None:
    config = SdtConfig(hidden_dim=8, heads=heads, layers=layers, feedforward=feedforward)
    state = published_state(config, seed)
    batch = make_batch(lengths, seed=seed, surplus=surplus)
    # Width, layers and the feed-forward width are read from the checkpoint.
    output = Sdt.from_published(state, SdtConfig(heads=heads))(batch)
    divergence = dict.fromkeys(ALL, 0.0)
    for index, length in enumerate(lengths):
        features = {name: value[index, :length] for name, value in batch.features.items()}
        expected = literal_logits(state, config, features, batch.speakers[index, :length].tolist())
        got = {"all": output.logits} | {name: part.logits for name, part in output.auxiliary.items()}
        assert got.keys() == expected.keys()
        for name, values in expected.items():
            torch.testing.assert_close(
                got[name][index, :length].log_softmax(-1), values.log_softmax(-1), rtol=1e-9, atol=1e-10
            )
        p = expected["all"].softmax(-1)
        for name in ALL:
            divergence[name] += float((p * (p.log() - expected[name].softmax(-1).log())).sum()) / sum(lengths)
    for name, value in divergence.items():
        assert float(output.losses[f"distil_{name}"].value.detach()) == pytest.approx(value, rel=1e-9)


def test_the_order_of_the_modalities_is_free() -> None:
    config = SdtConfig(**NARROW)
    state = published_state(config)
    batch = make_batch([3, 2])
    spec = InputSpec({name: WIDTHS[name] for name in ("visual", "text", "audio")}, CLASSES, SPEAKERS)
    turned = Sdt.from_published(state, config, spec)
    torch.testing.assert_close(turned(batch).logits, Sdt.from_published(state, config)(batch).logits)


def test_which_modality_asks_which() -> None:
    assert modality_pairs(("text", "audio"), "both") == [
        *(("text", "text"), ("text", "audio")),
        *(("audio", "audio"), ("audio", "text")),
    ]
    assert modality_pairs(("text", "audio"), "intra") == [("text", "text"), ("audio", "audio")]
    assert modality_pairs(("text", "audio"), "inter") == [("text", "audio"), ("audio", "text")]
    assert modality_pairs(("text",), "inter") == [("text", "text")]


@pytest.mark.parametrize(("transformers", "own", "other"), [("both", 1, 1), ("intra", 1, 0), ("inter", 0, 1)])
def test_what_a_modality_can_see(transformers: str, own: int, other: int) -> None:
    """Another turn of text changes the answer of text's student by itself, of audio's by the other."""
    model = small_model(("text", "audio"), transformers=transformers, layers=2).eval()
    batch = make_batch([3], ("text", "audio"))
    text = batch.features["text"].clone()
    text[0, 2] += 1
    before, after = (
        model(replace(batch, features={**batch.features, "text": x})) for x in (batch.features["text"], text)
    )
    for name, seen in (("text", own), ("audio", other)):
        difference = (before.auxiliary[name].logits - after.auxiliary[name].logits)[0, 0].abs().max()
        assert (difference > 1e-6) == bool(seen), name


def test_the_fusion_by_hand() -> None:
    model = small_model(("text", "audio"))
    assert model.fusion_gate is not None
    with torch.no_grad():
        model.fusion_gate.weight.copy_(math.log(2) * torch.eye(8))
    reduced = torch.zeros(2, 1, 3, 8, dtype=torch.float64)
    reduced[0, 0, :, 0] = 1
    reduced[1, 0, :, 0] = 3
    present = torch.tensor([[[True, True, False]], [[True, False, False]]])
    # Weights 2^1 and 2^3 of 10 in the first dimension; where audio is not there text alone; where nothing is, zero.
    expected = torch.tensor([0.2 * 1 + 0.8 * 3, 1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(model._fused(reduced, present)[0, :, 0], expected)
    plain = small_model(("text", "audio"), gates="none")
    torch.testing.assert_close(
        plain._fused(reduced, present)[0, :, 0], torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    )


def test_gates_by_hand() -> None:
    found = torch.tensor([math.log(3), 2.0] * 4, dtype=torch.float64).expand(9, 1, 1, 8)
    assert torch.equal(small_model(gates="none")._gated(found), found)
    identity = small_model(gates="identity")._gated(found)
    torch.testing.assert_close(identity[:, 0, 0, 0], torch.full((9,), 0.75 * math.log(3), dtype=torch.float64))
    model = small_model(gates="learned")
    assert model.gates is not None
    with torch.no_grad():
        model.gates.weight.zero_()
        model.gates.weight[4] = torch.eye(8)
    learned = model._gated(found)
    torch.testing.assert_close(learned[4], identity[4])
    torch.testing.assert_close(learned[5], found[5] / 2)


@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_the_divergence_is_pytorchs_and_teaches_both_sides(temperature: float) -> None:
    torch.manual_seed(0)
    teacher, student = (torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    present = torch.tensor([[True, True, True], [True, False, False]])
    got = distillation_loss(teacher, student, present, temperature)
    real = present.nonzero(as_tuple=True)
    expected = functional.kl_div(
        (student[real] / temperature).log_softmax(-1), (teacher[real] / temperature).softmax(-1), reduction="sum"
    )
    torch.testing.assert_close(got, expected / 4)
    for mine, reference in zip(
        torch.autograd.grad(got, [teacher, student]), torch.autograd.grad(expected / 4, [teacher, student]), strict=True
    ):
        assert float(reference.abs().max()) > 1e-4
        torch.testing.assert_close(mine, reference)
        assert not bool(mine[1, 1:].any())


def test_a_certain_teacher_and_padding_leave_the_gradient_finite() -> None:
    """The published loss has NaN gradients here: a target that is exactly 0."""
    teacher = torch.tensor([[[1e4, 0.0, -1e4], [float("nan")] * 3]], requires_grad=True)
    student = torch.tensor([[[0.0, 1.0, 2.0], [float("nan")] * 3]], requires_grad=True)
    loss = distillation_loss(teacher, student, torch.tensor([[True, False]]), 1.0)
    loss.backward()
    assert teacher.grad is not None
    assert student.grad is not None
    assert float(loss.detach()) == pytest.approx(2 + math.log(1 + math.exp(-1) + math.exp(-2)))
    assert bool(teacher.grad.isfinite().all())
    assert bool(student.grad.isfinite().all())
    model = small_model(temperature=0.05)
    batch = make_batch([4, 1, 2], surplus=3)
    training_loss(model(batch), batch).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


@pytest.mark.parametrize("names", [("text",), ("audio", "visual"), ALL])
def test_padding_and_batch_mates_change_nothing(names: tuple[str, ...]) -> None:
    model = small_model(names).eval()
    batch = make_batch([3, 1, 5, 2], names, surplus=2)
    together = model(batch)
    garbage = replace(
        batch,
        features={name: value + 1e3 * ~batch.mask.unsqueeze(-1) for name, value in batch.features.items()},
        speakers=batch.speakers + ~batch.mask,
    )
    result = model(garbage)
    torch.testing.assert_close(result.logits[batch.mask], together.logits[batch.mask], rtol=1e-12, atol=1e-13)
    for name, term in result.losses.items():
        torch.testing.assert_close(term.value, together.losses[name].value, rtol=1e-12, atol=1e-13)
    for index, length in enumerate(batch.lengths.tolist()):
        alone = model(make_alone(batch, index, length)).logits[0]
        torch.testing.assert_close(alone, together.logits[index, :length], rtol=1e-11, atol=1e-13)


def make_alone(batch: Batch, index: int, length: int) -> Batch:
    rows = slice(index, index + 1)
    return Batch(
        features={name: value[rows, :length] for name, value in batch.features.items()},
        present={name: value[rows, :length] for name, value in batch.present.items()},
        mask=batch.mask[rows, :length],
        speakers=batch.speakers[rows, :length],
        lengths=batch.lengths[rows],
        dialogues=batch.dialogues[rows],
    )


def test_a_missing_modality_is_no_key_no_part_and_no_student() -> None:
    model = small_model(("text", "audio")).eval()
    batch = make_batch([3, 2], ("text", "audio"))
    there = {name: value.clone() for name, value in batch.present.items()}
    there["audio"][0, 1] = False
    there["audio"][1] = False
    missing = replace(batch, present=there)
    changed = {**batch.features, "audio": batch.features["audio"].masked_fill(~there["audio"].unsqueeze(-1), torch.nan)}
    result = model(missing)
    assert torch.equal(model(replace(missing, features=changed)).logits, result.logits)
    assert not torch.allclose(model(batch).logits[0, 0], result.logits[0, 0])  # a key less
    mask = result.auxiliary["audio"].mask
    assert mask is not None
    assert torch.equal(mask, there["audio"])
    with torch.no_grad():  # what becomes of audio in the fusion
        model.reductions["audio"].bias.add_(1)
    reread = model(missing).logits
    assert torch.equal(reread[0, 1], result.logits[0, 1])
    assert torch.equal(reread[1], result.logits[1])
    assert not torch.allclose(reread[0, 0], result.logits[0, 0])


def test_an_utterance_without_a_modality_is_no_key_of_that_one_alone() -> None:
    """Who spoke a turn without audio is unseen by text, which asks audio, but not by audio, which asks text."""
    model = small_model(("text", "audio"), transformers="inter").eval()
    batch = make_batch([3], ("text", "audio"))
    there = batch.present["audio"].clone()
    there[0, 1] = False
    batch = replace(batch, present={**batch.present, "audio": there})
    said = batch.speakers.clone()
    said[0, 1] = (said[0, 1] + 1) % SPEAKERS
    one, other = model(batch), model(replace(batch, speakers=said))
    assert torch.equal(one.auxiliary["text"].logits[0, 0], other.auxiliary["text"].logits[0, 0])
    assert not torch.allclose(one.auxiliary["audio"].logits[0, 0], other.auxiliary["audio"].logits[0, 0])


def test_attention_to_a_modality_that_a_dialogue_has_not_adds_nothing() -> None:
    model = small_model(("text", "audio"), transformers="inter").eval()
    batch = make_batch([3, 2], ("text", "audio"))
    there = batch.present["audio"].clone()
    there[1] = False
    batch = replace(batch, present={**batch.present, "audio": there})
    before = model(batch).auxiliary["text"].logits
    result = model.transformers.layers[0].get_submodule("attention.result")
    assert isinstance(result, StackedLinear)
    assert result.bias is not None
    with torch.no_grad():
        result.bias.add_(1)
    after = model(batch).auxiliary["text"].logits
    assert torch.equal(before[1, :2], after[1, :2])
    assert not torch.allclose(before[0, 0], after[0, 0])


def test_dialogues_beyond_the_table_of_positions() -> None:
    model = small_model(("text",)).eval()
    batch = make_batch([530], ("text",))
    short = make_alone(batch, 0, 500)
    assert bool(model(batch).logits.isfinite().all())
    assert model.places(torch.zeros(1, 1, 530, 8).double(), torch.zeros(1, 530).long()).shape == (1, 1, 530, 8)
    assert model(short).logits.shape == (1, 500, 3)
    rows = model.places(torch.zeros(1, 1, 530, 8).double(), torch.zeros(1, 530).long())[0, 0]
    row = torch.tensor([f(520 / 10000 ** (2 * i / 8)) for i in range(4) for f in (math.sin, math.cos)])
    assert model.places.speakers is not None
    torch.testing.assert_close(rows[520] - model.places.speakers.weight[0], row.double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["speakers", "positions"])
def test_speakers_and_positions_can_be_switched_off(name: str) -> None:
    batch = make_batch([4], ("text", "audio"))
    turned = replace(
        batch,
        speakers=torch.zeros_like(batch.speakers) if name == "speakers" else batch.speakers.flip(1),
        features=batch.features
        if name == "speakers"
        else {modality: value.flip(1) for modality, value in batch.features.items()},
    )
    for on in (True, False):
        model = small_model(("text", "audio"), **{name: on}).eval()
        first, second = model(batch).logits, model(turned).logits
        second = second if name == "speakers" else second.flip(1)
        assert torch.allclose(first, second) == (not on)


def test_more_speakers_than_built_for_are_refused() -> None:
    batch = make_batch([2], ("text",))
    with pytest.raises(DataError, match="has 5 speakers, but this model was built for at most 4"):
        small_model(("text",))(replace(batch, speakers=torch.full_like(batch.speakers, 4)))


def test_mixed_precision_runs() -> None:
    model = small_model().float()
    batch = make_batch([4, 2]).to("cpu", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = training_loss(model(batch), batch)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_a_checkpoint_with_a_fault_is_refused_by_the_name_of_the_entry() -> None:
    config = SdtConfig(**NARROW)
    state = published_state(config)

    def is_unused(name: str) -> bool:
        return ".0.layer_norm." in name or name.endswith("linear_k.bias")

    loaded = Sdt.from_published(state, config)
    assert loaded.ignored_entries == tuple(sorted(filter(is_unused, state)))
    assert len(loaded.ignored_entries) == 27
    used = [name for name in state if not is_unused(name)]
    Sdt.from_published({name: state[name] for name in used}, config)
    for name in used:
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            Sdt.from_published({key: value for key, value in state.items() if key != name}, config)
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            Sdt.from_published({**state, name: torch.zeros(2, 3, 4, 5)}, config)
    with pytest.raises(DataError, match="surplus"):
        Sdt.from_published({**state, "surplus": torch.zeros(1)}, config)
    with pytest.raises(DataError, match=r"a_t\.pos_emb\.pe"):
        Sdt.from_published({**state, "a_t.pos_emb.pe": state["a_t.pos_emb.pe"] + 1}, config)
    for change in ({"transformers": "intra"}, {"speakers": False}, {"positions": False}, {"gates": "none"}):
        with pytest.raises(DataError, match=next(iter(change))):
            Sdt.from_published(state, config.model_copy(update=change))
    with pytest.raises(DataError, match="heads"):
        Sdt.from_published(state, SdtConfig(hidden_dim=9, heads=3))
    with pytest.raises(DataError, match="not of text, audio"):
        Sdt.from_published(state, config, InputSpec({"text": 6, "audio": 4}, CLASSES, SPEAKERS))


def test_gates_that_stay_the_identity() -> None:
    config = SdtConfig(**NARROW, gates="identity")
    state = published_state(config)
    with pytest.raises(DataError, match=r"t_t_gate\.fc\.weight.*identity"):
        Sdt.from_published(state, config)
    state = {name: torch.eye(8).double() if "_gate" in name and name[0] != "l" else x for name, x in state.items()}
    batch = make_batch([3])
    learned = Sdt.from_published(state, config.model_copy(update={"gates": "learned"}))
    torch.testing.assert_close(Sdt.from_published(state, config)(batch).logits, learned(batch).logits)
