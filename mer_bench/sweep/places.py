"""Where Dask's workers are: processes of this machine, jobs of a queue, or whoever joined a scheduler."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_bench.errors import RequestError, RunError

if TYPE_CHECKING:
    from distributed import Client

QUEUES = {
    "slurm": ("SLURMCluster", "sbatch"),
    "pbs": ("PBSCluster", "qsub"),
    "lsf": ("LSFCluster", "bsub"),
    "sge": ("SGECluster", "qsub"),
}
"""Of each queue dask-jobqueue's class, and the program that hands in a job."""

Connect = Callable[[float], "Client"]
"""Connects to the scheduler within so many seconds; raises OSError where it is not there."""


@dataclass(frozen=True)
class Jobs:
    """Processes of this machine."""

    count: int


@dataclass(frozen=True)
class Scheduler:
    """A scheduler that others started, as `tcp://host:port`."""

    address: str


@dataclass(frozen=True)
class Queue:
    """Jobs of a queue, each of them one worker.

    Attributes:
        kind: `slurm`, `pbs`, `lsf` or `sge`.
        partition: Or queue, as the system calls it; None: its usual one.
        time: Longest time of a job, as the queue writes it: `4:00:00`.
        memory: Of a job: `8GB`. gpus: Of a job: 0 or 1.
        count: How many jobs.
        threads: CPU cores of a job, all for the one run that it does at a time.
        logs: Folder of what the jobs print.
    """

    kind: str
    partition: str | None
    time: str
    memory: str
    gpus: int
    count: int
    threads: int
    logs: Path


Place = Jobs | Scheduler | Queue


def check_installed(place: Place) -> None:
    """Raises: RequestError: If what a place needs is not installed."""
    missing = "distributed" if find_spec("distributed") is None else ""
    if not missing and isinstance(place, Queue) and find_spec("dask_jobqueue") is None:
        missing = "dask-jobqueue"
    if missing:
        raise RequestError(
            f"workers need {missing}, which is not installed: pip install 'mer-bench[cluster]'. Without --jobs, "
            "--scheduler and --queue the runs are done in this process."
        )
    if isinstance(place, Queue) and shutil.which(QUEUES[place.kind][1]) is None:
        program = QUEUES[place.kind][1]
        raise RequestError(
            f"jobs are handed to {place.kind} with {program}, which is not on this machine. Give the command on a "
            "machine from which you hand in jobs, or choose another --queue."
        )


@contextmanager
def opened(place: Place, device: str) -> Iterator[tuple[Connect, int]]:
    """Start what a place needs; how to connect to it, and how many workers there will be (0: not known).

    Args:
        device: Of the runs.

    Raises:
        RequestError: If there are fewer GPUs than workers. RunError: If the queue takes no job.
    """
    import dask
    import distributed  # noqa: F401 — before its settings are changed, or they would be gone at the end

    with ExitStack() as stack:
        stack.enter_context(_silent())
        settings = {
            "distributed.scheduler.worker-saturation": 1.0,
            "distributed.admin.system-monitor.gil.enabled": False,
        }
        stack.enter_context(dask.config.set(settings))
        if isinstance(place, Scheduler):
            yield _connector(place.address), 0
        elif isinstance(place, Jobs):
            cluster = _start_here(stack, place.count, gpus_here(device))
            yield _connector(cluster.scheduler_address), place.count
        else:
            cluster = _ask_queue(stack, place)
            yield _connector(cluster.scheduler_address), place.count


def _connector(address: str) -> Connect:
    def connect(seconds: float) -> Client:
        from distributed import Client

        # A client of its own each time: what a lost one still believes is of no use.
        return Client(address, timeout=seconds, set_as_default=False)

    return connect


def gpus_here(device: str) -> list[str]:
    """Names of the GPUs that workers of this machine may use, as CUDA_VISIBLE_DEVICES takes them."""
    if device.partition(":")[0] not in ("auto", "cuda"):
        return []
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(index) for index in range(count)]


def check_devices(count: int, device: str) -> None:
    """Raises: RequestError: If the workers of this machine cannot have a GPU each."""
    if device.startswith("cuda:"):
        raise RequestError(f"each worker takes one GPU, so that none can be named: give --device cuda, not {device}.")
    gpus = gpus_here(device)
    if gpus and count > len(gpus):
        have = "1 GPU is" if len(gpus) == 1 else f"{len(gpus)} GPUs are"
        raise RequestError(
            f"{count} workers were asked for and {have} here, one for each worker: give --jobs {len(gpus)}, "
            "or --device cpu."
        )
    if device == "cuda" and not gpus:
        raise RequestError("device cuda was asked for, but 0 cuda devices are there.")


def share(threads: int | None, workers: int) -> int:
    """Threads of a run: those that were given, or a worker's part of those that PyTorch would take."""
    if threads is not None:
        return threads
    import torch

    return max(1, torch.get_num_threads() // workers)


def _start_here(stack: ExitStack, count: int, gpus: list[str]) -> Any:
    from distributed import Nanny, Scheduler, SpecCluster

    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mer-bench-", ignore_cleanup_errors=True))

    def worker(index: int) -> dict[str, Any]:
        environment = {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if gpus else {}
        options = {
            "nthreads": 1,
            "memory_limit": 0,  # an exhausted machine is the runner's to tell of, or the kernel's
            "host": "127.0.0.1",
            "local_directory": folder,
            "preload": ["mer_bench.sweep.preloading"],
            "env": {"MER_BENCH_WORKER_LOG": str(Path(folder) / f"worker-{index}.log"), **environment},
            "silence_logs": logging.CRITICAL,
        }
        return {"cls": Nanny, "options": options}

    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}}
    with _deaf_to_interrupts():  # which the workers inherit until they see to it themselves
        cluster = SpecCluster(
            workers={index: worker(index) for index in range(count)},
            scheduler=scheduler,
            silence_logs=logging.CRITICAL,
        )
    stack.callback(_end, cluster)
    return cluster


def _ask_queue(stack: ExitStack, place: Queue) -> Any:
    import dask_jobqueue

    place.logs.mkdir(parents=True, exist_ok=True)
    cluster = getattr(dask_jobqueue, QUEUES[place.kind][0])(**queue_options(place))
    stack.callback(_end, cluster)
    _hand_in(cluster, place)
    # Not `scale`: a job that is over, at the end of its time or by a failure of its machine, is followed by another.
    cluster.adapt(minimum_jobs=place.count, maximum_jobs=place.count)
    return cluster


def _hand_in(cluster: Any, place: Queue) -> None:
    """Hand in the jobs, and hear what the queue says to them."""
    from distributed.core import Status

    async def start() -> None:
        cluster.scale(jobs=place.count)  # which will look after it later, and say nothing
        await cluster._correct_state()

    try:
        cluster.sync(start)
        if cluster.status == Status.failed:
            raise RuntimeError("no job was taken")
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        told = next((line for line in lines if "error" in line.lower() and "Command" not in line), lines[-1])
        raise RunError(f"{place.kind} took no job: {told.rstrip('.')}.") from error


def queue_options(place: Queue) -> dict[str, Any]:
    """What dask-jobqueue is told, alike for every queue but for how a GPU is asked for."""
    gpus = {
        "slurm": f"--gres=gpu:{place.gpus}",
        "pbs": f"-l ngpus={place.gpus}",
        "lsf": f"-gpu num={place.gpus}",
        "sge": f"-l gpu={place.gpus}",
    }[place.kind]
    return {
        "cores": place.threads,
        "processes": 1,
        "memory": place.memory,
        "walltime": place.time,
        "queue": place.partition,
        "job_name": "mer-bench",
        "job_extra_directives": [gpus] if place.gpus else [],
        # The last one counts: all cores are for the one run that a worker does at a time.
        "worker_extra_args": ["--nthreads", "1", "--memory-limit", "0", "--no-dashboard"],
        "local_directory": "${TMPDIR:-/tmp}",
        "log_directory": str(place.logs.absolute()),
        "python": sys.executable,
        "scheduler_options": {"dashboard": False, "dashboard_address": None},
        "silence_logs": logging.CRITICAL,
    }


@contextmanager
def _silent() -> Iterator[None]:
    """Without what Dask logs, tracebacks of a lost connection among it: what counts is told by the sweep."""
    known = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    before = {name: logging.getLogger(name).level for name in known}  # most have a level of their own
    for name in known:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _end(cluster: Any) -> None:
    with _deaf_to_interrupts(), suppress(Exception):
        cluster.close(timeout=20)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
