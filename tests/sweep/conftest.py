"""A slow model, made-up data that are prepared once, and a sweep of it in this process to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mer_bench import registry
from mer_bench.data.preparation import open_or_prepare, resolve
from mer_bench.request import RunRequest
from mer_bench.sweep.listening import SweepListener
from mer_bench.sweep.planning import Part, SweepRequest, plan_sweep
from mer_bench.sweep.runs import Sweep, survey
from mer_bench.sweep.serial import work_here
from tests.sweep.loopback import write_slowly


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which the synthetic corpus is prepared once."""
    root = tmp_path_factory.mktemp("synthetic")
    open_or_prepare(resolve("meld-synthetic"), root)
    return root


@pytest.fixture(scope="session")
def slowly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the model."""
    return write_slowly(tmp_path_factory.mktemp("plugins"))


@dataclass(frozen=True)
class Bench:
    """Makes sweeps of the model `slowly` on the synthetic corpus."""

    data: Path
    plugin: Path

    def request(self, out: Path, *parts: Part, **options: Any) -> SweepRequest:
        run = RunRequest("", "", out=out, data_root=self.data, threads=1, device="cpu")
        return SweepRequest(parts or (self.part(),), run, **options)

    def part(self, seeds: int = 6, **settings: Any) -> Part:
        return Part.model_validate(
            {
                "models": ["slowly"],
                "datasets": ["meld-synthetic"],
                "seeds": seeds,
                "modalities": ["text"],
                "settings": settings,
            }
        )

    def sweep(self, out: Path, *parts: Part, **options: Any) -> Sweep:
        request = self.request(out, *parts, **options)
        return survey(request, plan_sweep(request))

    def serial(self, out: Path, *parts: Part) -> Path:
        """The same sweep, run after run in this process."""
        work_here(self.sweep(out, *parts), SweepListener())
        return out


@pytest.fixture
def bench(synthetic: Path, slowly: Path) -> Iterator[Bench]:
    registry.add_plugin(slowly)
    yield Bench(synthetic, slowly)
    registry.remove_plugin(slowly)


class Hearing(SweepListener):
    """Notes what it hears, and does something when the first run has begun."""

    def __init__(self, then: Callable[[], None] | None = None) -> None:
        self.begun: list[tuple[str, int]] = []
        self.done: list[str] = []
        self.failed: dict[str, str] = {}
        self.lost = self.back = 0
        self.workers: list[int] = []
        self._then = then

    def run_begun(self, run: Any, tries: int) -> None:
        self.begun.append((run.identity, tries))
        if self._then:
            then, self._then = self._then, None
            then()

    def run_done(self, run: Any, record: Any) -> None:
        self.done.append(run.identity)

    def run_failed(self, run: Any, reason: str) -> None:
        self.failed[run.identity] = reason

    def workers_changed(self, count: int) -> None:
        self.workers.append(count)

    def connection_lost(self, reason: str) -> None:
        self.lost += 1

    def connection_back(self) -> None:
        self.back += 1
