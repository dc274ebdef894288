"""DialogueRNN against a slow, literal reading of its formulas, dialogue by dialogue and turn by turn."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mer_bench_models.dialoguernn.config import DialogueRnnConfig
from mer_bench_models.dialoguernn.model import DialogueRnn
from torch import Tensor

from mer_bench.api import InputSpec
from mer_bench.data.batches import Batch
from mer_bench.errors import DataError

CLASSES = ("anger", "joy", "neutral")
NARROW: dict[str, Any] = {
    "global_width": 5,
    "party_width": 4,
    "emotion_width": 6,
    "hidden_width": 4,
    "attention_width": 7,
}
KINDS = ["simple", "general", "general2", "concat"]
UTTERANCE = 8
State = dict[str, Tensor]


def published_state(config: DialogueRnnConfig, seed: int = 0, classes: int = len(CLASSES)) -> State:
    """Random weights under the published names."""
    generator = torch.Generator().manual_seed(seed)
    d_m, d_g, d_p, d_e = UTTERANCE, config.global_width, config.party_width, config.emotion_width
    shapes: dict[str, tuple[int, ...]] = {}
    for side in "fr":
        prefix = f"dialog_rnn_{side}.dialogue_cell"
        cells = {"g_cell": (d_m + d_p, d_g), "p_cell": (d_m + d_g, d_p), "e_cell": (d_p, d_e)}
        if config.listener_state:
            cells["l_cell"] = (d_m + d_p, d_p)
        for name, (inputs, width) in cells.items():
            shapes[f"{prefix}.{name}.weight_ih"] = (3 * width, inputs)
            shapes[f"{prefix}.{name}.weight_hh"] = (3 * width, width)
            shapes[f"{prefix}.{name}.bias_ih"] = shapes[f"{prefix}.{name}.bias_hh"] = (3 * width,)
        if config.context_attention == "simple":
            shapes[f"{prefix}.attention.scalar.weight"] = (1, d_g)
        elif config.context_attention == "concat":
            shapes[f"{prefix}.attention.transform.weight"] = (config.attention_width, d_g + d_m)
            shapes[f"{prefix}.attention.vector_prod.weight"] = (1, config.attention_width)
        else:
            shapes[f"{prefix}.attention.transform.weight"] = (d_g, d_m)
            if config.context_attention == "general2":
                shapes[f"{prefix}.attention.transform.bias"] = (d_g,)
    shapes["matchatt.transform.weight"] = (2 * d_e, 2 * d_e)
    shapes["matchatt.transform.bias"] = (2 * d_e,)
    shapes["linear.weight"] = (2 * config.hidden_width, 2 * d_e)
    shapes["linear.bias"] = (2 * config.hidden_width,)
    shapes["smax_fc.weight"] = (classes, 2 * config.hidden_width)
    shapes["smax_fc.bias"] = (classes,)
    return {name: torch.randn(*shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def literal_gru(state: State, prefix: str, x: Tensor, h: Tensor) -> Tensor:
    gates_x = state[f"{prefix}.weight_ih"] @ x + state[f"{prefix}.bias_ih"]
    gates_h = state[f"{prefix}.weight_hh"] @ h + state[f"{prefix}.bias_hh"]
    size = len(h)
    reset = 1 / (1 + torch.exp(-(gates_x[:size] + gates_h[:size])))
    update = 1 / (1 + torch.exp(-(gates_x[size : 2 * size] + gates_h[size : 2 * size])))
    new = torch.tanh(gates_x[2 * size :] + reset * gates_h[2 * size :])
    return (1 - update) * new + update * h


def literal_softmax(scores: list[Tensor]) -> list[Tensor]:
    highest = max(float(score.detach()) for score in scores)
    powers = [torch.exp(score - highest) for score in scores]
    total = sum(powers[1:], start=powers[0])
    return [power / total for power in powers]


def literal_direction(
    state: State, prefix: str, config: DialogueRnnConfig, turns: list[Tensor], said: list[int]
) -> list[Tensor]:
    def zero(size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.float64)

    party = {person: zero(config.party_width) for person in range(9)}
    past: list[Tensor] = []
    emotion = zero(config.emotion_width)
    emotions = []
    for turn, person in zip(turns, said, strict=True):
        before = past[-1] if past else zero(config.global_width)
        now = literal_gru(state, f"{prefix}.g_cell", torch.cat([turn, party[person]]), before)
        context = zero(config.global_width)
        if past:
            scores = []
            for moment in past:
                if config.context_attention == "simple":
                    score = state[f"{prefix}.attention.scalar.weight"][0] @ moment
                elif config.context_attention == "concat":
                    inner = state[f"{prefix}.attention.transform.weight"] @ torch.cat([moment, turn])
                    score = state[f"{prefix}.attention.vector_prod.weight"][0] @ torch.tanh(inner)
                else:
                    query = state[f"{prefix}.attention.transform.weight"] @ turn
                    if config.context_attention == "general2":
                        query = query + state[f"{prefix}.attention.transform.bias"]
                    score = query @ moment
                scores.append(score)
            for share, moment in zip(literal_softmax(scores), past, strict=True):
                context = context + share * moment
        speaks = literal_gru(state, f"{prefix}.p_cell", torch.cat([turn, context]), party[person])
        if config.listener_state:
            heard = torch.cat([turn, speaks])
            party = {other: literal_gru(state, f"{prefix}.l_cell", heard, held) for other, held in party.items()}
        party[person] = speaks
        emotion = literal_gru(state, f"{prefix}.e_cell", speaks, emotion)
        past.append(now)
        emotions.append(emotion)
    return emotions


def literal_log_probabilities(state: State, config: DialogueRnnConfig, turns: Tensor, said: list[int]) -> Tensor:
    forward = literal_direction(state, "dialog_rnn_f.dialogue_cell", config, list(turns), said)
    backward = literal_direction(state, "dialog_rnn_r.dialogue_cell", config, list(turns)[::-1], said[::-1])[::-1]
    emotions = [torch.cat(pair) for pair in zip(forward, backward, strict=True)]
    rows = []
    for emotion in emotions:
        seen = emotion
        if config.second_attention:
            query = state["matchatt.transform.weight"] @ emotion + state["matchatt.transform.bias"]
            shares = literal_softmax([query @ other for other in emotions])
            seen = sum((share * other for share, other in zip(shares, emotions, strict=True)), start=0 * emotion)
        hidden = (state["linear.weight"] @ seen + state["linear.bias"]).clamp_min(0)
        logits = state["smax_fc.weight"] @ hidden + state["smax_fc.bias"]
        rows.append(logits - torch.log(torch.exp(logits - logits.max()).sum()) - logits.max())
    return torch.stack(rows)


def make_batch(lengths: list[int], widths: dict[str, int], seed: int = 0, surplus: int = 0) -> Batch:
    """Random dialogues with garbage nowhere: padding is zero as the contract says."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths) + surplus
    mask = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)
    features = {
        name: torch.randn(len(lengths), longest, width, generator=generator, dtype=torch.float64) * mask.unsqueeze(-1)
        for name, width in widths.items()
    }
    speakers = torch.randint(0, 4, mask.shape, generator=generator).masked_fill(~mask, 0)
    return Batch(
        features=features,
        present={name: mask.clone() for name in widths},
        mask=mask,
        speakers=speakers,
        lengths=torch.tensor(lengths),
        dialogues=torch.arange(len(lengths)),
    )


def small_model(widths: dict[str, int], **changes: Any) -> DialogueRnn:
    torch.manual_seed(0)
    return DialogueRnn(InputSpec(widths, CLASSES, 4), DialogueRnnConfig(**{**NARROW, **changes})).double()


def log_probabilities(model: DialogueRnn, batch: Batch) -> Tensor:
    result: Tensor = model(batch).logits.log_softmax(-1)
    return result


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    kind=st.sampled_from(KINDS),
    listener=st.booleans(),
    second=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(max_examples=40, deadline=None)
def test_published_weights_give_what_the_formulas_say(
    lengths: list[int], kind: Any, listener: bool, second: bool, seed: int
) -> None:
    config = DialogueRnnConfig(**NARROW, context_attention=kind, listener_state=listener, second_attention=second)
    state = published_state(config, seed)
    batch = make_batch(lengths, {"text": UTTERANCE}, seed)
    model = DialogueRnn.from_published(state, config)
    result = log_probabilities(model, batch)
    for index, length in enumerate(lengths):
        said = batch.speakers[index, :length].tolist()
        expected = literal_log_probabilities(state, config, batch.features["text"][index, :length], said)
        torch.testing.assert_close(result[index, :length], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("listener", [False, True])
def test_gradients_are_those_of_the_formulas(kind: Any, listener: bool) -> None:
    lengths = [4, 1, 3]
    config = DialogueRnnConfig(**NARROW, context_attention=kind, listener_state=listener)
    state = {name: value.mul_(0.5).requires_grad_() for name, value in published_state(config, 3).items()}
    batch = make_batch(lengths, {"text": UTTERANCE}, 3)
    model = DialogueRnn.from_published({name: value.detach() for name, value in state.items()}, config)
    weights = torch.randn(*batch.mask.shape, len(CLASSES), dtype=torch.float64)
    (log_probabilities(model, batch) * weights)[batch.mask].sum().backward()
    total = torch.zeros((), dtype=torch.float64)
    for index, length in enumerate(lengths):
        said = batch.speakers[index, :length].tolist()
        rows = literal_log_probabilities(state, config, batch.features["text"][index, :length], said)
        total = total + (rows * weights[index, :length]).sum()
    total.backward()
    gradients = {name: value.grad for name, value in state.items() if value.grad is not None}
    assert gradients.keys() == state.keys()
    # Loading only moves numbers about, so it moves gradients to the parameters they belong to.
    expected = dict(DialogueRnn.from_published(gradients, config).named_parameters())
    for name, parameter in model.named_parameters():
        if not name.startswith("utterances.missing"):
            torch.testing.assert_close(parameter.grad, expected[name].detach(), rtol=1e-9, atol=1e-9, msg=name)


def test_a_case_by_hand() -> None:
    """With every weight 0 and the bias of the new gate 1, e_t = (1 - 2^-t) tanh 1 from either end."""
    config = DialogueRnnConfig(**NARROW, second_attention=False)
    state = {name: torch.zeros_like(value) for name, value in published_state(config).items()}
    width = config.emotion_width
    for side in "fr":
        state[f"dialog_rnn_{side}.dialogue_cell.e_cell.bias_ih"][2 * width :] = 1
    state["linear.weight"][0, 0] = 1  # reads the forward direction
    state["linear.weight"][1, width] = 1  # reads the backward direction
    state["smax_fc.weight"][0, 0] = state["smax_fc.weight"][1, 1] = 1
    logits = DialogueRnn.from_published(state, config)(make_batch([3], {"text": UTTERANCE})).logits[0]
    forward = [math.tanh(1) * (1 - 0.5**turn) for turn in (1, 2, 3)]
    expected = torch.tensor([[a, b, 0.0] for a, b in zip(forward, forward[::-1], strict=True)], dtype=torch.float64)
    torch.testing.assert_close(logits, expected, rtol=1e-14, atol=1e-15)


def test_the_second_attention_is_a_mean_of_real_turns_when_it_has_no_preference() -> None:
    model = small_model({"text": 3})
    assert model.second_query is not None
    torch.nn.init.zeros_(model.second_query.weight)
    torch.nn.init.zeros_(model.second_query.bias)
    mask = torch.tensor([[True, True, False]])
    emotions = torch.randn(1, 3, 12, dtype=torch.float64)
    mixed, weights = model._attend_to_all(emotions, mask)
    torch.testing.assert_close(weights[0], torch.tensor([[0.5, 0.5, 0.0]] * 3, dtype=torch.float64))
    torch.testing.assert_close(mixed[0, 0], emotions[0, :2].mean(0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("listener", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_and_batch_mates_change_nothing(kind: Any, listener: bool, bidirectional: bool) -> None:
    widths = {"text": 5, "audio": 3}
    model = small_model(widths, context_attention=kind, listener_state=listener, bidirectional=bidirectional).eval()
    lengths = [4, 1, 6, 2]
    batch = make_batch(lengths, widths, surplus=2)
    together = model(batch).logits
    garbage = replace(
        batch,
        features={name: value + 1e3 * ~batch.mask.unsqueeze(-1) for name, value in batch.features.items()},
        speakers=batch.speakers + 3 * ~batch.mask,
    )
    real = batch.mask
    torch.testing.assert_close(model(garbage).logits[real], together[real], rtol=1e-12, atol=1e-13)
    for index, length in enumerate(lengths):
        alone = Batch(
            features={name: value[index : index + 1, :length] for name, value in batch.features.items()},
            present={name: value[index : index + 1, :length] for name, value in batch.present.items()},
            mask=batch.mask[index : index + 1, :length],
            speakers=batch.speakers[index : index + 1, :length],
            lengths=batch.lengths[index : index + 1],
            dialogues=batch.dialogues[index : index + 1],
        )
        torch.testing.assert_close(model(alone).logits[0], together[index, :length], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("names", [("text",), ("audio",), ("audio", "visual"), ("text", "audio", "visual")])
def test_any_modalities_and_missing_ones(names: tuple[str, ...]) -> None:
    widths = {name: {"text": 5, "audio": 3, "visual": 2}[name] for name in names}
    model = small_model(widths).eval()
    batch = make_batch([3, 1, 2], widths)
    gone = {name: value.clone() for name, value in batch.present.items()}
    gone[names[-1]][0, 1] = False
    gone[names[-1]][1, 0] = False
    features = dict(batch.features)
    features[names[-1]] = features[names[-1]] * gone[names[-1]].unsqueeze(-1)
    missing = replace(batch, features=features, present=gone)
    model.utterances.missing[names[-1]].data.fill_(0.7)
    first = model(missing).logits
    assert bool(first.isfinite().all())
    first[batch.mask].sum().backward()
    assert float(model.utterances.missing[names[-1]].grad.abs().sum()) > 0
    model.utterances.missing[names[-1]].data.fill_(0.0)
    empty = model(missing).logits
    assert not torch.allclose(empty, first)
    features[names[-1]] = batch.features[names[-1]]  # a value where there is none is never read
    assert torch.equal(model(missing).logits, empty)
    assert not torch.allclose(model(batch).logits, empty)


def test_who_speaks_matters_and_their_numbers_do_not() -> None:
    model = small_model({"text": 4}).eval()
    batch = make_batch([5], {"text": 4})
    batch = replace(batch, speakers=torch.tensor([[0, 1, 0, 2, 1]]))
    renamed = replace(batch, speakers=torch.tensor([[2, 0, 2, 1, 0]]))
    alone = replace(batch, speakers=torch.zeros(1, 5, dtype=torch.long))
    torch.testing.assert_close(model(batch).logits, model(renamed).logits)
    assert not torch.allclose(model(batch).logits, model(alone).logits)


def test_one_direction_without_second_attention_never_looks_ahead() -> None:
    model = small_model({"text": 4}, bidirectional=False, second_attention=False).eval()
    batch = make_batch([5], {"text": 4})
    changed = batch.features["text"].clone()
    changed[:, 3:] += 1
    before, after = model(batch).logits, model(replace(batch, features={"text": changed})).logits
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("listener", [False, True])
def test_dropout_acts_in_training_alone_and_keeps_the_mean(listener: bool) -> None:
    model = small_model({"text": 4}, listener_state=listener, recurrent_dropout=0.3)
    batch = make_batch([4, 2], {"text": 4})
    assert not torch.allclose(model(batch).logits, model(batch).logits)
    model.eval()
    torch.testing.assert_close(model(batch).logits, model(batch).logits, rtol=0, atol=0)


def test_mixed_precision_keeps_the_recurrence_in_full() -> None:
    model = small_model({"text": 4}).float()
    batch = make_batch([4, 2], {"text": 4}).to("cpu", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch).logits
    logits.float()[batch.mask].logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_state_survives_saving() -> None:
    model = small_model({"text": 4}, context_attention="concat", listener_state=True).eval()
    other = small_model({"text": 4}, context_attention="concat", listener_state=True).eval()
    torch.nn.init.ones_(other.hidden.weight)
    other.load_state_dict(model.state_dict())
    batch = make_batch([4, 2], {"text": 4})
    assert torch.equal(model(batch).logits, other(batch).logits)


def test_a_checkpoint_with_a_fault_is_refused_by_the_name_of_the_entry() -> None:
    config = DialogueRnnConfig(**NARROW)
    state = published_state(config)
    for name in state:
        rest = {key: value for key, value in state.items() if key != name}
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            DialogueRnn.from_published(rest, config)
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            DialogueRnn.from_published({**state, name: torch.zeros(2, 3, 4)}, config)
    with pytest.raises(DataError, match="surplus"):
        DialogueRnn.from_published({**state, "surplus.weight": torch.zeros(2)}, config)
    with pytest.raises(DataError, match=r"weight_ih.* should be \(12, 14\)|weight_ih"):
        DialogueRnn.from_published(state, config.model_copy(update={"global_width": 6}))
    with pytest.raises(DataError, match="l_cell"):
        DialogueRnn.from_published(state, config.model_copy(update={"listener_state": True}))
    with pytest.raises(DataError, match="bidirectional"):
        DialogueRnn.from_published(state, config.model_copy(update={"bidirectional": False}))
    with pytest.raises(DataError, match="input_width is 64; set it to 0"):
        DialogueRnn.from_published(state, config.model_copy(update={"input_width": 64}))


def test_entries_without_influence_may_be_there_or_not() -> None:
    config = DialogueRnnConfig(**NARROW, second_attention=False)
    state = published_state(config)
    assert DialogueRnn.from_published(state, config).ignored_entries == (
        "matchatt.transform.bias",
        "matchatt.transform.weight",
    )
    for name in ("matchatt.transform.bias", "matchatt.transform.weight"):
        del state[name]
    assert DialogueRnn.from_published(state, config).ignored_entries == ()


def test_a_given_spec_splits_the_utterance_into_modalities() -> None:
    config = DialogueRnnConfig(**NARROW)
    state = published_state(config)
    whole = make_batch([3, 2], {"text": UTTERANCE})
    parts = replace(
        whole,
        features={"text": whole.features["text"][..., :5], "audio": whole.features["text"][..., 5:]},
        present={"text": whole.mask, "audio": whole.mask},
    )
    spec = InputSpec({"text": 5, "audio": 3}, CLASSES, 4)
    split = DialogueRnn.from_published(state, config, spec)
    torch.testing.assert_close(split(parts).logits, DialogueRnn.from_published(state, config)(whole).logits)
    with pytest.raises(DataError, match="weight_ih"):
        DialogueRnn.from_published(state, config, InputSpec({"text": 5}, CLASSES, 4))
