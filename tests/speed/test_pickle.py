"""Seconds and peak memory of turning a feature release of about 100 MB into the arrays of a store."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WIDTHS = {"text": 600, "audio": 300, "visual": 342}
DIALOGUES = {"train": (1038, 9989), "dev": (114, 1109), "test": (280, 2610)}

CONVERT = """
import json, sys, time
from pathlib import Path
def peak():
    # Not getrusage: its peak is that of the process that started this one, where that was higher.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
from mer_bench import registry
from mer_bench.data.preparation import PreparationRequest
registry.load_dataset("meld")
imported, imports = peak(), time.perf_counter()
content = registry.load_dataset("meld").prepare(
    PreparationRequest("mmgcn", "emotion", "official", None, {"MELD_features_raw1.pkl": Path(sys.argv[1])})
)
seconds = time.perf_counter() - imports
print(json.dumps({"imports": imported, "peak": peak(), "seconds": seconds, "rows": len(content.labels)}))
"""


def meld_release(kind: str) -> list[Any]:
    """Random values in the layout of the MMGCN release, with MELD's counts."""
    random = np.random.default_rng(0)
    lengths: dict[int, int] = {}
    for dialogues, utterances in DIALOGUES.values():
        sizes = np.full(dialogues, utterances // dialogues)
        sizes[: utterances - int(sizes.sum())] += 1
        lengths.update({len(lengths) + place: int(size) for place, size in enumerate(sizes)})

    def vectors(length: int, width: int) -> list[Any]:
        values = random.normal(size=(length, width))
        if kind == "lists":
            return [row.tolist() for row in values]
        return list(values.astype(np.float64 if kind == "float64" else np.float32))

    train = DIALOGUES["train"][0] + DIALOGUES["dev"][0]
    return [
        {number: [f"dia{number}_utt{turn}" for turn in range(length)] for number, length in lengths.items()},
        {number: [[1] + [0] * 8 for _ in range(length)] for number, length in lengths.items()},
        {number: random.integers(0, 7, length).tolist() for number, length in lengths.items()},
        *({number: vectors(length, width) for number, length in lengths.items()} for width in WIDTHS.values()),
        {number: ["some words of a line"] * length for number, length in lengths.items()},
        list(range(train)),
        list(range(train, len(lengths))),
        {number: [0] * length for number, length in lengths.items()},
    ]


@pytest.mark.parametrize(("kind", "protocol"), [("float32", 4), ("float64", 4), ("float64", 2), ("lists", 4)])
def test_converting_a_release(benchmark: Any, tmp_path: Path, kind: str, protocol: int) -> None:
    file = tmp_path / "MELD_features_raw1.pkl"
    file.write_bytes(pickle.dumps(meld_release(kind), protocol=protocol))
    size = file.stat().st_size
    assert 65e6 < size < 250e6

    def convert() -> dict[str, float]:
        done = subprocess.run(
            [sys.executable, "-c", CONVERT, str(file)], capture_output=True, text=True, check=True, timeout=300
        )
        measured: dict[str, float] = json.loads(done.stdout)
        return measured

    measured = benchmark.pedantic(convert, rounds=1, iterations=1)
    benchmark.extra_info.update(megabytes=round(size / 1e6), **{name: round(of, 2) for name, of in measured.items()})
    assert measured["rows"] == 13708
    assert measured["peak"] < 4 * size
