"""Conditions under which a trained model's test split is scored, fixed before any of them was seen.

A model that was trained and chosen on all modalities is given only some of them, or loses random ones. Nothing
is chosen by these scores. Each condition is a record with predictions of its own, and so is each mask of a
random rate: a mask is one set of predictions, so that whatever reads, scores again or compares a record does so
here too, and a mean over masks is taken where a mean over seeds is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_bench.ablation.variants import proper_subsets
from mer_bench.data.missing import MASKS, RATES, masked, only, pairs_missing, random_mask
from mer_bench.errors import MerBenchError, StorageError
from mer_bench.recording import Recording
from mer_bench.records import Condition, Failure, PredictionsFile, Record
from mer_bench.runner import Opened, fault_of, weights_prefix

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mer_bench.api import Model, Split
    from mer_bench.predictions import DialogueCounts, Predictions

SAME_SCORE = 0.002
"""By how much weighted F1 may differ between threads or devices before weights are taken for another run's."""


def conditions_of(modalities: Sequence[str], utterances: Sequence[int], model_of: str) -> list[Condition]:
    """Every condition, masks of random rates one by one; none for a single modality.

    A rate that takes away no more than a lower one, since the last modality of an utterance stays, is left out.

    Args:
        utterances: Of the test split, or of each fold's.
        model_of: Identity of the run whose model is scored.
    """
    found = [
        Condition(name=f"only-{'-'.join(subset)}", present=subset, model_of=model_of)
        for subset in proper_subsets(modalities)
    ]
    pairs = sum(utterances) * len(modalities)
    for rate in reachable_rates(len(modalities)):
        gone = sum(pairs_missing(count, len(modalities), rate) for count in utterances)
        found += [
            Condition(
                name=f"missing-{rate:g}",
                present=tuple(modalities),
                rate=rate,
                reached=gone / pairs,
                mask=number,
                model_of=model_of,
            )
            for number in range(1, MASKS + 1)
        ]
    return found


def reachable_rates(modalities: int) -> tuple[float, ...]:
    """The rates of which each takes away more than the one before."""
    most = (modalities - 1) / modalities
    return tuple(rate for before, rate in zip((0.0, *RATES), RATES, strict=False) if before < most)


class TrainedRun:
    """A run that is done, with its trained models: one, or one a fold.

    Attributes:
        record: Of the run, on the complete test split.
    """

    def __init__(self, opened: Opened, record: Record, models: Sequence[Model]) -> None:
        self.opened = opened
        self.record = record
        self.models = models
        self.splits = [opened.split(store, "test") for store in opened.stores]

    def score(self, condition: Condition) -> Record:
        """Score the test split under a condition and write its record, unless it is there.

        Raises:
            RunError: If the model failed; a record of status `failed` says how.
        """
        recording = Recording(self.opened.plan, self.opened.stores, condition)
        found = recording.found()
        if found:
            return found
        recording.prepare()
        try:
            predictions = self.predictions(condition)
        except StorageError:
            raise
        except Exception as error:  # a plugin's code may fail in any way; the record says how
            known = isinstance(error, MerBenchError)
            failure = error if isinstance(error, MerBenchError) else fault_of(self.opened.plan.model, error)
            recording.write_failure(self._failed(recording, failure))
            if known:
                raise
            raise failure from error

        def describe(stored: Predictions | DialogueCounts, file: PredictionsFile) -> Record:
            from mer_bench.metrics import score, score_folds

            of_folds = score_folds(stored)
            folds = [fold.model_copy(update={"test": of_folds[fold.fold]}) for fold in self.record.folds]
            return self._changed(recording, test=score(stored), predictions=file, folds=folds)

        return recording.write(predictions, None, describe)

    def predictions(self, condition: Condition | None = None) -> Predictions:
        """What the models predict for the test split under a condition, or for the complete one."""
        from mer_bench.predictions import pooled

        parts = []
        for (fold, store), split, model in zip(self.opened.by_fold, self.splits, self.models, strict=True):
            given = split if condition is None else masked(split, _mask(split, condition, fold))
            parts.append(self.opened.predictions(store, given, model))
        return pooled(parts) if self.opened.plan.folds else parts[0]

    def agrees(self) -> bool:
        """Whether the models give the scores of the record: another run's weights do not."""
        from mer_bench.metrics import score

        assert self.record.test is not None
        return abs(score(self.predictions()).weighted_f1 - self.record.test.weighted_f1) <= SAME_SCORE

    def _failed(self, recording: Recording, error: MerBenchError) -> Record:
        failure = Failure(kind=type(error).__name__, reason=str(error))
        return self._changed(recording, status="failed", test=None, predictions=None, folds=[], failure=failure)

    def _changed(self, recording: Recording, **parts: Any) -> Record:
        """The record of the run with what the condition changes."""
        own = {"run": recording.name, "identity": recording.identity, "test_condition": recording.condition}
        return Record(**dict(self.record) | own | parts)


def trained_run(opened: Opened, record: Record) -> TrainedRun | None:
    """A run with the models that its weights file holds; None where that is gone or not this run's."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file: Path = Recording(opened.plan, opened.stores).weights
    models = []
    try:
        weights = load_file(file)
        for fold, store in opened.by_fold:
            prefix = weights_prefix(fold)
            model = opened.build(store)
            own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            model.load_state_dict(own)
            models.append(model.to(opened.device))
    except (OSError, SafetensorError, RuntimeError):  # the last: names or shapes that are not this model's
        return None
    found = TrainedRun(opened, record, models)
    return found if found.agrees() else None


def _mask(split: Split, condition: Condition, fold: int | None) -> dict[str, NDArray[np.bool_]]:
    names = tuple(split.features)
    if condition.rate is None or condition.mask is None:
        return only(split.utterance_count, names, condition.present)
    return random_mask(split.utterance_count, names, condition.rate, condition.mask, fold)
