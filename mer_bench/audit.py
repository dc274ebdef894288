"""What the test score would have been with the epoch chosen on test, as most public code chooses it.

While a run goes on, the weights of each epoch are put on the disk as they were scored on dev. Only once every choice
is frozen, and the record with its predictions and scores is written, are they read back, one epoch at a time, and
scored on test. What comes out is added to the record as `audit` and to nothing else: whoever leaves it out has the
record of the same run without one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_bench.atomic import storage_errors, write_atomically
from mer_bench.errors import RunError, StorageError
from mer_bench.metrics import METRICS, score
from mer_bench.predictions import pooled
from mer_bench.records import Audit, AuditEpoch, Record, Scores

if TYPE_CHECKING:
    from torch import Tensor

    from mer_bench.predictions import Predictions

_NAME = re.compile(r"audit-(?:fold[0-9]+-)?epoch-[0-9]+\.safetensors")
_SAME_SCORE = 1e-9  # the chosen epoch, scored again from its weights, must give what the record says


class KeptWeights:
    """The weights of every epoch of a run, on the disk.

    Args:
        folder: The run's own working folder; made with the first epoch.

    Attributes:
        folder: As given.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, fold: int | None, epoch: int) -> Path:
        """Where an epoch's weights lie: `audit-epoch-003.safetensors`, `audit-fold2-epoch-003.safetensors`."""
        return self.folder / f"audit-{'' if fold is None else f'fold{fold}-'}epoch-{epoch:03}.safetensors"

    def keep(self, fold: int | None, epoch: int, weights: Mapping[str, Tensor]) -> None:
        """Write an epoch's weights, in place of those that a run before this one may have left.

        Raises:
            StorageError: If they cannot be written, as on a full disk.
        """
        from safetensors.torch import save

        with storage_errors(f"keep the weights of epoch {epoch} for the audit in {self.folder.parent}"):
            content = save({name: value.detach().cpu().contiguous() for name, value in weights.items()})
            write_atomically(self.file(fold, epoch), content)

    def read(self, fold: int | None, epoch: int) -> dict[str, Tensor]:
        """The weights of an epoch.

        Raises:
            StorageError: If they are gone or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        file = self.file(fold, epoch)
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"the weights of epoch {epoch} that the audit needs cannot be read: {error}.") from None

    def holds(self, fold: int | None, epochs: int) -> bool:
        """Whether the weights of all epochs up to a number are there: a run can go on from that epoch."""
        return all(self.file(fold, epoch).is_file() for epoch in range(1, epochs + 1))

    def remove(self) -> None:
        """Remove all of them, unfinished ones too; and the folder where nothing else is in it."""
        if not self.folder.is_dir():
            return
        for file in self.folder.iterdir():
            if _NAME.search(file.name):
                file.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


@dataclass
class _Candidate:
    """The best epoch on test so far, and all that were scored."""

    epochs: list[AuditEpoch] = field(default_factory=list)
    best: AuditEpoch | None = None
    predictions: Predictions | None = None


def audited(
    record: Record,
    predict: Callable[[int | None, dict[str, Tensor]], Predictions],
    kept: KeptWeights,
    heard: Callable[[int, int], None],
) -> Record:
    """The same record with its audit.

    Args:
        record: Of the run, written: it is not changed.
        predict: What a model with these weights predicts for the test split of a fold (None: there are no folds).
        heard: Called after each epoch: how many are done, of how many.

    Raises:
        RunError: If the chosen epoch's weights do not give the record's own score, which the audit then cannot explain.
    """
    assert record.test is not None
    metric = _metric_of(record)
    curves: dict[int | None, int] = {fold.fold: len(fold.curve) for fold in record.folds}
    curves = curves or {None: len(record.curve)}
    total, done = sum(curves.values()), 0
    found: dict[int | None, _Candidate] = {}
    for fold, epochs in curves.items():
        candidate = found[fold] = _Candidate()
        for epoch in range(1, epochs + 1):
            predictions = predict(fold, kept.read(fold, epoch))
            _consider(candidate, AuditEpoch(epoch=epoch, test=_values(score(predictions))), predictions, metric)
            done += 1
            heard(done, total)
    if not record.folds:
        assert record.selection is not None
        audit = _audit_of(found[None], metric, record.selection.epoch, record.test)
        return _with(record, audit=audit)
    folds = [
        fold.model_copy(update={"audit": _audit_of(found[fold.fold], metric, fold.selection.epoch, fold.test)})
        for fold in record.folds
    ]
    best = score(pooled([each.predictions for each in found.values() if each.predictions is not None]))
    audit = Audit(
        metric=metric, epochs=[], best_epoch=None, best=getattr(best, metric), chosen=getattr(record.test, metric)
    )
    return _with(record, audit=audit, folds=folds)


def _metric_of(record: Record) -> str:
    selection = record.folds[0].selection if record.folds else record.selection
    assert selection is not None
    return selection.metric


def _consider(candidate: _Candidate, epoch: AuditEpoch, predictions: Predictions, metric: str) -> None:
    """Take an epoch in, and its predictions where it is better than all before: the earliest of equals stays."""
    candidate.epochs.append(epoch)
    before = candidate.best
    sign = 1 if METRICS[metric].higher_is_better else -1
    if before is None or sign * epoch.test[metric] > sign * before.test[metric]:
        candidate.best, candidate.predictions = epoch, predictions


def _audit_of(candidate: _Candidate, metric: str, chosen_epoch: int, test: Scores) -> Audit:
    assert candidate.best is not None
    chosen = candidate.epochs[chosen_epoch - 1].test[metric]
    own = getattr(test, metric)  # a fold has no calibration error
    if own is not None and abs(chosen - own) > _SAME_SCORE:
        raise RunError(
            f"the weights of epoch {chosen_epoch}, which was chosen on dev, give a test {metric} of {chosen}, "
            f"but the run had {own}: its model does not save all that decides its results."
        )
    return Audit(
        metric=metric,
        epochs=candidate.epochs,
        best_epoch=candidate.best.epoch,
        best=candidate.best.test[metric],
        chosen=chosen if own is None else own,
    )


def _values(scores: Scores) -> dict[str, float]:
    return {name: number for name in METRICS if (number := getattr(scores, name)) is not None}


def _with(record: Record, **parts: Any) -> Record:
    return Record(**{**dict(record), **parts})  # not model_copy: what is new is checked together with the rest
