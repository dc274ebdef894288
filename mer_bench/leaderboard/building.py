"""Entries → tables: which runs are one row, what each row is called, and all that its columns say.

A pure function of the entries: neither their order nor the machine changes a byte of what is written from it. Means are
rounded once from exact sums, and what comes out of drawn dialogues is rounded to six decimals.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from mer_bench.errors import RecordError
from mer_bench.leaderboard.across import across_tables
from mer_bench.leaderboard.gathering import Entry, in_processes
from mer_bench.leaderboard.published import published_for
from mer_bench.leaderboard.standing import Contender, Standing, Standings, stand
from mer_bench.leaderboard.table import (
    Boards,
    ClassFigure,
    Curve,
    FailedExperiment,
    Figure,
    Key,
    Pair,
    Row,
    Run,
    Setting,
    Table,
    Unscored,
)
from mer_bench.records import Scores

DECIMALS = 6
"""Of every computed number: a ten-thousandth of a percent, more than any table prints."""

_LONGEST_NAME = 180
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Experiment:
    """Runs that differ in nothing but the seed, or in the seed and the random mask that they were tested under.

    Attributes:
        done, failed: By seed and mask. A seed that is done is not failed.
    """

    label: str
    done: tuple[Entry, ...]
    failed: tuple[Entry, ...]

    @property
    def first(self) -> Entry:
        """One of its runs: model and settings are those of all."""
        return (self.done or self.failed)[0]

    @cached_property
    def by_seed(self) -> dict[int, tuple[Entry, ...]]:
        """The runs of each seed that is done: one, or one for each mask."""
        return {seed: tuple(group) for seed, group in _grouped(self.done, lambda entry: entry.seed).items()}

    @cached_property
    def weighted_f1(self) -> float:
        """Mean over the seeds of the mean over the masks."""
        return _fmean([_fmean([_test(entry).weighted_f1 for entry in group]) for group in self.by_seed.values()])

    @property
    def masks(self) -> tuple[int | None, ...]:
        """Numbers of the random masks; those of one seed, which are those of all that can be compared."""
        return tuple(sorted({_mask(entry) for entry in self.done}, key=lambda mask: mask or 0))

    @property
    def reasons(self) -> dict[int, str]:
        """Why runs failed, by seed."""
        return {entry.seed: entry.failure for entry in self.failed}

    @property
    def overrides(self) -> tuple[str, ...]:
        """Settings that somebody chose himself, as text: the fewest that any of the runs was asked for with."""
        texts = [tuple(f"{name}={_text(entry.overrides[name])}" for name in sorted(entry.overrides)) for entry in self]
        return min(texts, key=lambda names: (len(names), names))

    @property
    def setting(self) -> Setting:
        """Where the settings come from."""
        if self.first.external:
            return "external"
        if any(entry.tuned_trials is not None for entry in self):
            return "tuned"
        return "own settings" if self.overrides else "card settings"

    def __iter__(self) -> Any:
        return iter((*self.done, *self.failed))


@dataclass(frozen=True)
class Outline:
    """A table whose rows are known and not yet compared.

    Attributes:
        experiments: Those that have scores, best first. failed: Those of which no run was done.
    """

    key: Key
    name: str
    experiments: tuple[Experiment, ...]
    failed: tuple[Experiment, ...]


def outline(entries: Iterable[Entry]) -> tuple[Outline, ...]:
    """Which tables there are, and which rows they have, in the order of their names: quick, nothing is tested.

    Raises:
        RecordError: If runs of one table were not scored on the same utterances, or an experiment has a seed twice.
    """
    # Not the order of the entries but that of their identities decides wherever one of several has to be taken.
    by_key = _grouped(sorted(entries, key=lambda entry: entry.identity), lambda entry: entry.key)
    names = _names(by_key)
    return tuple(
        _outlined(key, names[key], by_key[key]) for key in sorted(by_key, key=lambda key: (names[key], _digest(key)))
    )


def build_boards(
    entries: Iterable[Entry], wanted: Callable[[Outline], bool] = lambda outline: True, processes: int = 1
) -> Boards:
    """All tables of some records, and what compares models across them.

    Args:
        entries: See `gathering.gather`.
        wanted: Which of the tables; curves of missing modalities come from the others all the same.
        processes: At most so many test the tables, where that is worth it; see `gathering.gather`.

    Raises:
        RecordError: As `outline`.
    """
    outlines = outline(entries)
    chosen = [each for each in outlines if wanted(each)]
    scored = [each for each in chosen if each.experiments]
    standings = in_processes(_standings, [each.experiments for each in scored], processes, _runs_of(scored))
    tables = tuple(_table(each, found, outlines) for each, found in zip(scored, standings, strict=True))
    return Boards(
        tables=tables,
        across=across_tables(tables),
        unscored=tuple(
            Unscored(name=each.name, key=each.key, failed=tuple(map(_failed, each.failed)))
            for each in chosen
            if not each.experiments
        ),
    )


# --- which tables and rows there are ---


def _outlined(key: Key, name: str, entries: Sequence[Entry]) -> Outline:
    done = [entry for entry in entries if entry.test is not None]
    for entry in done:
        _check_same_split(done[0], entry)
    by_label = _labelled(_grouped(entries, lambda entry: entry.sameness))
    experiments = [_experiment(label, group) for label, group in by_label.items()]
    scored = [each for each in experiments if each.done]
    return Outline(
        key=key,
        name=name,
        experiments=tuple(sorted(scored, key=lambda each: (-each.weighted_f1, each.label))),
        failed=tuple(sorted((each for each in experiments if not each.done), key=lambda each: each.label)),
    )


def _experiment(label: str, entries: Sequence[Entry]) -> Experiment:
    order = sorted(entries, key=lambda entry: (entry.seed, _mask(entry) or 0, entry.identity))
    done = [entry for entry in order if entry.test is not None]
    for entry, following in itertools.pairwise(done):
        if (entry.seed, _mask(entry)) == (following.seed, _mask(following)):
            raise RecordError(
                f"{entry.origin} and {following.origin} are two runs of {entry.model} with the same settings and the "
                f"same seed {entry.seed}. Keep one of them."
            )
    seeds = {entry.seed for entry in done}
    return Experiment(
        label, tuple(done), tuple(entry for entry in order if entry not in done and entry.seed not in seeds)
    )


def _check_same_split(first: Entry, entry: Entry) -> None:
    ours, theirs = first.split, entry.split
    assert ours is not None
    assert theirs is not None
    if ours.digest == theirs.digest:
        return
    if ours.classes != theirs.classes:
        what = f"other classes ({', '.join(theirs.classes)} rather than {', '.join(ours.classes)})"
    elif ours.dialogues != theirs.dialogues:
        what = f"other dialogues ('{min(set(ours.dialogues) ^ set(theirs.dialogues))}' is not in both)"
    else:
        row = int(np.flatnonzero((ours.labelled != theirs.labelled).any(axis=1))[0])
        what = f"other labels of dialogue '{ours.dialogues[row]}'"
    raise RecordError(
        f"{entry.origin} and {first.origin} belong to one table, but were scored on {what}: they are not of the same "
        "test split."
    )


def _labelled(groups: Mapping[str, Sequence[Entry]]) -> dict[str, Sequence[Entry]]:
    """A name for each row: the model, and where it has several rows what tells them apart."""
    by_model = _grouped(groups.values(), lambda group: group[0].model)
    found: dict[str, Sequence[Entry]] = {}
    for model, several in by_model.items():
        for told, group in zip(_told_apart(several), several, strict=True):
            found[f"{model} ({', '.join(told)})" if told else model] = group
    return found


def _told_apart(groups: Sequence[Sequence[Entry]]) -> list[tuple[str, ...]]:
    """Words for each of several rows of one model, different for each; none where it is alone and not of a stack."""
    first = [group[0] for group in groups]
    # Told of a row that is alone too: its seeds share the order of batches, and their cost is a share.
    told: list[tuple[str, ...]] = [(f"{len(entry.stack)} seeds stacked",) if entry.stack else () for entry in first]
    experiments = [Experiment("", tuple(group), ()) for group in groups]
    ways: list[Callable[[int], tuple[str, ...]]] = [
        lambda row: ("external",) if first[row].external else (),
        lambda row: (f"version {first[row].model_version}",),
        lambda row: (f"code {first[row].code[:8]}",) if first[row].code else (),
        lambda row: ("tuned",) if experiments[row].setting == "tuned" else experiments[row].overrides[:3],
        lambda row: _differing(first[row], [first[other] for other in alike(row)]),
        lambda row: (first[row].sameness[:8],),
    ]

    def alike(row: int) -> list[int]:
        return [other for other in range(len(groups)) if told[other] == told[row]]

    for way in ways:
        added: dict[int, tuple[str, ...]] = {}
        for row in range(len(groups)):
            if len({way(other) for other in alike(row)}) > 1:
                added[row] = way(row)
        for row, words in added.items():
            told[row] += words
    return told


def _differing(entry: Entry, others: Sequence[Entry]) -> tuple[str, ...]:
    """The first three settings that are not the same in all of them."""
    names = sorted({name for other in others for name in other.settings})
    texts = {name: {_text(other.settings.get(name)) for other in others} for name in names}
    return tuple(f"{name}={_text(entry.settings.get(name))}" for name in names if len(texts[name]) > 1)[:3]


def _names(keys: Iterable[Key]) -> dict[Key, str]:
    """A name of each table: its parts, and a checksum where two would have the same one."""
    plain = {key: _plain_name(key) for key in keys}
    counted = Counter(name.casefold() for name in plain.values())
    return {key: name if counted[name.casefold()] == 1 else f"{name}.{_digest(key)[:8]}" for key, name in plain.items()}


def _plain_name(key: Key) -> str:
    labels, features, protocol = (full.partition("/")[2] for full in (key.labels, key.features, key.protocol))
    version = f"-v{key.protocol_version}" if key.protocol_version != 1 else ""
    parts = [key.dataset, labels, features, f"{protocol}{version}", "-".join(key.modalities)]
    name = ".".join([*parts, *([key.condition] if key.condition else [])])
    # Becomes the name of files. Nothing checks a record's modalities but that they are texts.
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    return safe if len(safe) <= _LONGEST_NAME else f"{safe[:_LONGEST_NAME]}.{_digest(key)[:8]}"


def _digest(key: Key) -> str:
    return hashlib.sha256(key.model_dump_json().encode()).hexdigest()


# --- what the rows say ---


def _runs_of(outlines: Sequence[Outline]) -> int:
    return sum(len(experiment.done) for each in outlines for experiment in each.experiments)


def _table(outlined: Outline, standings: Standings, others: Sequence[Outline]) -> Table:
    experiments, key = outlined.experiments, outlined.key
    split = experiments[0].done[0].split
    assert split is not None
    return Table(
        key=key,
        name=outlined.name,
        classes=split.classes,
        test_dialogues=len(split.dialogues),
        test_utterances=int(split.labelled.sum()),
        rows=tuple(_row(each, standing) for each, standing in zip(experiments, standings.rows, strict=True)),
        pairs=tuple(_rounded_pair(pair) for pair in standings.pairs),
        resamples=standings.resamples,
        published=() if key.synthetic or key.condition else published_for(key.dataset, key.labels),
        missing=() if key.condition else tuple(_curves(outlined, others)),
        failed=tuple(map(_failed, outlined.failed)),
    )


def _standings(experiments: Sequence[Experiment]) -> Standings:
    """Of all rows; one that was not tested under the same masks as the others has none."""
    usual = max((each.masks for each in experiments), key=len)
    chosen = [all(tuple(map(_mask, group)) == usual for group in each.by_seed.values()) for each in experiments]
    found = stand([_contender(each) for each, taken in zip(experiments, chosen, strict=True) if taken])
    rows = iter(found.rows)
    return Standings(tuple(next(rows) if taken else None for taken in chosen), found.pairs, found.resamples)


def _contender(experiment: Experiment) -> Contender:
    runs = tuple(entry.counts() for group in experiment.by_seed.values() for entry in group)
    return Contender(experiment.label, runs, len(runs) // len(experiment.by_seed))


def _row(experiment: Experiment, standing: Standing | None) -> Row:
    first = experiment.first
    names = list(_test(first).classes)
    figure = _Figures(experiment)
    tuned = [entry.tuned_trials for entry in experiment if entry.tuned_trials is not None]
    weighted_f1 = figure.of(lambda entry: _test(entry).weighted_f1)
    assert weighted_f1 is not None
    if standing:
        weighted_f1 = weighted_f1.model_copy(update={"low": _rounded(standing.low), "high": _rounded(standing.high)})
    return Row(
        label=experiment.label,
        model=first.model,
        rank=standing.rank if standing else None,
        setting=experiment.setting,
        trials=max(tuned, default=None),
        overrides=experiment.overrides,
        selection_rule=first.selection_rule,
        seeds=tuple(experiment.by_seed),
        failed=experiment.reasons,
        weighted_f1=weighted_f1,
        dev=figure.of(lambda entry: entry.dev),
        accuracy=figure.sure(lambda scores: scores.accuracy),
        macro_f1=figure.sure(lambda scores: scores.macro_f1),
        uar=figure.sure(lambda scores: scores.uar),
        calibration_error=figure.of(lambda entry: _test(entry).calibration_error),
        emotion_shift_accuracy=figure.of(lambda entry: _test(entry).emotion_shift_accuracy),
        classes={name: _class_figure(figure, name) for name in names},
        confusion=_confusion(experiment),
        selection_gap=figure.of(_gap, some=True),
        parameters=_whole(figure.of(lambda entry: entry.parameters)),
        train_seconds=_mean(figure.of(lambda entry: entry.seconds)),
        memory_bytes=_whole(figure.of(lambda entry: entry.memory_bytes)),
        device=", ".join(sorted({entry.device for entry in experiment.done if entry.device})) or None,
        threads=_agreed({entry.threads for entry in experiment.done}),
        effect_size=_rounded(standing.effect_size) if standing else None,
        superiority=_rounded(standing.superiority) if standing else None,
        runs=tuple(map(_run, experiment.done)),
    )


class _Figures:
    """Means over the seeds of an experiment; what a seed says is its mean over the masks."""

    def __init__(self, experiment: Experiment) -> None:
        self._seeds = list(experiment.by_seed.values())

    def of(self, value: Callable[[Entry], float | None], some: bool = False) -> Figure | None:
        """The mean of a value; None where it is missing.

        Args:
            some: Of those seeds that have the value, rather than of all or none.
        """
        seeds = [[value(entry) for entry in group] for group in self._seeds]
        whole = [_fmean([found for found in group if found is not None]) for group in seeds if None not in group]
        if not whole or (len(whole) < len(seeds) and not some):
            return None
        return Figure(mean=_rounded(_fmean(whole)), sd=_rounded(_deviation(whole)))

    def sure(self, value: Callable[[Scores], float]) -> Figure:
        """The mean of a score that every run has."""
        found = self.of(lambda entry: value(_test(entry)))
        assert found is not None
        return found


def _class_figure(figure: _Figures, name: str) -> ClassFigure:
    precision, recall, f1, support = (
        figure.sure(lambda scores, part=part: getattr(scores.classes[name], part))  # type: ignore[misc]
        for part in ("precision", "recall", "f1", "support")
    )
    return ClassFigure(
        precision=precision.mean, recall=recall.mean, f1=f1.mean, f1_sd=f1.sd, support=round(support.mean)
    )


def _confusion(experiment: Experiment) -> tuple[tuple[int, ...], ...]:
    total = np.sum([_test(entry).confusion for entry in experiment.done], axis=0)
    return tuple(tuple(map(int, row)) for row in total)


def _gap(entry: Entry) -> float | None:
    if entry.best_on_test is None or entry.chosen_on_dev is None:
        return None
    return entry.best_on_test - entry.chosen_on_dev


def _run(entry: Entry) -> Run:
    return Run(
        run=entry.run,
        seed=entry.seed,
        weighted_f1=_rounded(_test(entry).weighted_f1),
        dev=_rounded(entry.dev),
        epoch=entry.epoch,
        curve=tuple((epoch, _rounded(loss), _rounded(dev)) for epoch, loss, dev in entry.curve),
        audit=tuple((epoch, _rounded(score)) for epoch, score in entry.audit),
        best_on_test=_rounded(entry.best_on_test),
    )


def _failed(experiment: Experiment) -> FailedExperiment:
    return FailedExperiment(label=experiment.label, model=experiment.first.model, failed=experiment.reasons)


def _curves(outlined: Outline, others: Sequence[Outline]) -> list[Curve]:
    """Of each row whose models were tested under conditions too: how its score falls."""
    whole = outlined.key.model_copy(update={"condition": None})
    under = [other for other in others if other.key.condition and _complete(other.key) == whole]
    found = []
    for experiment in outlined.experiments:
        own = {entry.identity: entry.seed for entry in experiment.done}
        rates: dict[float, float] = {}
        only: dict[str, float] = {}
        for other in under:
            scored = [
                entry
                for each in other.experiments
                for entry in each.done
                if entry.condition and entry.condition.model_of in own
            ]
            if not scored:
                continue
            condition = scored[0].condition
            assert condition is not None
            mean = _rounded(Experiment("", tuple(scored), ()).weighted_f1)
            if condition.rate is None:
                only[condition.name] = mean
            else:
                rates[condition.rate] = mean
        if rates or only:
            rates = {0.0: _rounded(experiment.weighted_f1), **rates}
            found.append(
                Curve(label=experiment.label, rates=tuple(sorted(rates.items())), only=dict(sorted(only.items())))
            )
    return found


def _complete(key: Key) -> Key:
    return key.model_copy(update={"condition": None})


# --- numbers ---


def _test(entry: Entry) -> Scores:
    assert entry.test is not None  # of a run that is done
    return entry.test


def _mask(entry: Entry) -> int | None:
    return entry.condition.mask if entry.condition else None


def _fmean(values: Sequence[float]) -> float:
    """The mean, rounded once: the same whatever the order and the machine."""
    return statistics.fmean(values)


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _rounded(value: _Value) -> _Value:
    """To `DECIMALS`; None stays None."""
    if isinstance(value, float):
        return round(value, DECIMALS) + 0.0  # type: ignore[return-value]  # no negative zero
    return value


def _rounded_pair(pair: Pair) -> Pair:
    return pair.model_copy(
        update={name: _rounded(getattr(pair, name)) for name in ("difference", "low", "high", "p_value", "adjusted")}
    )


def _mean(figure: Figure | None) -> float | None:
    return None if figure is None else figure.mean


def _whole(figure: Figure | None) -> int | None:
    return None if figure is None else round(figure.mean)


def _agreed(values: set[_Value]) -> _Value | None:
    """The one value of all; None where they differ."""
    return next(iter(values)) if len(values) == 1 else None


def _text(value: Any) -> str:
    """A setting as `--set` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return str(value)


_Item = TypeVar("_Item")
_Group = TypeVar("_Group")


def _grouped(items: Iterable[_Item], of: Callable[[_Item], _Group]) -> dict[_Group, list[_Item]]:
    groups: defaultdict[_Group, list[_Item]] = defaultdict(list)
    for item in items:
        groups[of(item)].append(item)
    return dict(groups)
