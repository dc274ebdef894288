"""`mer-bench sweep`: models × datasets × modalities × seeds, on this machine, on a cluster, and never twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mer_bench.cli.options import DataRoot, Debug, Json, Plugins
from mer_bench.cli.run_options import Device, Out

if TYPE_CHECKING:
    from mer_bench.sweep.collecting import Collected
    from mer_bench.sweep.places import Place
    from mer_bench.sweep.planning import Part
    from mer_bench.sweep.runs import Sweep


def sweep(
    *,
    models: Annotated[
        str | None, typer.Option("--models", metavar="A,B", help="Names, with commas between them.", show_default=False)
    ] = None,
    datasets: Annotated[
        str | None, typer.Option("--datasets", metavar="X,Y", help="Names of datasets.", show_default=False)
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", metavar="N|LIST", help="How many, from 0 (10), or which (0,3,7).", show_default="1"),
    ] = None,
    modalities: Annotated[
        list[str] | None,
        typer.Option(
            "--modalities",
            metavar="LIST",
            help="A combination, such as text,audio; repeat for more. Default: the feature set's.",
            show_default=False,
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            metavar="IDS",
            help="Feature sets; a full id (meld/mmgcn) is for that dataset alone.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="IDS", help="Label sets, likewise.", show_default=False)
    ] = None,
    protocols: Annotated[
        str | None, typer.Option("--protocols", metavar="IDS", help="Protocols, likewise.", show_default=False)
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a field of every model or trainer, or of one (MODEL.KEY=VALUE); repeat for more.",
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="All of the above from a TOML file.", show_default=False),
    ] = None,
    out: Out = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs and the time they may take.")] = False,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(
            "--earlier", metavar="DIR", help="More records to reckon time from; repeat for more.", show_default=False
        ),
    ] = None,
    skip_impossible: Annotated[
        bool, typer.Option("--skip-impossible", help="Leave out combinations that a model cannot do.")
    ] = False,
    skip_failed: Annotated[
        bool, typer.Option("--skip-failed", help="Leave runs alone whose record says that they failed.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N",
            min=1,
            help="Worker processes, or jobs of a queue; default: this process.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", metavar="N", min=1, help="CPU threads of a run; default: its share.", show_default=False
        ),
    ] = None,
    device: Device = "auto",
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler", metavar="URL", help="A Dask scheduler's workers: tcp://host:8786", show_default=False
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait for a scheduler that is gone.")
    ] = 600.0,
    slurm: Annotated[bool, typer.Option("--slurm", help="The same as --queue slurm.")] = False,
    queue: Annotated[
        Literal["slurm", "pbs", "lsf", "sge"] | None,
        typer.Option("--queue", help="Jobs of a queue as workers.", show_default=False),
    ] = None,
    partition: Annotated[
        str | None, typer.Option("--partition", metavar="NAME", help="Of the queue.", show_default=False)
    ] = None,
    job_time: Annotated[
        str, typer.Option("--time", metavar="TIME", help="Longest time of a job, as the queue writes it.")
    ] = "4:00:00",
    memory: Annotated[str, typer.Option("--memory", metavar="SIZE", help="Of a job.")] = "8GB",
    gpus: Annotated[int, typer.Option("--gpus", metavar="N", min=0, max=1, help="Of a job: 0 or 1.")] = 0,
    keep_predictions: Annotated[
        bool,
        typer.Option(
            "--keep-predictions",
            help="Where the corpus forbids to pass on labels of utterances: write them too, to a .private.npz.",
        ),
    ] = False,
    plugins: Plugins = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run many models on many datasets; what is recorded already is not run again.

    \b
    Examples:
      mer-bench sweep --models cmath,dialoguernn --datasets meld,emorynlp --seeds 10 --jobs 4
      mer-bench sweep --plan table2.toml --dry-run --earlier leaderboards/records
      mer-bench sweep --plan table2.toml --scheduler tcp://head:8786
      mer-bench sweep --plan table2.toml --slurm --partition gpu --time 8:00:00 --gpus 1 --jobs 16

    \b
    Exit codes:
      0 done, 1 some runs failed, 2 the request was wrong, 75 stopped and saved: the same command goes on
    """
    from mer_bench.cli.console import Screen
    from mer_bench.cli.stopping import StopSignals
    from mer_bench.cli.sweep_progress import SweepProgress
    from mer_bench.cli.sweep_report import announce, answer, dry_answer, show, show_dry, show_estimate
    from mer_bench.errors import RunError, StoppedError
    from mer_bench.request import RunRequest
    from mer_bench.sweep.collecting import Collected
    from mer_bench.sweep.estimates import read_estimates
    from mer_bench.sweep.listening import SweepListener
    from mer_bench.sweep.planning import SweepRequest, plan_sweep
    from mer_bench.sweep.runs import survey

    given = {
        "models": _names("--models", models),
        "datasets": _names("--datasets", datasets),
        "features": _names("--features", features),
        "labels": _names("--labels", labels),
        "protocols": _names("--protocols", protocols),
        "modalities": list(modalities or []) or None,
        "seeds": _seeds(seeds),
        "settings": _settings(assignments or [], _names("--models", models) or []) or None,
    }
    parts = (_part_of_options(given),) if plan is None else _parts_of_plan(plan, given)
    place = _place(scheduler, "slurm" if slurm and queue is None else queue, slurm, jobs, threads, out)
    place = _of_queue(place, partition, job_time, memory, gpus)
    run = RunRequest(
        model="",
        dataset="",
        out=out,
        device=device,
        threads=_threads(place, threads, device, dry_run),
        data_root=data_root,
        keep_predictions=keep_predictions,
    )
    request = SweepRequest(parts, run, skip_impossible, skip_failed, tuple(earlier or ()))
    planned = plan_sweep(request)
    screen = Screen(quiet_output=as_json)
    estimates = read_estimates([out, *request.earlier])
    signals = StopSignals()
    progress = SweepProgress(screen, estimates, signals)
    found = survey(request, planned, progress.preparing, dry=dry_run)
    announce(screen, found)
    if dry_run:
        show_dry(screen, found, estimates, _workers(place))
        if as_json:
            screen.answer(dry_answer(found, estimates, _workers(place)))
        return
    show_estimate(screen, found, estimates, _workers(place))
    try:
        with signals, progress:
            collected = _work(found, place, progress, wait, device)
    except (KeyboardInterrupt, StoppedError) as stop:
        if isinstance(stop, StoppedError) and not signals.wanted:
            raise  # the scheduler stays away
        late = Collected(found, SweepListener())  # with what workers wrote that nobody has heard of yet
        late.look_for_all()
        saved = len(found.found) + len(late.done)
        raise StoppedError(
            f"stopped; {saved} of {len(found.runs)} runs are saved in {out}, and the same command goes on."
        ) from None
    show(screen, collected)
    if as_json:
        screen.answer(answer(collected))
    if collected.failed:
        first = next(iter(collected.failed.values()))
        raise RunError(
            f"{len(collected.failed)} of {len(found.runs)} runs failed; the first of them: {first} The others are "
            "recorded, and the same command tries these again."
        )


def _names(option: str, text: str | None) -> list[str] | None:
    from mer_bench.errors import RequestError

    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise RequestError(f"{option} takes names with commas between them, but '{text}' was given.")
    return names


def _seeds(text: str | None) -> int | list[int] | None:
    from mer_bench.errors import RequestError

    if text is None:
        return None
    try:
        numbers = [int(each) for each in text.split(",") if each.strip() or "," not in text]
    except ValueError:
        raise RequestError(f"--seeds takes how many (10) or which (0,3,7), but '{text}' was given.") from None
    return numbers if "," in text else numbers[0]


def _settings(assignments: Sequence[str], models: Sequence[str]) -> dict[str, Any]:
    """`--set KEY=VALUE` for all models, `--set MODEL.KEY=VALUE` for one of them."""
    from mer_bench.config import parse_assignment

    found: dict[str, Any] = {}
    for text in assignments:
        name, value = parse_assignment(text)
        model = next((each for each in models if name.startswith(f"{each}.")), None)
        if model is None:
            found[name] = value
        else:
            found.setdefault(model, {})[name.removeprefix(f"{model}.")] = value
    return found


def _part_of_options(given: dict[str, Any]) -> Part:
    from mer_bench.errors import RequestError
    from mer_bench.sweep.planning import parse_part

    if given["models"] is None or given["datasets"] is None:
        raise RequestError("a sweep needs --models and --datasets, or --plan FILE. See: mer-bench sweep --help")
    return parse_part({name: value for name, value in given.items() if value is not None}, "options")


def _parts_of_plan(plan: Path, given: dict[str, Any]) -> tuple[Part, ...]:
    """What a plan says; refused where options say what it is there to say."""
    from mer_bench.errors import RequestError
    from mer_bench.sweep.planning import read_plan_file

    for name, value in given.items():
        if value is not None:
            option = "--set" if name == "settings" else f"--{name}"
            raise RequestError(f"the plan {plan} says what is run; write there what {option} says.")
    return read_plan_file(plan)


def _place(
    scheduler: str | None, queue: str | None, slurm: bool, jobs: int | None, threads: int | None, out: Path
) -> Place | None:
    """Where the runs are done; None: in this process."""
    from mer_bench.errors import RequestError
    from mer_bench.sweep.places import Jobs, Queue, Scheduler

    if slurm and queue != "slurm":
        raise RequestError(f"--slurm and --queue {queue} are two queues; give one of the two.")
    if scheduler is not None:
        if queue or jobs:
            other = "--queue" if queue else "--jobs"
            raise RequestError(f"the scheduler {scheduler} has workers of its own, so that {other} says nothing to it.")
        if not scheduler.startswith(("tcp://", "tls://")):
            raise RequestError(f"a scheduler is given as tcp://host:port, but '{scheduler}' was given.")
        return Scheduler(scheduler)
    if queue:
        return Queue(queue, None, "", "", 0, jobs or 1, threads or 1, out / ".queue-logs")
    return Jobs(jobs) if jobs else None


def _of_queue(place: Place | None, partition: str | None, time: str, memory: str, gpus: int) -> Place | None:
    from mer_bench.errors import RequestError
    from mer_bench.sweep.places import Queue

    if isinstance(place, Queue):
        return replace(place, partition=partition, time=time, memory=memory, gpus=gpus)
    if partition is not None or gpus:
        option = "--gpus" if partition is None else "--partition"
        raise RequestError(f"{option} is for jobs of a queue: give --slurm or --queue too.")
    return place


def _threads(place: Place | None, threads: int | None, device: str, dry_run: bool) -> int | None:
    """Threads of a run, decided here, so that every worker takes as many."""
    from mer_bench.sweep.places import Jobs, check_devices, check_installed, share

    if place is None or dry_run:
        return threads
    check_installed(place)
    if isinstance(place, Jobs):
        check_devices(place.count, device)
        return share(threads, place.count)
    return threads or 1


def _workers(place: Place | None) -> int:
    from mer_bench.sweep.places import Scheduler

    return 1 if place is None or isinstance(place, Scheduler) else place.count


def _work(found: Sweep, place: Place | None, progress: Any, wait: float, device: str) -> Collected:
    from mer_bench.sweep.collecting import Collected

    if not found.left:
        return Collected(found, progress)
    if place is None:
        from mer_bench.sweep.serial import work_here

        return work_here(found, progress)
    from mer_bench.sweep.cluster import work_elsewhere
    from mer_bench.sweep.places import opened

    with opened(place, device) as (connect, workers):
        return work_elsewhere(found, connect, progress, workers, wait)
