"""`mer-bench tune`: search a model's settings on dev, within a budget that is the same for every model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mer_bench.cli.commands import Commands
from mer_bench.cli.options import DataRoot, Debug, Json, LabelsId, Plugins, ProtocolId
from mer_bench.cli.run_options import (
    Device,
    FeaturesId,
    Modalities,
    Out,
    Threads,
    parse_modalities,
)

if TYPE_CHECKING:
    import optuna

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
        typer.Option("--storage", metavar="WHERE", help="Where studies are kept; default: DIR/studies.sqlite3."),
    ] = None,
    labels: LabelsId = None,
    features: FeaturesId = None,
    protocol: ProtocolId = None,
    modalities: Modalities = None,
    out: Out = Path("runs"),
    device: Device = "auto",
    threads: Threads = None,
    plugins: Plugins = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Search a model's settings on dev; test is never scored.

    \b
    Examples:
      mer-bench tune --model cmath --dataset meld --trials 50
      mer-bench tune --models cmath,mmgcn --dataset meld --timeout 1800
    """
    if context.invoked_subcommand is not None:
        return
    from mer_bench.cli.console import Screen
    from mer_bench.cli.tune_progress import TuneProgress
    from mer_bench.config import parse_assignment
    from mer_bench.errors import RequestError
    from mer_bench.runner import RunRequest
    from mer_bench.tuning.space import read_space_file
    from mer_bench.tuning.study import TuneRequest, plan_study
    from mer_bench.tuning.workers import tune as tune_study

    if model is None or dataset is None:
        raise RequestError("a study needs --model and --dataset. See: mer-bench tune --help")
    screen = Screen(quiet_output=as_json)
    run = RunRequest(
        model=model,
        dataset=dataset,
        labels=labels,
        features=features,
        protocol=protocol,
        modalities=parse_modalities(modalities),
        settings=dict(parse_assignment(text) for text in fix or []),
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
        trials=50 if trials is None and timeout is None else trials,
        timeout=timeout,
        study=study,
        storage=storage,
    )
    planned = [plan_study(replace(request, run=replace(run, model=name))) for name in model.split(",")]
    answers = []
    for each in planned:
        with TuneProgress(screen) as listener:
            done = tune_study(each, listener)
        answers.append(as_answer(done))
    if as_json:
        screen.answer(answers[0] if len(answers) == 1 else answers)


def as_answer(study: optuna.Study) -> dict[str, Any]:
    """A study for programs."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    return {
        "study": study.study_name,
        "trials": {state.name.lower(): sum(trial.state == state for trial in trials) for state in TrialState},
        "best": [
            {"trial": trial.number, "values": trial.values, "settings": trial.user_attrs.get("settings", {})}
            for trial in study.best_trials
        ],
    }
