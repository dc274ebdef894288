"""Every public name says what it is, and what it says of its arguments and its errors is so; its examples run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache, cached_property
from types import ModuleType
from typing import Any

import pytest

import mer_bench
from mer_bench import errors

NOT_OURS = ("mer_bench.templates.",)
"""What `new model` writes for somebody else to change."""


@cache
def modules() -> tuple[ModuleType, ...]:
    names = [found.name for found in pkgutil.walk_packages(mer_bench.__path__, "mer_bench.")]
    ours = [name for name in names if not name.startswith(NOT_OURS) and not name.endswith("__main__")]
    return (mer_bench, *map(importlib.import_module, ours))


def public_members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Classes and functions that a module defines, and the public methods and properties of its classes."""
    for name, member in vars(module).items():
        if name.startswith("_") or getattr(member, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(member) or inspect.isfunction(member):
            yield f"{module.__name__}.{name}", member
        if inspect.isclass(member):
            for key in vars(member):
                value = getattr(member, key)
                is_field = getattr(value, "__name__", "") == "<lambda>"  # its class tells of it
                if not key.startswith("_") and not is_field and _is_told_of(value):
                    yield f"{module.__name__}.{name}.{key}", value


def _is_told_of(value: Any) -> bool:
    return inspect.isfunction(value) or inspect.ismethod(value) or isinstance(value, property | cached_property)


def everything() -> Iterator[tuple[str, Any]]:
    for module in modules():
        yield module.__name__, module
        yield from public_members(module)


def section(text: str, title: str) -> str:
    found = re.search(rf"^{title}:\n((?:    .*\n|\n)+)", text + "\n", re.M)
    return found[1] if found else ""


def test_every_public_name_has_a_docstring() -> None:
    assert [name for name, member in everything() if not (inspect.getdoc(member) or "").strip()] == []


def test_a_name_under_args_is_a_parameter() -> None:
    wrong = []
    for name, member in everything():
        if isinstance(member, property | cached_property | ModuleType):
            continue
        try:
            parameters = set(inspect.signature(member).parameters)
        except ValueError:
            continue
        listed = re.findall(r"^    ([a-z_]\w*(?:, [a-z_]\w*)*): ", section(inspect.getdoc(member) or "", "Args"), re.M)
        wrong += [f"{name}: {given}" for names in listed for given in names.split(", ") if given not in parameters]
    assert wrong == []


def test_a_name_under_raises_is_an_error_of_ours_or_pythons() -> None:
    wrong = []
    for name, member in everything():
        listed = re.findall(
            r"^    ([A-Z]\w*(?:, [A-Z]\w*)*)[:.]", section(inspect.getdoc(member) or "", "Raises"), re.M
        )
        for given in (each for names in listed for each in names.split(", ")):
            home = inspect.getmodule(member)
            if not (hasattr(errors, given) or hasattr(home, given) or given in vars(__import__("builtins"))):
                wrong.append(f"{name}: {given}")
    assert wrong == []


@pytest.mark.parametrize("name", ["errors", "config", "metrics", "statistics.correction", "seeding"])
def test_the_examples_of_the_rooms_that_explain_themselves_by_one(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"mer_bench.{name}"))
    assert found.attempted > 0
    assert found.failed == 0


def test_every_example_runs() -> None:
    failed = [module.__name__ for module in modules() if doctest.testmod(module).failed]
    assert failed == []
