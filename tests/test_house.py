"""What the front door promises: the README's two commands, and that CI runs the second word for word."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mer_bench.cli import app

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


def promised() -> list[str]:
    """Every mer-bench command of the README, without its comment."""
    lines = "\n".join(shell_blocks((ROOT / "README.md").read_text())).splitlines()
    return [line.split("#")[0].split("&& ")[-1].strip() for line in lines if "mer-bench " in line]


@pytest.mark.parametrize("command", promised())
def test_every_command_of_the_readme_is_one_that_exists(command: str) -> None:
    words = shlex.split(command)[1:]
    options = [word for word in words if word.startswith("--")]
    verb = words[: 2 if words[0] in ("data", "leaderboard", "new", "tune") and not words[1].startswith("-") else 1]
    shown = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert shown.exit_code == 0
    assert [option for option in options if option not in shown.output] == []
