"""A state of training as a file: what goes in comes out, and what is damaged is never taken for whole."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor

from mer_bench.checkpoint import Saved, read_state, saved_states, write_state
from mer_bench.errors import CheckpointError, StorageError

from .test_trainer import DEV, TRAIN, make, score_dev

CONTEXT = {"identity": "a" * 64, "threads": "1"}

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8]).map(
        (torch.arange(6).reshape(2, 3) % 2).to
    ),
    st.just(torch.tensor(3.5)),
    st.just(torch.zeros(0, 4)),
)
states = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=4), st.integers(0, 9)), inner, max_size=3),
    ),
    max_leaves=8,
)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return isinstance(right, Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def only(folder: Path) -> Saved:
    (saved,) = saved_states(folder)
    return saved


@given(states)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_goes_in_comes_out(tmp_path: Path, state: Any) -> None:
    file = write_state(tmp_path, "epoch-000001", CONTEXT, state)
    context, again = read_state(only(tmp_path))
    file.unlink()
    assert context == CONTEXT
    assert same(again, state)


def test_the_file_is_ordinary_safetensors_and_nothing_else_lies_there(tmp_path: Path) -> None:
    file = write_state(tmp_path, "epoch-000001", CONTEXT, {"weights": torch.ones(2, 2)})
    with safe_open(file, "pt") as opened:
        assert [opened.get_tensor(name).tolist() for name in opened.keys()] == [[[1, 1], [1, 1]]]  # noqa: SIM118
    assert list(tmp_path.iterdir()) == [file]


def test_weights_that_are_shared_or_views_are_saved(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {"whole": base, "tied": base, "row": base[1], "turned": base.T}
    write_state(tmp_path, "epoch-000001", CONTEXT, state)
    assert same(read_state(only(tmp_path))[1], state)


def test_what_is_read_may_be_changed_without_harm(tmp_path: Path) -> None:
    write_state(tmp_path, "epoch-000001", CONTEXT, {"a": torch.zeros(3)})
    first = read_state(only(tmp_path))[1]
    first["a"] += 1
    assert read_state(only(tmp_path))[1]["a"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("broken", [object(), {"a": {1.5: 0}}, {"a": np.zeros(3)}, {"deep": [{"set": {1}}]}])
def test_what_has_no_form_is_named_and_nothing_is_written(tmp_path: Path, broken: Any) -> None:
    with pytest.raises(CheckpointError, match=r"^state"):
        write_state(tmp_path, "epoch-000001", CONTEXT, broken)
    assert list(tmp_path.iterdir()) == []


def test_a_hundred_damages_are_all_noticed(tmp_path: Path) -> None:
    file = write_state(tmp_path, "epoch-000001", CONTEXT, {"a": torch.arange(50.0), "b": [1, 2.5, "x"]})
    whole = file.read_bytes()
    drawn = random.Random(5)
    for number in range(100):
        if number % 3 == 0:
            content = whole[: drawn.randrange(len(whole))]
        else:
            place = drawn.randrange(min(len(whole), 10) if number % 3 == 1 else len(whole))
            content = whole[:place] + bytes([whole[place] ^ 1 << drawn.randrange(8)]) + whole[place + 1 :]
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match="is damaged: its content does not match its checksum"):
            read_state(only(tmp_path))
    file.write_bytes(whole)
    read_state(only(tmp_path))


def test_a_state_under_another_moments_or_another_runs_name_is_noticed(tmp_path: Path) -> None:
    first = write_state(tmp_path, "epoch-000001", CONTEXT, [1])
    second = write_state(tmp_path, "epoch-000002", CONTEXT, [2])
    renamed = second.with_name(second.name.replace("000002", "000003"))
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])  # swapped with each other
    second.write_bytes(contents[0])
    for saved in saved_states(tmp_path):
        with pytest.raises(CheckpointError, match="checksum"):
            read_state(saved)
    second.write_bytes(contents[1])
    second.rename(renamed)
    with pytest.raises(CheckpointError, match="another run or another moment"):
        read_state(saved_states(tmp_path)[1])
    foreign = renamed.name.split(".")
    renamed.rename(renamed.with_name(".".join([foreign[0], "0" * 12, *foreign[2:]])))
    with pytest.raises(CheckpointError, match="another run or another moment"):
        read_state(saved_states(tmp_path)[1])


def test_a_later_format_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mer_bench import checkpoint

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 2)
        write_state(tmp_path, "epoch-000001", CONTEXT, [1])
    with pytest.raises(CheckpointError, match="has format 2, and this mer-bench reads format 1"):
        read_state(only(tmp_path))


def test_a_disk_that_is_full_leaves_the_states_before_and_no_scrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_state(tmp_path, "epoch-000001", CONTEXT, [1])

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(StorageError, match=r"cannot save the state of a run in .*: the disk is full"):
                write_state(tmp_path, "epoch-000002", CONTEXT, [2])
        assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("average_decay", [0.0, 0.9])
@pytest.mark.parametrize("last", [1, 3, 5])
def test_training_goes_on_from_the_file_bit_for_bit(tmp_path: Path, average_decay: float, last: int) -> None:
    options: dict[str, Any] = {"epochs": 6, "average_decay": average_decay, "schedule": "cosine", "warmup": 0.2}

    def save(epoch: Any, state: Any) -> None:
        if epoch.epoch == last:
            write_state(tmp_path, f"epoch-{epoch.epoch:06}", CONTEXT, state.parts())

    ended = make(**options).fit(TRAIN, DEV, score_dev, save)
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    resumed = make(**options)
    resumed.state.load_state_dict(read_state(only(tmp_path))[1])
    again = resumed.fit(TRAIN, DEV, score_dev)
    assert again.curve == ended.curve
    assert again.selection == ended.selection
    for left, right in zip(again.model.parameters(), ended.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_the_generators_of_python_and_numpy_go_on_too(tmp_path: Path) -> None:
    machine = make()
    random.seed(3)
    np.random.seed(3)
    np.random.normal()  # leaves half a pair behind, which is part of the state
    write_state(tmp_path, "epoch-000001", CONTEXT, machine.state.parts())
    expected = random.random(), np.random.normal(), np.random.random(), torch.rand(1).item()
    make().state.load_state_dict(read_state(only(tmp_path))[1])
    assert (random.random(), np.random.normal(), np.random.random(), torch.rand(1).item()) == expected
