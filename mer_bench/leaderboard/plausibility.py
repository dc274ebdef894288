"""Checks of a record by itself: do its parts follow from each other, and can they be true?

Each function looks at one claim of a record and yields what it found. What was measured elsewhere (a loss, seconds)
cannot be computed again; what follows from it can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from mer_bench.cards import DatasetCard
from mer_bench.errors import RecordError
from mer_bench.identity import external_identity, identity_of, run_name
from mer_bench.leaderboard.findings import Finding, not_checked, passed, refused
from mer_bench.metrics import METRICS, score
from mer_bench.predictions import DialogueCounts, Predictions
from mer_bench.records import EXTERNAL_FEATURES, Audit, Cost, Epoch, Record, Scores, Selection, predictions_file

LAST_BITS: Mapping[str, float] = {"weighted_f1": 1e-15, "macro_f1": 1e-15, "uar": 1e-15, "calibration_error": 1e-12}
"""By how much another machine's sums may differ. Every other score is one division of whole numbers, alike anywhere."""

_LONGEST_SECONDS = 366 * 86400.0
_MOST_BYTES = 1 << 47
_MOST_EPOCHS_PER_SECOND = 1e6
_PATH = re.compile(r"(?:^|[\s\"'=:(])(?:/(?:[\w.-]+/)+|~/|[A-Za-z]:\\\\?[\w])", re.MULTILINE)


@dataclass(frozen=True)
class _Part:
    """A run, or a fold of one: what was trained, chosen and tested by itself."""

    where: str
    curve: Sequence[Epoch]
    selection: Selection
    dev: Scores
    test: Scores
    audit: Audit | None


def _parts(record: Record) -> list[_Part]:
    if record.folds:
        return [
            _Part(f"fold {each.fold}: ", each.curve, each.selection, each.dev, each.test, each.audit)
            for each in record.folds
        ]
    if record.selection is None or record.dev is None or record.test is None:
        return []
    return [_Part("", record.curve, record.selection, record.dev, record.test, record.audit)]


def check_names(record: Record, file: Path) -> Iterator[Finding]:
    """The names of run and files follow from model, features, seed, condition and identity."""
    features = record.features.partition("/")[2]
    right = run_name(record.model, features, record.seed, record.test_condition, record.identity)
    if record.run != right:
        yield refused("names", f"run is {record.run}, but what the record says makes it {right}")
    elif file.name != f"{record.run}.json":
        yield refused("names", f"the file is called {file.name}, but the record is of the run {record.run}")
    elif record.predictions and record.predictions.file != predictions_file(file.parent, record.run).name:
        yield refused(
            "names", f"its predictions are called {record.predictions.file}, not {record.run}.predictions.npz"
        )
    else:
        yield passed("names", "the names of run and files follow from the record")


def check_identity(record: Record, card: DatasetCard | None) -> Iterator[Finding]:
    """The identity is the checksum of all that decides the result, so that a setting changed by hand shows."""
    # A record does not tell the version of the dataset's card: it is one that there has been.
    versions = range(1, card.version + 1) if card else range(1, 10)
    fits = [version for version in versions if identity_of(record, version, record.test_condition) == record.identity]
    if not fits and card is None:
        yield not_checked("identity", f"the version of {record.dataset} is not known here")
    elif not fits:
        yield refused(
            "identity",
            "its identity is not that of what it says of data, model, settings, training and seed: "
            "one of these was changed after the run",
        )
    elif record.test_condition and identity_of(record, fits[0], None) != record.test_condition.model_of:
        yield refused("identity", "test_condition.model_of is not the identity of the run whose model this is")
    else:
        yield passed("identity", "follows from data, model, settings, training and seed")


def check_external_identity(
    record: Record, card: DatasetCard | None, outcomes: Predictions | DialogueCounts | None
) -> Iterator[Finding]:
    """The identity of external predictions is the checksum of what was predicted and where it stands."""
    if card is None or not isinstance(outcomes, Predictions):
        yield not_checked("identity", "only with predictions by utterance, of a dataset that is known here")
        return
    for version in range(1, card.version + 1):
        found = external_identity(
            dataset=record.dataset,
            dataset_version=version,
            labels=record.labels,
            features=record.features,
            sources=record.sources,
            protocol=record.protocol,
            protocol_version=record.protocol_version,
            modalities=record.modalities,
            name=record.model,
            seed=record.seed,
            predictions=outcomes,
        )
        if found == record.identity:
            yield passed("identity", "follows from the name, what was predicted and what it is about")
            return
    yield refused("identity", "its identity is not that of its name, its predictions and what they are about")


def check_card(record: Record, card: DatasetCard) -> Iterator[Finding]:
    """Label set, feature set and protocol are those of the dataset's card, in the version it has today."""
    labels, features, protocol = (name.partition("/")[2] for name in (record.labels, record.features, record.protocol))
    if record.synthetic != card.synthetic:
        made_up = "made up" if card.synthetic else "real"
        yield refused("dataset", f"synthetic is {str(record.synthetic).lower()}, but {record.dataset} is {made_up}")
    else:
        yield passed("dataset", "is known here")
    if protocol not in card.protocols:
        yield refused("protocol", f"{record.dataset} has no protocol {protocol}")
    elif record.protocol_version != card.protocols[protocol].version:
        yield refused(
            "protocol",
            f"it was run under version {record.protocol_version} of {record.protocol}, "
            f"but that is at version {card.protocols[protocol].version}",
        )
    else:
        yield from _check_protocol(record, card, protocol)
    if labels not in card.label_sets:
        yield refused("labels", f"{record.dataset} has no label set {labels}")
    elif (scores := record.test or record.dev) is None:
        yield not_checked("labels", "the run failed")
    else:
        yield from _check_labels(record, scores, card.label_sets[labels].classes)
    if record.kind == "external" and features == EXTERNAL_FEATURES:
        yield passed("features", "its own, which stand in no table with others")
    elif features not in card.feature_sets:
        yield refused("features", f"{record.dataset} has no feature set {features}")
    else:
        yield from _check_features(record, card.feature_sets[features].widths)


def _check_labels(record: Record, scores: Scores, classes: Sequence[str]) -> Iterator[Finding]:
    given = [scores, *([record.dev] if record.dev else []), *(fold.dev for fold in record.folds)]
    wrong = next((each for each in given if list(each.classes) != list(classes)), None)
    if wrong:
        yield refused(
            "labels", f"its classes are {', '.join(wrong.classes)}, but {record.labels} has {', '.join(classes)}"
        )
    else:
        yield passed("labels", f"the {len(classes)} classes of {record.labels}, in their order")


def _check_protocol(record: Record, card: DatasetCard, name: str) -> Iterator[Finding]:
    protocol = card.protocols[name]
    parts = _parts(record)
    metrics = {part.selection.metric for part in parts}
    if record.status == "done" and parts and len(record.folds) != protocol.folds:
        yield refused("protocol", f"it has {len(record.folds)} folds, but {record.protocol} has {protocol.folds}")
    elif metrics - {protocol.selection}:
        yield refused(
            "protocol", f"its epoch was chosen on dev {metrics.pop()}, but {record.protocol} says {protocol.selection}"
        )
    else:
        yield passed("protocol", f"version {protocol.version}")


def _check_features(record: Record, widths: Mapping[str, int]) -> Iterator[Finding]:
    if record.features_detail is None:  # predictions of a system with features of its own
        return
    told = record.features_detail.widths
    if sorted(told) != sorted(record.modalities) or len(set(record.modalities)) != len(record.modalities):
        yield refused(
            "features", f"modalities are {', '.join(record.modalities)}, but there are widths of {', '.join(told)}"
        )
        return
    for name, width in told.items():
        if name not in widths:
            yield refused("features", f"{record.features} has no {name}")
            return
        if widths[name] not in (0, width):  # 0: the data decide
            yield refused("features", f"{name} is {width} wide, but in {record.features} it is {widths[name]}")
            return
    yield passed("features", "the modalities of the feature set, in their widths")


def check_settings(record: Record) -> Iterator[Finding]:
    """What was asked for is what was used."""
    asked = record.options.get("settings", {})
    used = {**record.settings, **record.training}
    wrong = (
        [name for name in asked if name not in used or used[name] != asked[name]] if isinstance(asked, dict) else ["?"]
    )
    if wrong:
        name = wrong[0]
        yield refused("settings", f"options asked for {name}, but settings and training hold another value of it")
    else:
        yield passed("settings", "hold what the options asked for")


def differing(key: str, told: Any, computed: Any, tolerance: Mapping[str, float] = LAST_BITS) -> str:
    """The first score that differs from the one that was computed again, in words; "" where none does."""
    if isinstance(told, dict) and isinstance(computed, dict):
        if list(told) != list(computed):
            return (
                f"{key} is about {', '.join(told) or 'nothing'}, but should be about {', '.join(computed) or 'nothing'}"
            )
        pairs = [(f"{key}.{name}", told[name], computed[name]) for name in told]
    elif isinstance(told, list) and isinstance(computed, list) and len(told) == len(computed):
        pairs = [(f"{key}[{place}]", *pair) for place, pair in enumerate(zip(told, computed, strict=True))]
    elif isinstance(told, float) and isinstance(computed, float):
        near = abs(told - computed) <= tolerance.get(key.rpartition(".")[2], 0.0)
        return "" if near else f"{key} is {told!r}, but should be {computed!r}"
    else:
        return "" if told == computed else f"{key} is {told!r}, but should be {computed!r}"
    return next(filter(None, (differing(*pair, tolerance) for pair in pairs)), "")


def check_dev(record: Record) -> Iterator[Finding]:
    """Dev scores follow from their own confusion matrix, and are those of the chosen epoch in the curve."""
    given = [(f"{part.where}dev", part.dev) for part in _parts(record)]
    if record.folds and record.dev:
        given.append(("dev", record.dev))
        summed = np.sum([np.array(fold.dev.confusion) for fold in record.folds], axis=0).tolist()
        if summed != record.dev.confusion:
            yield refused("dev", "dev.confusion is not the sum of that of the folds")
            return
    for key, scores in given:
        if told := _against_its_confusion(key, scores):
            yield refused("dev", told)
            return
    for part in _parts(record):
        chosen = [epoch for epoch in part.curve if epoch.epoch == part.selection.epoch]
        for name in METRICS if chosen else ():
            there, value = chosen[0].dev.get(name), getattr(part.dev, name)
            if there != value:
                yield refused(
                    "dev", f"{part.where}dev.{name} is {value}, but the curve has {there} at the chosen epoch"
                )
                return
    yield passed("dev", "follow from their confusion matrix and the curve, but for calibration and named parts")


def _against_its_confusion(key: str, scores: Scores) -> str:
    """Whether scores are what their own confusion matrix gives, as far as that tells."""
    shifts = scores.emotion_shift_support
    right = round((scores.emotion_shift_accuracy or 0.0) * shifts)
    try:
        counts = DialogueCounts(
            classes=tuple(scores.classes),
            dialogues=("all",),
            confusion=np.array([scores.confusion]),
            shift=np.array([[right, shifts]]),
            calibration=None,
        )
        computed = score(counts)
    except RecordError as error:
        return f"{key} contradicts itself: {str(error).rstrip('.')}"
    untold: dict[str, Any] = {"calibration_error": None, "subsets": {}}
    return differing(key, scores.model_dump() | untold, computed.model_dump() | untold)


def check_selection(record: Record) -> Iterator[Finding]:
    """The chosen epoch is in the curve and is the best one by the stated rule, and training ended as is said."""
    for part in _parts(record):
        if told := next(_selection_faults(part, record.training), ""):
            yield refused("selection", f"{part.where}{told}")
            return
    yield passed("selection", "the epoch that is best on dev, the earliest of equals")


def _selection_faults(part: _Part, training: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a choice; whoever goes on after the first fault does so at his own risk."""
    curve, chosen, metric = part.curve, part.selection, part.selection.metric
    numbers = [epoch.epoch for epoch in curve]
    if numbers != list(range(1, len(numbers) + 1)):
        yield "the epochs of its curve are not numbered from 1 on"
    if metric not in METRICS:
        yield f"its epoch was chosen on dev {metric}, which is no metric"
    if chosen.rule != f"best dev {metric}, the earliest of equals":
        yield f"its epoch was chosen by another rule than that of the benchmark: {chosen.rule}"
    lacking = next((epoch.epoch for epoch in curve if metric not in epoch.dev), None)
    if lacking:
        yield f"epoch {lacking} of its curve has no dev {metric}"
    if chosen.epoch not in numbers:
        yield f"epoch {chosen.epoch} was chosen, but its curve has {len(numbers)}"
    sign = 1 if METRICS[metric].higher_is_better else -1
    best = max(curve, key=lambda epoch: (sign * epoch.dev[metric], -epoch.epoch))
    if best.epoch != chosen.epoch:
        yield (
            f"epoch {chosen.epoch} was chosen with dev {metric} {curve[chosen.epoch - 1].dev[metric]}, "
            f"but epoch {best.epoch} has {best.dev[metric]}"
        )
    if chosen.score != sign * best.dev[metric]:
        yield f"selection.score is {chosen.score}, but the curve has {sign * best.dev[metric]} at the chosen epoch"
    impossible = next(
        ((epoch.epoch, name) for epoch in curve for name, value in epoch.dev.items() if not _can_be(name, value)), None
    )
    if impossible:
        yield f"dev {impossible[1]} of epoch {impossible[0]} cannot be {curve[impossible[0] - 1].dev[impossible[1]]}"
    patience, most = training.get("patience"), training.get("epochs")
    right = {"patience": chosen.epoch + patience if isinstance(patience, int) else None, "epochs": most, "fitted": 1}
    ends = right[chosen.ended]
    if ends is not None and len(curve) != ends:
        yield f"training ended by {chosen.ended}, which makes {ends} epochs, but its curve has {len(curve)}"


def _can_be(name: str, value: float) -> bool:
    return 0 <= value <= 1 if name in METRICS else name != "loss" or value >= 0


def check_cost(record: Record) -> Iterator[Finding]:
    """Seconds, memory and epochs can be true together."""
    cost: Cost | None = record.cost
    if cost is None:
        yield not_checked("cost", "what it took was not measured")
        return
    epochs = sum(len(part.curve) for part in _parts(record)) if record.test_condition is None else 0
    least = epochs / (cost.epochs_per_second + 0.0001) if cost.epochs_per_second else 0.0
    faults = {
        f"wall_seconds cannot be {cost.wall_seconds:g}": not 0 < cost.wall_seconds <= _LONGEST_SECONDS,
        f"epochs_per_second cannot be {cost.epochs_per_second:g}": cost.epochs_per_second > _MOST_EPOCHS_PER_SECOND
        or (epochs > 0 and record.status == "done" and cost.epochs_per_second == 0),
        f"{epochs} epochs at {cost.epochs_per_second:g} a second take {least:.1f} s, but the whole run took "
        f"{cost.wall_seconds:g} s": least > 1.05 * cost.wall_seconds + 0.1,
        f"memory_bytes cannot be {cost.memory_bytes}": not 0 < cost.memory_bytes <= _MOST_BYTES,
        f"{cost.parameters} parameters do not fit into {cost.memory_bytes} bytes": 2 * cost.parameters
        > max(cost.memory_bytes, 1),
    }
    wrong = [said for said, is_wrong in faults.items() if is_wrong]
    yield refused("cost", wrong[0]) if wrong else passed("cost", "seconds, epochs and memory can be true together")


def check_audit(record: Record) -> Iterator[Finding]:
    """The audit is about this run: its chosen epoch has the run's own test score, and no other is better than best."""
    if record.audit is None:
        return
    for part in [*_parts(record), *([_whole(record)] if record.folds else [])]:
        if part.audit is not None and (told := next(_audit_faults(part, part.audit), "")):
            yield refused("audit", f"{part.where}{told}")
            return
    yield passed("audit", "the chosen epoch has the run's own test score, and the best one is the best")


def _whole(record: Record) -> _Part:
    assert record.dev is not None
    assert record.test is not None
    return _Part("", [], record.folds[0].selection, record.dev, record.test, record.audit)


def _audit_faults(part: _Part, audit: Audit) -> Iterator[str]:
    """What is wrong with an audit; only the first fault is to be relied on."""
    metric = part.selection.metric
    if audit.metric != metric:
        yield f"the audit is of {audit.metric}, but the epoch was chosen on {metric}"
    own = getattr(part.test, metric, None) if metric in METRICS else None
    if own is not None and own != audit.chosen:
        yield f"audit.chosen is {audit.chosen}, but the run's test {metric} is {own}"
    if not _can_be(metric, audit.best):
        yield f"audit.best cannot be {audit.best}"
    if not audit.epochs or metric not in METRICS:
        return
    sign = 1 if METRICS[metric].higher_is_better else -1
    lacking = next((each.epoch for each in audit.epochs if metric not in each.test), None)
    if lacking:
        yield f"epoch {lacking} of the audit has no test {metric}"
    best = max(audit.epochs, key=lambda each: (sign * each.test[metric], -each.epoch))
    if best.epoch != audit.best_epoch:
        yield f"audit.best_epoch is {audit.best_epoch}, but epoch {best.epoch} is better: {best.test[metric]}"
    if part.selection.epoch > len(audit.epochs):
        yield f"the audit has no epoch {part.selection.epoch}, which was chosen"
    chosen = audit.epochs[part.selection.epoch - 1].test
    for name, value in chosen.items():
        of_test = getattr(part.test, name, None) if name in METRICS else None
        if of_test is not None and of_test != value:
            yield f"the audit says that the chosen epoch has test {name} {value}, but the run has {of_test}"


def check_text(record: Record, text: str, now: datetime) -> Iterator[Finding]:
    """Nothing of a machine's folders stands in it, and it is not from the future."""
    path = _PATH.search(text)
    if path:
        line = text[: path.start() + 1].count("\n") + 1
        yield refused("privacy", f"line {line} holds a path of some machine")
    else:
        yield passed("privacy", "no path of any machine")
    try:
        started = datetime.fromisoformat(record.started)
        started = started if started.tzinfo else started.replace(tzinfo=UTC)
    except ValueError:
        yield refused("time", f"started is no time: {record.started[:40]!r}")
        return
    if started > now + timedelta(days=1):
        yield refused("time", f"it was started in the future: {record.started}")
    else:
        yield passed("time", "not from the future")


def what_decides(record: Record) -> str:
    """Equal for two records of the same run, whatever identity they state."""
    if record.kind == "external":
        return record.identity
    return identity_of(record, 0, record.test_condition)
