"""A sweep by workers of Dask: its scheduler hands the orders out, and what comes back is checked here.

Dask begins a run again when its worker is gone. What it leaves to us: that a run which keeps taking its worker along
is set aside, and that a scheduler which is gone (killed, restarted, or cut off) is waited for and given what is left.
"""

from __future__ import annotations

import queue
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mer_bench import registry
from mer_bench.atomic import storage_errors
from mer_bench.errors import RequestError, StoppedError
from mer_bench.locations import data_root
from mer_bench.recording import check_writable
from mer_bench.sweep.collecting import Collected
from mer_bench.sweep.listening import SweepListener
from mer_bench.sweep.performing import TRIES, Order, Outcome, Surroundings, perform, record_lost
from mer_bench.sweep.places import Connect
from mer_bench.sweep.runs import Sweep, SweepRun

if TYPE_CHECKING:
    from distributed import Client, Future

LOOK_SECONDS = 0.5
WORKERS_SECONDS = 2.0
CONNECT_SECONDS = 5.0


class _LostError(Exception):
    """The scheduler is gone, or the way to it."""


def work_elsewhere(
    sweep: Sweep, connect: Connect, listener: SweepListener, workers: int = 0, patience: float = 600.0
) -> Collected:
    """Have what is left of a sweep done.

    Args:
        connect: To the scheduler. workers: How many there will be; 0: not known.
        patience: Seconds for which a scheduler that is gone is waited for.

    Raises:
        RequestError: If the scheduler cannot be reached at the start, or a worker would do several runs at once.
        StoppedError: If it stays away. StorageError: If results could not be written.
    """
    collected = Collected(sweep, listener)
    listener.sweep_started(sweep, workers)
    with _beacon(sweep) as beacon:
        work = _Work(collected, beacon)
        lost_since: float | None = None
        while collected.left:
            try:
                client = connect(CONNECT_SECONDS)
            except OSError as error:
                if lost_since is None:
                    raise RequestError(
                        "no scheduler answers there. See that it runs (dask scheduler) and that its address is right, "
                        "as in tcp://host:8786."
                    ) from error
                if time.monotonic() - lost_since > patience:
                    collected.look_for_all()
                    raise StoppedError(
                        f"the scheduler has been gone for {patience:g} seconds; "
                        f"{len(sweep.found) + len(collected.done)} of {len(sweep.runs)} runs are saved, and the same "
                        "command goes on."
                    ) from error
                listener.waited()
                time.sleep(LOOK_SECONDS)
                continue
            try:
                if lost_since is not None:
                    listener.connection_back()
                lost_since = None
                work.go_on(client)
            except _LostError as error:
                lost_since = time.monotonic()
                listener.connection_lost(str(error))
            finally:
                work.leave(client)
            lost_since = lost_since or time.monotonic()
    return collected


def _beacon_name() -> str:
    return f".sweep-{secrets.token_hex(8)}"


@contextmanager
def _beacon(sweep: Sweep) -> Iterator[str]:
    """A hidden file in the folder of records, by which a worker tells that it sees that very folder."""
    out = sweep.request.run.out
    check_writable(out)
    name = _beacon_name()
    with storage_errors(f"write records to {out}"):
        out.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    try:
        yield name
    finally:
        with suppress(OSError):
            (out / name).unlink()


class _Work:
    """The orders of a sweep, over one connection after another.

    Attributes:
        topic: Of the news that workers send; of this sweep alone.
    """

    def __init__(self, collected: Collected, beacon: str) -> None:
        self.collected = collected
        self.topic = f"mer-bench{beacon}"
        self._orders = {run.identity: _order(run, beacon) for run in collected.sweep.left}
        self._heard: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._futures: dict[str, Future[Outcome]] = {}
        self._given: Counter[str] = Counter()
        self._doubted: Counter[str] = Counter()
        self._workers = -1

    def go_on(self, client: Client) -> None:
        """Order what is left, and take what comes until nothing is.

        Raises:
            _LostError: If the connection is lost.
        """
        heard: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._heard = heard
        with _losses():
            self._look_at_workers(client, at_start=True)
            client.subscribe_topic(self.topic, lambda event: heard.put(("news", event[1])))
            for identity in self.collected.left:
                # Those who were taken for lost may have written theirs in the meantime.
                if not self.collected.look(self.collected.sweep.runs[identity]):
                    self._give(client, identity)
        looked = time.monotonic()
        while self.collected.left:
            try:
                kind, value = heard.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                kind, value = "", None
            if kind == "news":
                self._tell(value)
            elif kind == "ended":
                self._end(client, value)
            elif client.status != "running":
                raise _LostError("the connection to the scheduler is lost")
            if time.monotonic() - looked > WORKERS_SECONDS:
                looked = time.monotonic()
                with _losses():
                    self._look_at_workers(client)
            self.collected.listener.waited()

    def leave(self, client: Client) -> None:
        """Withdraw what is not over, and close the connection."""
        with suppress(Exception):
            if self._futures and client.status == "running":
                client.cancel(list(self._futures.values()), force=True)
        with suppress(Exception):
            client.close(timeout=2)
        self._futures.clear()

    def _give(self, client: Client, identity: str) -> None:
        self._given[identity] += 1
        heard = self._heard
        # A name of its own each time: what became of an earlier one is not taken for this one's.
        key = f"{self.topic}-{identity}-{self._given[identity]}"
        future = client.submit(perform_for_dask, self._orders[identity], self.topic, key=key, pure=False)
        self._futures[identity] = future
        future.add_done_callback(lambda _: heard.put(("ended", (identity, future))))

    def _end(self, client: Client, ended: tuple[str, Future[Outcome]]) -> None:
        """Take what became of an order."""
        identity, future = ended
        if self._futures.get(identity) is not future or identity not in self.collected.left:
            return
        if future.status == "cancelled":
            raise _LostError("the scheduler has forgotten the runs")
        del self._futures[identity]
        run = self.collected.sweep.runs[identity]
        if future.status == "error":
            with _losses():
                error = future.exception(timeout=CONNECT_SECONDS)
            self._end_badly(client, run, error)
            return
        try:
            outcome: Outcome = future.result(timeout=60)
        except Exception:  # the worker that held it is gone, or the scheduler
            outcome = Outcome(identity, "dropped")
        if outcome.status == "dropped":
            self._give(client, identity)
        elif not self.collected.take(outcome):
            self._again(client, run)

    def _end_badly(self, client: Client, run: SweepRun, error: BaseException | None) -> None:
        from distributed.scheduler import KilledWorker

        if isinstance(error, KilledWorker):
            # Dask counts every order that lay with a worker when it died, begun or not; we count those that were begun.
            with _losses():
                begun = _without_end(client, [self.topic, run.identity])
            if len(begun) < TRIES:
                self._give(client, run.identity)
                return
            self._set_aside(run, time.time() - min(begun))
        elif isinstance(error, ModuleNotFoundError | ImportError):
            self.collected.fail(run, f"a worker cannot import what the run needs ({error}); install mer-bench there.")
        else:
            self.collected.fail(run, f"a worker could not do it: {type(error).__name__}: {error}")

    def _set_aside(self, run: SweepRun, seconds: float) -> None:
        """Say so in a record, where no worker is left to do it."""
        from mer_bench.errors import WorkerLostError
        from mer_bench.runner import Opened, open_device

        error = WorkerLostError(
            f"the worker was gone {TRIES} times while it did this run: its process was killed, ran out of memory, or "
            "could not be reached. The run was set aside."
        )
        run.recording.prepare()
        opened = Opened(run.plan, tuple(run.recording.stores), open_device(replace(run.plan.request, device="cpu")))
        record_lost(run.recording, opened, error, seconds)
        self.collected.fail(run, str(error))

    def _again(self, client: Client, run: SweepRun) -> None:
        """Order a run again whose result did not hold."""
        self._doubted[run.identity] += 1
        if self._doubted[run.identity] >= TRIES:
            self.collected.fail(
                run,
                f"its record was written {TRIES} times and is not whole in {self.collected.sweep.request.run.out}; "
                "see that nothing else writes there.",
            )
            return
        self._give(client, run.identity)

    def _tell(self, news: dict[str, Any]) -> None:
        run = self.collected.left.get(news["run"])
        if run is None:
            return
        if "tries" in news:
            self.collected.listener.run_begun(run, news["tries"])
        else:
            self.collected.listener.run_went_on(run, news["epoch"], news["epochs"], news["best"])

    def _look_at_workers(self, client: Client, at_start: bool = False) -> None:
        threads = client.nthreads()
        several = [address for address, count in threads.items() if count > 1]
        if at_start and self._workers < 0 and several:
            raise RequestError(
                f"the worker {several[0]} would do {threads[several[0]]} runs at once, and a run needs a process of "
                "its own: start workers with dask worker ADDRESS --nthreads 1 --nworkers N."
            )
        if len(threads) != self._workers:
            self._workers = len(threads)
            self.collected.listener.workers_changed(len(threads))


@contextmanager
def _losses() -> Iterator[None]:
    """What Dask raises where the scheduler is gone, as one thing."""
    from concurrent.futures import CancelledError

    try:
        yield
    except (OSError, CancelledError, TimeoutError) as error:
        raise _LostError(str(error) or "the scheduler does not answer") from error
    except RuntimeError as error:
        if "close" not in str(error).lower():
            raise
        raise _LostError(str(error)) from error


def _order(run: SweepRun, beacon: str) -> Order:
    request = run.plan.request
    there = replace(request, out=request.out.absolute(), data_root=data_root(request.data_root))
    return Order(there, run.identity, plugins=registry.added_places(), beacon=beacon)


def perform_for_dask(order: Order, topic: str) -> Outcome:
    """The task that Dask hands to a worker."""
    from distributed import get_client, get_worker

    worker = get_worker()
    client = get_client()
    key = worker.get_current_task()
    place, mark = [topic, order.identity], secrets.token_hex(8)

    def begin(saved: str) -> tuple[int, float]:
        before = _without_end(client, place, saved)
        client.set_metadata([*place, mark], (time.time(), saved))
        return len(before) + 1, time.time() - min(before, default=time.time())

    def is_unwanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state in ("cancelled", "released", "forgotten")

    outcome = perform(order, Surroundings(begin, lambda news: worker.log_event(topic, news), is_unwanted))
    with suppress(Exception):
        client.set_metadata([*place, mark], None)
    return outcome


def _without_end(client: Client, place: list[str], saved: str | None = None) -> list[float]:
    """When each of the tries of a run began of which nobody has heard that it ended: its worker is gone.

    Args:
        saved: What is saved of the run now; None: all that is needed are the tries that got no further than the last.
    """
    tries: dict[str, tuple[float, str] | None] = client.get_metadata(place, {})
    begun = sorted(each for each in tries.values() if each is not None)
    wanted = begun[-1][1] if saved is None and begun else saved
    return [since for since, before in begun if before == wanted]
