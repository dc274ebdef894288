"""Who works in a folder: one of many, whoever dies is replaced, and no clock or lock is relied on."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mer_bench import claim as room
from mer_bench.claim import Claim
from mer_bench.errors import AlreadyRunningError


def taken(folder: Path, told: list[str] | None = None) -> Claim:
    mine = Claim(folder, "the run x")
    mine.take((told if told is not None else []).append)
    return mine


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(room, "WATCH_SECONDS", 0.6)


def left_by(folder: Path, **changes: Any) -> Path:
    """The claim of another process, made by hand."""
    folder.mkdir(exist_ok=True)
    file = folder / "owner-1"
    file.write_text(json.dumps(asdict(replace(Claim(folder, "the run x").owner, **changes))))
    return file


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_the_second_is_told_in_one_sentence_and_comes_in_afterwards(tmp_path: Path) -> None:
    first = taken(tmp_path / "run")
    with pytest.raises(AlreadyRunningError) as told:
        taken(tmp_path / "run")
    since = first.owner.since
    assert str(told.value) == (
        f"the run x is being done already, by process {os.getpid()} on this machine since {since}; "
        "wait until it has ended, or give another folder."
    )
    first.release()
    taken(tmp_path / "run").release()
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_of_many_at_once_one_has_it(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    # Advisory locks are of no use on many network file systems, and hard links are unknown to some.
    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, refuse)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    # Who meets half a file watches for its heartbeat, which must come well before he gives up, also on a busy machine.
    monkeypatch.setattr(room, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(room, "WATCH_SECONDS", 10.0)
    for number in range(10):
        folder = tmp_path / str(number)
        if number % 2:
            left_by(folder, pid=dead_process())  # all of them find a dead process's claim
        gate = threading.Barrier(8)

        def attempt(folder: Path = folder, gate: threading.Barrier = gate) -> Claim | None:
            gate.wait()
            try:
                return taken(folder)
            except AlreadyRunningError:
                return None

        with ThreadPoolExecutor(8) as pool:
            winners = [
                each for each in [future.result() for future in [pool.submit(attempt) for _ in range(8)]] if each
            ]
        assert len(winners) == 1
        winners[0].check()
        winners[0].release()


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_who_comes_a_moment_later_does_not_write_over_the_first(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    first, second = Claim(tmp_path, "the run x"), Claim(tmp_path, "the run x")
    # Both have looked and found nobody.
    assert first._make(1)
    assert not second._make(1)
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["token"] == first.owner.token


@pytest.mark.parametrize("changes", [{"born": "1"}, {"pid": 2**22 + 7}], ids=["number-reused", "gone"])
def test_a_dead_process_of_this_machine_is_replaced_at_once(tmp_path: Path, changes: dict[str, Any]) -> None:
    left_by(tmp_path / "run", **changes)
    started = time.monotonic()
    mine = taken(tmp_path / "run")
    assert time.monotonic() - started < 2
    mine.check()
    mine.release()


def test_a_process_that_is_only_waited_for_is_dead(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    left_by(tmp_path / "run", pid=child.pid, born="")
    taken(tmp_path / "run").release()
    child.wait()


@pytest.mark.usefixtures("quick")
def test_another_machines_process_is_watched_and_believed_while_its_heart_beats(tmp_path: Path) -> None:
    file = left_by(tmp_path / "run", machine="elsewhere", host="node7")
    stop = threading.Event()

    def beat() -> None:
        at = time.time()
        while not stop.wait(0.05):
            at -= 3600  # its clock is set back all the time
            os.utime(file, (at, at))

    heart = threading.Thread(target=beat)
    heart.start()
    told: list[str] = []
    with pytest.raises(AlreadyRunningError, match="on node7 since"):
        taken(tmp_path / "run", told)
    stop.set()
    heart.join()
    assert told == ["the run x was begun on node7: watching for 0.6 s whether it is still alive"]
    future = time.time() + 1e6  # the stamp of a clock that was set back since
    os.utime(file, (future, future))
    mine = taken(tmp_path / "run")
    mine.check()
    mine.release()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"[]", b'{"pid": "x"}', b'{"pid": -1}'])
def test_a_damaged_claim_is_watched_and_then_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "owner-3").write_bytes(content)
    mine = taken(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["owner-4"]
    mine.release()


@pytest.mark.usefixtures("quick")
def test_the_heart_beats_and_who_was_replaced_is_told(tmp_path: Path) -> None:
    mine = taken(tmp_path)
    before = (tmp_path / "owner-1").stat().st_mtime_ns
    time.sleep(0.3)
    assert (tmp_path / "owner-1").stat().st_mtime_ns > before
    left_by(tmp_path, host="node7", token="another", machine="elsewhere").rename(tmp_path / "owner-2")
    with pytest.raises(AlreadyRunningError, match=r"was taken over by process [0-9]+ on node7"):
        mine.check()
    mine.release()
    assert (tmp_path / "owner-2").exists()


def test_files_that_somebody_removed_are_made_again(tmp_path: Path) -> None:
    mine = taken(tmp_path / "run")
    (tmp_path / "run" / "owner-1").unlink()
    (tmp_path / "run").rmdir()
    mine.check()
    with pytest.raises(AlreadyRunningError):
        taken(tmp_path / "run")
    mine.release()
