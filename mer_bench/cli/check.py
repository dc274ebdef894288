"""`mer-bench check`: the conformance checks on one plugin."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from typing import Annotated

import typer

from mer_bench.cli.options import DataRoot, Debug, Json


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model or a dataset.")],
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the conformance checks on a model or dataset.

    \b
    Example:
      mer-bench check cmath

    \b
    Exit codes:
      0 all passed or excused, 1 a check failed, 2 there is no such plugin
    """
    from mer_bench import testing
    from mer_bench.cli.console import Bar, Column, Screen, Tone, duration_text
    from mer_bench.cli.names import find_plugin
    from mer_bench.errors import RunError

    find_plugin(name, data_root)
    screen = Screen(quiet_output=as_json)
    screen.line(f"checking {name}", tone="quiet")
    results = []
    with Bar(screen, 0) if screen.is_terminal else nullcontext() as bar:
        for result in testing.iterate_checks(name, data_root):
            results.append(result)
            if bar:
                bar.show(f"{len(results)} done", result.name)
    failed = [result for result in results if result.status == "failed"]
    if as_json:
        screen.answer({"name": name, "passed": not failed, "checks": [asdict(result) for result in results]})
    else:
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
    if failed:
        raise RunError(
            f"{name} failed {len(failed)} of {len(results)} checks: {', '.join(each.name for each in failed)}."
        )
    excused = sum(result.status == "excused" for result in results)
    also = f", {excused} excused" if excused else ""
    screen.line(f"{name} passed {len(results) - excused} of {len(results)} checks{also}", tone="good")
