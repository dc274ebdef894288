"""The notebook runs from its first cell to its last, and is committed without what it printed."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "from_data_to_leaderboard.ipynb"


def printed(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell["outputs"])


def test_it_is_committed_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell for cell in cells if cell.outputs or cell.execution_count is not None] == []
    assert str(Path.home()) not in NOTEBOOK.read_text()


def test_it_goes_from_data_to_a_leaderboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MER_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    # `mer-bench` is the one of the environment that the tests run in.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    # A cell that fails ends it, so that what follows was printed by commands that all went through.
    info, runs, _, scored, boards, python, compared = [printed(cell) for cell in notebook.cells if "outputs" in cell]
    assert "Made-up data" in info
    weighted = {name: float(score) for name, score in re.findall(r"^(\w+) +seed 0 +weighted F1 ([\d.]+)$", runs, re.M)}
    assert sorted(weighted) == ["latefusion", "logistic", "majority", "textonly"]
    assert weighted["majority"] < weighted["logistic"]
    (told,) = re.findall(r"^Weighted F1 +([\d.]+)$", scored, re.M)
    assert f"centres      {told}" in python
    assert "2 leaderboards with 5 rows of 9 records" in boards
    assert "made-up dialogues" in boards
    assert len(list((tmp_path / "leaderboard" / "meld-synthetic").glob("*.html"))) == 2
    assert f"against {told}" in compared or f"({told}" in compared
