"""A run maps the features of a store and never holds them: a corpus of any size trains in the memory of a small one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.large_corpus import Size, held_by_run, install, prepare

SMALL, LARGE = Size(5_000, 1024), Size(50_000, 1024)

BESIDE = 0.25
"""Of what the larger one has more: room for ids, labels, scores and the allocator's mood, and far from a copy."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc is not there to say what is held")
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    folder = install(tmp_path, [SMALL, LARGE])
    held = {}
    for size in (SMALL, LARGE):
        prepare(size, folder)
        held[size] = held_by_run("latefusion", size, folder)
    more = LARGE.megabytes - SMALL.megabytes
    assert held[LARGE].mapped > held[SMALL].mapped + 0.5 * more  # it was read, as a file
    assert held[LARGE].anonymous < held[SMALL].anonymous + BESIDE * more, held
