"""What a person sees while a run goes on: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from mer_bench.cli.console import Bar, Screen, duration_text, percent
from mer_bench.cli.stopping import StopSignals
from mer_bench.config import changed_fields
from mer_bench.metrics import METRICS
from mer_bench.records import Epoch, Record, Selection
from mer_bench.runner import Listener, Plan, Standing

WHY_ENDED = {"patience": "no better epoch came", "epochs": "all epochs were done", "fitted": "fitted at one go"}


class ProgressListener(Listener):
    """Shows the epochs of one run after another; used as a context manager, so that the bar always ends.

    Args:
        screen: Where it is shown.
        signals: What stops a run between two epochs; None: nothing does.
    """

    def __init__(self, screen: Screen, signals: StopSignals | None = None) -> None:
        self._screen = screen
        self._signals = signals
        self._bar: Bar | None = None
        self._plan: Plan | None = None
        self._clock = 0.0
        self._epochs_before: int | None = None  # trained by a process that was stopped
        self._fold = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_bar()

    def run_started(self, plan: Plan) -> None:
        self._end_bar()
        self._screen.line(run_title(plan))
        self._start(plan)

    def _start(self, plan: Plan) -> None:
        """Say which settings are not the usual ones, and open the bar."""
        self._plan = plan
        self._clock = time.monotonic()
        self._fold = ""
        changed = {**changed_fields(plan.settings), **changed_fields(plan.training)}
        if changed:
            told = ", ".join(f"{name}={value}" for name, value in changed.items())
            self._screen.line(f"settings that differ from the defaults: {told}", tone="quiet")
        if self._screen.is_terminal:
            self._bar = Bar(self._screen, 0)
            self._bar.__enter__()
            self._bar.show(f"{plan.dataset}: data, then the first epoch")

    def preparing(self, text: str) -> None:
        if self._bar:
            self._bar.show(text)
        else:
            self._screen.line(text)
        self._clock = time.monotonic()

    def resumed(self, text: str) -> None:
        self._screen.line(text)

    def noticed(self, text: str) -> None:
        self._screen.warn(text)

    def training_started(self, can_be_saved: bool) -> None:
        if self._signals:
            self._signals.is_worth_waiting = can_be_saved
        self._clock = time.monotonic()
        self._epochs_before = None

    def stop_wanted(self) -> str:
        return self._signals.wanted if self._signals else ""

    def fold_started(self, fold: int, folds: int) -> None:
        self._fold = f"fold {fold}/{folds}, "
        self._clock = time.monotonic()

    def fold_ended(self, fold: int, folds: int, selection: Selection) -> None:
        # One that was fitted at one go had no choice, and was told of already.
        if not self._bar and selection.ended != "fitted":
            self._screen.line(f"{self._fold}epoch {selection.epoch} chosen on dev ({WHY_ENDED[selection.ended]})")

    def epoch_ended(self, epoch: Epoch, best_epoch: int, best_score: float, epochs: int, patience_left: int) -> None:
        left = self._time_left(epoch.epoch, epochs)
        metric = self._plan.metric if self._plan else "weighted_f1"
        title = METRICS[metric].title if metric in METRICS else metric
        now = epoch.dev.get(metric, best_score)
        best = f"best {percent(best_score)} in epoch {best_epoch}"
        if self._bar:
            dataset = f"{self._plan.dataset} " if self._plan else ""
            self._bar.show(
                f"{dataset}{self._fold}epoch {epoch.epoch}/{epochs}",
                f"dev {percent(now)}, {best}, {left}",
                done=epoch.epoch,
                total=epochs,
            )
            return
        loss = epoch.train.get("total")
        if loss is None:
            # Fitted at one go: no further epoch will come, whatever the trainer's settings allow.
            self._screen.line(f"{self._fold}fitted: dev {_within_a_line(title)} {percent(now)}")
            return
        self._screen.line(
            f"{self._fold}epoch {epoch.epoch}/{epochs}: loss {loss:.4f}, dev {_within_a_line(title)} {percent(now)}, "
            f"{best}, stops after {max(0, patience_left)} more without a better one, {left}"
        )

    def stack_epoch_ended(self, epochs: Mapping[int, Epoch], standing: Mapping[int, Standing], most: int) -> None:
        number = max((epoch.epoch for epoch in epochs.values()), default=0)
        if not number:  # every seed that was left diverged in it; the command will say so
            return
        metric = self._plan.metric if self._plan else "weighted_f1"
        scores = [epoch.dev[metric] for epoch in epochs.values()]
        left = self._time_left(number, most)
        still = sum(each.is_running for each in standing.values())
        going = "all seeds" if still == len(standing) else f"{still} of {len(standing)} seeds"
        spread = f"{percent(min(scores))} to {percent(max(scores))}"
        if self._bar:
            dataset = f"{self._plan.dataset} " if self._plan else ""
            self._bar.show(
                f"{dataset}{self._fold}epoch {number}/{most}",
                f"dev {spread}, {going} go on, {left}",
                done=number,
                total=most,
            )
            return
        title = METRICS[metric].title if metric in METRICS else metric
        losses = [epoch.train["total"] for epoch in epochs.values()]
        self._screen.line(
            f"{self._fold}epoch {number}/{most}, {len(epochs)} seeds: loss {sum(losses) / len(losses):.4f}, "
            f"dev {_within_a_line(title)} {spread}, {going} go on, {left}"
        )

    def _time_left(self, epoch: int, epochs: int) -> str:
        if self._epochs_before is None:
            self._epochs_before = epoch - 1
        pace = (time.monotonic() - self._clock) / (epoch - self._epochs_before)
        return f"at most {duration_text(pace * (epochs - epoch))} left{' in this fold' if self._fold else ''}"

    def epoch_audited(self, done: int, epochs: int) -> None:
        if self._bar:
            self._bar.show("audit: every epoch on test", f"{done} of {epochs}", done=done, total=epochs)
        elif done == epochs:
            self._screen.line(f"audit: {epochs} epochs were scored on test; none of that had a say in the choice")

    def run_ended(self, record: Record) -> None:
        if self._signals:
            self._signals.is_worth_waiting = False
        self._end_bar()
        if record.selection:
            chosen = f"epoch {record.selection.epoch} chosen on dev ({WHY_ENDED[record.selection.ended]})"
        elif record.folds:
            epochs = ", ".join(str(fold.selection.epoch) for fold in record.folds)
            fitted = all(fold.selection.ended == "fitted" for fold in record.folds)
            told = "each fitted at one go" if fitted else f"epochs {epochs} chosen on dev"
            chosen = f"{len(record.folds)} folds, {told}"
        else:
            return
        cost = record.cost
        taken = f", {duration_text(cost.wall_seconds)}, {cost.memory_bytes / 1e9:.2f} GB" if cost else ""
        self._screen.line(f"{record.model} on {record.dataset}, seed {record.seed}: {chosen}{taken}")

    def _end_bar(self) -> None:
        if self._bar:
            self._bar.__exit__(None, None, None)
            self._bar = None


def _within_a_line(title: str) -> str:
    """`Weighted F1` as `weighted F1`; `UAR` as it is."""
    return title if title.isupper() else title[:1].lower() + title[1:]


def run_title(plan: Plan) -> str:
    """One line that says which run this is."""
    made_up = " (synthetic)" if plan.synthetic else ""
    stack = plan.request.stack
    seeds = f"{len(stack)} seeds in one pass ({', '.join(map(str, stack))})" if stack else f"seed {plan.request.seed}"
    return (
        f"{plan.model_title} on {plan.features}{made_up}, {' + '.join(plan.modalities)}, labels {plan.key.labels}, "
        f"protocol {plan.key.protocol}, {seeds}"
    )
