"""Options of the guard, and what it says at the end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.speed.guard import RATIOS, VERDICTS


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("speed")
    group.addoption("--short", action="store_true", help="Guard the short list of paths, in less than a minute.")
    group.addoption(
        "--renew-baseline", action="store_true", help="Measure every path three times and store the ratios."
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[VERDICTS], config.stash[RATIOS] = [], {}


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for verdict in config.stash[VERDICTS]:
        terminalreporter.write_line(f"{'LOST ' if verdict.is_lost else ''}{verdict}", red=verdict.is_lost)
    for name, found in config.stash[RATIOS].items():
        if not found:  # it was interrupted
            continue
        spread = max(found) / min(found) - 1
        terminalreporter.write_line(f"{name}: {', '.join(f'{each:.3g}' for each in found)}; spread {spread:.0%}")
