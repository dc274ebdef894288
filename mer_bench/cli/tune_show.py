"""`mer-bench tune show` and `mer-bench tune export`: what came out of a study, and its best settings as a file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mer_bench.cli.options import Debug, Json

if TYPE_CHECKING:
    from mer_bench.cli.console import Screen
    from mer_bench.tuning.kept import KeptStudy

MOST_REASONS = 10
"""Lines of pruned and of failed trials that a screen shows; `--json` has them all."""

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="Its name: mer-bench tune show", show_default=False)]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="WHERE",
        help="Where studies are kept, as for tune; default: runs/studies.sqlite3.",
        show_default=False,
    ),
]


def show(
    study: Annotated[
        str | None,
        typer.Argument(metavar="[STUDY]", help="Its name; without one, all the names.", show_default=False),
    ] = None,
    storage: Storage = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with figures, for any browser.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="So many of the best trials.")] = 10,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what came out of a study: the best trials, what mattered, what was given up.

    \b
    Examples:
      mer-bench tune show
      mer-bench tune show cmath-meld
      mer-bench tune show cmath-meld --html cmath-meld.html
    """
    from mer_bench.cli.console import Screen
    from mer_bench.errors import RequestError
    from mer_bench.tuning.kept import find_study, study_names

    screen = Screen(quiet_output=as_json)
    if study is None:
        if html is not None:
            raise RequestError("--html makes a page about one study: name it. See: mer-bench tune show")
        names = study_names(storage)
        if as_json:
            screen.answer(names)
            return
        for name in names:
            screen.exactly(name)
        if not names:
            screen.line("There are no studies yet.")
        return
    kept = find_study(study, storage)
    if html is not None:
        from mer_bench.tuning.page import write_page

        write_page(kept, html)
    if as_json:
        from mer_bench.tuning.summary import summary

        screen.answer(summary(kept, top))
    else:
        show_study(screen, kept, top)
    if html is not None:
        screen.line()
        screen.exactly(f"page: {html}")


def export(
    study: StudyName,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="TOML file to write, for run --settings.", show_default=False)
    ],
    trial: Annotated[
        int | None,
        typer.Option("--trial", metavar="N", min=0, help="Of this trial; default: the best.", show_default=False),
    ] = None,
    storage: Storage = None,
    debug: Debug = False,
) -> None:
    """Write the best settings of a study to a file that `run --settings` reads.

    \b
    Example:
      mer-bench tune export cmath-meld --out cmath-meld.toml
      mer-bench run --model cmath --dataset meld --settings cmath-meld.toml
    """
    from mer_bench.atomic import storage_errors, write_atomically
    from mer_bench.cli.console import Screen
    from mer_bench.tuning.best import export_text, run_command
    from mer_bench.tuning.kept import find_study

    kept = find_study(study, storage)
    chosen = kept.best() if trial is None else kept.complete_trial(trial)
    text = export_text(kept, chosen)
    with storage_errors(f"write the settings to {out}"):
        write_atomically(out, text.encode("utf-8"))
    screen = Screen()
    screen.exactly(f"wrote {out}: settings of trial {chosen.number} of {kept.name}")
    screen.exactly(run_command(kept, shlex.quote(str(out))))


def show_study(screen: Screen, kept: KeptStudy, top: int) -> None:
    """A study on a screen."""
    screen.pairs(facts(kept), title=f"study {kept.name}")
    if kept.ranked:
        _show_best(screen, kept, top)
        _show_settings(screen, kept)
    _show_reasons(screen, kept)


def facts(kept: KeptStudy) -> list[tuple[str, str]]:
    """Names and values: what a study is about and how far it got."""
    from mer_bench.cli.console import duration_text
    from mer_bench.tuning.summary import budget_text, counts_text, settings_line
    from mer_bench.tuning.workers import seconds_worked

    about = kept.about
    pairs = [
        ("model", f"{about['model']}, version {about['model_version']}"),
        ("data", f"{about['features']}, labels {about['labels']}, {'+'.join(about['modalities'])}"),
        ("protocol", f"{about['protocol']}, version {about['protocol_version']}; test is never scored in a study"),
        ("score", _score_text(kept)),
        ("sampler, pruner", f"{about['sampler']}, {about['pruner']}"),
        ("budget", budget_text(kept)),
        ("trials", counts_text(kept)),
        ("work", duration_text(seconds_worked(kept.study))),
    ]
    if about["fixed"]:
        pairs.append(("fixed", settings_line(about["fixed"])))
    return pairs


def _score_text(kept: KeptStudy) -> str:
    about = kept.about
    seeds = about["seeds"]
    of = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean over the seeds {', '.join(map(str, seeds))}"
    cost = ", against the seconds of training" if kept.weighs_cost else ""
    return f"{about['metric']} on dev, in percent, {of}{cost}"


def _show_best(screen: Screen, kept: KeptStudy, top: int) -> None:
    from mer_bench.cli.console import Column, duration_text, percent
    from mer_bench.tuning.kept import seconds_of
    from mer_bench.tuning.summary import searched_of, settings_line

    shown = kept.ranked[:top]
    front = {trial.number for trial in kept.front}
    start = kept.start
    rows = [
        [
            str(trial.number),
            percent(trial.values[0]),
            duration_text(seconds_of(trial)),
            str(trial.user_attrs.get("epochs", "-")),
            _count_text(trial.user_attrs.get("parameters")),
            "yes" if trial.number in front else "",
            "start" if start and trial.number == start.number else settings_line(searched_of(trial, kept)),
        ]
        for trial in shown
    ]
    screen.line()
    screen.table(
        [
            Column("trial", number=True),
            Column("dev", number=True),
            Column("time", number=True),
            Column("epochs", number=True),
            Column("parameters", number=True),
            Column("front"),
            Column("settings", narrow="end"),
        ],
        rows,
        title=f"best {len(shown)} of {len(kept.ranked)} complete trials",
        tones={0: "good"},
    )
    screen.line(
        "front: no trial is both better and faster; start: the settings that the study began with", tone="quiet"
    )


def _show_settings(screen: Screen, kept: KeptStudy) -> None:
    from mer_bench.cli.console import Column, percent
    from mer_bench.tuning.summary import importances_of, range_text, searched_of, value_text

    best = kept.best()
    chosen = searched_of(best, kept)
    importances = importances_of(kept)
    order = [*importances.shares, *(name for name in kept.about["space"] if name not in importances.shares)]
    rows = [
        [
            name,
            value_text(told["start"]),
            value_text(chosen[name]) if name in chosen else "-",
            percent(importances.shares.get(name)),
            range_text(told),
        ]
        for name, told in ((name, kept.about["space"][name]) for name in order if name in kept.about["space"])
    ]
    screen.line()
    screen.table(
        [
            Column("setting"),
            Column("start", number=True),
            Column("best", number=True),
            Column("importance", number=True),
            Column("searched", narrow="wrap"),
        ],
        rows,
        title=f"settings of trial {best.number}{_gain_text(kept)}",
    )
    if importances.reason:
        screen.line(f"no importances: {importances.reason}", tone="quiet")
    else:
        screen.line(
            "importance: share in percent of what sets the best trials apart from the others (PED-ANOVA)", tone="quiet"
        )


def _gain_text(kept: KeptStudy) -> str:
    best, start = kept.best(), kept.start
    if start is None or not start.values or start.number == best.number:
        return ""
    gain = 100 * (best.values[0] - start.values[0])
    return f", {gain:+.2f} on dev against the start (trial {start.number}: {100 * start.values[0]:.2f})"


def _show_reasons(screen: Screen, kept: KeptStudy) -> None:
    from optuna.trial import TrialState

    from mer_bench.cli.console import Column
    from mer_bench.tuning.summary import reason_of, searched_of, settings_line

    for state, word in ((TrialState.PRUNED, "pruned"), (TrialState.FAIL, "failed")):
        trials = kept.in_state(state)
        if not trials:
            continue
        rows: list[list[str]] = [
            [str(trial.number), reason_of(trial, kept), settings_line(searched_of(trial, kept))]
            for trial in trials[:MOST_REASONS]
        ]
        screen.line()
        screen.table(
            [Column("trial", number=True), Column("why", narrow="wrap"), Column("settings", narrow="end")],
            rows,
            title=f"{word}: {len(trials)} of {len(kept.trials)} trials",
        )
        if len(trials) > MOST_REASONS:
            screen.line(f"and {len(trials) - MOST_REASONS} more: --json has them all", tone="quiet")


def _count_text(count: Any) -> str:
    return f"{count:,}".replace(",", " ") if isinstance(count, int) else "-"
