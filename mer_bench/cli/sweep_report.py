"""What `mer-bench sweep` says of its runs, before them, in place of them and after them; to people and to programs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer_bench.cli.console import Screen
    from mer_bench.records import Record
    from mer_bench.request import Plan
    from mer_bench.sweep.collecting import Collected
    from mer_bench.sweep.estimates import Estimates
    from mer_bench.sweep.runs import Sweep

SHOWN_RUNS = 200
"""How many lines a dry run prints on a terminal."""


def announce(screen: Screen, found: Sweep) -> None:
    """How many runs there are, which are recorded, and what was left out or is damaged."""
    for sentence in found.impossible:
        screen.line(f"left out: {sentence}", tone="quiet")
    for sentence in found.damaged:
        screen.warn(f"{sentence} It is run again.")
    there = f", {len(found.found)} recorded already" if found.found else ""
    aside = f", {len(found.set_aside)} that failed and are left alone" if found.set_aside else ""
    total = len(found.runs) + len(found.unknown)
    screen.line(f"{total} {'run' if total == 1 else 'runs'}{there}{aside}, {total - _over(found)} to do")


def _over(found: Sweep) -> int:
    return len(found.found) + len(found.set_aside)


def show_estimate(screen: Screen, found: Sweep, estimates: Estimates, workers: int) -> None:
    """One line on the time that is to come."""
    plans = [run.plan for run in found.left] + list(found.unknown)
    if plans:
        screen.line(_estimate_text(plans, estimates, workers), tone="quiet")


def _estimate_text(plans: Sequence[Plan], estimates: Estimates, workers: int) -> str:
    from mer_bench.cli.console import duration_text
    from mer_bench.sweep.estimates import time_to_go

    seconds = [estimates.seconds(plan) for plan in plans]
    known = [each for each in seconds if each is not None]
    models = sorted({plan.model for plan, each in zip(plans, seconds, strict=True) if each is None})
    missing = f"no earlier record tells how long {', '.join(models)} may take ({len(plans) - len(known)} runs)"
    if not known:
        return f"no estimate of time: {missing}"
    by = f" with {workers} workers" if workers > 1 else ""
    text = f"about {duration_text(time_to_go(known, workers))}{by}, by {estimates.count} earlier records"
    return f"{text}; without {len(models)} of the models: {missing}" if models else text


def show_dry(screen: Screen, found: Sweep, estimates: Estimates, workers: int) -> None:
    """A line a run, and how long all of them may take."""
    from mer_bench.cli.console import Column, duration_text

    rows = []
    runs: list[tuple[Plan, str]] = [(run.plan, _state(found, identity)) for identity, run in found.runs.items()]
    runs += [(plan, "data not prepared") for plan in found.unknown]
    for plan, state in runs:
        seconds = estimates.seconds(plan)
        rows.append(
            [
                plan.model,
                plan.features,
                plan.key.labels,
                plan.key.protocol,
                "+".join(plan.modalities),
                str(plan.request.seed),
                state,
                "no estimate" if seconds is None else duration_text(seconds),
            ]
        )
    names = ("model", "features", "labels", "protocol", "modalities")
    columns = [Column(name, narrow="end") for name in names]
    columns += [Column("seed", number=True), Column("state"), Column("time", number=True)]
    shown = rows[:SHOWN_RUNS] if screen.is_terminal else rows
    screen.table(columns, shown)
    if len(rows) > len(shown):
        screen.line(f"and {len(rows) - len(shown)} more", tone="quiet")
    show_estimate(screen, found, estimates, workers)
    screen.line("nothing was run (--dry-run)", tone="quiet")


def _state(found: Sweep, identity: str) -> str:
    return "recorded" if identity in found.found else "failed" if identity in found.set_aside else "to do"


def dry_answer(found: Sweep, estimates: Estimates, workers: int) -> dict[str, Any]:
    """The same for a program: the runs, and seconds; None where no record tells."""
    from mer_bench.sweep.estimates import time_to_go

    plans = [run.plan for run in found.left] + list(found.unknown)
    seconds = [estimates.seconds(plan) for plan in plans]
    runs = [
        {"run": run.recording.name, "identity": identity, "state": _state(found, identity), **_about(run.plan)}
        for identity, run in found.runs.items()
    ]
    runs += [{"run": None, "identity": None, "state": "data not prepared", **_about(plan)} for plan in found.unknown]
    return {
        "runs": [
            {**run, "seconds": estimates.seconds(plan)}
            for run, plan in zip(runs, [*(each.plan for each in found.runs.values()), *found.unknown], strict=True)
        ],
        "seconds": time_to_go([each for each in seconds if each is not None], workers),
        "without_estimate": seconds.count(None),
    }


def _about(plan: Plan) -> dict[str, Any]:
    return {
        "model": plan.model,
        "dataset": plan.dataset,
        "features": plan.features,
        "labels": plan.labels,
        "protocol": plan.protocol,
        "modalities": list(plan.modalities),
        "seed": plan.request.seed,
    }


def _records(collected: Collected) -> dict[str, Record]:
    """The records of the sweep's runs, in its order."""
    there = {**collected.sweep.found, **collected.done}
    return {identity: there[identity] for identity in collected.sweep.runs if identity in there}


def show(screen: Screen, collected: Collected) -> None:
    """One row for all the seeds of a model, and how many there are."""
    from mer_bench.cli.console import Column, percent
    from mer_bench.cli.run import mean, spread

    rows: dict[tuple[str, ...], list[float]] = defaultdict(list)
    lost: dict[tuple[str, ...], int] = defaultdict(int)
    records = _records(collected)
    for identity, run in collected.sweep.runs.items():
        plan = run.plan
        row = (plan.features, plan.key.labels, plan.key.protocol, "+".join(plan.modalities), plan.model)
        record = records.get(identity)
        rows[row] += [record.test.weighted_f1] if record and record.test else []
        lost[row] += record is None
    screen.line()
    screen.table(
        [
            *(Column(name, narrow="end") for name in ("features", "labels", "protocol", "modalities", "model")),
            Column("runs", number=True),
            Column("failed", number=True),
            Column("test weighted F1", number=True),
            Column("spread", number=True),
        ],
        [
            [*row, str(len(scores)), str(lost[row] or ""), percent(mean(scores)), percent(spread(scores))]
            for row, scores in rows.items()
        ],
        tones={index: "warning" for index, row in enumerate(rows) if lost[row]},
    )
    screen.exactly(f"records: {collected.sweep.request.run.out}")


def answer(collected: Collected) -> dict[str, Any]:
    """The same for a program, with a reason for each run that failed."""
    sweep = collected.sweep
    reasons = {**{key: (each.failure.reason if each.failure else "") for key, each in sweep.set_aside.items()}}
    reasons |= collected.failed
    records = _records(collected)
    return {
        "recorded_before": len(sweep.found),
        "done": len(collected.done),
        "failed": len(collected.failed),
        "left_alone": len(sweep.set_aside),
        "runs": [
            {
                "run": run.recording.name,
                "identity": identity,
                "status": "done" if identity in records else "failed",
                "weighted_f1": test.weighted_f1 if (test := _test(records.get(identity))) else None,
                "reason": reasons.get(identity),
                **_about(run.plan),
            }
            for identity, run in sweep.runs.items()
        ],
    }


def _test(record: Record | None) -> Any:
    return record.test if record else None
