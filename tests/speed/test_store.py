"""Opening, reading, writing and checking prepared stores: in the shape of MELD, and with a million utterances.

Opening is also timed in a process of its own, the import apart, with the peak memory that it reaches.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mer_bench.data.store import StoreContent, check_content, open_store, write_store
from mer_bench.locations import StoreKey

KEY = StoreKey("made-up", "default", "emotion", "official")
SHAPES = {"meld": (1432, {"text": 320, "audio": 10}), "million": (100_000, {"text": 64, "audio": 10})}
"""Dialogues of ten utterances, and widths."""

OPENING = """
import json, sys, time
from pathlib import Path

def memory():
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))

begin = time.perf_counter()
from mer_bench.data.store import open_store
imported, before = time.perf_counter(), memory()
store = open_store(Path(sys.argv[1]))
opened = time.perf_counter()
print(json.dumps({
    "import_ms": 1000 * (imported - begin), "first_open_ms": 1000 * (opened - imported),
    "import_mb": before, "peak_mb": memory(),
}))
"""


def random_content(dialogues: int, widths: dict[str, int]) -> StoreContent:
    """Dialogues of ten utterances of two speakers, eight words each."""
    rng = np.random.default_rng(0)
    rows = 10 * dialogues
    splits = np.repeat(np.arange(3, dtype=np.uint8), [dialogues - 2 * (dialogues // 10), *[dialogues // 10] * 2])
    words = np.array([f"word{index}" for index in range(5000)], dtype=object)
    return StoreContent(
        features={name: rng.random((rows, width), dtype=np.float32) for name, width in widths.items()},
        present={name: np.ones(rows, dtype=np.bool_) for name in widths},
        speakers=np.tile(np.array([0, 1, 0, 1, 1, 0, 1, 0, 0, 1], dtype=np.int16), dialogues),
        labels=rng.integers(0, 7, rows).astype(np.int16),
        utterance_ids=[f"dialogue{row // 10:06}_utterance{row % 10}" for row in range(rows)],
        dialogue_ids=[f"dialogue{index:06}" for index in range(dialogues)],
        offsets=np.arange(0, rows + 1, 10),
        splits=splits,
        classes=tuple("abcdefg"),
        texts=[" ".join(chosen) for chosen in words[rng.integers(0, len(words), (rows, 8))]],
        subsets={"odd": np.arange(dialogues) % 2 == 1},
    )


@pytest.fixture(scope="module", params=sorted(SHAPES))
def prepared(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[StoreContent, Path]:
    """A content, and the folder of its store."""
    content = random_content(*SHAPES[request.param])
    folder = tmp_path_factory.mktemp("stores") / request.param
    write_store(folder, content, KEY, {})
    return content, folder


def test_opening(benchmark: Any, prepared: tuple[StoreContent, Path]) -> None:
    store = benchmark(open_store, prepared[1])
    assert store.manifest.utterances == len(prepared[0].utterance_ids)


def test_opening_in_a_process_of_its_own(benchmark: Any, prepared: tuple[StoreContent, Path]) -> None:
    found: list[dict[str, float]] = []

    def run() -> None:
        answer = subprocess.run([sys.executable, "-c", OPENING, str(prepared[1])], capture_output=True, check=True)
        found.append(json.loads(answer.stdout))

    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    best = {name: min(each[name] for each in found) for name in found[0] if found[0][name] is not None}
    benchmark.extra_info.update(best)
    print(", ".join(f"{name} {value:.1f}" for name, value in best.items()))  # noqa: T201


def test_checking_a_content(benchmark: Any, prepared: tuple[StoreContent, Path]) -> None:
    benchmark.pedantic(check_content, (prepared[0],), rounds=3)


def test_writing(benchmark: Any, prepared: tuple[StoreContent, Path], tmp_path: Path) -> None:
    places = iter(range(100))
    benchmark.pedantic(lambda: write_store(tmp_path / str(next(places)), prepared[0], KEY, {}), rounds=2)


def test_verifying(benchmark: Any, prepared: tuple[StoreContent, Path]) -> None:
    benchmark.pedantic(open_store(prepared[1]).verify, rounds=3)


def test_the_overlap_of_train_and_test(benchmark: Any, prepared: tuple[StoreContent, Path]) -> None:
    assert benchmark.pedantic(open_store(prepared[1]).measure_overlap, rounds=2) is not None


def test_identifiers_and_texts(benchmark: Any, prepared: tuple[StoreContent, Path]) -> None:
    store = open_store(prepared[1])

    def read() -> Any:
        return store.identifiers("train"), store.texts("train")

    (ids, _), texts = benchmark.pedantic(read, rounds=3)
    assert len(ids) == len(texts)
