"""A dialogue that is too long for the memory: one sentence that names it, from a process that really has too little."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mer_bench.api import Split
from mer_bench.errors import OutOfMemoryError, RunError, is_out_of_memory
from mer_bench.records import Record, read_record
from mer_bench.runner import fault_of
from tests.conftest import ShelfWriter

CARD = """
    title = "Talks"
    summary = "Made-up dialogues; one of its splits has a very long one."
    entry = "dataset:Talks"
    licence = "none"
    redistribute = true
    synthetic = true
    modalities = ["text", "audio"]
    [label_sets.emotion]
    title = "Two"
    classes = ["calm", "glad"]
    [feature_sets.train]
    title = "Long in train"
    summary = "Random."
    widths = { text = 8, audio = 8 }
    [feature_sets.test]
    title = "Long in test"
    summary = "Random."
    widths = { text = 8, audio = 8 }
    [protocols.official]
    title = "One split"
"""

DATASET = """
    from mer_bench.api import Dataset, PreparationRequest, StoreContent
    import numpy as np

    class Talks(Dataset):
        def prepare(self, request: PreparationRequest) -> StoreContent:
            random = np.random.default_rng(1)
            # The twentieth of thirty dialogues, or the last of all, is very long.
            long = {"train": 19, "test": 33}[request.features.split("/")[-1]]
            lengths = np.where(np.arange(34) == long, 10000, 5)
            rows = int(lengths.sum())
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            return StoreContent(
                features={name: random.random((rows, 8), dtype=np.float32) for name in ("text", "audio")},
                present={name: np.ones(rows, dtype=np.bool_) for name in ("text", "audio")},
                speakers=np.zeros(rows, np.int16),
                labels=(np.arange(rows) % 2).astype(np.int16),
                utterance_ids=[f"u{row}" for row in range(rows)],
                dialogue_ids=[f"talk {number}" for number in range(34)],
                offsets=offsets,
                splits=np.array([0] * 30 + [1] * 2 + [2] * 2, dtype=np.uint8),
                classes=("calm", "glad"),
            )
"""

MODEL_CARD = """
    title = "Pairs"
    summary = "Compares every utterance with every other."
    entry = "model:Pairs"
    config = "model:PairsSettings"
    modalities = ["text", "audio"]
    memory = "quadratic"
"""

MODEL = """
    from mer_bench.api import Batch, Model, Output, Settings
    from torch import nn

    class PairsSettings(Settings):
        pass

    class Pairs(Model):
        def __init__(self, spec, settings):
            super().__init__(spec, settings)
            self.output = nn.Linear(8, spec.class_count)

        def forward(self, batch: Batch) -> Output:
            values = batch.features["text"]
            return Output(self.output((values @ values.mT).softmax(dim=-1) @ values))
"""

LIMITED = """
import resource, sys
import torch
from mer_bench import cli, runner, trainer
lines = open("/proc/self/status").read().splitlines()
held = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (held + 300_000_000,) * 2)
cli.main()
"""
"""The command line with 300 MB beyond what it holds once everything is imported."""


@pytest.fixture
def talks(shelves: ShelfWriter) -> Path:
    files = {"__init__.py": '"""Made up."""', "card.toml": CARD, "dataset.py": DATASET}
    shelves.add(
        "models",
        "shelf_of_pairs",
        {"pairs": {"__init__.py": '"""Made up."""', "card.toml": MODEL_CARD, "model.py": MODEL}},
    )
    return shelves.add("datasets", "shelf_of_talks", {"talks": files}).parent


def run_with_little_memory(installed: Path, folder: Path, features: str, *options: str) -> tuple[str, Record]:
    """Standard error of a run that fails, and its record."""
    words = ["run", "--model", "pairs", "--dataset", "talks", "--features", features, "--threads", "1", *options]
    words += ["--set", "epochs=1", "--out", str(folder / "runs")]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={
            **os.environ,
            "PYTHONPATH": str(installed),
            "MER_BENCH_DATA": str(folder / "data"),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
    )
    assert done.returncode == 1, done.stderr
    (file,) = (file for file in (folder / "runs").rglob("*") if file.is_file())  # the record, and nothing half-written
    return done.stderr, read_record(file)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc is not there to say how much is held")
@pytest.mark.parametrize(
    ("features", "options", "says"),
    [
        (
            "train",
            ("--set", "batch_size=4"),
            "Pairs exhausted the memory on split train: in a batch of 2, dialogue 'talk 19' has 10000 utterances. "
            "Lower batch_size (now 4), ",
        ),
        (
            "train",
            ("--set", "batch_size=1"),
            "Pairs exhausted the memory on split train: alone in its batch, dialogue 'talk 19' has 10000 utterances. "
            "Lower the model's widths, cut such dialogues into shorter ones or take a machine of more memory.",
        ),
        (
            "test",
            ("--set", "batch_size=4"),
            "Pairs exhausted the memory on split test: alone in its batch, dialogue 'talk 33' has 10000 utterances. ",
        ),
    ],
)
def test_a_dialogue_that_does_not_fit_is_named(
    talks: Path, tmp_path: Path, features: str, options: tuple[str, ...], says: str
) -> None:
    told, record = run_with_little_memory(talks, tmp_path, features, *options)
    assert says in " ".join(told.split()), told
    assert "Traceback" not in told
    assert record.failure is not None
    assert record.failure.kind == "OutOfMemoryError"
    assert says in record.failure.reason


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (np.exceptions.__dict__.get("_ArrayMemoryError", MemoryError)(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: 9 bytes."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("std::bad_alloc"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("shape '[3]' is invalid for input of size 4"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_exhausted_memory_is_known_by_every_name_it_has(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
    fault = fault_of("pairs", error)
    assert (type(fault) is OutOfMemoryError) is expected
    assert isinstance(fault, RunError)


def split(lengths: list[int]) -> Split:
    rows = sum(lengths)
    return Split(
        "test",
        {"text": torch.zeros(rows, 1)},
        {"text": torch.ones(rows, dtype=torch.bool)},
        torch.zeros(rows, dtype=torch.long),
        torch.tensor([0, *lengths]).cumsum(0),
    )


@pytest.mark.parametrize("most", [1, 50, 100, 1000, 10**9])
def test_batches_for_scoring_are_bounded_in_the_square_of_their_length(most: int) -> None:
    lengths = [3, 40, 7, 7, 1, 12, 9, 2, 5, 5, 5, 30, 1]
    batches = list(split(lengths).in_order(4, most))
    assert sorted(d for batch in batches for d in batch.dialogues.tolist()) == list(range(len(lengths)))
    sizes = [(len(batch.dialogues), batch.mask.shape[1]) for batch in batches]
    assert all(count == 1 or count * turns**2 <= most for count, turns in sizes)
    assert all(count <= 4 for count, _ in sizes)
    if most == 10**9:  # nothing changes where every batch fits
        usual = [batch.dialogues.tolist() for batch in split(lengths).in_order(4)]
        assert [batch.dialogues.tolist() for batch in batches] == usual


def test_a_dialogue_without_a_name_is_called_by_its_place() -> None:
    assert split([2, 3]).dialogue_name(1) == "number 1"
