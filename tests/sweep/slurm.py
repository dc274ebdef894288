"""A real Slurm on this one machine: munged, slurmctld and slurmd, on ports and in folders of a test's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
PLACES = "/usr/sbin:/usr/local/sbin"

CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}
SlurmctldPort={controller}
SlurmdPort={worker}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=short Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no Slurm can be started here; None where it can."""
    missing = [name for name in PROGRAMS if _found(name) is None]
    if missing:
        return f"no {missing[0]} here (Debian: slurm-wlm and munge)"
    return None if os.geteuid() == 0 else "slurmctld and slurmd are started by root alone"


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """Start one; what its programs need in the environment."""
    with ExitStack() as stack:
        # In /tmp itself: the name of a socket must not be long, and munged wants nobody else to write above it.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        host = socket.gethostname().split(".")[0]
        controller, worker = _free_ports(2)
        text = CONFIGURATION.format(
            host=host, folder=folder, controller=controller, worker=worker, cpus=os.cpu_count() or 1, memory=4000
        )
        (folder / "slurm.conf").write_text(text)
        environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:{PLACES}"}
        _start(
            stack,
            folder,
            environment,
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={folder}/munge.socket",
            f"--pid-file={folder}/munge.pid",
            f"--seed-file={folder}/munge.seed",
            f"--log-file={folder}/munge.log",
        )
        _wait((folder / "munge.socket").exists, "munged")
        _start(stack, folder, environment, "slurmctld", "-D", "-i")
        _start(stack, folder, environment, "slurmd", "-D", "-N", host)
        _wait(lambda: "idle" in said(environment, "sinfo", "-h", "-o", "%T"), "the node")
        stack.callback(said, environment, "scancel", "--user=root")
        yield environment


def _found(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:{PLACES}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]


def _start(stack: ExitStack, folder: Path, environment: dict[str, str], name: str, *words: str) -> None:
    log = stack.enter_context((folder / f"{name}.out").open("wb"))
    program = _found(name)
    assert program is not None
    started = subprocess.Popen([program, *words], env={**os.environ, **environment}, stdout=log, stderr=log)

    def stop() -> None:
        started.terminate()
        with suppress(subprocess.TimeoutExpired):
            started.wait(10)
        started.kill()
        started.wait()

    stack.callback(stop)


def said(environment: dict[str, str], *words: str) -> str:
    """What one of its programs answers."""
    told = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=20
    )
    return told.stdout.strip()


def _wait(is_there: object, what: str, seconds: float = 20) -> None:
    assert callable(is_there)
    until = time.monotonic() + seconds
    while not is_there():
        assert time.monotonic() < until, f"{what} did not come up"
        time.sleep(0.1)
