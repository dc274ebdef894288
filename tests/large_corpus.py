"""Made-up corpora as large as wanted, and the memory of a run on one that is not the mapped files themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CARD = """
title = "Large"
summary = "Random dialogues of ten utterances, as many as wanted."
entry = "dataset:Large"
licence = "none"
redistribute = true
synthetic = true
modalities = ["text"]
[label_sets.emotion]
title = "Seven"
classes = ["a", "b", "c", "d", "e", "f", "g"]
[protocols.official]
title = "One split"
"""

FEATURES = """
[feature_sets.{name}]
title = "{utterances} utterances"
summary = "Random vectors."
widths = {{ text = {width} }}
"""

DATASET = '''
"""Made up."""
from mer_bench.api import Dataset, PreparationRequest, StoreContent
import numpy as np


class Large(Dataset):
    """Eight dialogues in ten are for training, one is dev and one is test."""

    def prepare(self, request: PreparationRequest) -> StoreContent:
        rows, width = map(int, request.features.split("/")[-1].removeprefix("u").split("w"))
        dialogues = rows // 10
        tenth = dialogues // 10
        random = np.random.default_rng(0)
        return StoreContent(
            features={"text": random.random((rows, width), dtype=np.float32)},
            present={"text": np.ones(rows, dtype=np.bool_)},
            speakers=np.tile(np.array([0, 1, 0, 1, 1, 0, 1, 0, 0, 1], dtype=np.int16), dialogues),
            labels=random.integers(0, 7, rows).astype(np.int16),
            utterance_ids=[f"d{row // 10}u{row % 10}" for row in range(rows)],
            dialogue_ids=[f"d{number}" for number in range(dialogues)],
            offsets=np.arange(0, rows + 1, 10),
            splits=np.repeat(np.arange(3, dtype=np.uint8), [dialogues - 2 * tenth, tenth, tenth]),
            classes=tuple("abcdefg"),
        )
'''


@dataclass(frozen=True)
class Size:
    """How many utterances, and how wide their vectors are."""

    utterances: int
    width: int

    @property
    def name(self) -> str:
        return f"u{self.utterances}w{self.width}"

    @property
    def megabytes(self) -> float:
        """Of the features."""
        return self.utterances * self.width * 4 / 1e6


def install(folder: Path, sizes: Sequence[Size]) -> Path:
    """A package with the data set `large`, whose feature sets are the sizes; stands on the path of child processes."""
    package = folder / "shelf_of_large" / "large"
    package.mkdir(parents=True)
    sets = [FEATURES.format(name=size.name, utterances=size.utterances, width=size.width) for size in sizes]
    (package / "__init__.py").write_text('"""Made up."""\n')
    (package / "card.toml").write_text(CARD + "".join(sets))
    (package / "dataset.py").write_text(textwrap.dedent(DATASET))
    (package.parent / "__init__.py").write_text('"""Made up."""\n')
    information = folder / "shelf_of_large-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf_of_large\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[mer_bench.datasets]\nlarge = shelf_of_large\n")
    return folder


@dataclass(frozen=True)
class Held:
    """What a process held at most, in MB: of its own (`anonymous`), and of files that are mapped."""

    anonymous: float
    mapped: float
    seconds: float


def held_by(words: Sequence[str], folder: Path) -> Held:
    """Run a command of mer-bench on the data sets of `install`, and look at its memory a hundred times a second.

    Raises:
        AssertionError: If it failed.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "MER_BENCH_DATA": str(folder / "data"),
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
    }
    begun = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "mer_bench", *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    most = {"RssAnon": 0, "RssFile": 0}
    status = Path(f"/proc/{child.pid}/status")
    while child.poll() is None:
        for line in status.read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in most:
                most[name] = max(most[name], int(rest.split()[0]) * 1024)
        time.sleep(0.01)
    told = child.communicate()[0].decode()
    assert child.returncode == 0, told
    return Held(most["RssAnon"] / 1e6, most["RssFile"] / 1e6, time.perf_counter() - begun)


def prepare(size: Size, folder: Path) -> None:
    """Write the store of a size, in a process of its own."""
    held_by(["data", "prepare", "large", "--features", size.name], folder)


def held_by_run(model: str, size: Size, folder: Path, batch_size: int = 32) -> Held:
    """What a run of one epoch holds."""
    words = ["run", "--model", model, "--dataset", "large", "--features", size.name, "--threads", "1"]
    words += ["--set", "epochs=1", "--set", f"batch_size={batch_size}", "--out", str(folder / f"runs-{size.name}")]
    return held_by(words, folder)
