"""Datasets are loaded, and so prepared, without torch: it takes seconds and hundreds of megabytes."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from mer_bench import registry

for name in registry.installed_datasets().plugins:
    registry.load_dataset(name)
import mer_bench.data.community, mer_bench.data.store, mer_bench.data.preparation, mer_bench.data.text.tfidf
print(sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "torch_geometric", "transformers")))
"""


def test_no_dataset_needs_torch() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
