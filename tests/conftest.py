"""What every test shares: single-threaded torch, real data where they are, small dialogues."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
# The tests' own processes must neither see a contributor's data nor his habits.
for name in ("MER_BENCH_DATA", "MER_BENCH_MIRROR", "MER_BENCH_REQUIRE_REAL"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real corpora beside the repository; the test is skipped where they are absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real corpora are not beside the repository (../shared/data)")
    return folder
