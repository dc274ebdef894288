"""What a worker process of this machine does first; Dask imports it there, and nowhere else.

Ctrl-C reaches every process of a terminal: the workers leave it to the sweep, which ends them. What libraries print
goes to a file, or it would run through the table of the sweep.
"""

from __future__ import annotations

import os
import signal
import threading


def dask_setup(worker: object) -> None:
    """Called by Dask in the worker process."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if log := os.environ.get("MER_BENCH_WORKER_LOG"):
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
