"""`mer-bench tune`: search a model's settings on dev, within a budget that is the same for every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mer_bench.cli.commands import Commands, refuse_misplaced
from mer_bench.cli.options import DataRoot, Debug, Json, LabelsId, Plugins, ProtocolId
from mer_bench.cli.run_options import (
    Device,
    FeaturesId,
    Modalities,
    Out,
    Threads,
    Track,
    TrackTo,
    parse_modalities,
)

if TYPE_CHECKING:
    import optuna

    from mer_bench.cli.console import Screen
    from mer_bench.runner import RunRequest
    from mer_bench.tuning.study import StudyPlan, TuneRequest

commands = typer.Typer(cls=Commands, invoke_without_command=True, rich_markup_mode=None)


@commands.callback()
def tune(
    context: typer.Context,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "--models", metavar="NAME[,NAME]", help="Which model, or several: one equal budget each."
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="NAME", help="Which dataset: mer-bench list datasets")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", metavar="N", min=1, help="Trials of the study, whoever does them.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=1, help="Seconds of work on the study.")
    ] = None,
    sampler: Annotated[
        str, typer.Option("--sampler", metavar="NAME", help="tpe, cmaes, random, grid, gp or nsga2.")
    ] = "tpe",
    pruner: Annotated[
        str | None, typer.Option("--pruner", metavar="NAME", help="median, hyperband, wilcoxon or none.")
    ] = None,
    seeds_per_trial: Annotated[
        int, typer.Option("--seeds-per-trial", metavar="N", min=1, help="A trial's score is the mean over N seeds.")
    ] = 1,
    space: Annotated[
        Path | None, typer.Option("--space", metavar="FILE", help="TOML file with narrower ranges.")
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option("--fix", metavar="KEY=VALUE", help="Fix a setting, which is then not searched; repeat for more."),
    ] = None,
    study: Annotated[
        str | None, typer.Option("--study", metavar="NAME", help="Name of the study; default: one made of its subject.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="WHERE",
            envvar="MER_BENCH_STORAGE",
            help="Where studies are kept: a SQLite file (default: DIR/studies.sqlite3), journal:FILE, "
            "postgresql://..., mysql://... or grpc://HOST:PORT.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option("--workers", metavar="N", min=1, help="Processes that share the study, the threads and the work."),
    ] = 1,
    stale_after: Annotated[
        float | None,
        typer.Option(
            "--stale-after",
            metavar="SECONDS",
            min=2,
            show_default=False,
            help="Run a trial again when its worker is silent for so long (default: 60); in a journal or over gRPC, "
            "when it began so long ago (default: 3600).",
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", metavar="N", min=0, help="Afterwards, run the best settings with the seeds 0 to N-1; 0: don't."
        ),
    ] = 5,
    labels: LabelsId = None,
    features: FeaturesId = None,
    protocol: ProtocolId = None,
    modalities: Modalities = None,
    out: Out = Path("runs"),
    device: Device = "auto",
    threads: Threads = None,
    plugins: Plugins = None,
    track: Track = None,
    track_to: TrackTo = Path("tracked"),
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Search a model's settings on dev, within one budget for every model; then run the best ones with several seeds.

    A trial trains with suggested settings and is scored on dev; test is never scored in a study. What is
    searched: mer-bench info MODEL --space. A study goes on where it was when the command is given again. The
    records of the best settings name the study and its budget.

    \b
    Examples:
      mer-bench tune --model cmath --dataset meld --trials 50
      mer-bench tune --models cmath,dialoguernn,mmgcn --dataset meld --timeout 1800 --fix mmgcn.layers=4
      mer-bench tune --model cmath --dataset meld --space narrower.toml --seeds-per-trial 3

    \b
    Exit codes:
      0 done, 1 no trial succeeded, 2 the request was wrong, 130 stopped by Ctrl-C
    """
    if context.invoked_subcommand is not None:
        refuse_misplaced(context)
        return
    from mer_bench.cli.console import Screen
    from mer_bench.cli.tune_best import run_best_settings
    from mer_bench.cli.tune_progress import TuneProgress
    from mer_bench.errors import RequestError
    from mer_bench.runner import RunRequest
    from mer_bench.trackers.catalogue import check_trackers
    from mer_bench.tuning.space import read_space_file
    from mer_bench.tuning.study import TuneRequest, plan_study
    from mer_bench.tuning.workers import tune as tune_study

    if not model or dataset is None:
        raise RequestError("a study needs --model and --dataset. See: mer-bench tune --help")
    check_trackers(track or [])
    names = model_names(model)
    run = RunRequest(
        model=names[0],
        dataset=dataset,
        labels=labels,
        features=features,
        protocol=protocol,
        modalities=parse_modalities(modalities),
        out=out,
        device=device,
        threads=threads,
        data_root=data_root,
    )
    request = TuneRequest(
        run=run,
        narrowed=read_space_file(space) if space else {},
        seeds_per_trial=seeds_per_trial,
        sampler=sampler,
        pruner=pruner,
        trials=USUAL_TRIALS if trials is None and timeout is None and sampler != "grid" else trials,
        timeout=timeout,
        study=study,
        storage=storage,
        workers=workers,
        stale_after=stale_after,
    )
    # All of them before any of them: the last model's mistyped setting should not wait for the first one's study.
    planned = [plan_study(each) for each in requests_of(request, names, fix or [])]
    screen = Screen(quiet_output=as_json)
    done, answers = [], []
    for each in planned:
        with TuneProgress(screen) as listener:
            study_done = tune_study(each, listener)
        show_best(screen, each, study_done)
        done.append(study_done)
        records = []
        if study_done.best_trials:
            records = run_best_settings(screen, study_done, each.plan.request, seeds, track or [], track_to)
        answers.append({**as_answer(study_done), "records": [record.model_dump(mode="json") for record in records]})
    if as_json:
        screen.answer(answers if len(names) > 1 else answers[0])
    _expect_success(done)


USUAL_TRIALS = 50


def model_names(text: str) -> list[str]:
    """`a,b,c` as names.

    Raises:
        RequestError: If a name is empty or stands twice.
    """
    from mer_bench.errors import RequestError

    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise RequestError(f"models are names with commas between them, as in cmath,mmgcn, but '{text}' was given.")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise RequestError(f"the model '{twice[0]}' stands twice in --models {text}.")
    return names


def requests_of(request: TuneRequest, names: Sequence[str], fix: Sequence[str]) -> list[TuneRequest]:
    """One request a model, alike but for what was fixed for one of them: `--fix mmgcn.layers=4`.

    Raises:
        RequestError: If a name or a fixed setting is wrong.
    """
    from mer_bench.config import merge_settings, parse_assignment

    found = []
    for name in names:
        run = replace(request.run, model=name)
        _planned(run, {})  # names first: a mistyped model should not be answered with a fault of its settings
        own = [text for text in fix if not _is_for_another(text, name, names)]
        fixed = {text: dict([parse_assignment(text.removeprefix(f"{name}."))]) for text in own}
        run = replace(run, settings=merge_settings(*fixed.values()))
        _planned(run, {key: text for text, each in fixed.items() for key in each})
        narrowed = dict(request.narrowed)
        for other in names:
            part = narrowed.pop(other, {})
            narrowed |= part if other == name else {}
        study = f"{request.study}.{name}" if request.study and len(names) > 1 else request.study
        found.append(replace(request, run=run, narrowed=narrowed, study=study))
    return found


def _is_for_another(text: str, name: str, names: Sequence[str]) -> bool:
    return any(text.startswith(f"{other}.") for other in names if other != name)


def _planned(run: RunRequest, origins: Mapping[str, str]) -> None:
    """Check a request; a faulty setting is blamed on the very words that were given."""
    from mer_bench.errors import SettingError, UnknownNameError
    from mer_bench.request import plan

    try:
        plan(run)
    except (SettingError, UnknownNameError) as error:
        key = error.given if isinstance(error, UnknownNameError) else str(error).partition(" ")[0]
        if key not in origins:
            raise
        text = str(error).replace("info MODEL", f"info {run.model}")
        error.args = (text.replace("from --set or --settings", f"from --fix {origins[key]}"),)
        raise


def show_best(screen: Screen, planned: StudyPlan, study: optuna.Study) -> None:
    """How many trials there are, and the best one beside the card's settings."""
    from mer_bench.cli.console import Column, percent

    counts = as_answer(study)["trials"]
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    screen.line(f"study {study.study_name}: {told}")
    best = study.best_trials
    if not best:
        return
    start = planned.space.start()
    if planned.weighs_cost:
        rows = [
            [str(each.number), percent(each.values[0]), f"{each.values[1]:.1f}"]
            for each in sorted(best, key=lambda each: -each.values[0])
        ]
        columns = [Column("trial", number=True), Column(f"dev {planned.plan.metric}", number=True)]
        screen.table(
            [*columns, Column("training seconds", number=True)], rows, title="no trial is better in both than these"
        )
        return
    chosen = best[0]
    # Not always the first: one whose worker was killed is run again under another number.
    of_card = [each.value for each in study.get_trials(deepcopy=False) if each.params == start]
    card = percent(next((value for value in of_card if value is not None), None))
    screen.line(f"best: trial {chosen.number}, dev {planned.plan.metric} {percent(chosen.value)} (the card's: {card})")
    screen.table(
        [Column("setting"), Column("card"), Column("best")],
        [[name, _text(start.get(name)), _text(value)] for name, value in chosen.params.items()],
    )


def _text(value: Any) -> str:
    from mer_bench.cli.info import default_text

    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else default_text(value)


def _expect_success(studies: Sequence[optuna.Study]) -> None:
    """Raises: RunError: If no trial of a study has a value."""
    from mer_bench.errors import RunError

    for study in studies:
        if not study.best_trials:
            trials = study.get_trials(deepcopy=False)
            reason = next(
                (each.user_attrs["reason"] for each in trials if "reason" in each.user_attrs), "none is over."
            )
            raise RunError(f"no trial of the study {study.study_name} succeeded; the first of them: {reason}")


def as_answer(study: optuna.Study) -> dict[str, Any]:
    """A study for programs."""
    from mer_bench.tuning.storages import once
    from mer_bench.tuning.study import ABOUT, BUDGET

    states = [trial.state.name.lower() for trial in once(study.get_trials(deepcopy=False))]
    return {
        "study": study.study_name,
        "about": study.user_attrs.get(ABOUT),
        "budget": study.user_attrs.get(BUDGET),
        "trials": {name: states.count(name) for name in ("complete", "pruned", "failed", "running", "waiting")}
        | {"failed": states.count("fail")},
        "best": [
            {"trial": trial.number, "values": trial.values, "settings": trial.user_attrs.get("settings", {})}
            for trial in study.best_trials
        ],
    }
