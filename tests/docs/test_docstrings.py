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

import mer_bench_datasets
import mer_bench_models
import pytest
from torch import nn

import mer_bench
from mer_bench import errors
from tests.docs.blocks import ROOT
from tests.test_architecture import LAYER

NOT_OURS = ("mer_bench.templates.",)
"""What `new model` writes for somebody else to change."""


WITHIN = {"atomic", "audit", "checkpoint", "claim", "cli", "compiling", "identity", "model_settings", "own"}
WITHIN |= {"plugin_files", "request", "templates", "__init__", "__main__"}
"""Rooms without a page of their own in the reference: nobody builds on them, or another room's page holds them."""

SHAPE = re.compile(r"[Ss]hapes|\([A-Z]\w*, [^)]+\)")
"""A heading `Shapes`, a reference to somebody's, or a shape such as `(B, T, width)`."""


@cache
def modules() -> tuple[ModuleType, ...]:
    """Those of the core, of every model and of every dataset."""
    shelves: tuple[ModuleType, ...] = (mer_bench, mer_bench_models, mer_bench_datasets)
    names = [found.name for shelf in shelves for found in pkgutil.walk_packages(shelf.__path__, f"{shelf.__name__}.")]
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
    assert [name for name, member in everything() if not told_of(member).strip()] == []


def told_of(member: Any) -> str:
    """A docstring: of a method it may be that of the method that it replaces; a class says itself what it is."""
    if not inspect.isclass(member):
        return inspect.getdoc(member) or ""
    text = vars(member).get("__doc__") or ""
    return "" if text.startswith(f"{member.__name__}(") else text  # `dataclass` writes one where there is none


def test_every_network_says_its_shapes() -> None:
    """But a whole model, whose shapes are those of `api.Model`, and a layer that PyTorch describes."""
    networks = [
        (name, member)
        for name, member in everything()
        if inspect.isclass(member) and issubclass(member, nn.Module) and "forward" in vars(member)
    ]
    assert len(networks) > 50
    told = [(name, f"{member.__doc__}{member.forward.__doc__}") for name, member in networks if not is_known(member)]
    assert [name for name, text in told if not SHAPE.search(text)] == []


def is_known(network: type[nn.Module]) -> bool:
    from mer_bench.api import Model

    return issubclass(network, Model) or network.__bases__[0].__module__.startswith("torch.nn.modules.dropout")


def test_every_room_that_others_build_on_is_in_the_reference() -> None:
    shown = {
        found.split(".")[1]
        for page in (ROOT / "docs" / "api").glob("*.md")
        for found in re.findall(r"^\.\. auto(?:module|class):: (mer_bench\.[\w.]+)", page.read_text(), re.M)
    }
    assert set(LAYER) - shown - WITHIN == set()
    listed = set(re.findall(r"\]\((.+?\.md)\) \|", (ROOT / "docs" / "api" / "index.md").read_text()))
    assert listed == {page.name for page in (ROOT / "docs" / "api").glob("mer_bench*.md")}


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
