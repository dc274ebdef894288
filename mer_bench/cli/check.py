"""`mer-bench check`: the conformance checks on one plugin, or on all of a package."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mer_bench.cli.options import DataRoot, Debug, Json, Plugins, add_plugins

if TYPE_CHECKING:
    from mer_bench.cli.console import Screen
    from mer_bench.registry import BrokenPlugin
    from mer_bench.testing import CheckResult


def check(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE|FOLDER|PACKAGE",
            help="A model or a dataset; a .py file, plugin folder or folder of such; or an installed package.",
        ),
    ],
    plugins: Plugins = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the conformance checks on a model or dataset, or on all those of a package.

    \b
    Examples:
      mer-bench check cmath
      mer-bench check my_model.py
      mer-bench check their-package

    \b
    Exit codes:
      0 all passed or excused, 1 a check failed, 2 there is no such plugin
    """
    from mer_bench.cli.console import Screen
    from mer_bench.errors import RunError
    from mer_bench.testing import CheckResult

    names, broken, is_shelf = _plugins_of(context, target, data_root)
    screen = Screen(quiet_output=as_json)
    results = {name: _check_one(screen, name, data_root, as_json) for name in names}
    for each in broken:
        screen.warn(f"{each.name} ({each.package}) cannot be used: {each.reason}")
        results[each.name] = [CheckResult("card", "failed", each.reason)]
    failed = {
        name: wrong for name, found in results.items() if (wrong := [each.name for each in found if _is_failed(each)])
    }
    if as_json:
        told = [
            {"name": name, "passed": name not in failed, "checks": [asdict(each) for each in found]}
            for name, found in results.items()
        ]
        screen.answer({"name": target, "passed": not failed, "plugins": told} if is_shelf else told[0])
    if failed and not is_shelf:
        ((name, wrong),) = failed.items()
        raise RunError(f"{name} failed {len(wrong)} of {len(results[name])} checks: {', '.join(wrong)}.")
    if failed:
        told_each = "; ".join(f"{name} ({', '.join(wrong)})" for name, wrong in failed.items())
        raise RunError(f"{len(failed)} of the {len(results)} plugins of {target} failed: {told_each}.")
    if is_shelf:
        screen.line(f"all {len(results)} plugins of {target} passed", tone="good")


def _plugins_of(
    context: typer.Context, target: str, data_root: Path | None
) -> tuple[list[str], list[BrokenPlugin], bool]:
    """Names of the plugins, those that cannot be used, and whether there can be more than one."""
    from mer_bench import registry
    from mer_bench.cli.names import find_plugin, of_package
    from mer_bench.errors import UnknownNameError

    path = Path(target)
    try:
        return [find_plugin(target, data_root).name], [], False
    except UnknownNameError:
        # Names come first: a folder of the name of an installed plugin is meant by ./NAME.
        if not (path.exists() or path.suffix == ".py" or os.sep in target):
            return *of_package(target, data_root), True
    add_plugins(context, [path])
    added = registry.added_plugins(path)
    return list(added.plugins), list(added.broken), path.is_dir() and not (path / "card.toml").is_file()


def _check_one(screen: Screen, name: str, data_root: Path | None, as_json: bool) -> list[CheckResult]:
    """The results of one plugin, shown as a table."""
    from mer_bench import testing
    from mer_bench.cli.console import Bar, Column, Tone, duration_text

    screen.line(f"checking {name}", tone="quiet")
    results = []
    with Bar(screen, 0) if screen.is_terminal else nullcontext() as bar:
        for result in testing.iterate_checks(name, data_root):
            results.append(result)
            if bar:
                bar.show(f"{len(results)} done", result.name)
    if as_json:
        return results
    tones: dict[str, Tone] = {"failed": "bad", "excused": "quiet", "passed": "plain"}
    screen.table(
        [
            Column("check"),
            Column("outcome"),
            Column("time", number=True),
            Column("reason", narrow="wrap"),
        ],
        [[each.name, each.status, duration_text(each.seconds), each.reason] for each in results],
        tones={row: tones[each.status] for row, each in enumerate(results)},
    )
    if not any(_is_failed(each) for each in results):
        excused = sum(result.status == "excused" for result in results)
        also = f", {excused} excused" if excused else ""
        screen.line(f"{name} passed {len(results) - excused} of {len(results)} checks{also}", tone="good")
    return results


def _is_failed(result: CheckResult) -> bool:
    return result.status == "failed"
