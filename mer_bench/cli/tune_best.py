"""After a study: its best settings with several seeds, shown as `run --seeds` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mer_bench.cli.console import Screen, percent
from mer_bench.cli.progress import ProgressListener
from mer_bench.cli.run import record_path, show_results, show_tracked, warn_of_lost_classes
from mer_bench.errors import RunError
from mer_bench.records import Record, Tuned
from mer_bench.trackers import Following, Several
from mer_bench.tuning.best import BestListener, is_at_rest, run_best

if TYPE_CHECKING:
    import optuna

    from mer_bench.request import RunRequest


class BestProgress(ProgressListener, BestListener):
    """Shows the runs of a study's best settings."""

    def best_chosen(self, tuned: Tuned, seeds: int) -> None:
        self._screen.line(
            f"best settings of {tuned.trials} trials: trial {tuned.trial}, dev {percent(tuned.dev)}; "
            f"now with {seeds} seed{'s' if seeds > 1 else ''}, test scored once each"
        )

    def record_found(self, record: Record, marked: bool) -> None:
        self._end_bar()
        told = ", and now says which study chose these settings" if marked else ""
        self._screen.line(f"seed {record.seed}: the record is there{told}")


def run_best_settings(
    screen: Screen,
    study: optuna.Study,
    request: RunRequest,
    seeds: int,
    track: Sequence[str] = (),
    track_to: Path = Path("tracked"),
) -> list[Record]:
    """Run the best settings of a study with the seeds from 0, where nobody works on the study any more.

    Args:
        track: Trackers that follow the runs. track_to: Folder where they write.

    Raises:
        RunError: If some of the seeds failed; the records of the others are there.
    """
    if not seeds:
        return []
    if not is_at_rest(study):
        screen.line(
            "trials are still running elsewhere, so that the best settings may change: the command that ends last "
            "runs them, or this one, given again",
            tone="quiet",
        )
        return []
    with Following(track, track_to, screen.warn) as following, BestProgress(screen) as progress:
        listener = cast(BestListener, Several(progress, following)) if track else progress
        best = run_best(study, request, range(seeds), listener)
    show_tracked(screen, following)
    if best.records and screen.words is screen.answers:  # standard output is not kept for JSON
        show_results(screen, best.records, several=True)
        screen.line()
    warn_of_lost_classes(screen, best.records)
    for record in best.records:
        screen.exactly(f"record: {record_path(request.out, record)}")
    if best.failed:
        numbers = ", ".join(str(number) for number, _ in best.failed)
        raise RunError(f"{len(best.failed)} of {seeds} seeds failed ({numbers}): {best.failed[0][1]}")
    return list(best.records)
