"""Records that somebody hands in: is what they say what their predictions give, and are those his own?

A record is compared with its own predictions, with the dataset's card, with the records that are there already, with
the others that are handed in beside it, and with a prepared store where this machine has one. What there is nothing
to compare with is told as not checked, never as right. Works without torch and without data.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mer_bench import registry
from mer_bench.cards import DatasetCard
from mer_bench.errors import MerBenchError, RequestError, UnknownNameError, nearest_names
from mer_bench.identity import split_checksum
from mer_bench.leaderboard import plausibility
from mer_bench.leaderboard.case import Case
from mer_bench.leaderboard.copies import Alike, alike, same_curves
from mer_bench.leaderboard.findings import Finding, not_checked, passed, refused
from mer_bench.leaderboard.witnesses import Prepared, Witnesses
from mer_bench.leaderboard.words import counted
from mer_bench.predictions import Decoder, DialogueCounts, Predictions
from mer_bench.records import Record

_COMMIT_LETTERS = frozenset("0123456789abcdef")


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
    known, decoder = Witnesses(prepared), Decoder()
    cases: list[Case] = []
    datasets: set[str] = set()
    count = len(files) + len(others)
    for place, file in enumerate([*files, *others]):
        case = Case(file, is_trusted=place >= len(files))
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


def _findings(
    case: Case, record: Record, known: Witnesses, data_root: Path | None, commits: dict[str, bool], now: datetime
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


def _check_stated(case: Case, record: Record, now: datetime) -> Iterator[Finding]:
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


def _check_licence(case: Case, card: DatasetCard) -> Iterator[Finding]:
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


def _split_of(record: Record) -> tuple[str, ...]:
    return record.dataset, record.labels, record.protocol


def _compare_with_each_other(cases: Sequence[Case]) -> None:
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
            case.findings.append(passed("copies", f"unlike {counted(others, 'other record')} of its test"))
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
