"""Records that somebody hands in: is what they say what their predictions give, and are those his own?

A record is compared with its own predictions, with the dataset's card, with the records that are there already, with
the others that are handed in beside it, and with a prepared store where this machine has one. What there is nothing
to compare with is told as not checked, never as right. Works without torch and without data.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from mer_bench import registry
from mer_bench.cards import DatasetCard
from mer_bench.errors import MerBenchError, RecordError, RequestError, UnknownNameError, nearest_names
from mer_bench.identity import split_checksum
from mer_bench.leaderboard import plausibility
from mer_bench.leaderboard.copies import Alike, alike, same_curves
from mer_bench.leaderboard.findings import Finding, not_checked, passed, refused
from mer_bench.leaderboard.layout import Layout, difference, layout_of
from mer_bench.leaderboard.plausibility import differing
from mer_bench.metrics import count_dialogues, score, score_folds
from mer_bench.predictions import Decoder, DialogueCounts, Predictions
from mer_bench.records import Record, predictions_file, read_record

_COMMIT_LETTERS = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class Prepared:
    """What a prepared store on this machine says of a table.

    Attributes:
        sources: SHA-256 of what its features were made from.
        test: Its test split; what is predicted in it is not looked at.
    """

    sources: str
    test: Predictions


@dataclass(frozen=True)
class Checked:
    """A record and all that was found.

    Attributes:
        record: None where the file is no valid record.
    """

    file: Path
    record: Record | None
    findings: tuple[Finding, ...]

    @property
    def reasons(self) -> tuple[Finding, ...]:
        """Why it is refused; empty where it is not."""
        return tuple(each for each in self.findings if each.state == "refused")


def find_records(paths: Sequence[Path]) -> list[Path]:
    """The records among files and folders, each once.

    Raises:
        RequestError: If a path is not there, is no record's file, or a folder holds none.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*.json") if file.is_file() and not _is_hidden(file, path))
            if not files:
                raise RequestError(f"{path} holds no records; a record is a .json file with its predictions beside it.")
        elif not path.exists():
            raise RequestError(f"{path} is not there; give records, or folders that hold them.")
        elif path.suffix != ".json":
            raise RequestError(f"{path} is no record; give the .json file, and let its predictions lie beside it.")
        else:
            files = [path]
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _is_hidden(file: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(below).parts)


def check_records(
    files: Sequence[Path],
    against: Sequence[Path] = (),
    *,
    data_root: Path | None = None,
    prepared: Callable[[Record], Prepared | None] = lambda record: None,
    heard: Callable[[int, int], None] = lambda done, count: None,
) -> list[Checked]:
    """Check records, each with all checks.

    Args:
        files: The records that are handed in.
        against: Records that are trusted; those of them that are handed in themselves are left aside.
        data_root: Where a user's own datasets are found.
        prepared: What a prepared store on this machine says of a record's table; None where there is none.
        heard: Called after each file that was read: how many, of how many.
    """
    handed_in = {file.resolve() for file in files}
    others = [file for file in against if file.resolve() not in handed_in]
    known, decoder = _Known(prepared), Decoder()
    cases: list[_Case] = []
    datasets: set[str] = set()
    count = len(files) + len(others)
    for place, file in enumerate([*files, *others]):
        case = _Case(file, is_trusted=place >= len(files))
        record = case.read()
        if record and not case.is_trusted:
            datasets.add(record.dataset)
        if record and record.dataset in datasets:  # those of other corpora say nothing of these
            case.compare(record, decoder)
            cases.append(case)
        elif not case.is_trusted:
            cases.append(case)
        heard(place + 1, count)
    # What is damaged among those that are trusted says nothing about what is handed in.
    cases = [case for case in cases if not case.is_trusted or (case.record and not case.reasons)]
    for case in cases:
        known.add(case)
    given = [case for case in cases if not case.is_trusted]
    commits = _known_commits({case.record.machine.commit for case in given if case.record and case.record.machine})
    now = datetime.now(UTC)
    for case in given:
        if case.record is not None:
            case.findings += _findings(case, case.record, known, data_root, commits, now)
    _compare_with_each_other(cases)
    return [Checked(case.file, case.record, tuple(case.findings)) for case in given]


@dataclass
class _Case:
    """A record's file, what was read of it, and what was found.

    Attributes:
        text: Its content, as far as it can be read. outcomes: Its predictions; None where there are none.
    """

    file: Path
    is_trusted: bool
    text: str = ""
    record: Record | None = None
    outcomes: Predictions | DialogueCounts | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For sentences."""
        return self.file.stem

    @property
    def reasons(self) -> list[Finding]:
        return [each for each in self.findings if each.state == "refused"]

    @cached_property
    def layout(self) -> Layout | None:
        """Of its test split, where its predictions could be read."""
        return None if self.outcomes is None else layout_of(self.outcomes)

    def read(self) -> Record | None:
        """Read the record; None if it is not valid."""
        try:
            self.record = read_record(self.file)
            self.text = self.file.read_text(encoding="utf-8")
        except (MerBenchError, OSError, UnicodeDecodeError) as error:
            self.findings.append(refused("schema", str(error).rstrip(".")))
            return None
        self.findings.append(passed("schema", "a valid record"))
        return self.record

    def compare(self, record: Record, decoder: Decoder) -> None:
        """Read its predictions, and compare the two."""
        if record.predictions is None:
            self.findings += [not_checked(name, "the run failed") for name in ("predictions", "metrics")]
            return
        told = self._read_predictions(record, decoder)
        if told:
            self.findings += [refused("predictions", told), not_checked("metrics", "there are no valid predictions")]
            return
        self.findings.append(passed("predictions", "the file that the record was written with"))
        self.findings.append(self._check_metrics(record))

    def _read_predictions(self, record: Record, decoder: Decoder) -> str:
        """Read the predictions; returns what is wrong with them, or ""."""
        assert record.predictions is not None
        file = predictions_file(self.file.parent, self.file.stem)
        if not file.exists():  # then names are wrong, which is told of elsewhere
            file = self.file.with_name(record.predictions.file)
        try:
            content = file.read_bytes()
        except OSError as error:
            return f"{file.name} cannot be read: {error.strerror}; it should lie beside the record"
        checksum = hashlib.sha256(content).hexdigest()
        if checksum != record.predictions.sha256:
            return (
                f"{file.name} is not the file that the record was written with: its SHA-256 is {checksum[:12]}…, "
                f"and the record says {record.predictions.sha256[:12]}…"
            )
        try:
            self.outcomes = decoder.decode(content)
        except RecordError as error:
            return f"{file.name} is not valid: {str(error).rstrip('.')}"
        if self.outcomes.utterances != record.predictions.utterances:
            return (
                f"predictions.utterances is {record.predictions.utterances}, "
                f"but {file.name} has {self.outcomes.utterances}"
            )
        return ""

    def _check_metrics(self, record: Record) -> Finding:
        assert self.outcomes is not None
        assert record.test is not None
        counts = self.outcomes if isinstance(self.outcomes, DialogueCounts) else count_dialogues(self.outcomes)
        written = {"test": record.test} | {f"folds.{fold.fold}.test": fold.test for fold in record.folds}
        try:
            computed = {"test": score(counts)}
            if record.kind == "run":  # what others predicted for all folds is scored together
                computed |= {f"folds.{number}.test": found for number, found in score_folds(counts).items()}
        except RecordError as error:
            return refused("metrics", str(error).rstrip("."))
        if list(written) != list(computed):
            return refused(
                "metrics", f"the record has {len(record.folds)} folds, but its predictions have {len(computed) - 1}"
            )
        pairs = ((key, told.model_dump(), computed[key].model_dump()) for key, told in written.items())
        wrong = next(filter(None, (differing(*pair) for pair in pairs)), "")
        if wrong:
            return refused("metrics", f"{wrong} by its predictions: one of the two was changed after the run")
        return passed("metrics", "every test score is what the predictions give")


def _findings(
    case: _Case, record: Record, known: _Known, data_root: Path | None, commits: dict[str, bool], now: datetime
) -> Iterator[Finding]:
    """All checks of a valid record but those that look at others' predictions."""
    card, told = _card_of(record, data_root)
    yield from plausibility.check_names(record, case.file)
    if record.kind == "external":
        yield from plausibility.check_external_identity(record, card, case.outcomes)
    else:
        yield from plausibility.check_identity(record, card)
    if card is None:
        yield refused("dataset", told)
    else:
        yield from plausibility.check_card(record, card)
        yield from _check_licence(case, card)
    yield known.check_sources(case, record)
    if record.features_detail is not None:
        yield known.check_widths(case, record)
    yield known.check_utterances(case, record, card)
    if record.kind == "external":
        yield from _check_stated(case, record, now)
        return
    yield from plausibility.check_settings(record)
    if record.status == "done":
        yield from plausibility.check_dev(record)
        yield known.check_dev_labels(case, record)
        yield from plausibility.check_selection(record)
        yield from plausibility.check_audit(record)
    else:
        yield from (not_checked(name, "the run failed") for name in ("dev", "selection"))
    yield from plausibility.check_cost(record)
    yield from plausibility.check_text(record, case.text, now)
    yield _check_code(record, commits)


def _check_stated(case: _Case, record: Record, now: datetime) -> Iterator[Finding]:
    """What is left of external predictions: who made them, and how, is stated and cannot be checked."""
    assert record.external is not None
    if isinstance(case.outcomes, Predictions):
        given = case.outcomes
        found = split_checksum(given.classes, given.ids, given.dialogues, given.positions, given.speakers, given.true)
        if found == record.external.test_split:
            yield passed("test split", "its checksum is that of the utterances and labels of its predictions")
        else:
            yield refused("test split", "external.test_split is not the checksum of the utterances of its predictions")
    yield not_checked("selection", f"stated by its submitter: {record.external.selection_rule}")
    yield not_checked("system", "what made the predictions, and from what, is stated by its submitter")
    yield from plausibility.check_text(record, case.text, now)


def _card_of(record: Record, data_root: Path | None) -> tuple[DatasetCard | None, str]:
    """The dataset's card, or why there is none."""
    shelf = registry.datasets(data_root)
    try:
        return shelf.find(record.dataset).card, ""
    except UnknownNameError:
        near = nearest_names(record.dataset, shelf.plugins)
        hint = f"; did it mean {' or '.join(near)}?" if near else ""
        return None, f"no dataset is called {record.dataset} here{hint}"
    except MerBenchError as error:
        return None, str(error).rstrip(".")


def _check_licence(case: _Case, card: DatasetCard) -> Iterator[Finding]:
    if case.outcomes is None:
        return
    if isinstance(case.outcomes, Predictions) and not card.redistribute:
        yield refused(
            "licence",
            f"its predictions hold labels of utterances of {card.title}, which may not be passed on; "
            "a run writes dialogue counts instead",
        )
    elif isinstance(case.outcomes, DialogueCounts) and card.redistribute:
        yield refused(
            "licence", f"its predictions hold dialogue counts only, but {card.title} lets labels be passed on"
        )
    else:
        yield passed("licence", "nothing that may not be passed on")


def _check_code(record: Record, commits: dict[str, bool]) -> Finding:
    """Whether the code that ran can be looked up."""
    if record.model_code is not None:
        return not_checked("code", f"the model's code came with {record.model_code.origin}, not with mer-bench")
    shelf = registry.models()
    if record.kind == "run" and record.model not in shelf.plugins:
        return not_checked("code", f"no model is called {record.model} here")
    card = shelf.plugins[record.model].card if record.model in shelf.plugins else None
    if card and record.kind == "run" and record.model_version != card.version:
        return not_checked("code", f"it is of version {record.model_version} of the model, and here is {card.version}")
    commit = record.machine.commit if record.machine else None
    if not commit:
        return not_checked("code", "the record names no commit")
    if not commits.get(commit, False):
        return not_checked("code", f"its commit {commit[:12]} is not known here")
    return passed("code", f"its commit {commit[:12]} is known here")


def _known_commits(commits: set[str | None]) -> dict[str, bool]:
    """Which commits the checkout of this package knows; empty where there is no checkout or no git."""
    asked = sorted(each for each in commits if each and len(each) == 40 and set(each) <= _COMMIT_LETTERS)
    checkout = Path(__file__).resolve().parents[2]
    if not asked or not (checkout / ".git").exists():
        return {}
    try:
        answer = subprocess.run(
            ["git", "-C", str(checkout), "cat-file", "--batch-check=%(objectname) %(objecttype)"],
            input="\n".join(asked),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict.fromkeys((line.split()[0] for line in answer.stdout.splitlines() if line.endswith(" commit")), True)


@dataclass(frozen=True)
class _Witness:
    """A record that says something of its table: which record, whether it is trusted, and what it says."""

    name: str
    is_trusted: bool
    said: Any


class _Known:
    """What all records together, and the prepared stores, say of each table."""

    def __init__(self, prepared: Callable[[Record], Prepared | None]) -> None:
        self._prepared = prepared
        self._stores: dict[tuple[Any, ...], Prepared | None] = {}
        self._said: dict[tuple[Any, ...], list[_Witness]] = {}

    def add(self, case: _Case) -> None:
        """Take in what a record says of its table."""
        record = case.record
        if record is None:
            return
        self._note(case, ("sources", *_table_of(record)), _sources_of(record))
        self._note(case, ("widths", *_table_of(record), *record.modalities), _widths_of(record))
        if case.layout is not None:
            self._note(case, ("test", *_table_of(record)), _layout_key(case.layout), case.layout)
        if (dev := _dev_labels(record)) is not None:
            self._note(case, ("dev", *_table_of(record)), dev)

    def _note(self, case: _Case, key: tuple[Any, ...], said: Hashable, whole: Any = None) -> None:
        self._said.setdefault(key, []).append(_Witness(case.name, case.is_trusted, (said, whole)))

    def check_sources(self, case: _Case, record: Record) -> Finding:
        """Its features were made from the same files in the same way as those of the other records of the table."""
        own = _sources_of(record)
        store = self._store(record) if record.features_detail is not None else None
        if store is not None:
            if store.sources == own:
                return passed("sources", "as those of the prepared store on this machine")
            return refused(
                "sources",
                f"its features were made from other files, or in another way, than the store here: {own[:12]}…",
            )
        return self._agreed(
            "sources",
            case,
            ("sources", *_table_of(record)),
            own,
            lambda other: f"its features were made from other files, or in another way, than those of {other.name}",
        )

    def check_widths(self, case: _Case, record: Record) -> Finding:
        """Its features are as wide as those of the other records of the table."""
        return self._agreed(
            "widths",
            case,
            ("widths", *_table_of(record), *record.modalities),
            _widths_of(record),
            lambda other: f"its features have other widths than those of {other.name}",
        )

    def check_utterances(self, case: _Case, record: Record, card: DatasetCard | None) -> Finding:
        """Every utterance of the test split is predicted once, with the labels that it has."""
        layout = case.layout
        if layout is None:
            return not_checked("utterances", "there are no predictions to look at")
        if record.kind == "external":
            return self._check_labelled(layout, record)
        store = self._store(record)
        if store is not None:
            wrong = difference(layout, layout_of(store.test), "the prepared store on this machine")
            said = wrong or "each of the prepared store on this machine once, with its label"
            return refused("utterances", wrong) if wrong else passed("utterances", said)
        found = self._agreed(
            "utterances",
            case,
            ("test", *_table_of(record)),
            _layout_key(layout),
            lambda other: difference(layout, other.said[1], other.name),
        )
        counts = card.counts.get(record.protocol.partition("/")[2], {}).get("test") if card else None
        if found.state != "not checked" or counts is None:
            return found
        told = len(layout.dialogues), sum(each.utterances for each in [case.outcomes] if each)
        # Counts by dialogue leave out what has no label, so that there may be fewer.
        fits = told[1] == counts.utterances if layout.utterances else told[1] <= counts.utterances
        if fits and told[0] == counts.dialogues:
            return replace(found, said=f"as many as the test split has, but {found.said}")
        return refused(
            "utterances",
            f"{told[1]} utterances of {told[0]} dialogues are predicted, "
            f"but the test split has {counts.utterances} of {counts.dialogues}",
        )

    def _check_labelled(self, layout: Layout, record: Record) -> Finding:
        """External predictions are of the labelled utterances that the runs of any feature set were scored on."""
        store = self._store(record)
        if store is not None:
            known, origin = [layout_of(store.test).labelled], "the prepared store on this machine"
        else:
            where = record.dataset, record.labels, record.protocol, record.protocol_version
            witnesses = [
                each
                for (what, *table), said in self._said.items()
                if what == "test" and (table[0], table[1], table[3], table[4]) == where
                for each in said
                if each.said[1] is not layout
            ]
            heard = [each for each in witnesses if each.is_trusted] or witnesses
            known = [each.said[1].labelled for each in heard]
            origin = heard[0].name if heard else ""
        if not known:
            return not_checked("utterances", "no other record of this test split is known here")
        if any(layout.labelled.agrees(each) for each in known):
            return passed("utterances", f"each that has a label once, as in {origin}")
        return refused("utterances", difference(layout.labelled, known[0], origin))

    def check_dev_labels(self, case: _Case, record: Record) -> Finding:
        """The dev split has the labels that it has in the other records of the table."""
        own = _dev_labels(record)
        if own is None:
            return not_checked("dev labels", "the record has no dev scores")
        return self._agreed(
            "dev labels",
            case,
            ("dev", *_table_of(record)),
            own,
            lambda other: f"its dev split has other labels than that of {other.name}",
        )

    def _store(self, record: Record) -> Prepared | None:
        key = _table_of(record)
        if key not in self._stores:
            self._stores[key] = self._prepared(record)
        return self._stores[key]

    def _agreed(
        self,
        check: str,
        case: _Case,
        key: tuple[Any, ...],
        own: Hashable,
        tell: Callable[[_Witness], str],
    ) -> Finding:
        """Whether a record says what the trusted ones say; where there are none, what most say."""
        witnesses = self._said.get(key, [])
        trusted = [each for each in witnesses if each.is_trusted]
        heard = trusted or witnesses
        votes = Counter(each.said[0] for each in heard)
        if not trusted and len(heard) < 2:
            return not_checked(check, "no other record of this table is known here")
        most = max(votes.values())
        winners = {said for said, count in votes.items() if count == most}
        if own in winners and (trusted or len(winners) == 1):
            others = votes[own] - (0 if trusted else 1)
            return passed(check, f"as in {_so_many(others)} of the table")
        other = next(each for each in heard if each.said[0] in winners and each.said[0] != own)
        doubt = "" if trusted or own not in winners else "; no further record says which of the two is right"
        return refused(check, tell(other) + doubt)


def _table_of(record: Record) -> tuple[Any, ...]:
    """What decides which utterances a record is about."""
    return record.dataset, record.labels, record.features, record.protocol, record.protocol_version


def _so_many(records: int) -> str:
    return f"{records} other record{'s' if records > 1 else ''}"


def _split_of(record: Record) -> tuple[str, ...]:
    return record.dataset, record.labels, record.protocol


def _sources_of(record: Record) -> str:
    return record.sources


def _widths_of(record: Record) -> Hashable:
    return tuple(sorted(record.features_detail.widths.items())) if record.features_detail else ()


def _layout_key(layout: Layout) -> Hashable:
    return layout.digest, layout.utterances.digest if layout.utterances else ""


def _dev_labels(record: Record) -> Hashable | None:
    given = [each for each in (*(fold.dev for fold in record.folds), None if record.folds else record.dev) if each]
    if not given:
        return None
    return tuple(
        (
            each.emotion_shift_support,
            *((name, of_class.support) for name, of_class in each.classes.items()),
            *(
                (name, part.dialogues, part.utterances, part.emotion_shift_support)
                for name, part in each.subsets.items()
            ),
        )
        for each in given
    )


def _compare_with_each_other(cases: Sequence[_Case]) -> None:
    """Add what only shows in several records: the same run twice, and predictions or curves of somebody else."""
    sound = [case for case in cases if case.record is not None and case.record.status == "done"]
    records = [case.record for case in sound if case.record is not None]
    said: dict[int, str] = {}
    for pair in [
        *_same_runs(records),
        *alike(records, [case.outcomes for case in sound]),
        *same_curves(records),
    ]:
        for own, other in ((pair.first, pair.second), (pair.second, pair.first)):
            if _replaces(records[own], records[other]):
                continue
            there = " (there already)" if sound[other].is_trusted else ""
            said.setdefault(own, f"{sound[other].name}{there}: {pair.said}")
    for place, case in enumerate(sound):
        if case.is_trusted:
            continue
        if place in said:
            case.findings.append(refused("copies", f"compared with {said[place]}"))
        elif others := sum(_split_of(records[place]) == _split_of(other) for other in records) - 1:
            case.findings.append(
                passed("copies", f"unlike {others} other record{'s' if others > 1 else ''} of its test")
            )
        else:
            case.findings.append(not_checked("copies", "there is no other record to compare it with"))


def _replaces(record: Record, older: Record) -> bool:
    """Whether a record is the very run of another one, and says more of it: what the audit found."""
    same = record.identity == older.identity and record.predictions == older.predictions
    return same and record.audit is not None and older.audit is None


def _same_runs(records: Sequence[Record]) -> Iterator[Alike]:
    """Records of one and the same run, whatever identity they state: a seed counts once in a row."""
    seen: dict[Hashable, int] = {}
    for place, record in enumerate(records):
        key = plausibility.what_decides(record)
        first = seen.setdefault(key, place)
        if first != place:
            yield Alike(first, place, f"both are the same run with seed {record.seed}, which counts once")
