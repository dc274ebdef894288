"""`sweep --slurm` by a real Slurm on this machine, where there is one; and what dask-jobqueue writes for each queue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mer_bench.sweep.places import QUEUES, Queue, queue_options
from tests.sweep.conftest import Bench
from tests.sweep.loopback import compare
from tests.sweep.slurm import said, slurm, why_not

QUEUE = Queue("slurm", "short", "0:10:00", "2GB", 1, 2, 3, Path("/records/.queue-logs"))


@pytest.fixture(scope="module")
def started() -> Iterator[dict[str, str]]:
    if why := why_not():
        pytest.skip(f"Slurm cannot be started here: {why}")
    with slurm() as environment:
        yield environment


def sweep(bench: Bench, out: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mer_bench", "sweep", "--plugin", str(bench.plugin), "--models", "slowly"]
    command += ["--datasets", "meld-synthetic", "--modalities", "text", "--device", "cpu", "--threads", "1"]
    command += ["--out", str(out), "--slurm", "--memory", "1GB", "--time", "0:10:00", *words]
    variables = {**os.environ, **environment, "MER_BENCH_DATA": str(bench.data)}
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=400)


def test_a_sweep_by_slurm_gives_the_serial_records(bench: Bench, tmp_path: Path, started: dict[str, str]) -> None:
    out = tmp_path / "two"
    told = sweep(bench, out, started, "--seeds", "3", "--partition", "short", "--json")
    assert told.returncode == 0, told.stderr
    answer = json.loads(told.stdout)
    assert (answer["done"], answer["failed"]) == (3, 0)
    assert compare(bench.serial(tmp_path / "one", bench.part(3)), out).is_same
    jobs = said(started, "squeue", "-h", "-t", "all", "-o", "%j %P %l")
    assert "mer-bench short 10:00" in jobs
    assert list((out / ".queue-logs").glob("mer-bench-*.out"))


def test_what_slurm_refuses_is_told(bench: Bench, tmp_path: Path, started: dict[str, str]) -> None:
    told = sweep(bench, tmp_path, started, "--partition", "nowhere")
    assert told.returncode == 1
    assert "slurm took no job" in told.stderr
    assert "invalid partition" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("kind", QUEUES)
def test_the_job_of_each_queue_asks_for_what_was_said(kind: str) -> None:
    script = script_of(replace(QUEUE, kind=kind))
    wanted = {
        "slurm": ["#SBATCH -p short", "--cpus-per-task=3", "--mem=2G", "-t 0:10:00", "--gres=gpu:1", "-J mer-bench"],
        "pbs": ["#PBS -q short", "ncpus=3", "mem=1908MB", "walltime=0:10:00", "-l ngpus=1", "-N mer-bench"],
        "lsf": ["#BSUB -q short", "#BSUB -n 3", "-W 0:10:00", "-gpu num=1", "-J mer-bench"],
        "sge": ["#$ -q short", "h_rt=0:10:00", "-l gpu=1", "-N mer-bench"],
    }[kind]
    assert [each for each in wanted if each not in script] == []
    command = script.splitlines()[-1]
    assert "distributed.cli.dask_worker" in command
    # Of two the last one counts: a worker does one run at a time, with all the cores of its job.
    assert command.rindex("--nthreads 1") > command.index("--nthreads 3")


def test_a_job_without_a_gpu_asks_for_none() -> None:
    assert "gpu" not in script_of(replace(QUEUE, gpus=0))


def script_of(place: Queue) -> str:
    import dask_jobqueue

    kind: Any = getattr(dask_jobqueue, QUEUES[place.kind][0])
    options = queue_options(place)
    for name in ("scheduler_options", "silence_logs"):
        options.pop(name)
    text: str = kind.job_cls(scheduler="tcp://head:1", name="0", **options).job_script()
    return text.strip()
