"""Checks of a plugin's folder: that looking at it stays cheap."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.resources import files
from typing import Any

from mer_bench.registry import Plugin
from mer_bench.testing.checks import Failed, NotApplicable

HEAVY = ("torch", "torch_geometric", "sklearn", "optuna", "transformers")
"""Libraries whose import alone takes longer than `mer-bench list models` may."""

IMPORT_SECONDS = 120


def check_folder(plugin: Plugin[Any], config_module: str | None) -> None:
    """The folder's `__init__.py` holds a docstring alone, and its settings import nothing heavy.

    Args:
        config_module: Module of the settings inside it; None for a dataset.
    """
    if plugin.files is None:
        source = (files(plugin.package) / "__init__.py").read_text(encoding="utf-8")
        question = f"import {plugin.package}.{config_module}"
    elif plugin.files.path.is_file():
        raise NotApplicable("card, settings and network are one file, and reading the card runs nothing of it")
    else:
        source = plugin.files.sources["__init__.py"].decode("utf-8")
        question = (
            f"from mer_bench import registry; registry.add_plugin({str(plugin.files.path)!r}); "
            f"registry.settings_class({plugin.name!r})"
        )
    statements = [node for node in ast.parse(source).body if not _is_docstring(node)]
    if statements:
        raise Failed(
            f"{plugin.place('__init__')} should hold a docstring and nothing else, so that reading the card runs no "
            f"code, but line {statements[0].lineno} holds a statement."
        )
    if config_module is None:
        return
    # A process of its own, since here torch is long imported. Its search path is ours: the plugin may
    # have been found through a path that only this process has.
    answer = subprocess.run(
        [sys.executable, "-c", f"import sys; {question}; print(*[name for name in {HEAVY} if name in sys.modules])"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=IMPORT_SECONDS,
        check=False,
    )
    if answer.returncode:
        raise Failed(f"{plugin.place(config_module)} cannot be imported: {answer.stderr.strip().splitlines()[-1]}")
    if answer.stdout.strip():
        raise Failed(
            f"importing the settings ({plugin.place(config_module)}) imports {answer.stdout.split()[0]}, which is "
            "slow; keep it in the module of the model."
        )


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
