"""What all records together, and the prepared stores of this machine, say of a table: each record is held against it.

Trusted records are believed. Where there are none, those that are handed in are compared with each other, and what
most of them say counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

from mer_bench.cards import DatasetCard
from mer_bench.leaderboard.case import Case
from mer_bench.leaderboard.findings import Finding, not_checked, passed, refused
from mer_bench.leaderboard.layout import Layout, difference, layout_of
from mer_bench.leaderboard.words import counted
from mer_bench.predictions import Predictions
from mer_bench.records import Record


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
class Witness:
    """A record that says something of its table: which record, whether it is trusted, and what it says."""

    name: str
    is_trusted: bool
    said: Any


class Witnesses:
    """What all records together, and the prepared stores, say of each table."""

    def __init__(self, prepared: Callable[[Record], Prepared | None]) -> None:
        self._prepared = prepared
        self._stores: dict[tuple[Any, ...], Prepared | None] = {}
        self._said: dict[tuple[Any, ...], list[Witness]] = {}

    def add(self, case: Case) -> None:
        """Take in what a record says of its table."""
        record = case.record
        if record is None:
            return
        self._note(case, ("sources", *_table_of(record)), record.sources)
        self._note(case, ("widths", *_table_of(record), *record.modalities), _widths_of(record))
        if case.layout is not None:
            self._note(case, ("test", *_table_of(record)), _layout_key(case.layout), case.layout)
        if (dev := _dev_labels(record)) is not None:
            self._note(case, ("dev", *_table_of(record)), dev)

    def _note(self, case: Case, key: tuple[Any, ...], said: Hashable, whole: Any = None) -> None:
        self._said.setdefault(key, []).append(Witness(case.name, case.is_trusted, (said, whole)))

    def check_sources(self, case: Case, record: Record) -> Finding:
        """Its features were made from the same files in the same way as those of the other records of the table."""
        own = record.sources
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

    def check_widths(self, case: Case, record: Record) -> Finding:
        """Its features are as wide as those of the other records of the table."""
        return self._agreed(
            "widths",
            case,
            ("widths", *_table_of(record), *record.modalities),
            _widths_of(record),
            lambda other: f"its features have other widths than those of {other.name}",
        )

    def check_utterances(self, case: Case, record: Record, card: DatasetCard | None) -> Finding:
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

    def check_dev_labels(self, case: Case, record: Record) -> Finding:
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
        case: Case,
        key: tuple[Any, ...],
        own: Hashable,
        tell: Callable[[Witness], str],
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
            return passed(check, f"as in {counted(others, 'other record')} of the table")
        other = next(each for each in heard if each.said[0] in winners and each.said[0] != own)
        doubt = "" if trusted or own not in winners else "; no further record says which of the two is right"
        return refused(check, tell(other) + doubt)


def _table_of(record: Record) -> tuple[Any, ...]:
    """What decides which utterances a record is about."""
    return record.dataset, record.labels, record.features, record.protocol, record.protocol_version


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
