"""What a study costs beside its training: less than a quarter, for a model that trains in 0.2 s.

The model waits instead of computing, so that its training takes 0.2 s however busy the machine is, and all that is
measured beyond that is what a study adds: suggesting, reporting, writing to the SQLite file, building the model.
"""

from __future__ import annotations

import statistics
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial

from mer_bench import registry
from mer_bench.request import RunRequest, plan
from mer_bench.runner import Listener, Opened, fit, open_device, open_run, trainer_of
from mer_bench.tuning.study import StudyPlan, TuneRequest, plan_study
from mer_bench.tuning.workers import TuneListener, tune
from tests.trios import Place, place

__all__ = ["place"]

TRIALS = 40
SHARE = 0.25

BRISK = """
    '''Brisk.'''
    # /// mer-bench
    # title   = "Brisk"
    # summary = "Waits while others compute."
    # entry   = "Brisk"
    # config  = "BriskSettings"
    # version = 1
    # modalities = ["text", "audio", "visual"]
    # causal = true
    # uses_speakers = false
    # speaker_symmetric = true
    # memory = "linear"
    # [settings.default]
    # epochs = 10
    # patience = 10
    # batch_size = 64
    # ///
    from __future__ import annotations
    import time
    from typing import Annotated, Literal
    from torch import nn
    from mer_bench.api import Batch, Field, InputSpec, Model, Output, Settings, Tune

    class BriskSettings(Settings):
        width: Annotated[int, Field(ge=1, le=512), Tune(low=4, high=64, step=4)] = 16
        layers: Annotated[int, Field(ge=1, le=8), Tune(low=1, high=4)] = 2
        dropout: Annotated[float, Field(ge=0, lt=1), Tune(low=0.0, high=0.6, step=0.1)] = 0.1
        heads: Annotated[int, Field(ge=1, le=16), Tune(choices=(1, 2, 4))] = 2
        kind: Annotated[Literal["sum", "gate"], Tune()] = "sum"
        bias: Annotated[bool, Tune(when={"kind": "gate"})] = True

    class Brisk(Model):
        def __init__(self, spec: InputSpec, settings: BriskSettings) -> None:
            super().__init__(spec, settings)
            self.output = nn.Linear(spec.widths["text"], spec.class_count)

        def forward(self, batch: Batch) -> Output:
            if self.training:
                time.sleep(0.02)
            return Output(self.output(batch.features["text"]))
"""


@pytest.fixture(scope="module")
def brisk(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunRequest]:
    """A request for a model with 11 settings to search, of which one training takes 0.2 s."""
    file = tmp_path_factory.mktemp("model") / "brisk.py"
    file.write_text(textwrap.dedent(BRISK), encoding="utf-8")
    registry.add_plugin(file)
    out = tmp_path_factory.mktemp("runs")
    # With a batch of 64 all twelve dialogues are one: ten epochs are ten batches of 20 ms.
    yield RunRequest("brisk", "trios", settings={"batch_size": 64}, data_root=place.data, out=out, threads=1)
    registry.remove_plugin(file)


def opened_for(run: RunRequest) -> Opened:
    return open_run(plan(run), open_device(run), Listener())


def train_alone(opened: Opened) -> float:
    """Seconds of one training, without a study."""
    material = opened.material(opened.stores[0])
    started = time.perf_counter()
    fit(trainer_of(opened.plan, material, opened.device), material, lambda epoch, state: None)
    return time.perf_counter() - started


class Clock(TuneListener):
    """Notes when the study was there, and when each trial was over."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def study_opened(self, planned: StudyPlan, study: optuna.Study) -> None:
        self.times.append(time.perf_counter())

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.times.append(time.perf_counter())


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_study_costs_less_than_a_quarter_more_than_its_training(
    brisk: RunRequest, tmp_path: Path, sampler: str, record_property: Callable[[str, Any], None]
) -> None:
    opened = opened_for(brisk)
    alone = statistics.median(train_alone(opened) for _ in range(10))
    clock = Clock()
    tune(plan_study(TuneRequest(brisk, trials=TRIALS, sampler=sampler, storage=str(tmp_path / "s.sqlite3"))), clock)
    seconds = [end - start for start, end in pairwise(clock.times)]
    # What else the machine does only adds to it: the quickest quarter is nearest to what a study costs by itself.
    share = statistics.quantiles(seconds, n=4)[0] / alone - 1
    later = statistics.quantiles(seconds[TRIALS // 2 :], n=4)[0] / alone - 1
    usual = statistics.median(seconds) / alone - 1
    record_property("overhead", share)
    print(  # noqa: T201
        f"\n{sampler}: training alone {alone:.3f} s; in a study {100 * share:.1f} % more in the quickest quarter of "
        f"{TRIALS} trials, {100 * later:.1f} % in that of the second half, {100 * usual:.1f} % in the median"
    )
    assert len(seconds) == TRIALS
    assert 0.2 < alone < 0.3
    assert share < SHARE
    assert later < SHARE


def test_data_are_read_once_a_worker(brisk: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mer_bench.data.store import Store

    read: list[str] = []
    split = Store.split

    def counted(store: Store, name: str, *arguments: Any, **more: Any) -> Any:
        read.append(name)
        return split(store, name, *arguments, **more)

    monkeypatch.setattr(Store, "split", counted)
    tune(plan_study(replace(TuneRequest(brisk, trials=3), storage=str(tmp_path / "studies.sqlite3"))))
    assert sorted(read) == ["dev", "train"]
