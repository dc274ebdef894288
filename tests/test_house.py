"""What the front door promises: the README's two commands, and that CI runs the second word for word."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def shell_blocks(text: str) -> list[str]:
    return [block.strip() for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def test_the_first_two_commands_install_and_run_and_install_and_test() -> None:
    run, test = shell_blocks((ROOT / "README.md").read_text())[:2]
    assert run.splitlines() == [run]
    assert test.splitlines() == [test]
    assert run.endswith("mer-bench run --model cmath --dataset meld")
    assert test.endswith("python -m pytest -n auto")
    assert f"<!-- tests -->\n```sh\n{test}\n```" in (ROOT / "README.md").read_text()
    assert "<!-- tests -->" in (ROOT / ".ci" / "run").read_text()
