"""`mer-bench doctor`: what works here, and what to do about what does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mer_bench.cli.options import DataRoot, Debug, Json
from mer_bench.cli.run_options import Out

if TYPE_CHECKING:
    from mer_bench.cli.console import Screen, Tone
    from mer_bench.doctor import Finding, State


def doctor(
    *,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Read all data and compare them by checksum; takes longer.")
    ] = False,
    out: Out = Path("runs"),
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Look at versions, devices, threads, data, folders, clock, disk and memory.

    Each line is ok, a note (it works, but you should know) or a fault, with what to do about it. Nothing is changed.

    \b
    Example:
      mer-bench doctor

    \b
    Exit codes:
      0 no fault, 1 a fault
    """
    from mer_bench.cli.console import Screen
    from mer_bench.doctor import examine, worst
    from mer_bench.locations import data_root as data_root_of

    screen = Screen(quiet_output=as_json)
    findings = examine(data_root_of(data_root), out, thorough)
    if as_json:
        screen.answer({"state": worst(findings), "findings": [asdict(each) for each in findings]})
    else:
        _show(screen, findings)
    if worst(findings) == "fault":
        raise typer.Exit(1)


def _show(screen: Screen, findings: Sequence[Finding]) -> None:
    from mer_bench.cli.console import Column

    tones: dict[State, Tone] = {"ok": "plain", "note": "warning", "fault": "bad"}
    rows: list[list[str]] = []
    tone_of: dict[int, Tone] = {}
    for each in findings:
        tone_of[len(rows)] = tones[each.state]
        advice = f"\n→ {each.advice}" if each.advice else ""
        rows.append([each.state, each.topic, each.subject, f"{each.found}{advice}"])
    screen.table([Column(""), Column("part"), Column("what"), Column("found", narrow="wrap")], rows, tones=tone_of)
    counts = {state: sum(each.state == state for each in findings) for state in tones}
    told = ", ".join(
        f"{count} {state}{'s' if count > 1 else ''}" for state, count in counts.items() if state != "ok" and count
    )
    screen.line()
    screen.line(told or "nothing is wrong", tone="bad" if counts["fault"] else "warning" if told else "good")
