"""`mer-bench ablate`: what a model's parts and its modalities are worth, in three tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mer_bench.cli.options import DataRoot, Debug, Json, LabelsId, Plugins, ProtocolId
from mer_bench.cli.run_options import (
    Assignments,
    DatasetName,
    Device,
    FeaturesId,
    Modalities,
    ModelName,
    Out,
    Seed,
    Seeds,
    SettingsFile,
    Threads,
    given_settings,
    parse_modalities,
    planned,
)

if TYPE_CHECKING:
    from mer_bench.ablation import Ablation, Mean, Row, Table
    from mer_bench.cli.console import Screen, Tone

TITLES = {
    "modalities": "trained on some of the modalities",
    "missing": "trained on all modalities, tested without some",
    "settings": "trained with one part changed",
}
FIRST_COLUMN = {"modalities": "modalities", "missing": "given", "settings": "ablation"}


def ablate(
    *,
    model: ModelName,
    dataset: DatasetName,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="TABLE", help="modalities, missing or settings; repeat for more; default: all three."
        ),
    ] = None,
    labels: LabelsId = None,
    features: FeaturesId = None,
    protocol: ProtocolId = None,
    modalities: Modalities = None,
    seed: Seed = None,
    seeds: Seeds = None,
    assignments: Assignments = None,
    settings: SettingsFile = None,
    out: Out = Path("runs"),
    device: Device = "auto",
    threads: Threads = None,
    plugins: Plugins = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a model without its parts and modalities, and test it with modalities missing.

    \b
    Three tables, each compared with the whole model and none with another:
      modalities  trained from scratch on every subset of the modalities
      missing     trained on all of them; test scored on every subset, and with random ones missing
      settings    each ablation of the model's card, trained from scratch

    Every run is a record. Those that are there already are not run again, so that what was stopped
    goes on when it is started again.

    \b
    Examples:
      mer-bench ablate --model latefusion --dataset meld --seeds 5
      mer-bench ablate --model mmgcn --dataset iemocap --only missing

    \b
    Exit codes:
      0 done, 1 a run failed, 2 the request was wrong, 130 stopped by Ctrl-C
    """
    from mer_bench import ablation, runner
    from mer_bench.ablation.experiment import chosen_tables, seeds_from
    from mer_bench.cli.ablation_progress import AblationProgress
    from mer_bench.cli.console import Screen
    from mer_bench.errors import RunError

    chosen, numbers = chosen_tables(only), seeds_from(seed, seeds)
    request = runner.RunRequest(
        model=model,
        dataset=dataset,
        labels=labels,
        features=features,
        protocol=protocol,
        modalities=parse_modalities(modalities),
        seed=numbers[0],
        out=out,
        device=device,
        threads=threads,
        data_root=data_root,
    )
    # Names first: a mistyped model should not be answered with a fault of its settings.
    runner.plan(request)
    request = replace(request, settings=given_settings(request, settings, assignments or []))
    planned(request, settings, assignments or [])
    screen = Screen(quiet_output=as_json)
    with AblationProgress(screen) as listener:
        found = ablation.ablate(ablation.AblationRequest(request, numbers, chosen), listener)
    if as_json:
        screen.answer(as_answer(found))
    else:
        show(screen, found)
        screen.line()
        screen.exactly(f"records: {out / found.plan.dataset / found.plan.model}")
    if found.failed:
        first = found.failed[0]
        raise RunError(
            f"{len(found.failed)} {'run' if len(found.failed) == 1 else 'runs'} failed, the first of them "
            f"{first.name} with seed {first.seed}: {first.error}"
        )


def show(screen: Screen, found: Ablation) -> None:
    """The tables, one after the other, and what their columns say."""
    for table in found.tables.values():
        _show_table(screen, found, table)
    if not any(table.rows for table in found.tables.values()):
        return
    screen.line()
    several = len(found.seeds) > 1
    legend = [
        f"weighted F1 in percent{', mean ± standard deviation over the seeds' if several else ''}; "
        "the epoch is chosen on dev in its complete form",
        "change: from the whole model on test, with its 95 % interval (paired bootstrap over dialogues)",
        "p: with Holm's correction over the rows of the table",
    ]
    if "missing" in found.tables:
        legend.insert(1, "masks ±: standard deviation over the random masks of a rate")
    if not several:
        legend.append("one seed: nothing shows how another one would do; --seeds 5 tells more")
    for line in legend:
        screen.line(line, tone="quiet")


def _show_table(screen: Screen, found: Ablation, table: Table) -> None:
    from mer_bench.cli.console import Column

    plan = found.plan
    screen.line()
    seeds = f"{len(found.seeds)} seeds" if len(found.seeds) > 1 else f"seed {found.seeds[0]}"
    title = (
        f"{plan.model} on {plan.features}, {plan.key.labels}, protocol {plan.key.protocol}, {seeds}: "
        f"{TITLES[table.name]}"
    )
    if table.rows:
        scores = ("test", "masks ±") if table.name == "missing" else ("dev", "test")
        screen.table(
            [
                Column(FIRST_COLUMN[table.name], narrow="wrap"),
                *(Column(name, number=True) for name in (*scores, "change", "95 %", "p")),
            ],
            [_cells(table, row, found) for row in (table.whole, *table.rows)],
            title=title,
            tones={row: _tone(each) for row, each in enumerate(table.rows, 1)},
        )
    else:
        screen.line(title)
    _show_notes(screen, found, table)


def _show_notes(screen: Screen, found: Ablation, table: Table) -> None:
    """What is not in the table, and what its rows ask."""
    short = [row for row in table.rows if row.reached is not None and _rate(row) - row.reached > 0.005]
    for row in short:
        screen.line(
            f"{_shown_name(row)}: {100 * (row.reached or 0):.1f} % were missing, the most that can be, since one "
            "modality of each utterance stays.",
            tone="quiet",
        )
    for note in table.notes:
        screen.line(note, tone="quiet")
    questions = [(row.name, row.question) for row in table.rows if row.question]
    if questions:
        screen.line()
        screen.pairs(questions)
    missed = [_shown_name(row) for row in table.rows if len(row.seeds) < len(found.seeds)]
    if missed:
        screen.line(f"without the seeds that failed: {', '.join(missed)}", tone="warning")


def _cells(table: Table, row: Row, found: Ablation) -> list[str]:
    if row is table.whole:
        name = {"modalities": "+".join(found.plan.modalities), "missing": "everything"}.get(table.name, "whole")
    else:
        name = _shown_name(row)
    if table.name == "missing":
        scores = [_mean(row.test), "" if row.between_masks is None else f"{100 * row.between_masks:.2f}"]
    else:
        scores = [_mean(row.dev), _mean(row.test)]
    if row is table.whole:
        return [name, *scores, "", "", ""]
    if row.difference is None:
        return [name, *scores, f"{100 * (row.test.mean - table.whole.test.mean):+.2f}", "-", "-"]
    told = row.difference
    interval = f"{100 * told.low:+.2f} to {100 * told.high:+.2f}"
    return [name, *scores, f"{100 * told.difference:+.2f}", interval, _p(row.p_value)]


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _rate(row: Row) -> float:
    condition = row.runs[0][0].test_condition
    return (condition.rate or 0.0) if condition else 0.0


def _shown_name(row: Row) -> str:
    """`text+audio`, `random 0.3`, `no-speakers`."""
    condition = row.runs[0][0].test_condition
    if condition is None:
        return row.name
    if condition.rate is not None:
        return f"random {condition.rate:g}"
    return "+".join(condition.present)


def _mean(mean: Mean) -> str:
    return f"{100 * mean.mean:.2f}" + (f" ± {100 * mean.spread:.2f}" if mean.spread is not None else "")


def _tone(row: Row) -> Tone:
    """Whether the difference can be told from chance, and where it points."""
    if row.difference is None or row.p_value is None or row.p_value >= 0.05:
        return "plain"
    return "good" if row.difference.difference > 0 else "bad"


def as_answer(found: Ablation) -> dict[str, Any]:
    """The same for programs: every row with the names of its records."""
    plan = found.plan
    return {
        "model": plan.model,
        "dataset": plan.dataset,
        "labels": plan.labels,
        "features": plan.features,
        "protocol": plan.protocol,
        "modalities": list(plan.modalities),
        "synthetic": plan.synthetic,
        "seeds": list(found.seeds),
        "tables": {
            name: {
                "whole": _row_answer(table.whole),
                "rows": [_row_answer(row) for row in table.rows],
                "notes": list(table.notes),
            }
            for name, table in found.tables.items()
        },
        "failed": [{"name": each.name, "seed": each.seed, "reason": str(each.error)} for each in found.failed],
    }


def _row_answer(row: Row) -> dict[str, Any]:
    from dataclasses import asdict

    told: dict[str, Any] = {"name": row.name, "seeds": list(row.seeds)}
    if row.question:
        told |= {"question": row.question, "settings": row.changes}
    condition = row.runs[0][0].test_condition
    if condition:
        told |= {"present": list(condition.present), "rate": condition.rate, "reached": row.reached}
    told |= {"dev_weighted_f1": _mean_answer(row.dev), "test_weighted_f1": _mean_answer(row.test)}
    if row.between_masks is not None:
        told["between_masks"] = row.between_masks
    if row.difference:
        told["difference"] = asdict(row.difference) | {"adjusted_p_value": row.p_value}
    return told | {"records": [record.run for run in row.runs for record in run]}


def _mean_answer(mean: Mean) -> dict[str, Any]:
    each: Sequence[float] = mean.each
    return {"mean": mean.mean, "spread": mean.spread, "each": list(each)}
