"""What the speed of this machine is, at this moment: small pieces of work that resemble what is guarded.

A guarded path is timed in turns with the kernels that it is most like, and only the ratio counts. A slower machine, and
one that is busy, is slower at both. None of them uses a line of mer-bench, so that nothing we do makes them slower.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def products() -> None:
    """Matrix products of a size that fits the cache: what bounds wide layers."""
    left, right = torch.full((384, 384), 0.5), torch.full((384, 384), 0.25)
    for _ in range(24):
        left = torch.mm(left, right).clamp_(-1, 1)


def operators() -> None:
    """A chain of small operators with its gradient: what bounds recurrent steps and the trainer around small models."""
    start = torch.full((32, 64), 0.1, requires_grad=True)
    values = start
    for _ in range(900):
        values = torch.tanh(values * 1.01 + 0.1)
    values.sum().backward()


def interpreter() -> None:
    """Python objects, texts and JSON: what bounds records, cards and pages."""
    rows = [{"name": f"row {number}", "values": [number, number / 7, str(number)]} for number in range(9000)]
    again = json.loads(json.dumps(rows))
    kept = {row["name"]: sum(map(float, row["values"])) for row in again}
    assert len(sorted(kept, key=lambda name: (kept[name], name))) == 9000


def arrays() -> None:
    """NumPy on arrays larger than the cache: what bounds scores, the bootstrap and the making of features."""
    draws = np.random.default_rng(0)
    values = draws.standard_normal((2000, 256))
    values -= values.mean(axis=0)
    chosen = draws.integers(0, len(values), (40, len(values)))
    assert np.isfinite(np.take(values[:, 0], chosen).mean(axis=1)).all()
    assert np.argsort(values, axis=0).shape == values.shape


def files() -> None:
    """Writing, reading and checking files: what bounds stores."""
    content = np.arange(1 << 20, dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "values.npy")
        np.save(file, content)
        for _ in range(3):
            assert len(hashlib.sha256(file.read_bytes()).digest()) == 32
        assert float(np.load(file, mmap_mode="r").sum()) > 0


def _python(code: str) -> Callable[[], None]:
    def start() -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([sys.executable, "-I", "-c", code], check=True, env=environment)

    return start


KERNELS: dict[str, Callable[[], None]] = {
    "products": products,
    "operators": operators,
    "interpreter": interpreter,
    "arrays": arrays,
    "files": files,
    # A start of Python with as much to import as a small command has, and one with torch.
    "start": _python(
        "import asyncio, email.mime.text, http.client, logging.config, sqlite3, unittest.mock, xml.dom.minidom"
    ),
    "start with torch": _python("import torch"),
}
