"""Random numbers that a seed decides, and nothing else."""

from __future__ import annotations

import hashlib
import os
import random

import numpy as np
import torch


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for one purpose of a run: `weights`, `batches`, `dropout`.

    So that drawing more numbers for one purpose never shifts those of another.

    >>> derived_seed(0, "weights") == derived_seed(0, "weights")
    True
    >>> derived_seed(0, "weights") == derived_seed(0, "batches")
    False
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators (on every device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def deterministic_algorithms(on: bool = True) -> None:
    """Make PyTorch refuse operations that could differ from one run to the next, or let it take the quickest ones.

    On the CPU the deterministic ones are the only ones, so that it costs nothing there.
    """
    if on:
        # cuBLAS reads it when it is first used; without it PyTorch refuses every matrix product on cuda.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(on)
    torch.backends.cudnn.deterministic = on
    torch.backends.cudnn.benchmark = not on
