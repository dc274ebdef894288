"""Run the checks of a plugin by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mer_bench import registry
from mer_bench.errors import PluginError, UnknownNameError
from mer_bench.registry import load_dataset, load_model
from mer_bench.testing.checks import Check, CheckResult
from mer_bench.testing.dataset_checks import DATASET_CHECKS, DatasetSubject
from mer_bench.testing.model_checks import MODEL_CHECKS, ModelSubject


def check_names(name: str, data_root: Path | None = None) -> list[str]:
    """The names of the checks that a plugin is subject to.

    Args:
        data_root: Folder of the data; None: where every command looks for them.

    Raises:
        UnknownNameError, PluginError: If there is no such plugin, or its card is broken.
    """
    return list(MODEL_CHECKS if _kind(name, data_root) == "model" else DATASET_CHECKS)


def iterate_checks(name: str, data_root: Path | None = None) -> Iterator[CheckResult]:
    """Run every check of one model or dataset, yielding each result as it comes.

    A plugin whose code cannot be imported fails one check of the name `loads`, and no other is run.

    Args:
        data_root: Folder of the data; None: where every command looks for them.

    Raises:
        UnknownNameError, PluginError: If there is no such plugin, or its card is broken.
    """
    checks: Mapping[str, Check[Any]] = MODEL_CHECKS if _kind(name, data_root) == "model" else DATASET_CHECKS
    try:
        subject, excused = _subject(name, data_root)
    except PluginError as error:
        yield CheckResult("loads", "failed", str(error))
        return
    for check in checks.values():
        yield check.run(subject, excused)


def run_checks(name: str, data_root: Path | None = None) -> list[CheckResult]:
    """The results of every check of one model or dataset; see `iterate_checks`."""
    return list(iterate_checks(name, data_root))


def run_check(name: str, check: str, data_root: Path | None = None) -> CheckResult:
    """Run one check of one plugin, for a pytest case of its own.

    Raises:
        UnknownNameError: For a plugin or a check that does not exist.
        PluginError: If the plugin is broken.
    """
    checks: Mapping[str, Check[Any]] = MODEL_CHECKS if _kind(name, data_root) == "model" else DATASET_CHECKS
    if check not in checks:
        raise UnknownNameError("check", check, checks)
    subject, excused = _subject(name, data_root)
    return checks[check].run(subject, excused)


def _subject(name: str, data_root: Path | None) -> tuple[Any, Mapping[str, str]]:
    if _kind(name, data_root) == "model":
        loaded = load_model(name)
        return ModelSubject(loaded), loaded.plugin.card.excused
    plugin = registry.datasets(data_root).find(name)
    return DatasetSubject(plugin, load_dataset(name, data_root), data_root), plugin.card.excused


def _kind(name: str, data_root: Path | None = None) -> str:
    """`model` or `dataset`; a model where one name is both."""
    if name in registry.models().plugins:
        return "model"
    if name in registry.datasets(data_root).plugins:
        return "dataset"
    for shelf in (registry.models(), registry.datasets(data_root)):
        if any(name in (broken.name, broken.package) for broken in shelf.broken):
            shelf.find(name)  # raises with the reason
    known = [*registry.models().plugins, *registry.datasets(data_root).plugins]
    raise UnknownNameError("model or dataset", name, known, "mer-bench list models, mer-bench list datasets")
